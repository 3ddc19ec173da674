//! Do our framing and the library's agree on any bytes?
//!
//! The input says which side of a WebSocket we are, how the byte stream is cut, and what comes or is said: any bytes,
//! frames with faults, or what the owner of a link does. Both framings get the same. [`incoming`] has the table of what
//! may differ.

mod engine;
mod incoming;
mod library;
mod outgoing;
mod party;
mod source;
mod stream;
mod watched;

use incoming::Incoming;
use outgoing::Outgoing;
use source::Source;

use super::messages::Side;

/// Checks what this input describes; panics where the two differ and should not.
pub(crate) fn differential(input: &[u8]) {
    let mut source = Source::new(input);
    let kind = source.u8();
    let side = if kind & 1 == 0 { Side::Server } else { Side::Client };
    match kind >> 1 & 3 {
        0 => Incoming::draw(&mut source, side, false).check(),
        1 | 2 => Incoming::draw(&mut source, side, true).check(),
        _ => Outgoing::draw(&mut source, side).check(),
    }
}

#[cfg(test)]
mod tests;
