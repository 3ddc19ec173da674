//! The reverse proxy: an HTTP request, streamed to a target behind an agent, and the response streamed back.
//!
//! A [`Proxy`] works wherever requests come from: in an axum handler, as a [`Service`](tower_service::Service) in a
//! tower stack, below plain hyper. Whom a request is for is the host's to say:
//!
//! ```
//! use axum::{Router, body::Body, extract::{Path, Request, State}, http::Response, routing::any};
//! use revdial::{AgentKey, TargetName, connman::ConnectionManager, proxy::{Proxy, ProxyBody}};
//!
//! type State_ = State<Proxy<Body>>;
//!
//! /// `/vnc/desktop-7` is that path of the target `vnc` of the agent `desktop-7`.
//! async fn vnc(State(proxy): State_, Path(key): Path<String>, request: Request) -> Response<ProxyBody> {
//!     let (Ok(key), Ok(vnc)) = (key.parse::<AgentKey>(), "vnc".parse::<TargetName>()) else {
//!         return proxy.answer(&revdial::ErrorKind::InvalidInput.into());
//!     };
//!     proxy.forward(&key, &vnc, request).await
//! }
//!
//! let connman = ConnectionManager::new();
//! let app: Router = Router::new().route("/vnc/{key}", any(vnc)).with_state(Proxy::new(connman));
//! # let _ = app;
//! ```
//!
//! # What is forwarded
//! Method, raw path and query byte for byte (without the host's help a prefix is not cut off), end-to-end headers, the
//! body as it comes, trailers. The answer likewise: nothing is held back, so that server-sent events come at once and
//! a slow reader slows only its own stream. Requests go out as HTTP/1.1, whatever they came as. A client that sends
//! `Expect: 100-continue` gets its 100 when the service says it, or after one second without any word from it.
//!
//! What hyper's server and client cannot say is not passed on: informational responses other than 100 (as 103), trailers
//! that no `Trailer` announces, those of an answer to a client without `TE: trailers`, the `Trailer` of an answer to HEAD,
//! and the `Content-Length` of a 304. Trailers of a request that is answered before they come wait for the connection's
//! next request.
//!
//! `Host` is kept, or what [`HostPolicy`] says. `X-Forwarded-For`, `-Host` and `-Proto` are set, and whatever the
//! caller says in headers of this family, in `Forwarded` and in `X-Real-IP` is removed, unless it is
//! [trusted](ProxyBuilder::trusted).
//!
//! Upgrades (WebSocket and others) are passed on with their headers, on a stream of their own. Raw bytes flow only
//! after the service has answered 101 itself; any other answer is an ordinary response. The host has to serve with
//! upgrades, as `axum::serve` does; bytes are then copied by a task of this crate, started by `tokio::spawn`, until
//! both sides have ended. Half-closes are kept, and a side that fails is a failure for the other: the stream is reset,
//! a TCP socket ends by RST.
//!
//! A browser that reaches the host over HTTP/2 opens its WebSockets by extended `CONNECT` (RFC 8441), if the host's server
//! allows that (`enable_connect_protocol` of hyper's HTTP/2 builders; `axum::serve` does). The service sees the same request
//! as an upgrade, with a `Sec-WebSocket-Key` of this side's. Its 101, once the key's answer is found right, is the caller's
//! 200; any other answer is passed on, but for a success, which is a 502, since the caller would take it for the WebSocket.
//! Where such a WebSocket fails its HTTP/2 stream ends as if it had been closed, for want of a way to reset it in hyper.
//!
//! # What never is
//! - hop-by-hop headers, both ways: `Connection` and what it names, `Keep-Alive`, `Proxy-*`, `TE` but for `trailers`,
//!   `Transfer-Encoding`, and `Upgrade` where none takes place;
//! - `CONNECT`: 405, and 501 with a protocol other than `websocket`;
//! - a target in absolute form whose authority is not that of `Host`, two `Host` headers, an upgrade to `h2c`: 400.
//!
//! # Errors
//! [`Proxy::forward`] answers failures itself, with the status of [`status_of`] and a body that is only the kind's
//! name. What an agent or a service said goes to the log, escaped and cut. A failure after the head of a response is
//! an error of its body: hosts cut the response then, so that clients do not take it for whole. (An HTTP/1.0 client
//! without `Content-Length` cannot tell.)
//!
//! # What is repeated
//! A request of which hyper's client knows that no byte was sent, because the idle connection taken for it had just
//! closed. And, once, a `GET`, `HEAD` or `OPTIONS` without a body and without an upgrade, when its session ended or was
//! replaced before anything of the answer's head was passed on: its new dial finds the next session, or waits for it in
//! the key's grace, with [a time](ProxyBuilder::dial_timeout) of its own. The service may get such a request twice.
//!
//! Nothing else is sent twice. When a service closes an idle connection while a request is on its way to it, that is a
//! 502 whatever the method, and the caller's to repeat. hyper-util's client over a
//! [`RevDialConnector`](crate::connector::RevDialConnector) does the same: its error is hyper's
//! `is_incomplete_message`, and none of this crate's.
//!
//! # Connections
//! Requests share pooled connections of their target, each of which is a stream of the agent's session. Connections
//! are bound to the session that they were opened in: once it is replaced they get no new request. One whose last answer
//! was not read to its end, or on which a service has said more than an answer, gets none either.

mod body;
mod builder;
mod expect;
mod extensions;
mod head;
mod pool;
mod service;
mod splice;
mod status;
mod upgrade;

// What most programs need.
pub use body::ProxyBody;
pub use builder::{HostPolicy, ProxyBuilder};
pub use extensions::{Destination, MaxWait};
pub use service::{Forwarding, Proxy};
// To answer errors oneself.
pub use status::status_of;
