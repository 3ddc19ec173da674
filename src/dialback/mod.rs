//! The dial-back protocol, as it is deployed: its words and rules, without I/O, clock, tasks or randomness.
//!
//! Before [`revdial.v1`](crate::frame) there was RevDial as Helix and others deploy it in Go: each stream is a
//! connection of its own, which the agent opens when the server asks for it. The crate's server and agent speak it with
//! whoever speaks nothing else. What is public here may be used without the rest of the crate, for a peer or a tool that
//! brings its own I/O.
//!
//! # The control link
//!
//! An agent opens one WebSocket, without a subprotocol, and keeps it. Over it go [`Line`]s: JSON objects, each ended
//! by `\n`, in binary messages whose borders mean nothing, though Go puts one line into each.
//!
//! | line | from | when |
//! | --- | --- | --- |
//! | `keep-alive` | the server | first of all, after each `conn-ready`, and after 18 s of nothing else |
//! | `conn-ready`, with `connPath` | the server | somebody dials the agent |
//! | `pickup-failed`, with `connPath` and `err` | the agent | it cannot dial back |
//!
//! Go escapes `&`, `<` and `>` inside of texts, so a path has to be read as JSON before it is used. Commands and fields
//! that a side does not know, it ignores; what is not a line ends the link, by the code that [`LineError::close_code`]
//! names. Beside the lines both sides send WebSocket pings every 15 s.
//!
//! # A pick-up
//!
//! For each `conn-ready` the agent opens another WebSocket, to the path of its control link ([`pickup_uri`]) and with
//! the same credentials. The query names the server's dialer and the dial ([`conn_path`]), and whoever brings both
//! gets the dial: the server hands the WebSocket to the one that waits ([`Pending::claim`]) and refuses any other
//! before the upgrade. `pickup-failed` echoes the path, so that the one dial it is about fails at once
//! ([`request_of`], [`Pending::fail`]).
//!
//! From then on the payloads of binary messages are the stream's bytes, both ways, and their borders mean nothing.
//! The server may send right behind its 101: bytes that are read with the head of the answer belong to the stream.
//!
//! # What it cannot tell
//!
//! A stream ends by the end of its TCP connection, without a close frame. An end is therefore not to be told from a
//! loss, and the deployed agents take the end of one direction for that of both. Nor do they tell that a local service
//! refuses: they answer the dial first, and then the stream ends without a byte. (Ours asks the service first, and says
//! `pickup-failed`.) Streams end with their connections, which nothing resumes; they do outlive the control link.
//!
//! Nor can a stream tell a dead agent from a busy one. The server hears of a machine that went without a word after 60 s
//! of silence on the control link, and new dials wait or fail from then on. Streams that are open at that time are not
//! ended by it: the agent may be back, and they with it. One on which bytes are sent ends once the system gives its TCP
//! connection up, after some 15 minutes on Linux (`tcp_retries2`), or sooner where the host sets `TCP_USER_TIMEOUT`;
//! a request on a pooled connection waits as long, unless its caller waits for less. The
//! [native protocol](crate::frame) has 45 s for all of it.
//!
//! # Example
//!
//! A server asks, an agent follows, and the server finds the dial again:
//!
//! ```
//! use revdial::dialback::{Gone, Id, Line, Lines, Pending, conn_path, pickup_ids, pickup_uri};
//!
//! // The server: a dial begins to wait, and the agent is asked for it.
//! let (dialer, request) = (Id::new([0xd1; 16]), Id::new([0x7e; 16]));
//! let mut dials = Pending::new(100);
//! assert_eq!(dials.insert(request, "a caller"), Ok(()));
//! let message = Line::ConnReady { path: conn_path(dialer, request) }.encode();
//!
//! // The agent: reads the line, and dials back to where its control link goes.
//! let control = "https://gateway/api/v1/revdial?runnerid=desktop-7".parse()?;
//! let mut lines = Lines::new();
//! lines.push(&message);
//! let Some(Line::ConnReady { path }) = lines.next()? else { panic!("not what was sent") };
//! let uri = pickup_uri(&control, &path)?;
//! assert_eq!((uri.host(), uri.path()), (Some("gateway"), "/api/v1/revdial"));
//!
//! // The server: whose is it?
//! assert_eq!(pickup_ids(uri.query().unwrap_or_default()), Some((dialer, request)));
//! assert_eq!(dials.claim(&request), Ok("a caller"));
//! assert_eq!(dials.claim(&request), Err(Gone::Repeated));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! | file | answers |
//! | --- | --- |
//! | `control` | what goes over the control link |
//! | `pending` | which dials wait for their pick-up, and what became of the others |
//! | `path` | where a pick-up goes, and whose it is |
//! | `control_link` | the control link, as both sides drive it |
//! | `dialer` | the server's side: dials ask, pick-ups are matched to them |
//! | `listener` | the agent's side: connections that are asked for |
//! | `stream` | one stream, which has a connection of its own |
//! | `tie` | what ties streams to their tunnel |
//!
//! The first three do no I/O and are public.

mod control;
mod control_link;
mod dialer;
mod listener;
mod path;
mod pending;
mod stream;
mod tie;

// For everybody: no I/O, no clock.
pub use control::{Line, LineError, Lines};
pub use path::{PathError, conn_path, pickup_ids, pickup_uri, request_of};
pub use pending::{Gone, Id, InvalidId, Pending};
// For both sides.
pub(crate) use control_link::ControlLink;
pub(crate) use stream::{DialbackStream, Slices};
// For the server.
#[cfg(feature = "server")]
pub(crate) use control_link::ControlEnd;
#[cfg(feature = "server")]
pub(crate) use dialer::{Claim, Dialers, Orphans};
pub(crate) use dialer::{DialbackTunnel, Opening};
// For the agent.
#[cfg(feature = "agent")]
pub(crate) use listener::{Asked, Brought, listen};
