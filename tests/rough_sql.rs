//! Rough handling by SQL while the broker runs: rows replaced, deleted and changed under it, and floods of commits. No
//! crash, no wrong result, and the read-ahead goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use harness::{Broker, Place, Table, WorkerProcess, wait_until};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// `INSERT OR REPLACE` over a live key deletes the row that had it: whether that was queued or running, only the new one
/// counts.
#[test]
fn a_row_replaced_over_its_key_is_run_instead() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let replace = |payload: &str| {
        let sql = "INSERT OR REPLACE INTO tasks(kind, unique_key, payload) VALUES ('gate', 'key', ?1)";
        table.execute(sql, [payload]);
        table.0.last_insert_rowid()
    };
    let old = replace(&gate(&place, "old"));
    place.journal().wait_for_begin(old, 1);
    table.wait_for_state(old, "running");
    let new = replace(&gate(&place, "new"));
    assert_eq!(table.count("unique_key = 'key'"), 1);
    place.journal().wait_for_begin(new, 1);
    // The old run ends, and changes nothing.
    std::fs::write(place.path("old"), "").unwrap();
    wait_until("the old run to end", || place.journal().ended(old).len() == 1);
    std::fs::write(place.path("new"), "").unwrap();
    table.wait_for_state(new, "done");
    assert!(table.column::<String>(new, "result").contains("new"));
    assert_eq!(table.count("1"), 1);
    wait_until("the overtaken row to be counted", || broker.client().stats().unwrap().overtaken > 0);

    // Ten thousand times while nobody runs it: one is left.
    table.0.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..10_000 {
        let sql = "INSERT OR REPLACE INTO tasks(kind, unique_key, payload, run_at) VALUES ('echo', 'k', ?1, ?2)";
        table.execute(sql, (n.to_string(), in_an_hour()));
    }
    table.0.execute_batch("COMMIT").unwrap();
    table.execute("UPDATE tasks SET run_at = NULL WHERE unique_key = 'k'", []);
    table.wait_for_count("unique_key = 'k' AND state = 'done' AND result = '9999'", 1);
}

/// A row that was read ahead of one lane is moved to another by an app, and then its readers are gone.
#[test]
fn a_row_moved_while_it_is_read_ahead_is_found_where_it_stands() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let low = WorkerProcess::start(&place, "slots=1 lanes=low");
    let _normal = WorkerProcess::start(&place, "slots=1 lanes=normal");
    let insert = |kind: &str, lane: &str, payload: &str| {
        table.execute("INSERT INTO tasks(kind, lane, payload) VALUES (?1, ?2, ?3)", (kind, lane, payload));
        table.0.last_insert_rowid()
    };
    let busy = insert("gate", "low", &gate(&place, "never"));
    place.journal().wait_for_begin(busy, 1);
    let moved = insert("echo", "low", "1");
    // What is done shows that the broker has read what was there before it, and looked for more of its queue.
    let see = || table.wait_for_state(insert("echo", "normal", "2"), "done");
    see();
    table.execute("UPDATE tasks SET lane = 'normal' WHERE id = ?1", [moved]);
    see();
    assert_eq!(table.column::<String>(moved, "state"), "queued");
    // Nobody reads the lower lane any more, and nothing else tells of the row: no app commits from here on.
    drop(low);
    table.wait_for_state(moved, "done");
}

/// Rows deleted, finished or changed under the broker, running ones and those that it has read ahead: the app's word
/// holds, the slots are free again, and everything else runs.
#[test]
fn rows_changed_under_the_broker_hurt_nobody() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=3");
    let gate = gate(&place, "gate");
    let running: Vec<i64> = (0..3).map(|_| table.insert("gate", &gate)).collect();
    for &id in &running {
        place.journal().wait_for_begin(id, 1);
        table.wait_for_state(id, "running");
    }
    // Read ahead by now or soon, as all slots serve the kind.
    let queued: Vec<i64> = (0..300).map(|n| table.insert("echo", &n.to_string())).collect();
    table.execute("DELETE FROM tasks WHERE id = ?1", [running[0]]);
    table.execute("UPDATE tasks SET state = 'done', result = '\"by hand\"' WHERE id = ?1", [running[1]]);
    table.execute("UPDATE tasks SET lease = lease + 1 WHERE id = ?1", [running[2]]);
    table.execute("DELETE FROM tasks WHERE id BETWEEN ?1 AND ?2", [queued[0], queued[99]]);
    table.execute("UPDATE tasks SET state = 'cancelled' WHERE id BETWEEN ?1 AND ?2", [queued[100], queued[149]]);
    table.execute("UPDATE tasks SET payload = '\"changed\"' WHERE id BETWEEN ?1 AND ?2", [queued[150], queued[199]]);
    table.execute("UPDATE tasks SET kind = 'nobody' WHERE id BETWEEN ?1 AND ?2", [queued[200], queued[249]]);
    std::fs::write(place.path("gate"), "").unwrap();

    table.wait_for_count("state = 'done' AND kind = 'echo'", 100);
    let begun = |range: std::ops::Range<usize>| {
        let ids: Vec<i64> =
            place.journal().lines().iter().filter(|line| line.what == "begin").map(|line| line.task).collect();
        queued[range].iter().filter(|id| ids.contains(id)).count()
    };
    assert_eq!(begun(150..200) + begun(250..300), 100);
    assert_eq!(table.count("state = 'cancelled' AND result IS NULL"), 50);
    assert_eq!(table.count("kind = 'nobody' AND state = 'queued'"), 50);
    assert_eq!(table.column::<String>(running[1], "result"), "\"by hand\"");
    assert_eq!(table.one::<i64>("SELECT count(*) FROM tasks WHERE id = ?1", [running[0]]), 0);
    // All three slots are still in use.
    table.insert_many(30, "normal", "sleep", r#"{"ms":20}"#);
    table.wait_for_count("kind = 'sleep' AND state = 'done' AND runs = 1", 30);
}

/// Four apps that commit single rows without pause: the broker gets its turns, and a task that is inserted meanwhile starts.
#[test]
fn apps_that_commit_without_pause_do_not_starve_the_broker() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2 lanes=high");
    let first = table.insert_in("high", "echo", "0");
    table.wait_for_state(first, "done");
    let (stop, committed) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let app = Table::open(&place);
                while !stop.load(Ordering::Relaxed) {
                    app.insert_in("low", "echo", "1");
                    committed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut waits = Vec::new();
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(2) || waits.len() < 10 {
            let before = Instant::now();
            let id = table.insert_in("high", "echo", "1");
            place.journal().wait_for_begin(id, 1);
            waits.push(before.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        waits.sort_unstable();
        // Of these, most is the app's own wait for its turn to insert, behind SQLite's busy handler.
        assert!(waits[waits.len() / 2] < Duration::from_secs(2), "insert to start: {waits:?}");
    });
    let committed = committed.into_inner();
    assert!(committed > 100, "the apps committed only {committed} rows");
    let _all = WorkerProcess::start(&place, "slots=4 batch=64");
    table.wait_for_count("lane = 'low' AND state = 'done' AND runs = 1", committed);
}

/// One transaction with 300,000 rows: others go on being served, and a worker takes from the head as from any queue.
#[test]
fn one_huge_transaction_is_taken_in_bounded_turns() {
    const ROWS: i64 = 300_000;
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2 batch=16");
    let first = table.insert("echo", "0");
    table.wait_for_state(first, "done");
    let before_kib = broker.memory_kib();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
               INSERT INTO tasks(kind, lane, payload) SELECT 'echo', 'low', i FROM (SELECT '' || i AS i FROM n)";
    table.execute(sql, [ROWS]);
    for n in 0..20 {
        let before = Instant::now();
        let id = table.insert_in("high", "echo", &n.to_string());
        place.journal().wait_for_begin(id, 1);
        assert!(before.elapsed() < Duration::from_secs(10), "an urgent task waited {:?}", before.elapsed());
    }
    table.wait_for_count("lane = 'high' AND state = 'done'", 20);
    wait_until("the window to run on", || table.count("lane = 'low' AND state = 'done'") > 2_000);
    // In order from the head: what is done has no gap but for what is in hand right now.
    let (n, last): (i64, i64) = table
        .0
        .query_row(
            "SELECT count(*), max(id) - min(id) + 1 FROM tasks WHERE lane = 'low' AND state = 'done'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(last - n <= 64, "{n} rows are done, the last is number {last}");
    assert_eq!(table.count("lane = 'low' AND state = 'done' AND result <> payload"), 0);
    let grown_kib = broker.memory_kib().saturating_sub(before_kib);
    assert!(grown_kib < 64 * 1024, "the broker grew by {grown_kib} KiB");
}

fn gate(place: &Place, name: &str) -> String {
    serde_json::json!({ "path": place.path(name) }).to_string()
}

fn in_an_hour() -> i64 {
    i64::try_from(harness::now_us() / 1_000).unwrap() + 3_600_000
}
