//! Other processes that hold on to the database: one that writes and does not end, one that reads and does not end.

use std::fs;
use std::time::{Duration, Instant};

use laneway_protocol::message::{Answer, Filter, NewTask, Request, Submit};
use laneway_protocol::{Code, Kind, Payload, RequestId, TaskState};

use crate::harness::{Broker, Place, RawPeer, Table, WorkerProcess, wait_until};

/// Longer than any patience in the broker, its workers' heartbeats included.
const LOCKED: Duration = Duration::from_secs(30);

#[test]
fn a_lock_of_half_a_minute_costs_nothing_but_that_time() {
    // Proves that a broker which cannot write for 30 s says so, refuses what it cannot store, tells what is in the table, keeps its
    // workers and what they run, holds the outcome that comes meanwhile and stores it when the lock is gone. Nothing is lost, run
    // twice or blamed.
    let place = Place::new();
    let broker = Broker::start(&place);
    let worker = WorkerProcess::start(&place, "slots=2");
    let table = Table::open(&place);
    let gates = ["first", "second"].map(|name| place.path(name));
    let tasks = gates.each_ref().map(|gate| table.insert("gate", &serde_json::json!({ "path": gate }).to_string()));
    for id in tasks {
        table.wait_for_state(id, "running");
    }
    let app = Table::open(&place);
    app.0.execute_batch("BEGIN IMMEDIATE; INSERT INTO tasks(kind, payload) VALUES ('echo', '1')").unwrap();
    let since = Instant::now();
    fs::write(&gates[0], "").unwrap();
    let client = RawPeer::req(broker.endpoint());
    let submit = Submit {
        request: RequestId([7; 16]),
        tasks: vec![NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json("2")))],
        wait_ms: 0,
        abandon: false,
        group: None,
    };
    let says = |word: &str| broker.log().iter().any(|line| line.to_string().contains(word));
    wait_until("the log to tell it", || says("the database is locked by another process"));
    let Answer::Error(error) = client.ask(Request::Submit(submit.clone())) else { panic!("nothing can be stored") };
    assert_eq!((error.code, error.retry), (Code::Storage, true), "{error}");
    let looks = broker.client();
    assert_eq!(looks.workers().unwrap().len(), 1, "the worker is known");
    let told = looks.stats().unwrap().storage_error;
    assert!(told.is_some_and(|cause| cause.contains("locked by another process")), "counts say why nothing moves");
    let running = Filter { state: Some(TaskState::Running), ..Filter::default() };
    assert_eq!(looks.list(running).unwrap().rows.len(), 2, "the table can be read");
    assert!(since.elapsed() < LOCKED, "it was answered when the lock was gone");
    wait_until("the time to be over", || since.elapsed() >= LOCKED);
    assert_eq!(tasks.map(|id| table.state(id)), ["running", "running"]);
    app.0.execute_batch("COMMIT").unwrap();
    table.wait_for_state(tasks[0], "done");
    assert_eq!(table.state(tasks[1]), "running");
    wait_until("the log to tell that it is over", || says("the database takes writes again"));
    fs::write(&gates[1], "").unwrap();
    table.wait_for_state(tasks[1], "done");
    wait_until("the submit to be taken", || matches!(client.ask(Request::Submit(submit.clone())), Answer::Submit(_)));
    table.wait_for_count("kind = 'echo' AND state = 'done'", 2);
    assert_eq!(table.count("runs = 1 AND attempts = 1 AND losses = 0 AND releases = 0"), 4);
    assert_eq!((worker.stop(), broker.stop()), (0, 0));
}

#[test]
fn a_reader_that_stays_makes_the_log_grow_and_nothing_else() {
    // Proves that work goes on beside an app that holds a read transaction open, which keeps the log from beginning anew,
    // that the alarm comes when it is long, and that the growth ends with that reader: it is written from its start again.
    let place = Place::new();
    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    let table = Table::open(&place);
    let reader = Table::open(&place);
    reader.0.execute_batch("BEGIN; SELECT count(*) FROM tasks").unwrap();
    let payload = format!("\"{}\"", "x".repeat(8_000));
    let log = place.path("tasks.db-wal");
    let size = || fs::metadata(&log).unwrap().len();
    table.insert_many(2_000, "normal", "echo", &payload);
    table.wait_for_count("state = 'done'", 2_000);
    let grown = size();
    assert!(grown > 16 * 1024 * 1024, "{grown} bytes");
    assert_eq!(reader.count("1"), 0, "the reader does not hold its snapshot");
    let told = || broker.log().iter().any(|line| line.to_string().contains("a reader holds a transaction open"));
    assert!(!told(), "it cries at {grown} bytes");
    table.insert_many(80, "normal", "nobody", &format!("\"{}\"", "x".repeat(3_500_000)));
    wait_until("the log to tell it", told);
    reader.0.execute_batch("COMMIT").unwrap();
    // A log that begins anew is written from its start: its first frame changes, and its length stays.
    let salt = || fs::read(&log).unwrap()[16..24].to_vec();
    let before = salt();
    wait_until("the log to begin anew", || {
        table.insert("echo", "1");
        salt() != before
    });
    assert_eq!(broker.stop(), 0);
}

#[test]
fn an_app_that_truncates_the_log_is_not_held_up_for_long() {
    // Proves that the readers by which the broker guards the log give way to an app's checkpoint that waits for them with the
    // write lock in its hand; else it would wait out its patience, and everybody with it.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    // A short log, which the broker leaves alone, and one that it moves.
    for (n_tasks, payload) in [(1, "1".to_owned()), (20, format!("\"{}\"", "x".repeat(400_000)))] {
        table.insert_many(n_tasks, "normal", "echo", &payload);
        table.wait_for_count("state <> 'done'", 0);
        // While the broker moves the log itself, SQLite refuses another checkpoint at once, whatever the patience.
        wait_until("a checkpoint that is not refused", || {
            let since = Instant::now();
            let refused = table.one::<i64>("PRAGMA wal_checkpoint(TRUNCATE)", []);
            assert!(since.elapsed() < LOCKED / 2, "it waited {:?}", since.elapsed());
            refused == 0
        });
    }
    let id = table.insert("echo", "2");
    table.wait_for_state(id, "done");
}
