//! A worker over real sockets against the fake broker: the ordinary way, a restart, and every way to leave.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fake::Broker;
use laneway::protocol::message::{End, Held};
use laneway::{
    Code, Context, Error, Failure, Finished, Format, Payload, Stopper, WireError, Worker, WorkerBuilder, snooze,
};

type Run = JoinHandle<Result<Finished, Error>>;

fn builder(broker: &Broker) -> WorkerBuilder {
    Worker::builder(&broker.endpoint).signals(false).name("test")
}

fn spawn(builder: WorkerBuilder) -> (Stopper, Run) {
    let worker = builder.build().expect("the settings make sense");
    (worker.stopper(), thread::spawn(move || worker.run()))
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn tasks_run_and_their_ends_are_told() {
    // Results come back in the payload's format; errors, panics, snoozes and payloads of the wrong type as what they are.
    let broker = Broker::start();
    let sum = broker.add("sum", "normal", Some(Payload::json("[1,2]")));
    let packed = broker.add("sum", "normal", Some(Payload::bin([0x92, 3, 4])));
    let wrong = broker.add("sum", "normal", Some(Payload::json("\"x\"")));
    let boom = broker.add("boom", "normal", None);
    let later = broker.add("later", "normal", None);
    let raw = broker.add("raw", "normal", Some(Payload::bin(*b"\xff\0")));
    let (stopper, run) = spawn(
        builder(&broker)
            .slots(2)
            .handle("sum", |numbers: Vec<u32>, _: &Context| Ok::<_, Failure>(numbers.iter().sum::<u32>()))
            .handle("boom", |(): (), _: &Context| -> Result<(), Failure> { panic!("out of {}", "cheese") })
            .handle("later", |(): (), _: &Context| Err::<(), _>(snooze(Duration::from_secs(7))))
            .handle_raw("raw", |payload, _: &Context| Ok::<_, Failure>(payload)),
    );
    broker.wait_until("six outcomes", |state| state.outcomes.len() == 6);
    stopper.stop();
    assert_eq!(run.join().unwrap().unwrap(), Finished::Stopped);
    let state = broker.state();
    let of = |id| state.outcomes.iter().find(|outcome| outcome.task.value() == id).unwrap();
    assert_eq!((of(sum).end, &of(sum).result), (End::Done, &Some(Payload::json("3"))));
    assert_eq!(of(packed).result, Some(Payload { format: Format::Bin, bytes: vec![7] }));
    assert!(of(wrong).dead && of(wrong).error.as_ref().unwrap().contains("not as expected"));
    assert_eq!(of(boom).error.as_deref(), Some("the handler panicked: out of cheese"));
    assert_eq!((of(later).end, of(later).after_ms), (End::Snooze, Some(7_000)));
    assert_eq!(of(raw).result, Some(Payload::bin(*b"\xff\0")));
    assert_eq!(state.byes.len(), 1);
}

#[test]
fn a_reserved_slot_is_free_for_its_lane() {
    // With the other slot occupied by a long low task, a high task starts at once and a second low one does not.
    let broker = Broker::start();
    let release = Arc::new(AtomicBool::new(false));
    let gate = release.clone();
    let (stopper, run) =
        spawn(builder(&broker).slots(2).reserve("high", 1).handle("k", move |(): (), ctx: &Context| {
            while ctx.lane().as_str() == "low" && !gate.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            Ok::<_, Failure>(())
        }));
    broker.add("k", "low", None);
    broker.add("k", "low", None);
    broker.wait_until("the low task", |state| state.leased.len() == 1);
    let high = broker.add("k", "high", None);
    broker.wait_until("the high task", |state| state.outcomes.iter().any(|outcome| outcome.task.value() == high));
    assert_eq!(broker.state().queue.len(), 1);
    release.store(true, Ordering::SeqCst);
    broker.wait_until("all tasks", |state| state.outcomes.len() == 3);
    stopper.stop();
    run.join().unwrap().unwrap();
}

#[test]
fn a_restart_under_a_running_handler_loses_and_repeats_nothing() {
    // The handler goes on while the broker is away, the new broker hears of the task by HELLO, and its result is taken once.
    let mut broker = Broker::start();
    let (runs, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, gate) = (runs.clone(), release.clone());
    let (stopper, run) = spawn(builder(&broker).slots(2).handle("k", move |(): (), _: &Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        while !gate.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(2));
        }
        Ok::<_, Failure>(5)
    }));
    broker.add("k", "normal", None);
    broker.wait_until("the task", |state| state.leased.len() == 1);
    wait_until("the handler", || runs.load(Ordering::SeqCst) == 1);
    broker.down();
    release.store(true, Ordering::SeqCst);
    broker.up();
    broker.wait_until("the outcome", |state| state.outcomes.len() == 1);
    // The other slot found the new broker too.
    broker.add("k", "normal", None);
    broker.wait_until("the next task", |state| state.outcomes.len() == 2);
    assert_eq!(broker.state().hellos.last().unwrap().resume.len(), 1);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    stopper.stop();
    run.join().unwrap().unwrap();
}

#[test]
fn a_cancel_reaches_a_busy_handler_at_once() {
    // BEAT is heard by the control loop while the only slot is in its handler; progress and data go over the slot's socket.
    let broker = Broker::start();
    let (stopper, run) = spawn(builder(&broker).handle("k", |(): (), ctx: &Context| {
        ctx.progress(1, 3, "first");
        ctx.send_data(&[1, 2])?;
        ctx.extend(Duration::from_mins(3))?;
        assert!(ctx.deadline() > Instant::now() + Duration::from_mins(2));
        while !ctx.cancelled() {
            thread::sleep(Duration::from_millis(2));
        }
        Err::<(), _>(Failure::cancelled())
    }));
    let id = broker.add("k", "normal", None);
    broker.wait_until("progress", |state| state.progress.len() == 3);
    let lease = broker.state().leased[&id];
    broker.state().cancel.push(Held(laneway::TaskId::new(id).unwrap(), lease));
    broker.wait_until("the outcome", |state| state.outcomes.len() == 1);
    {
        let state = broker.state();
        assert_eq!(state.outcomes[0].end, End::Cancelled);
        assert_eq!((state.progress[0].done, state.progress[0].note.as_deref()), (Some(1), Some("first")));
        assert_eq!(state.progress[1].data, Some(Payload::json("[1,2]")));
        assert_eq!(state.progress[2].extend_ms, Some(180_000));
    }
    stopper.stop();
    run.join().unwrap().unwrap();
}

#[test]
fn an_idle_worker_stops_at_once() {
    // A parked question does not delay a stop, and it is called back before the goodbye.
    let broker = Broker::start();
    let (stopper, run) = spawn(builder(&broker).slots(3).handle("k", |(): (), _: &Context| Ok::<_, Failure>(())));
    broker.wait_until("three questions", |state| state.readys >= 3);
    let started = Instant::now();
    stopper.stop();
    assert_eq!(run.join().unwrap().unwrap(), Finished::Stopped);
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
    assert_eq!(broker.state().byes.len(), 1);
}

#[test]
fn a_stop_lets_tasks_finish_and_hands_the_rest_back() {
    // Of a batch of three, the running one finishes and the two that have not started are released.
    let broker = Broker::start();
    for _ in 0..3 {
        broker.add("k", "normal", None);
    }
    let started = Arc::new(AtomicUsize::new(0));
    let counted = started.clone();
    let release = Arc::new(AtomicBool::new(false));
    let gate = release.clone();
    let (stopper, run) = spawn(builder(&broker).batch(3).handle("k", move |(): (), _: &Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        while !gate.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(2));
        }
        Ok::<_, Failure>(())
    }));
    wait_until("the first task", || started.load(Ordering::SeqCst) == 1);
    stopper.stop();
    release.store(true, Ordering::SeqCst);
    run.join().unwrap().unwrap();
    let ends: Vec<End> = broker.state().outcomes.iter().map(|outcome| outcome.end).collect();
    assert_eq!(ends, [End::Done, End::Release, End::Release]);
    assert_eq!(started.load(Ordering::SeqCst), 1);
}

#[test]
fn a_handler_that_does_not_end_is_left_behind() {
    // After the stop timeout it is told to end, and after the release timeout its task is handed back by BYE.
    let broker = Broker::start();
    let (started, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (began, seen) = (started.clone(), told.clone());
    let over = Arc::new(AtomicBool::new(false));
    let gate = over.clone();
    let builder = builder(&broker)
        .stop_timeout(Duration::from_millis(100))
        .release_timeout(Duration::from_millis(100))
        .handle("k", move |(): (), ctx: &Context| {
            began.store(true, Ordering::SeqCst);
            while !gate.load(Ordering::SeqCst) {
                seen.store(ctx.cancelled(), Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
            }
            Ok::<_, Failure>(())
        });
    let (stopper, run) = spawn(builder);
    let id = broker.add("k", "normal", None);
    broker.wait_until("the task", |state| state.leased.contains_key(&id));
    wait_until("the handler", || started.load(Ordering::SeqCst));
    stopper.stop();
    assert_eq!(run.join().unwrap().unwrap(), Finished::Stopped);
    assert!(told.load(Ordering::SeqCst));
    let released: Vec<u64> =
        broker.state().byes.iter().flat_map(|bye| &bye.release).map(|held| held.0.value()).collect();
    assert_eq!(released, [id]);
    over.store(true, Ordering::SeqCst);
}

#[test]
fn a_drain_ends_the_worker() {
    // Told to drain, the worker leaves by itself and says so.
    let broker = Broker::start();
    let (_stopper, run) = spawn(builder(&broker).slots(2).handle("k", |(): (), _: &Context| Ok::<_, Failure>(())));
    broker.wait_until("a question", |state| state.readys >= 2);
    broker.state().drain = true;
    assert_eq!(run.join().unwrap().unwrap(), Finished::Drained);
    assert_eq!(broker.state().byes.len(), 1);
}

#[test]
fn a_worker_that_is_not_wanted_says_why() {
    // A lane that the broker does not have ends `run` with the broker's own words.
    let broker = Broker::start();
    broker.state().refuse = Some(WireError::new(Code::UnknownLane, "lane 'hihg' is not one of high, normal, low"));
    let (_stopper, run) =
        spawn(builder(&broker).lanes(["hihg"]).handle("k", |(): (), _: &Context| Ok::<_, Failure>(())));
    let error = run.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("'hihg'"), "{error}");
}

#[test]
fn a_stop_without_a_broker_is_prompt() {
    // With nothing to lose, an absent broker is not waited for.
    let mut broker = Broker::start();
    let (stopper, run) = spawn(builder(&broker).slots(2).handle("k", |(): (), _: &Context| Ok::<_, Failure>(())));
    broker.wait_until("a question", |state| state.readys >= 2);
    broker.down();
    let started = Instant::now();
    stopper.stop();
    assert_eq!(run.join().unwrap().unwrap(), Finished::Stopped);
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

#[test]
fn a_long_task_does_not_hold_back_the_results_of_its_batch() {
    // The first task's outcome arrives while the second one of the same batch still runs.
    let broker = Broker::start();
    let quick = broker.add("quick", "normal", None);
    broker.add("slow", "normal", None);
    let release = Arc::new(AtomicBool::new(false));
    let gate = release.clone();
    let builder = builder(&broker).batch(2).handle("quick", |(): (), _: &Context| Ok::<_, Failure>(())).handle(
        "slow",
        move |(): (), _: &Context| {
            while !gate.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            Ok::<_, Failure>(())
        },
    );
    let (stopper, run) = spawn(builder);
    broker.wait_until("the quick outcome", |state| state.outcomes.iter().any(|outcome| outcome.task.value() == quick));
    assert_eq!(broker.state().outcomes.len(), 1);
    release.store(true, Ordering::SeqCst);
    broker.wait_until("the slow outcome", |state| state.outcomes.len() == 2);
    stopper.stop();
    run.join().unwrap().unwrap();
}
