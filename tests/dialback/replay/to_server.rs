//! Plays the agent's side of a transcript to a server of ours, and what the server's program called to its API.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use hyper::{body::Bytes, header, rt::Executor};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use revdial::{
    ErrorKind, TargetName,
    connector::RevDialConnector,
    connman::{ConnectionManager, Dial, KeyState},
    server::{LinkTask, RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    Clock, TOKEN, Timing, next_of,
    tape::{Record, Tape, Way, What},
};
use crate::{
    classic::{
        self, Peer, Side, soon,
        wire::{BINARY, CLOSE, Frame, Head, PING, PONG},
    },
    net::Net,
    until,
};

struct Player {
    connman: ConnectionManager,
    net: Net,
    links: Links,
    conns: HashMap<usize, Conn>,
    /// Those that the recorder kept from the server.
    unseen: HashSet<usize>,
    /// Recorded ids, and those that stand for them here.
    ids: HashMap<String, String>,
    clock: Clock,
    tell: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

struct Conn {
    peer: Peer<DuplexStream>,
    request: Head,
    /// What the last ping of the server's said.
    pinged: Vec<u8>,
    /// Pings and pongs that came before they were looked for.
    early: Vec<Frame>,
}

/// How a call of the server's program ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// A dial, whose byte came back.
    Echoed(u8),
    /// A dial, whose first read was the end.
    Ended,
    Failed(ErrorKind),
    /// A request: its status, and the length of its body.
    Answered(u16, usize),
}

/// Runs links until it is told not to.
#[derive(Clone, Default)]
struct Links(Arc<Mutex<JoinSet<()>>>);

impl Executor<LinkTask> for Links {
    fn execute(&self, task: LinkTask) {
        self.0.lock().unwrap().spawn(task);
    }
}

/// Plays it from the first record to the last. `statuses` are those of our refusals, by connection.
pub(crate) async fn play(tape: &Tape, statuses: &[(usize, u16)], timing: Timing) {
    let connman = ConnectionManager::new();
    let links = Links::default();
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap()).executor(links.clone());
    let (tell, outcomes) = mpsc::unbounded_channel();
    let mut player = Player {
        connman,
        net: Net::of(layer),
        links,
        conns: HashMap::new(),
        unseen: HashSet::new(),
        ids: HashMap::new(),
        clock: Clock::new(timing),
        tell,
        outcomes,
    };
    for record in &tape.records {
        println!("{} {:.3} {} {:?}", tape.name, record.at, record.conn, record.what);
        player.record(record, statuses).await;
    }
    assert!(player.outcomes.is_empty());
}

impl Player {
    async fn record(&mut self, Record { at, conn, what }: &Record, statuses: &[(usize, u16)]) {
        if self.unseen.contains(conn) {
            return;
        }
        match what {
            What::Head(Way::ToServer, head) => {
                let request = Head { start_line: self.translated(&head.start_line), ..head.clone() };
                let mut peer = Peer::new(self.net.open(), Side::Agent);
                peer.write(&request.encode()).await;
                self.conns.insert(*conn, Conn { peer, request, pinged: Vec::new(), early: Vec::new() });
            }
            What::Head(Way::ToAgent, recorded) => {
                let conn_of = self.conn(*conn);
                let answer = conn_of.peer.head().await;
                match statuses.iter().find(|(refused, _)| refused == conn) {
                    Some((_, status)) => assert_eq!(answer.status(), *status, "{answer:?}"),
                    None => {
                        assert_eq!(recorded.status(), 101);
                        classic::is_granted(&answer, conn_of.request.get("Sec-WebSocket-Key").unwrap());
                    }
                }
            }
            What::Frame(Way::ToServer, frame) => {
                self.clock.wait(*at).await;
                let frame = self.translated_frame(*conn, frame);
                self.conn(*conn).peer.write(&frame.encode()).await;
            }
            What::Frame(Way::ToAgent, frame) => {
                self.compare(*conn, frame).await;
                self.clock.came(*at);
            }
            What::End(Way::ToServer) => self.conn(*conn).peer.finish().await,
            What::End(Way::ToAgent) => assert_eq!(self.conn(*conn).peer.frame().await, None),
            What::Closed => drop(self.conns.remove(conn)),
            What::Call(call) => self.call(call),
            What::Returned(result) => self.returned(result).await,
            What::Note(note) if note.contains("closes this connection without answering") => {
                self.unseen.insert(*conn);
            }
            What::Note(note) if note.contains("server process killed") => self.links.0.lock().unwrap().abort_all(),
            What::Opened | What::Note(_) | What::Body(Way::ToAgent, _) => {}
            What::Body(..) | What::Bytes(..) => panic!("no part of an upgraded connection: {what:?}"),
        }
    }

    fn conn(&mut self, conn: usize) -> &mut Conn {
        self.conns.get_mut(&conn).expect("the connection was opened")
    }

    fn translated(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (recorded, ours)| text.replace(recorded, ours))
    }

    /// The recorded frame, its mask included, with the ids of here.
    fn translated_frame(&mut self, conn: usize, frame: &Frame) -> Frame {
        let payload = match (frame.opcode, str::from_utf8(&frame.payload)) {
            (PONG, _) => std::mem::take(&mut self.conn(conn).pinged),
            (_, Ok(line)) => self.translated(line).into_bytes(),
            (_, Err(_)) => frame.payload.clone(),
        };
        Frame { payload, ..frame.clone() }
    }

    /// What comes next of the server has to be this frame; of a stream, these bytes.
    async fn compare(&mut self, conn: usize, recorded: &Frame) {
        let conn_of = self.conn(conn);
        if !conn_of.request.target().contains("runnerid=") {
            assert_eq!(recorded.opcode, BINARY);
            if recorded.payload.starts_with(b"GET ") {
                return conn_of.compare_request(&Head::decode(&recorded.payload).unwrap().0).await;
            }
            assert_eq!(conn_of.peer.bytes(recorded.payload.len()).await, recorded.payload);
            return;
        }
        let ours = next_of(&mut conn_of.peer, &mut conn_of.early, recorded.opcode).await;
        assert_eq!((ours.opcode, ours.is_last), (recorded.opcode, recorded.is_last), "{ours:?}");
        match ours.opcode {
            PING => conn_of.pinged = ours.payload,
            PONG => assert_eq!(ours.payload, recorded.payload),
            CLOSE => {
                assert_eq!(ours.payload.first_chunk::<2>(), recorded.payload.first_chunk());
                conn_of.peer.send(CLOSE, &recorded.payload[..2]).await; // as gorilla answers it
            }
            _ => {
                let (recorded, ours) = (str::from_utf8(&recorded.payload).unwrap(), String::from_utf8(ours.payload));
                self.compare_line(recorded, &ours.unwrap());
            }
        }
    }

    /// The same byte for byte, but for the ids, which are fresh.
    fn compare_line(&mut self, recorded: &str, ours: &str) {
        let mut expected = recorded.to_owned();
        if let Some([dialer, request]) = classic::ids(recorded) {
            let [our_dialer, our_request] = classic::ids(ours).unwrap_or_else(|| panic!("no ids: {ours:?}"));
            expected = expected.replace(dialer, our_dialer).replace(request, our_request);
            let is_new = self.ids.values().all(|id| id != our_request);
            assert!(is_new && our_request != our_dialer, "used before: {ours:?}");
            self.ids.insert(dialer.to_owned(), our_dialer.to_owned());
            self.ids.insert(request.to_owned(), our_request.to_owned());
        }
        assert_eq!(ours, expected);
    }

    fn call(&self, call: &str) {
        let words: Vec<_> = call.split(' ').collect();
        let connman = &self.connman;
        match words[..] {
            ["dial", key] => {
                let dial = connman.dial(&key.parse().unwrap(), &TargetName::default());
                let tell = self.tell.clone();
                tokio::spawn(async move { tell.send(dialled(dial).await) });
            }
            ["http", key, ref how @ ..] => {
                let request = request(key, how == ["close"]);
                tokio::spawn(get_twice(RevDialConnector::new(connman.clone()), request, self.tell.clone()));
            }
            ["list", _] => {} // looked at with its result
            _ => panic!("no such call: {call}"),
        }
    }

    async fn returned(&mut self, result: &str) {
        if result.starts_with("list ") {
            return until(result, || list(&self.connman) == result).await;
        }
        let outcome = soon(self.outcomes.recv()).await.unwrap();
        let expected = match result {
            "dial ok byte=1 err=<nil>" => Outcome::Echoed(1),
            "http 200 OK 100 bytes" => Outcome::Answered(200, 100),
            _ if result.starts_with("dial ok byte=1 err=") => Outcome::Ended,
            _ if result.starts_with("dial error after ") => Outcome::Failed(ErrorKind::TargetRefused),
            _ => panic!("no such result: {result}"),
        };
        assert_eq!(outcome, expected, "{result}");
    }
}

impl Conn {
    /// The client's name and what it takes are its own affair.
    async fn compare_request(&mut self, recorded: &Head) {
        let mut bytes = Vec::new();
        let ours = loop {
            bytes.extend(self.peer.bytes(1).await);
            if let Some((head, _)) = Head::decode(&bytes) {
                break head;
            }
        };
        assert_eq!(ours.start_line, recorded.start_line);
        assert_eq!(ours.get("Host"), recorded.get("Host"));
        assert_eq!(ours.get("Connection"), recorded.get("Connection"));
    }
}

async fn dialled(dial: Dial) -> Outcome {
    let mut stream = match dial.await {
        Ok(stream) => stream,
        Err(error) => return Outcome::Failed(error.kind()),
    };
    AsyncWriteExt::write_all(&mut stream, &[1]).await.unwrap();
    let mut byte = [0];
    match stream.read(&mut byte).await.unwrap() {
        0 => Outcome::Ended,
        _ => Outcome::Echoed(byte[0]),
    }
}

fn request(key: &str, closes: bool) -> http::request::Builder {
    let request = http::Request::get(format!("http://{key}/hello")).header(header::HOST, "agent.internal");
    if closes { request.header(header::CONNECTION, "close") } else { request }
}

/// The same request twice, by a client that is then gone with its pool.
async fn get_twice(connector: RevDialConnector, request: http::request::Builder, tell: mpsc::UnboundedSender<Outcome>) {
    use http_body_util::{BodyExt, Empty};

    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    for _ in 0..2 {
        let response = client.request(request.clone()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let _ = tell.send(Outcome::Answered(status, body.len()));
        // Until the connection is back in the pool.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

/// As the recorded program printed it.
fn list(connman: &ConnectionManager) -> String {
    let agents = connman.list();
    let [connected, grace] = [KeyState::Connected, KeyState::Grace].map(|state| {
        let keys = agents.iter().filter(|agent| agent.state == state).map(|agent| agent.key.as_str());
        keys.collect::<Vec<_>>().join(" ")
    });
    format!("list [{connected}] grace [{grace}]")
}
