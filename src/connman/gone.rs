//! What is told of a key that was connected and is no longer.
//!
//! Pure: no runtime, no clock.

use std::{
    error::Error as StdError,
    fmt,
    time::{Duration, Instant},
};

use crate::{
    connman::{policy::LossCause, registry::Departure},
    error::causes,
};

/// An absent key that was connected before: since when it is gone, and why. The cause of
/// [`NoConnection`](crate::ErrorKind::NoConnection) for such a key, and what
/// [`ConnectionManager::gone`](crate::connman::ConnectionManager::gone) tells of it.
///
/// The last 10,000 keys to go are remembered, each for an hour from the end of its grace, or until it is connected again.
/// Any other absent key counts as never connected. Nothing in it is an agent's own words; a close may have its code.
///
/// ```
/// use revdial::connman::{ConnectionManager, Gone};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connman = ConnectionManager::new();
/// let error = connman.dial(&"desktop-7".parse()?, &"".parse()?).await.unwrap_err();
/// match Gone::find(&error) {
///     Some(gone) => println!("{gone}"), // not connected for 40 s: nothing was heard
///     None => println!("is the agent installed?"),
/// }
/// # assert_eq!(Gone::find(&error), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gone {
    /// For how long it has had no link; its grace is part of that.
    pub since: Duration,
    /// How its last link ended, or its grace if this side [ended](crate::connman::ConnectionManager::disconnect) it:
    /// that is [`LossCause::Local`].
    pub cause: LossCause,
}

impl Gone {
    pub(super) fn of(Departure { since, cause }: Departure, now: Instant) -> Self {
        Self { since: now.saturating_duration_since(since), cause }
    }

    /// Finds it in a chain of causes, as [`Error::find`](crate::Error::find) does an error.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not connected for {} s: {}", self.since.as_secs(), self.cause)
    }
}

impl StdError for Gone {}
