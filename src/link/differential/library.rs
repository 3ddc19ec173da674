//! The WebSocket library's framing, behind the same calls as ours: the reference.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt, Sink, Stream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::watched::Watched;
use crate::{
    frame::CloseCode,
    link::{
        error::LinkError,
        framed::Event,
        messages::{Side, WRITE_BUFFER},
        wire::Wire,
    },
};

/// One WebSocket.
pub(super) struct Library {
    ws: WebSocketStream<Watched>,
}

/// How much it reads at once.
const READ_BUFFER: usize = 4 * 1024;

impl Library {
    pub(super) fn new(wire: Wire, side: Side, max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let role = match side {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        let ws = WebSocketStream::from_raw_socket(Watched::new(wire), role, Some(config));
        Self { ws: ws.now_or_never().expect("no handshake is waited for") }
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
            Message::Binary(payload) => Ok(Event::Message(payload)),
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

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Pin::new(&mut self.ws).poll_ready(cx).map_err(write_error)
    }

    pub(super) fn start_message(&mut self, message: Bytes) -> Result<(), LinkError> {
        Pin::new(&mut self.ws).start_send(Message::Binary(message)).map_err(write_error)
    }

    pub(super) fn start_ping(&mut self, payload: [u8; 8]) -> Result<(), LinkError> {
        let ping = Message::Ping(Bytes::copy_from_slice(&payload));
        Pin::new(&mut self.ws).start_send(ping).map_err(write_error)
    }

    pub(super) fn start_close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code: code.number().into(), reason: reason.into() };
        let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(frame)));
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Pin::new(&mut self.ws).poll_flush(cx).map_err(write_error)
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
        _ => LinkError::Malformed("a rule of the library's"),
    }
}

/// What fails a write is never the peer's violation: that it has closed is told by reading.
fn write_error(error: WsError) -> LinkError {
    match error {
        WsError::Io(error) => LinkError::Io(error),
        _ => LinkError::Eof,
    }
}
