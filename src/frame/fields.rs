//! The fields of a payload, read one after the other: each length is checked before use, nothing is allocated.

use super::error::{DecodeError, DecodeErrorKind as Kind};

/// What is left of a payload, or of one parameter in it.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the message.
    at: usize,
    /// What it is when a field is cut short, or bytes are left behind the last one.
    wrong_size: Kind,
}

impl<'a> Fields<'a> {
    /// The fields of a payload that begins at byte `at` of its message.
    pub(super) const fn new(payload: &'a [u8], at: usize) -> Self {
        Self { rest: payload, at, wrong_size: Kind::PayloadSize }
    }

    /// An error at the next field.
    pub(super) const fn error(&self, kind: Kind) -> DecodeError {
        DecodeError::new(kind, self.at)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(self.error(self.wrong_size))?;
        self.advance(rest);
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `len` bytes as text of at most `max`.
    pub(super) fn text(&mut self, len: usize, max: usize) -> Result<&'a str, DecodeError> {
        if len > max {
            return Err(self.error(Kind::TooLong));
        }
        let (text, rest) = self.rest.split_at_checked(len).ok_or(self.error(self.wrong_size))?;
        let text = str::from_utf8(text).map_err(|_| self.error(Kind::Utf8))?;
        self.advance(rest);
        Ok(text)
    }

    /// All that is left, as text of at most `max` bytes.
    pub(super) fn last_text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        self.text(self.rest.len(), max)
    }

    /// The next parameter, type and value; `None` behind the last one.
    pub(super) fn parameter(&mut self) -> Result<Option<(u16, Self)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.wrong_size = Kind::Parameter;
        let kind = self.u16()?;
        let len = usize::from(self.u16()?);
        let (value, rest) = self.rest.split_at_checked(len).ok_or(self.error(Kind::Parameter))?;
        let value = Self { rest: value, at: self.at, wrong_size: Kind::Parameter };
        self.advance(rest);
        Ok(Some((kind, value)))
    }

    /// How many bytes are left.
    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left.
    pub(super) const fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(self.wrong_size)) }
    }

    fn advance(&mut self, rest: &'a [u8]) {
        self.at = self.at.saturating_add(self.rest.len().saturating_sub(rest.len()));
        self.rest = rest;
    }
}

/// Which parameters were there already, of those that may stand once. Their types are below 64.
#[derive(Default)]
pub(super) struct Seen(u64);

impl Seen {
    /// Takes a parameter down, and refuses the second of its type.
    pub(super) fn once(&mut self, kind: u16, value: &Fields<'_>) -> Result<(), DecodeError> {
        let bit = 1u64.checked_shl(u32::from(kind)).unwrap_or(0);
        if self.0 & bit != 0 {
            return Err(value.error(Kind::ParameterRepeated));
        }
        self.0 |= bit;
        Ok(())
    }
}
