//! A transcript as it was recorded, in the order of its lines.

use std::fs;

use data_encoding::BASE64;
use serde_json::Value;

use crate::classic::{
    self,
    wire::{BINARY, CLOSE, Frame, Head},
};

#[derive(Debug, Clone)]
pub(crate) struct Tape {
    pub(crate) name: &'static str,
    /// Of the recorder: agents dialled it, so that it is in each `Host`.
    pub(crate) port: u64,
    pub(crate) records: Vec<Record>,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Seconds since the recorder was started.
    pub(crate) at: f64,
    /// The number of the agent's connection, from 1; 0 for what concerns none.
    pub(crate) conn: usize,
    pub(crate) what: What,
}

/// Which way something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToAgent,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// The agent opened the connection.
    Opened,
    Head(Way, Head),
    Body(Way, Vec<u8>),
    Frame(Way, Frame),
    /// Of a connection without WebSocket.
    Bytes(Way, Vec<u8>),
    End(Way),
    Closed,
    /// What the server's program called.
    Call(String),
    /// How the oldest call that had no result yet ended.
    Returned(String),
    /// What the recorder did, or changed.
    Note(String),
}

impl Tape {
    pub(crate) fn load(name: &'static str) -> Self {
        let path = format!("{}/tests/transcripts/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let meta = lines.next().unwrap();
        assert_eq!((&meta["kind"], &meta["scenario"]), (&"meta".into(), &name.into()));
        let records: Vec<_> = lines.map(|line| record(&line)).collect();
        assert!(records.len() > 5, "{name} is read");
        Self { name, port: meta["recorder_port"].as_u64().unwrap(), records }
    }

    /// All records of one connection.
    pub(crate) fn of(&self, conn: usize) -> impl Iterator<Item = &What> {
        self.records.iter().filter(move |record| record.conn == conn).map(|record| &record.what)
    }

    /// As it is with an agent that tells of a refusal, in the place of all that it did on connection 2.
    pub(crate) fn refusing(mut self) -> Self {
        let asked = self.of(1).find_map(|what| match what {
            What::Frame(Way::ToAgent, frame) => classic::ids(str::from_utf8(&frame.payload).ok()?),
            _ => None,
        });
        let [dialer, request] = asked.expect("a connection is asked for");
        let path = format!("/revdial?revdial.dialer={dialer}&revdial.req={request}");
        let told = Frame::new(BINARY, classic::pickup_failed(&path, "refused"));
        for record in self.records.iter_mut().filter(|record| record.what == What::Opened && record.conn == 2) {
            (record.conn, record.what) = (1, What::Frame(Way::ToServer, told.clone()));
        }
        self.records.retain(|record| record.conn < 2);
        self
    }

    /// A control connection that was recorded without WebSocket, as it is with one: what the agent sent in one piece
    /// is one message, and each line of the server's. A line that is no JSON is answered by a close.
    pub(crate) fn upgraded(mut self) -> Self {
        let mut records = Vec::new();
        for Record { at, conn, what } in self.records {
            let whats = match what {
                What::Head(Way::ToServer, head) => {
                    let mut request = classic::request(head.target(), "");
                    head.headers.iter().for_each(|(name, value)| request.set(name, value));
                    vec![What::Head(Way::ToServer, request)]
                }
                What::Head(Way::ToAgent, _) => {
                    vec![What::Head(Way::ToAgent, classic::grant(&classic::request("/", "")))]
                }
                What::Bytes(way, bytes) | What::Body(way, bytes) => {
                    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                    let is_json = lines.iter().all(|line| serde_json::from_slice::<Value>(line).is_ok());
                    let mut frames: Vec<_> = match way {
                        Way::ToServer => vec![Frame { mask: Some([7, 0, 8, 1]), ..Frame::new(BINARY, bytes.clone()) }],
                        Way::ToAgent => lines.into_iter().map(|line| Frame::new(BINARY, line)).collect(),
                    };
                    let way_back = if is_json { None } else { Some(Frame::new(CLOSE, 1007_u16.to_be_bytes())) };
                    let there = frames.drain(..).map(|frame| What::Frame(way, frame));
                    there.chain(way_back.map(|close| What::Frame(Way::ToAgent, close))).collect()
                }
                other => vec![other],
            };
            records.extend(whats.into_iter().map(|what| Record { at, conn, what }));
        }
        self.records = records;
        self
    }
}

/// One line. What it says twice has to be the same, by our own reading of the exact bytes.
fn record(line: &Value) -> Record {
    let way = || match line["dir"].as_str().unwrap() {
        "a2s" => Way::ToServer,
        _ => Way::ToAgent,
    };
    let bytes = |name: &str| BASE64.decode(line[name].as_str().unwrap().as_bytes()).unwrap();
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    let what = match line["kind"].as_str().unwrap() {
        "tcp-accept" => What::Opened,
        "http-head" => What::Head(way(), head(line, &bytes("b64"))),
        "http-body" => What::Body(way(), bytes("b64")),
        "ws-frame" => What::Frame(way(), frame(line, &bytes("frame_b64"))),
        "bytes" => What::Bytes(way(), bytes("b64")),
        "eof" => What::End(way()),
        "tcp-closed" => What::Closed,
        "server-api" => What::Call(text("call")),
        "server-api-result" => What::Returned(text("result")),
        "note" => What::Note(text("note")),
        other => panic!("no kind of record: {other}"),
    };
    let conn = line["conn"].as_u64().unwrap_or_default() as usize;
    Record { at: line["t"].as_f64().unwrap(), conn, what }
}

fn head(line: &Value, bytes: &[u8]) -> Head {
    let (head, length) = Head::decode(bytes).unwrap();
    assert_eq!(length, bytes.len());
    assert_eq!(head.start_line, line["start_line"]);
    assert_eq!(head.encode(), bytes);
    let headers = line["headers"].as_array().unwrap();
    assert_eq!(head.headers.len(), headers.len());
    for ((name, value), told) in head.headers.iter().zip(headers) {
        assert_eq!((&told[0], &told[1]), (&name.as_str().into(), &value.as_str().into()));
    }
    head
}

fn frame(line: &Value, bytes: &[u8]) -> Frame {
    let (frame, length) = Frame::decode(bytes).unwrap();
    assert_eq!(length, bytes.len());
    assert_eq!(frame.encode(), bytes);
    assert_eq!((frame.is_last, frame.mask.is_some()), (line["fin"] == true, line["masked"] == true));
    match line["text"].as_str() {
        Some(text) => assert_eq!(frame.payload, text.as_bytes()),
        None => assert_eq!(BASE64.encode(&frame.payload), line["payload_b64"]),
    }
    frame
}
