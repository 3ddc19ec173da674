//! Does a session keep the rules of the protocol, and its peer to them? Tests are named after the rules that they show,
//! with a peer made by hand: `m` of `PROTOCOL.md`, `b` of the list of bad inputs.

#[path = "support/hand.rs"]
mod hand;

#[path = "session/acks.rs"]
mod acks;
#[path = "session/deadlines.rs"]
mod deadlines;
#[path = "session/ends.rs"]
mod ends;
#[path = "session/links.rs"]
mod links;
#[path = "session/malformed.rs"]
mod malformed;
#[path = "session/messages.rs"]
mod messages;
#[path = "session/opens.rs"]
mod opens;
#[path = "session/owner.rs"]
mod owner;
#[path = "session/stream_ends.rs"]
mod stream_ends;
#[path = "session/streams.rs"]
mod streams;
