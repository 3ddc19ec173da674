//! How long a single call waits, by a connector's setting and by what a request to a proxy carries.

use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use revdial::{
    ErrorKind,
    connector::RevDialConnector,
    connman::ConnectionManager,
    proxy::{Destination, MaxWait, Proxy},
};
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};

use crate::{Running, counted::Counted, in_grace, key, net::Net};

const SECOND: Duration = Duration::from_secs(1);

/// An agent that was lost a moment ago.
async fn lost() -> (ConnectionManager, Net, Running) {
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let agent = Running::on(&net).await;
    net.down(true);
    net.cut();
    in_grace(&connman).await;
    (connman, net, agent)
}

#[tokio::test(start_paused = true)]
async fn a_connector_waits_for_as_long_as_it_is_told() {
    let (connman, _net, _agent) = lost().await;
    for most in [0, 4] {
        let start = Instant::now();
        let mut connector = RevDialConnector::new(connman.clone()).max_wait(most * SECOND);
        let error = connector.call("http://a/".parse().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (ErrorKind::ReconnectTimeout, most * SECOND));
    }
}

/// The answer to a request that waits for so long: its status, its text, whether it may be made again.
async fn ask(proxy: &Proxy<Empty<Bytes>>, upgrade: bool, most: Option<Duration>) -> (u16, String, bool) {
    let mut request = Request::builder().uri("/").header(header::HOST, "a");
    if upgrade {
        request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, "websocket");
    }
    let mut request = request.body(Empty::new()).unwrap();
    request.extensions_mut().insert(Destination::new(key(), "".parse().unwrap()));
    if let Some(most) = most {
        request.extensions_mut().insert(MaxWait::new(most));
    }
    let response = proxy.clone().oneshot(request).await.unwrap();
    let (status, again) = (response.status().as_u16(), response.headers().contains_key(header::RETRY_AFTER));
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap(), again)
}

#[tokio::test(start_paused = true)]
async fn a_request_says_for_how_long_it_waits_for_its_agent() {
    let counted = Counted::new();
    let (connman, _net, _agent) = lost().await;
    let proxy = Proxy::new(connman.clone());
    let late = (503, "reconnect_timeout".to_owned(), true);
    for upgrade in [false, true] {
        for most in [0, 4] {
            let start = Instant::now();
            assert_eq!(ask(&proxy, upgrade, Some(most * SECOND)).await, late);
            assert_eq!((start.elapsed(), connman.stats().pending_dials_total), (most * SECOND, 0));
        }
    }
    assert_eq!(counted.sum("revdial_dial_failures_total{reconnect_timeout}"), 4);
    assert_eq!(counted.values("revdial_dial_duration_seconds{error}"), [0.0, 4.0, 0.0, 4.0], "each is a failed dial");
    // Without a word, for what is left of the grace.
    let start = Instant::now();
    assert_eq!(ask(&proxy, false, None).await, late);
    assert_eq!(start.elapsed(), 22 * SECOND);
    assert_eq!(ask(&proxy, false, Some(4 * SECOND)).await, (503, "no_connection".to_owned(), true));
}
