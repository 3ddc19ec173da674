//! Values drawn from the bytes of an input; zeros when they are used up.

/// What is left of the input.
pub(super) struct Source<'a>(&'a [u8]);

/// A prime: what is a block of some length too far on shows.
const PERIOD: usize = 251;

impl<'a> Source<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// So many bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        let mut bytes = bytes.to_vec();
        bytes.resize(len, 0);
        bytes
    }

    /// A few, as the next byte says.
    pub(super) fn list(&mut self) -> Vec<u8> {
        let len = usize::from(self.u8()) % 32;
        self.bytes(len)
    }

    /// One of these.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.u8()) % of.len()]
    }

    /// So many bytes from one.
    pub(super) fn pattern(&mut self, len: usize) -> Vec<u8> {
        let seed = self.u8();
        let mut bytes = (0..PERIOD as u8).map(|at| at ^ seed).collect::<Vec<_>>().repeat(len.div_ceil(PERIOD));
        bytes.truncate(len);
        bytes
    }

    /// All that is left, up to so many bytes.
    pub(super) fn rest(&mut self, max: usize) -> Vec<u8> {
        self.bytes(self.0.len().min(max))
    }
}
