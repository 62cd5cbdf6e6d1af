//! Workers and apps in other languages, as the examples show them: the Python worker written from PROTOCOL.md, and plain
//! inserts from Python and the shell, against the real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::tools::{python_with_zmq, sqlite3};
use harness::{Broker, DEADLINE, Place, Program, Random, Table, output_of, wait_until};

#[test]
fn the_golden_vectors_hold_for_another_language() {
    // Proves that a MessagePack library which is not ours reads and writes every message of the protocol.
    let said = output_of(Command::new(python_with_zmq()).arg(examples("python/test_vectors.py")));
    assert!(said.contains("vectors, 0 failed"), "{said}");
}

#[test]
fn a_python_worker_runs_what_rows_say() {
    // Proves that a worker written from PROTOCOL.md takes JSON and MessagePack, gives results, and has its failures
    // recorded; and that a SIGTERM lets it finish.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let mut worker = python_worker(&place);
    let words = place.path("words");
    std::fs::write(&words, "one two\nthree").unwrap();
    let counted = table.insert("wordcount", &path_payload(&words));
    let echoed = table.insert_in("high", "echo", r#"{"a":[1,2,null]}"#);
    table.execute("INSERT INTO tasks(kind, payload) VALUES ('echo', x'9301a178c3')", []);
    let packed = table.0.last_insert_rowid();
    table.execute("INSERT INTO tasks(kind, payload, max_attempts) VALUES ('wordcount', '{}', 1)", []);
    let failed = table.0.last_insert_rowid();
    for (task, result) in
        [(counted, r#"{"words": 3}"#), (echoed, r#"{"a": [1, 2, null]}"#), (packed, r#"[1, "x", true]"#)]
    {
        table.wait_for_state(task, "done");
        assert_eq!(table.column::<String>(task, "result"), result);
    }
    table.wait_for_state(failed, "dead");
    assert_eq!(table.column::<String>(failed, "error"), "KeyError: 'path'");

    let (pipe, blocked) = blocked_task(&place, &table);
    worker.signal("TERM");
    let waiting = table.insert("echo", "1");
    std::fs::write(&pipe, "a b").unwrap();
    assert_eq!(worker.wait(), 0);
    assert_eq!(table.column::<String>(blocked, "state || ' ' || runs || attempts || losses"), "done 110");
    // Its good-bye was heard, and what it did not start waits for another.
    assert_eq!(table.column::<String>(waiting, "state || ' ' || losses"), "queued 0");
    wait_until("the worker to be gone", || broker.client().workers().unwrap().is_empty());
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_python_worker_gets_over_a_restart_of_the_broker() {
    // Proves that a plain worker's outcome is taken by the next broker, that what it ran is run once, and that it asks
    // again when its question went down with a broker.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let mut worker = python_worker(&place);
    let (pipe, task) = blocked_task(&place, &table);
    table.wait_for_state(task, "running");
    broker.kill();
    let broker = Broker::start(&place);
    std::fs::write(&pipe, "a b c").unwrap();
    table.wait_for_state(task, "done");
    assert_eq!(table.column::<String>(task, "result || ' ' || runs || attempts || losses"), r#"{"words": 3} 110"#);

    // Now it is idle: its parked question is lost with the broker, and it waits for the rest of its time.
    wait_until("the worker to ask again", || broker.client().stats().unwrap().ready == 1);
    broker.kill();
    let _broker = Broker::start(&place);
    let asked = Instant::now();
    let echoed = table.insert("echo", "1");
    table.wait_for_state(echoed, "done");
    assert!(worker.is_running(), "the worker left after {:?}", asked.elapsed());
    assert_eq!(worker.stop(), 0);
}

#[test]
fn the_submitting_examples_insert_rows_that_run() {
    // Proves that inserts from Python and from the sqlite3 shell are whole tasks.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = python_worker(&place);
    let said = output_of(Command::new(python_with_zmq()).arg(examples("python/submit.py")).arg(place.db()));
    assert!(said.contains("task 1 is done") && said.contains("words"), "{said}");
    // The second insert with the unique key changed nothing.
    assert!(said.contains("task None"), "{said}");
    assert_eq!(table.one::<i64>("SELECT task FROM example_orders", []), 2);

    let before: i64 = table.one("SELECT max(id) FROM tasks", []);
    sqlite3();
    let said = output_of(Command::new("sh").arg(examples("shell/submit.sh")).arg(place.db()));
    assert!(said.contains("wordcount"), "{said}");
    table.wait_for_count(&format!("id > {before} AND state = 'done'"), 2);
    table.wait_for_count("unique_key = 'daily' AND state = 'queued'", 1);
}

#[test]
fn each_effect_happens_once_whatever_is_killed() {
    // Proves that a worker over a plain REQ socket which ends its tasks in its own transactions does each one's work once:
    // while workers and broker are killed at random again and again, every task ends, and has one row.
    const TASKS: i64 = 600;
    const KILLS: u32 = 30;
    const BROKER_KILLS: u32 = 3;
    let place = Place::new();
    let random = Random::new();
    // A killed worker costs its task a loss, and there are many. One that dies while the broker is away, and says no HELLO, keeps
    // its task until the lease ends.
    let settings =
        ["defaults.losses_max=1000", "defaults.max_attempts=1000", "defaults.timeout_ms=3000", "resume_grace_ms=1000"];
    let mut broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    let more = |n| {
        let insert = "INSERT INTO tasks(kind, payload) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                      SELECT 'pay', '{\"cents\": ' || i || '}' FROM n";
        table.execute(insert, [n]);
    };
    more(TASKS / 2);
    // Each payment takes its time, so that most kills come within a transaction.
    table
        .0
        .execute_batch(
            "CREATE TABLE payments(task INTEGER, cents INTEGER);
             CREATE VIEW slow AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n;
             CREATE TRIGGER slowly AFTER INSERT ON payments BEGIN SELECT count(*) FROM slow; END;",
        )
        .unwrap();
    // A plain REQ socket learns that its broker is gone from an answer that does not come: soon, here.
    let soon = "import sys, worker, fenced; worker.WAIT_MS, worker.REPLY_MS = 300, 1_000; fenced.main(*sys.argv[1:])";
    let start = || {
        let mut fenced = Command::new(python_with_zmq());
        fenced.args(["-c", soon]).arg(place.db()).arg(place.endpoint()).current_dir(examples("python"));
        Program::start(&mut fenced)
    };
    let mut workers: Vec<Program> = (0..3).map(|_| start()).collect();
    let done = || table.count("state = 'done'");
    wait_until("the first effects", || done() > 0);
    for kill in 1..=KILLS {
        let before = done();
        let moment = Instant::now() + Duration::from_millis(random.below(100));
        let at = usize::try_from(random.below(3)).unwrap();
        // At its work, at a random moment of it: a worker needs a while to begin, the longer the busier the machine.
        wait_until("work to go on", || {
            Instant::now() >= moment && (done() > before || table.count("state = 'queued'") == 0)
        });
        std::mem::replace(&mut workers[at], start()).kill();
        if kill % (KILLS / BROKER_KILLS) == 0 {
            broker.kill();
            broker = Broker::start_with(&place, &settings);
        }
        if kill == KILLS / 2 {
            more(TASKS / 2);
        }
    }
    let left =
        "SELECT group_concat(id || ' is ' || state || ' ' || ifnull(error, '')) FROM tasks WHERE state <> 'done'";
    let until = Instant::now() + 2 * DEADLINE;
    while done() < TASKS {
        assert!(Instant::now() < until, "{:?}", table.one::<Option<String>>(left, []));
        std::thread::sleep(Duration::from_millis(20));
    }
    let effects =
        "SELECT count(*) || ' ' || count(DISTINCT task) FROM payments JOIN tasks ON id = task WHERE state = 'done'";
    assert_eq!(table.one::<String>(effects, []), format!("{TASKS} {TASKS}"));
    assert_eq!(table.one::<i64>("SELECT count(*) FROM payments", []), TASKS);
    // They died at their work.
    let interrupted = table.count("runs > 1");
    assert!(interrupted >= i64::from(KILLS / 10), "only {interrupted} of the tasks were interrupted");
    assert_eq!(broker.stop(), 0);
}

fn python_worker(place: &Place) -> Program {
    Program::start(Command::new(python_with_zmq()).arg(examples("python/worker.py")).arg(place.endpoint()))
}

/// A task that runs until somebody writes to the pipe, and has begun.
fn blocked_task(place: &Place, table: &Table) -> (PathBuf, i64) {
    let pipe = place.path("pipe");
    output_of(Command::new("mkfifo").arg(&pipe));
    let task = table.insert("wordcount", &path_payload(&pipe));
    table.wait_for_state(task, "running");
    (pipe, task)
}

fn path_payload(path: &Path) -> String {
    serde_json::json!({ "path": path }).to_string()
}

fn examples(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(path)
}
