//! The server's face: a tower layer that lets agents open tunnels on one path of any HTTP service.
//!
//! [`RevDialLayer`] goes around a service, [`RevDialLayer::into_service`] stands on its own. Either way the tunnels are
//! registered with a [`ConnectionManager`](crate::connman::ConnectionManager), from which others dial through them.
//! Who may open one is for an [`Authorize`] to say: [`KeyedBearer`], [`SharedBearer`], a closure, or a type of yours.
//!
//! # In axum
//!
//! Put the layer on last: it does not see routes and fallbacks that are added after it.
//!
//! ```
//! use axum::{Router, routing::get};
//! use revdial::{connman::ConnectionManager, server::{KeyedBearer, RevDialLayer}};
//!
//! let connman = ConnectionManager::new();
//! let layer = RevDialLayer::new(connman.clone(), KeyedBearer::new("secret")?);
//! let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(layer);
//! # let _ = app;
//! # Ok::<(), revdial::Error>(())
//! ```
//!
//! Inside `Router::nest` a layer only sees what the nested router has routes for, with the prefix stripped from the
//! path. There, mount the service; not by `get(..)`, because over HTTP/2 the request is a `CONNECT`:
//!
//! ```
//! # use axum::Router;
//! # use revdial::{connman::ConnectionManager, server::{KeyedBearer, RevDialLayer}};
//! # let connman = ConnectionManager::new();
//! let tunnels = RevDialLayer::new(connman, KeyedBearer::new("secret")?).at("/revdial")?.into_service();
//! let api: Router = Router::new().route_service("/revdial", tunnels);
//! let app: Router = Router::new().nest("/api/v1", api);
//! # let _ = app;
//! # Ok::<(), revdial::Error>(())
//! ```
//!
//! # In hyper, and in any tower stack
//!
//! Serve with upgrades, or no tunnel comes about and the log says so: `with_upgrades()` in hyper,
//! `serve_connection_with_upgrades()` in hyper-util. `axum::serve` does it; tonic's own server does not.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use hyper::{body::{Bytes, Incoming}, server::conn::http1};
//! use hyper_util::{rt::{TokioIo, TokioTimer}, service::TowerToHyperService};
//! use revdial::{connman::ConnectionManager, server::{KeyedBearer, RevDialLayer}};
//! use tower::ServiceBuilder;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connman = ConnectionManager::new();
//! let service = ServiceBuilder::new()
//!     .layer(RevDialLayer::new(connman.clone(), KeyedBearer::new("secret")?))
//!     .service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
//!
//! # let (client, accepted) = tokio::io::duplex(4096);
//! let connection = http1::Builder::new()
//!     .timer(TokioTimer::new())
//!     .serve_connection(TokioIo::new(accepted), TowerToHyperService::new(service))
//!     .with_upgrades();
//! tokio::spawn(connection);
//!
//! // Who asks without credentials is told so.
//! # let (mut send, driver) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await?;
//! # tokio::spawn(driver);
//! let request = Request::get("/api/v1/revdial?runnerid=desktop-7")
//!     .header("host", "gateway")
//!     .header("connection", "upgrade")
//!     .header("upgrade", "websocket")
//!     .body(Empty::<Bytes>::new())?;
//! assert_eq!(send.send_request(request).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Over HTTP/2
//!
//! The same layer opens tunnels by extended `CONNECT` (RFC 8441), answered 200: the same checks in the same order, the
//! same protocols, several tunnels on one connection if an agent or a proxy likes. The host has to allow it:
//! `http2().enable_connect_protocol()` in hyper and hyper-util; `axum::serve` does so with axum's feature `http2`. The
//! tunnels of one connection share its window and its fate, so one connection each is better where there is a choice;
//! and its socket is out of this layer's reach, so set `TCP_NODELAY` when you accept it.
//!
//! # What a request is answered
//!
//! In this order: 431 a head over 16 KiB or 100 headers · 405 not `GET` · 426 no upgrade to WebSocket · 403 an `Origin`
//! that is not [allowed](RevDialLayer::allow_origin) · 429 too many
//! [failures from there](RevDialLayer::max_auth_failures) · 503 too many [handshakes](RevDialLayer::max_handshakes) ·
//! what [`Authorize`] says (401, 400, 403, 429, 503; 500 when it panics, 408 when it takes too long) · 503 too many
//! [tunnels](crate::connman::ConnectionManagerBuilder::max_tunnels) · 426 WebSocket version · 400 WebSocket key, or a
//! body · 426 subprotocols of which none is `revdial.v1` · 101, or over HTTP/2 200. Each 429 and 503 has `Retry-After`.
//! Answers have no body, and nothing in them comes from the request. What is not on the layer's path goes to the inner
//! service untouched.
//!
//! An agent that offers no subprotocol speaks the [dial-back](crate::dialback) protocol. It knows no close codes, so that
//! 403 (somebody else's key), 409 (key in use, and the policy rejects) and 503 are told before the 101. A request with
//! `revdial.dialer` or `revdial.req` is one of its pick-ups: it is judged under the key of the agent that was asked, then
//! answered 404 unknown · 403 of another agent or principal · 410 picked up before, or too late.
//!
//! After the 101 a link is refused by a close: 4408 no HELLO in time, 4420 one that cannot be, 4409 older than another
//! link of its key or attempt of its session, 4411 key in use, 4403 key or session of somebody else, 4429 the eleventh in a
//! row that brought nothing through, 1013 overloaded, 1001 draining or shutting down. A tunnel that is open is closed with
//! 4401 when its grant [expires](Grant::expires_in) or is found [revoked](Authorize::recheck).
//!
//! Each refusal, before and after the 101, is counted once and logged with its reason, in a span `revdial.handshake` that
//! tells the key, if the request names one that can be, and the [address](RevDialLayer::peer_addr).
//!
//! # Limits, and the host's share in them
//!
//! A connection that has sent no whole head yet, and one that was accepted and says nothing, is the host's: bound both by
//! its server's `header_read_timeout`. So is the listening socket. Each tunnel holds a file descriptor for as long as it
//! lives, and so does each stream of a dial-back agent: keep
//! [`max_tunnels`](crate::connman::ConnectionManagerBuilder::max_tunnels) well below `ulimit -n`. Where descriptors run
//! out all the same, tunnels that are open go on, and a good accept loop waits a moment and goes on, too, as that of
//! `axum::serve` does. One of your own must not end with the first error:
//!
//! ```
//! use std::time::Duration;
//! use tokio::net::{TcpListener, TcpStream};
//!
//! async fn accept(listener: &TcpListener) -> TcpStream {
//!     loop {
//!         match listener.accept().await {
//!             Ok((socket, _)) => {
//!                 let _ = socket.set_nodelay(true); // one that is closed already says so when it is read
//!                 return socket;
//!             }
//!             Err(error) => {
//!                 tracing::warn!(%error, "a connection was not accepted");
//!                 tokio::time::sleep(Duration::from_millis(100)).await;
//!             }
//!         }
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let (_client, server) = tokio::join!(TcpStream::connect(listener.local_addr()?), accept(&listener));
//! # assert!(server.nodelay()?);
//! # Ok(())
//! # }
//! ```
//!
//! # Other layers
//!
//! Time-outs, limits and traces of layers around this one see the handshake, not the tunnel. A layer that compresses
//! belongs inside. Drain the connection manager before the host's server stops: servers forget upgraded connections.

mod authorize;
mod bearer;
mod dialback;
mod failures;
mod future;
mod gate;
mod grant;
mod layer;
mod pickup;
mod register;
mod rejection;
mod route;
mod service;
mod term;
mod throttle;

// Setting up.
pub use layer::RevDialLayer;
// Who may.
pub use authorize::{Authorize, Standing};
pub use bearer::{KeyedBearer, SharedBearer};
pub use grant::Grant;
pub use rejection::Rejection;
pub use route::{BadKey, requested_key};
// What it becomes; to be named, not to be made.
pub use future::{LinkTask, ResponseFuture};
pub use service::{NoBody, NotFound, RevDialService};
