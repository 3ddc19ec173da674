//! What a close frame says (RFC 6455, sections 5.5.1 and 7.4).
//!
//! Pure: no IO, no clock.

use crate::frame::CloseCode;

/// Its code, if it has one, and its reason. Fails with the rule that it breaks.
pub(super) fn decode(payload: &[u8]) -> Result<(Option<CloseCode>, &str), &'static str> {
    match payload {
        [] => Ok((None, "")),
        [_] => Err("close frame of one byte"),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_sent(code) {
                return Err("a code that no close frame has");
            }
            let reason = str::from_utf8(reason).map_err(|_| "the reason of a close frame is not UTF-8")?;
            Ok((Some(CloseCode::new(code)), reason))
        }
    }
}

/// Whether a close frame may have this code: those that are defined (RFC 6455 and IANA's list), but for the three that
/// stand for a frame that never came, and those left to libraries and applications.
fn is_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, reason: &[u8]) -> Option<&'static str> {
        decode(&[&code.to_be_bytes(), reason].concat()).err()
    }

    #[test]
    fn a_close_frame_says_nothing_or_a_code_or_a_code_and_a_reason() {
        assert_eq!(decode(b""), Ok((None, "")));
        assert_eq!(decode(b"\x03\xe8"), Ok((Some(CloseCode::NORMAL), "")));
        let both = [b"\x13\x87", "höhere Gewalt".as_bytes()].concat();
        assert_eq!(decode(&both), Ok((Some(CloseCode::new(4999)), "höhere Gewalt")));
        assert!(decode(b"x").unwrap_err().contains("one byte"));
    }

    #[test]
    fn codes_that_are_reserved_or_stand_for_no_frame_at_all_are_refused() {
        let taken: Vec<u16> = (0..=u16::MAX).filter(|code| refusal(*code, b"").is_none()).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(taken, expected);
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(refusal(code, b"why").unwrap().contains("code"), "{code}");
        }
    }

    #[test]
    fn a_reason_that_is_not_utf8_is_refused_whether_wrong_or_cut() {
        for reason in [&b"\xff"[..], b"\xed\xa0\x80", b"cut \xe2\x82", b"\xc0\x80"] {
            assert!(refusal(1000, reason).unwrap().contains("UTF-8"), "{reason:?}");
        }
        assert_eq!(refusal(1000, "whole €".as_bytes()), None);
    }
}
