//! Promise 9 across a restart: whoever waits for a task, and whoever runs one, goes on with the next broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::mpsc;

use harness::{Broker, Place, Program, RawPeer, Table, WorkerProcess, plain_ready, wait_until};
use laneway::{Client, News};
use laneway_protocol::message::{Answer, End, HandedTask, Outcome, OutcomeCode, Payload, Progress, Ready, Request};
use laneway_protocol::{Code, Lease, SessionName, TaskId, TaskState};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

#[test]
fn a_client_that_waits_through_a_restart_gets_progress_and_the_result() {
    // Proves that a wait, with its progress and partial data, goes on across a kill of the broker, that no event comes
    // twice, and that a late caller with the id alone gets the same end.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let sql = "INSERT INTO tasks(kind, payload, unique_key) VALUES ('progress', '{\"steps\":800,\"ms\":5}', 'watched')";
    table.execute(sql, []);
    let id = table.0.last_insert_rowid();
    let task = TaskId::new(u64::try_from(id).unwrap()).unwrap();
    let (heard, steps) = mpsc::channel();
    let endpoint = place.endpoint();
    let waiting = std::thread::spawn(move || {
        let client = Client::connect(endpoint).unwrap();
        let on_news = |news: &News| {
            if let Some(done) = news.progress().and_then(|event| event.done) {
                heard.send(done).unwrap();
            }
        };
        client.wait_all(&[task], Some(harness::DEADLINE), on_news).unwrap().remove(0)
    });
    let mut before = vec![steps.recv_timeout(harness::DEADLINE).unwrap()];
    broker.kill();
    let broker = Broker::start(&place);
    let after = wait_for_progress(&steps, &mut before);
    wait_until("progress to be in the row", || table.column::<Option<i64>>(id, "progress_done").is_some());
    let ended = waiting.join().unwrap();
    assert_eq!(
        (ended.state, ended.result::<serde_json::Value>().unwrap()),
        (TaskState::Done, serde_json::json!({ "steps": 800 }))
    );
    before.extend(steps.try_iter());
    // Progress is said now and then, and not while the broker is away: some steps may be missing. The row tells one again.
    assert!(before.is_sorted(), "progress came not in order: {before:?}");
    let n_again = before.windows(2).filter(|steps| steps[0] == steps[1]).count();
    assert!(n_again <= 1, "progress came twice: {before:?}");
    assert!(after < 800, "no progress was told after the restart");
    assert_eq!(place.journal().begun(id).len(), 1);
    // By its key, which the row keeps, as well.
    assert_eq!(broker.client().find("progress", "watched").unwrap(), Some(task));
    let late = broker.client().wait(task).unwrap();
    assert_eq!(late.payload, ended.payload);
}

/// A task that says 31 words before its broker is killed and 7 to the next one, which is fewer; and then its end. Whoever waits for
/// it is started by `wait` before the first word; `has_heard` waits until that one has heard of `n` done for the last time.
fn speak_across_a_restart<W>(
    place: &Place,
    wait: impl FnOnce(TaskId) -> W,
    has_heard: impl Fn(&W, u64),
) -> (W, Broker) {
    let broker = Broker::start(place);
    let table = Table::open(place);
    let id = table.insert("echo", "1");
    let peer = RawPeer::correlated(broker.endpoint());
    let (task, _) = take(&peer, "plain", 0);
    table.wait_for_state(id, "running");
    let say = |done| {
        let word = Progress { done: Some(done), ..word("plain", task.task, task.lease) };
        assert!(matches!(peer.ask(Request::Progress(word)), Answer::Progress(_)));
    };
    let waits = wait(task.task);
    (1..=31).for_each(say);
    has_heard(&waits, 31);
    wait_until("the last word to be in the row", || table.column::<Option<i64>>(id, "progress_done") == Some(31));
    broker.kill();
    let broker = Broker::start(place);
    // What the row says is told before there is anything else to tell.
    has_heard(&waits, 31);
    (32..=38).for_each(say);
    has_heard(&waits, 38);
    assert_eq!(finish(&peer, "plain", &task), OutcomeCode::Ok);
    (waits, broker)
}

#[test]
fn after_a_restart_a_client_hears_of_the_gap_then_the_row_then_every_fresh_word() {
    // Proves that no word of progress is lost without being told, and none taken for one that was heard, although the numbers of
    // the new broker's events begin anew.
    let place = Place::new();
    let (heard, news) = mpsc::channel();
    let endpoint = place.endpoint();
    let told = std::cell::RefCell::new(Vec::new());
    let wait = |task| {
        std::thread::spawn(move || {
            let client = Client::connect(endpoint).unwrap();
            client.wait_with(task, |news| heard.send(news.clone()).unwrap()).unwrap()
        })
    };
    let has_heard = |_: &std::thread::JoinHandle<_>, n| {
        loop {
            let news = news.recv_timeout(harness::DEADLINE).unwrap();
            let done = news.progress().and_then(|event| event.done);
            told.borrow_mut().push(news);
            if done == Some(n) {
                break;
            }
        }
    };
    let (waiting, _broker) = speak_across_a_restart(&place, wait, has_heard);
    let ended = waiting.join().unwrap();
    let mut told = told.into_inner();
    told.extend(news.iter());
    assert_eq!(told.pop(), Some(News::Ended(ended)));
    let words = |of: &[News]| of.iter().map(|news| news.progress().and_then(|event| event.done)).collect::<Vec<_>>();
    let expected: Vec<Option<u64>> = (1..=31).map(Some).chain([None, Some(31)]).chain((32..=38).map(Some)).collect();
    assert_eq!(words(&told), expected);
    assert_eq!(told[31], News::Missed);
}

#[test]
fn after_a_restart_the_command_line_tells_the_same() {
    // Proves that a person who waits sees that progress is missing, how far the task was, and what it says from then on.
    let place = Place::new();
    let said = place.path("said");
    let wait = |task: TaskId| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.args(["task", "wait", &task.to_string(), "--endpoint", &place.endpoint()]);
        Program::start_saying(&mut command, &said)
    };
    let lines = || std::fs::read_to_string(&said).unwrap();
    let times = std::cell::Cell::new(0);
    let has_heard = |_: &Program, n: u64| {
        // Once by the old broker, and once more out of the row.
        times.set(if n == 31 { times.get() + 1 } else { 1 });
        let line = format!("task 1: {n}");
        wait_until(&format!("'{line}', {} times", times.get()), || {
            lines().lines().filter(|said| *said == line).count() == times.get()
        });
    };
    let (mut waits, _broker) = speak_across_a_restart(&place, wait, has_heard);
    assert_eq!(waits.wait(), 0);
    let missed = "some progress is missing: the broker was restarted, or more was said than it keeps".to_owned();
    let word = |n: u64| format!("task 1: {n}");
    let expected: Vec<String> = (1..=31).map(word).chain([missed, word(31)]).chain((32..=38).map(word)).collect();
    assert_eq!(lines().lines().collect::<Vec<_>>(), expected);
}

/// The first step that is told from now on; those told before are kept.
fn wait_for_progress(steps: &mpsc::Receiver<u64>, told: &mut Vec<u64>) -> u64 {
    told.extend(steps.try_iter());
    let step = steps.recv_timeout(harness::DEADLINE).unwrap();
    told.push(step);
    step
}

#[test]
fn a_client_hears_of_a_task_that_ended_while_no_broker_ran() {
    // Proves that a wait survives a broker that stays away for a while, and that the end is told by the next one.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["stop_timeout_ms=300"]);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "");
    let gate = place.path("open");
    let id = table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    place.journal().wait_for_begin(id, 1);
    let task = TaskId::new(u64::try_from(id).unwrap()).unwrap();
    let client = broker.client();
    let waiting =
        std::thread::spawn(move || client.wait_all(&[task], Some(harness::DEADLINE), |_| {}).unwrap().remove(0));
    assert_eq!(broker.stop(), 0);
    std::fs::write(&gate, "").unwrap();
    wait_until("the handler to end without a broker", || place.journal().ended(id).len() == 1);
    let _broker = Broker::start(&place);
    assert_eq!(waiting.join().unwrap().state, TaskState::Done);
    assert_eq!(worker.stop(), 0);
    assert_eq!(place.journal().begun(id).len(), 1);
}

#[test]
fn a_plain_worker_keeps_its_task_over_a_restart() {
    // Proves that a worker without HELLO, which says nothing until it has finished, has its outcome taken by the next
    // broker, long after the grace in which others come back.
    let place = Place::new();
    let settings = ["resume_grace_ms=1000", "restart_hold_ms=200"];
    let broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    let id = table.insert("echo", "1");
    let peer = RawPeer::correlated(broker.endpoint());
    let (task, _) = take(&peer, "plain", 0);
    table.wait_for_state(id, "running");
    broker.kill();
    let broker = Broker::start_with(&place, &settings);
    // Another task comes and goes, and the grace passes.
    let other = RawPeer::req(broker.endpoint());
    let second = table.insert("echo", "2");
    let (its, _) = take(&other, "other", 0);
    assert_eq!(i64::try_from(its.task.value()).unwrap(), second);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(table.column::<String>(id, "state || ' ' || runs"), "running 1");

    // It may extend its lease and tell how far it is, and then the end.
    let word =
        Progress { done: Some(1), total: Some(2), extend_ms: Some(60_000), ..word("plain", task.task, task.lease) };
    assert!(matches!(peer.ask(Request::Progress(word)), Answer::Progress(_)));
    assert_eq!(finish(&peer, "plain", &task), OutcomeCode::Ok);
    assert_eq!(table.column::<String>(id, "state || ' ' || result || ' ' || runs || attempts || losses"), "done 7 110");
}

#[test]
fn a_hand_out_that_was_not_recorded_is_adopted() {
    // Proves that a task whose worker got it just before the broker died, so that the row knows nothing of it, is that
    // worker's when it says so, and that the lease of an earlier run is told apart.
    let place = Place::new();
    let settings = ["restart_hold_ms=30000", "resume_grace_ms=5000"];
    let mut broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    for round in 0..5 {
        let id = table.insert("echo", "1");
        // An earlier run of the same task, whose lease must not be taken for the new one.
        let (name, peer) = (format!("worker-{round}"), RawPeer::correlated(broker.endpoint()));
        let (first, epoch) = take(&peer, &name, 0);
        let mut ready = plain_ready(&name, "echo", 1, 0);
        ready.epoch = Some(epoch);
        ready.outcomes = vec![Outcome::new(first.task, first.lease, End::Release)];
        ready.max = 0;
        assert!(matches!(peer.ask(Request::Ready(ready)), Answer::Wait(_)));
        wait_until("the task to be read ahead again", || {
            let row = broker.client().status(&[first.task], true).unwrap().rows.remove(0);
            row.explain.is_some_and(|text| text.contains("among the next"))
        });
        // The lock keeps the record of the next hand-out from the disk; the hand-out itself does not wait for it.
        let locker = Table::open(&place);
        locker.execute("BEGIN IMMEDIATE", []);
        let (task, _) = take(&peer, &name, 1);
        broker.kill();
        drop(locker);
        assert_eq!(table.column::<String>(id, "state || ' ' || runs"), "queued 1", "the hand-out is not recorded");

        broker = Broker::start_with(&place, &settings);
        assert_ne!(task.lease, first.lease);
        assert_eq!(say(&peer, &name, &task, first.lease), OutcomeCode::Stale);
        assert_eq!(say(&peer, &name, &task, task.lease), OutcomeCode::Ok);
        assert_eq!(table.column::<String>(id, "state || ' ' || runs || attempts || losses"), "done 210");
    }
    let stale = word("worker-0", TaskId::new(1).unwrap(), Lease::new(1));
    let peer = RawPeer::req(broker.endpoint());
    let Answer::Error(error) = peer.ask(Request::Progress(stale)) else { panic!("task 1 has ended") };
    assert_eq!(error.code, Code::Stale);
}

/// A progress that says nothing.
fn word(session: &str, task: TaskId, lease: Lease) -> Progress {
    Progress {
        session: SessionName::new(session).unwrap(),
        task,
        lease,
        done: None,
        total: None,
        note: None,
        extend_ms: None,
        data: None,
        log: None,
        checkpoint: None,
        parents: None,
    }
}

fn take(peer: &RawPeer, session: &str, ack: u64) -> (HandedTask, laneway_protocol::Epoch) {
    let Answer::Tasks(mut tasks) = peer.ask(Request::Ready(plain_ready(session, "echo", ack, 20_000))) else {
        panic!("a task was due")
    };
    (tasks.tasks.remove(0), tasks.epoch)
}

/// Says `done`, as one says it to a broker that may be another than the one which handed out.
fn finish(peer: &RawPeer, session: &str, task: &HandedTask) -> OutcomeCode {
    say(peer, session, task, task.lease)
}

fn say(peer: &RawPeer, session: &str, task: &HandedTask, lease: Lease) -> OutcomeCode {
    let outcome = Outcome { result: Some(Payload::json("7")), ..Outcome::new(task.task, lease, End::Done) };
    let ready = Ready { ack: None, max: 0, outcomes: vec![outcome], ..plain_ready(session, "echo", 0, 0) };
    match peer.ask(Request::Ready(ready)) {
        Answer::Wait(wait) => wait.outcomes[0],
        other => panic!("{other:?}"),
    }
}
