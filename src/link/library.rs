//! The WebSocket library's framing, behind the same calls as ours: for dial-back's control links, and as the reference.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::{
    engine::Event,
    error::LinkError,
    messages::{Side, WRITE_BUFFER},
    wire::Wire,
};
use crate::frame::{CloseCode, MAX_MESSAGE};

/// One WebSocket.
pub(super) struct Library {
    ws: WebSocketStream<Wire>,
    /// A message that the write buffer had no room for: only answers to pings can take the room that
    /// [`poll_ready`](Self::poll_ready) saw.
    held: Option<Bytes>,
    /// Payloads shorter than this do not stay in the read buffer.
    unpinned_below: usize,
}

impl Library {
    /// `room`: for a full buffer and one more message.
    pub(super) async fn new(wire: Wire, side: Side, max_message: usize, read_buffer: usize, room: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(room.saturating_add(PONG_ROOM))
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let role = match side {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        let ws = WebSocketStream::from_raw_socket(wire.watching(), role, Some(config)).await;
        Self { ws, held: None, unpinned_below: max_message.min(MAX_MESSAGE).max(read_buffer) / 4 }
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        self.ws.get_mut()
    }

    /// The next message or control frame.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, LinkError>> {
        let Some(message) = ready!(Pin::new(&mut self.ws).poll_next(cx)) else {
            return Poll::Ready(Err(self.end()));
        };
        let message = message.map_err(|error| match read_error(error) {
            LinkError::Eof => self.end(),
            error => error,
        })?;
        Poll::Ready(match message {
            Message::Binary(payload) => Ok(Event::Message(self.unpinned(payload))),
            Message::Text(_) => Err(LinkError::Text),
            Message::Close(frame) => Err(closed(frame)),
            Message::Ping(_) | Message::Frame(_) => Ok(Event::Ping),
            Message::Pong(payload) => Ok(Event::Pong(payload)),
        })
    }

    /// The end of the byte stream, which between two messages only is one.
    fn end(&self) -> LinkError {
        if self.ws.get_ref().is_between_messages() { LinkError::Eof } else { LinkError::amid_a_message() }
    }

    pub(super) fn start_ping(&mut self, payload: [u8; 8]) -> Result<(), LinkError> {
        match Pin::new(&mut self.ws).start_send(Message::Ping(Bytes::copy_from_slice(&payload))) {
            Err(WsError::WriteBufferFull(_)) => Ok(()),
            result => result.map_err(write_error),
        }
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.held.is_some() {
            ready!(self.poll_flush(cx))?;
        }
        Pin::new(&mut self.ws).poll_ready(cx).map_err(write_error)
    }

    pub(super) fn start_message(&mut self, message: Bytes) -> Result<(), LinkError> {
        match Pin::new(&mut self.ws).start_send(Message::Binary(message)) {
            Err(WsError::WriteBufferFull(refused)) => {
                self.held = Some(refused.into_data());
                Ok(())
            }
            result => result.map_err(write_error),
        }
    }

    pub(super) fn start_close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code: code.number().into(), reason: reason.into() };
        let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(frame)));
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            ready!(Pin::new(&mut self.ws).poll_flush(cx)).map_err(write_error)?;
            match self.held.take() {
                Some(message) => self.start_message(message)?,
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Payloads are slices of the read buffer, which is as big as the biggest message that it had to hold. One below a
    /// quarter of that is copied, so that a message left unread pins at most about four times its size, and the
    /// buffer is free to be used again.
    fn unpinned(&self, payload: Bytes) -> Bytes {
        if payload.len() < self.unpinned_below { Bytes::copy_from_slice(&payload) } else { payload }
    }
}

fn closed(frame: Option<CloseFrame>) -> LinkError {
    match frame {
        Some(frame) => LinkError::Closed {
            code: Some(CloseCode::new(frame.code.into())),
            reason: frame.reason.as_str().to_owned(),
        },
        None => LinkError::Closed { code: None, reason: String::new() },
    }
}

fn read_error(error: WsError) -> LinkError {
    match error {
        WsError::Io(error) => LinkError::Io(error),
        WsError::ConnectionClosed | WsError::AlreadyClosed => LinkError::Eof,
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => LinkError::Eof,
        WsError::Capacity(_) => LinkError::TooBig,
        // A text that is not even UTF-8 is a text all the same.
        WsError::Utf8(_) => LinkError::Text,
        broken => LinkError::Malformed(broken.to_string()),
    }
}

/// What fails a write is never the peer's violation: that it has closed is told by reading.
fn write_error(error: WsError) -> LinkError {
    match error {
        WsError::Io(error) => LinkError::Io(error),
        _ => LinkError::Eof,
    }
}

/// Beyond a full buffer and one more message: that message's header, and answers to pings that could not leave yet.
const PONG_ROOM: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Waker};

    use super::*;
    use crate::link::pipe::{Pace, Pipe};

    const LIMIT: usize = 100_000;

    /// A server whose pipe takes nothing.
    fn stuck() -> (Library, Pipe) {
        let pipe = Pipe::new(Pace::default(), Pace::new(vec![0]), false);
        let wire = Wire::new(pipe.clone(), &[]);
        let library = pin!(Library::new(wire, Side::Server, LIMIT, 4096, WRITE_BUFFER + LIMIT));
        let Poll::Ready(library) = library.poll(&mut Context::from_waker(Waker::noop())) else { unreachable!() };
        (library, pipe)
    }

    #[test]
    fn a_message_whose_room_was_taken_by_pongs_is_kept_in_order() {
        let (mut library, pipe) = stuck();
        let mut cx = Context::from_waker(Waker::noop());
        for fill in [1, 2] {
            assert!(library.poll_ready(&mut cx).is_ready());
            library.start_message(vec![fill; 65_520].into()).unwrap();
        }
        let ping = [&[0x89, 0x80 | 125][..], &[0; 4 + 125]].concat();
        for _ in 0..60 {
            pipe.fill(&ping);
            assert!(matches!(library.poll_event(&mut cx), Poll::Ready(Ok(Event::Ping))));
            assert!(library.poll_event(&mut cx).is_pending());
        }
        library.start_message(vec![3; LIMIT].into()).unwrap();
        assert!(library.held.is_some(), "this is what the test is about");
        assert!(library.poll_ready(&mut cx).is_pending());

        pipe.take_at(Pace::default());
        assert!(matches!(library.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        library.start_message(Bytes::from_static(b"last")).unwrap();
        assert!(matches!(library.poll_flush(&mut cx), Poll::Ready(Ok(()))));
        let written = pipe.written();
        assert!(written.ends_with(b"\x82\x04last"));
        let big = written.len() - 6 - LIMIT;
        assert!(written[big..big + LIMIT].iter().all(|byte| *byte == 3));
        let pongs = written.windows(2).filter(|head| *head == [0x8a, 125]).count();
        assert_eq!(pongs, 60);
    }
}
