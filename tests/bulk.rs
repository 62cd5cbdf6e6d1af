//! What people do to tasks: move, run now, purge, by id and by filter, on the command line of the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, Said, Table, WorkerProcess, wait_for};
use laneway_protocol::TaskId;
use laneway_protocol::message::{BulkFilter, Change, Verdict};
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn laneway(place: &Place, words: &[&str]) -> Said {
    let endpoint = place.endpoint();
    Said::by(place, &[], &[&["--endpoint", &endpoint], words].concat())
}

fn task_id(id: i64) -> TaskId {
    TaskId::new(id.unsigned_abs()).unwrap()
}

/// A task that waits behind a busy worker, read ahead already, is served in the lane that it is moved to; the worker that
/// takes only that lane gets it at once.
#[test]
fn a_moved_task_is_served_in_its_new_lane() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _busy = WorkerProcess::start(&place, "slots=1 lanes=normal");
    let first = table.insert("sleep", "{\"ms\":60000}");
    table.wait_for_state(first, "running");
    let second = table.insert("sleep", "{\"ms\":1}");
    let third = table.insert("sleep", "{\"ms\":1}");
    let _low = WorkerProcess::start(&place, "slots=1 lanes=low");
    let words = ["task", "move", &first.to_string(), &second.to_string(), "999", "--to", "low", "-o", "json"];
    let said = laneway(&place, &words);
    said.is(4, "no task 999");
    let verdict = |task: i64, verdict: &str| json!({"task": task, "verdict": verdict});
    assert_eq!(said.json(), [verdict(first, "unchanged"), verdict(second, "moved"), verdict(999, "not_found")]);
    table.wait_for_state(second, "done");
    assert_eq!((table.state(third), table.column::<String>(second, "lane")), ("queued".into(), "low".into()));
    laneway(&place, &["task", "move", &third.to_string(), "--to", "medium"]).is(5, "high, normal, low");
}

/// A task that is due in an hour runs at once when a person says so; ended ones are deleted with their failures.
#[test]
fn a_delayed_task_runs_now_and_an_ended_one_is_purged() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=1");
    let at = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 3600000";
    let sql = format!("INSERT INTO tasks(kind, max_attempts, run_at) VALUES ('fail', 1, {at})");
    table.execute(&sql, []);
    let id = table.0.last_insert_rowid();
    laneway(&place, &["task", "run-now", &id.to_string()]).is(0, "");
    table.wait_for_state(id, "dead");
    let client = broker.client();
    assert_eq!(client.run_now(&[task_id(id)]).unwrap(), [Verdict::Unchanged]);
    let live = table.insert("nobody", "1");
    assert_eq!(table.one::<i64>("SELECT count(*) FROM failures", []), 1);
    let said = laneway(&place, &["task", "purge", &id.to_string(), &live.to_string()]);
    said.is(0, "");
    assert_eq!(said.out, format!("task {id}: deleted\ntask {live}: left alone: it is not in a state for this\n"));
    assert_eq!((table.count("1"), table.one::<i64>("SELECT count(*) FROM failures", [])), (1, 0));
    assert_eq!(client.stats().unwrap().dead, 0);
}

/// Ended rows by the thousand, as if they had been there for a day.
fn fill(table: &Table, n: u32, state: &str, kind: &str, error: &str) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
               INSERT INTO tasks(kind, state, error, attempts, created_at, finished_at) \
               SELECT ?3, ?2, ?4, 3, 1700000000000, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 86400000 FROM n";
    table.execute(sql, rusqlite::params![n, state, kind, error]);
}

/// A batch says what it would do, does that to all that meet the filter and to nothing else, and says what it did; tasks that
/// it has queued again run.
#[test]
fn tasks_are_changed_by_filter() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    fill(&table, 1_000, "dead", "echo", "no route to host");
    fill(&table, 500, "dead", "echo", "no such file");
    fill(&table, 100, "dead", "other", "no route to host");
    fill(&table, 50, "done", "echo", "");
    let ask = |words: &[&str]| laneway(&place, &[&["task"], words].concat());
    let retry = ["retry", "--kind", "echo", "--error", "no route", "--older-than", "23h", "-o", "json"];
    let said = ask(&[&retry[..], &["--dry-run"]].concat());
    let tried = said.json().remove(0);
    // Told before anything is done, so that whoever is ended meanwhile can look or stop it, and with no terminal about.
    assert_eq!(said.err, format!("{{\"batch\":{}}}\n", tried["number"]));
    assert_eq!((&tried["seen"], &tried["changed"], &tried["over"]), (&json!(1_000), &json!(1_000), &json!(true)));
    assert_eq!(table.count("state = 'dead'"), 1_600);
    let none = ask(&["retry", "--kind", "echo", "--older-than", "25h", "--dry-run"]);
    assert_eq!(none.out, "0 tasks would be queued again\n");
    assert!(none.err.starts_with("batch ") && none.err.contains("--stop` stops it\n"), "{}", none.err);

    let _worker = WorkerProcess::start(&place, "slots=4 batch=16");
    let said = ask(&retry).json().remove(0);
    assert_eq!((&said["changed"], &said["unchanged"], &said["dry_run"]), (&json!(1_000), &json!(0), &json!(false)));
    table.wait_for_count("state = 'done' AND runs = 1 AND attempts = 1", 1_000);

    let moved = ask(&["move", "--kind", "echo", "--state", "dead", "--to", "low"]);
    assert_eq!(moved.out, "0 tasks moved, 500 left alone in no state for it\n");
    let purged = ask(&["purge", "--error", "no such file"]);
    assert_eq!(purged.out, "500 tasks deleted\n");
    let purged = ask(&["purge", "--state", "done"]);
    assert_eq!(purged.out, "1050 tasks deleted\n");
    assert_eq!((table.count("1"), table.count("kind = 'other'")), (100, 100));
    ask(&["purge"]).is(2, "--all means every task");
    assert_eq!(ask(&["purge", "--all"]).out, "100 tasks deleted\n");
}

/// A batch goes on in the background beside whatever else there is to do; it is looked at and stopped by its number. What was
/// done stays done, the same again does the rest, and a restart forgets the number only.
#[test]
fn a_batch_is_watched_stopped_and_said_again() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    fill(&table, 60_000, "done", "echo", "");
    let client = broker.client();
    let filter = || BulkFilter { kind: Some("echo".into()), ..BulkFilter::default() };
    let purge = || client.change_all(Change::Purge, None, filter(), false).unwrap();
    let begun = purge();
    assert_eq!(purge().number, begun.number);
    let number = begun.number.to_string();
    wait_for("something to be done", || (client.batch(begun.number, false).unwrap().changed > 0).then_some(()));
    let _worker = WorkerProcess::start(&place, "slots=1");
    table.wait_for_state(table.insert("echo", "1"), "done");
    let said = laneway(&place, &["task", "batch", &number, "--stop", "-o", "json"]).json().remove(0);
    assert_eq!(said["over"], true);
    let left = table.count("created_at = 1700000000000");
    if said["stopped"] == true {
        assert!(left > 0 && left == 60_000 - said["changed"].as_i64().unwrap(), "{left} left: {said}");
    }
    laneway(&place, &["task", "batch", &number]).is(0, "");
    broker.stop();
    let broker = Broker::start(&place);
    let said = laneway(&place, &["task", "batch", &number]);
    said.is(4, "the same again");
    let said = laneway(&place, &["task", "purge", "--kind", "echo", "--older-than", "1h"]);
    assert_eq!(said.out, format!("{} deleted\n", if left == 1 { "1 task".into() } else { format!("{left} tasks") }));
    assert_eq!(table.count("1"), 1);
    drop(broker);
}

/// One of two workers is sent away by its name: what it runs it finishes, and it ends by itself; the other one gets what comes.
#[test]
fn one_worker_is_drained_and_the_other_goes_on() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let mut one = WorkerProcess::start(&place, "name=one slots=2 kinds=sleep");
    let busy = table.insert("sleep", "{\"ms\":700}");
    table.wait_for_state(busy, "running");
    let mut two = WorkerProcess::start(&place, "name=two slots=1 kinds=echo,sleep");
    wait_for("both", || (broker.client().workers().unwrap().len() == 2).then_some(()));
    laneway(&place, &["worker", "drain", "three"]).is(4, "no worker 'three'");
    let said = laneway(&place, &["worker", "drain", "one", "-o", "json"]).json().remove(0);
    assert_eq!(said, json!({"draining": true, "workers": 1, "running": 1}));
    assert!(laneway(&place, &["worker", "list"]).out.contains("draining"));
    for _ in 0..5 {
        let id = table.insert("sleep", "{\"ms\":1}");
        table.wait_for_state(id, "done");
        assert_eq!(place.journal().begun(id)[0].pid, two.pid());
    }
    laneway(&place, &["worker", "drain", "one", "--wait", "60"]).is(0, "");
    assert_eq!(one.wait(), 0);
    assert_eq!((table.state(busy), table.column::<i64>(busy, "releases")), ("done".into(), 0));
    assert!(two.is_running());
}
