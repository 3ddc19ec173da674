//! Upgrades: the service's own 101 goes back first, then raw bytes flow both ways.

use http::{Request, Response, StatusCode, request::Parts};
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
    link::Challenge,
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

/// An upgrade that is asked for and that the host can make.
pub(super) struct Wanted {
    caller: OnUpgrade,
    /// Asked for over HTTP/2: what the service is asked with in its place.
    connect: Option<Challenge>,
}

impl Wanted {
    /// Takes it from a request, which then asks for it as HTTP/1.1 has it.
    pub(super) fn take(parts: &mut Parts) -> Result<Option<Self>, Error> {
        if !head::is_websocket_connect(parts) {
            return Ok(head::wanted_upgrade(parts).map(|caller| Self { caller, connect: None }));
        }
        let Some(caller) = parts.extensions.remove() else { return Ok(None) };
        let challenge = Challenge::new();
        let key = challenge.value().map_err(|error| Error::with_source(ErrorKind::Internal, error))?;
        head::connect_to_upgrade(parts, key);
        Ok(Some(Self { caller, connect: Some(challenge) }))
    }

    /// Whether the caller would take an answer for the upgrade that is none: over HTTP/2 each success is.
    pub(super) fn is_taken_for_granted(&self, status: StatusCode) -> bool {
        self.connect.is_some() && status.is_success()
    }

    /// The service switches: passes its 101 on, or its meaning over HTTP/2, and has bytes copied once the host has sent it.
    pub(super) fn switch(self, key: &AgentKey, mut response: Response<Incoming>) -> Result<Response<ProxyBody>, Error> {
        match self.connect {
            None => head::switching(response.headers_mut()),
            Some(challenge) => {
                challenge.check(response.headers()).map_err(|wrong| {
                    Error::with_source(ErrorKind::PeerReset, format!("a 101 with a missing or wrong {wrong}"))
                })?;
                head::switching_to_connected(response.headers_mut());
                *response.status_mut() = StatusCode::OK;
            }
        }
        let service = hyper::upgrade::on(&mut response);
        let (key, caller) = (key.clone(), self.caller);
        tokio::spawn(async move {
            match carry(caller, service).await {
                Ok(end) => debug!(%key, ?end, "an upgraded connection ended"),
                Err(error) => debug!(%key, ?error, "an upgrade failed; does the host serve with upgrades?"),
            }
        });
        Ok(response.map(|_| ProxyBody::default()))
    }
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
