//! What is to be written: small pieces in a row, large ones where they lie.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::{
    header::{Header, mask},
    wire::Wire,
};

/// From this length on a payload that needs no mask is written from where it lies. Below, a copy is cheaper.
const SHARED: usize = 4 * 1024;

/// How much is copied before it is masked; a multiple of the key's length.
const MASKED_BLOCK: usize = 4 * 1024;

/// How many pieces go into one write.
const SLICES: usize = 16;

/// The buffer of a batch below this is not kept for the next one, unless it is tiny.
const SMALL_WRITE: usize = 4 * 1024;

/// What an idle link holds for writing, at most: the next small message needs nothing else.
const TINY_WRITE: usize = 256;

/// What is to be written, in order: pieces, then the tail.
#[derive(Default)]
pub(super) struct Outbound {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    /// So much of the tail is written.
    sent: usize,
    len: usize,
    /// How much was queued since it was empty last.
    batch: usize,
}

impl Outbound {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_header(&mut self, header: Header) {
        let (bytes, n) = header.encode();
        self.tail.extend_from_slice(&bytes[..n]);
        self.count(n);
    }

    /// Queues bytes of a payload, as they are or masked.
    pub(super) fn push(&mut self, bytes: Bytes, key: Option<[u8; 4]>) {
        if key.is_some() || bytes.len() < SHARED {
            return self.push_copied(&bytes, key);
        }
        self.count(bytes.len());
        self.tail.advance(mem::take(&mut self.sent));
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(bytes);
    }

    /// Queues a copy; masked block by block, each while it is in the nearest cache.
    pub(super) fn push_copied(&mut self, bytes: &[u8], key: Option<[u8; 4]>) {
        self.count(bytes.len());
        let Some(key) = key else { return self.tail.extend_from_slice(bytes) };
        for block in bytes.chunks(MASKED_BLOCK) {
            let at = self.tail.len();
            self.tail.extend_from_slice(block);
            mask(&mut self.tail[at..], key);
        }
    }

    fn count(&mut self, queued: usize) {
        self.len += queued;
        self.batch += queued;
    }

    pub(super) fn poll_write(&self, wire: Pin<&mut Wire>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return wire.poll_write(cx, &self.tail[self.sent..]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[self.sent..]]);
        let n = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
        wire.poll_write_vectored(cx, &slices[..n])
    }

    pub(super) fn advance(&mut self, mut written: usize) {
        self.len -= written;
        while let Some(first) = self.pieces.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        self.sent += written;
        if self.len == 0 {
            self.sent = 0;
            self.tail.clear();
            if mem::take(&mut self.batch) < SMALL_WRITE && self.tail.capacity() > TINY_WRITE {
                self.tail = BytesMut::new();
            }
        }
    }
}
