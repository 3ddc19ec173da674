//! Bodies of any length whose every byte can be checked as it comes.

use std::{convert::Infallible, iter, sync::LazyLock};

use axum::body::{Body, Bytes};
use futures_util::stream;
use http_body_util::BodyExt;

/// Random bytes. The length is a prime, so that no chunk, frame or window begins where another did.
static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let next = iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    });
    next.take(1_000_003).collect()
});

/// A body of `length` bytes that [`check`] knows.
pub(crate) fn load(length: usize) -> Body {
    let whole = iter::repeat_n(BLOCK.clone(), length / BLOCK.len());
    let chunks = whole.chain([BLOCK.slice(..length % BLOCK.len())]);
    Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)))
}

/// Whether a body is what [`load`] sends, byte for byte.
pub(crate) async fn check<B>(mut body: B) -> Result<usize, String>
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|why| format!("after {length} bytes: {why:?}"))?.into_data() else { continue };
        while !data.is_empty() {
            let expected = &BLOCK[length % BLOCK.len()..];
            let part = data.split_to(data.len().min(expected.len()));
            if part != expected[..part.len()] {
                return Err(format!("after {length} bytes: other bytes"));
            }
            length += part.len();
        }
    }
    Ok(length)
}
