//! Tunnels whose credentials come to their end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::request::Parts;
use revdial::{
    Error, ErrorKind, TargetName,
    connman::{ConnectionManager, KeyState},
    frame::{CloseCode, Frame, StreamId},
    server::{Authorize, Grant, Rejection, RevDialLayer, Standing, requested_key},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until},
};

use crate::{
    Counted, URI,
    classic::{self, Peer},
    gone, key,
    raw::{Arrived, RawAgent, serve, upgrade},
};

const SECOND: Duration = Duration::from_secs(1);

fn revoked(counted: &[String]) -> usize {
    counted.iter().filter(|name| *name == "revdial_auth_failures_total{revoked}").count()
}

/// Opens a stream at the agent, which accepts it.
async fn stream(connman: &ConnectionManager, agent: &mut RawAgent) -> (revdial::TunnelStream, StreamId) {
    let dialled = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
    let (id, _) = agent.opened().await;
    agent.send(Frame::Accept { stream: id, credit: 64 * 1024 }).await;
    (dialled.await.unwrap().unwrap(), id)
}

async fn fails(mut stream: revdial::TunnelStream) -> ErrorKind {
    Error::find(&stream.read_u8().await.unwrap_err()).unwrap().kind()
}

#[test]
fn b22_a_grant_that_expires_closes_the_tunnel_with_4401_and_its_streams_are_lost() {
    let counted = Counted::by(async {
        let connman = ConnectionManager::new();
        let authorize =
            |parts: &Parts| Ok::<_, Rejection>(Grant::new(requested_key(parts)?, "p").expires_in(9 * SECOND));
        let service = RevDialLayer::new(connman.clone(), authorize).into_service();
        let start = Instant::now();
        let mut agent = RawAgent::connect(serve(service), upgrade(URI), 1).await;
        let (stream, _) = stream(&connman, &mut agent).await;
        assert_eq!(agent.closed().await, CloseCode::CREDENTIALS);
        assert_eq!(start.elapsed().as_secs(), 9);
        assert_eq!(fails(stream).await, ErrorKind::SessionLost);
        drop(agent);
        gone(&connman).await;
    });
    assert_eq!(revoked(&counted), 1, "{counted:?}");
}

#[test]
fn b22_before_a_grant_expires_the_tunnel_drains_where_it_says_so_and_the_next_one_stands_beside() {
    let counted = Counted::by(async {
        let connman = ConnectionManager::new();
        let authorize = |parts: &Parts| {
            Ok::<_, Rejection>(Grant::new(requested_key(parts)?, "p").expires_in(60 * SECOND).drain_for(20 * SECOND))
        };
        let service = RevDialLayer::new(connman.clone(), authorize).into_service();
        let start = Instant::now();
        let mut agent = RawAgent::connect(serve(service.clone()), upgrade(URI), 1).await;
        let (mut old, id) = stream(&connman, &mut agent).await;
        let Arrived::Frames(_, frames) = agent.recv().await else { panic!("no DRAIN") };
        assert!(
            matches!(
                frames[..],
                [Frame::Drain { code: CloseCode::DRAINED, deadline_ms: 20_000, jitter_ms: 5_000, .. }]
            ),
            "{frames:?}"
        );
        assert_eq!(start.elapsed().as_secs(), 40);
        assert_eq!(connman.list()[0].state, KeyState::Grace);

        let mut next = RawAgent::connect(serve(service), upgrade(URI), 1).await;
        let (mut new, new_id) = stream(&connman, &mut next).await;
        for (agent, stream, id) in [(&mut agent, &mut old, id), (&mut next, &mut new, new_id)] {
            agent.send(Frame::Data { stream: id, payload: "still".into() }).await;
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"still");
        }
        assert_eq!(agent.closed().await, CloseCode::CREDENTIALS);
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_eq!(fails(old).await, ErrorKind::SessionLost);
        new.write_all(b"on").await.unwrap();
        assert_eq!(connman.list()[0].state, KeyState::Connected);
    });
    assert_eq!(revoked(&counted), 1, "{counted:?}");
}

/// Says of each tunnel what it was told to say, once a second.
#[derive(Clone)]
struct Told(Arc<Mutex<Option<Standing>>>);

impl Told {
    fn new(standing: Option<Standing>) -> Self {
        Self(Arc::new(Mutex::new(standing)))
    }

    fn set(&self, standing: Standing) {
        *self.0.lock().unwrap() = Some(standing);
    }
}

impl Authorize for Told {
    async fn authorize(&self, parts: &Parts) -> Result<Grant, Rejection> {
        Ok(Grant::new(requested_key(parts)?, "p").recheck_every(SECOND))
    }

    /// `None` hangs, for `a`; for others it panics.
    async fn recheck(&self, grant: &Grant) -> Standing {
        let standing = *self.0.lock().unwrap();
        match standing {
            Some(standing) => standing,
            None if grant.key().as_str() == "a" => std::future::pending().await,
            None => panic!("no"),
        }
    }
}

#[test]
fn b22_a_second_look_that_finds_credentials_revoked_closes_the_tunnel_with_4401() {
    let counted = Counted::by(async {
        let (connman, told) = (ConnectionManager::new(), Told::new(Some(Standing::Valid)));
        let service = RevDialLayer::new(connman.clone(), told.clone()).into_service();
        let start = Instant::now();
        let mut agent = RawAgent::connect(serve(service), upgrade(URI), 1).await;
        let (stream, _) = stream(&connman, &mut agent).await;
        sleep_until(start + SECOND * 7 / 2).await;
        assert_eq!(connman.list()[0].state, KeyState::Connected);
        told.set(Standing::Revoked);
        assert_eq!(agent.closed().await, CloseCode::CREDENTIALS);
        assert_eq!(start.elapsed().as_secs(), 4);
        assert_eq!(fails(stream).await, ErrorKind::SessionLost);
    });
    assert_eq!(revoked(&counted), 1, "{counted:?}");
}

#[test]
fn b22_a_second_look_may_give_what_runs_some_time() {
    let counted = Counted::by(async {
        let (connman, told) = (ConnectionManager::new(), Told::new(Some(Standing::Ending(10 * SECOND))));
        let service = RevDialLayer::new(connman.clone(), told).into_service();
        let start = Instant::now();
        let mut agent = RawAgent::connect(serve(service), upgrade(URI), 1).await;
        let (stream, _) = stream(&connman, &mut agent).await;
        let Arrived::Frames(_, frames) = agent.recv().await else { panic!("no DRAIN") };
        assert!(matches!(frames[..], [Frame::Drain { deadline_ms: 10_000, .. }]), "{frames:?}");
        // What is said again each second neither puts it off nor says it anew.
        assert_eq!(agent.closed().await, CloseCode::CREDENTIALS);
        assert_eq!(start.elapsed().as_secs(), 11);
        assert_eq!(fails(stream).await, ErrorKind::SessionLost);
    });
    assert_eq!(revoked(&counted), 1, "{counted:?}");
}

#[test]
fn b86_a_second_look_that_hangs_or_panics_is_counted_and_the_tunnel_stays() {
    let counted = Counted::by(async {
        let (connman, told) = (ConnectionManager::new(), Told::new(None));
        let service = RevDialLayer::new(connman.clone(), told.clone()).into_service();
        let open = |name: &str| RawAgent::connect(serve(service.clone()), upgrade(&URI.replace("=a", name)), 1);
        let start = Instant::now();
        let (mut hangs, mut panics) = (open("=a").await, open("=b").await);
        sleep_until(start + SECOND * 21 / 2).await;
        assert_eq!(connman.stats().active_connections, 2);
        told.set(Standing::Revoked);
        let (hangs, panics) = tokio::join!(hangs.closed(), panics.closed());
        assert_eq!([hangs, panics], [CloseCode::CREDENTIALS; 2], "they are asked again");
    });
    let failures = counted.iter().filter(|name| *name == "revdial_callback_failures_total{}").count();
    assert_eq!(failures, 11, "ten panics, and one that was given up: {counted:?}");
}

#[test]
fn b22_a_dial_back_agent_is_cut_off_with_its_streams_also_those_that_have_outlived_its_control_link() {
    for outlived in [false, true] {
        let counted = Counted::by(async {
            let (connman, told) = (ConnectionManager::new(), Told::new(Some(Standing::Valid)));
            let service = RevDialLayer::new(connman.clone(), told.clone()).into_service();
            let mut control = Peer::control(serve(service.clone()), "a", "token").await;
            let dialled = tokio::spawn(connman.dial(&key("a"), &TargetName::default()));
            let path = format!("{}&runnerid=a", control.conn_ready().await);
            let mut there = Peer::pick_up(serve(service), &path, "token").await.unwrap();
            let here = dialled.await.unwrap().unwrap();
            if outlived {
                drop(control);
                gone(&connman).await;
            }
            told.set(Standing::Revoked);
            assert_eq!(fails(here).await, ErrorKind::SessionLost, "outlived: {outlived}");
            assert!(matches!(there.ends().await, classic::Arrived::Closed(_) | classic::Arrived::End));
        });
        assert_eq!(revoked(&counted), 1, "outlived: {outlived}: {counted:?}");
    }
}
