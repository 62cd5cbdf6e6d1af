//! What people do to tasks: move, run now, purge, by id and by filter, on the command line of the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, Said, Table, WorkerProcess};
use laneway_protocol::TaskId;
use laneway_protocol::message::Verdict;
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
