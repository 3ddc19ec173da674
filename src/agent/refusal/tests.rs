use super::*;

#[test]
fn statuses_have_their_kind_and_pace() {
    let table = [
        (401, ErrorKind::Auth, Retry::Slow),
        (403, ErrorKind::Forbidden, Retry::Slow),
        (409, ErrorKind::KeyInUse, Retry::Slow),
        (426, ErrorKind::Version, Retry::Slow),
        (429, ErrorKind::Overloaded, Retry::Backoff),
        (200, ErrorKind::Handshake, Retry::Backoff),
        (301, ErrorKind::Handshake, Retry::Backoff),
        (302, ErrorKind::Handshake, Retry::Backoff),
        (400, ErrorKind::Handshake, Retry::Backoff),
        (404, ErrorKind::Handshake, Retry::Backoff),
        (503, ErrorKind::Handshake, Retry::Backoff),
    ];
    for (status, kind, retry) in table {
        let setback = Setback::by_status(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), "<html>", now());
        assert_eq!((setback.error.kind(), setback.retry), (kind, retry), "{status}");
        let text = setback.text();
        assert!(text.contains(&status.to_string()) && !text.contains("html"), "{text}");
    }
}

/// Wed, 21 Oct 2026 07:28:00 GMT.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_792_567_680)
}

fn at_least(headers: &[(header::HeaderName, &str)]) -> Duration {
    let headers = headers.iter().map(|(name, text)| (name.clone(), text.parse().unwrap())).collect();
    Setback::by_status(StatusCode::SERVICE_UNAVAILABLE, &headers, "", now()).at_least
}

#[test]
fn retry_after_is_read_and_bounded() {
    let table = [
        ("7", 7),
        (" 7 ", 7),
        ("999999999", 600),
        ("18446744073709551615", 600),
        ("18446744073709551616", 600),
        ("99999999999999999999999999999999999999999", 600),
        ("00000000000000000000000000000000000000007", 7),
        ("+7", 0),
        ("-1", 0),
        ("7.5", 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        // The two old forms, which a reader has to take.
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30),
        ("Wed Oct 21 07:28:30 2026", 30),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:27:59 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("Wed, 21 Oct 2026 07:28:30 CEST", 0),
        ("Wed, 99 Oct 2026 07:28:30 GMT", 0),
        ("soon", 0),
        ("", 0),
    ];
    for (text, seconds) in table {
        assert_eq!(at_least(&[(header::RETRY_AFTER, text)]), Duration::from_secs(seconds), "{text}");
    }
}

#[test]
fn a_date_to_retry_after_is_one_of_the_servers_clock() {
    let until = (header::RETRY_AFTER, "Wed, 21 Oct 2026 07:30:00 GMT");
    for (date, seconds) in [
        ("Wed, 21 Oct 2026 07:29:50 GMT", 10),
        ("Wed, 21 Oct 2026 07:31:00 GMT", 0),
        ("Wed, 21 Oct 2020 07:29:50 GMT", 600),
        ("today", 120),
    ] {
        assert_eq!(at_least(&[until.clone(), (header::DATE, date)]), Duration::from_secs(seconds), "{date}");
    }
    assert_eq!(at_least(&[until]), Duration::from_secs(120), "without one it is taken for ours");
    let seconds = [(header::RETRY_AFTER, "7"), (header::DATE, "Wed, 21 Oct 2020 07:29:50 GMT")];
    assert_eq!(at_least(&seconds), Duration::from_secs(7));
}

#[test]
fn close_codes_have_their_kind_and_pace() {
    let table = [
        (1000, ErrorKind::Shutdown, Retry::Slow),
        (1001, ErrorKind::Shutdown, Retry::Jitter),
        (1002, ErrorKind::Protocol, Retry::Backoff),
        (1003, ErrorKind::Protocol, Retry::Backoff),
        (1007, ErrorKind::Protocol, Retry::Backoff),
        (1008, ErrorKind::Forbidden, Retry::Slow),
        (1009, ErrorKind::Protocol, Retry::Backoff),
        (1011, ErrorKind::SessionLost, Retry::Backoff),
        (1012, ErrorKind::Shutdown, Retry::Jitter),
        (1013, ErrorKind::Overloaded, Retry::Backoff),
        (4401, ErrorKind::Auth, Retry::Slow),
        (4403, ErrorKind::Forbidden, Retry::Slow),
        (4408, ErrorKind::SessionLost, Retry::Jitter),
        (4409, ErrorKind::SessionLost, Retry::Backoff),
        (4410, ErrorKind::Replaced, Retry::Never),
        (4411, ErrorKind::KeyInUse, Retry::Slow),
        (4413, ErrorKind::Overloaded, Retry::Backoff),
        (4420, ErrorKind::Protocol, Retry::Backoff),
        (4421, ErrorKind::Protocol, Retry::Backoff),
        (4426, ErrorKind::Version, Retry::Slow),
        (4429, ErrorKind::Overloaded, Retry::Backoff),
        (4999, ErrorKind::SessionLost, Retry::Backoff),
    ];
    for (code, kind, retry) in table {
        let code = CloseCode::new(code);
        let closed = EstablishError::Closed { code, reason: "because".into() };
        let session = SessionEnd::ClosedByPeer { code, reason: "because".into() };
        for setback in [
            Setback::by_establish(closed),
            Setback::by_end(LinkEnd::Closed(Some(code)), None),
            Setback::by_end(LinkEnd::Lost, Some(&session)),
        ] {
            assert_eq!((setback.error.kind(), setback.retry), (kind, retry), "{code}");
            assert_eq!(setback.forked, code == CloseCode::STALE);
            assert!(!setback.text().contains("because"), "{}", setback.text());
        }
    }
}

#[test]
fn a_lost_link_is_the_only_end_retried_at_once() {
    for end in [LinkEnd::Lost, LinkEnd::Closed(None), LinkEnd::Aborted] {
        assert_eq!(Setback::by_end(end, Some(&SessionEnd::Lost)).retry, Retry::AtOnce);
    }
    for end in [LinkEnd::Dead, LinkEnd::Violation(CloseCode::CREDIT), LinkEnd::Superseded] {
        assert_ne!(Setback::by_end(end, None).retry, Retry::AtOnce);
    }
}

#[test]
fn a_link_that_ended_does_not_say_that_the_session_was_lost() {
    for (end, text) in [(LinkEnd::Lost, "the link was lost"), (LinkEnd::Dead, "nothing was heard from the server")] {
        let setback = Setback::by_end(end, None);
        assert_eq!((setback.error.kind(), setback.text().as_str()), (ErrorKind::SessionLost, text));
    }
    let refused = Setback::by_status(StatusCode::UNAUTHORIZED, &HeaderMap::new(), "", now());
    assert!(refused.text().starts_with(&format!("{}: ", refused.error)), "{}", refused.text());
}
