//! The layer in plain hyper, in axum and around any service.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use revdial::{
    connman::ConnectionManager,
    server::{RevDialLayer, RevDialService, SharedBearer},
};
use tower::{Layer, Service};

use crate::{
    URI, ask, echo, full, granted, key, layer,
    raw::{RawAgent, send, serve, text, upgrade},
    status,
};

#[tokio::test]
async fn o2_what_is_not_for_the_layer_goes_to_the_inner_service_untouched() {
    let layer = layer(&ConnectionManager::new());
    for path in ["/", "/api/v1/revdial/", "/api/v1/Revdial", "/api/v1/revdial%2f", "/x/api/v1/revdial"] {
        let request = upgrade(&format!("{path}?runnerid=a")).method("PUT").body(Full::from("body")).unwrap();
        let body = ask(&layer, request).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("{path} body"));
    }
    let moved = layer.at("/t").unwrap();
    assert_eq!(status(&moved, granted("/t?runnerid=a")).await, 101);
    assert_eq!(status(&moved, granted(URI)).await, 200);
}

/// Neither `Clone` nor `Send`, with an error of its own and a body that is only `Default`; ready once at a time.
struct Plain {
    ready: bool,
    _not_send: std::rc::Rc<()>,
}

#[derive(Debug, PartialEq)]
struct PlainError;

impl Service<Request<()>> for Plain {
    type Response = Response<String>;
    type Error = PlainError;
    type Future = Ready<Result<Response<String>, PlainError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PlainError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "the readiness that was polled is the one that is used");
        ready(if request.uri().path() == "/fail" { Err(PlainError) } else { Ok(Response::new("inner".to_owned())) })
    }
}

#[tokio::test]
async fn the_inner_service_needs_nothing_but_a_default_body() {
    let plain = Plain { ready: false, _not_send: std::rc::Rc::new(()) };
    let mut service: RevDialService<Plain, SharedBearer> = layer(&ConnectionManager::new()).layer(plain);
    let mut call = async |request: http::request::Builder| {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        service.call(request.body(()).unwrap()).await
    };
    assert_eq!(call(Request::get("/")).await.unwrap().into_body(), "inner");
    assert_eq!(call(Request::get("/fail")).await.unwrap_err(), PlainError);
    let refused = call(upgrade(URI)).await.unwrap();
    assert_eq!((refused.status(), refused.body().as_str()), (StatusCode::UNAUTHORIZED, ""));
}

#[test]
fn the_layer_and_what_it_makes_fit_into_threaded_servers() {
    fn fits<T: Clone + Send + Sync + 'static>(_: &T) {}
    let layer = layer(&ConnectionManager::new());
    fits(&layer);
    fits(&layer.layer(tower::service_fn(echo::<Incoming>)));
    fits(&layer.into_service());
}

#[test]
fn nothing_secret_is_shown_in_debug() {
    let layer = RevDialLayer::new(ConnectionManager::new(), SharedBearer::new("s3cret").unwrap());
    assert!(!format!("{layer:?} {:?}", layer.clone().into_service()).contains("s3cret"));
}

/// Opens a tunnel through whatever serves, and looks whether it is there.
async fn opens<B>(service: impl ServerOf<B>, connman: &ConnectionManager, uri: &str) {
    let refused = send(service.clone().serve(), full(upgrade(uri))).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let agent = RawAgent::connect(service.serve(), granted(uri), 1).await;
    assert!(connman.epoch(&key("a")).is_some());
    drop(agent);
}

/// A service that `raw::serve` takes.
trait ServerOf<B>: Clone {
    fn serve(self) -> tokio::io::DuplexStream;
}

impl<S, B> ServerOf<B> for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: hyper::body::Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    fn serve(self) -> tokio::io::DuplexStream {
        serve(self)
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_layer_opens_tunnels_in_plain_hyper() {
    let connman = ConnectionManager::new();
    let service = layer(&connman).layer(tower::service_fn(echo::<Incoming>));
    opens(service.clone(), &connman, URI).await;
    let request = Request::get("/hello").header(header::HOST, "gateway");
    assert_eq!(text(send(serve(service), full(request)).await).await, "/hello ");
}

#[tokio::test(start_paused = true)]
async fn the_same_layer_opens_tunnels_in_axum() {
    let connman = ConnectionManager::new();
    let hello = || axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
    let app = hello().layer(layer(&connman));
    opens(app.clone(), &connman, URI).await;
    let request = Request::get("/hello").header(header::HOST, "gateway");
    assert_eq!(text(send(serve(app), full(request)).await).await, "hello");
    // A router without routes but the layer's.
    opens(axum::Router::new().layer(layer(&connman)), &connman, URI).await;
}

#[tokio::test(start_paused = true)]
async fn the_service_is_mounted_in_axum_and_below_a_nest() {
    let connman = ConnectionManager::new();
    let tunnels = layer(&connman).at("/t").unwrap().into_service();
    opens(tunnels.clone(), &connman, "/t?runnerid=a").await;
    let app = axum::Router::new().route_service("/t", tunnels);
    opens(app.clone(), &connman, "/t?runnerid=a").await;
    opens(axum::Router::new().nest("/api", app), &connman, "/api/t?runnerid=a").await;
}
