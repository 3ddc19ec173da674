//! The whole life of an agent, of either protocol and either version of HTTP, whatever its token comes from.

use std::time::Duration;

use http::header;
use metrics_util::debugging::DebuggingRecorder;
use revdial::{
    Error, ErrorKind, TargetName,
    agent::{Agent, AgentBuilder, AgentStatus, HttpVersion, ProtocolChoice},
    connector::RevDialConnector,
    connman::{ConnectionManager, TunnelEvent},
    frame::{CloseCode, Frame, ResetCode, SessionId},
    proxy::Proxy,
    server::{Authorize, KeyedBearer, RevDialLayer, SharedBearer},
};
use tokio::time::sleep;

use crate::{
    SECRET, WRONG,
    gateway::{Gateway, serve},
    ids, marked,
    net::Net,
    output::{Output, peer},
    raw::{self, Arrived, PATH, RawAgent, hello, upgrade},
    requests,
};

/// What nothing takes that is not stuck: virtual time.
const LONG: Duration = Duration::from_secs(120);

const PROTOCOLS: [ProtocolChoice; 2] = [ProtocolChoice::Native, ProtocolChoice::Dialback];
const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

/// A server, and the way to it.
struct World {
    connman: ConnectionManager,
    gateway: Gateway,
    net: Net,
    output: Output,
}

impl World {
    fn new<A: Authorize + std::fmt::Debug>(authorize: A) -> Self {
        let mut output = Output::of_the_process();
        let events = output.clone();
        let observer = move |event: &TunnelEvent| events.clone().show(event);
        let connman = ConnectionManager::builder().observer(observer).build();
        output.show(&authorize);
        let layer = RevDialLayer::new(connman.clone(), authorize);
        output.show((&layer, RevDialConnector::new(connman.clone()), Proxy::builder(connman.clone())));
        let gateway = Gateway::new(layer);
        Self { connman, net: gateway.net(), gateway, output }
    }

    /// An agent whose token is wrong is refused, and one whose token cannot be is none.
    async fn refuses(&mut self) {
        for protocol in PROTOCOLS {
            let agent = self.net.build(Agent::builder("http://gateway", "a").token(WRONG).protocol(protocol));
            let mut status = agent.status();
            let refused = tokio::spawn(agent.listen().1);
            let told = status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await.unwrap().clone();
            self.output.show(told);
            refused.abort();
        }
        let agent = Agent::builder("http://gateway", "a").token(format!("not\na header{WRONG}\n"));
        self.output.show_error(&agent.build_with(self.net.clone()).unwrap_err());
    }

    /// An agent comes, is dialled, is asked for what it has not, is cut off and comes back, and is shut down.
    async fn life(&mut self, builder: AgentBuilder) {
        self.output.show(&builder);
        let agent = self.net.build(builder);
        self.output.show(&agent);
        let (mut status, shutdown) = (agent.status(), agent.shutdown_handle());
        let (listener, run) = agent.listen();
        self.output.show((&listener, &run));
        let run = tokio::spawn(run);
        status.wait_for(AgentStatus::is_connected).await.unwrap();
        serve(listener);

        requests::all(&self.connman, &mut self.output).await;
        self.fails_to_pick_up().await;
        let stream = self.connman.dial(&"a".parse().unwrap(), &TargetName::default()).await.unwrap();
        self.output.show((&stream, self.connman.list(), self.connman.stats(), &self.connman));
        self.net.cut();
        sleep(Duration::from_secs(1)).await;
        status.wait_for(AgentStatus::is_connected).await.unwrap();
        requests::all(&self.connman, &mut self.output).await;
        drop(stream);
        shutdown.shutdown(Duration::from_secs(1));
        run.await.unwrap().unwrap();
        sleep(LONG).await;
    }

    /// A dial-back agent is asked for streams, and does not get to the server, which is down, or is refused there.
    async fn fails_to_pick_up(&mut self) {
        self.net.down(true);
        self.dial().await;
        self.net.down(false);
        self.net.lead_to(&Net::answering(500, &[]));
        self.dial().await;
        self.net.lead_to(&self.gateway.net());
    }

    /// Dials, and shows what comes of it.
    async fn dial(&mut self) {
        match self.connman.dial(&"a".parse().unwrap(), &TargetName::default()).await {
            Ok(stream) => self.output.show(&stream),
            Err(error) => self.output.show_error(&error),
        }
    }

    /// The ids of all pick-ups, those that never got to the server too.
    fn ids(&self) -> Vec<Vec<u8>> {
        ids(&[self.net.uris(), self.gateway.uris()].concat())
    }

    /// Somebody comes for a stream that was picked up long ago.
    async fn comes_late(&self) {
        let uris = self.gateway.uris();
        let used = uris.iter().rev().find(|uri| uri.query().is_some_and(|query| query.contains("revdial.req=")));
        let path = used.and_then(|uri| uri.path_and_query()).unwrap().as_str();
        let request = upgrade(path).header(header::AUTHORIZATION, format!("Bearer {SECRET}"));
        let answer = raw::send(self.net.open(), request.body(Default::default()).unwrap()).await;
        assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{answer:?}");
    }

    /// An agent under a script that refuses, misbehaves and comes back with the session that it was given.
    async fn scripted(&mut self) -> SessionId {
        let net = &self.net;
        let open = || {
            let request = upgrade(&format!("{PATH}?runnerid=b"));
            RawAgent::open(net.open(), request.header(header::AUTHORIZATION, format!("Bearer {SECRET}")))
        };
        let mut agent = open().await;
        let (_, welcome) = agent.greet(hello(1)).await;
        self.output.show((&welcome, welcome.session));
        let dial = tokio::spawn(self.connman.dial(&"b".parse().unwrap(), &TargetName::default()));
        let (stream, _) = agent.opened().await;
        agent.send(Frame::Reset { stream, code: ResetCode::TARGET_REFUSED, reason: "refused".into() }).await;
        self.output.show_error(&dial.await.unwrap().unwrap_err());
        let mut back = open().await;
        let mut again = hello(1);
        (again.session, again.attempt) = (welcome.session, 1);
        self.output.show(&again);
        back.attach(again, 1, 1).await;
        assert!(matches!(back.recv().await, Arrived::Frames(..)), "WELCOME");
        back.send(Frame::Hello(hello(1))).await;
        assert_eq!(back.closed().await, CloseCode::FORBIDDEN);
        welcome.session
    }
}

#[tokio::test(start_paused = true)]
async fn t3_no_output_shows_a_secret_at_any_level_in_all_of_a_life() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(SharedBearer::new(SECRET).unwrap());
    log::trace!(target: "a library", "something of its own");

    world.refuses().await;
    for (protocol, http) in PROTOCOLS.into_iter().flat_map(|protocol| VERSIONS.map(|http| (protocol, http))) {
        world.life(Agent::builder("http://gateway", "a").token(SECRET).protocol(protocol).http(http)).await;
    }
    world.comes_late().await;
    let session = peer(world.scripted()).await;
    let ids = world.ids();
    let World { mut output, .. } = world;
    for kind in [ErrorKind::Auth, ErrorKind::NoConnection] {
        output.show_error(&Error::new(kind));
    }
    sleep(LONG).await;
    for (key, ..) in snapshotter.snapshot().into_vec() {
        output.show(key);
    }

    let said = [
        "TRACE",
        "tunnel resumed",
        "dial-back link up",
        "tunnel refused",
        "stream ended",
        "broke a rule",
        "the agent could not pick up a dial",
        "pick-up refused",
        "revdial_streams_total",
        "log TRACE a library: something of its own",
    ];
    output.check(&said, [marked(), ids, vec![session.as_bytes().to_vec()]].concat());
    assert!(
        output.of_peers().contains("log TRACE tungstenite"),
        "frames of the library's are heard where there are any"
    );
}

#[tokio::test(start_paused = true)]
async fn t3_no_output_shows_a_token_from_a_file_or_a_function_nor_the_secret_that_it_is_made_of() {
    let bearer = KeyedBearer::new(SECRET).unwrap();
    let token = bearer.token_for(&"a".parse().unwrap());
    let mut world = World::new(bearer);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("\n{token}\n")).unwrap();
    let told = token.clone();
    let builder = || Agent::builder("http://gateway", "a");
    for protocol in PROTOCOLS {
        world.life(builder().token_file(file.path()).protocol(protocol)).await;
        let told = told.clone();
        world
            .life(builder().token_source(move || std::future::ready(Ok::<_, Error>(told.clone()))).protocol(protocol))
            .await;
    }
    // What cannot be a token, and those of somebody else.
    for wrong in [format!("{token}\n{WRONG}"), format!("{token}{WRONG}"), WRONG.repeat(1000)] {
        std::fs::write(file.path(), wrong).unwrap();
        let agent = world.net.build(builder().token_file(file.path()));
        let mut status = agent.status();
        let run = tokio::spawn(agent.listen().1);
        let told = status.wait_for(|status| *status != AgentStatus::Connecting).await.unwrap().clone();
        assert!(matches!(told, AgentStatus::Refused { .. } | AgentStatus::Waiting { .. }), "{told:?}");
        world.output.show(told);
        run.abort();
    }
    let said = ["dial-back link up", "tunnel refused"];
    world.output.check(&said, [marked(), world.ids(), vec![token.into_bytes()]].concat());
}
