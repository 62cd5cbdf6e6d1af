//! What any peer can make the broker hold while the disk stands, what it still does then, and who is waited for.

use laneway_protocol::message::{
    Bye, Drain, Filter, Lanes, ListWorkers, NewTask, Outcome, Progress, Ready, Request, Schedules, Status, Tasks,
};
use laneway_protocol::{Answer, Code, Lease};

use super::world::{World, beat, bye, done, held, hello, id, kind, lane, ready, session, settings, submit, wait_for};
use crate::Settings;
use crate::event::{Event, ReplyTo};
use crate::limits::QUESTIONS_MAX;

fn one_task() -> Request {
    submit(vec![NewTask::new(kind("a"), None)], 0)
}

/// The code of a refusal, and when to ask again.
fn refusal(world: &World, reply: ReplyTo) -> Option<(Code, Option<u64>)> {
    match world.answers.get(&reply) {
        Some(Answer::Error(error)) => Some((error.code, error.after_ms)),
        _ => None,
    }
}

#[test]
fn over_twice_the_backlog_only_what_asks_nothing_of_the_store_is_taken() {
    // Submits are refused at the bound. Words of unknown tasks are taken up to twice that; behind it every question that
    // would add an operation is refused with a hint, and those who run tasks still beat, ask, give progress and leave.
    let mut world = World::with(Settings { backlog_bytes_max: 1_000, ..settings() });
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    world.hello("v", 2, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let lease = world.lease(reply);
    let full = Some((Code::Full, Some(100)));
    let mut asked = |request: Request| {
        let reply = world.ask(1, request);
        refusal(&world, reply)
    };
    let unknown = |n| vec![done(n, Lease::new(1))];
    let say = |n| Request::Ready(Ready { slot: 1, outcomes: unknown(n), ..ready("w") });
    assert_eq!(asked(one_task()), None);
    assert_eq!(asked(one_task()), None, "512 bytes are under the bound");
    assert_eq!(asked(one_task()), full, "1,024 are not");
    assert_eq!(asked(Request::Cancel(Tasks { tasks: vec![id(9)] })), full);
    assert_eq!(asked(say(11)), None);
    assert_eq!(asked(say(12)), None);
    let tasks = || Tasks { tasks: vec![id(9)] };
    for request in [
        say(13),
        hello("w", &["a"], &[held(9, Lease::new(1))]),
        Request::Bye(Bye { outcomes: unknown(9), ..bye("v") }),
        one_task(),
        Request::WaitFor(wait_for(&[9], 1)),
        Request::Status(Status { filter: Some(Filter::default()), ..Status::default() }),
        Request::Cancel(tasks()),
        Request::Requeue(tasks()),
        Request::Lanes(Lanes { pause: Vec::new(), resume: Vec::new(), ..Lanes::default() }),
        Request::Stats,
        Request::Schedules(Schedules::default()),
    ] {
        let text = format!("{request:?}");
        assert_eq!(asked(request), full, "{text}");
    }
    let progress = Progress {
        session: session("w"),
        task: id(1),
        lease,
        done: Some(1),
        total: None,
        note: None,
        extend_ms: None,
        data: None,
        log: None,
        checkpoint: None,
        parents: None,
    };
    for request in [
        Request::Ready(Ready { slot: 2, ..ready("w") }),
        hello("w", &["a"], &[]),
        Request::Bye(bye("v")),
        Request::Progress(progress),
        beat("w", &[held(1, lease)]),
        Request::Workers(ListWorkers { after: None }),
        Request::Drain(Drain { release: false, off: true, worker: None }),
        Request::Ping,
    ] {
        let text = format!("{request:?}");
        assert_eq!(asked(request), None, "{text}");
    }
    world.commit();
    assert_eq!(world.broker.n_unsettled(), 0);
    let reply = world.ask(9, one_task());
    assert_eq!((refusal(&world, reply), world.broker.n_unsettled()), (None, 1), "all is taken again");
}

#[test]
fn questions_that_wait_for_the_database_are_bounded() {
    // 128 wait; one more of any sort is refused with a hint, other words are not, and it is taken after a commit.
    let mut world = World::new();
    let listed = || Request::Status(Status { filter: Some(Filter::default()), ..Status::default() });
    for _ in 0..QUESTIONS_MAX {
        assert!(!world.broker_only(9, listed()));
    }
    for request in
        [listed(), Request::Stats, Request::Schedules(Schedules::default()), Request::Lanes(Lanes::default())]
    {
        let reply = world.ask(9, request);
        assert_eq!(refusal(&world, reply), Some((Code::Full, Some(100))));
    }
    let reply = world.ask(9, one_task());
    assert_eq!(refusal(&world, reply), None);
    world.commit();
    let reply = world.ask(9, listed());
    assert_eq!(refusal(&world, reply), None);
}

#[test]
fn the_shell_hears_whether_somebody_waits_for_an_operation() {
    // Once for what was asked since the last look. Whoever numbers its batches does not wait, unless somebody waits for
    // its task or says its outcome again without a number.
    let mut world = World::new();
    world.insert("low", "a", 5);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(Ready { max: 5, ..ready("w") }));
    world.commit();
    let leases = world.tasks(reply);
    let outcome = |n: u64| done(n, leases[usize::try_from(n).unwrap() - 1].1);
    let say = |outcomes: Vec<Outcome>, batch| Request::Ready(Ready { outcomes, batch, ..ready("w") });
    world.broker.take_awaited();
    let mut is_awaited = |request| {
        world.ask(1, request);
        let awaited = world.broker.take_awaited();
        assert!(!world.broker.take_awaited(), "told once");
        awaited
    };
    assert!(!is_awaited(say(vec![outcome(1)], Some(1))), "a batch with a number");
    assert!(is_awaited(Request::Ready(Ready { slot: 1, outcomes: vec![outcome(1)], ..ready("w") })), "the same again");
    assert!(is_awaited(say(vec![outcome(2)], None)), "no number");
    assert!(is_awaited(Request::WaitFor(wait_for(&[3], 1_000))), "one who waits");
    assert!(is_awaited(say(vec![outcome(3)], Some(2))), "a task that is waited for");
    assert!(!is_awaited(Request::Ping));
    assert!(is_awaited(one_task()));
    world.ask(1, one_task());
    world.ask(1, say(vec![outcome(4)], Some(3)));
    assert!(world.broker.take_awaited(), "what comes behind does not hide it");
    world.event(Event::StoreFailed("disk full".into()));
    world.ask(9, Request::Lanes(Lanes { pause: vec![lane("low")], resume: Vec::new(), ..Lanes::default() }));
    assert!(world.broker.take_awaited(), "one who asks to pause a lane");
}
