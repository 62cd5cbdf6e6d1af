//! Promises 1 and 4: the row is the API, and nothing is acknowledged before its commit.

mod harness;

use harness::{Broker, Place, Table, WorkerProcess};

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
