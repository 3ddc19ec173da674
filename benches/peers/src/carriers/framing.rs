//! The least framing of WebSockets: a binary message for each piece of data, with one key for all.

use bytes::BytesMut;

/// What a message is masked with.
pub(super) type Key = [u8; 4];

/// The key of every message that an agent sends. To draw one is what a product has to do.
pub(super) const KEY: Key = [0x3a, 0x91, 0xc4, 0x5e];

/// The most that is before a message's data: its header, and a key.
pub(super) const BEFORE_DATA: usize = 10 + 4;

/// How much is copied before it is masked, while it still is in the fastest cache; a multiple of the key's length.
const BLOCK: usize = 4 * 1024;

/// A message's first byte: binary, and the last of its frames.
const BINARY: u8 = 0x82;

/// The bit of the second one that says that a key follows.
const MASKED: u8 = 0x80;

/// Appends what is before the data of a message of this length.
pub(super) fn begin(out: &mut Vec<u8>, key: Option<Key>, len: usize) {
    let mask = if key.is_some() { MASKED } else { 0 };
    out.push(BINARY);
    match (len, u16::try_from(len)) {
        (0..126, _) => out.push(mask | len as u8),
        (_, Ok(len)) => {
            out.push(mask | 126);
            out.extend(len.to_be_bytes());
        }
        (len, Err(_)) => {
            out.push(mask | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(key.iter().flatten());
}

/// Appends data, from the key's first byte on.
pub(super) fn append(out: &mut Vec<u8>, key: Option<Key>, bytes: &[u8]) {
    let Some(key) = key else { return out.extend_from_slice(bytes) };
    for block in bytes.chunks(BLOCK) {
        let at = out.len();
        out.extend_from_slice(block);
        mask(&mut out[at..], key);
    }
}

/// What is still to come of a message's data.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) left: usize,
    key: Option<Key>,
}

impl Body {
    /// Of the message at the start of these bytes, and where it begins; `None`: what is before it is not whole.
    pub(super) fn begin(bytes: &[u8]) -> Option<(Self, usize)> {
        let ([BINARY, second], rest) = bytes.split_first_chunk()? else { panic!("another sort of message") };
        let (left, rest) = match second & !MASKED {
            126 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
            127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len) as usize, rest))?,
            len => (usize::from(len), rest),
        };
        let (key, rest) = match second & MASKED {
            0 => (None, rest),
            _ => rest.split_first_chunk().map(|(key, rest)| (Some(*key), rest))?,
        };
        Some((Self { left, key }, bytes.len() - rest.len()))
    }

    /// Unmasks the next piece of it.
    pub(super) fn unmask(&mut self, piece: &mut [u8]) {
        self.left -= piece.len();
        if let Some(key) = &mut self.key {
            mask(piece, *key);
            key.rotate_left(piece.len() % 4);
        }
    }

    /// Takes as much of it as there is.
    pub(super) fn split(&mut self, bytes: &mut BytesMut) -> BytesMut {
        let mut piece = bytes.split_to(bytes.len().min(self.left));
        self.unmask(&mut piece);
        piece
    }
}

/// Masks or unmasks, which is the same.
fn mask(bytes: &mut [u8], key: Key) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_found_again_in_pieces_of_any_length() {
        for (key, len) in [0, 125, 126, 65_535, 65_536, 100_000].into_iter().flat_map(|n| [(None, n), (Some(KEY), n)]) {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut message = Vec::new();
            begin(&mut message, key, len);
            append(&mut message, key, &data);
            let (mut body, at) = Body::begin(&message).expect("a whole start");
            assert_eq!((body.left, message.len() - at), (len, len));
            assert!((0..at).all(|cut| Body::begin(&message[..cut]).is_none()), "{len}");
            message[at..].chunks_mut(4099).for_each(|piece| body.unmask(piece));
            assert!(body.left == 0 && message[at..] == data, "{len}");
        }
    }
}
