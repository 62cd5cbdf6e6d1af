//! What the alert rules and the board for Grafana ask for, against what a real broker tells: each expression is one that Prometheus
//! takes, and each series in it is there, with the labels that it is asked by.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use harness::{Broker, Http, Place, Table, WorkerProcess, output_of, wait_for};
use serde_json::Value;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// By series: its labels, each with the values that it has.
type Told = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The lines of `/metrics` that are no comments: `name{label="value",...} number`.
fn told(metrics: &str) -> Told {
    let mut told = Told::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let known = told.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            known.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    told
}

/// What is wrong with an expression, when something is.
fn fault(asked: &Value, told: &Told) -> Option<String> {
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    for series in asked["series"].as_array().unwrap() {
        let name = series["name"].as_str().unwrap();
        let Some(labels) = told.get(name) else { return Some(format!("there is no {name}")) };
        if let Some(label) = names(&asked["labels"]).iter().find(|label| !labels.contains_key(*label)) {
            return Some(format!("{name} has no label {label}"));
        }
        for matcher in series["matchers"].as_array().unwrap().iter().map(names) {
            let [label, how, value] = matcher.as_slice() else { panic!("{series}") };
            let Some(values) = labels.get(label) else { return Some(format!("{name} has no label {label}")) };
            if how == "MatchOp.Equal" && !values.contains(value) {
                return Some(format!("{name} has no {label} {value}"));
            }
        }
    }
    asked["series"].as_array().unwrap().is_empty().then(|| "asks for nothing".to_owned())
}

#[test]
fn alerts_and_board_ask_for_what_is_told() {
    // Proves that whoever loads the two files gets alerts that can fire and panels that are not empty.
    let place = Place::new();
    let broker = Broker::start_as(&place, &["--web", "127.0.0.1:0"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=echo");
    let done = table.insert("echo", "1");
    table.wait_for_state(done, "done");
    table.insert("nobody", "1");
    let http = Http::of(&broker);
    let told = wait_for("each kind to be told", || {
        let text = http.get("/metrics").body;
        ["echo", "nobody"].iter().all(|kind| text.contains(&format!("kind=\"{kind}\""))).then(|| told(&text))
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut script = std::process::Command::new(harness::tools::python_with_promql());
    script.arg(root.join("tests/watching/expressions.py"));
    let asked = output_of(script.args(["config/alerts.yml", "config/grafana.json"]).current_dir(root));
    let asked: Vec<Value> = asked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong: Vec<String> = asked
        .iter()
        .filter_map(|asked| Some(format!("{}: {}: {}", asked["where"], asked["expression"], fault(asked, &told)?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{told:#?}");
    assert!(asked.len() >= 25, "only {} expressions are found", asked.len());
    // The check itself finds each sort of fault.
    for (labels, series, says) in [
        ("[]", r#"[{"name": "laneway_nothing", "matchers": []}]"#, "there is no laneway_nothing"),
        (r#"["lane"]"#, r#"[{"name": "laneway_up", "matchers": []}]"#, "laneway_up has no label lane"),
        (
            "[]",
            r#"[{"name": "laneway_commit_duration_seconds", "matchers": [["quantile", "MatchOp.Equal", "0.98"]]}]"#,
            "laneway_commit_duration_seconds has no quantile 0.98",
        ),
    ] {
        let asked = serde_json::from_str(&format!("{{\"labels\": {labels}, \"series\": {series}}}")).unwrap();
        assert_eq!(fault(&asked, &told).as_deref(), Some(says));
    }
}
