//! The mux machine: what a session does with messages and time, without I/O, clock, tasks or wakers.
//!
//! A [`Session`] is one side of what an agent and a server hold in common: streams in numbered messages, which outlive
//! the links that carry them. It is told what happened and asked what is to be done. [`frame`](crate::frame) has the
//! specification of the protocol; the numbers in it, such as \[M-45\], are those by which the tests are named.
//!
//! # Who calls what, when
//!
//! The **owner of a link** makes HELLO and WELCOME, judges them ([`check_hello`], [`check_bounds`]), and then:
//!
//! | when | calls |
//! | --- | --- |
//! | WELCOME was sent, or has come | [`link_up`](Session::link_up), with what the peer has handled |
//! | a message has come | [`handle_message`](Session::handle_message) |
//! | any byte has come | [`handle_activity`](Session::handle_activity) |
//! | [`poll_timeout`](Session::poll_timeout) has come | [`handle_timeout`](Session::handle_timeout) |
//! | after each of these, and when [`wants_transmit`](Session::wants_transmit) | [`poll_transmit`](Session::poll_transmit) until there is none, as fast as the link takes them; no link should hold more than 128 KiB of them, so that a small request overtakes a large one |
//! | [`Event::LinkDead`] came, or the link broke | [`link_down`](Session::link_down) |
//! | [`ended`](Session::ended) | `poll_transmit` once more, for CLOSE, and closes the link |
//!
//! The **holder of a stream** opens it ([`open`](Session::open), then [`opened`](Session::opened) tells), or takes it
//! ([`incoming`](Session::incoming), [`accept`](Session::accept)); writes and reads by [`send`](Session::send) and
//! [`recv`](Session::recv); and gives it up by [`detach`](Session::detach) or [`reset`](Session::reset), once, or it
//! stays in the table. Who finds nothing to read or no room to write waits for an [`Event`]; each one comes once for
//! each time that somebody found nothing. Events wait until they are asked for, each once, whether anybody asks or not.
//!
//! The **keeper of the session** decides how long it may be without a link, and ends it: [`drain`](Session::drain),
//! [`shutdown`](Session::shutdown), [`close`](Session::close), [`end`](Session::end).
//!
//! After any call, all of `poll_timeout`, `wants_transmit` and `poll_event` may have changed. Surplus calls are
//! harmless, calls for streams that are forgotten as well. `now` must not go backwards by much: what is measured then
//! is nothing, and what is due comes later.
//!
//! # Panics
//!
//! None, whatever a peer sends or a caller asks. A peer that breaks a rule is answered with a [`Violation`], which ends
//! the session. A panic would be a fault of this module.
//!
//! # Bounds
//!
//! All memory of a session is bounded by its [`SessionConfig`]: what is queued and kept by `send_bound`, what is unread
//! by `recv_budget` (in memory up to four times that, where small payloads pin their messages), streams by
//! `max_streams`, all else by streams. At a bound writers wait; nothing is dropped.
//!
//! # Example
//!
//! Two sessions, with a function for a link:
//!
//! ```
//! use std::time::Instant;
//! use revdial::frame::Metadata;
//! use revdial::proto::{Read, Role, Session, SessionConfig};
//!
//! let (now, config) = (Instant::now(), SessionConfig::default());
//! let mut server = Session::new(Role::Server, config.clone(), config.bounds(), 1);
//! let mut agent = Session::new(Role::Agent, config.clone(), config.bounds(), 2);
//! server.link_up(now, agent.received())?;
//! agent.link_up(now, server.received())?;
//!
//! let carry = |from: &mut Session, to: &mut Session| {
//!     while let Some(message) = from.poll_transmit(now) {
//!         to.handle_message(now, message).expect("our own messages keep to the rules");
//!     }
//! };
//!
//! let id = server.open(&"vnc".parse()?, Metadata::default())?;
//! server.send(id).unwrap().write(b"hello")?;
//! server.send(id).unwrap().finish()?;
//! carry(&mut server, &mut agent);
//!
//! let incoming = agent.incoming().unwrap();
//! assert_eq!(incoming.target.as_str(), "vnc");
//! agent.accept(incoming.stream)?;
//! let mut stream = agent.recv(incoming.stream).unwrap();
//! assert_eq!(stream.read(1024)?, Read::Bytes("hello".into()));
//! assert_eq!(stream.read(1024)?, Read::End);
//!
//! agent.send(incoming.stream).unwrap().write(b"goodbye")?;
//! carry(&mut agent, &mut server);
//! assert_eq!(server.recv(id).unwrap().read(1024)?, Read::Bytes("goodbye".into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! | file | answers |
//! | --- | --- |
//! | `session`, `life`, `holder` | what a session is made of; how it lives and ends; what holders of streams ask and do |
//! | `input`, `output` | what arrives; what leaves, in which order |
//! | `streams`, `send_half`, `recv_half`, `views` | the table of streams; the two halves of one; what its holder may do |
//! | `table` | how what belongs to a stream is found by its id |
//! | `unanswered` | how many opens may be without an answer, and until when |
//! | `flow` | credit: all its arithmetic |
//! | `schedule` | whose turn it is |
//! | `replay` | what is kept until the peer has it |
//! | `timer`, `flood` | when something is due; how much is too much |
//! | `attach` | how a link is bound to a session |
//! | `hello`, `config`, `event`, `error` | what was agreed; what is allowed; what is told; what went wrong |
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod attach;
mod config;
mod error;
mod event;
mod flood;
mod flow;
mod hello;
mod holder;
mod input;
mod life;
mod output;
mod recv_half;
mod replay;
mod schedule;
mod send_half;
mod session;
mod spares;
mod streams;
mod table;
mod timer;
mod unanswered;
mod views;

pub use attach::{Attempts, Judgement, Known, Welcomed, judge_attach};
pub use config::{InvalidConfig, SessionConfig};
pub use error::{OpenError, SessionEnd, StreamError, Violation};
pub use event::{DeadCause, Event};
#[cfg(any(feature = "server", feature = "agent"))]
pub(crate) use flood::FloodBudget;
pub use hello::{VERSION, check_bounds, check_hello};
pub use recv_half::Read;
pub use session::{Incoming, Opened, Role, Session, SessionStats};
#[cfg(any(feature = "server", feature = "agent"))]
pub(crate) use table::Table;
pub use views::{RecvView, SendView};
