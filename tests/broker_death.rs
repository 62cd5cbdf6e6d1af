//! Promise 4: nothing is acknowledged before its commit, and a kill -9 of the broker at any instant loses no task and no
//! settled result, and runs nothing twice whose worker lived.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Broker, Place, Random, RawPeer, Table, WorkerProcess, plain_ready, wait_until};
use laneway::{Client, Task};
use laneway_protocol::message::{Answer, End, Hello, NewTask, Outcome, OutcomeCode, Payload, Ready, Request, Submit};
use laneway_protocol::{Kind, RequestId, SessionName};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// The broker waits for the workers of its last life for as long as they may need on a busy machine.
const PATIENT: [&str; 1] = ["restart_hold_ms=30000"];

const KILLS: usize = 20;
const TASKS: usize = 5_000;

#[test]
fn twenty_kills_lose_no_task_and_run_none_twice() {
    // Proves that of 5,000 tasks that flow while the broker is killed 20 times at random moments each is done, and that,
    // as no worker died, each has begun exactly once.
    let place = Place::new();
    let random = Random::new();
    let mut broker = Broker::start_with(&place, &PATIENT);
    let mut workers = [
        WorkerProcess::start(&place, "name=one slots=4"),
        WorkerProcess::start(&place, "name=two slots=2 batch=16"),
        WorkerProcess::start(&place, "name=three slots=8 batch=3"),
    ];
    let stop = AtomicBool::new(false);
    let table = Table::open(&place);
    let broker = std::thread::scope(|scope| {
        let app = scope.spawn(|| feed(&place, &stop));
        for kill in 0..KILLS {
            std::thread::sleep(Duration::from_micros(random.below(500_000)));
            broker.kill();
            // One in five dies again before it could do anything, or in the middle of its start.
            broker = if kill % 5 == 4 { Broker::spawn(&place, &PATIENT) } else { Broker::start_with(&place, &PATIENT) };
        }
        // Whatever the app has not inserted yet comes at once.
        stop.store(true, Ordering::SeqCst);
        app.join().unwrap();
        broker
    });
    table.wait_for_count("state = 'done'", i64::try_from(TASKS).unwrap());
    assert_eq!(table.count("1"), i64::try_from(TASKS).unwrap());
    for worker in &mut workers {
        assert!(worker.is_running(), "a worker left");
    }
    let mut begun: HashMap<i64, usize> = HashMap::new();
    for line in place.journal().lines().iter().filter(|line| line.what == "begin") {
        *begun.entry(line.task).or_default() += 1;
    }
    let twice: Vec<_> = begun.iter().filter(|(_, times)| **times != 1).collect();
    assert_eq!((begun.len(), twice), (TASKS, vec![]), "tasks that began, and those that began more than once");
    assert_eq!(table.count("attempts <> 1 OR losses <> 0"), 0);
    assert_eq!(table.count("kind = 'echo' AND (result IS NULL OR result <> payload)"), 0);
    assert_eq!(table.one::<i64>("SELECT count(*) FROM failures", []), 0);
    assert_eq!(broker.stop(), 0);
}

/// Inserts tasks, a few at a time: most are short, every tenth handful is one that may outlive a broker.
fn feed(place: &Place, stop: &AtomicBool) {
    let (table, random) = (Table::open(place), Random::new());
    let mut left = TASKS;
    while left > 0 {
        if random.below(10) == 0 {
            table.insert_in("high", "sleep", &format!(r#"{{"ms":{}}}"#, 100 + random.below(400)));
            left -= 1;
        } else {
            let n = usize::try_from(1 + random.below(40)).unwrap().min(left);
            table.insert_many(n, "normal", "echo", &random.below(1_000_000).to_string());
            left -= n;
        }
        if !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(random.below(60)));
        }
    }
}

#[test]
fn a_submit_is_stored_once_however_often_the_broker_dies() {
    // Proves that every id which a client was given is a row with that client's payload, and that no submit is stored
    // twice, while the broker is killed under clients that submit without pause.
    let place = Place::new();
    let random = Random::new();
    let mut broker = Broker::start(&place);
    let stop = AtomicBool::new(false);
    let acknowledged: Vec<(u64, String)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                scope.spawn({
                    let (endpoint, stop) = (place.endpoint(), &stop);
                    move || submit_until(&endpoint, client, stop)
                })
            })
            .collect();
        for _ in 0..8 {
            std::thread::sleep(Duration::from_micros(random.below(300_000)));
            broker.kill();
            broker = Broker::start(&place);
        }
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let table = Table::open(&place);
    assert!(acknowledged.len() > 100, "only {} submits were answered", acknowledged.len());
    for (id, payload) in &acknowledged {
        assert_eq!(table.column::<String>(i64::try_from(*id).unwrap(), "payload"), *payload, "task {id}");
    }
    assert_eq!(table.one::<i64>("SELECT count(*) - count(DISTINCT payload) FROM tasks", []), 0, "stored twice");
    // Nothing else came in: each client waits for an answer before it goes on.
    assert_eq!(table.count("1"), i64::try_from(acknowledged.len()).unwrap());
}

/// Submits one or two tasks at a time, each with a payload that is not used twice.
fn submit_until(endpoint: &str, client: usize, stop: &AtomicBool) -> Vec<(u64, String)> {
    let connection = Client::connect_with(endpoint, harness::DEADLINE).unwrap();
    let mut acknowledged = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        let payloads: Vec<String> = (0..=n % 2).map(|i| format!("\"{client}-{n}-{i}\"")).collect();
        let tasks = payloads
            .iter()
            .map(|text| Task::new("later").payload(&serde_json::from_str::<serde_json::Value>(text).unwrap()));
        let stored = connection.submit_many(tasks).unwrap();
        acknowledged.extend(stored.iter().map(|stored| stored.task.value()).zip(payloads));
        n += 1;
    }
    acknowledged
}

#[test]
fn a_long_list_is_stored_once_and_in_order_though_the_broker_dies() {
    // Proves that the messages of a list, of which several are on their way at once, are each stored once, in the order of the list,
    // when the broker dies in their midst, twice.
    const N: usize = 80_000;
    let place = Place::new();
    let mut broker = Broker::start_with(&place, &["restart_hold_ms=0"]);
    let table = Table::open(&place);
    let client = Client::connect_with(broker.endpoint(), harness::DEADLINE).unwrap();
    let submit =
        std::thread::spawn(move || client.submit_many((0..N).map(|n| Task::new("later").payload(&n))).unwrap());
    for after in [2_000, 12_000] {
        wait_until("some of the list is stored", || table.count("1") >= after);
        broker.kill();
        assert!(table.count("1") < i64::try_from(N).unwrap(), "the list was stored before the broker died");
        broker = Broker::start_with(&place, &["restart_hold_ms=0"]);
    }
    let stored = submit.join().unwrap();
    assert_eq!(stored.len(), N);
    assert!(stored.is_sorted_by(|a, b| a.task < b.task), "the ids are not in the order of the list");
    let wrong = "SELECT count(*) FROM (SELECT payload, row_number() OVER (ORDER BY id) - 1 AS place FROM tasks) \
                 WHERE CAST(payload AS INTEGER) <> place";
    assert_eq!((table.count("1"), table.one::<i64>(wrong, [])), (i64::try_from(N).unwrap(), 0));
}

#[test]
fn what_was_acknowledged_is_on_disk_when_the_broker_dies() {
    // Proves, by a kill right after each answer, that an id, an `ok` to an outcome, and `settled` are said after the commit.
    let place = Place::new();
    let mut broker = Broker::start_with(&place, &["restart_hold_ms=0"]);
    let table = Table::open(&place);
    for round in 0..6 {
        let client = RawPeer::req(broker.endpoint());
        let submit = |n: u8| Submit {
            request: RequestId([round * 2 + n; 16]),
            tasks: vec![NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json("1")))],
            wait_ms: 0,
            abandon: false,
            group: None,
        };
        let Answer::Submit(submitted) = client.ask(Request::Submit(submit(0))) else { panic!("a submit is answered") };
        let id = submitted.tasks[0].task;
        if round % 3 == 0 {
            broker.kill();
            assert_eq!(table.count(&format!("id = {id}")), 1, "an acknowledged submit is gone");
            broker = Broker::start_with(&place, &["restart_hold_ms=0"]);
            // Said again to the next broker, it is the same task.
            let client = RawPeer::req(broker.endpoint());
            let Answer::Submit(again) = client.ask(Request::Submit(submit(0))) else { panic!("a submit is answered") };
            assert_eq!((again.tasks[0].task, again.tasks[0].new), (id, true));
        }
        let (worker, session) = (RawPeer::req(broker.endpoint()), format!("worker-{round}"));
        // One round in two, the worker counts its messages with outcomes as the SDK does.
        let batch = (round % 2 == 1).then_some(1);
        let mut ready = plain_ready(&session, "echo", 0, 20_000);
        if batch.is_some() {
            let Answer::Welcome(welcome) = worker.ask(Request::Hello(hello(&session))) else { panic!("welcome") };
            ready.epoch = Some(welcome.epoch);
        }
        let Answer::Tasks(tasks) = worker.ask(Request::Ready(ready.clone())) else { panic!("a task is due") };
        assert_eq!(tasks.tasks[0].task, id);
        let mut outcome = Outcome::new(id, tasks.tasks[0].lease, End::Done);
        outcome.result = Some(Payload::json("2"));
        ready = Ready { ack: Some(1), wait_ms: 0, batch, outcomes: vec![outcome], ..ready };
        wait_until_settled(&worker, ready);
        broker.kill();
        let id = i64::try_from(id.value()).unwrap();
        assert_eq!(table.column::<String>(id, "state || ' ' || result"), "done 2", "a settled outcome is gone");
        broker = Broker::start_with(&place, &["restart_hold_ms=0"]);
    }
    assert_eq!(table.count("1"), 6);
}

/// Says outcomes, and asks until they are settled.
fn wait_until_settled(worker: &RawPeer, mut ready: Ready) {
    let batch = ready.batch;
    loop {
        let Answer::Wait(wait) = worker.ask(Request::Ready(ready.clone())) else { panic!("no task is due") };
        assert!(wait.outcomes.iter().all(|&code| code == OutcomeCode::Ok), "{wait:?}");
        if batch.is_none_or(|batch| wait.settled >= batch) {
            return;
        }
        (ready.outcomes, ready.batch) = (Vec::new(), None);
    }
}

fn hello(session: &str) -> Hello {
    Hello {
        session: SessionName::new(session).unwrap(),
        name: session.into(),
        host: String::new(),
        pid: 0,
        sdk: String::new(),
        kinds: vec![Kind::new("echo").unwrap()],
        lanes: None,
        slots: 1,
        resume: Vec::new(),
        more: false,
    }
}

#[test]
fn a_restart_under_running_handlers_loses_no_result_and_runs_nothing_again() {
    // Proves that handlers which end while there is no broker, and after the next one has started, are settled with it, and
    // that neither counts as more than the one run that it was.
    let place = Place::new();
    let broker = Broker::start_with(&place, &PATIENT);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    let gates = [place.path("during"), place.path("after")];
    let insert = |gate| table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    let tasks: Vec<i64> = gates.iter().flat_map(|gate| [insert(gate), insert(gate)]).collect();
    for &task in &tasks {
        place.journal().wait_for_begin(task, 1);
    }
    broker.kill();
    std::fs::write(&gates[0], "").unwrap();
    for &task in &tasks[..2] {
        wait_until("a handler to end without a broker", || place.journal().ended(task).len() == 1);
    }
    let broker = Broker::start_with(&place, &PATIENT);
    for &task in &tasks[..2] {
        table.wait_for_state(task, "done");
    }
    // Those that still run are the same runs, and new work flows beside them.
    for &task in &tasks[2..] {
        table.wait_for_state(task, "running");
        assert_eq!(table.column::<i64>(task, "runs"), 1);
    }
    let new = table.insert("echo", "1");
    table.wait_for_state(new, "done");
    std::fs::write(&gates[1], "").unwrap();
    for &task in &tasks {
        table.wait_for_state(task, "done");
        let counts = "runs || ' ' || attempts || ' ' || losses || ' ' || releases";
        assert_eq!(table.column::<String>(task, counts), "1 1 0 0", "runs, attempts, losses, releases");
        assert_eq!(place.journal().begun(task).len(), 1);
    }
    assert_eq!(broker.stop(), 0);
}
