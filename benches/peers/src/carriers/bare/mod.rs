//! The least that a multiplexer over a WebSocket can do: what others take beyond it is the price of what they do beyond
//! it, and a goal that it misses is out of reach.
//!
//! It has a driver for each link and a window for each stream, and data follows an open at once. There is no session, so
//! nothing is acknowledged, replayed or resumed; no limit but the windows, no timer, no ping, no key drawn for a mask,
//! and no answer to a peer that breaks the rules but a panic.

mod driver;
mod ends;
mod stream;
mod wire;

pub(crate) use self::ends::{Opener, agent};
