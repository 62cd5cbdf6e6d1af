//! Promise 7: undoable work blocks nobody. A task whose kind has no worker waits, visible and explained, and never delays
//! another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::process::Command;

use harness::{Broker, Place, Table, WorkerProcess, wait_until};
use serde_json::Value;

/// Of a kind that nobody serves, in the most urgent lane.
const ROWS: u64 = 1_000_000;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A mountain of such rows costs disk and nothing else: other tasks start as fast as before, the broker's memory stays flat,
/// and whoever looks is told why they wait.
#[test]
fn a_mountain_of_rows_that_nobody_can_run_slow_nothing_down() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let first = table.insert("echo", "0");
    table.wait_for_state(first, "done");
    let before_us = typical_wait_us(&place, &table);
    let before_kib = broker.memory_kib();

    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
               INSERT INTO tasks(kind, lane) SELECT 'nobody', 'high' FROM n";
    table.execute(sql, [i64::try_from(ROWS).unwrap()]);
    let client = broker.client();
    // Others are served while the broker still takes the mountain in.
    let during = table.insert("echo", "1");
    table.wait_for_state(during, "done");
    wait_until("the broker to count them", || client.stats().is_ok_and(|stats| stats.queued >= ROWS));

    let after_us = typical_wait_us(&place, &table);
    // Ten times normal, and a floor for machines where normal is a few hundred microseconds.
    let bound_us = 10 * before_us.max(3_000);
    assert!(after_us < bound_us, "insert to start took {before_us} µs before, {after_us} µs behind the mountain");
    let grown_kib = broker.memory_kib().saturating_sub(before_kib);
    assert!(grown_kib < 64 * 1024, "the broker grew by {grown_kib} KiB for {ROWS} queued rows");
    assert_eq!(table.count("kind = 'nobody' AND (state <> 'queued' OR runs > 0)"), 0);

    let waiting: i64 = table.one("SELECT id FROM tasks WHERE kind = 'nobody' LIMIT 1", []);
    let shown = laneway(&place, &["task", "show", &waiting.to_string()]);
    assert_eq!(shown["state"], "queued");
    let why = shown["explain"].as_str().unwrap();
    assert!(why.contains("nobody") && why.contains("worker"), "{why}");
    let stats = laneway(&place, &["stats"]);
    let kind = stats["kinds"].as_array().unwrap().iter().find(|row| row["kind"] == "nobody").unwrap();
    assert_eq!((&kind["queued"], &kind["workers"]), (&ROWS.into(), &0.into()));
    let lane = laneway(&place, &["lane", "list"]);
    assert_eq!((&lane["lane"], &lane["queued"]), (&"high".into(), &ROWS.into()));

    // The day that somebody serves them they run, in order.
    let oldest: i64 = table.one("SELECT min(id) FROM tasks WHERE kind = 'nobody'", []);
    let peer = harness::RawPeer::req(broker.endpoint());
    let ready = harness::plain_ready("comes-late", "nobody", 0, 30_000);
    let answer = peer.ask(laneway_protocol::message::Request::Ready(ready));
    let laneway_protocol::message::Answer::Tasks(hand_out) = answer else { panic!("{answer:?}") };
    assert_eq!(hand_out.tasks[0].task.value(), u64::try_from(oldest).unwrap());
}

/// Many kinds that nobody serves, each with a row: they do not hold up the one kind that is served either.
#[test]
fn many_undoable_kinds_slow_nothing_down() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
               INSERT INTO tasks(kind, lane) SELECT 'nobody' || i, 'high' FROM n";
    table.execute(sql, []);
    for _ in 0..20 {
        let low = table.insert_in("low", "echo", "1");
        table.wait_for_state(low, "done");
    }
    assert_eq!(table.count("kind <> 'echo' AND (state <> 'queued' OR runs > 0)"), 0);
}

/// Median of the time from before an insert to the beginning of its handler.
fn typical_wait_us(place: &Place, table: &Table) -> u64 {
    let mut waits: Vec<u64> = (0..31)
        .map(|_| {
            let before = harness::now_us();
            let id = table.insert_in("low", "echo", "1");
            let begun = place.journal().wait_for_begin(id, 1);
            table.wait_for_state(id, "done");
            begun.at_us.saturating_sub(before)
        })
        .collect();
    waits.sort_unstable();
    waits[waits.len() / 2]
}

/// The first JSON object that a command prints.
fn laneway(place: &Place, words: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(["--endpoint", &place.endpoint(), "-o", "json"]).args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}
