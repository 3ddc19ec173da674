//! Which rules can be taken out, one at a time?

use crate::properties::{BOUND, COUNTS, LINKS, LIVE, LOST, ONCE, ORDER, REFUSED, RULES, STOLEN};

/// A rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mutant {
    /// The agent says HELLO with the attempt that it had before.
    AttemptNotRaised,
    /// The server remembers the attempt that made a session, though it was counted for another one.
    AttemptOfAnotherSession,
    /// The server counts for a new session what the agent has of the one that its HELLO names.
    CountOfAnotherSession,
    /// The server takes a HELLO on a link that is older than one that was bound.
    LinkOrderUnchecked,
    /// The server takes a HELLO whose attempt is not higher than the last.
    AttemptUnchecked,
    /// The server judges a HELLO and reads its count, and binds the link later.
    CheckAndBindApart,
    /// The server handles what a link still delivers that it has replaced.
    NoFenceOnReceive,
    /// The server still sends on a link that it has replaced.
    NoFenceOnTransmit,
    /// What was sent is not kept.
    ForgetOnSend,
    /// What has arrived is counted before it is handled.
    AckBeforeHandling,
    /// The replay begins behind the first message that the peer lacks.
    ReplayTooLate,
    /// The replay begins with what the peer had acked before, not with what it has now.
    ReplayTooEarly,
    /// What is kept is not sent again while the bound on it is reached.
    ReplayBlockedAtBound,
    /// New messages are made beyond the bound.
    BoundUnchecked,
    /// The server cuts off all links but the one that it binds.
    CutMoreThanBound,
    /// A loss on a replaced link is taken for one on the link that is bound.
    ReportsUnchecked,
    /// A session expires though a link is bound.
    ExpiresWhileBound,
    /// The agent goes on reading its old link until WELCOME comes on the next.
    AgentReadsBothLinks,
    /// The agent sends before WELCOME.
    SendsBeforeWelcome,
    /// The agent dials twice at once, and uses the answers in any order.
    DialsBeside,
    /// The agent keeps counts and messages when it is given a new session.
    NoReset,
    /// No ack leaves alone.
    NoAckTimer,
    /// Credit travels in messages of number 0.
    CreditUncounted,
    /// The end of a stream travels in a message of number 0.
    FinUncounted,
}

/// Each with the properties that catch it.
pub(crate) const CAUGHT_BY: [(Mutant, &[&str]); 24] = [
    (Mutant::AttemptNotRaised, &[REFUSED]),
    (Mutant::AttemptOfAnotherSession, &[REFUSED]),
    (Mutant::CountOfAnotherSession, &[RULES]),
    (Mutant::LinkOrderUnchecked, &[LOST, STOLEN]),
    (Mutant::AttemptUnchecked, &[STOLEN]),
    (Mutant::CheckAndBindApart, &[ONCE]),
    (Mutant::NoFenceOnReceive, &[ONCE, LINKS]),
    (Mutant::NoFenceOnTransmit, &[RULES, LINKS]),
    (Mutant::ForgetOnSend, &[RULES, COUNTS]),
    (Mutant::AckBeforeHandling, &[ORDER]),
    (Mutant::ReplayTooLate, &[RULES]),
    (Mutant::ReplayTooEarly, &[ONCE]),
    (Mutant::ReplayBlockedAtBound, &[LIVE]),
    (Mutant::BoundUnchecked, &[BOUND]),
    (Mutant::CutMoreThanBound, &[STOLEN]),
    (Mutant::ReportsUnchecked, &[LIVE]),
    (Mutant::ExpiresWhileBound, &[LIVE]),
    (Mutant::AgentReadsBothLinks, &[ONCE]),
    (Mutant::SendsBeforeWelcome, &[ONCE]),
    (Mutant::DialsBeside, &[STOLEN]),
    (Mutant::NoReset, &[RULES]),
    (Mutant::NoAckTimer, &[LIVE]),
    (Mutant::CreditUncounted, &[LIVE]),
    (Mutant::FinUncounted, &[LIVE, ORDER]),
];
