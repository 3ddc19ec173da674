//! Streams whose connections are about to come, claimed and not there yet, when their agent's leave or control
//! connection ends.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, request::Parts};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use revdial::{
    Error, ErrorKind, TargetName,
    connman::{ConnectionManager, ConnectionManagerBuilder, NoGrace, TunnelEvent},
    frame::CloseCode,
    server::{Authorize, RevDialLayer},
};
use tokio::{
    io::AsyncReadExt,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::Service;

use crate::{
    classic::{self, Peer, soon},
    net::Net,
    until,
    world::{ALICE, Dialled, Pipe, Server, by_name, failed, hear, opened},
};

const SECOND: Duration = Duration::from_secs(1);

/// A server whose host holds the answers to pick-ups back.
struct Holding {
    server: Server,
    answers: watch::Sender<bool>,
    held: Arc<AtomicUsize>,
}

impl Holding {
    fn of(builder: ConnectionManagerBuilder, authorize: impl Authorize + Clone) -> Self {
        let (answers, held) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
        let mut server = Server::of(builder, authorize.clone());
        let service = RevDialLayer::new(server.connman.clone(), authorize).into_service();
        let (told, holds) = (answers.subscribe(), Arc::clone(&held));
        server.net = Net::new(move |io| {
            let (service, told, holds) = (service.clone(), told.clone(), Arc::clone(&holds));
            let service = service_fn(move |request: Request<Incoming>| {
                let (mut service, mut told, holds) = (service.clone(), told.clone(), Arc::clone(&holds));
                async move {
                    let picks_up = request.uri().query().is_some_and(|query| query.contains("revdial.req"));
                    let response = service.call(request).await;
                    if picks_up {
                        holds.fetch_add(1, Ordering::Relaxed);
                        told.wait_for(|answers| *answers).await.unwrap();
                    }
                    response
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades());
        });
        Self { server, answers, held }
    }

    /// A dial whose connection is about to come, and who brings that.
    async fn arriving(&self, control: &mut Pipe) -> (Dialled, JoinHandle<Result<Pipe, u16>>) {
        let (dialled, net) = (self.server.dial(), self.server.net.clone());
        let path = control.conn_ready().await;
        let brings = tokio::spawn(async move { Peer::pick_up(net.open(), &path, ALICE.0).await });
        until("claimed", || self.held.load(Ordering::Relaxed) == 1).await;
        (dialled, brings)
    }

    /// The connection comes, and is broken off.
    async fn breaks_off(&self, brings: JoinHandle<Result<Pipe, u16>>) {
        self.answers.send_replace(true);
        let mut there = soon(brings).await.unwrap().unwrap();
        there.closed_with(CloseCode::INTERNAL.number()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b22_a_disconnect_ends_what_is_about_to_come_also_when_the_control_connection_was_lost_before() {
    let holding = Holding::of(ConnectionManager::builder().grace(NoGrace), by_name);
    let mut control = holding.server.control().await;
    let (dialled, brings) = holding.arriving(&mut control).await;
    drop(control);
    until("absent", || holding.server.connman.list().is_empty()).await;
    assert!(!dialled.is_finished(), "it does without the control connection");
    let start = Instant::now();
    assert!(holding.server.connman.disconnect(&"a".parse().unwrap()));
    assert_eq!(failed(dialled).await, ErrorKind::ReconnectTimeout);
    assert_eq!(start.elapsed(), Duration::ZERO);
    holding.breaks_off(brings).await;
    assert!(!holding.server.connman.disconnect(&"a".parse().unwrap()), "there is nothing left");
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn b22_a_connection_that_came_and_was_not_taken_yet_is_ended_by_a_disconnect() {
    let server = Server::of(ConnectionManager::builder().grace(NoGrace), by_name);
    let mut control = server.control().await;
    // A caller that looks at its dial once, and then at other things.
    let mut dial = Box::pin(server.connman.dial(&"a".parse().unwrap(), &TargetName::default()));
    assert!(futures_util::poll!(dial.as_mut()).is_pending());
    let mut there = server.pick_up(&control.conn_ready().await).await;
    drop(control);
    until("absent", || server.connman.list().is_empty()).await;
    sleep(SECOND).await;
    let start = Instant::now();
    assert!(server.connman.disconnect(&"a".parse().unwrap()));
    there.closed_with(CloseCode::INTERNAL.number()).await;
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    dial.await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn b22_credentials_that_expire_end_what_is_about_to_come_also_without_a_control_connection() {
    let for_five_seconds = |parts: &Parts| by_name(parts).map(|grant| grant.expires_in(5 * SECOND));
    let holding = Holding::of(ConnectionManager::builder().grace(NoGrace), for_five_seconds);
    let mut control = holding.server.control().await;
    let granted = Instant::now();
    let (dialled, brings) = holding.arriving(&mut control).await;
    drop(control);
    failed(dialled).await;
    assert_eq!(granted.elapsed().as_secs(), 5);
    holding.breaks_off(brings).await;
}

#[tokio::test(start_paused = true)]
async fn b84_a_drain_waits_for_what_is_about_to_come() {
    let holding = Holding::of(ConnectionManager::builder(), by_name);
    let mut control = holding.server.control().await;
    let (dialled, brings) = holding.arriving(&mut control).await;
    let connman = holding.server.connman.clone();
    let drain = tokio::spawn(async move { connman.drain(60 * SECOND).await });
    sleep(2 * SECOND).await;
    assert!(!drain.is_finished());
    holding.answers.send_replace(true);
    let (mut here, mut there) = (opened(dialled).await, soon(brings).await.unwrap().unwrap());
    there.say("the last").await;
    hear(&mut here, b"the last").await;
    drop((here, there));
    soon(drain).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn b22_streams_of_an_agent_that_is_revoked_the_moment_that_it_comes_back_end_too() {
    let manager: Arc<Mutex<Option<ConnectionManager>>> = Arc::default();
    let revoker = Arc::clone(&manager);
    let revokes = move |event: &TunnelEvent| {
        if let TunnelEvent::Replaced { key, .. } = event {
            // Taken out, as the disconnect has events of its own.
            let connman = revoker.lock().unwrap().take().unwrap();
            assert!(connman.disconnect(key));
        }
    };
    let server = Server::of(ConnectionManager::builder().observer(revokes), by_name);
    let mut control = server.control().await;
    let (mut here, mut there) = server.joined(&mut control).await;
    *manager.lock().unwrap() = Some(server.connman.clone());
    let start = Instant::now();
    let request = classic::request("/api/v1/revdial?runnerid=a", ALICE.0);
    let (mut next, _) = soon(Peer::ask(server.net.open(), &request)).await;
    next.closed_with(CloseCode::CREDENTIALS.number()).await;
    there.closed_with(CloseCode::INTERNAL.number()).await;
    let error = soon(here.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::SessionLost);
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
}
