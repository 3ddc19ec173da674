//! Everything that a process puts out, and in which forms a secret could be in it.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fmt::Debug,
    future::poll_fn,
    io::{self, Write},
    pin::pin,
    sync::{Arc, LazyLock, Mutex},
};

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use revdial::Error;
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{fmt, format::FmtSpan},
};

/// All that was put out, by whomever: the tests of a process have one log.
#[derive(Clone, Default)]
pub(crate) struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    /// What the `log` facade was told by tests' own peers.
    of_peers: Arc<Mutex<Vec<u8>>>,
}

thread_local! {
    /// A test's own peer is at work here.
    static PEER: Cell<bool> = const { Cell::new(false) };
}

/// What a test's own peer says and hears: its WebSocket is the library's, which shows its frames to the `log` facade. What
/// that is told meanwhile on this task is no output of ours.
pub(crate) async fn peer<T>(script: impl Future<Output = T>) -> T {
    let mut script = pin!(script);
    poll_fn(|cx| {
        PEER.set(true);
        let polled = script.as_mut().poll(cx);
        PEER.set(false);
        polled
    })
    .await
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.text.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl log::Log for Output {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let to = if PEER.get() { &self.of_peers } else { &self.text };
        writeln!(to.lock().unwrap(), "log {} {}: {}", record.level(), record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

impl Output {
    /// That of this process: from here on its log, down to the details, of `tracing` and of the `log` facade.
    pub(crate) fn of_the_process() -> Self {
        static OUTPUT: LazyLock<Output> = LazyLock::new(|| {
            let output = Output::default();
            let writer = output.clone();
            fmt()
                .with_max_level(LevelFilter::TRACE)
                .with_span_events(FmtSpan::FULL)
                .with_writer(move || writer.clone())
                .init();
            log::set_boxed_logger(Box::new(output.clone())).unwrap();
            log::set_max_level(log::LevelFilter::Trace);
            output
        });
        OUTPUT.clone()
    }

    pub(crate) fn show(&mut self, what: impl Debug) {
        write!(self, "{what:?} {what:#?}").unwrap();
    }

    /// An error as logs have it: with all its causes.
    pub(crate) fn show_error(&mut self, error: &Error) {
        self.show(error);
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            write!(self, "{error} {error:?}").unwrap();
            next = error.source();
        }
    }

    /// What the `log` facade was told by tests' own peers.
    pub(crate) fn of_peers(&self) -> String {
        String::from_utf8_lossy(&self.of_peers.lock().unwrap()).into_owned()
    }

    /// Fails unless all of `said` was put out, and if any of `secrets` was, in whatever form.
    pub(crate) fn check(&self, said: &[&str], secrets: Vec<Vec<u8>>) {
        let text = in_a_row(&String::from_utf8_lossy(&self.text.lock().unwrap()));
        for said in said {
            assert!(text.contains(said), "all of it was told: no {said:?} in\n{text}");
        }
        for secret in BTreeSet::from_iter(secrets) {
            if let Some((form, line)) = shown(&text, &secret) {
                panic!("{} is shown, as {form:?}: {line}", secret.escape_ascii());
            }
        }
    }
}

/// With lists in one line that are over several, as `{:#?}` has them.
fn in_a_row(text: &str) -> String {
    text.replace(",\n", ", ").split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A form in which this secret is in the text, and the line.
fn shown<'a>(text: &'a str, secret: &[u8]) -> Option<(String, &'a str)> {
    let form = forms(secret).into_iter().find(|form| text.contains(form))?;
    let line = text.lines().find(|line| line.contains(&form)).unwrap_or_default();
    Some((form, line))
}

/// As itself and as `Debug` has it: escaped, or as bytes in a list, in digits of either kind; and encoded.
fn forms(secret: &[u8]) -> BTreeSet<String> {
    let list = |byte: fn(&u8) -> String| secret.iter().map(byte).collect::<Vec<_>>().join(", ");
    let mut forms = BTreeSet::from([
        secret.escape_ascii().to_string(),
        list(u8::to_string),
        list(|byte| format!("{byte:x}")),
        list(|byte| format!("{byte:02x}")),
        list(|byte| format!("{byte:X}")),
        list(|byte| format!("{byte:02X}")),
        HEXLOWER.encode(secret),
        HEXUPPER.encode(secret),
        BASE64.encode(secret).trim_end_matches('=').to_owned(),
    ]);
    forms.extend(str::from_utf8(secret).map(str::to_owned));
    forms
}

#[test]
fn a_secret_is_found_in_every_form_that_a_print_of_it_has() {
    let secret = "märked-1".as_bytes();
    for text in [
        "it is märked-1.".to_owned(),
        format!("{:?}", [&[7, 7], secret, &[7]].concat()),
        in_a_row(&format!("{:#?}", Some([&[7, 7], secret, &[7]].concat()))),
        format!("{secret:x?}"),
        format!("{secret:02X?}"),
        format!("{:?}", bytes::Bytes::copy_from_slice(secret)),
    ] {
        assert!(shown(&text, secret).is_some(), "{text}");
        assert_eq!(shown(&text.replace(['m', '1'], ""), secret), None, "{text}");
    }
}
