//! That `laneway bench` works: small runs of it, with its real brokers and workers. The figures themselves are for people.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

/// Runs the benchmark scaled down, and gives its lines.
fn bench(parts: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_laneway"))
        .args(["bench", "--quick", "-o", "json", "--only", parts, "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let left: Vec<_> = dir.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "files are left behind: {left:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every figure is a number above zero, and the last line says that nothing was lost; gives how many tasks there were.
fn check(lines: &[Value]) -> u64 {
    let (last, figures) = lines.split_last().unwrap();
    for figure in figures {
        assert!(figure["value"].as_f64().unwrap() > 0.0, "{figure}");
    }
    assert_eq!((&last["part"], &last["lost"], &last["run_twice"]), (&"check".into(), &0.into(), &0.into()));
    last["tasks"].as_u64().unwrap()
}

#[test]
fn drains_have_figures_with_ratios_and_lose_nothing() {
    // Proves that each setting of the drain is measured with every task done once, and compared with its limit.
    let lines = bench("limits,drain");
    assert!(check(&lines) >= 8 * 1_000);
    let drains: Vec<&Value> = lines.iter().filter(|line| line["part"] == "drain").collect();
    assert_eq!(drains.len(), 8);
    for drain in drains {
        assert!(drain["ratio"].as_f64().unwrap() > 0.0, "{drain}");
    }
}

/// The figure of this name, which must be there.
fn figure<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|line| line["figure"] == name).unwrap_or_else(|| panic!("no figure '{name}'"))
}

#[test]
fn submits_of_many_clients_are_all_stored() {
    // Proves that clients on connections of their own are measured, and that every row of theirs is counted.
    let lines = bench("submit");
    check(&lines);
    for durability in ["full", "normal"] {
        figure(&lines, &format!("wire, 16 clients one by one, {durability}"));
    }
}

#[test]
fn drains_go_on_beside_apps() {
    // Proves that both sides get on, and that the apps' own tasks are done too: they are counted with the others.
    let lines = bench("beside");
    let tasks = check(&lines);
    for max in [1, 64] {
        figure(&lines, &format!("beside 4 apps by SQL, 4 slots, max {max}, full"));
        figure(&lines, &format!("commits of 4 apps by SQL beside 4 slots, max {max}, full"));
        figure(&lines, &format!("a commit of an app by SQL beside 4 slots, max {max}, full, p99"));
    }
    assert!(tasks > 2 * 2_000, "{tasks}");
}

#[test]
fn large_payloads_are_compared_with_a_bare_router() {
    // Proves that payloads and results near the bound come through, and that the limit takes the same way.
    let lines = bench("limits,large");
    check(&lines);
    for durability in ["full", "normal"] {
        let large = figure(&lines, &format!("1 MB payloads and results, 4 slots, {durability}"));
        assert!(large["ratio"].as_f64().unwrap() > 0.0, "{large}");
        assert!(large["note"].as_str().unwrap().starts_with("broker: at most "), "{large}");
    }
}

#[test]
fn a_crowd_of_workers_is_served() {
    // Proves that each of many workers that connect at once gets a task, one task.
    let lines = bench("crowd");
    assert_eq!(check(&lines), 200);
    figure(&lines, "200 workers connect at once, until each has done a task");
}

#[test]
fn idle_brokers_are_looked_at_with_as_many_workers_as_others() {
    // Proves that `bench/run` finds the figure that it compares with brokers that have 64 workers.
    let lines = bench("idle");
    check(&lines);
    figure(&lines, "broker, 64 slots ready");
}

#[test]
fn dashboards_are_open_beside_a_drain() {
    // Proves that the drain with open dashboards is measured beside the one without, that every page answers meanwhile, and
    // that no task is lost: four drains, each with queued rows, as many finished ones, and dead ones.
    let lines = bench("dashboards");
    assert_eq!(check(&lines), 4 * (50_000 + 50_000 + 1_000));
    for max in [1, 64] {
        for what in ["no dashboard", "50 dashboards", "slowest page", "broker, 50 dashboards"] {
            figure(&lines, &format!("4 slots, max {max}, {what}"));
        }
    }
}

#[test]
fn waits_have_their_percentiles() {
    // Proves that a start is found for every insert: a missing one would leave a percentile without its samples.
    let lines = bench("latency");
    assert!(check(&lines) >= 2 * 300);
    let [p50, p99] = [50, 99].map(|percent| {
        let figure = figure(&lines, &format!("SQL insert to start, full, p{percent}"));
        figure["value"].as_f64().unwrap()
    });
    assert!(p50 <= p99, "{p50} {p99}");
}
