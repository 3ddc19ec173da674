//! The numbers on the wire: types of frames, types of parameters.

/// 0x01: see [`Frame::Hello`](super::Frame::Hello); the others likewise.
pub(super) const HELLO: u8 = 0x01;
pub(super) const WELCOME: u8 = 0x02;
pub(super) const PING: u8 = 0x04;
pub(super) const PONG: u8 = 0x05;
pub(super) const DRAIN: u8 = 0x06;
pub(super) const CLOSE: u8 = 0x07;
pub(super) const OPEN: u8 = 0x10;
pub(super) const ACCEPT: u8 = 0x11;
pub(super) const DATA: u8 = 0x12;
pub(super) const CREDIT: u8 = 0x13;
pub(super) const FIN: u8 = 0x14;
pub(super) const RESET: u8 = 0x15;
pub(super) const STOP: u8 = 0x16;

/// From here on, an unknown type is skipped; below, it is forbidden.
pub(super) const FIRST_OPTIONAL: u8 = 0x80;

/// The version of HELLO whose layout this is.
pub(super) const VERSION: u8 = 1;

/// Parameters of HELLO and WELCOME: what one side allows.
pub(super) const MAX_STREAMS: u16 = 0x0001;
pub(super) const MAX_OPENS: u16 = 0x0002;
pub(super) const MAX_OPENS_PER_TARGET: u16 = 0x0003;
pub(super) const MAX_MESSAGE: u16 = 0x0004;
pub(super) const MAX_CREDIT: u16 = 0x0005;
pub(super) const EARLY_CREDIT: u16 = 0x0006;

/// Parameters of HELLO alone.
pub(super) const INSTANCE: u16 = 0x0010;
pub(super) const AGENT_VERSION: u16 = 0x0011;
pub(super) const LABEL: u16 = 0x0012;

/// The parameter of WELCOME alone.
pub(super) const MAX_HOLD: u16 = 0x0020;

/// Parameters of OPEN.
pub(super) const TRACEPARENT: u16 = 0x0001;
pub(super) const DEADLINE: u16 = 0x0002;
