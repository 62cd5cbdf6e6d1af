//! A task goes with the last of those who wait for it, when one of them said so: real clients that are killed, that come back,
//! and that outlive the broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::process::Command;
use std::time::Duration;

use harness::{Broker, Place, Program, RawPeer, Said, Table, WorkerProcess, wait_for, wait_until};
use laneway::{Error, Task, TaskId};
use laneway_protocol::message::{Answer, Request, WaitFor};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Short, so that no test waits for long; a client that comes back is faster.
const SETTINGS: [&str; 3] = ["abandon_grace_ms=500", "resume_grace_ms=1000", "cancel_grace_ms=500"];

fn laneway(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(words).args(["--endpoint", &place.endpoint()]).current_dir(place.dir());
    command
}

/// A process that submits a task of this kind and waits for it; and the task.
fn submitter(place: &Place, table: &Table, kind: &str) -> (Program, i64) {
    let newest = || table.one::<i64>("SELECT coalesce(max(id), 0) FROM tasks", []);
    let before = newest();
    let payload = r#"{"ms": 600000}"#;
    let client = Program::start(&mut laneway(place, &["submit", kind, payload, "--wait", "--abandon"]));
    (client, wait_for("the task", || Some(newest()).filter(|id| *id > before)))
}

/// Somebody who waits for a task, and does when this returns.
fn waiter(place: &Place, task: i64, abandon: bool) -> RawPeer {
    let peer = RawPeer::correlated(&place.endpoint());
    let tasks = vec![TaskId::new(u64::try_from(task).unwrap()).unwrap()];
    let wait_ms = 60_000;
    let wait = WaitFor { tasks, kind: None, unique_key: None, cursor: None, wait_ms, abandon, group: None };
    peer.send(Request::WaitFor(wait));
    // Its first question stays parked while the second is answered.
    assert!(matches!(peer.ask(Request::Ping), Answer::Pong(_)));
    peer
}

fn abandoned(broker: &Broker) -> Vec<i64> {
    let lines = broker.log().into_iter().filter(|line| line["event"] == "abandoned");
    lines.map(|line| line["task"].as_i64().unwrap()).collect()
}

/// Whoever was left alone before this was called has been given up when it is over.
fn outlast_the_grace(place: &Place, table: &Table) {
    let (client, task) = submitter(place, table, "nobody");
    client.kill();
    table.wait_for_state(task, "cancelled");
}

#[test]
fn a_task_is_cancelled_when_the_process_that_waits_for_it_is_killed() {
    // Queued it ends at once, running it is asked to stop and does; the log tells which tasks those were.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SETTINGS);
    let table = Table::open(&place);
    let (client, queued) = submitter(&place, &table, "nobody");
    client.kill();
    table.wait_for_state(queued, "cancelled");
    let _worker = WorkerProcess::start(&place, "kinds=sleep");
    let (client, running) = submitter(&place, &table, "sleep");
    table.wait_for_state(running, "running");
    client.kill();
    table.wait_for_state(running, "cancelled");
    wait_until("the log", || abandoned(&broker) == [queued, running]);
    assert_eq!(table.count("runs > 0 AND attempts > 0"), 0, "no attempt is charged");
    for task in [queued, running] {
        let words = ["task", "explain", &task.to_string(), "--endpoint", &place.endpoint()];
        let why = Said::by(&place, &[], &words).out;
        assert_eq!(why, format!("task {task} is cancelled: it was cancelled: its last waiter left\n"));
    }
}

#[test]
fn a_waiter_that_comes_in_time_or_stays_keeps_the_task() {
    // It need not say anything of the kind itself. A task that is waited for by such as do not is nobody's to give up.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SETTINGS);
    let table = Table::open(&place);
    let (client, kept) = submitter(&place, &table, "nobody");
    let (second, third) = (waiter(&place, kept, false), waiter(&place, kept, true));
    let plain = i64::try_from(broker.client().submit(Task::new("nobody")).unwrap().task.value()).unwrap();
    drop(waiter(&place, plain, false));
    client.kill();
    drop(third);
    outlast_the_grace(&place, &table);
    assert_eq!((table.state(kept), table.state(plain)), ("queued".into(), "queued".into()));
    drop(second);
    let fourth = waiter(&place, kept, false);
    outlast_the_grace(&place, &table);
    assert_eq!(table.state(kept), "queued", "it was in time");
    drop(fourth);
    table.wait_for_state(kept, "cancelled");
    assert_eq!(table.state(plain), "queued");
}

#[test]
fn a_client_that_comes_back_from_a_restart_keeps_its_task_and_says_it_again() {
    // The broker is killed while two wait, and one of them with it: that one's task is forgotten, not given up. The other's is
    // waited for again, as the progress that it hears shows, and goes with it in the end.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SETTINGS);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=progress");
    let said = place.path("client.said");
    let words = ["submit", "progress", r#"{"steps": 100000, "ms": 20}"#, "--wait", "--abandon"];
    let client = Program::start_saying(&mut laneway(&place, &words), &said);
    let heard = || std::fs::metadata(&said).map_or(0, |file| file.len());
    table.wait_for_count("state = 'running'", 1);
    let kept = table.one::<i64>("SELECT id FROM tasks", []);
    let (lost, forgotten) = submitter(&place, &table, "nobody");
    broker.kill();
    lost.kill();
    let before = heard();
    let broker = Broker::start_with(&place, &SETTINGS);
    wait_until("progress", || heard() > before);
    outlast_the_grace(&place, &table);
    assert_eq!((table.state(kept), table.state(forgotten)), ("running".into(), "queued".into()));
    client.kill();
    table.wait_for_state(kept, "cancelled");
    assert_eq!(table.state(forgotten), "queued");
    assert!(!abandoned(&broker).contains(&forgotten));
}

#[test]
fn a_wait_that_was_long_enough_leaves_like_any_other() {
    // By the library: the limit is over, and nobody comes back. Without the wish the task stays.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SETTINGS);
    let table = Table::open(&place);
    let client = broker.client().abandon(true);
    let wait = |client: &laneway::Client, task: TaskId| {
        let ended = client.wait_all(&[task], Some(Duration::from_millis(50)), |_| ());
        assert!(matches!(ended, Err(Error::StillRunning { .. })), "{ended:?}");
    };
    let row = |task: TaskId| i64::try_from(task.value()).unwrap();
    let awaited = client.submit_awaited(Task::new("nobody")).unwrap().task;
    let left = client.submit(Task::new("nobody")).unwrap().task;
    wait(&broker.client(), left);
    table.wait_for_state(row(awaited), "cancelled");
    outlast_the_grace(&place, &table);
    assert_eq!(table.state(row(left)), "queued", "a submit alone gives nothing up");
    wait(&client, left);
    table.wait_for_state(row(left), "cancelled");
}

#[test]
fn a_submit_that_meets_a_task_of_others_never_gives_it_up() {
    // Though it waits for it and says that its own tasks may go: by the program, and by the library with its clones. Who names the id
    // of the task means that one.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SETTINGS);
    let table = Table::open(&place);
    let keyed = |key: &str| Task::new("nobody").unique_key(key);
    let row = |task: TaskId| i64::try_from(task.value()).unwrap();
    let (first, second) =
        (broker.client().submit(keyed("a")).unwrap().task, broker.client().submit(keyed("b")).unwrap().task);
    let said = place.path("client.said");
    let words = ["submit", "nobody", "--unique", "a", "--wait", "--abandon"];
    let program = Program::start_saying(&mut laneway(&place, &words), &said);
    let heard = || std::fs::read_to_string(&said).unwrap_or_default();
    wait_until("the program to wait", || heard().contains("waits: "));
    assert!(
        heard().contains(&format!("task {first} existed already, and goes on without this command")),
        "{}",
        heard()
    );
    program.kill();
    let client = broker.client().abandon(true);
    let clone = client.clone();
    let (met, own) = (client.submit_awaited(keyed("b")).unwrap(), client.submit_awaited(keyed("c")).unwrap());
    assert_eq!((met.new, met.task, own.new), (false, second, true));
    let limit = Some(Duration::from_millis(50));
    assert!(matches!(clone.wait_all(&[own.task, second], limit, |_| ()), Err(Error::StillRunning { .. })));
    table.wait_for_state(row(own.task), "cancelled");
    outlast_the_grace(&place, &table);
    assert_eq!((table.state(row(first)), table.state(row(second))), ("queued".into(), "queued".into()));
    let named = broker.client().abandon(true);
    assert!(matches!(named.wait_all(&[second], limit, |_| ()), Err(Error::StillRunning { .. })));
    table.wait_for_state(row(second), "cancelled");
}

#[test]
fn a_wait_on_the_command_line_prints_the_result() {
    // `task wait` beside `submit --wait`; --abandon needs somebody who waits.
    let place = Place::new();
    let broker = Broker::start_with(&place, &SETTINGS);
    let endpoint = place.endpoint();
    let task = broker.client().submit(Task::new("echo").payload(&42)).unwrap().task.to_string();
    let by = |words: &[&str]| Said::by(&place, &[], &[words, &["--endpoint", endpoint.as_str()]].concat());
    let said = by(&["task", "wait", &task, "--limit", "10ms", "-o", "json"]);
    assert_eq!((said.code, &said.json()[0]["state"]), (6, &"queued".into()), "{}", said.err);
    let _worker = WorkerProcess::start(&place, "kinds=echo");
    let said = by(&["task", "wait", &task, "--abandon"]);
    assert_eq!((said.code, said.out.as_str()), (0, "42\n"), "{}", said.err);
    let said = by(&["task", "wait", &task, "-o", "json"]);
    assert_eq!(
        (&said.json()[0]["task"], &said.json()[0]["result"]),
        (&task.parse::<u64>().unwrap().into(), &42.into())
    );
    assert_eq!(by(&["submit", "echo", "1", "--abandon"]).code, 2);
}
