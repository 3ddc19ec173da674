//! Heads of HTTP/1.1 and frames of RFC 6455 as bytes, by hand. No IO, and nothing of the code under test.

use data_encoding::BASE64;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The head of a request or of an answer, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start_line: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn new(start_line: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self { start_line: start_line.to_owned(), headers: headers.collect() }
    }

    /// The head at the front and its length, once it is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let length = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = str::from_utf8(&bytes[..length]).expect("a head in UTF-8");
        let (start_line, headers) = text.split_once("\r\n").unwrap_or((text, ""));
        let headers = headers.split("\r\n").filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        });
        Some((Self { start_line: start_line.to_owned(), headers: headers.collect() }, length + 4))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{headers}\r\n", self.start_line).into_bytes()
    }

    /// The value of the header of this name, of which there may be one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice: {self:?}");
        value.map(|(_, value)| value.as_str())
    }

    /// Has this value in the header of this name, in its place if it is there already.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.headers.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            Some((_, old)) => value.clone_into(old),
            None => self.headers.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        let status = self.start_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        status.unwrap_or_else(|| panic!("no status line: {:?}", self.start_line))
    }

    /// What a request asks for: its path and query.
    pub(crate) fn target(&self) -> &str {
        let target = self.start_line.strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        target.unwrap_or_else(|| panic!("no GET: {:?}", self.start_line))
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) is_last: bool,
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    /// Without its mask.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A message of one frame without a mask.
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { is_last: true, reserved: 0, opcode, mask: None, payload: payload.into() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let masked = u8::from(self.mask.is_some()) << 7;
        let mut bytes = vec![u8::from(self.is_last) << 7 | self.reserved << 4 | self.opcode];
        match self.payload.len() {
            length @ 0..126 => bytes.push(masked | length as u8),
            length @ 126..0x1_0000 => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        let start = bytes.len();
        bytes.extend(&self.payload);
        unmask(&mut bytes[start..], self.mask);
        bytes
    }

    /// The frame at the front and its length, once it is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (length, mut start) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
            short => (u64::from(short), 2),
        };
        let shortest = if length < 126 { 2 } else { 4 + 6 * usize::from(length > 0xffff) };
        assert_eq!(start, shortest, "a length of {length} in more bytes than it needs");
        let mut mask = None;
        if second & 0x80 != 0 {
            mask = Some(*bytes.get(start..)?.first_chunk()?);
            start += 4;
        }
        let end = start + usize::try_from(length).expect("a length that fits");
        let mut payload = bytes.get(start..end)?.to_vec();
        unmask(&mut payload, mask);
        let (is_last, reserved) = (first & 0x80 != 0, first >> 4 & 0b111);
        Some((Self { is_last, reserved, opcode: first & 0xf, mask, payload }, end))
    }
}

fn unmask(payload: &mut [u8], mask: Option<[u8; 4]>) {
    let Some(mask) = mask else { return };
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub(crate) fn accept(key: &str) -> String {
    BASE64.encode(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

fn sha1(text: &[u8]) -> [u8; 20] {
    let mut message = text.to_vec();
    message.push(0x80);
    message.resize((text.len() + 9).next_multiple_of(64) - 8, 0);
    message.extend((text.len() as u64 * 8).to_be_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in message.chunks_exact(64) {
        let mut words: Vec<_> =
            block.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (round, word) in words.into_iter().enumerate() {
            let (mixed, constant) = match round / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let sum = [mixed, e, constant, word].into_iter().fold(a.rotate_left(5), u32::wrapping_add);
            (a, b, c, d, e) = (sum, a, b.rotate_left(30), c, d);
        }
        state.iter_mut().zip([a, b, c, d, e]).for_each(|(sum, part)| *sum = sum.wrapping_add(part));
    }
    std::array::from_fn(|at| state[at / 4].to_be_bytes()[at % 4])
}
