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

use http::{StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use raw::{send, upgrade};
use revdial::{
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};

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
