//! Reverse tunnels as tower middleware.
//!
//! Sandboxes (containers, dev machines, agents' desktops) sit behind NAT. Each dials out once, over a WebSocket, to a
//! server that runs on axum, hyper or any tower stack. From then on that server opens streams to every service inside
//! them, as if it were local.
//!
//! ```text
//! a caller ──▶ Proxy, RevDialConnector ──▶ ConnectionManager ──▶ tunnel ═══ WebSocket ═══ Agent ──▶ a service
//!                                                 ▲
//!              RevDialLayer, where agents dial in ┘
//! ```
//!
//! # Which type do I need?
//!
//! | to | take |
//! | --- | --- |
//! | let agents dial in to an axum, hyper or tower server | [`RevDialLayer`](server::RevDialLayer) with an [`Authorize`](server::Authorize) |
//! | know who is there, and wait for who drops off | [`ConnectionManager`](connman::ConnectionManager) with a [`GracePolicy`](connman::GracePolicy) |
//! | start an agent when somebody dials it | [`ConnectionManagerBuilder::wake`](connman::ConnectionManagerBuilder::wake) |
//! | reach an agent with a hyper client or tonic | [`RevDialConnector`](connector::RevDialConnector) |
//! | pass HTTP requests on to an agent, upgrades included | [`Proxy`](proxy::Proxy) |
//! | open a raw byte stream | [`ConnectionManager::dial`](connman::ConnectionManager::dial), a [`TunnelStream`] |
//! | be reached, by forwarding to local ports and sockets | [`Agent::forward`](agent::Agent::forward) |
//! | be reached, by serving streams in process | [`Agent::listen`](agent::Agent::listen) |
//! | bring one's own I/O, or write a tool | [`frame`] and [`proto`]; for the dial-back protocol [`dialback`] |
//! | fit it into an app, a network, a threat model, a machine | the guides: [`guide::composing`], [`guide::middleboxes`], [`guide::security`], [`guide::tuning`] |
//! | see what goes on, by metrics, spans and logs | [`guide::observability`] |
//! | move over from Go RevDial | [`guide::migration`] |
//!
//! # The whole way
//!
//! ```
//! use axum::{Router, routing::get};
//! use http_body_util::{BodyExt, Empty};
//! use hyper::body::Bytes;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use revdial::{
//!     agent::{Agent, AgentStatus},
//!     connector::RevDialConnector,
//!     connman::ConnectionManager,
//!     server::{RevDialLayer, SharedBearer},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The server: an axum app, and the layer around it.
//! let connman = ConnectionManager::new();
//! let app = Router::new().layer(RevDialLayer::new(connman.clone(), SharedBearer::new("secret")?));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}", listener.local_addr()?);
//! tokio::spawn(axum::serve(listener, app).into_future());
//!
//! // The sandbox: serves a router through the tunnel, with no port of its own.
//! let agent = Agent::builder(url, "desktop-7").token("secret").build()?;
//! let mut status = agent.status();
//! let (streams, run) = agent.listen();
//! tokio::spawn(run);
//! let router = Router::new().route("/hello", get(|| async { "from behind NAT" }));
//! tokio::spawn(axum::serve(streams, router).into_future());
//! status.wait_for(AgentStatus::is_connected).await?;
//!
//! // The caller: any hyper client, with the agent's key for a host.
//! let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(RevDialConnector::new(connman));
//! let answer = client.get("http://desktop-7/hello".parse()?).await?;
//! assert_eq!(answer.into_body().collect().await?.to_bytes(), "from behind NAT");
//! # Ok(())
//! # }
//! ```
//!
//! # Cancel safety
//!
//! Dropping a future of this crate is the way to cancel it, and each says what that does on the wire: a dial that is
//! dropped gives its place or its open up, a dropped stream delivers what was written and tells the peer to stop, a
//! dropped [`Run`](agent::Run) cuts its link.
//!
//! # Errors
//!
//! All that fails above the pure modules fails with one [`Error`], whose [`kind`](Error::kind) is what to match on,
//! and which tells who is to blame and whether a retry is safe. [`Error::find`] finds it again below the errors of
//! hyper and std.
//!
//! # A map of the code
//!
//! The folders stand in floors, and a file imports from lower floors only:
//!
//! ```text
//! 9  guide                       text alone
//! 8  proxy                       an HTTP request to an agent and back
//! 7  server  connector  agent    tower faces
//! 6  connman                     who is connected, who is in grace, who waits
//! 5  tunnel                      one handle, one stream
//! 4  mux  dialback               drivers: a session meets its links; the dial-back protocol
//! 3  error                       the one public error
//! 2  link                        one WebSocket, and nothing about tunnels
//! 1  proto                       the mux machine: bytes and time in, bytes and deadlines out
//! 0  frame  key  metrics  spans  values
//! ```
//!
//! # Features
//!
//! `server`, `connector`, `proxy` and `agent` are on by default; `tls` (rustls for the agent) and `axum` (its `Listener`
//! trait) are not. Without any of them, [`frame`] and [`proto`] remain, which do no I/O.
//!
//! # What is not promised
//!
//! The library that the WebSocket handshake is taken from is in no public signature, and its choice may change. Causes in
//! [`source`](std::error::Error::source) are for people, not for matching. Streams survive the loss of links, any number
//! of them, but not the crash of one of their ends, nor a pause that is longer than the grace or the caller's own
//! time-out.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(any(feature = "server", feature = "agent"))]
mod callback;
#[cfg(feature = "connector")]
pub mod connector;
#[cfg(feature = "server")]
pub mod connman;
#[cfg(any(feature = "server", feature = "agent"))]
#[cfg_attr(
    not(all(feature = "server", feature = "agent")),
    expect(dead_code, reason = "both sides share it, and each uses its half")
)]
pub mod dialback;
mod error;
pub mod frame;
#[cfg(all(feature = "proxy", feature = "agent"))]
pub mod guide;
mod key;
#[cfg(any(feature = "server", feature = "agent"))]
mod link;
#[cfg(any(feature = "server", feature = "agent"))]
mod metrics;
#[cfg(any(feature = "server", feature = "agent"))]
#[cfg_attr(
    not(all(feature = "server", feature = "agent")),
    expect(dead_code, reason = "both sides share it, and each uses its half")
)]
mod mux;
pub mod proto;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "server", feature = "agent"))]
mod spans;
#[cfg(any(feature = "server", feature = "agent"))]
#[cfg_attr(
    not(all(feature = "server", feature = "agent")),
    expect(dead_code, reason = "both sides share it, and each uses its half")
)]
mod tunnel;

pub use error::{Blame, Error, ErrorKind};
pub use key::{AgentKey, Epoch, InvalidName, TargetName};
#[cfg(any(feature = "server", feature = "agent"))]
pub use link::{LinkEnd, Protocol};
#[cfg(any(feature = "server", feature = "agent"))]
pub use tunnel::TunnelStream;

/// What a fuzz target reaches below the public interface.
#[cfg(all(fuzzing, any(feature = "server", feature = "agent")))]
#[doc(hidden)]
pub mod fuzzing {
    /// Do our framing of WebSockets and the library's agree on this input?
    pub fn framing(input: &[u8]) {
        crate::link::differential(input);
    }
}

/// The README's examples, as tests.
#[cfg(all(doctest, feature = "proxy", feature = "agent"))]
#[doc = include_str!("../README.md")]
struct Readme;
