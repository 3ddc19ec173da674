//! The Grafana dashboard and the alert rules under `examples/monitoring` ask for what the crate tells.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a text")
}

/// Every word of a text that a metric of ours could be.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("revdial_")).collect()
}

/// What a metric is described by, of the series that a histogram is exported as.
fn base(series: &str) -> &str {
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.strip_suffix(part));
    histogram.filter(|base| base.ends_with("_seconds")).unwrap_or(series)
}

fn dashboard() -> Value {
    serde_json::from_str(&read("examples/monitoring/dashboard.json")).expect("JSON")
}

/// What its panels ask for.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

#[test]
fn each_metric_that_is_asked_for_is_one_of_the_crates() {
    let code = read("src/metrics.rs");
    let known = metrics_in(&code);
    assert!(known.len() > 20, "the list is read: {known:?}");
    for file in ["dashboard.json", "alerts.yml", "alerts.test.yml"] {
        let text = read(&format!("examples/monitoring/{file}"));
        let asked = metrics_in(&text);
        assert!(asked.len() > 10, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.iter().filter(|series| !known.contains(base(series))).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn each_metric_of_the_crates_is_on_the_dashboard() {
    let (code, dashboard) = (read("src/metrics.rs"), expressions(&dashboard()).join("\n"));
    let shown: BTreeSet<_> = metrics_in(&dashboard).into_iter().map(base).collect();
    let missing: Vec<_> = metrics_in(&code).into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "nobody sees {missing:?}");
}

#[test]
fn the_dashboard_has_panels_that_lie_beside_each_other() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(expressions(&dashboard).len() > 30);
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{}", panel["id"]);
        let place = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect("a place"));
        let [x, y, w, h] = place;
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies on another", panel["title"]);
        }
    }
}

#[test]
#[ignore = "wants promtool, of Debian's package prometheus"]
fn the_alerts_fire_when_they_should() {
    promtool(&["test", "rules", "examples/monitoring/alerts.test.yml"]);
    promtool(&["check", "rules", "examples/monitoring/alerts.yml"]);
}

#[test]
#[ignore = "wants promtool, of Debian's package prometheus"]
fn the_dashboards_expressions_are_promql() {
    let rule = |(place, expr): (usize, String)| {
        let expr = expr.replace("$__rate_interval", "1m");
        serde_json::json!({ "record": format!("panel:{place}"), "expr": expr })
    };
    let rules: Vec<Value> = expressions(&dashboard()).into_iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    // JSON is YAML too.
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(file.path(), groups.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().expect("text")]);
}

fn promtool(arguments: &[&str]) {
    let ended = Command::new("promtool").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let ended = ended.expect("promtool runs");
    let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(ended.status.success(), "{said:?}");
}
