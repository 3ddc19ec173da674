//! Byte streams that mostly consist of frames, with faults where the input wants them; and where their frames begin.

use super::source::Source;
use crate::link::messages::Side;

/// The longest stream.
const MAX_STREAM: usize = 256 * 1024;

const MAX_FRAMES: usize = 64;

/// First bytes: of what comes often, and `None` for any.
const FIRSTS: [Option<u8>; 16] = [
    Some(0x82), // a whole message
    Some(0x02), // the first fragment of one
    Some(0x00), // one in the middle
    Some(0x80), // the last
    Some(0x89), // ping
    Some(0x8a), // pong
    Some(0x88), // close
    Some(0x82),
    Some(0x02),
    Some(0x80),
    Some(0x81), // a whole text
    Some(0x01), // the first fragment of one
    Some(0x09), // ping in fragments
    Some(0xc2), // a reserved bit
    None,
    None,
];

/// Lengths around each border; 7 is for any.
const LENGTHS: [usize; 16] = [0, 1, 2, 3, 5, 7, 8, 124, 125, 126, 127, 1000, 65_535, 65_536, 65_537, 20_000];

/// Codes around each border of what a close frame may say.
const CODES: [u16; 32] = [
    0, 1, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016,
    1100, 2000, 2999, 3000, 3999, 4000, 4401, 4409, 4999, 5000, 32_768, 65_535,
];

/// What is in a frame's length field, beside the length.
#[derive(Clone, Copy)]
enum Form {
    Shortest,
    TwoBytes,
    EightBytes,
    /// The highest bit of eight bytes, which has to be zero.
    TopBit,
}

/// Frames that the input describes, for the side that receives them.
pub(super) fn frames(source: &mut Source<'_>, side: Side, max_message: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..MAX_FRAMES {
        if source.is_empty() || stream.len() > MAX_STREAM {
            break;
        }
        push_frame(&mut stream, source, side, max_message);
    }
    stream
}

fn push_frame(stream: &mut Vec<u8>, source: &mut Source<'_>, side: Side, max_message: usize) {
    let first = source.pick(&FIRSTS).unwrap_or_else(|| source.u8());
    let odd = source.u8();
    let is_masked = (side == Side::Server) != (odd & 0x0f == 0x0f);
    let form = match odd >> 4 {
        13 => Form::TwoBytes,
        14 => Form::EightBytes,
        15 => Form::TopBit,
        _ => Form::Shortest,
    };
    let payload = payload(first, source, max_message);
    let key = if is_masked { Some([source.u8(), odd, 0x5a, source.u8()]) } else { None };
    push_header(stream, first, payload.len(), form, key);
    let key = key.unwrap_or_default();
    stream.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

fn payload(first: u8, source: &mut Source<'_>, max_message: usize) -> Vec<u8> {
    if first & 0x0f == 8 && !source.u8().is_multiple_of(8) {
        let mut payload = source.pick(&CODES).to_be_bytes().to_vec();
        let reasons: [&[u8]; 6] =
            [b"", b"why", "höhere Gewalt €".as_bytes(), b"\xff", b"\xed\xa0\x80", b"cut \xe2\x82"];
        payload.extend(source.pick(&reasons));
        return payload;
    }
    let len = match source.pick(&LENGTHS) {
        7 => match source.u8() % 4 {
            0 => max_message,
            1 => max_message + 1,
            2 => max_message / 2,
            _ => source.u16().into(),
        },
        len => len,
    };
    if len <= 16 {
        return source.bytes(len);
    }
    source.pattern(len)
}

fn push_header(stream: &mut Vec<u8>, first: u8, len: usize, form: Form, key: Option<[u8; 4]>) {
    let masked = u8::from(key.is_some()) << 7;
    let two = u16::try_from(len);
    stream.push(first);
    match (form, two) {
        (Form::Shortest, Ok(len @ 0..126)) => stream.push(masked | len as u8),
        (Form::Shortest | Form::TwoBytes, Ok(len)) => {
            stream.push(masked | 126);
            stream.extend(len.to_be_bytes());
        }
        _ => {
            let top = u64::from(matches!(form, Form::TopBit)) << 63;
            stream.push(masked | 127);
            stream.extend((len as u64 | top).to_be_bytes());
        }
    }
    stream.extend(key.iter().flatten());
}

/// One frame of a stream, by the lengths alone, whether it can be or not. Written apart from what it is to check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) header: usize,
    /// The payload's, as the header says.
    pub(super) len: u64,
    pub(super) first: u8,
    pub(super) second: u8,
    pub(super) key: [u8; 4],
}

impl Span {
    pub(super) fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    pub(super) fn is_control(&self) -> bool {
        self.opcode() >= 8
    }

    /// The payload, if all of it is there, without its mask.
    pub(super) fn payload(&self, stream: &[u8]) -> Option<Vec<u8>> {
        let from = self.start + self.header;
        let payload = stream.get(from..from.checked_add(usize::try_from(self.len).ok()?)?)?;
        Some(payload.iter().zip(self.key.iter().cycle()).map(|(byte, key)| byte ^ key).collect())
    }
}

/// All frames of a stream whose first two bytes are there. What is not there of the rest is zero.
pub(super) fn spans(stream: &[u8]) -> Vec<Span> {
    let (mut spans, mut start) = (Vec::new(), 0_usize);
    while let Some(&[first, second, ref rest @ ..]) = stream.get(start..) {
        let mut rest = rest.iter().copied().chain(std::iter::repeat(0));
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let long = rest.by_ref().take(extended).fold(0, |len, byte| len << 8 | u64::from(byte));
        let len = if extended == 0 { u64::from(second & 0x7f) } else { long };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let mut key = [0; 4];
        key.iter_mut().take(mask).zip(rest).for_each(|(place, byte)| *place = byte);
        let header = 2 + extended + mask;
        spans.push(Span { start, header, len, first, second, key });
        start = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(start + header);
    }
    spans
}
