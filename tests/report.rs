//! What the log tells of an upgrade that failed. By itself, since a subscriber is for a whole process.
#![cfg(feature = "server")]

#[path = "support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use raw::{RawAgent, send, serve, upgrade};
use revdial::{
    connman::{ConnectionManager, Displace},
    server::{Grant, Rejection, RevDialLayer, SharedBearer, requested_key},
};
use tokio::io::DuplexStream;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn o3_a_failed_upgrade_is_reported() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
    subscriber.with_max_level(tracing::Level::TRACE).init();

    let layer = RevDialLayer::new(ConnectionManager::new(), SharedBearer::new("t0ken").unwrap())
        .peer_addr(|_| Some(([192, 0, 2, 7], 4000).into()));
    for (token, status) in
        [("Bearer t0ken", StatusCode::SWITCHING_PROTOCOLS), ("Bearer s3cret", StatusCode::UNAUTHORIZED)]
    {
        let (ours, theirs) = tokio::io::duplex(4096);
        // Without `with_upgrades()`.
        let service = TowerToHyperService::new(layer.clone().into_service());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
        let request = upgrade("/api/v1/revdial?runnerid=A").header(header::AUTHORIZATION, token);
        assert_eq!(send(ours, request.body(Full::default()).unwrap()).await.status(), status);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let reports: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    let [report] = reports[..] else { panic!("one line: {log}") };
    assert!(report.contains("with_upgrades()") && report.contains(r"revdial.link{key=a epoch="), "{report}");
    let refusals: Vec<_> = log.lines().filter(|line| line.contains("tunnel refused")).collect();
    let [refusal] = refusals[..] else { panic!("one line: {log}") };
    for told in ["revdial.handshake{key=a peer=192.0.2.7:4000}", "status=401", "wrong credentials"] {
        assert!(refusal.contains(told), "{told}: {refusal}");
    }
    assert!(!log.contains("t0ken") && !log.contains("s3cret"), "{log}");
}

const URI: &str = "/api/v1/revdial?runnerid=a";

/// Whoever says so in a header is who he says he is.
fn by_header(parts: &Parts) -> Result<Grant, Rejection> {
    let user = parts.headers["x-user"].to_str().map_err(|_| Rejection::unauthorized())?;
    Ok(Grant::new(requested_key(parts)?, user))
}

/// The status of a dial-back agent's request, which is told before the upgrade what others hear behind it.
async fn asked(io: DuplexStream, uri: &str, user: &str) -> u16 {
    let mut request = upgrade(uri).header("x-user", user).body(Full::default()).unwrap();
    request.headers_mut().remove(header::SEC_WEBSOCKET_PROTOCOL);
    send(io, request).await.status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn o3_a_key_that_cannot_be_had_is_reported_with_its_status_and_reason() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _here = tracing::subscriber::set_default(subscriber);

    let connman = ConnectionManager::builder().max_tunnels(1).displace(|_, _| Displace::Reject).build();
    let service = RevDialLayer::new(connman.clone(), by_header).into_service();
    let io = || serve(service.clone());
    let _holder = RawAgent::connect(io(), upgrade(URI).header("x-user", "alice"), 1).await;
    let statuses = [
        asked(io(), URI, "alice").await,
        asked(io(), URI, "mallory").await,
        asked(io(), "/api/v1/revdial?runnerid=b", "alice").await,
    ];
    assert_eq!(statuses, [409, 403, 503]);
    connman.shutdown();
    assert_eq!(asked(io(), URI, "alice").await, 503);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let refusals: Vec<_> = log.lines().filter(|line| line.contains("tunnel refused")).collect();
    let expected = ["409 in_use", "403 foreign", "503 overloaded", "503 shutting_down"];
    assert_eq!(refusals.len(), expected.len(), "{log}");
    for (refusal, expected) in refusals.iter().zip(expected) {
        let (status, reason) = expected.split_once(' ').unwrap();
        for told in [format!("status={status}"), format!("reason=\"{reason}\"")] {
            assert!(refusal.contains(&told) && refusal.contains("revdial.handshake{key="), "{told}: {refusal}");
        }
    }
}
