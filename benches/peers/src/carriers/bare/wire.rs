//! Frames on the wire: each is a binary message of a WebSocket, with 8 bytes of ours before its data.

/// What data is masked with.
pub(super) type Key = [u8; 4];

/// The key of every message. To draw one is what a product has to do.
pub(super) const KEY: Key = [0x3a, 0x91, 0xc4, 0x5e];

/// Enough for what is before the data: a WebSocket's header, a key and a head.
const BEFORE_DATA: usize = 10 + 4 + 8;

/// How much is copied before it is masked, while it still is in the fastest cache; a multiple of the key's length.
const BLOCK: usize = 4 * 1024;

/// A message's first byte: binary, and the last of its frames.
const BINARY: u8 = 0x82;

/// The bit of the second one that says that a key follows.
const MASKED: u8 = 0x80;

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// There is a new stream.
    Open,
    /// So many bytes follow.
    Data,
    /// The reader has taken so many bytes.
    Taken,
    /// No more will follow.
    Fin,
}

/// What a frame begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) stream: u32,
    /// Below 16 Mi.
    pub(super) count: u32,
}

/// Appends a frame.
pub(super) fn push(out: &mut Vec<u8>, key: Option<Key>, head: Head, data: &[u8]) {
    out.reserve(BEFORE_DATA + data.len());
    let mask = if key.is_some() { MASKED } else { 0 };
    let len = 8 + data.len();
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
    let Head { kind, stream, count } = head;
    append(out, key, &(u64::from(stream) << 32 | (kind as u64) << 24 | u64::from(count)).to_be_bytes());
    append(out, key, data);
}

fn append(out: &mut Vec<u8>, key: Option<Key>, bytes: &[u8]) {
    let Some(key) = key else { return out.extend_from_slice(bytes) };
    for block in bytes.chunks(BLOCK) {
        let at = out.len();
        out.extend_from_slice(block);
        mask(&mut out[at..], key);
    }
}

/// The head at the start of these bytes, the key of what follows it, and where that begins; `None`: it is not whole.
pub(super) fn head(bytes: &[u8]) -> Option<(Head, Option<Key>, usize)> {
    let ([BINARY, second], mut rest) = bytes.split_first_chunk()? else { panic!("another sort of message") };
    // The head tells the length too.
    rest = match second & !MASKED {
        126 => rest.get(2..)?,
        127 => rest.get(8..)?,
        _ => rest,
    };
    let mut key = None;
    if second & MASKED != 0 {
        let (found, behind) = rest.split_first_chunk()?;
        (key, rest) = (Some(*found), behind);
    }
    let (head, rest) = rest.split_first_chunk()?;
    let mut head: [u8; 8] = *head;
    if let Some(key) = key {
        mask(&mut head, key);
    }
    let [a, b, c, d, kind, count @ ..] = head;
    let kind = [Kind::Open, Kind::Data, Kind::Taken, Kind::Fin][usize::from(kind)];
    let count = count.iter().fold(0, |count, byte| count << 8 | u32::from(*byte));
    Some((Head { kind, stream: u32::from_be_bytes([a, b, c, d]), count }, key, bytes.len() - rest.len()))
}

/// Masks or unmasks, which is the same.
pub(super) fn mask(bytes: &mut [u8], key: Key) {
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
    fn what_is_pushed_is_found_again_in_pieces_of_any_length() {
        for (key, len) in [0, 117, 118, 65_527, 65_528, 100_000].into_iter().flat_map(|n| [(None, n), (Some(KEY), n)]) {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut frame = Vec::new();
            push(&mut frame, key, Head { kind: Kind::Data, stream: 7 << 24, count: len }, &data);
            let (found, found_key, at) = head(&frame).expect("a whole head");
            assert!(matches!(found, Head { kind: Kind::Data, stream: 0x0700_0000, count } if count == len));
            assert_eq!((found_key, frame.len() - at), (key, len as usize));
            assert!((0..at).all(|cut| head(&frame[..cut]).is_none()), "{len}");
            let mut key = key.unwrap_or_default();
            for piece in frame[at..].chunks_mut(4099) {
                mask(piece, key);
                key.rotate_left(piece.len() % 4);
            }
            assert!(frame[at..] == data, "{len}");
        }
    }
}
