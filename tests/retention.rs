//! How long ended tasks are kept, by a real broker: for each outcome and kind; results that are too large; the file and its log do
//! not grow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, Said, Table, WorkerProcess, wait_for, wait_until};
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Ended rows, as if they had ended an hour ago.
fn fill(table: &Table, n: u32, state: &str, kind: &str) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1), \
               ago(at) AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 3600000) \
               INSERT INTO tasks(kind, state, payload, created_at, finished_at) \
               SELECT ?3, ?2, hex(zeroblob(100)), at, at FROM n, ago";
    table.execute(sql, rusqlite::params![n, state, kind]);
}

/// Each outcome has its age, dead tasks have none unless they are given one, and a kind may differ; counts keep the newest.
#[test]
fn outcomes_and_kinds_are_kept_as_the_settings_say() {
    let place = Place::new();
    let minutes = |n: u32| (n * 60_000).to_string();
    let settings = [
        "retention.interval_ms=100".to_owned(),
        format!("retention.done_age_ms={}", minutes(30)),
        format!("retention.cancelled_age_ms={}", minutes(90)),
        format!("kinds.brief.dead_age_ms={}", minutes(30)),
        format!("kinds.long.done_age_ms={}", minutes(600)),
        "kinds.long.done_count_max=7".to_owned(),
    ];
    let broker = Broker::start_with(&place, &settings.iter().map(String::as_str).collect::<Vec<_>>());
    let table = Table::open(&place);
    for (state, kind) in
        [("done", "echo"), ("cancelled", "echo"), ("dead", "echo"), ("dead", "brief"), ("done", "long")]
    {
        fill(&table, 10, state, kind);
    }
    let newest: i64 = table.one("SELECT max(id) FROM tasks", []);
    let left = |state: &str, kind: &str| table.count(&format!("state = '{state}' AND kind = '{kind}'"));
    wait_until("the old ones to go", || {
        (left("done", "echo"), left("dead", "brief"), left("done", "long")) == (0, 0, 7)
    });
    assert_eq!((left("cancelled", "echo"), left("dead", "echo")), (10, 10));
    assert_eq!(table.one::<i64>("SELECT min(id) FROM tasks WHERE kind = 'long'", []), newest - 6);
    wait_until("the count to follow", || broker.client().stats().unwrap().dead == 10);
}

/// What is set while the broker runs holds at once and in the next life; a bad value is refused with its bound, and changes nothing.
#[test]
fn what_is_set_of_a_kind_holds_at_once_and_after_a_restart() {
    let place = Place::new();
    // By itself it would look again tomorrow.
    let settings = ["retention.interval_ms=86400000", "kinds.brief.dead_age_ms=1000"];
    let broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    for (state, kind) in [("done", "echo"), ("done", "other"), ("dead", "echo"), ("dead", "brief")] {
        fill(&table, 10, state, kind);
    }
    let left = |state: &str, kind: &str| table.count(&format!("state = '{state}' AND kind = '{kind}'"));
    let endpoint = place.endpoint();
    let set = |words: &[&str]| Said::by(&place, &[], &[&["kind", "set"], words, &["--endpoint", &endpoint]].concat());
    set(&["brief", "dead_age_ms=none"]).is(0, "");
    set(&["echo", "done_age_ms=60000", "dead_count_max=4", "-o", "json"]).is(0, "");
    wait_until("the old ones to go", || (left("done", "echo"), left("dead", "echo")) == (0, 4));
    assert_eq!((left("done", "other"), left("dead", "brief")), (10, 10));
    set(&["echo", "done_age_ms=0", "dead_age_ms=3153600000001"])
        .is(5, "dead_age_ms is 3153600000001: must be 0 to 3153600000000");
    set(&["echo", "done_count_max=1000000000001"]).is(5, "must be 0 to 1000000000000");
    set(&["echo", "done_age_ms=soon"]).is(2, "done_age_ms=soon");
    let shown = Said::by(&place, &[], &["kind", "list", "-o", "json", "--endpoint", &endpoint]).json();
    let of = |kind: &str| shown.iter().find(|row| row["kind"] == kind).unwrap().clone();
    assert_eq!((&of("echo")["done_age_ms"], &of("echo")["dead_count_max"]), (&json!(60_000), &json!(4)));
    assert_eq!(
        (&of("echo")["set"], &of("echo")["dead_age_ms"]),
        (&json!(["done_age_ms", "dead_count_max"]), &json!(null))
    );
    assert_eq!(of("brief")["set"], json!(["dead_age_ms"]));
    broker.kill();

    let _broker = Broker::start_with(&place, &["retention.interval_ms=100", settings[1]]);
    for (state, kind) in [("done", "echo"), ("dead", "echo")] {
        fill(&table, 10, state, kind);
    }
    wait_until("the same again", || (left("done", "echo"), left("dead", "echo")) == (0, 4));
    assert_eq!((left("done", "other"), left("dead", "brief")), (10, 10));
    Said::by(&place, &[], &["kind", "reset", "brief", "echo", "--endpoint", &endpoint]).is(0, "");
    wait_until("the settings to hold again", || left("dead", "brief") == 0);
    assert_eq!(left("dead", "echo"), 4);
}

/// A result over the cap ends its task, with both numbers in its error.
#[test]
fn a_result_over_the_cap_is_told() {
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["result_bytes_max=1024"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=echo");
    let id = table.insert("echo", &format!("\"{}\"", "x".repeat(2_000)));
    table.wait_for_state(id, "dead");
    let error: String = table.column(id, "error");
    assert!(error.contains("result of 2002 bytes is over the limit of 1024 (result_bytes_max)"), "{error}");
    table.wait_for_state(table.insert("echo", "1"), "done");
}

/// Rows come and go at the same pace, and the file stays where it is: its free pages are used again, and shown.
#[test]
fn the_file_does_not_grow_when_rows_come_and_go() {
    let place = Place::new();
    let broker = Broker::start_with(&place, &["retention.interval_ms=100", "retention.done_age_ms=60000"]);
    let table = Table::open(&place);
    let pages = || table.one::<i64>("PRAGMA page_count", []);
    let mut after = Vec::new();
    for _ in 0..6 {
        fill(&table, 5_000, "done", "echo");
        wait_until("them to go", || table.count("1") == 0);
        after.push(pages());
    }
    assert!(after[5] <= after[1] + after[1] / 50, "{after:?}");
    drop(broker);
    let said = Said::by(&place, &[], &["db", "status", "--db", "tasks.db", "-o", "json"]).json().remove(0);
    assert!(said["free_bytes"].as_u64().unwrap() > said["bytes"].as_u64().unwrap() / 2, "{said}");
    let shown = Said::by(&place, &[], &["db", "status", "--db", "tasks.db"]).out;
    assert!(shown.contains("used again before it grows"), "{shown}");
}

/// A reader that keeps its transaction open pins the log: that is warned of, and shown, and over once the reader ends.
#[test]
fn a_reader_that_pins_the_log_is_told() {
    let place = Place::new();
    let broker = Broker::start_with(&place, &["wal_alarm_bytes=8388608"]);
    let table = Table::open(&place);
    let reader = Table::open(&place);
    reader.0.execute_batch("BEGIN").unwrap();
    assert_eq!(reader.count("1"), 0);
    let client = broker.client();
    let pinned = || client.stats().unwrap().wal_pinned_bytes;
    assert_eq!(pinned(), 0);
    let big = "INSERT INTO tasks(kind, payload) SELECT 'nobody', zeroblob(1000000) FROM (SELECT 1 UNION ALL SELECT 2)";
    for _ in 0..6 {
        table.execute(big, []);
    }
    wait_until("the alarm", || pinned() >= 8 * 1024 * 1024);
    let warned =
        |line: &serde_json::Value| line.to_string().contains("cannot shrink: a reader holds a transaction open");
    wait_for("the warning", || broker.log().iter().any(warned).then_some(()));
    let said = Said::by(&place, &[], &["--endpoint", &place.endpoint(), "stats"]).out;
    assert!(said.contains("cannot shrink"), "{said}");
    let status = |words: &[&str]| Said::by(&place, &[], &[&["db", "status", "--db", "tasks.db"], words].concat());
    assert!(status(&[]).out.contains("of WAL, cannot shrink: a reader holds"), "{}", status(&[]).out);
    assert!(status(&["-o", "json"]).json()[0]["wal_pinned_bytes"].as_u64().unwrap() >= 8 * 1024 * 1024);
    reader.0.execute_batch("COMMIT").unwrap();
    wait_until("the end of the alarm", || {
        table.execute("INSERT INTO tasks(kind) VALUES ('nobody')", []);
        pinned() == 0
    });
    let shown = Said::by(&place, &[], &["--endpoint", &place.endpoint(), "stats", "-o", "json"]).json().remove(0);
    assert_eq!(shown["wal_pinned_bytes"], json!(0));
    assert_eq!(status(&["-o", "json"]).json()[0]["wal_pinned_bytes"], json!(0));
    assert_eq!(broker.stop(), 0);
    assert_eq!(status(&["-o", "json"]).json()[0]["wal_pinned_bytes"], json!(null), "nobody knows");
}
