//! `laneway task explain`: why a task is where it is, for every reason, from the running broker and from the file alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, Said, Table, WorkerProcess, wait_until};
use laneway_protocol::limits::AHEAD_MAX;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn laneway(place: &Place, words: &[&str]) -> Said {
    Said::by(place, &[], &[&["--endpoint", &place.endpoint()], words].concat())
}

fn explain(place: &Place, task: i64) -> String {
    let said = laneway(place, &["task", "explain", &task.to_string()]);
    assert_eq!(said.code, 0, "{}", said.err);
    said.out.trim().to_owned()
}

#[test]
fn every_reason_is_told() {
    // Proves each sentence against a real broker with real workers: not due, no worker for the kind, another lane, its place behind
    // others, paused, who runs it since when and for how long, and how it ended.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let says = |task, says: &str| {
        let why = explain(&place, task);
        assert!(why.contains(says), "{why}");
    };
    let lonely = table.insert("nobody", "{}");
    says(lonely, &format!("task {lonely} is queued: no connected worker can run kind 'nobody'; none is connected"));
    let _worker = WorkerProcess::start(&place, "kinds=sleep,echo lanes=normal,low");
    wait_until("the worker to be there", || broker.client().stats().unwrap().ready == 1);
    says(lonely, "those that are offer echo, sleep");
    let high = table.insert_in("high", "echo", "{}");
    says(high, "workers for kind 'echo' are connected, but none serves lane 'high'");
    table.execute("INSERT INTO tasks(kind, run_at) VALUES ('echo', 4102444800000)", []);
    says(table.0.last_insert_rowid(), "it is due in");

    let running = table.insert("sleep", r#"{"ms": 60000}"#);
    table.wait_for_state(running, "running");
    says(running, "test (host ");
    says(running, " runs it since ");
    says(running, ", and may for 5");
    says(running, " min more");
    let first = table.insert("echo", "{}");
    let second = table.insert("sleep", "{}");
    // `lonely` waits in the same lane, and before them.
    wait_until("the queue to be read", || explain(&place, second).contains("among the next"));
    says(first, "it is among the next, behind one of lane 'normal'; every worker that can run it is busy");
    says(second, "behind 2 of lane 'normal'");
    let low = table.insert_in("low", "echo", "{}");
    wait_until("the queue to be read", || explain(&place, low).contains("the first of lane 'low'"));

    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                INSERT INTO tasks(kind) SELECT 'echo' FROM n";
    table.execute(many, [AHEAD_MAX + 100]);
    let last = table.insert("echo", "{}");
    wait_until("the last one to be counted", || {
        explain(&place, last).contains(&format!("behind more than {AHEAD_MAX} of lane 'normal'"))
    });
    let json =
        Said::by(&place, &[], &["task", "explain", &second.to_string(), "-o", "json", "--db", "tasks.db"]).json();
    assert_eq!((&json[0]["ahead"], &json[0]["state"]), (&2.into(), &"queued".into()));

    laneway(&place, &["kind", "set", "sleep", "cap=1"]).is(0, "");
    says(second, "kind 'sleep' runs 1 of at most 1");
    laneway(&place, &["kind", "reset", "sleep"]).is(0, "");
    laneway(&place, &["lane", "set", "normal", "cap=1"]).is(0, "");
    says(first, "lane 'normal' runs 1 of at most 1");
    laneway(&place, &["lane", "reset", "normal"]).is(0, "");
    laneway(&place, &["kind", "pause", "echo"]).is(0, "");
    says(first, "its kind 'echo' is paused; `laneway kind resume echo` resumes it");
    laneway(&place, &["kind", "resume", "echo"]).is(0, "");
    laneway(&place, &["lane", "pause", "low"]).is(0, "");
    says(low, "lane 'low' is paused; `laneway lane resume low` resumes it");
    laneway(&place, &["task", "cancel", &running.to_string()]).is(0, "");
    table.wait_for_state(running, "cancelled");
    says(running, "it was cancelled");
    laneway(&place, &["task", "explain", "999999"]).is(4, "no task 999999");
}

#[test]
fn a_paused_kind_is_told_without_a_broker() {
    // Proves that the file alone says what a broker would.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    laneway(&place, &["kind", "pause", "echo"]).is(0, "");
    let task = table.insert("echo", "{}");
    assert_eq!(broker.stop(), 0);
    let said = Said::by(&place, &[], &["task", "explain", &task.to_string(), "--db", "tasks.db"]);
    assert!(said.out.contains("its kind echo is paused"), "{}{}", said.out, said.err);
}

#[test]
fn a_key_that_another_task_has_is_told_with_and_without_a_broker() {
    // Proves that a dead task whose key lives again names the live one, which keeps it from being requeued.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let insert = || {
        table.execute("INSERT INTO tasks(kind, unique_key) VALUES ('nobody', 'daily')", []);
        table.0.last_insert_rowid()
    };
    let old = insert();
    table.execute("UPDATE tasks SET cancel_requested = 1 WHERE id = ?1", [old]);
    table.wait_for_state(old, "cancelled");
    let twin = format!("its key is live again in task {}", insert());
    let why = explain(&place, old);
    assert!(why.contains(&twin), "{why}");
    assert_eq!(broker.stop(), 0);
    let said = Said::by(&place, &[], &["task", "explain", &old.to_string(), "--db", "tasks.db"]);
    assert!(said.out.contains(&twin), "{}{}", said.out, said.err);
}

#[test]
fn times_and_causes_are_told_where_the_row_has_them() {
    // Proves that a second suspect is not said to wait for a busy worker; that a run whose worker was told to stop, has not come back
    // after a restart, or is seen in the file alone is told with its times; and that a dead task tells its error, and what a
    // retry needs.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let says = |task, all: &[&str]| {
        let why = explain(&place, task);
        assert!(all.iter().all(|says| why.contains(says)), "{why}");
    };
    let payload = format!(r#"{{"path": "{}"}}"#, place.path("never").display());
    let suspect = || {
        let insert = "INSERT INTO tasks(kind, losses, timeout_ms, payload) VALUES ('gate', 1, 900000, ?1)";
        table.execute(insert, [&payload]);
        table.0.last_insert_rowid()
    };
    let (first, second) = (suspect(), suspect());
    let worker = WorkerProcess::start(&place, "slots=2 kinds=gate");
    table.wait_for_state(first, "running");
    wait_until("the queue to be read", || explain(&place, second).contains("first of lane"));
    says(second, &["it goes to one that runs no other such task, and each that can run it has one"]);

    let reject = |columns: &str, values: &str| {
        table.execute(&format!("INSERT INTO tasks({columns}) VALUES ({values})"), []);
        let id = table.0.last_insert_rowid();
        table.wait_for_state(id, "dead");
        id
    };
    says(reject("kind, lane", "'echo', 'nolane'"), &["failed for good: ", "nolane", "its lane is not in the settings"]);
    says(reject("kind, run_at", "'echo', 1767225600"), &["failed for good: ", "it never ran", "mended by SQL"]);
    table.execute(
        "INSERT INTO tasks(kind, state, runs, finished_at, error) VALUES ('echo', 'dead', 3, 1, 'no disk')",
        [],
    );
    says(table.0.last_insert_rowid(), &["it failed for good: no disk; `laneway task retry` queues it again"]);

    // Its worker does not listen, and so is not told of the end of the broker.
    worker.signal("STOP");
    says(first, &[" runs it since ", ", and may for 14 min more"]);
    broker.kill();
    let broker = Broker::start(&place);
    says(
        first,
        &["has not come back since the broker was started; it runs since ", "its lease ends in 14 min, and unless it"],
    );
    worker.signal("CONT");
    wait_until("the worker to be back", || explain(&place, first).contains(" runs it since "));
    worker.signal("STOP");
    laneway(&place, &["task", "cancel", &first.to_string()]).is(0, "");
    wait_until("the cancel", || explain(&place, first).contains(", was told to stop, and may for "));
    broker.kill();
    let said = Said::by(&place, &[], &["task", "explain", &first.to_string(), "--db", "tasks.db"]).out;
    assert!(said.contains(", which was asked to stop; its timeout of 15 min ends in 14 min"), "{said}");
}

#[test]
fn a_retry_and_a_time_to_start_are_told_with_and_without_a_broker() {
    // Proves that a task that waits for its next attempt says so, with the failed one, its error and the time; and when one that has not
    // started expires.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let insert = |columns: &str, values: &str| {
        table.execute(&format!("INSERT INTO tasks(kind, {columns}) VALUES ('mail', {values})"), []);
        table.0.last_insert_rowid()
    };
    let again = insert("runs, attempts, max_attempts, run_at, error", "2, 2, 9, 4102444800000, 'no route'");
    for (run, error) in [(1, "no name"), (2, "no route to mail.example\nat line 7")] {
        let sql = "INSERT INTO failures(task, run, cause, failed_at, error) VALUES (?1, ?2, 'failed', 1, ?3)";
        table.0.execute(sql, (again, run, error)).unwrap();
    }
    let expires = insert("expires_at", "4102444800000");
    let says = |why: &str, all: &[&str]| assert!(all.iter().all(|says| why.contains(says)), "{why}");
    let retry = ["it is a retry: attempt 2 of 9 failed ", " ago (no route to mail.example), and the next is due in "];
    let expiry = ["; it expires in ", " h unless it has started by then"];
    says(&explain(&place, again), &retry);
    says(&explain(&place, expires), &expiry);
    assert_eq!(broker.stop(), 0);
    let offline = |words: &[&str]| Said::by(&place, &[], &[words, &["--db", "tasks.db"]].concat());
    says(&offline(&["task", "explain", &again.to_string()]).out, &retry);
    says(&offline(&["task", "explain", &expires.to_string()]).out, &expiry);
    let json = &offline(&["task", "explain", &again.to_string(), "-o", "json"]).json()[0];
    assert_eq!((&json["attempts"], &json["run_at"]), (&2.into(), &4_102_444_800_000_i64.into()));
    assert_eq!((&json["error"], &json["expires_at"]), (&"no route".into(), &serde_json::Value::Null));
}
