//! How a tunnel is opened, and what requests get that open none.
#![cfg(feature = "server")]

#[cfg(feature = "agent")]
mod agent;
mod callbacks;
#[path = "../support/classic.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod classic;
mod descriptors;
mod headers;
mod hosts;
mod http2;
mod limits;
mod link;
#[path = "../support/listed.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
mod listed;
#[cfg(feature = "agent")]
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
mod rate;
#[path = "../support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;
mod refusals;
mod term;

use std::{convert::Infallible, fmt::Debug, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use raw::upgrade;
use revdial::{
    AgentKey,
    connman::ConnectionManager,
    server::{Authorize, RevDialLayer, SharedBearer},
};
use tower::{Layer, ServiceExt};

const URI: &str = "/api/v1/revdial?runnerid=a";
const BEARER: &str = "Bearer token";

fn shared() -> SharedBearer {
    SharedBearer::new("token").unwrap()
}

fn layer(connman: &ConnectionManager) -> RevDialLayer<SharedBearer> {
    RevDialLayer::new(connman.clone(), shared())
}

fn key(text: &str) -> AgentKey {
    text.parse().unwrap()
}

fn granted(uri: &str) -> http::request::Builder {
    upgrade(uri).header(header::AUTHORIZATION, BEARER)
}

fn full(request: http::request::Builder) -> Request<Full<Bytes>> {
    request.body(Full::default()).unwrap()
}

/// Answers 200 with the path and the body that it got, so that a test sees what was passed on.
async fn echo<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
where
    B: Body<Data = Bytes, Error: Debug>,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Ok(Response::new(Full::from([parts.uri.path().as_bytes(), b" ", &body[..]].concat())))
}

/// One request to the layer by itself, around `echo`.
async fn ask<A: Authorize>(layer: &RevDialLayer<A>, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    layer.layer(tower::service_fn(echo::<Full<Bytes>>)).oneshot(request).await.unwrap()
}

async fn status<A: Authorize>(layer: &RevDialLayer<A>, request: http::request::Builder) -> u16 {
    ask(layer, full(request)).await.status().as_u16()
}

/// Waits until the server has seen the end of the link of `a`.
async fn gone(connman: &ConnectionManager) {
    while connman.epoch(&key("a")).is_some() {
        tokio::task::yield_now().await;
    }
}

/// Counts what is recorded on this thread while it lives.
struct Counted(Snapshotter);

impl Counted {
    fn within<R>(test: impl FnOnce(&Self) -> R) -> R {
        let recorder = DebuggingRecorder::new();
        let counted = Self(recorder.snapshotter());
        metrics::with_local_recorder(&recorder, || test(&counted))
    }

    /// All counters that a test moves.
    fn by<F: Future<Output = ()>>(test: F) -> Vec<String> {
        Self::within(|counted| {
            block_on(test);
            counted.take()
        })
    }

    /// All counters since the last call, as `name{value of its label}`.
    fn take(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (composite, _, _, value) in self.0.snapshot().into_vec() {
            let (DebugValue::Counter(count), key) = (value, composite.key()) else { continue };
            listed::check(key);
            let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
            names.extend((0..count).map(|_| format!("{}{{{}}}", key.name(), labels.join(","))));
        }
        names
    }
}

/// Runs a test in paused time, of which none takes hours.
fn block_on<R>(test: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(7200), test).await.expect("an end") };
    runtime.block_on(test)
}
