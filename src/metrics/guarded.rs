//! Handles of the facade whose recorder may panic: what it was told is lost then, and nothing else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
    time::Duration,
};

use ::metrics::{Counter, Gauge, Histogram};

/// A handle, if the recorder gave one.
pub(super) struct Guarded<H>(Option<H>);

impl<H> Guarded<H> {
    /// The one that this registers.
    pub(super) fn of(register: impl FnOnce() -> H) -> Self {
        Self(guarded(register))
    }

    fn tell(&self, what: impl FnOnce(&H)) {
        if let Some(handle) = &self.0 {
            guarded(|| what(handle));
        }
    }
}

impl Guarded<Counter> {
    pub(super) fn increment(&self, by: u64) {
        self.tell(|counter| counter.increment(by));
    }
}

impl Guarded<Gauge> {
    pub(super) fn increment(&self, by: f64) {
        self.tell(|gauge| gauge.increment(by));
    }

    pub(super) fn decrement(&self, by: f64) {
        self.tell(|gauge| gauge.decrement(by));
    }
}

impl Guarded<Histogram> {
    pub(super) fn record(&self, value: Duration) {
        self.tell(|histogram| histogram.record(value));
    }
}

/// What the recorder does; nothing, where it panicked. That is told to the log once, since there may be no end of it.
fn guarded<R>(recorder: impl FnOnce() -> R) -> Option<R> {
    static TOLD: Once = Once::new();
    let done = catch_unwind(AssertUnwindSafe(recorder));
    done.inspect_err(|_| TOLD.call_once(|| tracing::error!("the recorder of metrics panicked"))).ok()
}

/// As the facade's macro of this name, of which it takes the arguments.
macro_rules! counter {
    ($($what:tt)*) => { Guarded::of(|| ::metrics::counter!($($what)*)) };
}

/// As the facade's.
macro_rules! gauge {
    ($($what:tt)*) => { Guarded::of(|| ::metrics::gauge!($($what)*)) };
}

/// As the facade's.
macro_rules! histogram {
    ($($what:tt)*) => { Guarded::of(|| ::metrics::histogram!($($what)*)) };
}

/// The handle of a name, and a label if there is one, that are constants. The facade's macros make a key at each call where
/// the name is no literal; here the compiler does, for what each stream and each dial has told.
macro_rules! fixed {
    ($name:expr, $register:ident $(, $label:literal => $value:expr)?) => {{
        static LABELS: &[::metrics::Label] = &[$(::metrics::Label::from_static_parts($label, $value))?];
        static KEY: ::metrics::Key = ::metrics::Key::from_static_parts($name, LABELS);
        static METADATA: ::metrics::Metadata<'static> =
            ::metrics::Metadata::new(module_path!(), ::metrics::Level::INFO, Some(module_path!()));
        Guarded::of(|| ::metrics::with_recorder(|recorder| recorder.$register(&KEY, &METADATA)))
    }};
}

pub(super) use {counter, fixed, gauge, histogram};
