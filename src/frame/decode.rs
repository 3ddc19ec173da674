//! Bytes to frames: payloads are slices of the message, each length is checked before use.

use std::iter::FusedIterator;

use bytes::{Buf, Bytes};

use super::{
    code::{CloseCode, ResetCode},
    error::{DecodeError, DecodeErrorKind as Kind},
    fields::{Fields, Seen},
    frame::{
        Bounds, FRAME_HEAD, Frame, Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS, MAX_MESSAGE,
        MAX_METADATA, MAX_PAYLOAD, MAX_REASON, MAX_TRACEPARENT, MESSAGE_HEAD, MessageHead, Metadata, SessionId,
        StreamId, Welcome,
    },
    wire,
};
use crate::key::TargetName;

/// Reads the head of a message; the frames behind it are decoded one by one by the iterator.
///
/// Nothing that a peer announced is allocated before it is there: the payload of DATA is a slice of `message`, and
/// all texts of a message together are no longer than the message.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use revdial::frame::{Frame, MessageHead, StreamId, decode};
///
/// let stream = StreamId::new(1).unwrap();
/// let mut message = BytesMut::new();
/// MessageHead { number: 1, received: 0 }.encode(&mut message);
/// Frame::Data { stream, payload: Bytes::from_static(b"hi") }.encode(&mut message);
/// Frame::Fin { stream, final_size: 2 }.encode(&mut message);
///
/// let (head, mut frames) = decode(message.freeze())?;
/// assert_eq!(head.number, 1);
/// assert!(matches!(frames.next(), Some(Ok(Frame::Data { payload, .. })) if payload == "hi"));
/// assert_eq!(frames.next(), Some(Ok(Frame::Fin { stream, final_size: 2 })));
/// assert_eq!(frames.next(), None);
/// # Ok::<(), revdial::frame::DecodeError>(())
/// ```
///
/// # Errors
/// When the message is shorter than its head, or longer than [`MAX_MESSAGE`].
pub fn decode(mut message: Bytes) -> Result<(MessageHead, Frames), DecodeError> {
    if message.len() > MAX_MESSAGE {
        return Err(DecodeError::new(Kind::MessageTooLong, MAX_MESSAGE));
    }
    let short = DecodeError::new(Kind::Truncated, message.len());
    let number = message.try_get_u64().map_err(|_| short)?;
    let received = message.try_get_u64().map_err(|_| short)?;
    Ok((MessageHead { number, received }, Frames { rest: message, at: MESSAGE_HEAD }))
}

/// The frames of a message, in order. After an error there are no more.
#[derive(Debug, Clone)]
#[must_use = "nothing is decoded until the frames are asked for"]
pub struct Frames {
    rest: Bytes,
    /// Where `rest` begins in the message.
    at: usize,
}

impl Iterator for Frames {
    type Item = Result<Frame, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.frame();
        if frame.is_err() {
            self.rest.clear();
        }
        Some(frame)
    }
}

impl FusedIterator for Frames {}

impl Frames {
    fn frame(&mut self) -> Result<Frame, DecodeError> {
        let start = self.at;
        let end = start.saturating_add(self.rest.len());
        let head = self.rest.try_get_u64().map_err(|_| DecodeError::new(Kind::Truncated, end))?;
        let (kind, len, stream) = ((head >> 56) as u8, (head >> 32) as usize & 0xff_ffff, head as u32);
        if len > MAX_PAYLOAD {
            return Err(DecodeError::new(Kind::PayloadTooLong, start));
        }
        if len > self.rest.len() {
            return Err(DecodeError::new(Kind::Truncated, end));
        }
        let payload = self.rest.split_to(len);
        let at = start.saturating_add(FRAME_HEAD);
        self.at = at.saturating_add(len);

        let wrong = |kind| Err(DecodeError::new(kind, start));
        match (kind, StreamId::new(stream)) {
            (wire::FIRST_OPTIONAL.., _) => Ok(Frame::Unknown { kind }),
            (wire::DATA, Some(_)) if payload.is_empty() => wrong(Kind::EmptyData),
            (wire::DATA, Some(stream)) => Ok(Frame::Data { stream, payload }),
            (wire::OPEN..=wire::STOP, Some(stream)) => stream_frame(kind, stream, Fields::new(&payload, at)),
            (wire::OPEN..=wire::STOP, None) => wrong(Kind::StreamMissing),
            (wire::HELLO | wire::WELCOME | wire::PING..=wire::CLOSE, None) => {
                session_frame(kind, Fields::new(&payload, at))
            }
            (wire::HELLO | wire::WELCOME | wire::PING..=wire::CLOSE, Some(_)) => wrong(Kind::StreamUnexpected),
            _ => wrong(Kind::UnknownType(kind)),
        }
    }
}

fn session_frame(kind: u8, mut fields: Fields<'_>) -> Result<Frame, DecodeError> {
    let frame = match kind {
        wire::HELLO => return hello(fields).map(Frame::Hello),
        wire::WELCOME => return welcome(fields).map(Frame::Welcome),
        wire::PING => Frame::Ping(fields.array()?),
        wire::PONG => Frame::Pong(fields.array()?),
        wire::DRAIN => Frame::Drain {
            code: CloseCode::new(fields.u16()?),
            deadline_ms: fields.u32()?,
            jitter_ms: fields.u32()?,
            reason: fields.last_text(MAX_REASON)?.to_owned(),
        },
        _ => Frame::Close { code: CloseCode::new(fields.u16()?), reason: fields.last_text(MAX_REASON)?.to_owned() },
    };
    fields.end()?;
    Ok(frame)
}

/// All frames of a stream but DATA, which has no fields.
fn stream_frame(kind: u8, stream: StreamId, mut fields: Fields<'_>) -> Result<Frame, DecodeError> {
    let frame = match kind {
        wire::OPEN => {
            let credit = fields.u64()?;
            let target = target_name(&mut fields)?;
            return Ok(Frame::Open { stream, credit, target, metadata: metadata(fields)? });
        }
        wire::ACCEPT => Frame::Accept { stream, credit: fields.u64()? },
        wire::CREDIT => Frame::Credit { stream, offset: fields.u64()? },
        wire::FIN => Frame::Fin { stream, final_size: fields.u64()? },
        wire::RESET => Frame::Reset {
            stream,
            code: ResetCode::new(fields.u16()?),
            reason: fields.last_text(MAX_REASON)?.to_owned(),
        },
        _ => Frame::Stop { stream, code: ResetCode::new(fields.u16()?) },
    };
    fields.end()?;
    Ok(frame)
}

fn hello(mut fields: Fields<'_>) -> Result<Hello, DecodeError> {
    let version = fields.u8()?;
    let mut hello = Hello::new(InstanceId::new([0; 16]), Bounds::default());
    hello.version = version;
    if version != wire::VERSION {
        // The layout of what follows is that version's; this much is enough to refuse it by name.
        return Ok(hello);
    }
    hello.session = SessionId::new(fields.array()?);
    hello.attempt = fields.u64()?;
    let mut instance = None;
    let mut seen = Seen::default();
    while let Some((kind, mut value)) = fields.parameter()? {
        match kind {
            wire::LABEL if hello.labels.len() >= MAX_LABELS => return Err(value.error(Kind::TooManyLabels)),
            wire::LABEL => hello.labels.push(label(value)?),
            wire::INSTANCE => {
                seen.once(kind, &value)?;
                instance = Some(InstanceId::new(value.array()?));
                value.end()?;
            }
            wire::AGENT_VERSION => {
                seen.once(kind, &value)?;
                hello.agent_version = value.last_text(MAX_AGENT_VERSION)?.to_owned();
            }
            _ => bound(kind, value, &mut seen, &mut hello.bounds)?,
        }
    }
    hello.instance = instance.ok_or(fields.error(Kind::ParameterMissing))?;
    Ok(hello)
}

fn welcome(mut fields: Fields<'_>) -> Result<Welcome, DecodeError> {
    let session = SessionId::new(fields.array()?);
    let attempt = fields.u64()?;
    let mut welcome = Welcome::new(session, attempt, Bounds::default(), 0);
    let flag = fields.error(Kind::Flag);
    welcome.resumed = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return Err(flag),
    };
    let mut seen = Seen::default();
    while let Some((kind, mut value)) = fields.parameter()? {
        match kind {
            wire::MAX_HOLD => {
                seen.once(kind, &value)?;
                welcome.max_hold_ms = value.u32()?;
                value.end()?;
            }
            _ => bound(kind, value, &mut seen, &mut welcome.bounds)?,
        }
    }
    Ok(welcome)
}

/// Takes a parameter that both HELLO and WELCOME have; skips one that this version does not know.
fn bound(kind: u16, mut value: Fields<'_>, seen: &mut Seen, bounds: &mut Bounds) -> Result<(), DecodeError> {
    let small = match kind {
        wire::MAX_STREAMS => &mut bounds.max_streams,
        wire::MAX_OPENS => &mut bounds.max_opens,
        wire::MAX_OPENS_PER_TARGET => &mut bounds.max_opens_per_target,
        wire::MAX_MESSAGE => &mut bounds.max_message,
        wire::EARLY_CREDIT => &mut bounds.early_credit,
        wire::MAX_CREDIT => {
            seen.once(kind, &value)?;
            bounds.max_credit = value.u64()?;
            return value.end();
        }
        _ => return Ok(()),
    };
    seen.once(kind, &value)?;
    *small = value.u32()?;
    value.end()
}

fn label(mut value: Fields<'_>) -> Result<(String, String), DecodeError> {
    let len = value.u8()?;
    let name = value.text(len.into(), MAX_LABEL)?;
    Ok((name.to_owned(), value.last_text(MAX_LABEL)?.to_owned()))
}

fn target_name(fields: &mut Fields<'_>) -> Result<TargetName, DecodeError> {
    let len = fields.u8()?;
    let wrong = fields.error(Kind::TargetName);
    let text = fields.text(len.into(), len.into())?;
    // A name is lower-cased when it is made; on the wire it must be already.
    text.parse().ok().filter(|name: &TargetName| name.as_str() == text).ok_or(wrong)
}

fn metadata(mut fields: Fields<'_>) -> Result<Metadata, DecodeError> {
    if fields.len() > MAX_METADATA {
        return Err(fields.error(Kind::TooLong));
    }
    let mut metadata = Metadata::default();
    let mut seen = Seen::default();
    while let Some((kind, mut value)) = fields.parameter()? {
        match kind {
            wire::TRACEPARENT => {
                seen.once(kind, &value)?;
                metadata.traceparent = Some(value.last_text(MAX_TRACEPARENT)?.to_owned());
            }
            wire::DEADLINE => {
                seen.once(kind, &value)?;
                metadata.deadline_ms = Some(value.u32()?);
                value.end()?;
            }
            _ => {}
        }
    }
    Ok(metadata)
}
