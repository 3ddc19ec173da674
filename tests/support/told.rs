//! Collects what a subscriber is told: spans, and lines with their fields.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{
    Dispatch, Event, Id, Level, Subscriber,
    field::{Field, Visit},
    span::Attributes,
    subscriber::{DefaultGuard, NoSubscriber},
};
use tracing_subscriber::{
    Layer, filter::LevelFilter, layer::Context, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

type Fields = BTreeMap<&'static str, String>;

/// A span of the crate's.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) parent: Option<&'static str>,
    pub(crate) fields: Fields,
    pub(crate) is_open: bool,
}

/// An event of the crate's.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
    pub(crate) fields: Fields,
    /// In which span it is.
    pub(crate) span: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<(Id, Span)>,
    lines: Vec<Line>,
}

/// What is told on this thread while it lives, down to a level.
pub(crate) struct Told {
    seen: Arc<Mutex<Seen>>,
    _here: DefaultGuard,
}

impl Told {
    pub(crate) fn down_to(level: LevelFilter) -> Self {
        // With one subscriber in a process, what another thread comes to first is taken for unwanted by all threads.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        let seen = Arc::default();
        let collector = Collector(Arc::clone(&seen));
        let here = tracing_subscriber::registry().with(collector).with(level).set_default();
        Self { seen, _here: here }
    }

    /// The spans of this name, in the order of their begin.
    pub(crate) fn spans(&self, name: &str) -> Vec<Span> {
        let seen = self.seen.lock().unwrap();
        seen.spans.iter().map(|(_, span)| span.clone()).filter(|span| span.name == name).collect()
    }

    /// The names of all spans, each once.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.seen.lock().unwrap().spans.iter().map(|(_, span)| span.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// All lines since the last call.
    pub(crate) fn lines(&self) -> Vec<Line> {
        std::mem::take(&mut self.seen.lock().unwrap().lines)
    }

    /// Their texts.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.lines().into_iter().map(|line| line.text).collect()
    }
}

struct Collector(Arc<Mutex<Seen>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        if !metadata.target().starts_with("revdial") {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent()).map(|parent| parent.name());
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        let span = Span { name: metadata.name(), level: *metadata.level(), parent, fields, is_open: true };
        self.0.lock().unwrap().spans.push((id.clone(), span));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut seen = self.0.lock().unwrap();
        // Ids are used again.
        if let Some((_, span)) = seen.spans.iter_mut().rfind(|(known, _)| *known == id) {
            span.is_open = false;
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("revdial") {
            return;
        }
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        let text = fields.remove("message").unwrap_or_default();
        let span = context.event_span(event).map(|span| span.name());
        self.0.lock().unwrap().lines.push(Line { level: *metadata.level(), text, fields, span });
    }
}

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
