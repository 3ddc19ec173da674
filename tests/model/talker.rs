//! How is a word of the model said by a real session, and how is it heard? One word, one counted message.

use std::time::{Duration, Instant};

use bytes::Bytes;
use revdial::{
    frame::{Frame, MAX_MESSAGE, Metadata, SessionId, StreamId, decode},
    proto::{Opened, Read, Role, Session, SessionConfig},
};

use crate::{half::Half, real::id, state::Id};

/// What is said.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    pub(crate) config: SessionConfig,
    /// The length of a word that is data, in bytes.
    pub(crate) word: usize,
    /// Whether the last word of each side, if it is not the first, is the end of its direction.
    pub(crate) ends: bool,
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Speech {
    /// Words far below all bounds. Nothing is ever due but acks, and they leave alone only when their time has come.
    pub(crate) fn short() -> Self {
        let config = SessionConfig {
            ping_interval: YEAR,
            dead_after: 2 * YEAR,
            accept_timeout: YEAR,
            ack_bytes: usize::MAX,
            ..SessionConfig::default()
        };
        Self { config, word: 3, ends: true }
    }

    /// Words of which two fill the bound on what is kept, and which all have credit at first. An end is none of them,
    /// for it has a reserve.
    pub(crate) fn long() -> Self {
        const MIB: usize = 1024 * 1024;
        let send_reserve = 4096;
        let config = SessionConfig {
            max_streams: 1,
            send_reserve,
            send_bound: send_reserve + 2 * MAX_MESSAGE,
            base_credit: MIB as u32,
            recv_budget: MIB,
            ..Self::short().config
        };
        config.validate().expect("bounds that can be");
        Self { config, word: MAX_MESSAGE - 324, ends: false }
    }
}

/// A real session with one stream. The server's first word opens it, the agent's first accepts it; those behind are
/// data.
pub(crate) struct Talker {
    pub(crate) session: Session,
    id: Id,
    role: Role,
    stream: Option<StreamId>,
    word: usize,
    /// The last words of this side and of the other.
    last: [Option<u8>; 2],
    said: u8,
    heard: u8,
    /// What keeping each word costs, in order.
    costs: Vec<usize>,
}

impl Talker {
    /// `words`: how many this side says in all, and the other.
    pub(crate) fn new(role: Role, speech: &Speech, id: Id, words: [u8; 2]) -> Self {
        let session = Session::new(role, speech.config.clone(), speech.config.bounds(), u64::from(id));
        let last = words.map(|words| speech.ends.then_some(words));
        Self { session, id, role, stream: None, word: speech.word, last, said: 0, heard: 0, costs: Vec::new() }
    }

    pub(crate) fn session_id(&self) -> SessionId {
        id(self.id)
    }

    /// A link is bound. Its first message is a PING; the model has none, so that it is taken off here.
    pub(crate) fn link_up(&mut self, now: Instant, peer_has: u64) {
        self.session.link_up(now, peer_has).expect("a count that can be");
        let ping = self.session.poll_transmit(now).map(Bytes::from).expect("a new link is measured");
        let frames: Vec<_> = decode(ping).expect("a message of ours").1.collect();
        assert!(matches!(frames[..], [Ok(Frame::Ping(_))]), "{frames:?}");
    }

    /// What is to be sent again, or else the next word.
    pub(crate) fn say(&mut self, now: Instant) -> Bytes {
        if let Some(again) = self.session.poll_transmit(now).map(Bytes::from) {
            return again;
        }
        self.said += 1;
        let end = self.last[0] == Some(self.said);
        match (self.said, self.role, self.stream) {
            (1, Role::Server, _) => {
                let target = "t".parse().expect("a target name");
                self.stream = Some(self.session.open(&target, Metadata::default()).expect("the first open"));
            }
            (1, Role::Agent, Some(stream)) => self.session.accept(stream).expect("a stream that was opened"),
            (_, _, Some(stream)) => {
                let data = self.data(self.role, self.said);
                let mut stream = self.session.send(stream).expect("a stream that is open");
                match end {
                    true => stream.finish().expect("a stream that is open"),
                    false => assert_eq!(stream.write(&data), Ok(Some(data.len()))),
                }
            }
            (_, _, None) => panic!("the agent speaks before the server"),
        }
        let message = self.session.poll_transmit(now).map(Bytes::from).expect("there is something new");
        self.costs.push(message.len() + 128);
        self.read(); // what came before ACCEPT waited for it
        message
    }

    /// A message of the other side has come, and with it what is to be read.
    pub(crate) fn hear(&mut self, now: Instant, message: Bytes) {
        self.session.handle_message(now, message).expect("correct peers break no rule");
        if self.role == Role::Agent && self.stream.is_none() {
            self.stream = self.session.incoming().map(|incoming| incoming.stream);
            self.heard += u8::from(self.stream.is_some());
        }
        let accepted = |id| self.session.opened(id) == Opened::Accepted;
        if self.role == Role::Server && self.heard == 0 && self.stream.is_some_and(accepted) {
            self.heard = 1;
        }
        self.read();
    }

    fn read(&mut self) {
        while let Some(mut stream) = self.stream.and_then(|id| self.session.recv(id)) {
            match stream.read(self.word).expect("a stream without an error") {
                Read::Blocked => return,
                Read::End => {
                    self.heard = self.last[1].expect("an end that was said");
                    return;
                }
                Read::Bytes(bytes) => {
                    self.heard += 1;
                    let other = if self.role == Role::Server { Role::Agent } else { Role::Server };
                    assert_eq!(bytes, self.data(other, self.heard), "word {}", self.heard);
                }
            }
        }
    }

    /// The data of one word: of no other word, side or session.
    fn data(&self, from: Role, place: u8) -> Vec<u8> {
        let mark = [self.id, place, from as u8];
        mark.iter().copied().cycle().take(self.word).collect()
    }

    /// Whether this is what the model has.
    pub(crate) fn compare(&self, half: &Half) {
        let stats = self.session.stats();
        assert_eq!(self.session.ended(), None);
        assert_eq!(stats.duplicate_messages, 0, "a fence was lost");
        assert_eq!(self.session.received(), u64::from(half.received), "received");
        assert_eq!(self.said, half.made, "said");
        let unread = self.role == Role::Agent && self.said == 0; // what came early waits for ACCEPT
        assert!(self.heard == half.handled || (unread && half.handled > 0), "heard {}, not {half:?}", self.heard);
        let kept: usize = self.costs[usize::from(half.acked)..].iter().sum();
        assert_eq!(stats.buffered_bytes, kept, "what is kept");
    }
}
