//! What each kind of error is to an operator, to a caller that may try again, and to an HTTP client.
#![cfg(feature = "proxy")]

#[path = "support/listed.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
mod listed;

use std::{error::Error as StdError, io};

use http::header;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use revdial::{
    Blame, Error, ErrorKind as K,
    connman::ConnectionManager,
    proto::{OpenError, SessionEnd, StreamError},
    proxy::{Proxy, status_of},
};

/// Each kind: its text, who is to blame, whether a retry is safe, the status.
const KINDS: &[(K, &str, Blame, bool, u16)] = &[
    (K::NoConnection, "no connection", Blame::Agent, true, 503),
    (K::ReconnectTimeout, "reconnect timeout", Blame::Agent, true, 503),
    (K::TooManyPendingDials, "max pending dials exceeded", Blame::Server, true, 503),
    (K::DialTimeout, "dial timeout", Blame::Agent, true, 504),
    (K::TargetUnknown, "the agent has no such target", Blame::Agent, true, 502),
    (K::TargetDenied, "the agent does not allow the target", Blame::Agent, true, 502),
    (K::TargetRefused, "connection refused", Blame::Target, true, 502),
    (K::TargetTimeout, "the target did not answer", Blame::Target, true, 504),
    (K::SessionLost, "the session was lost", Blame::Agent, false, 502),
    (K::Replaced, "the agent was replaced", Blame::Agent, false, 502),
    (K::Protocol, "the peer broke the protocol", Blame::Agent, false, 502),
    (K::Overloaded, "overloaded", Blame::Server, true, 503),
    (K::Shutdown, "shutting down", Blame::Server, false, 503),
    (K::Auth, "authentication required", Blame::Agent, true, 502),
    (K::Forbidden, "key not permitted", Blame::Agent, true, 502),
    (K::KeyInUse, "key in use", Blame::Agent, true, 502),
    (K::Version, "no common protocol version", Blame::Agent, true, 502),
    (K::Handshake, "the handshake failed", Blame::Server, true, 502),
    (K::Tls, "TLS failed", Blame::Server, true, 502),
    (K::PeerReset, "the peer reset the stream", Blame::Target, false, 502),
    (K::Cancelled, "cancelled", Blame::Caller, false, 400),
    (K::InvalidInput, "invalid input", Blame::Caller, true, 400),
    (K::Internal, "internal error", Blame::Internal, false, 500),
];

#[tokio::test]
async fn e1_to_e10_each_kind_has_its_text_its_blame_its_retry_safety_and_its_status() {
    let labels: Vec<_> = KINDS.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(labels.len(), listed::kinds().len(), "all kinds stand here: {:?}", listed::kinds());
    let proxy: Proxy<Empty<Bytes>> = Proxy::new(ConnectionManager::new());
    for (kind, text, blame, safe, status) in KINDS {
        let error = Error::new(*kind);
        assert_eq!((error.kind(), error.to_string().as_str()), (*kind, *text));
        assert_eq!((error.blame(), error.is_retry_safe()), (*blame, *safe), "{kind:?}");
        assert_eq!(status_of(*kind), *status, "{kind:?}");
        let said = if *safe { "yes" } else { "no" };
        let row = format!("/// | `{kind:?}` | {text} | {blame:?} | {said} | {status} |\n");
        assert!(include_str!("../src/error.rs").contains(&row), "the documentation does not have {row}");

        let answer = proxy.answer(&Error::with_source(*kind, "what a peer said"));
        assert_eq!(answer.status(), *status, "{kind:?}");
        assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), *status == 503, "{kind:?}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, kind.as_str(), "only the kind");
    }
}

#[test]
fn e11_the_failure_texts_that_operators_know_are_there() {
    for known in [
        "no connection",
        "reconnect timeout",
        "max pending dials exceeded",
        "connection refused",
        "authentication required",
    ] {
        assert!(KINDS.iter().any(|(_, text, ..)| *text == known), "{known}");
    }
}

/// The causes, from the error itself on, as std's trait leads there.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| StdError::source(*error))
}

#[test]
fn e12_the_io_error_of_a_stream_leads_to_ours_by_its_sources() {
    for (kind, text, ..) in KINDS {
        let io = io::Error::from(Error::with_source(*kind, "the cause"));
        assert_eq!(io.to_string(), *text);
        let ours = chain(&io).find_map(|error| error.downcast_ref::<Error>()).expect("ours");
        assert_eq!(ours.kind(), *kind);
        assert_eq!(chain(&io).last().map(ToString::to_string).as_deref(), Some("the cause"));
        assert_eq!(Error::find(&io).map(Error::kind), Some(*kind));
        let wrapped = io::Error::other(io);
        assert_eq!(Error::find(&wrapped).map(Error::kind), Some(*kind));
    }
    assert!(Error::find(&io::Error::other("none of ours")).is_none());
}

#[test]
fn e4_e7_a_retry_is_safe_only_if_no_byte_can_have_reached_the_target() {
    // A stream that may have been written to.
    for error in
        [StreamError::Unanswered, StreamError::Session(SessionEnd::Lost), StreamError::Session(SessionEnd::Shutdown)]
    {
        assert!(!Error::from(error).is_retry_safe());
    }
    // An open that was never made.
    for error in [OpenError::TooManyStreams, OpenError::Draining, OpenError::Session(SessionEnd::Lost)] {
        assert!(Error::from(error).is_retry_safe());
    }
}
