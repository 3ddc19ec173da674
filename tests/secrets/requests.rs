//! Requests of a user who is known to the service behind, through the proxy.

use std::convert::Infallible;

use http::{Request, Response, Uri, header, request};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use revdial::{AgentKey, Error, TargetName, connector::RevDialConnector, connman::ConnectionManager, proxy::Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::{COOKIE, USERS, output::Output, raw};

/// Asks the agent `a`, for what it has not too, and one that is not there: with the opening of the stream and after it.
pub(crate) async fn all(connman: &ConnectionManager, output: &mut Output) {
    for early_data in [true, false] {
        let proxy = Proxy::builder(connman.clone()).early_data(early_data).build();
        output.show(&proxy);
        let to =
            async |key: &str, target: &str, request| answered(&proxy, key, target, request).await.status().as_u16();
        assert_eq!(to("a", "", known("GET").body(Full::default())).await, 200);
        assert_eq!(to("a", "", known("POST").body(Full::from(USERS))).await, 200);
        assert_eq!(to("a", "nothing-there", known("GET").body(Full::default())).await, 502);
        assert_eq!(to("nobody", "", known("GET").body(Full::default())).await, 503);
        let elsewhere = known("GET").uri(format!("http://elsewhere/?token={USERS}"));
        assert_eq!(to("a", "", elsewhere.body(Full::default())).await, 400);
        upgraded(&proxy).await;
    }
    let uri = Uri::try_from(format!("http://{USERS}:{USERS}@a/?token={USERS}")).unwrap();
    let refused = RevDialConnector::new(connman.clone()).oneshot(uri).await.map(drop).unwrap_err();
    output.show_error(Error::find(&refused).unwrap());
}

fn known(method: &str) -> request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("/?token={USERS}"))
        .header(header::HOST, "gateway")
        .header(header::AUTHORIZATION, format!("Bearer {USERS}"))
        .header(header::COOKIE, COOKIE)
}

async fn answered(
    proxy: &Proxy<Incoming>,
    key: &str,
    target: &str,
    request: http::Result<Request<Full<Bytes>>>,
) -> Response<Incoming> {
    let (proxy, key, target): (_, AgentKey, TargetName) =
        (proxy.clone(), key.parse().unwrap(), target.parse().unwrap());
    let forward = tower::service_fn(move |request: Request<Incoming>| {
        let (proxy, key, target) = (proxy.clone(), key.clone(), target.clone());
        async move { Ok::<_, Infallible>(proxy.forward(&key, &target, request).await) }
    });
    raw::send(raw::serve(forward), request.unwrap()).await
}

/// A WebSocket of the user's, whose messages are nobody's business.
async fn upgraded(proxy: &Proxy<Incoming>) {
    let request = known("GET")
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_PROTOCOL, format!("bearer.{USERS}"));
    let response = answered(proxy, "a", "", request.body(Full::default())).await;
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(USERS.as_bytes()).await.unwrap();
    let mut back = vec![0; USERS.len()];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(back, USERS.as_bytes());
}
