//! The same bytes for both: do they hear the same, stop for the same reason, and answer the same?

use super::{
    engine::Framing,
    party::{End, Heard, Party, Written},
    source::Source,
    stream::{Span, frames, spans},
};
use crate::link::{
    header::Opcode,
    messages::Side,
    pipe::{Pace, Pipe},
};

/// What comes in, and how.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) side: Side,
    pub(super) max_message: usize,
    /// This side has closed before it hears anything.
    pub(super) closes_first: bool,
    pub(super) reads: Pace,
    pub(super) writes: Pace,
    /// The byte stream ends; else nothing more comes.
    pub(super) ends: bool,
    pub(super) stream: Vec<u8>,
}

/// All that an engine made of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    heard: Vec<Heard>,
    end: End,
    written: Vec<Written>,
}

/// Limits around each border of a frame's length.
const LIMITS: [usize; 8] = [125, 126, 1000, 65_535, 65_536, 65_600, 70_000, 200];

/// The longest stream of any bytes: more pings than fit are answered by the last pong alone.
const MAX_STREAM: usize = 64 * 1024;

/// What the library says in place of a code that no close frame may have, and so what this owner says.
const REASON: &str = "Protocol violation";

impl Incoming {
    /// `in_frames`: the input describes frames; else it is the bytes.
    pub(super) fn draw(source: &mut Source<'_>, side: Side, in_frames: bool) -> Self {
        let flags = source.u8();
        let max_message = source.pick(&LIMITS);
        let (reads, writes) = (Pace::new(source.list()), Pace::new(source.list()));
        let cut = if flags & 4 == 0 { 0 } else { source.u16().into() };
        let mut stream = if in_frames { frames(source, side, max_message) } else { source.rest(MAX_STREAM) };
        stream.truncate(stream.len().saturating_sub(cut));
        Self { side, max_message, closes_first: flags & 1 != 0, reads, writes, ends: flags & 2 == 0, stream }
    }

    pub(super) fn outcome(&self, framing: Framing) -> Outcome {
        let pipe = Pipe::new(self.reads.clone(), self.writes.clone(), self.ends);
        let mut party = Party::new(framing, self.side, self.max_message, pipe.clone());
        if self.closes_first {
            party.close(crate::frame::CloseCode::NORMAL, "");
        }
        pipe.fill(&self.stream);
        let (heard, end) = party.hear();
        match end.refusal() {
            Some(code) => party.close(code, REASON),
            None => party.flush(),
        }
        Outcome { heard, end, written: party.written() }
    }

    /// Both hear the same, or differ as the table says.
    pub(super) fn check(&self) {
        let (ours, library) = (self.outcome(Framing::Ours), self.outcome(Framing::Library));
        if ours == library {
            return;
        }
        let explained = self.last_frame(&ours).is_some_and(|frame| {
            DIFFERENCES
                .iter()
                .any(|(_, explains)| explains(&Case { script: self, frame, ours: &ours, library: &library }))
        });
        assert!(explained, "{self:?}\n   ours: {ours:?}\nlibrary: {library:?}");
    }

    /// The frame at which we stopped: the last one whose forerunners alone do not stop us.
    fn last_frame(&self, ours: &Outcome) -> Option<Span> {
        let stops = |before: usize| {
            let end =
                Self { ends: false, stream: self.stream[..before].to_vec(), ..self.clone() }.outcome(Framing::Ours).end;
            end == ours.end
        };
        let spans = spans(&self.stream);
        let at = spans.partition_point(|span| span.start <= self.stream.len() && !stops(span.start));
        spans.get(at.checked_sub(1)?).copied()
    }
}

/// Two outcomes that are not the same.
struct Case<'a> {
    script: &'a Incoming,
    /// At which we stopped.
    frame: Span,
    ours: &'a Outcome,
    library: &'a Outcome,
}

/// Where the two differ, each with the check that nothing else hides behind it.
type Difference = (&'static str, fn(&Case<'_>) -> bool);

const DIFFERENCES: [Difference; 5] = [
    (
        "We refuse a frame at its header and a text at its first frame, each rule before the size. The library looks at \
         the size first, and at the rest when the frame, or the text, is whole: nobody has to wait for that.",
        |case| case.library.heard.starts_with(&case.ours.heard) && case.when_whole() == *case.ours,
    ),
    (
        "A control frame's length has the short form, since the shortest one must be used (5.2) and 125 is the most \
         (5.5). The library takes 5 in two bytes.",
        |case| {
            let is_long_form = case.frame.second & 0x7f >= 126;
            case.ours.end == End::Malformed
                && case.frame.is_control()
                && is_long_form
                && case.frame.len <= 125
                && case.library.heard.starts_with(&case.ours.heard)
        },
    ),
    (
        "A code that no close frame may have (7.4) is malformed. The library says that the peer closed with 1002, which \
         is how it answers, or takes any code if we closed first.",
        |case| {
            let said = if case.script.closes_first { case.code() } else { Some(1002) };
            case.code().is_some_and(|code| !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999))
                && case.ours.end == End::Malformed
                && matches!(&case.library.end, End::Closed(code, _) if *code == said)
                && case.hear_and_write_the_same()
        },
    ),
    ("The library does not know 1014, which was registered after RFC 6455, and refuses it as such a code.", |case| {
        case.code() == Some(1014)
            && matches!(case.ours.end, End::Closed(Some(1014), _))
            && matches!(case.library.end, End::Closed(Some(1002), _))
            && case.differ_at_their_close()
    }),
    (
        "A reason that is not UTF-8 is malformed. The library says of all that is not UTF-8 the same, and so we take it \
         for a text there.",
        |case| {
            case.close_payload().is_some_and(|payload| payload.len() > 2 && str::from_utf8(&payload[2..]).is_err())
                && case.ours.end == End::Malformed
                && case.library.end == End::Text
                && case.differ_at_their_close()
        },
    ),
];

impl Case<'_> {
    /// What the library makes of the same frames when the last one is whole: zeros follow, a text ends with it, and what
    /// is not refused for its size is small.
    fn when_whole(&self) -> Outcome {
        let Span { start, first, second, len, .. } = self.frame;
        let mut script = Incoming { ends: true, ..self.script.clone() };
        script.stream.truncate(start);
        let is_text = self.ours.end == End::Text;
        script.stream.push(if is_text { first | 0x80 } else { first });
        let len = if self.ours.end == End::TooBig {
            len
        } else {
            script.max_message = script.max_message.max(126);
            len.min(126)
        };
        script.stream.push(second & 0x80 | 127);
        script.stream.extend(len.to_be_bytes());
        let payload = len.min(script.max_message as u64) as usize;
        script.stream.resize(script.stream.len() + 4 + payload, 0);
        script.outcome(Framing::Library)
    }

    fn close_payload(&self) -> Option<Vec<u8>> {
        if self.frame.opcode() == Opcode::Close as u8 { self.frame.payload(&self.script.stream) } else { None }
    }

    fn code(&self) -> Option<u16> {
        self.close_payload()?.first_chunk().map(|code| u16::from_be_bytes(*code))
    }

    fn hear_and_write_the_same(&self) -> bool {
        (&self.ours.heard, &self.ours.written) == (&self.library.heard, &self.library.written)
    }

    /// They hear the same, and write the same up to the frame with which they close.
    fn differ_at_their_close(&self) -> bool {
        let [ours, library] = [self.ours, self.library].map(|Outcome { heard, written, .. }| {
            let answers = written.iter().filter(|frame| frame.opcode != Opcode::Close).collect::<Vec<_>>();
            (heard, written.len(), answers)
        });
        ours == library
    }
}
