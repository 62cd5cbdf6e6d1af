//! Coalescing: one task for a unique key however many ask for it at once, replaced, refused, or answered with the result of one
//! that is done.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use harness::{Broker, Place, Random, Table, WorkerProcess};
use laneway::protocol::Code;
use laneway::{Client, Error, OnConflict, Stored, Task, TaskId, TaskState};
use rusqlite::Connection;
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Writers of SQL and callers on sockets who all want the same key at once: one row lives, and everybody gets its result.
#[test]
fn everybody_who_wants_a_key_at_once_gets_the_one_result() {
    const KEYS: usize = 10;
    const CALLERS: usize = 6;
    const WRITERS: usize = 4;
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let start = Arc::new(Barrier::new(CALLERS + WRITERS));
    // Nothing may end before everybody has asked: who asks for the key of a task that is done begins another.
    let asked = Arc::new(Barrier::new(CALLERS + 1));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (start, asked, client) = (Arc::clone(&start), Arc::clone(&asked), broker.client());
            thread::spawn(move || {
                let stored = (0..KEYS).map(|key| {
                    if key == 0 {
                        start.wait();
                    }
                    client.submit(Task::new("echo").payload(&json!({"key": key})).unique_key(key.to_string())).unwrap()
                });
                let ids: Vec<_> = stored.map(|stored| stored.task).collect();
                asked.wait();
                let ends = client.wait_all(&ids, Some(Duration::from_secs(100)), |_| ()).unwrap();
                (ids, ends)
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (start, db) = (Arc::clone(&start), place.db());
            thread::spawn(move || {
                let app = Connection::open(db).unwrap();
                app.busy_timeout(Duration::from_secs(100)).unwrap();
                start.wait();
                for key in 0..KEYS {
                    let sql = "INSERT INTO tasks(kind, payload, unique_key) VALUES ('echo', json_object('key', ?1), ?1 || '') \
                               ON CONFLICT DO NOTHING";
                    app.execute(sql, [i64::try_from(key).unwrap()]).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    asked.wait();
    assert_eq!(table.count("unique_key IS NOT NULL"), i64::try_from(KEYS).unwrap());
    let _worker = WorkerProcess::start(&place, "slots=2");
    let mut seen = HashSet::new();
    for caller in callers {
        let (ids, ends) = caller.join().unwrap();
        assert!(ends.iter().all(|end| end.state == TaskState::Done));
        for (key, end) in ends.iter().enumerate() {
            assert_eq!(end.result::<serde_json::Value>().unwrap(), json!({"key": key}));
        }
        seen.insert(ids);
    }
    assert_eq!(seen.len(), 1, "all of them waited for the same tasks: {seen:?}");
    assert_eq!(table.count("state = 'done' AND runs = 1"), i64::try_from(KEYS).unwrap());
}

/// The worker gets the newest payload, once, whatever was read ahead; a running task keeps its own.
#[test]
fn a_queued_task_is_replaced_and_a_running_one_is_not() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let client = broker.client();
    // Its only slot is busy, so what is submitted now is read ahead and waits.
    let _worker = WorkerProcess::start(&place, "slots=1");
    let gate = |name: &str| json!({ "path": place.path(name) });
    let open = |name: &str| std::fs::write(place.path(name), "").unwrap();
    let busy = client.submit(Task::new("gate").payload(&gate("one"))).unwrap();
    wait_for_running(&table, busy.task);
    let replacing = |n: u32| Task::new("echo").payload(&n).unique_key("feed").on_conflict(OnConflict::Replace);
    let first = client.submit(replacing(0)).unwrap();
    assert!(first.new && !first.replaced);
    for n in 1..=20 {
        let stored = client.submit(replacing(n)).unwrap();
        assert_eq!((stored.task, stored.new, stored.replaced), (first.task, false, true), "{n}");
    }
    open("one");
    assert_eq!(client.wait(first.task).unwrap().result::<u32>().unwrap(), 20);

    let runs = client.submit(Task::new("gate").payload(&gate("two")).unique_key("gate")).unwrap();
    wait_for_running(&table, runs.task);
    let late = Task::new("gate").payload(&gate("three")).unique_key("gate").on_conflict(OnConflict::Replace);
    let stored = client.submit(late).unwrap();
    assert_eq!((stored.task, stored.new, stored.replaced), (runs.task, false, false));
    open("two");
    assert_eq!(client.wait(runs.task).unwrap().state, TaskState::Done);
}

fn wait_for_running(table: &Table, task: TaskId) {
    table.wait_for_state(i64::try_from(task.value()).unwrap(), "running");
}

/// While the answers to submits say that it is replaced, the one that starts has the payload of the last such answer.
#[test]
fn no_task_starts_with_a_payload_that_was_replaced() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let callers: Vec<_> = (0..3)
        .map(|caller| {
            let client = broker.client();
            thread::spawn(move || race(&client, caller))
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

/// Submits and replaces one key in haste beside a worker that is idle.
fn race(client: &Client, caller: u32) {
    for round in 0..40 {
        let key = format!("{caller}-{round}");
        let task = |n: u32| Task::new("echo").payload(&n).unique_key(&key).on_conflict(OnConflict::Replace);
        let first = client.submit(task(0)).unwrap();
        let mut last = 0;
        for n in 1..4 {
            let stored = client.submit(task(n)).unwrap();
            if stored.task != first.task {
                break;
            }
            if stored.replaced {
                last = n;
            }
        }
        assert_eq!(client.wait(first.task).unwrap().result::<u32>().unwrap(), last, "{key}");
    }
}

/// The same, and no key is had twice, while the broker is killed again and again and others ask to be refused.
#[test]
fn replaced_and_refused_hold_when_the_broker_is_killed() {
    let place = Place::new();
    let random = Random::new();
    let mut broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let callers: Vec<_> = (0..3)
        .map(|caller| {
            let client = broker.client();
            thread::spawn(move || {
                (0..30).map(|round| race_with_kills(&client, &format!("{caller}-{round}"))).sum::<i64>()
            })
        })
        .collect();
    while callers.iter().any(|caller| !caller.is_finished()) {
        thread::sleep(Duration::from_millis(100 + random.below(400)));
        broker.kill();
        broker = Broker::start(&place);
    }
    let made: i64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    // What was said to be new is a row, and nothing else is; but for a submit that was asked for again, and had been stored.
    let table = Table::open(&place);
    let rows = table.count("1");
    assert!(made <= rows, "{made} were new, and there are {rows} rows");
    table.wait_for_count("state = 'done'", rows);
}

/// Asks again as long as a broker is away. Gives also whether an earlier try may have been stored.
fn insist(client: &Client, task: &Task) -> (Result<Stored, Error>, bool) {
    let mut in_doubt = false;
    loop {
        match client.submit(task.clone()) {
            Err(error) if error.retry() => in_doubt = true,
            answer => return (answer, in_doubt),
        }
    }
}

/// One key: submitted, replaced in haste, and asked for by one who wants it alone. How many tasks were new.
fn race_with_kills(client: &Client, key: &str) -> i64 {
    let task = |n: u32| Task::new("echo").payload(&n).unique_key(key).on_conflict(OnConflict::Replace);
    let first = insist(client, &task(0)).0.unwrap();
    let mut made = 1;
    // More than one only where an answer was lost.
    let mut may_run = vec![0];
    for n in 1..4 {
        let (stored, in_doubt) = insist(client, &task(n));
        let stored = stored.unwrap();
        if stored.replaced {
            may_run = vec![n];
        } else if in_doubt {
            may_run.push(n);
        }
        if stored.task != first.task {
            made += i64::from(stored.new);
            break;
        }
    }
    match insist(client, &task(9).on_conflict(OnConflict::Reject)).0 {
        Ok(stored) => {
            assert!(stored.new, "{key}: {stored:?}");
            made += 1;
        }
        Err(Error::Refused(refused)) => assert_eq!(refused.code, Code::Conflict, "{key}: {refused}"),
        Err(error) => panic!("{key}: {error}"),
    }
    let ran = loop {
        match client.wait(first.task) {
            Err(error) if error.retry() => {}
            ended => break ended.unwrap().result::<u32>().unwrap(),
        }
    };
    assert!(may_run.contains(&ran), "{key}: {ran} ran, and not one of {may_run:?}");
    made
}

/// Refused with the id of the one that has the key, or answered with the result of one that is done.
#[test]
fn a_key_can_refuse_and_can_stay_taken_for_a_while() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let client = broker.client();
    let _worker = WorkerProcess::start(&place, "");
    let task =
        || Task::new("echo").payload(&json!({"q": "cats"})).unique_by_payload().unique_for(Duration::from_mins(1));
    let first = client.submit_and_wait(task()).unwrap();
    let second = client.submit_and_wait(task()).unwrap();
    assert_eq!(second.task, first.task);
    assert_eq!(second.result::<serde_json::Value>().unwrap(), json!({"q": "cats"}));
    let id = i64::try_from(first.task.value()).unwrap();
    let key: String = table.column(id, "unique_key");
    assert!(key.starts_with("json:") && key.len() == 69, "{key}");
    assert_eq!(table.count("runs > 0"), 1);

    let error = client.submit(task().on_conflict(OnConflict::Reject)).unwrap_err();
    let Error::Refused(refused) = &error else { panic!("{error}") };
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.text.contains(&format!("is taken by task {id}")), "{}", refused.text);
    let other = client.submit(Task::new("echo").payload(&json!({"q": "dogs"})).unique_by_payload()).unwrap();
    assert!(other.new);
    let plain = client.submit(Task::new("echo").payload(&json!({"q": "cats"})).unique_by_payload()).unwrap();
    assert!(plain.new, "without a window only live tasks count");
}
