//! How a link is bound to a session: what the agent says of itself in HELLO, and how the server judges it.

use super::error::Violation;
use crate::frame::{CloseCode, Hello, SessionId, Welcome};

/// The agent's attempts to attach, in the session that it has or for a new one.
///
/// ```
/// use revdial::frame::{Bounds, Hello, InstanceId, SessionId, Welcome};
/// use revdial::proto::{Attempts, Welcomed};
///
/// let mut attempts = Attempts::default();
/// let base = Hello::new(InstanceId::new([1; 16]), Bounds::default());
/// let hello = attempts.hello(&base);
/// assert!(hello.session.is_new());
///
/// let id = SessionId::new([7; 16]);
/// let welcome = Welcome::new(id, hello.attempt, Bounds::default(), 30_000);
/// assert_eq!(attempts.welcomed(&welcome)?, Welcomed::Fresh);
/// assert_eq!(attempts.hello(&base).session, id); // from now on for this session
/// # Ok::<(), revdial::proto::Violation>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    session: SessionId,
    attempt: u64,
}

/// What a WELCOME brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "WELCOME has these two meanings and no other")]
pub enum Welcomed {
    /// A new session: counts, kept messages and streams of the one before are void.
    Fresh,
    /// The session goes on: both sides send again what the other lacks.
    Resumed,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { session: SessionId::NEW, attempt: 0 }
    }
}

impl Attempts {
    /// The HELLO of the next attempt: `base` with the session and a number that no HELLO for this session had before,
    /// whatever becomes of it.
    pub fn hello(&mut self, base: &Hello) -> Hello {
        self.attempt = self.attempt.saturating_add(1);
        let mut hello = base.clone();
        hello.session = self.session;
        hello.attempt = self.attempt;
        hello
    }

    /// Judges the WELCOME that answers the last HELLO. The session that it names is the one of all further attempts.
    ///
    /// # Errors
    /// A [`Violation`] if it answers something else.
    pub fn welcomed(&mut self, welcome: &Welcome) -> Result<Welcomed, Violation> {
        let forbidden = |rule| Err(Violation::new(CloseCode::FORBIDDEN, rule));
        if welcome.attempt != self.attempt {
            return forbidden("WELCOME to another attempt");
        }
        if welcome.session.is_new() {
            return forbidden("WELCOME without a session");
        }
        let same = !self.session.is_new() && welcome.session == self.session;
        match (welcome.resumed, same) {
            (true, true) => Ok(Welcomed::Resumed),
            (true, false) => forbidden("WELCOME back to another session"),
            (false, true) => forbidden("WELCOME to a new session under the old id"),
            (false, false) => {
                *self = Self { session: welcome.session, attempt: 0 };
                Ok(Welcomed::Fresh)
            }
        }
    }
}

/// What a server knows of the session that a HELLO names, if it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the two facts that the check asks for")]
pub struct Known {
    /// Whether key and principal of the link are those of the session's maker.
    pub same_maker: bool,
    /// The attempt with which the session was last resumed; 0 if it never was, since attempts count anew in each.
    pub attempt: u64,
}

/// What becomes of a HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a HELLO is answered in one of these ways")]
pub enum Judgement {
    /// A new session, if its agent may have the key. What HELLO says that the agent has is of another session:
    /// [`Session::link_up`](crate::proto::Session::link_up) gets 0.
    Fresh,
    /// The session goes on, if [`Session::link_up`](crate::proto::Session::link_up) finds that the counts can be.
    Resume,
    /// The link is closed with this code, and every session is as it was.
    Refuse(CloseCode),
}

/// The server's check of a HELLO with this `attempt`, up to the counts, in the order of \[M-40\].
///
/// `is_newest`: no newer link than that of the HELLO is, or was, bound for its key. It has to be one critical section
/// with the binding of the link, and with the expiry of sessions: what happens in between makes the judgement void.
#[must_use]
pub fn judge_attach(attempt: u64, is_newest: bool, known: Option<Known>) -> Judgement {
    match known {
        _ if !is_newest => Judgement::Refuse(CloseCode::STALE),
        None => Judgement::Fresh,
        Some(Known { same_maker: false, .. }) => Judgement::Refuse(CloseCode::FOREIGN),
        Some(known) if attempt <= known.attempt => Judgement::Refuse(CloseCode::STALE),
        Some(_) => Judgement::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Bounds, InstanceId};

    fn base() -> Hello {
        Hello::new(InstanceId::new([1; 16]), Bounds::default())
    }

    fn welcome(session: u8, attempt: u64, resumed: bool) -> Welcome {
        let mut welcome = Welcome::new(SessionId::new([session; 16]), attempt, Bounds::default(), 0);
        welcome.resumed = resumed;
        welcome
    }

    #[test]
    fn m37_each_attempt_is_higher_failed_ones_included_and_counts_anew_for_a_new_session() {
        let mut attempts = Attempts::default();
        assert_eq!([0; 3].map(|_| attempts.hello(&base()).attempt), [1, 2, 3]);
        assert_eq!(attempts.welcomed(&welcome(7, 3, false)), Ok(Welcomed::Fresh));
        assert_eq!([0; 2].map(|_| attempts.hello(&base()).attempt), [1, 2]);
        assert_eq!(attempts.welcomed(&welcome(7, 2, true)), Ok(Welcomed::Resumed));
        assert_eq!(attempts.hello(&base()).attempt, 3);
        assert_eq!(attempts.welcomed(&welcome(8, 3, false)), Ok(Welcomed::Fresh));
        let hello = attempts.hello(&base());
        assert_eq!((hello.session, hello.attempt), (SessionId::new([8; 16]), 1));
    }

    #[test]
    fn m36_a_welcome_to_something_else_is_a_violation() {
        let mut attempts = Attempts::default();
        attempts.hello(&base());
        for wrong in [welcome(7, 2, false), welcome(7, 1, true), welcome(0, 1, false)] {
            assert_eq!(attempts.welcomed(&wrong).unwrap_err().code(), CloseCode::FORBIDDEN, "{wrong:?}");
        }
        attempts.welcomed(&welcome(7, 1, false)).unwrap();
        attempts.hello(&base());
        for wrong in [welcome(7, 0, true), welcome(8, 1, true), welcome(7, 1, false)] {
            assert_eq!(attempts.welcomed(&wrong).unwrap_err().code(), CloseCode::FORBIDDEN, "{wrong:?}");
        }
        assert_eq!(attempts.welcomed(&welcome(7, 1, true)), Ok(Welcomed::Resumed), "they changed nothing");
    }

    #[test]
    fn m40_a_hello_is_judged_in_the_stated_order() {
        let known = |same_maker, attempt| Some(Known { same_maker, attempt });
        let table = [
            (2, false, None, Judgement::Refuse(CloseCode::STALE)),
            (2, false, known(false, 1), Judgement::Refuse(CloseCode::STALE)),
            (2, true, None, Judgement::Fresh),
            (2, true, known(false, 9), Judgement::Refuse(CloseCode::FOREIGN)),
            (2, true, known(true, 3), Judgement::Refuse(CloseCode::STALE)),
            (2, true, known(true, 2), Judgement::Refuse(CloseCode::STALE)),
            (2, true, known(true, 1), Judgement::Resume),
        ];
        for (attempt, is_newest, known, judgement) in table {
            assert_eq!(judge_attach(attempt, is_newest, known), judgement, "{attempt} {is_newest} {known:?}");
        }
    }
}
