//! Promise 9 for many tasks at once: those who wait hear of each as it ends, and lose nothing by giving up for a while.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Broker, Place, Program, RawPeer, Said, Table, WorkerProcess, wait_until};
use laneway::protocol::RequestId;
use laneway::{Client, Error, Kind, News, Payload, Task, TaskId, TaskState};
use laneway_protocol::message::{Answer, NewTask, Request, Submit};
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A task that ends when `open` is said of its number.
fn gated(place: &Place, client: &Client, n: usize) -> TaskId {
    client.submit(Task::new("gate").payload(&json!({ "path": place.path(&format!("gate-{n}")) }))).unwrap().task
}

fn open(place: &Place, n: usize) {
    fs::write(place.path(&format!("gate-{n}")), "").unwrap();
}

#[test]
fn results_come_as_their_tasks_end() {
    // Proves that the task that takes longest holds up the result of no other, in whichever question it stands; that a limit
    // loses nothing; and that the rest comes later.
    let place = Place::new();
    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    let client = broker.client();
    let slow = gated(&place, &client, 0);
    let quick = client.submit_many((1..600).map(|n| Task::new("echo").payload(&n))).unwrap();
    let mut tasks = vec![slow];
    tasks.extend(quick.iter().map(|stored| stored.task));
    tasks.push(slow);
    let mut watch = client.watch(&tasks);
    let mut ended = Vec::new();
    while ended.len() < 599 {
        match watch.next(Some(harness::DEADLINE)).unwrap().unwrap() {
            News::Ended(end) => ended.push(end.task),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..2 {
        let error = watch.next(Some(Duration::from_millis(30))).unwrap_err();
        assert!(matches!(&error, Error::StillRunning { tasks, .. } if tasks[..] == [slow]), "{error}");
    }
    assert_eq!(watch.pending().collect::<Vec<_>>(), [slow]);
    open(&place, 0);
    let Some(News::Ended(end)) = watch.next(Some(harness::DEADLINE)).unwrap() else { panic!("no end") };
    assert_eq!((end.task, end.state), (slow, TaskState::Done));
    assert_eq!(watch.next(None).unwrap(), None, "all is told");
    ended.sort_unstable();
    assert_eq!(ended, tasks[1..600], "each once");

    // A wait for all of them tells each before it fails for the limit, and one that is not there at its turn.
    let late = gated(&place, &client, 1);
    let mut heard = Vec::new();
    let error = client.wait_all(&[late, slow], Some(Duration::from_millis(30)), |news| heard.push(news.clone()));
    assert!(matches!(error, Err(Error::StillRunning { tasks, .. }) if tasks == [late]));
    assert_eq!(heard, [News::Ended(end)]);
    let nobody = TaskId::new(9_999).unwrap();
    let mut watch = client.watch(&[nobody]);
    assert_eq!(watch.next(None).unwrap(), Some(News::NotFound(nobody)));
    assert_eq!(watch.next(None).unwrap(), None);
}

/// Submits a task that nobody waits for, and waits until the pruner has deleted it: every older row was looked at before.
fn outlive(broker: &Broker, table: &Table) {
    let id = i64::try_from(broker.client().submit(Task::new("echo").payload(&0)).unwrap().task.value()).unwrap();
    wait_until("the row to be deleted", || table.count(&format!("id = {id}")) == 0);
}

#[test]
fn a_row_outlives_the_time_between_two_questions() {
    // Proves that the pruner, which here takes every row at its end, leaves those alone whose waiters are about to ask again, and
    // what a parked submit has heard and not told.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["retention.done_age_ms=0", "retention.interval_ms=100"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=3");
    let client = broker.client();
    let waited = gated(&place, &client, 0);
    let mut watch = client.watch(&[waited]);
    assert!(matches!(watch.next(Some(Duration::ZERO)), Err(Error::StillRunning { .. })));
    open(&place, 0);
    outlive(&broker, &table);
    outlive(&broker, &table);
    let Some(News::Ended(end)) = watch.next(Some(harness::DEADLINE)).unwrap() else { panic!("its row is gone") };
    assert_eq!(end.state, TaskState::Done);
    // Whoever asks again because that answer was lost gets it too.
    outlive(&broker, &table);
    assert_eq!(client.wait(waited).unwrap(), end);

    let peer = RawPeer::req(broker.endpoint());
    let payload = |value: serde_json::Value| Some(Payload::json(value.to_string()));
    let tasks = vec![
        NewTask::new(Kind::new("echo").unwrap(), payload(json!(1))),
        NewTask::new(Kind::new("gate").unwrap(), payload(json!({ "path": place.path("gate-1") }))),
    ];
    let submit = Submit { request: RequestId([7; 16]), tasks, wait_ms: 60_000, abandon: false, group: None };
    peer.send(Request::Submit(submit));
    wait_until("the first to have ended", || table.count("kind = 'echo' AND state = 'done'") == 1);
    outlive(&broker, &table);
    outlive(&broker, &table);
    assert_eq!(table.count("kind = 'echo' AND state = 'done'"), 1, "its end was not told yet");
    open(&place, 1);
    let Answer::Submit(submitted) = peer.receive() else { panic!("no answer to the submit") };
    assert_eq!(submitted.finals.len(), 2);
}

#[test]
fn a_limit_holds_while_the_broker_is_away() {
    // Proves that whoever waits for a second is not kept for the minute in which their client would wait for a broker.
    let place = Place::new();
    let broker = Broker::start(&place);
    let client = Client::connect_with(place.endpoint(), Duration::from_mins(1)).unwrap();
    let task = client.submit(Task::new("nobody")).unwrap().task;
    drop(broker);
    let started = Instant::now();
    let error = client.watch(&[task]).next(Some(Duration::from_secs(1))).unwrap_err();
    assert!(error.retry() && started.elapsed() < Duration::from_secs(50), "{error} after {:?}", started.elapsed());
}

#[test]
fn a_submit_that_waits_hears_progress() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let task = Task::new("progress").payload(&json!({ "steps": 3, "ms": 1 }));
    let (mut data, mut ends) = (Vec::new(), 0);
    let ended = broker.client().submit_and_wait_with(task, |news| {
        let said = news.progress().and_then(|event| event.data.as_ref());
        data.extend(said.map(|data| String::from_utf8_lossy(&data.bytes).into_owned()));
        ends += usize::from(matches!(news, News::Ended(_)));
    });
    assert_eq!(ended.unwrap().state, TaskState::Done);
    assert_eq!((data.join(" "), ends), ("1 2 3".to_owned(), 1));
}

#[test]
fn the_command_line_waits_for_many_and_prints_each_end() {
    // Proves that a line comes with each end, that failures and the limit are told by the exit code with every result printed, and
    // that a task can be named by its key.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=3");
    let client = broker.client();
    let tasks = [0, 1].map(|n| gated(&place, &client, n));
    let dead = client.submit(Task::new("fail").max_attempts(1).unique_key("bad")).unwrap().task;
    let words = ["task", "wait", "1", "2", "3", "--endpoint", broker.endpoint()];
    assert_eq!(tasks.map(TaskId::value), [1, 2]);

    let out = place.path("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    let mut waits = Program::start_printing(command.args(words), &out);
    let lines = || fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    wait_until("the line of the dead one", || lines() == ["task 3: dead: it always fails"]);
    open(&place, 1);
    let second = format!("task 2: \"{}\"", place.path("gate-1").display());
    wait_until("the line of the second", || lines().last() == Some(&second));

    let limited = [&words[..], &["--limit", "300ms", "-o", "json"]].concat();
    let said = Said::by(&place, &[], &limited);
    said.is(6, "task 1");
    let states: Vec<_> = said.json().iter().map(|end| (end["task"].clone(), end["state"].clone())).collect();
    let [done, dead_too, live] = &states[..] else { panic!("{states:?}") };
    assert_eq!([done, dead_too], [&(json!(2), json!("done")), &(json!(3), json!("dead"))]);
    assert_eq!(live, &(json!(1), json!("running")));

    open(&place, 0);
    assert_eq!(waits.wait(), 1, "one of them is dead");
    assert_eq!(lines().len(), 3);
    table.wait_for_state(1, "done");
    Said::by(&place, &[], &words).is(1, "1 of 3 are dead or cancelled: 3");
    Said::by(&place, &[], &["task", "wait", "1", "77", "--endpoint", broker.endpoint()]).is(4, "no task 77");

    for key in ["--unique", "--unique-key"] {
        let by_key = ["task", "wait", "--kind", "fail", key, "bad", "--endpoint", broker.endpoint()];
        Said::by(&place, &[], &by_key).is(1, &format!("task {dead} is dead: it always fails"));
    }
    let other = ["task", "wait", "--kind", "fail", "--unique", "other", "--endpoint", broker.endpoint()];
    Said::by(&place, &[], &other).is(4, "no task of kind 'fail' has the unique key 'other'");
    Said::by(&place, &[], &["task", "wait", "--kind", "fail"]).is(2, "--unique");
}
