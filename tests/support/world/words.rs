//! Which words frame a link? Its first message, its last one, and the close code behind that.

use bytes::{Bytes, BytesMut};
use revdial::{
    frame::{CloseCode, Frame, MessageHead},
    proto::SessionEnd,
};

use super::end::head;
use crate::pair::frames;

/// The code for the WebSocket, behind this last message.
pub(crate) fn close_code(last: Option<Bytes>, end: Option<&SessionEnd>) -> CloseCode {
    let said = last.into_iter().flat_map(frames).find_map(|frame| match frame {
        Frame::Close { code, .. } => Some(code),
        _ => None,
    });
    said.unwrap_or(match end {
        Some(SessionEnd::ClosedByPeer { code, .. }) => *code,
        Some(SessionEnd::Replaced) => CloseCode::REPLACED,
        _ => CloseCode::DEAD_PEER,
    })
}

/// M-52.
pub(crate) fn ends_session(code: CloseCode) -> bool {
    [1000, 1002, 1003, 1009, 4410, 4413, 4420, 4421, 4429].contains(&code.number())
}

/// A message of number 0 with one frame.
pub(crate) fn alone(frame: &Frame, received: u64) -> Bytes {
    let mut message = BytesMut::new();
    MessageHead { number: 0, received }.encode(&mut message);
    frame.encode(&mut message);
    message.freeze()
}

/// The one frame of a first message, and what its head tells.
pub(crate) fn first_frame(message: &Bytes) -> (Frame, u64) {
    let mut all = frames(message.clone());
    assert_eq!(all.len(), 1, "M-34, M-35: a frame alone");
    (all.remove(0), head(message).received)
}
