//! What the host gives the layer and what then panics or hangs costs one request, and nothing else.

use std::time::Duration;

use http::{header, request::Parts};
use hyper::rt::Executor;
use revdial::{
    connman::ConnectionManager,
    server::{Authorize, Grant, LinkTask, Rejection, RevDialLayer, requested_key},
};
use tokio::time::Instant;

use crate::{
    Counted, URI, ask, full, granted, layer,
    raw::{PATH, upgrade},
    status,
};

/// Takes as long as the query says, or panics.
#[derive(Clone, Copy)]
pub(crate) struct Moody;

impl Authorize for Moody {
    async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let key = requested_key(parts)?;
        tokio::time::sleep(Duration::from_secs(if key.as_str() == "slow" { 3600 } else { 1 })).await;
        assert_ne!(key.as_str(), "panics");
        Ok(Grant::new(key, "p"))
    }
}

fn count(counted: &[String], name: &str) -> usize {
    counted.iter().filter(|counter| *counter == name).count()
}

#[test]
fn b86_b13_an_authorize_that_panics_or_hangs_fails_its_request_and_no_other() {
    let counted = Counted::by(async {
        let layer = RevDialLayer::new(ConnectionManager::new(), Moody);
        let timed = async |name: &str| {
            let start = Instant::now();
            (status(&layer, upgrade(&format!("{PATH}?runnerid={name}"))).await, start.elapsed().as_secs())
        };
        let (slow, panics, good) = tokio::join!(timed("slow"), timed("panics"), timed("good"));
        assert_eq!((slow, panics, good), ((408, 10), (500, 1), (101, 1)));
    });
    assert_eq!(count(&counted, "revdial_callback_failures_total{}"), 2, "{counted:?}");
    assert_eq!(count(&counted, "revdial_handshake_timeout_total{}"), 1, "{counted:?}");
}

#[test]
fn b86_an_authorize_that_panics_before_it_gives_a_future_is_500_too() {
    let counted = Counted::by(async {
        let layer =
            RevDialLayer::new(ConnectionManager::new(), |_: &Parts| -> Result<Grant, Rejection> { panic!("no") });
        let response = ask(&layer, full(upgrade(URI))).await;
        assert_eq!((response.status().as_u16(), response.headers().len()), (500, 0));
    });
    assert_eq!(counted, ["revdial_callback_failures_total{}"]);
}

/// Runs nothing.
struct Panics;

impl Executor<LinkTask> for Panics {
    fn execute(&self, _: LinkTask) {
        panic!("no");
    }
}

#[test]
fn b86_an_executor_that_panics_costs_its_request_a_500_and_no_place_among_the_handshakes() {
    let counted = Counted::by(async {
        let layer = layer(&ConnectionManager::new()).max_handshakes(1).executor(Panics);
        for _ in 0..2 {
            assert_eq!(status(&layer, granted(URI)).await, 500);
        }
    });
    assert_eq!(counted, ["revdial_callback_failures_total{}", "revdial_callback_failures_total{}"]);
}

#[test]
fn b86_an_address_that_panics_is_an_unknown_one() {
    let counted = Counted::by(async {
        let layer = layer(&ConnectionManager::new())
            .peer_addr(|parts| Some(parts.headers[header::FORWARDED].to_str().unwrap().parse().unwrap()));
        assert_eq!(status(&layer, granted(URI)).await, 101);
        tokio::task::yield_now().await;
    });
    assert_eq!(count(&counted, "revdial_callback_failures_total{}"), 1, "{counted:?}");
}
