//! Are the metrics those of the guide: names, kinds, units, and labels of closed sets?
#![cfg(all(feature = "proxy", feature = "agent"))]

#[path = "support/listed.rs"]
#[expect(dead_code, reason = "what is recorded is checked by the other tests")]
mod listed;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusBuilder;
use revdial::{agent::Agent, connman::ConnectionManager};

const CODE: &str = include_str!("../src/metrics.rs");

/// What operators' dashboards and alerts are built on.
const PROMISED: &[&str] = &[
    "active_connections",
    "agent_connect_failures_total",
    "auth_failures_total",
    "budget_refused_total",
    "callback_failures_total",
    "close_total",
    "dead_peer_total",
    "dial_duration_seconds",
    "dial_failures_total",
    "drain_seconds",
    "duplicate_messages_total",
    "fd_exhausted_total",
    "flow_blocked_seconds_total",
    "handshake_rejected_total",
    "handshake_timeout_total",
    "key_conflicts_total",
    "late_frames_total",
    "overload_total",
    "path_rejected_total",
    "pending_dials_current",
    "pending_dials_total",
    "pickup_total",
    "protocol_errors_total",
    "reconnection_drained_total",
    "reconnection_grace_period_entries",
    "reconnection_success_total",
    "reconnection_timeout_total",
    "replayed_bytes_total",
    "session_pause_seconds",
    "session_resumes_total",
    "session_rtt_seconds",
    "stale_acks_total",
    "stream_bytes_total",
    "streams_errors_total",
    "streams_open",
    "streams_refused_total",
    "streams_total",
    "unknown_frames_total",
];

/// The names in code, by the constants that hold them.
fn constants() -> BTreeMap<&'static str, &'static str> {
    let constants = CODE.lines().filter_map(|line| {
        let (constant, value) = line.strip_prefix("const ")?.split_once(": &str = \"")?;
        Some((constant, value.strip_suffix("\";")?))
    });
    constants.collect()
}

#[test]
fn t1_the_code_has_the_metrics_of_the_guide_and_all_that_were_promised() {
    let listed: BTreeSet<_> = listed::rows().iter().map(|row| row.name).collect();
    let coded: BTreeSet<_> = constants().into_values().collect();
    assert!(listed.len() > 30, "the table is read: {listed:?}");
    assert_eq!(coded, listed);
    let promised = PROMISED.iter().map(|name| format!("revdial_{name}"));
    let missing: Vec<_> = promised.filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Hears what metrics are, and nothing of their values.
#[derive(Default)]
struct Described(Mutex<BTreeMap<String, (&'static str, &'static str, String)>>);

impl Described {
    fn note(&self, key: &KeyName, kind: &'static str, unit: Option<Unit>, text: &SharedString) {
        let unit = unit.expect("a unit").as_str();
        self.0.lock().unwrap().insert(key.as_str().to_owned(), (kind, unit, text.to_string()));
    }
}

impl Recorder for Described {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.note(&key, "counter", unit, &text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.note(&key, "gauge", unit, &text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.note(&key, "histogram", unit, &text);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn t1_either_side_describes_each_metric_with_its_kind_and_unit() {
    let server = || drop(ConnectionManager::new());
    let agent = || drop(Agent::builder("http://gateway", "a").token("token").build().unwrap());
    for side in [&server as &dyn Fn(), &agent] {
        let recorder = Described::default();
        metrics::with_local_recorder(&recorder, side);
        let described = recorder.0.into_inner().unwrap();
        for row in listed::rows() {
            let (kind, unit, text) = described.get(row.name).unwrap_or_else(|| panic!("{} is not described", row.name));
            assert_eq!((*kind, *unit), (row.kind, row.unit), "{}", row.name);
            assert!(text.len() > 10 && text.starts_with(char::is_uppercase), "{text}");
            assert_eq!(row.name.ends_with("_total"), *kind == "counter", "{}", row.name);
            assert_eq!(row.name.contains("_seconds"), *unit == "seconds", "{}", row.name);
        }
        assert_eq!(described.len(), listed::rows().len());
    }
}

/// The series of a recorder, as Prometheus gets them.
fn exported(side: &dyn Fn()) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, side);
    recorder.handle().render()
}

#[test]
fn t1_what_alerts_look_for_is_there_before_it_happens() {
    let server = exported(&|| drop(ConnectionManager::new()));
    let agent = exported(&|| drop(Agent::builder("http://gateway", "a").token("token").build().unwrap()));
    for (series, is_servers, is_agents) in [
        ("active_connections", true, false),
        ("reconnection_timeout_total", true, false),
        ("budget_refused_total{what=\"evict\"}", true, false),
        ("overload_total{reason=\"tunnels\"}", true, false),
        ("session_resumes_total{result=\"mismatch\"}", true, false),
        ("fd_exhausted_total", false, true),
        ("callback_failures_total", true, true),
        ("duplicate_messages_total", true, true),
        ("streams_refused_total", true, true),
    ] {
        let line = format!("revdial_{series} 0");
        let is_in = |text: &str| text.lines().any(|told| told == line);
        assert_eq!((is_in(&server), is_in(&agent)), (is_servers, is_agents), "{line} in {server}\n{agent}");
    }
    let begun =
        |line: &str| listed::rows().iter().find(|row| line.starts_with(row.name)).and_then(|row| row.label.as_ref());
    for line in server.lines().filter(|line| line.contains('{')) {
        let (_, values) = begun(line).expect("it is labelled");
        let all = values.iter().all(|value| server.contains(&line.replace(line.split('"').nth(1).unwrap(), value)));
        assert!(all, "{line}: not all of {values:?} are there");
    }
}

#[test]
fn t1_labels_are_those_of_the_guide_and_their_values_are_written_in_the_code() {
    let constants = constants();
    let rows = listed::rows();
    let label_of = |name: &str| rows.iter().find(|row| row.name == name).expect("listed").label.as_ref();
    let mut labelled = BTreeSet::new();
    let code = CODE.split("pub(crate) fn describe()").nth(1).and_then(|rest| rest.split_once("\n}\n")).expect("it").1;
    for (at, _) in code.match_indices("!(") {
        let Some((call, _)) = code[at + 2..].split_once(')') else { continue };
        let mut arguments = call.split(", ").filter(|argument| !argument.starts_with("register_"));
        let Some(name) = arguments.next().and_then(|constant| constants.get(constant)) else { continue };
        match (arguments.next().and_then(|label| label.split_once(" => ")), label_of(name)) {
            (None, None) => {}
            (Some((label, _)), Some((listed, _))) if label.trim_matches('"') == *listed => {
                labelled.insert(*name);
            }
            (coded, listed) => panic!("{name}: {coded:?} in the code, {listed:?} in the guide"),
        }
    }
    assert_eq!(labelled.len(), rows.iter().filter(|row| row.label.is_some()).count());

    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for row in rows {
        for value in row.label.iter().flat_map(|(_, values)| values).filter(|value| !value.starts_with("a ")) {
            assert!(sources.contains(&format!("\"{value}\"")), "{}: nothing says {value:?}", row.name);
        }
    }
}

/// All code in a folder, tests within included.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| match path.is_dir() {
        true => sources(&path),
        false if path.extension().is_some_and(|extension| extension == "rs") => fs::read_to_string(path).unwrap(),
        false => String::new(),
    });
    texts.collect()
}
