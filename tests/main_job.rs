//! Promise 1: the row is the API. A plain INSERT is a whole task, from any program, and an idle worker starts it at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::process::Command;

use harness::tools::{python3, sqlite3};
use harness::{Broker, Place, Table, WorkerProcess, output_of, wait_until};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A plain INSERT is a whole task: a ready worker runs it and the result is in the row.
#[test]
fn an_inserted_row_is_run_and_its_result_is_in_the_row() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let id = table.insert("echo", r#"{"hello":"world"}"#);
    table.wait_for_state(id, "done");
    assert_eq!(table.column::<String>(id, "result"), r#"{"hello":"world"}"#);
    assert_eq!(table.column::<i64>(id, "runs"), 1);
    assert_eq!(table.column::<i64>(id, "attempts"), 1);
    assert!(table.column::<i64>(id, "finished_at") >= table.column::<i64>(id, "created_at"));
    assert_eq!(broker.stop(), 0);
}

/// The `sqlite3` shell and Python's `sqlite3`, with whatever SQLite the system has, insert tasks without any extension.
#[test]
fn the_shell_and_python_insert_tasks_as_they_are() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    let sql = r#"INSERT INTO tasks(kind, payload) VALUES ('echo', '{"from":"shell"}'); SELECT last_insert_rowid();"#;
    let id = said(Command::new(sqlite3()).args(["-cmd", ".timeout 5000"]).arg(place.db()).arg(sql));
    table.wait_for_state(id, "done");
    assert_eq!(table.column::<String>(id, "result"), r#"{"from":"shell"}"#);
    let script = "import json, sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1])\n\
                  with db:\n    row = db.execute('INSERT INTO tasks(kind, payload) VALUES (?, ?)', ('echo', json.dumps([1, 2])))\n\
                  print(row.lastrowid)";
    let id = said(Command::new(python3()).arg("-c").arg(script).arg(place.db()));
    table.wait_for_state(id, "done");
    // The worker writes its own JSON.
    assert_eq!(table.column::<String>(id, "result"), "[1,2]");
}

/// The insert that the README shows waits for its turn: none fails beside a broker that commits all the time.
#[test]
fn the_readmes_insert_never_finds_the_database_locked() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    let table = Table::open(&place);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let mut lines =
        readme.lines().filter_map(|line| line.strip_prefix("$ ")).filter(|line| line.starts_with("sqlite3"));
    let insert =
        lines.find(|line| line.contains("INSERT")).expect("the README shows an insert").replace("app.db", "tasks.db");
    sqlite3();
    for round in 0..40 {
        // There is always something to commit.
        table.insert_many(50, "low", "echo", "1");
        output_of(Command::new("sh").args(["-c", &insert]).current_dir(place.dir()));
        assert_eq!(table.count("kind = 'wordcount'"), round + 1);
    }
}

/// The id that a program printed.
fn said(command: &mut Command) -> i64 {
    output_of(command).trim().parse().unwrap()
}

/// In an app's own transaction, beside its own table, a task is there with the app's row or not at all; and nobody starts
/// it before the commit.
#[test]
fn a_task_is_part_of_the_apps_own_transaction() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let mut app = Table::open(&place);
    app.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, task INTEGER)", []);

    let turn = app.0.transaction().unwrap();
    turn.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
    turn.execute("INSERT INTO tasks(kind, payload) VALUES ('echo', '\"never\"')", []).unwrap();
    turn.rollback().unwrap();
    assert_eq!(app.count("payload = '\"never\"'"), 0);

    let turn = app.0.transaction().unwrap();
    turn.execute("INSERT INTO tasks(kind, payload) VALUES ('echo', '\"both\"')", []).unwrap();
    let id = turn.last_insert_rowid();
    turn.execute("INSERT INTO orders(task) VALUES (?1)", [id]).unwrap();
    // Long enough for a broker that looked at uncommitted rows to have started it.
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(place.journal().begun(id).is_empty(), "it was started before its commit");
    turn.commit().unwrap();
    app.wait_for_state(id, "done");
    assert_eq!(app.one::<i64>("SELECT count(*) FROM orders WHERE task = ?1", [id]), 1);
    assert_eq!(place.journal().begun(id).len(), 1);
}

/// TEXT is JSON and BLOB is `MessagePack`: handlers get the same value, and answer in the format they were asked in.
#[test]
fn json_and_messagepack_payloads_are_told_apart_by_their_type() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    let text = table.insert("echo", r#"{"a":[1,2]}"#);
    // {"a": [1, 2]}
    let packed = b"\x81\xa1a\x92\x01\x02".to_vec();
    table.execute("INSERT INTO tasks(kind, payload) VALUES ('echo', ?1)", [&packed]);
    let blob = table.0.last_insert_rowid();
    table.execute("INSERT INTO tasks(kind) VALUES ('echo')", []);
    let null = table.0.last_insert_rowid();
    for id in [text, blob, null] {
        table.wait_for_state(id, "done");
    }
    assert_eq!(table.column::<String>(text, "result"), r#"{"a":[1,2]}"#);
    assert_eq!(table.column::<Vec<u8>>(blob, "result"), packed);
    // Not JSON at all: the handler cannot read it, today or at the next attempt.
    let broken = table.insert("echo", "{");
    table.wait_for_state(broken, "dead");
    assert_eq!(table.column::<i64>(broken, "attempts"), 1);
}

/// An idle worker starts a row at push speed: in a few round trips of the machine as it is now, and not at the period of
/// some poll.
#[test]
fn an_idle_worker_starts_an_inserted_row_at_once() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    let client = broker.client();
    // The first one also waits for the worker to connect.
    let first = table.insert("echo", "0");
    table.wait_for_state(first, "done");
    let (mut waits, mut round_trips) = (Vec::new(), Vec::new());
    for n in 0..30 {
        let before = harness::now_us();
        let id = table.insert("echo", &n.to_string());
        let begun = place.journal().wait_for_begin(id, 1);
        waits.push(begun.at_us.saturating_sub(before));
        table.wait_for_state(id, "done");
        let before = harness::now_us();
        client.ping().unwrap();
        round_trips.push(harness::now_us() - before);
    }
    waits.sort_unstable();
    round_trips.sort_unstable();
    let (wait, round_trip) = (waits[waits.len() / 2], round_trips[round_trips.len() / 2]);
    // About 1 ms on an idle machine.
    assert!(wait < 20_000 + 20 * round_trip, "insert to start took {wait} µs, a round trip {round_trip} µs: {waits:?}");
    assert_eq!(worker.stop(), 0);
}

/// Rows inserted while no broker runs, even before there was one, are run by the next.
#[test]
fn rows_wait_in_the_table_for_a_broker() {
    let place = Place::new();
    let broker = Broker::start(&place);
    assert_eq!(broker.stop(), 0);
    let table = Table::open(&place);
    table.insert_many(100, "low", "echo", "1");
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    wait_until("all rows to be done", || table.count("state = 'done' AND runs = 1") == 100);
}
