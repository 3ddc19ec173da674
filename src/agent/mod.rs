//! The sandbox side: dials out to a server, is reached through that link, and comes back when it is lost.
//!
//! An [`Agent`] is set up by [`Agent::builder`] and consumed by one of two ways to run. Either its streams go to local
//! ports and sockets, by an allow-list of named [`Targets`]:
//!
//! ```no_run
//! # async fn example() -> Result<(), revdial::Error> {
//! use revdial::agent::{Agent, Targets};
//!
//! let targets = Targets::parse(["127.0.0.1:8080", "docker=unix:///run/docker.sock"])?;
//! let agent = Agent::builder("http://gateway.example:8080", "sandbox-1").token("secret").build()?;
//! agent.forward(targets).await
//! # }
//! ```
//!
//! or the program takes them itself, with no port at all:
//!
//! ```no_run
//! # async fn example() -> Result<(), revdial::Error> {
//! use revdial::agent::Agent;
//! use tokio::io::AsyncWriteExt;
//!
//! let agent = Agent::builder("http://gateway.example:8080", "sandbox-1").token("secret").build()?;
//! let (mut listener, run) = agent.listen();
//! tokio::spawn(async move {
//!     while let Some(mut stream) = listener.accept().await {
//!         tokio::spawn(async move { stream.write_all(b"hello").await });
//!     }
//! });
//! run.await
//! # }
//! ```
//!
//! With the feature `axum`, the [`Listener`] is what `axum::serve` takes in place of a TCP listener.
//!
//! # States
//!
//! [`Agent::status`] is a `watch` of [`AgentStatus`]:
//!
//! ```text
//!              ┌──────────── time is up ─────────────┐
//!              ▼                                     │
//!   ┌──▶ Connecting ── failed, or link lost ──▶ Waiting
//!   │      │    └───── refused ───────────────▶ Refused
//!   │   welcomed                                     │
//!   │      ▼                                         │
//!   └─ Connected ── refused by a close code ─────────┘        Stopped: shut down, replaced or dropped
//! ```
//!
//! A link that is lost after something came through it is dialled again at once, 25 times a second at most in the long
//! run. Otherwise the agent waits by [`Backoff`], and never less than the server's Retry-After. Refusals that trying
//! sooner cannot mend (credentials, key, version, TLS; those of a proxy on the way likewise, and its rules) are retried every
//! 30 to 60 s and logged at `warn`. Only a replacement, that is another agent under the same key, ends an agent.
//!
//! # The way to the server
//!
//! [`AgentBuilder::build`] makes a connector: TCP, through the proxy that the environment or a [`ProxyChoice`] names, and TLS
//! for https and wss by the feature `tls`, verified against Mozilla's roots or as
//! `TlsOptions` say. [`AgentBuilder::build_with`] takes any other. WebSockets are asked for over HTTP/1.1, or over HTTP/2 if
//! [`HttpVersion`] says so. The token is asked for at each attempt, and so is followed when it changes.
//!
//! # Sessions
//!
//! A session outlives its links: streams stall while there is none, and go on with the next one. The agent holds them
//! for as long as the server said that it may, its own dead-peer time and 15 s more; then they fail as
//! [`SessionLost`](crate::ErrorKind::SessionLost), local sockets by a reset. They fail likewise as soon as the server
//! says that it does not know the session any more, since it was restarted for one. When the server drains, the agent
//! opens its next session first, and the old one finishes what runs beside it.
//!
//! # Shutdown
//!
//! A [`ShutdownHandle`] asks for an orderly end: nothing new is opened, what runs may finish within a time, also over a
//! lost link, then the session is closed and the run resolves with `Ok`.
//!
//! # Cancel safety
//!
//! The [`Run`] is the agent. The link that is up and a forwarder's streams have tasks beside it, which end with it, as
//! soon as the runtime comes to that. Dropping it cuts the link and ends the session on this side; local sockets are
//! reset, and callers see their streams fail when the grace is over, or when the agent is started anew.
//!
//! # Servers that speak dial-back
//!
//! A server that does not choose `revdial.v1` is met in the deployed [dial-back](crate::dialback) protocol, on the same
//! connection, unless [`AgentBuilder::protocol`] says otherwise. Each stream is then a connection of the agent's own to the
//! server, by the same connector and with the same token; it goes to the default target, and outlives the control link.
//! The service is connected first, so that its refusal reaches the caller.

mod allowed;
mod attempt;
mod backoff;
mod choices;
mod config;
mod connect;
mod dialback;
mod egress;
mod endpoint;
mod exhausted;
mod forward;
mod life;
mod listener;
mod pace;
mod proxy_choice;
mod refusal;
mod relay;
mod run;
mod sink;
mod status;
mod targets;
mod token;

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "tls")]
mod tls;

// What most programs need.
pub use config::AgentBuilder;
pub use listener::{AgentAddr, Listener};
pub use run::{Agent, Run};
pub use targets::{Address, Targets};
// How the server is reached, and what is spoken with it.
pub use choices::{HttpVersion, ProtocolChoice, UnknownHttpVersion, UnknownProtocol};
pub use proxy_choice::{ProxyChoice, ProxyUrl};
#[cfg(feature = "tls")]
pub use tls::TlsOptions;
// To watch and stop.
pub use backoff::Backoff;
pub use status::{AgentStatus, ShutdownHandle};
