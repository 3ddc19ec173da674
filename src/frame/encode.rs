//! Frames to bytes, appended to a caller's buffer.
//!
//! What is over a limit is cut to it, so that every frame that can be built can be sent and parses at the peer.

use bytes::{BufMut, BytesMut};

use super::{
    frame::{
        Bounds, FRAME_HEAD, Frame, Hello, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS, MAX_PAYLOAD, MAX_REASON,
        MAX_TRACEPARENT, MessageHead, Metadata, StreamId, Welcome,
    },
    wire,
};

impl MessageHead {
    /// Appends the head.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.number);
        out.put_u64(self.received);
    }
}

impl Frame {
    /// Appends the frame, header included.
    ///
    /// What is too long is cut at the end of a character: reasons, the agent's version, names and values of
    /// labels. Labels beyond [`MAX_LABELS`] and a traceparent longer than [`MAX_TRACEPARENT`] are left out. DATA
    /// of more than [`MAX_PAYLOAD`] becomes several frames, DATA of no byte becomes none.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => frame(wire::HELLO, None, out, |out| put_hello(hello, out)),
            Self::Welcome(welcome) => frame(wire::WELCOME, None, out, |out| put_welcome(welcome, out)),
            Self::Ping(bytes) => frame(wire::PING, None, out, |out| out.put_slice(bytes)),
            Self::Pong(bytes) => frame(wire::PONG, None, out, |out| out.put_slice(bytes)),
            Self::Drain { code, deadline_ms, jitter_ms, reason } => frame(wire::DRAIN, None, out, |out| {
                out.put_u16(code.number());
                out.put_u32(*deadline_ms);
                out.put_u32(*jitter_ms);
                out.put_slice(cut(reason, MAX_REASON));
            }),
            Self::Close { code, reason } => frame(wire::CLOSE, None, out, |out| {
                out.put_u16(code.number());
                out.put_slice(cut(reason, MAX_REASON));
            }),
            Self::Open { stream, credit, target, metadata } => frame(wire::OPEN, Some(*stream), out, |out| {
                out.put_u64(*credit);
                out.put_u8(target.as_str().len() as u8); // a target name has 63 bytes at most
                out.put_slice(target.as_str().as_bytes());
                put_metadata(metadata, out);
            }),
            Self::Accept { stream, credit } => frame(wire::ACCEPT, Some(*stream), out, |out| out.put_u64(*credit)),
            Self::Data { stream, payload } => payload.chunks(MAX_PAYLOAD).for_each(|chunk| {
                data_head(*stream, chunk.len(), out);
                out.put_slice(chunk);
            }),
            Self::Credit { stream, offset } => frame(wire::CREDIT, Some(*stream), out, |out| out.put_u64(*offset)),
            Self::Fin { stream, final_size } => frame(wire::FIN, Some(*stream), out, |out| out.put_u64(*final_size)),
            Self::Reset { stream, code, reason } => frame(wire::RESET, Some(*stream), out, |out| {
                out.put_u16(code.number());
                out.put_slice(cut(reason, MAX_REASON));
            }),
            Self::Stop { stream, code } => frame(wire::STOP, Some(*stream), out, |out| out.put_u16(code.number())),
            Self::Unknown { kind } => frame(*kind, None, out, |_| {}),
        }
    }
}

/// Appends the header of a DATA frame whose `len` bytes of payload (1 to 64 KiB) the caller appends behind it.
pub(crate) fn data_head(stream: StreamId, len: usize, out: &mut BytesMut) {
    debug_assert!((1..=MAX_PAYLOAD).contains(&len), "a payload of {len} bytes");
    frame_head(wire::DATA, len, Some(stream), out);
}

fn frame_head(kind: u8, len: usize, stream: Option<StreamId>, out: &mut BytesMut) {
    let stream = stream.map_or(0, StreamId::number);
    out.put_u64(u64::from(kind) << 56 | (len as u64 & 0xff_ffff) << 32 | u64::from(stream));
}

/// Appends a frame of which the caller writes the payload only.
fn frame(kind: u8, stream: Option<StreamId>, out: &mut BytesMut, payload: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    frame_head(kind, 0, stream, out);
    payload(out);
    let len = out.len().saturating_sub(start).saturating_sub(FRAME_HEAD);
    let [_, len @ ..] = (len as u32).to_be_bytes();
    if let Some(place) = out.get_mut(start..).and_then(|frame| frame.get_mut(1..4)) {
        place.copy_from_slice(&len);
    }
}

fn put_hello(hello: &Hello, out: &mut BytesMut) {
    out.put_u8(hello.version);
    out.put_slice(hello.session.as_bytes());
    out.put_u64(hello.attempt);
    put_bounds(&hello.bounds, out);
    parameter(wire::INSTANCE, &[hello.instance.as_bytes()], out);
    if !hello.agent_version.is_empty() {
        parameter(wire::AGENT_VERSION, &[cut(&hello.agent_version, MAX_AGENT_VERSION)], out);
    }
    for (name, value) in hello.labels.iter().take(MAX_LABELS) {
        let name = cut(name, MAX_LABEL);
        parameter(wire::LABEL, &[&[name.len() as u8], name, cut(value, MAX_LABEL)], out);
    }
}

fn put_welcome(welcome: &Welcome, out: &mut BytesMut) {
    out.put_slice(welcome.session.as_bytes());
    out.put_u64(welcome.attempt);
    out.put_u8(welcome.resumed.into());
    put_bounds(&welcome.bounds, out);
    parameter(wire::MAX_HOLD, &[&welcome.max_hold_ms.to_be_bytes()], out);
}

fn put_bounds(bounds: &Bounds, out: &mut BytesMut) {
    parameter(wire::MAX_STREAMS, &[&bounds.max_streams.to_be_bytes()], out);
    parameter(wire::MAX_OPENS, &[&bounds.max_opens.to_be_bytes()], out);
    parameter(wire::MAX_OPENS_PER_TARGET, &[&bounds.max_opens_per_target.to_be_bytes()], out);
    parameter(wire::MAX_MESSAGE, &[&bounds.max_message.to_be_bytes()], out);
    parameter(wire::MAX_CREDIT, &[&bounds.max_credit.to_be_bytes()], out);
    parameter(wire::EARLY_CREDIT, &[&bounds.early_credit.to_be_bytes()], out);
}

fn put_metadata(metadata: &Metadata, out: &mut BytesMut) {
    // A traceparent that was cut would name another trace.
    if let Some(traceparent) = metadata.traceparent.as_ref().filter(|text| text.len() <= MAX_TRACEPARENT) {
        parameter(wire::TRACEPARENT, &[traceparent.as_bytes()], out);
    }
    if let Some(deadline) = metadata.deadline_ms {
        parameter(wire::DEADLINE, &[&deadline.to_be_bytes()], out);
    }
}

/// Appends a parameter whose value is these parts; all of ours are far shorter than 64 KiB.
fn parameter(kind: u16, value: &[&[u8]], out: &mut BytesMut) {
    out.put_u16(kind);
    out.put_u16(value.iter().map(|part| part.len() as u16).fold(0, u16::saturating_add));
    value.iter().for_each(|part| out.put_slice(part));
}

/// The longest beginning of `text` that has at most `max` bytes and ends with a character.
fn cut(text: &str, max: usize) -> &[u8] {
    let fits = (0..=max.min(text.len())).rev().find_map(|end| text.get(..end));
    fits.unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_the_end_of_a_character() {
        assert_eq!(cut("abc", 3), b"abc");
        assert_eq!(cut("abc", 2), b"ab");
        assert_eq!(cut("aé", 2), b"a");
        assert_eq!(cut("🦀🦀", 7), "🦀".as_bytes());
        assert_eq!(cut("🦀", 3), b"");
        assert_eq!(cut("", 0), b"");
    }

    #[test]
    fn a_data_head_is_type_length_and_stream() {
        let mut out = BytesMut::new();
        data_head(StreamId::new(u32::MAX).unwrap(), MAX_PAYLOAD, &mut out);
        assert_eq!(out[..], [0x12, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn a_frame_leaves_what_stands_before_it_alone() {
        let mut out = BytesMut::from(&b"before"[..]);
        Frame::Ping(*b"12345678").encode(&mut out);
        assert_eq!(out[..], *b"before\x04\0\0\x08\0\0\0\x0012345678");
    }
}
