//! Has it happened at all? What seeds came to, so that a fault that never strikes, or strikes nothing, is found out.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A session got another link after a loss.
    Resumed,
    /// A session got another link while the server still had the one before.
    Fenced,
    /// A link that its agent had left still delivered.
    LateMessage,
    Expired,
    /// A HELLO came a millisecond before the end of a grace,
    InTime,
    /// and at it, or just behind.
    TooLate,
    /// An agent's hold ran out.
    HeldOut,
    /// WELCOME brought a new session in the place of the old one.
    Unknown,
    /// The key's session in grace gave way to a new one.
    Outlived,
    /// 4409 to an attempt.
    Stale,
    /// 4403 to somebody else's HELLO.
    Foreign,
    /// 4411.
    Rejected,
    /// 4410: an agent ended.
    Replaced,
    /// M-46: 4429.
    Fruitless,
    /// Two machines have had the server's link for one session.
    Forked,
    /// 4420 to counts that cannot be, of such a session.
    Mismatch,
    /// A drained session ended by itself, once nothing ran,
    Drained,
    /// and one that was cut off.
    DrainOver,
    ShutDown,
    /// A link was held for dead.
    Dead,
    /// Messages were sent again.
    Replayed,
    Unanswered,
    Reset,
    /// A stream was read to its end.
    Ended,
    /// A stream failed with its session.
    Lost,
    /// A writer waited for room or credit.
    Blocked,
}

use What as W;

const ALL: [What; 26] = [
    W::Resumed,
    W::Fenced,
    W::LateMessage,
    W::Expired,
    W::InTime,
    W::TooLate,
    W::HeldOut,
    W::Unknown,
    W::Outlived,
    W::Stale,
    W::Foreign,
    W::Rejected,
    W::Replaced,
    W::Fruitless,
    W::Forked,
    W::Mismatch,
    W::Drained,
    W::DrainOver,
    W::ShutDown,
    W::Dead,
    W::Replayed,
    W::Unanswered,
    W::Reset,
    W::Ended,
    W::Lost,
    W::Blocked,
];

/// How often.
#[derive(Debug, Default)]
pub(crate) struct Seen([u64; ALL.len()]);

impl Seen {
    pub(crate) fn see(&mut self, what: What) {
        self.0[what as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (What, u64)> {
        ALL.into_iter().zip(self.0)
    }
}
