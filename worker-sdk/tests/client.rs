//! A client over real sockets against the fake broker: once-only submits, and waits across a restart.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fake::Broker;
use laneway::protocol::message::{End, Outcome};
use laneway::{Client, Context, Error, Failure, Lease, Task, TaskId, TaskState, Worker};

#[test]
fn a_path_that_no_socket_can_have_is_told_with_its_bound() {
    // Proves it at once, for whoever made the endpoint out of the path of a deep database.
    let endpoint = format!("ipc:///{}", "d".repeat(119));
    let told = Client::connect(&endpoint).unwrap_err().to_string();
    assert!(
        told.starts_with(&format!("endpoint '{endpoint}' cannot be used: its path has 120 bytes, at most 107")),
        "{told}"
    );
}

#[test]
fn a_wait_hears_progress_and_the_result_across_a_restart() {
    // The waiter is parked when the broker dies; it hears the end from the next one.
    let mut broker = Broker::start();
    let release = Arc::new(AtomicBool::new(false));
    let gate = release.clone();
    let worker = Worker::builder(&broker.endpoint)
        .signals(false)
        .handle("k", move |(): (), ctx: &Context| {
            ctx.progress(1, 2, "half");
            while !gate.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            Ok::<_, Failure>("all")
        })
        .build()
        .unwrap();
    let stopper = worker.stopper();
    let run = thread::spawn(move || worker.run());
    let id = TaskId::new(broker.add("k", "normal", None)).unwrap();
    let client = Client::connect(&broker.endpoint).unwrap();
    let waiter = thread::spawn(move || {
        let mut events = Vec::new();
        let ended = client.wait_with(id, |news| {
            events.extend(news.progress().map(|event| (event.done, event.note.clone())));
        });
        (ended, events)
    });
    broker.wait_until("progress", |state| !state.progress.is_empty());
    broker.down();
    broker.up();
    broker.wait_until("the worker's HELLO", |state| state.hellos.last().is_some_and(|hello| hello.resume.len() == 1));
    release.store(true, Ordering::SeqCst);
    let (ended, events) = waiter.join().unwrap();
    let ended = ended.unwrap();
    assert_eq!((ended.state, ended.result::<String>().unwrap()), (TaskState::Done, "all".to_owned()));
    // The fake broker keeps its events over a restart, as a new epoch's: told again, because the numbers start over.
    assert!(events.iter().all(|event| *event == (Some(1), Some("half".to_owned()))) && !events.is_empty());
    stopper.stop();
    run.join().unwrap().unwrap();
}

#[test]
fn a_submit_is_stored_once_and_a_bad_task_never_leaves() {
    // The request id is one per call; a mistake in a task is told without asking the broker.
    let broker = Broker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    let stored = client.submit(Task::new("k").payload(&1)).unwrap();
    assert!(stored.new);
    client.submit(Task::new("k")).unwrap();
    assert_eq!(broker.state().requests.len(), 2);
    let error = client.submit(Task::new("k").max_attempts(0)).unwrap_err();
    assert!(matches!(error, Error::BadSetting { setting: "max_attempts", .. }));
    assert_eq!(client.clone().ping().unwrap().version, "fake");
}

#[test]
fn a_call_outlives_a_broker_that_dies_again_and_again() {
    // A submit that waits is said again without a wait: it learns its id from a broker that lives for a moment only, and waits
    // for that, which has no end.
    let mut broker = Broker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    let call = thread::spawn(move || client.submit_and_wait(Task::new("k")));
    broker.wait_until("the submit", |state| !state.requests.is_empty());
    broker.down();
    broker.up();
    broker.wait_until("the submit said again", |state| state.submits.len() == 2);
    {
        let mut state = broker.state();
        let [first, second] = &state.submits[..] else { panic!("{:?}", state.submits) };
        assert_eq!(first.request, second.request);
        assert!(first.wait_ms > 0 && second.wait_ms == 0, "{} then {}", first.wait_ms, second.wait_ms);
        let task = TaskId::new(77).unwrap();
        state.outcomes.push(Outcome::new(task, Lease::new(1), End::Done));
    }
    assert_eq!(call.join().unwrap().unwrap().state, TaskState::Done);
}

#[test]
fn a_wait_with_a_limit_ends_and_says_what_still_runs() {
    // The limit holds although the question could be parked for longer.
    let broker = Broker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    let id = TaskId::new(9).unwrap();
    let error = client.wait_all(&[id], Some(Duration::from_millis(50)), |_| {}).unwrap_err();
    assert!(matches!(error, Error::StillRunning { ref tasks, .. } if *tasks == [id]), "{error}");
}
