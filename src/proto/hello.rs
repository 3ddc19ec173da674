//! What both sides agree on in HELLO and WELCOME.

use super::error::Violation;
use crate::frame::{Bounds, CloseCode, Hello};

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The smallest message that a peer may insist on, in bytes.
const MIN_MESSAGE: u32 = 1024;

/// Judges a HELLO by itself: its version and its bounds.
///
/// # Errors
/// A [`Violation`] with 4426 for another version, with 4420 for bounds that nothing can run on.
pub fn check_hello(hello: &Hello) -> Result<(), Violation> {
    if hello.version != VERSION {
        return Err(Violation::new(CloseCode::VERSION, "version not supported"));
    }
    check_bounds(&hello.bounds)
}

/// Judges what a peer announced. Absurdly large bounds do no harm: each is used as the smaller of it and one's own,
/// and nothing is allocated for it.
///
/// # Errors
/// A [`Violation`] with 4420 that names the field which is below its minimum.
pub fn check_bounds(bounds: &Bounds) -> Result<(), Violation> {
    let below = |rule| Err(Violation::new(CloseCode::FORBIDDEN, rule));
    match bounds {
        Bounds { max_streams: 0, .. } => below("max_streams below 1"),
        Bounds { max_opens: 0, .. } => below("max_opens below 1"),
        Bounds { max_opens_per_target: 0, .. } => below("max_opens_per_target below 1"),
        Bounds { max_message: 0..MIN_MESSAGE, .. } => below("max_message below 1 KiB"),
        bounds if bounds.max_credit < u64::from(bounds.early_credit) => below("max_credit below the early credit"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::InstanceId;

    #[test]
    fn m31_b19_absurd_bounds_are_clamped_and_bounds_below_the_minimum_refused() {
        assert_eq!(check_bounds(&Bounds::default()), Ok(()));
        let huge = Bounds { max_credit: 1 << 63, max_streams: u32::MAX, ..Bounds::default() };
        assert_eq!(check_bounds(&huge), Ok(()));
        for bounds in [
            Bounds { max_streams: 0, ..Bounds::default() },
            Bounds { max_opens: 0, ..Bounds::default() },
            Bounds { max_opens_per_target: 0, ..Bounds::default() },
            Bounds { max_message: 1023, ..Bounds::default() },
            Bounds { max_credit: 0, ..Bounds::default() },
        ] {
            assert_eq!(check_bounds(&bounds).unwrap_err().code(), CloseCode::FORBIDDEN, "{bounds:?}");
        }
    }

    #[test]
    fn b90_another_version_is_refused_with_4426() {
        let mut hello = Hello::new(InstanceId::new([1; 16]), Bounds::default());
        assert_eq!(check_hello(&hello), Ok(()));
        hello.version = 2;
        assert_eq!(check_hello(&hello).unwrap_err().code(), CloseCode::VERSION);
    }
}
