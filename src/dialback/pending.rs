//! Which dials wait for their pick-up, and what became of those that do not any more: without IO and clock.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    str::FromStr,
};

/// How many dials are remembered after their end: far more than can be on their way back to a server at a time.
const REMEMBERED: usize = 1024;

/// The id of a dialer, or of one of its requests: 16 random bytes, on the wire as 32 hex digits.
///
/// ```
/// use revdial::dialback::Id;
///
/// let id: Id = "4bbe7735fec31f8e214fac1d0a9bbc13".parse()?;
/// assert_eq!(id.to_string(), "4bbe7735fec31f8e214fac1d0a9bbc13");
/// assert_eq!(id.as_bytes()[0], 0x4b);
/// assert!("4bbe".parse::<Id>().is_err());
/// # Ok::<(), revdial::dialback::InvalidId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// The id of these bytes. They have to come from a secure source: who knows them can take a dial's place.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // from_str_radix would take a sign.
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidId);
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| InvalidId)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is not 32 hex digits")
    }
}

impl std::error::Error for InvalidId {}

/// Dials that wait for their pick-up, by the id of their request, each with what to hand it to.
///
/// | a dial that | and then | is told |
/// | --- | --- | --- |
/// | waits | [`claim`](Self::claim) | its waiter |
/// | was claimed | `claim` | [`Gone::Repeated`] |
/// | was given up, failed, or taken with all | `claim` | [`Gone::Late`] |
/// | never was, or ended 1,024 dials ago | `claim` | [`Gone::Unknown`] |
/// | does not wait | [`give_up`](Self::give_up), [`fail`](Self::fail) | nothing; it stays what it was |
///
/// ```
/// use revdial::dialback::{Gone, Id, Pending};
///
/// let mut dials = Pending::new(10);
/// let id = Id::new([7; 16]);
/// assert_eq!(dials.insert(id, "a caller"), Ok(()));
/// assert_eq!(dials.claim(&id), Ok("a caller"));
/// assert_eq!(dials.claim(&id), Err(Gone::Repeated));
/// ```
pub struct Pending<T> {
    limit: usize,
    waiting: HashMap<Id, Waiting<T>>,
    /// How many dials there were, by which they keep their order.
    inserted: u64,
    gone: HashMap<Id, Gone>,
    /// The keys of `gone`, oldest first.
    order: VecDeque<Id>,
}

struct Waiting<T> {
    number: u64,
    waiter: T,
}

impl<T> Pending<T> {
    /// None waits, and never more than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, waiting: HashMap::new(), inserted: 0, gone: HashMap::new(), order: VecDeque::new() }
    }

    /// A dial begins to wait.
    ///
    /// # Errors
    /// Gives the waiter back when the limit is reached, or the id was used before.
    pub fn insert(&mut self, id: Id, waiter: T) -> Result<(), T> {
        if self.waiting.len() >= self.limit || self.waiting.contains_key(&id) || self.gone.contains_key(&id) {
            return Err(waiter);
        }
        self.waiting.insert(id, Waiting { number: self.inserted, waiter });
        self.inserted = self.inserted.saturating_add(1);
        Ok(())
    }

    /// A pick-up came: the waiter of its dial.
    ///
    /// # Errors
    /// When no dial waits under this id, why.
    pub fn claim(&mut self, id: &Id) -> Result<T, Gone> {
        match self.end(id, Gone::Repeated) {
            Some(waiter) => Ok(waiter),
            None => Err(self.gone.get(id).copied().unwrap_or(Gone::Unknown)),
        }
    }

    /// A dial does not wait any longer; its waiter is dropped.
    pub fn give_up(&mut self, id: &Id) {
        self.end(id, Gone::Late);
    }

    /// The agent could not dial back: the waiter that is to be told, if it still waits.
    pub fn fail(&mut self, id: &Id) -> Option<T> {
        self.end(id, Gone::Late)
    }

    /// All that wait, in the order in which they came; none waits any longer.
    pub fn take_all(&mut self) -> Vec<T> {
        let mut all: Vec<_> = self.waiting.drain().collect();
        all.sort_by_key(|(_, waiting)| waiting.number);
        all.into_iter()
            .map(|(id, waiting)| {
                self.remember(id, Gone::Late);
                waiting.waiter
            })
            .collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn end(&mut self, id: &Id, gone: Gone) -> Option<T> {
        let waiting = self.waiting.remove(id)?;
        self.remember(*id, gone);
        Some(waiting.waiter)
    }

    /// An id is remembered once: whoever is remembered does not wait, and does not come to wait again.
    fn remember(&mut self, id: Id, gone: Gone) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.gone.remove(&oldest);
        }
        self.order.push_back(id);
        self.gone.insert(id, gone);
    }
}

/// By hand, since `T` need not be `Debug`.
impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("limit", &self.limit).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Why no dial waits for a pick-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// There is none of this id, as far as is remembered.
    Unknown,
    /// It was picked up already.
    Repeated,
    /// It does not wait any longer.
    Late,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no dial has this id",
            Self::Repeated => "the dial was picked up already",
            Self::Late => "the dial does not wait any longer",
        })
    }
}

impl std::error::Error for Gone {}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> Id {
        Id::new((number as u128).to_be_bytes())
    }

    #[test]
    fn an_id_is_exactly_32_hex_digits() {
        let text = "00112233445566778899aabbccddeeff";
        let id: Id = text.parse().unwrap();
        assert_eq!(
            id.as_bytes(),
            &[0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
        );
        assert_eq!((id.to_string(), format!("{id:?}")), (text.to_owned(), text.to_owned()));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        for bad in [
            "",
            "0",
            &text[1..],
            &format!("{text}0"),
            &format!("+{}", &text[1..]),
            &format!(" {}", &text[1..]),
            &format!("g{}", &text[1..]),
            &format!("ä{}", &text[2..]),
        ] {
            assert_eq!(bad.parse::<Id>(), Err(InvalidId), "{bad}");
        }
    }

    #[test]
    fn a_dial_is_claimed_once() {
        let mut dials = Pending::new(2);
        assert_eq!(dials.claim(&id(1)), Err(Gone::Unknown));
        assert_eq!(dials.insert(id(1), 'a'), Ok(()));
        assert_eq!(dials.len(), 1);
        assert_eq!(dials.claim(&id(1)), Ok('a'));
        assert!(dials.is_empty());
        assert_eq!(dials.claim(&id(1)), Err(Gone::Repeated));
        assert_eq!(dials.fail(&id(1)), None);
        dials.give_up(&id(1));
        assert_eq!(dials.claim(&id(1)), Err(Gone::Repeated), "what is gone stays what it was");
    }

    #[test]
    fn who_gave_up_or_failed_is_late() {
        let mut dials = Pending::new(2);
        let waiter = Rc::new(());
        assert!(dials.insert(id(1), Rc::clone(&waiter)).is_ok() && dials.insert(id(2), Rc::clone(&waiter)).is_ok());
        dials.give_up(&id(1));
        assert_eq!(Rc::strong_count(&waiter), 2, "the waiter is dropped");
        assert!(dials.fail(&id(2)).is_some());
        for gone in [1, 2] {
            assert_eq!(dials.claim(&id(gone)), Err(Gone::Late));
            assert_eq!(dials.claim(&id(gone)), Err(Gone::Late));
        }
        dials.give_up(&id(3));
        assert_eq!((dials.fail(&id(3)), dials.claim(&id(3))), (None, Err(Gone::Unknown)));
    }

    #[test]
    fn the_limit_and_used_ids_give_the_waiter_back() {
        let mut dials = Pending::new(1);
        assert_eq!(dials.insert(id(1), 'a'), Ok(()));
        assert_eq!(dials.insert(id(2), 'b'), Err('b'));
        assert_eq!(dials.claim(&id(1)), Ok('a'));
        assert_eq!(dials.insert(id(1), 'c'), Err('c'));
        assert_eq!(dials.insert(id(2), 'b'), Ok(()));
        assert_eq!(Pending::new(0).insert(id(1), 'a'), Err('a'));
        let mut many = Pending::new(9);
        assert_eq!((many.insert(id(1), 'a'), many.insert(id(1), 'b')), (Ok(()), Err('b')));
        assert_eq!(many.claim(&id(1)), Ok('a'));
    }

    #[test]
    fn all_are_taken_in_order() {
        let mut dials = Pending::new(100);
        for number in 0..100 {
            assert_eq!(dials.insert(id(number * 7919 % 100), number), Ok(()));
        }
        dials.give_up(&id(0));
        assert_eq!(dials.take_all(), (1..100).collect::<Vec<_>>());
        assert_eq!((dials.take_all(), dials.len()), (vec![], 0));
        assert_eq!(dials.claim(&id(50)), Err(Gone::Late));
    }

    #[test]
    fn what_ended_long_ago_is_forgotten() {
        let mut dials = Pending::new(REMEMBERED + 2);
        for number in 0..=REMEMBERED {
            assert_eq!(dials.insert(id(number), ()), Ok(()));
        }
        for number in 0..REMEMBERED {
            assert_eq!(dials.claim(&id(number)), Ok(()));
        }
        assert_eq!(dials.claim(&id(0)), Err(Gone::Repeated));
        dials.give_up(&id(REMEMBERED));
        assert_eq!(dials.claim(&id(0)), Err(Gone::Unknown));
        assert_eq!(dials.claim(&id(1)), Err(Gone::Repeated));
        assert_eq!((dials.order.len(), dials.gone.len()), (REMEMBERED, REMEMBERED));
    }

    proptest! {
        #[test]
        fn no_dial_is_lost_or_told_twice(ops in prop::collection::vec((0_u8..5, 0_usize..12), 0..200)) {
            let mut dials = Pending::new(8);
            let mut waiting = Vec::new();
            for (op, number) in ops {
                let at = waiting.iter().position(|&waiting| waiting == number);
                match op {
                    0 => {
                        if dials.insert(id(number), number).is_ok() {
                            prop_assert!(at.is_none() && waiting.len() < 8);
                            waiting.push(number);
                        }
                    }
                    1 => prop_assert_eq!(dials.claim(&id(number)).ok(), at.map(|at| waiting.remove(at))),
                    2 => prop_assert_eq!(dials.fail(&id(number)), at.map(|at| waiting.remove(at))),
                    3 => {
                        dials.give_up(&id(number));
                        waiting.retain(|&waiting| waiting != number);
                    }
                    _ => prop_assert_eq!(dials.take_all(), std::mem::take(&mut waiting)),
                }
                prop_assert_eq!(dials.len(), waiting.len());
            }
        }
    }
}
