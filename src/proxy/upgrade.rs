//! Upgrades: the service's own 101 goes back first, then raw bytes flow both ways.

use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::{
    body::ProxyBody,
    head,
    service::BoxError,
    splice::{Splice, SpliceEnd},
    status::error_of,
};
use crate::{
    error::{Error, ErrorKind},
    key::AgentKey,
    tunnel::TunnelStream,
};

/// Sends a request that asks for an upgrade, on a stream of its own, since that is used up by it.
///
/// The task that carries the connection ends with it, also when this future is dropped before the answer.
pub(super) async fn send<B>(stream: TunnelStream, request: Request<B>) -> Result<Response<Incoming>, Error>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(error_of)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "the connection of an upgrade failed");
        }
    });
    sender.send_request(request).await.map_err(error_of)
}

/// The service switches: passes its 101 on, and has bytes copied once the host has sent it.
pub(super) fn switch(key: &AgentKey, caller: OnUpgrade, mut response: Response<Incoming>) -> Response<ProxyBody> {
    let service = hyper::upgrade::on(&mut response);
    let key = key.clone();
    tokio::spawn(async move {
        match carry(caller, service).await {
            Ok(end) => debug!(%key, ?end, "an upgraded connection ended"),
            Err(error) => debug!(%key, ?error, "an upgrade failed; does the host serve with upgrades?"),
        }
    });
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    head::switching(response.headers_mut());
    response.map(|_| ProxyBody::default())
}

async fn carry(caller: OnUpgrade, service: OnUpgrade) -> Result<SpliceEnd, Error> {
    let service = service.await.map_err(error_of)?.downcast::<TunnelStream>();
    let parts = service.map_err(|_| Error::with_source(ErrorKind::Internal, "no stream below"))?;
    match caller.await {
        Ok(caller) => Ok(Splice::new(TokioIo::new(caller), parts.io, parts.read_buf).await),
        Err(error) => {
            // The service must not take the silence of a caller that is gone for its end.
            parts.io.reset();
            Err(error_of(error))
        }
    }
}
