//! Every span's name and fields in one list, and what is told of a stream as it begins and as it ends.
//!
//! Where nobody listens a span costs the look at a number, and nothing is allocated for it.

use std::sync::OnceLock;

use tracing::{Span, debug, debug_span, info_span};

use crate::{
    key::{AgentKey, Epoch, TargetName},
    metrics::{self, StreamEnd},
};

/// The span of one link, in which its task runs.
pub(crate) fn link(key: &AgentKey, epoch: Epoch) -> Span {
    info_span!(parent: None, "revdial.link", %key, %epoch)
}

/// The span of one session, which outlives its links. It is made when it is first asked for, since sessions are made
/// under a lock and a span runs code of others.
#[derive(Debug)]
pub(crate) struct SessionSpan {
    key: AgentKey,
    number: u64,
    span: OnceLock<Span>,
}

impl SessionSpan {
    /// Of the session that has this number among those of its key, on this side.
    pub(crate) const fn new(key: AgentKey, number: u64) -> Self {
        Self { key, number, span: OnceLock::new() }
    }

    /// The span. The first time it follows from the current one: that of the link, as a rule.
    pub(crate) fn get(&self) -> &Span {
        self.span.get_or_init(|| {
            let span = info_span!(parent: None, "revdial.session", key = %self.key, session = self.number);
            follow_current(&span);
            span
        })
    }
}

/// What is told of one stream: that it is open, for as long as this lives, and how it ended.
#[derive(Debug)]
pub(crate) struct Told {
    span: Span,
    end: StreamEnd,
}

impl Told {
    /// A stream has begun in the session that has this span. Its target is asked for where somebody wants to know it.
    pub(crate) fn begin(session: &Span, number: u64, target: impl FnOnce() -> TargetName) -> Self {
        let span = debug_span!(parent: session, "revdial.stream", stream = number, target = %target());
        // That of whoever dialled, on the server.
        follow_current(&span);
        debug!(parent: &span, "stream open");
        metrics::record_stream_opened();
        Self { span, end: StreamEnd::Cancelled }
    }

    /// So it is about to end.
    pub(crate) fn end(&mut self, end: StreamEnd) {
        self.end = end;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        debug!(parent: &self.span, outcome = self.end.as_str(), "stream ended");
        metrics::record_stream_closed(self.end);
    }
}

fn follow_current(span: &Span) {
    if !span.is_disabled() {
        span.follows_from(Span::current());
    }
}
