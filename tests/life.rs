//! The life of a task: attempts and backoff, dead letters, timeouts, expiry, keys, delays, cancels; and promise 9 as far
//! as results and progress: any task can be waited for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Broker, Place, Table, WorkerProcess, wait_until};
use laneway::Task;
use laneway_protocol::message::{ProgressEvent, Verdict};
use laneway_protocol::{TaskId, TaskState};
use rusqlite::OptionalExtension;
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A failing task is tried again after a growing delay, each failure is a row, and after the last attempt it is dead.
#[test]
fn a_failing_task_is_retried_with_backoff_and_then_dead() {
    let place = Place::new();
    let broker = Broker::start_with(&place, &["defaults.backoff_base_ms=100"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let id = table.insert("fail", "1");
    table.wait_for_state(id, "dead");
    assert_eq!(table.column::<i64>(id, "attempts"), 3);
    assert_eq!(table.column::<String>(id, "error"), "it always fails");
    let failures = |column: &str| -> Vec<String> {
        let sql = format!("SELECT {column} || '' FROM failures WHERE task = {id} ORDER BY run");
        let mut rows = table.0.prepare(&sql).unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(failures("run || cause || error"), ["1", "2", "3"].map(|run| format!("{run}failedit always fails")));
    let begun = place.journal().begun(id);
    assert_eq!(begun.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    let delays: Vec<u64> = begun.windows(2).map(|pair| (pair[1].at_us - pair[0].at_us) / 1_000).collect();
    // With jitter a delay is at least half of its nominal 100 and 200 ms.
    assert!(delays[0] >= 50 && delays[1] >= 100, "{delays:?}");
    assert_eq!(broker.client().stats().unwrap().failed, 3);

    let once = table.insert("fail_once", "1");
    table.wait_for_state(once, "done");
    assert_eq!(table.column::<i64>(once, "attempts"), 2);
    assert_eq!(table.one::<i64>("SELECT count(*) FROM failures WHERE task = ?1", [once]), 1);
    table.execute("INSERT INTO tasks(kind, max_attempts) VALUES ('panic', 1)", []);
    let panics = table.0.last_insert_rowid();
    table.wait_for_state(panics, "dead");
    assert!(table.column::<String>(panics, "error").contains("it always panics"));
}

/// Lines of a log and pieces of data come to a waiter in the order in which the handler said them, and the result after them.
#[test]
fn lines_of_a_log_and_data_come_in_order() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let client = broker.client();
    let task = client.submit(Task::new("log").payload(&json!({"lines": 20}))).unwrap().task;
    let mut heard = Vec::new();
    let ended = client
        .wait_with(task, |news| {
            let Some(event) = news.progress() else { return };
            heard.extend(event.log.clone());
            heard.extend(event.data.as_ref().map(|data| String::from_utf8_lossy(&data.bytes).into_owned()));
        })
        .unwrap();
    assert_eq!(ended.state, TaskState::Done);
    let said: Vec<String> = (1..=20).flat_map(|n| [format!("line {n}"), n.to_string()]).collect();
    assert_eq!(heard, said);
}

/// A dead task is queued again with its counters at zero; not when its key is live again, which is told with its twin.
#[test]
fn a_dead_task_is_requeued_unless_its_key_lives_again() {
    let place = Place::new();
    let broker = Broker::start_with(&place, &["defaults.backoff_base_ms=1", "defaults.backoff_max_ms=1"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=fail");
    let client = broker.client();
    let plain = table.insert("fail", "1");
    table.execute("INSERT INTO tasks(kind, unique_key) VALUES ('fail', 'key')", []);
    let keyed = table.0.last_insert_rowid();
    table.wait_for_count("state = 'dead' AND attempts = 3", 2);
    assert_eq!(client.requeue(&[task_id(plain)]).unwrap(), [Verdict::Requeued]);
    wait_until("three more runs", || place.journal().begun(plain).len() == 6);
    table.wait_for_state(plain, "dead");
    assert_eq!((table.column::<i64>(plain, "attempts"), table.column::<i64>(plain, "runs")), (3, 6));

    let later = now_ms() + 3_600_000;
    table.execute("INSERT INTO tasks(kind, unique_key, run_at) VALUES ('fail', 'key', ?1)", [later]);
    let twin = task_id(table.0.last_insert_rowid());
    let verdicts = client.requeue(&[task_id(keyed), twin, task_id(999)]).unwrap();
    assert_eq!(verdicts, [Verdict::Twin(twin), Verdict::Unchanged, Verdict::NotFound]);
    assert_eq!(table.state(keyed), "dead");
}

/// A task that was cancelled after the broker had read it ahead, and queued again, runs like any other.
#[test]
fn a_task_cancelled_while_it_waits_can_be_requeued() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=1");
    let busy = table.insert("sleep", "{\"ms\":1000}");
    table.wait_for_state(busy, "running");
    let waiting = table.insert("sleep", "{\"ms\":1}");
    let client = broker.client();
    // Its turn is committed, so what it read ahead is with the router.
    assert_eq!(client.cancel(&[task_id(table.insert("sleep", "{\"ms\":1}"))]).unwrap(), [Verdict::Cancelled]);
    assert_eq!(client.cancel(&[task_id(waiting)]).unwrap(), [Verdict::Cancelled]);
    assert_eq!(client.requeue(&[task_id(waiting)]).unwrap(), [Verdict::Requeued]);
    table.wait_for_state(waiting, "done");
}

/// A row that an app moves to another lane while it runs comes back there when its run fails.
#[test]
fn a_task_moved_while_it_runs_is_retried_in_its_new_lane() {
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["defaults.backoff_base_ms=1", "defaults.backoff_max_ms=1"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=1");
    let sql = "INSERT INTO tasks(kind, payload, timeout_ms, max_attempts, lane) VALUES ('sleep', '{\"ms\":20000}', 300, 2, 'normal')";
    table.execute(sql, []);
    let id = table.0.last_insert_rowid();
    table.wait_for_state(id, "running");
    table.execute("UPDATE tasks SET lane = 'low' WHERE id = ?1", [id]);
    table.wait_for_state(id, "dead");
    assert_eq!(table.column::<i64>(id, "runs"), 2);
}

/// A handler that runs over its `timeout_ms` is told to stop; one that does not listen loses its lease, as a failed attempt.
#[test]
fn a_task_over_its_time_is_stopped_and_counts_as_an_attempt() {
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["cancel_grace_ms=300", "beat_ms=200"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let insert = |kind: &str| {
        let sql = "INSERT INTO tasks(kind, payload, timeout_ms, max_attempts) VALUES (?1, '{\"ms\":20000}', 300, 1)";
        table.execute(sql, [kind]);
        table.0.last_insert_rowid()
    };
    let (listens, stuck) = (insert("sleep"), insert("stuck"));
    for id in [listens, stuck] {
        table.wait_for_state(id, "dead");
        assert_eq!((table.column::<i64>(id, "attempts"), table.column::<i64>(id, "losses")), (1, 0));
        let cause: String = table.one("SELECT cause FROM failures WHERE task = ?1", [id]);
        assert_eq!(cause, "timeout");
    }
    wait_until("the handler that listens to end early", || place.journal().ended(listens).len() == 1);
    assert!(place.journal().ended(stuck).is_empty(), "it was not to be ended that soon");
    // The slot whose handler hangs is not used; the other one is.
    for _ in 0..5 {
        let id = table.insert("echo", "1");
        table.wait_for_state(id, "done");
    }
}

/// `expires_at` bounds the first start only.
#[test]
fn a_task_that_expired_is_not_started() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let insert = |expires_at: i64| {
        table.execute("INSERT INTO tasks(kind, expires_at) VALUES ('echo', ?1)", [expires_at]);
        table.0.last_insert_rowid()
    };
    let (soon, late) = (insert(now_ms() + 200), insert(now_ms() + 3_600_000));
    table.wait_for_state(soon, "cancelled");
    assert_eq!(table.column::<String>(soon, "error"), "expired");
    let _worker = WorkerProcess::start(&place, "");
    table.wait_for_state(late, "done");
    assert!(place.journal().begun(soon).is_empty());
}

/// One live task for a key and kind: `ON CONFLICT DO NOTHING` and a SUBMIT both find it, and the key is free when it ends.
#[test]
fn a_unique_key_is_held_while_its_task_lives() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let sql = "INSERT INTO tasks(kind, unique_key, payload) VALUES ('echo', 'k', '1') ON CONFLICT DO NOTHING";
    assert_eq!(table.execute(sql, []), 1);
    let first = table.0.last_insert_rowid();
    assert_eq!(table.execute(sql, []), 0, "a second live task has the key");
    let client = broker.client();
    let stored = client.submit(Task::new("echo").unique_key("k")).unwrap();
    assert_eq!((stored.task, stored.new), (task_id(first), false));
    assert!(client.submit(Task::new("other").unique_key("k")).unwrap().new, "keys of other kinds are other keys");
    let _worker = WorkerProcess::start(&place, "");
    table.wait_for_state(first, "done");
    assert_eq!(table.execute(sql, []), 1, "the key is free again");
}

/// `run_at` in the future is kept, to the millisecond, and NULL is at once.
#[test]
fn a_delayed_task_starts_at_its_time() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let run_at = now_ms() + 400;
    table.execute("INSERT INTO tasks(kind, run_at) VALUES ('echo', ?1)", [run_at]);
    let delayed = table.0.last_insert_rowid();
    let now = table.insert("echo", "1");
    table.wait_for_state(now, "done");
    let begun_ms = i64::try_from(place.journal().wait_for_begin(delayed, 1).at_us / 1_000).unwrap();
    assert!(begun_ms >= run_at, "started {} ms early", run_at - begun_ms);
    assert!(begun_ms < run_at + 5_000, "started {} ms late", begun_ms - run_at);
}

/// A cancel ends a queued task at once and asks a running one to stop, by the wire and by SQL alike; done wins.
#[test]
fn tasks_are_cancelled_by_wire_and_by_sql() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=3");
    let client = broker.client();
    let cancel_by_sql = |id: i64| table.execute("UPDATE tasks SET cancel_requested = 1 WHERE id = ?1", [id]);
    let queued = [table.insert("nobody", "1"), table.insert("nobody", "2")];
    cancel_by_sql(queued[0]);
    assert_eq!(client.cancel(&[task_id(queued[1])]).unwrap(), [Verdict::Cancelled]);
    for id in queued {
        table.wait_for_state(id, "cancelled");
        assert_eq!(table.column::<i64>(id, "runs"), 0);
    }
    let long = r#"{"ms":60000}"#;
    let running = [table.insert("sleep", long), table.insert("sleep", long)];
    for id in running {
        place.journal().wait_for_begin(id, 1);
        table.wait_for_state(id, "running");
    }
    cancel_by_sql(running[0]);
    assert_eq!(client.cancel(&[task_id(running[1])]).unwrap(), [Verdict::Requested]);
    for id in running {
        table.wait_for_state(id, "cancelled");
        assert_eq!(table.column::<i64>(id, "attempts"), 0, "a cancelled run is no attempt");
    }
    // A handler that does not listen: its result counts.
    let done = table.insert("stuck", r#"{"ms":300}"#);
    place.journal().wait_for_begin(done, 1);
    table.wait_for_state(done, "running");
    cancel_by_sql(done);
    table.wait_for_state(done, "done");
}

/// Whoever waits for a task hears its progress and pieces of its result while it runs, then the result; whoever comes
/// later, by id or by key, gets the result too; and a restart of the broker in between is not noticed.
#[test]
fn any_task_can_be_waited_for_with_its_progress() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let client = broker.client();
    let task = Task::new("progress").payload(&json!({"steps": 5, "ms": 60})).unique_key("film");
    let id = client.submit(task).unwrap().task;
    let mut events: Vec<ProgressEvent> = Vec::new();
    let ended = client.wait_with(id, |news| events.extend(news.progress().cloned())).unwrap();
    assert_eq!(ended.result::<serde_json::Value>().unwrap(), json!({"steps": 5}));
    let data: Vec<u64> =
        events.iter().filter_map(|event| serde_json::from_slice(&event.data.as_ref()?.bytes).ok()).collect();
    assert_eq!(data, [1, 2, 3, 4, 5], "each piece once, in order");
    let done: Vec<u64> = events.iter().filter_map(|event| event.done).collect();
    assert!(done.is_sorted() && done.last() == Some(&5), "{done:?}");
    assert!(events.iter().any(|event| event.note.as_deref() == Some("step 5")));
    assert_eq!(table.column::<i64>(i64::try_from(id.value()).unwrap(), "progress_done"), 5);

    assert_eq!(broker.client().find("progress", "film").unwrap(), Some(id));
    assert_eq!(broker.client().wait(id).unwrap(), ended, "a late caller gets the same");

    // Waited for across a restart, by somebody who did not submit it.
    let path = place.path("gate");
    let gated = broker.client().submit(Task::new("gate").payload(&json!({"path": path}))).unwrap().task;
    place.journal().wait_for_begin(i64::try_from(gated.value()).unwrap(), 1);
    let waiter = broker.client();
    let waiting = std::thread::spawn(move || waiter.wait(gated));
    assert_eq!(broker.stop(), 0);
    let broker = Broker::start(&place);
    std::fs::write(&path, "").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().state, TaskState::Done);
    assert_eq!(place.journal().begun(i64::try_from(gated.value()).unwrap()).len(), 1, "it went on in its worker");

    // Submit and wait in one, and a task that fails for good.
    let ended = broker.client().submit_and_wait(Task::new("echo").payload("quick")).unwrap();
    assert_eq!(ended.result::<String>().unwrap(), "quick");
    let dead = broker.client().submit_and_wait(Task::new("fail").max_attempts(1)).unwrap();
    assert_eq!((dead.state, dead.error.as_deref()), (TaskState::Dead, Some("it always fails")));
    let limit = Some(Duration::from_millis(50));
    let late = broker.client().submit(Task::new("nobody")).unwrap().task;
    assert!(matches!(broker.client().wait_all(&[late], limit, |_| {}), Err(laneway::Error::StillRunning { .. })));
}

/// Ended rows are pruned by age, dead ones stay.
#[test]
fn old_rows_are_pruned_and_dead_ones_stay() {
    let place = Place::new();
    let settings = ["retention.done_age_ms=300", "retention.interval_ms=100"];
    let _broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let done = table.insert("echo", "1");
    table.execute("INSERT INTO tasks(kind, max_attempts) VALUES ('fail', 1)", []);
    let dead = table.0.last_insert_rowid();
    table.wait_for_state(dead, "dead");
    let is_there = |id: i64| {
        table.0.query_row("SELECT 1 FROM tasks WHERE id = ?1", [id], |_| Ok(())).optional().unwrap().is_some()
    };
    wait_until("the done row to be pruned", || !is_there(done));
    assert!(is_there(dead));
}

fn task_id(id: i64) -> TaskId {
    TaskId::new(u64::try_from(id).unwrap()).unwrap()
}

fn now_ms() -> i64 {
    i64::try_from(harness::now_us() / 1_000).unwrap()
}

#[test]
fn new_rows_and_cancelled_tasks_are_counted_whoever_made_them_so() {
    // Proves that the numbers are those of the table: rows by SQL and by the socket are submitted, and a cancel by SQL, one by
    // the socket and an expiry are each a cancelled task.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let client = broker.client();
    let first = table.insert("nobody", "1");
    let second = client.submit(Task::new("nobody")).unwrap().task;
    table.execute("INSERT INTO tasks(kind, expires_at) VALUES ('nobody', 1500000000000)", []);
    table.wait_for_count("state = 'cancelled' AND error = 'expired'", 1);
    table.execute("UPDATE tasks SET cancel_requested = 1 WHERE id = ?1", [first]);
    client.cancel(&[second]).unwrap();
    table.wait_for_count("state = 'cancelled'", 3);
    wait_until("the numbers to follow", || {
        let stats = client.stats().unwrap();
        (stats.submitted, stats.cancelled) == (3, 3)
    });
}
