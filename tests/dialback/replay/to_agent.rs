//! Plays the server's side of a transcript to an agent of ours, and its local service.

use std::collections::{HashMap, HashSet};

use data_encoding::BASE64;
use revdial::{
    Error,
    agent::{Agent, AgentStatus, Targets},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    Clock, TOKEN, Timing, next_of,
    tape::{Record, Tape, Way, What},
};
use crate::{
    classic::{
        self, Peer, soon,
        wire::{BINARY, Frame, Head, PING, PONG, accept},
    },
    net::Net,
};

/// Whether what the server sent one after the other, on one connection, comes in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    Joined,
    Apart,
}

struct Player {
    incoming: mpsc::UnboundedReceiver<DuplexStream>,
    status: watch::Receiver<AgentStatus>,
    run: JoinHandle<Result<(), Error>>,
    conns: HashMap<usize, Conn>,
    /// Connections that are over: what is recorded of them is of no concern any more.
    over: HashSet<usize>,
    /// Those that the recorder closes in the place of an answer.
    doomed: HashSet<usize>,
    /// Those whose dialer's id the recorder changed.
    changed: HashSet<usize>,
    /// The line by which the last connection was asked for.
    asked: String,
    /// The keys of handshakes so far.
    keys: HashSet<String>,
    clock: Clock,
}

struct Conn {
    peer: Peer<DuplexStream>,
    request: Head,
    /// What is to be written.
    out: Vec<u8>,
    /// What the last ping of the agent's said.
    pinged: Vec<u8>,
    /// Pings and pongs that came before they were looked for.
    early: Vec<Frame>,
    /// It is a control connection that was granted.
    granted: bool,
    /// The server's direction is at its end.
    ended: bool,
}

/// Plays it from the first record to the last, to an agent whose local service is at `local`.
pub(crate) async fn play(tape: &Tape, local: &str, pieces: Pieces, timing: Timing) {
    let (there, incoming) = mpsc::unbounded_channel();
    let net = Net::new(move |io| drop(there.send(io)));
    let agent = net.build(Agent::builder(format!("http://127.0.0.1:{}", tape.port), "runner-0").token(TOKEN));
    let mut player = Player {
        incoming,
        status: agent.status(),
        run: tokio::spawn(agent.forward(Targets::parse([local]).unwrap())),
        conns: HashMap::new(),
        over: HashSet::new(),
        doomed: HashSet::new(),
        changed: HashSet::new(),
        asked: String::new(),
        keys: HashSet::new(),
        clock: Clock::new(timing),
    };
    for (nth, record) in tape.records.iter().enumerate() {
        println!("{} {:.3} {} {:?}", tape.name, record.at, record.conn, record.what);
        let is_last = !tape.records[nth + 1..].iter().any(|later| later.conn == record.conn);
        player.record(record, is_last).await;
        // What the server sent seconds later is not held back for.
        let joins = tape.records.get(nth + 1).is_some_and(|next| {
            next.conn == record.conn
                && next.at - record.at < 0.01
                && matches!(next.what, What::Frame(Way::ToAgent, _) | What::Body(Way::ToAgent, _))
        });
        if pieces == Pieces::Apart || !joins {
            player.flush(record.conn).await;
        }
    }
    player.run.abort();
    assert!(player.incoming.try_recv().is_err(), "a connection that nobody asked for");
}

impl Player {
    async fn record(&mut self, Record { at, conn, what }: &Record, is_last: bool) {
        if self.over.contains(conn) {
            return;
        }
        match what {
            What::Opened => {
                let io = soon(self.incoming.recv()).await.expect("an agent that runs");
                if is_last {
                    return; // accepted by the recorder, with nobody behind it
                }
                let (peer, request) = Peer::asked(io).await;
                let (out, pinged, early) = (Vec::new(), Vec::new(), Vec::new());
                let conn_of = Conn { peer, request, out, pinged, early, granted: false, ended: false };
                self.conns.insert(*conn, conn_of);
            }
            What::Head(Way::ToServer, recorded) => {
                self.compare_request(*conn, recorded);
                if self.doomed.contains(conn) {
                    self.leave(*conn);
                }
            }
            What::Head(Way::ToAgent, recorded) => {
                let conn = self.conn(*conn);
                let mut answer = recorded.clone();
                if answer.status() == 101 {
                    answer.set("Sec-WebSocket-Accept", &accept(conn.request.get("Sec-WebSocket-Key").unwrap()));
                }
                conn.out.extend(answer.encode());
                conn.granted = answer.status() == 101 && is_control(&conn.request);
            }
            What::Body(Way::ToAgent, body) => self.conn(*conn).out.extend(body),
            What::Frame(Way::ToAgent, frame) => {
                self.clock.wait(*at).await;
                let mut frame = frame.clone();
                if frame.opcode == PONG {
                    frame.payload = std::mem::take(&mut self.conn(*conn).pinged);
                } else if frame.payload.starts_with(b"{\"command\":\"conn-ready\"") {
                    self.asked = String::from_utf8(frame.payload.clone()).unwrap();
                }
                self.conn(*conn).out.extend(frame.encode());
            }
            What::Frame(Way::ToServer, frame) => {
                self.compare(*conn, frame).await;
                self.clock.came(*at);
            }
            What::End(Way::ToAgent) => {
                let conn = self.conn(*conn);
                conn.ended = true;
                conn.peer.finish().await;
            }
            What::End(Way::ToServer) => self.agent_ends(*conn).await,
            What::Closed => drop(self.conns.remove(conn)),
            What::Note(note) if note.contains("closes this connection without answering") => {
                self.doomed.insert(*conn);
            }
            What::Note(note) if note.contains("rewrites the dialer id") => drop(self.changed.insert(*conn)),
            What::Note(note) if note.contains("aborts the control") => self.leave(1),
            What::Note(_) | What::Call(_) | What::Returned(_) => {}
            What::Body(..) | What::Bytes(..) => panic!("no part of an upgraded connection: {what:?}"),
        }
    }

    fn conn(&mut self, conn: usize) -> &mut Conn {
        self.conns.get_mut(&conn).expect("the connection was opened")
    }

    fn leave(&mut self, conn: usize) {
        self.conns.remove(&conn);
        self.over.insert(conn);
    }

    async fn flush(&mut self, conn: usize) {
        if let Some(Conn { peer, out, granted, ended, .. }) = self.conns.get_mut(&conn) {
            let data = std::mem::take(out);
            peer.write(&data).await;
            if *granted && !*ended && !data.is_empty() {
                soon(self.status.wait_for(AgentStatus::is_connected)).await.expect("an agent that runs");
            }
            // So that the agent reads it before the next piece is there.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The agent's end of a connection: its own doing, or, where the server did not end it, that of who stops it.
    async fn agent_ends(&mut self, conn: usize) {
        let Conn { request, ended, .. } = self.conn(conn);
        if is_control(request) && !*ended {
            self.run.abort();
        }
        assert_eq!(self.conn(conn).peer.frame().await, None);
    }

    fn compare_request(&mut self, conn: usize, recorded: &Head) {
        let ours = self.conn(conn).request.clone();
        let mut start_line = recorded.start_line.clone();
        if self.changed.contains(&conn) {
            start_line = start_line.replace(&"f".repeat(32), classic::ids(&self.asked).unwrap()[0]);
        }
        assert_eq!(ours.start_line, start_line);
        for (name, value) in &recorded.headers {
            match (name.as_str(), ours.get(name)) {
                ("User-Agent", _) => {} // each has its own
                ("Sec-WebSocket-Key", Some(key)) => {
                    assert_eq!(BASE64.decode(key.as_bytes()).map(|key| key.len()), Ok(16), "{key}");
                    assert!(self.keys.insert(key.to_owned()), "used before: {key}");
                }
                (_, ours) => assert_eq!(ours, Some(value.as_str()), "{name}"),
            }
        }
        assert_eq!(ours.get("Sec-WebSocket-Protocol"), is_control(&ours).then_some("revdial.v1"));
        let known = |name: &str| recorded.get(name).is_some() || name.eq_ignore_ascii_case("Sec-WebSocket-Protocol");
        assert!(ours.headers.iter().all(|(name, _)| known(name)), "{ours:?}");
    }

    /// What comes next of the agent has to be this frame; of a stream, these bytes.
    async fn compare(&mut self, conn: usize, recorded: &Frame) {
        let conn = self.conn(conn);
        if !is_control(&conn.request) {
            assert_eq!(conn.peer.bytes(recorded.payload.len()).await, recorded.payload);
            return;
        }
        let ours = next_of(&mut conn.peer, &mut conn.early, recorded.opcode).await;
        assert_eq!((ours.opcode, ours.is_last), (recorded.opcode, recorded.is_last), "{ours:?}");
        match ours.opcode {
            PING => conn.pinged = ours.payload,
            PONG => assert_eq!(ours.payload, recorded.payload),
            _ => compare_failure(str::from_utf8(&recorded.payload).unwrap(), str::from_utf8(&ours.payload).unwrap()),
        }
    }
}

fn is_control(request: &Head) -> bool {
    request.target().contains("runnerid=")
}

/// The same byte for byte, but for the words of the error, which are ours.
fn compare_failure(recorded: &str, ours: &str) {
    let up_to = recorded.find("\"err\":\"").expect("a pickup-failed") + "\"err\":\"".len();
    assert_eq!(ours.get(..up_to), Some(&recorded[..up_to]));
    assert!(ours.ends_with("\"}\n"), "{ours:?}");
    let line: Value = serde_json::from_str(ours).unwrap();
    assert_eq!(line.as_object().unwrap().len(), 3, "{ours:?}");
    let err = line["err"].as_str().unwrap();
    assert!((1..=512).contains(&err.len()), "{err:?}");
}

/// The local service of a transcript, which says what it said then to what it was asked then; its address.
pub(crate) async fn local_service(tape: &Tape) -> String {
    let mut answers = Vec::new();
    let mut asked = None;
    for Record { conn, what, .. } in &tape.records {
        match what {
            What::Frame(Way::ToAgent, frame) if *conn > 1 => asked = Some(frame.payload.clone()),
            What::Frame(Way::ToServer, frame) if *conn > 1 && frame.opcode == BINARY => {
                answers.extend(asked.take().map(|asked| (asked, frame.payload.clone())));
            }
            _ => {}
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket, answers.clone()));
        }
    });
    address
}

async fn answer(mut socket: TcpStream, answers: Vec<(Vec<u8>, Vec<u8>)>) {
    let mut asked = Vec::new();
    while socket.read_buf(&mut asked).await.is_ok_and(|length| length > 0) {
        if let Some((_, answer)) = answers.iter().find(|(known, _)| *known == asked) {
            socket.write_all(answer).await.unwrap();
            asked.clear();
            if str::from_utf8(answer).is_ok_and(|text| text.contains("connection: close")) {
                return;
            }
        }
    }
}
