//! A session whose peer is made by hand: frames in, frames out.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use revdial::{
    frame::{Bounds, CloseCode, Frame, MessageHead, Metadata, StreamId, decode},
    proto::{Event, Read, Role, Session, SessionConfig, SessionEnd, StreamError, Violation},
};

/// A live session, and what its peer has said and heard.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    role: Role,
    /// Counted messages that the peer has sent.
    pub(crate) said: u64,
    /// Counted messages that the peer has heard, and acks with all it says.
    pub(crate) heard: u64,
    opened: u32,
}

/// What a role is tested against.
pub(crate) const ROLES: [Role; 2] = [Role::Server, Role::Agent];

impl Hand {
    pub(crate) fn new(role: Role) -> Self {
        Self::with(role, SessionConfig::default(), Bounds::default())
    }

    /// A session of this config, with a link, whose peer announced `bounds`.
    pub(crate) fn with(role: Role, config: SessionConfig, bounds: Bounds) -> Self {
        config.validate().unwrap();
        let now = Instant::now();
        let mut session = Session::new(role, config, bounds, 7);
        session.link_up(now, 0).unwrap();
        Self { session, now, role, said: 0, heard: 0, opened: 0 }
    }

    /// A counted message of the peer.
    pub(crate) fn say(&mut self, frames: &[Frame]) -> Result<(), Violation> {
        self.said += 1;
        self.session.handle_message(self.now, message(self.said, self.heard, frames))
    }

    /// A message of number 0 of the peer.
    pub(crate) fn say_apart(&mut self, frames: &[Frame]) -> Result<(), Violation> {
        self.session.handle_message(self.now, message(0, self.heard, frames))
    }

    /// A message of the peer that acks nothing.
    pub(crate) fn say_without_ack(&mut self, frames: &[Frame]) {
        let heard = std::mem::take(&mut self.heard);
        let counted = frames.iter().any(|frame| frame.is_counted() == Some(true));
        if counted { self.say(frames) } else { self.say_apart(frames) }.unwrap();
        self.heard = heard;
    }

    /// All that the session sends now, message by message.
    pub(crate) fn hear_messages(&mut self) -> Vec<Bytes> {
        let mut messages = Vec::new();
        while let Some(message) = self.session.poll_transmit(self.now).map(Bytes::from) {
            let (head, _) = decode(message.clone()).unwrap();
            self.heard = self.heard.max(head.number);
            messages.push(message);
        }
        assert!(!self.session.wants_transmit(), "it wants to and does not");
        messages
    }

    /// The frames of all that the session sends now.
    pub(crate) fn hear(&mut self) -> Vec<Frame> {
        self.hear_messages().into_iter().flat_map(frames).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.session.handle_timeout(self.now);
    }

    /// A stream that both sides have; heard, acked and its events taken.
    pub(crate) fn open(&mut self) -> StreamId {
        let id = self.open_only();
        match self.role {
            Role::Server => self.say(&[Frame::Accept { stream: id, credit: 256 * 1024 }]).unwrap(),
            Role::Agent => self.session.accept(id).unwrap(),
        }
        self.hear();
        self.say_apart(&[]).unwrap();
        self.events();
        id
    }

    /// A stream that was not answered yet.
    pub(crate) fn open_only(&mut self) -> StreamId {
        if self.role == Role::Server {
            let id = self.session.open(&"".parse().unwrap(), Metadata::default()).unwrap();
            self.hear();
            return id;
        }
        self.opened += 1;
        self.say(&[open_frame(self.opened)]).unwrap();
        self.session.incoming().unwrap().stream
    }

    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<Option<usize>, StreamError> {
        self.session.send(id).unwrap().write(bytes)
    }

    pub(crate) fn finish(&mut self, id: StreamId) {
        self.session.send(id).unwrap().finish().unwrap();
    }

    pub(crate) fn read(&mut self, id: StreamId) -> Result<Read, StreamError> {
        self.session.recv(id).unwrap().read(usize::MAX)
    }

    /// The last message broke a rule: the code is told, the CLOSE with it leaves and nothing else any more, and the
    /// session has ended.
    #[track_caller]
    pub(crate) fn ended_by(&mut self, result: Result<(), Violation>, code: CloseCode) {
        let violation = result.unwrap_err();
        assert_eq!(violation.code(), code, "{violation}");
        assert_eq!(self.session.ended(), Some(&SessionEnd::Violation(violation)));
        self.closes_with(code, violation.rule());
    }

    /// The next message is CLOSE, and nothing comes behind it, whatever is done.
    #[track_caller]
    pub(crate) fn closes_with(&mut self, code: CloseCode, reason: &str) {
        let message = self.session.poll_transmit(self.now).map(Bytes::from).expect("a CLOSE");
        assert_eq!(decode(message.clone()).unwrap().0.number, 0);
        assert_eq!(frames(message), [Frame::Close { code, reason: reason.to_owned() }]);
        self.session.drain(CloseCode::DRAINED, Duration::ZERO, Duration::ZERO, "");
        self.session.shutdown(CloseCode::NORMAL, "");
        self.session.handle_activity(self.now);
        assert_eq!(self.session.poll_timeout(), None);
        self.advance(Duration::from_secs(100));
        assert_eq!(self.say_apart(&[Frame::Ping([0; 8])]), Ok(()));
        assert_eq!(self.hear(), []);
        assert_eq!(self.session.poll_timeout(), None);
        assert_eq!(self.events().iter().filter(|event| **event == Event::Ended).count(), 1);
    }
}

/// The frames of a message that one of ours made.
pub(crate) fn frames(message: Bytes) -> Vec<Frame> {
    decode(message).unwrap().1.collect::<Result<_, _>>().unwrap()
}

/// A message made by hand.
pub(crate) fn message(number: u64, received: u64, frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::new();
    MessageHead { number, received }.encode(&mut out);
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out.freeze()
}

pub(crate) fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

pub(crate) fn open_frame(number: u32) -> Frame {
    let target = "".parse().unwrap();
    Frame::Open { stream: id(number), credit: 256 * 1024, target, metadata: Metadata::default() }
}

pub(crate) fn data(stream: StreamId, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::Data { stream, payload: payload.into().into() }
}

/// How many bytes of a stream the frames carry.
pub(crate) fn carried(frames: &[Frame], id: StreamId) -> usize {
    let len = |frame: &Frame| match frame {
        Frame::Data { stream, payload } if *stream == id => payload.len(),
        _ => 0,
    };
    frames.iter().map(len).sum()
}
