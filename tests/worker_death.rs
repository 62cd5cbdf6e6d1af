//! Promises 5 and 6: a dead worker is noticed at once and its tasks run elsewhere; a stale worker changes nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Broker, Place, RawPeer, Table, WorkerProcess, now_us, plain_ready, wait_until};
use laneway_protocol::message::{Answer, Beat, Bye, End, Held, Outcome, OutcomeCode, Payload, Progress, Request};
use laneway_protocol::{Code, LaneName, Lease, SessionName, TaskId};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Far beyond what noticing a closed connection takes, so that a test that waits for a timeout instead fails.
const SLOW_HEARTBEAT: [&str; 2] = ["heartbeat_timeout_ms=59000", "heartbeat_interval_ms=20000"];

#[test]
fn the_tasks_of_a_killed_worker_run_elsewhere_at_once() {
    // Proves that kill -9 of a worker with four running tasks costs each one loss and no attempt, and that the broker knows
    // by the closed connections, long before any timeout.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SLOW_HEARTBEAT);
    let table = Table::open(&place);
    let doomed = WorkerProcess::start(&place, "slots=4");
    let gate = place.path("open");
    let tasks: Vec<i64> = (0..4).map(|_| table.insert("gate", &gate_payload(&gate))).collect();
    for &task in &tasks {
        place.journal().wait_for_begin(task, 1);
    }
    let doomed_pid = doomed.pid();
    let _others = [WorkerProcess::start(&place, "slots=2"), WorkerProcess::start(&place, "slots=2")];
    wait_until("the other workers to be connected", || broker.client().workers().unwrap().len() == 3);

    let killed_at = Instant::now();
    let killed_ms = i64::try_from(now_us() / 1_000).unwrap();
    doomed.kill();
    table.wait_for_count("losses = 1", 4);
    assert!(killed_at.elapsed() < Duration::from_secs(10), "noticed after {:?}", killed_at.elapsed());
    std::fs::write(&gate, "").unwrap();
    for &task in &tasks {
        table.wait_for_state(task, "done");
        let columns = "runs || ' ' || attempts || ' ' || losses || ' ' || releases";
        assert_eq!(table.column::<String>(task, columns), "2 1 1 0", "runs, attempts, losses, releases");
        let begun = place.journal().begun(task);
        assert_eq!(begun.iter().map(|run| (run.number, run.attempt)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
        assert_eq!(begun[0].pid, doomed_pid);
        assert_ne!(begun[1].pid, doomed_pid);

        let failures = "SELECT group_concat(run || ' ' || cause) FROM failures WHERE task = ?1";
        assert_eq!(table.one::<String>(failures, [task]), "1 lost");
        let noticed_ms: i64 = table.one("SELECT failed_at FROM failures WHERE task = ?1", [task]);
        // Half a second of grace for the connection to come back, ten times for a busy machine.
        assert!(
            (0..=5_000).contains(&(noticed_ms - killed_ms)),
            "noticed {} ms after the kill",
            noticed_ms - killed_ms
        );
    }
    assert_eq!(broker.client().stats().unwrap().lost, 4);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn the_process_behind_a_loss_is_told() {
    // Proves that host and pid of a worker that died can be found: in the error of the task that it ran, and in the log, whose
    // lines of workers and of tasks name it alike and with the session that the row has; and that leaving is told apart.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "name=thumbs kinds=gate");
    let pid = worker.pid();
    let id = table.insert("gate", &gate_payload(&place.path("never")));
    place.journal().wait_for_begin(id, 1);
    table.wait_for_state(id, "running");
    let session: String = table.column(id, "worker");
    let row = broker.client().workers().unwrap().remove(0);
    assert_eq!(row.session.as_str(), session);
    let label = format!("thumbs@{}/{pid}", row.host);
    worker.kill();
    table.wait_for_count("losses = 1", 1);
    let error: String = table.one("SELECT error FROM failures", []);
    let short = &session[..8];
    let expected = format!("its worker thumbs (host {}, pid {pid}, session {short}…) died", row.host);
    assert!(error.starts_with(&expected), "{error}");
    let polite = WorkerProcess::start(&place, "name=polite");
    wait_until("the next worker to be connected", || broker.client().workers().unwrap().len() == 1);
    assert_eq!(polite.stop(), 0);

    let lines = |target: &str| -> Vec<serde_json::Value> {
        broker.log().into_iter().filter(|line| line["target"] == target).collect()
    };
    wait_until("four lines about workers", || lines("laneway::worker").len() >= 4);
    let workers = lines("laneway::worker");
    let events: Vec<&str> = workers.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["connected", "lost", "connected", "left"]);
    for line in &workers[..2] {
        assert_eq!((line["worker"].as_str(), line["session"].as_str()), (Some(&*label), Some(&*session)), "{line}");
    }
    assert_eq!((workers[0]["kinds"].as_str(), workers[1]["running"].as_u64()), (Some("gate"), Some(1)));
    wait_until("the task's lines", || lines("laneway::task").iter().any(|line| line["event"] == "lost"));
    for line in lines("laneway::task").iter().filter(|line| line["run"] == 1) {
        assert_eq!((line["worker"].as_str(), line["session"].as_str()), (Some(&*label), Some(&*session)), "{line}");
    }
}

#[test]
fn only_the_suspect_is_charged_when_its_process_dies() {
    // Proves that a task which kills its worker is dead after three losses, with the workers it took down, and that those
    // which ran beside it are not charged for what it does.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let client = broker.client();
    let low = LaneName::new("low").unwrap();
    let first = WorkerProcess::start(&place, "slots=4");
    let killer = table.insert_in("low", "die", "{}");
    wait_for_end(first);
    table.wait_for_count(&format!("id = {killer} AND losses = 1 AND state = 'queued'"), 1);

    let gate = place.path("open");
    let neighbours: Vec<i64> = (0..3).map(|_| table.insert("gate", &gate_payload(&gate))).collect();
    for losses in 2..=3 {
        // The neighbours begin first; then the killer joins them.
        client.set_lanes(vec![low.clone()], vec![]).unwrap();
        let worker = WorkerProcess::start(&place, "slots=4");
        for &task in &neighbours {
            place.journal().wait_for_begin(task, losses - 1);
        }
        client.set_lanes(vec![], vec![low.clone()]).unwrap();
        wait_for_end(worker);
        table.wait_for_count(&format!("id = {killer} AND losses = {losses}"), 1);
    }
    table.wait_for_state(killer, "dead");
    // The failure rows are the list of the workers that it took down.
    let workers = "SELECT count(DISTINCT worker) FROM failures WHERE task = ?1 AND cause = 'lost'";
    assert_eq!(table.one::<i64>(workers, [killer]), 3);
    assert!(table.column::<String>(killer, "error").contains("loss 3 of 3"));

    let _last = WorkerProcess::start(&place, "slots=4");
    std::fs::write(&gate, "").unwrap();
    for &task in &neighbours {
        table.wait_for_state(task, "done");
        let columns = "runs || ' ' || attempts || ' ' || losses";
        assert_eq!(table.column::<String>(task, columns), "3 1 0", "runs, attempts, losses of a neighbour");
        assert_eq!(table.one::<i64>("SELECT count(*) FROM failures WHERE task = ?1", [task]), 0);
    }
    assert_eq!(table.column::<String>(killer, "runs || ' ' || attempts || ' ' || losses"), "3 0 3");
}

#[test]
fn a_process_runs_one_suspect_at_a_time() {
    // Proves that tasks which saw their worker die are handed out alone and one to a process, beside other work.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let gate = place.path("open");
    let doomed = WorkerProcess::start(&place, "slots=4");
    let suspects: Vec<i64> = (0..4).map(|_| table.insert("gate", &gate_payload(&gate))).collect();
    for &task in &suspects {
        place.journal().wait_for_begin(task, 1);
    }
    doomed.kill();
    table.wait_for_count("losses = 1 AND state = 'queued'", 4);

    let _one = WorkerProcess::start(&place, "slots=4 batch=8");
    table.wait_for_count("state = 'running'", 1);
    // Its other slots are free for whatever is no suspect.
    let plain = table.insert("echo", "1");
    table.wait_for_state(plain, "done");
    assert_eq!(table.count("state = 'running'"), 1);
    let _other = WorkerProcess::start(&place, "slots=4 batch=8");
    table.wait_for_count("state = 'running'", 2);
    let plain = table.insert("echo", "1");
    table.wait_for_state(plain, "done");
    assert_eq!(table.count("state = 'running'"), 2);

    std::fs::write(&gate, "").unwrap();
    for &task in &suspects {
        table.wait_for_state(task, "done");
        assert_eq!(table.column::<String>(task, "runs || ' ' || attempts || ' ' || losses"), "2 1 1");
    }
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_task_is_dead_after_its_losses_are_used_up() {
    // Proves that losses have a limit of their own, which the settings name, and that attempts play no part in it.
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["defaults.losses_max=2", "defaults.max_attempts=1"]);
    let table = Table::open(&place);
    let task = table.insert("die", "{}");
    for _ in 0..2 {
        wait_for_end(WorkerProcess::start(&place, ""));
    }
    table.wait_for_state(task, "dead");
    assert_eq!(table.column::<String>(task, "runs || ' ' || attempts || ' ' || losses"), "2 0 2");
    let error = table.column::<String>(task, "error");
    assert!(error.contains("loss 2 of 2"), "{error}");
    let workers: String = table.one("SELECT group_concat(worker, ', ') FROM failures WHERE task = ?1", [task]);
    assert_eq!(workers.split(", ").count(), 2);
    assert!(error.ends_with(&workers), "{error} names {workers}");
}

#[test]
fn a_worker_that_was_silent_too_long_changes_nothing_when_it_wakes() {
    // Proves that a worker stopped past the heartbeat timeout loses its task to another, and that what it says when it goes
    // on does not touch the other's run or result.
    let place = Place::new();
    let settings = ["heartbeat_interval_ms=200", "heartbeat_timeout_ms=1000", "resume_grace_ms=1000"];
    let broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    let sleeper = WorkerProcess::start(&place, "name=sleeper");
    let gate = place.path("open");
    let task = table.insert("who", &gate_payload(&gate));
    place.journal().wait_for_begin(task, 1);
    sleeper.signal("STOP");
    let other = WorkerProcess::start(&place, "name=other");
    let second = place.journal().wait_for_begin(task, 2);
    assert_eq!(second.pid, other.pid());
    table.wait_for_count("runs = 2", 1);
    let lease: i64 = table.column(task, "lease");

    // The first run ends as soon as its process goes on, and its outcome is refused while the second still runs.
    std::fs::write(gate.with_extension("1"), "").unwrap();
    sleeper.signal("CONT");
    wait_until("the first run to end", || place.journal().ended(task).len() == 1);
    wait_until("the sleeper to be back", || broker.client().workers().unwrap().len() == 2);
    let echo = table.insert("echo", "1");
    table.wait_for_state(echo, "done");
    assert_eq!(table.state(task), "running");
    assert_eq!(table.column::<i64>(task, "lease"), lease);
    std::fs::write(gate.with_extension("2"), "").unwrap();
    table.wait_for_state(task, "done");
    assert_eq!(table.column::<String>(task, "result"), other.pid().to_string());
    assert_eq!(table.column::<String>(task, "runs || ' ' || attempts || ' ' || losses"), "2 1 1");
    assert_eq!(sleeper.stop(), 0);
    assert_eq!(table.column::<String>(task, "result"), other.pid().to_string());
}

#[test]
fn every_word_under_an_old_lease_is_refused() {
    // Proves that done, failed, release, progress, extend and checkpoint are refused as stale from a worker whose task went
    // to another, on the wire and by SQL, and that the row keeps what the other says.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["resume_grace_ms=1000", "disconnect_grace_ms=100"]);
    let table = Table::open(&place);
    let id = table.insert("echo", "1");
    let task = TaskId::new(u64::try_from(id).unwrap()).unwrap();
    let first = RawPeer::req(broker.endpoint());
    let old = take(&first, "first");
    // Its last connection closes: it is lost, and the task goes to the second.
    drop(first);
    table.wait_for_count("losses = 1 AND state = 'queued'", 1);
    let second = RawPeer::req(broker.endpoint());
    let current = take(&second, "second");
    assert_ne!(old, current);
    let row = "SELECT state || ' ' || lease || ' ' || runs || ' ' || coalesce(progress_done, '-') || coalesce(checkpoint, '-') \
               FROM tasks";
    wait_until("the hand-out to be recorded", || table.column::<i64>(id, "runs") == 2);
    let before: String = table.one(row, []);

    let back = RawPeer::req(broker.endpoint());
    for end in [End::Done, End::Fail, End::Snooze, End::Release, End::Cancelled, End::Already] {
        let mut ready = plain_ready("first", "echo", 0, 0);
        ready.ack = None;
        ready.outcomes = vec![outcome(task, old, end)];
        let Answer::Wait(wait) = back.ask(Request::Ready(ready)) else { panic!("no task is left") };
        assert_eq!(wait.outcomes, [OutcomeCode::Stale], "{end:?}");
    }
    for (extend_ms, checkpoint) in [(None, None), (Some(60_000), None), (None, Some(Payload::json("7")))] {
        let word = Progress {
            session: SessionName::new("first").unwrap(),
            task,
            lease: old,
            done: Some(1),
            total: Some(2),
            note: None,
            extend_ms,
            data: None,
            log: None,
            checkpoint,
            parents: None,
        };
        let Answer::Error(error) = back.ask(Request::Progress(word)) else { panic!("a stale progress is refused") };
        assert_eq!(error.code, Code::Stale);
    }
    let beat =
        Beat { session: SessionName::new("first").unwrap(), epoch: None, running: vec![Held(task, old)], wait_ms: 0 };
    let Answer::Beat(noted) = back.ask(Request::Beat(beat)) else { panic!("a beat is answered") };
    assert_eq!(noted.stale, [Held(task, old)]);
    let bye = Bye {
        session: SessionName::new("first").unwrap(),
        release: vec![Held(task, old)],
        outcomes: vec![outcome(task, old, End::Done)],
        more: false,
    };
    let Answer::Bye(noted) = back.ask(Request::Bye(bye)) else { panic!("a good-bye is answered") };
    assert_eq!(noted.outcomes, [OutcomeCode::Stale]);
    let fence = "UPDATE tasks SET state = 'done', result = 'stale' WHERE id = ?1 AND lease = ?2 AND state = 'running'";
    assert_eq!(table.execute(fence, [id, old.value()]), 0);
    assert_eq!(table.one::<String>(row, []), before, "a stale word changed the row");

    let mut ready = plain_ready("second", "echo", 1, 0);
    ready.outcomes = vec![outcome(task, current, End::Done)];
    let Answer::Wait(wait) = second.ask(Request::Ready(ready)) else { panic!("no task is left") };
    assert_eq!(wait.outcomes, [OutcomeCode::Ok]);
    assert_eq!(table.column::<String>(id, "state || ' ' || result || ' ' || attempts"), r#"done "Done" 1"#);
    // And a word about a task that has ended is still told apart: its own is known, the old one is stale.
    for (lease, code) in [(current, OutcomeCode::Recorded), (old, OutcomeCode::Stale)] {
        let mut ready = plain_ready("second", "echo", 1, 0);
        ready.outcomes = vec![outcome(task, lease, End::Fail)];
        let Answer::Wait(wait) = second.ask(Request::Ready(ready)) else { panic!("no task is left") };
        assert_eq!(wait.outcomes, [code]);
    }
    assert_eq!(table.state(id), "done");
}

/// Asks for a task as a plain worker; gives its lease.
fn take(peer: &RawPeer, session: &str) -> Lease {
    let Answer::Tasks(tasks) = peer.ask(Request::Ready(plain_ready(session, "echo", 0, 20_000))) else {
        panic!("a task was due")
    };
    tasks.tasks[0].lease
}

fn outcome(task: TaskId, lease: Lease, end: End) -> Outcome {
    let result = (end == End::Done).then(|| Payload::json(r#""Done""#));
    Outcome { result, ..Outcome::new(task, lease, end) }
}

fn gate_payload(path: &std::path::Path) -> String {
    serde_json::json!({ "path": path }).to_string()
}

fn wait_for_end(mut worker: WorkerProcess) {
    wait_until("the worker to die", || !worker.is_running());
}
