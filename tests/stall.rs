//! Promise 6, its other half: a broker that stood still, or whose database did, blames no worker and no task for it.
//!
//! The first test stops the broker for half a minute at its default settings, twice the heartbeat timeout. In the others the
//! times are scaled down together: the stall is several times the heartbeat timeout, the beats, the grace for closed
//! connections and the broker's own `stall_ms`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Broker, Place, RawPeer, Table, WorkerProcess, wait_until};
use laneway_protocol::message::{Answer, NewTask, Payload, Request, Submit};
use laneway_protocol::{Code, Kind, RequestId};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

const SCALED: [&str; 6] = [
    "heartbeat_interval_ms=300",
    "heartbeat_timeout_ms=1500",
    "beat_ms=300",
    "disconnect_grace_ms=200",
    "stall_ms=500",
    "resume_grace_ms=5000",
];
const STALL: Duration = Duration::from_secs(30);

/// Stops the broker's process where it does not hold the database's lock, so that an app can go on writing.
fn stop_outside_a_transaction(broker: &Broker, place: &Place) {
    let table = Table::open(place);
    table.0.busy_timeout(Duration::ZERO).unwrap();
    wait_until("the broker to stand still without a lock", || {
        broker.signal("STOP");
        let free = table.0.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        if !free {
            broker.signal("CONT");
        }
        free
    });
}

#[test]
fn nobody_is_declared_dead_because_the_broker_stood_still() {
    // Proves that a broker stopped for two heartbeat timeouts finds its workers alive and their tasks running, takes the
    // results of those that ended meanwhile, and runs nothing twice.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _workers = [WorkerProcess::start(&place, "slots=4"), WorkerProcess::start(&place, "slots=2")];
    let gates = [place.path("during"), place.path("after")];
    let insert = |gate| table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    let running: Vec<i64> = gates.iter().flat_map(|gate| [insert(gate), insert(gate)]).collect();
    for &task in &running {
        place.journal().wait_for_begin(task, 1);
    }
    stop_outside_a_transaction(&broker, &place);
    let stopped_at = Instant::now();
    std::fs::write(&gates[0], "").unwrap();
    for &task in &running[..2] {
        wait_until("a handler to end under a stopped broker", || place.journal().ended(task).len() == 1);
    }
    // Work that comes in while nobody looks at it.
    table.insert_many(200, "normal", "echo", "1");
    // The length of the stall is what is tested: no condition can tell its end.
    std::thread::sleep(STALL.saturating_sub(stopped_at.elapsed()));
    broker.signal("CONT");

    table.wait_for_count("kind = 'echo' AND state = 'done'", 200);
    for &task in &running[2..] {
        assert_eq!(table.column::<String>(task, "state || ' ' || runs"), "running 1");
    }
    std::fs::write(&gates[1], "").unwrap();
    table.wait_for_count("state = 'done'", 204);
    assert_eq!(table.count("attempts <> 1 OR losses <> 0 OR releases <> 0"), 0);
    // A hand-out to a connection that its worker had given up meanwhile never arrives: handed out again, nothing counted.
    assert_eq!(table.count("kind = 'gate' AND runs <> 1"), 0);
    assert_eq!(place.journal().lines().iter().filter(|line| line.what == "begin").count(), 204);
    let stats = broker.client().stats().unwrap();
    assert_eq!((stats.lost, stats.stale, stats.workers), (0, 0, 2));
    let stood_still = |line: &serde_json::Value| line["gap_ms"].as_u64().is_some_and(|ms| ms >= 29_000);
    assert!(broker.log().iter().any(stood_still), "the log does not say that the broker stood still");
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_worker_that_died_during_the_stall_is_found_out_after_the_grace() {
    // Proves that the grace ends: what a worker ran that died while the broker stood still runs elsewhere, and what the
    // living one runs is left alone.
    let place = Place::new();
    let settings = [&SCALED[..5], &["resume_grace_ms=1000"]].concat();
    let broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    let doomed = WorkerProcess::start(&place, "name=doomed");
    let gate = place.path("open");
    let payload = serde_json::json!({ "path": gate }).to_string();
    let of_doomed = table.insert("gate", &payload);
    place.journal().wait_for_begin(of_doomed, 1);
    let _living = WorkerProcess::start(&place, "name=living slots=2");
    let of_living = table.insert("gate", &payload);
    place.journal().wait_for_begin(of_living, 1);

    broker.signal("STOP");
    doomed.kill();
    // The length of the stall is what is tested: no condition can tell its end.
    std::thread::sleep(Duration::from_secs(2));
    broker.signal("CONT");
    place.journal().wait_for_begin(of_doomed, 2);
    std::fs::write(&gate, "").unwrap();
    for task in [of_doomed, of_living] {
        table.wait_for_state(task, "done");
        assert_eq!(table.column::<i64>(task, "attempts"), 1);
    }
    assert_eq!(place.journal().begun(of_living).len(), 1);
    assert_eq!(table.column::<i64>(of_living, "losses"), 0);
}

#[test]
fn a_locked_database_refuses_new_work_and_keeps_what_runs() {
    // Proves that while an app holds the database locked, running tasks live and their outcomes are kept, a submit is
    // refused with `storage` and stored once when it is said again, and everything goes on when the lock is gone.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SCALED);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    let gates = [place.path("during"), place.path("after")];
    let insert = |gate| table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    let tasks: Vec<i64> = gates.iter().map(insert).collect();
    for &task in &tasks {
        place.journal().wait_for_begin(task, 1);
        table.wait_for_state(task, "running");
    }

    let locker = Table::open(&place);
    locker.execute("BEGIN IMMEDIATE", []);
    let locked_at = Instant::now();
    std::fs::write(&gates[0], "").unwrap();
    wait_until("a handler to end under the lock", || place.journal().ended(tasks[0]).len() == 1);
    let submit = Submit {
        request: RequestId([7; 16]),
        tasks: vec![NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json("3")))],
        wait_ms: 0,
        abandon: false,
        group: None,
    };
    let client = RawPeer::req(broker.endpoint());
    let Answer::Error(error) = client.ask(Request::Submit(submit.clone())) else { panic!("nothing can be stored") };
    assert_eq!((error.code, error.retry), (Code::Storage, true), "{error}");
    assert!(locked_at.elapsed() < Duration::from_secs(20), "answered after {:?}", locked_at.elapsed());
    // Longer than every timeout that could blame the worker, which is what is tested.
    std::thread::sleep(Duration::from_secs(3).saturating_sub(locked_at.elapsed()));
    wait_until("the broker to tell", || {
        let Answer::Error(error) = client.ask(Request::Submit(submit.clone())) else { panic!("nothing can be stored") };
        error.code == Code::Storage
    });
    assert_eq!(locker.state(tasks[0]), "running");
    locker.execute("ROLLBACK", []);

    table.wait_for_state(tasks[0], "done");
    let Answer::Submit(stored) = ask_until_stored(&client, &submit) else { unreachable!() };
    let id = i64::try_from(stored.tasks[0].task.value()).unwrap();
    table.wait_for_state(id, "done");
    assert_eq!(table.count("kind = 'echo'"), 1, "a refused submit was stored beside the one that was taken");
    let row = table.insert("echo", "4");
    table.wait_for_state(row, "done");
    std::fs::write(&gates[1], "").unwrap();
    for &task in &tasks {
        table.wait_for_state(task, "done");
        assert_eq!(table.column::<String>(task, "runs || ' ' || attempts || ' ' || losses"), "1 1 0");
    }
    assert_eq!(broker.client().stats().unwrap().lost, 0);
    assert_eq!(broker.stop(), 0);
}

/// Says the same submit until the broker takes it.
fn ask_until_stored(client: &RawPeer, submit: &Submit) -> Answer {
    harness::wait_for("the submit to be stored", || match client.ask(Request::Submit(submit.clone())) {
        stored @ Answer::Submit(_) => Some(stored),
        Answer::Error(error) if error.retry => None,
        other => panic!("{other:?}"),
    })
}
