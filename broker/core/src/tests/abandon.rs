//! Tasks that nobody waits for any more, and that somebody wanted cancelled then.

use laneway_protocol::message::{Answer, NewGroup, NewTask, Ready, Request, Submit, WaitFor};
use laneway_protocol::{Code, RequestId, TaskState};

use super::world::{World, done, id, kind, plain, settings, submit, wait_for};
use crate::ConnId;
use crate::Settings;
use crate::event::Event;
use crate::limits::MARKED_MAX;

/// Of the world's settings.
const GRACE_MS: u64 = 5_000;

/// A broker that has run for long enough to blame nobody for its start.
fn settled() -> World {
    let mut world = World::new();
    world.pass(15_000);
    world
}

fn abandoning(tasks: &[u64], wait_ms: u64) -> Request {
    Request::WaitFor(WaitFor { abandon: true, ..wait_for(tasks, wait_ms) })
}

fn submit_abandoning(tasks: Vec<NewTask>, wait_ms: u64) -> Request {
    Request::Submit(Submit { request: RequestId([1; 16]), tasks, wait_ms, abandon: true, group: None })
}

fn task(key: Option<&str>) -> NewTask {
    NewTask { unique_key: key.map(Into::into), ..NewTask::new(kind("a"), None) }
}

/// Asks on connection 9, lets the store look, and forgets what was said.
fn ask(world: &mut World, request: Request) {
    world.ask(9, request);
    world.commit();
    world.take();
}

fn gone(world: &mut World, conn: u64) {
    world.event(Event::Disconnected(ConnId(conn)));
    world.take();
}

/// Lets the grace pass, but for the last millisecond; then it, and the commit of what follows.
fn after_the_grace(world: &mut World, grace_ms: u64) -> Vec<String> {
    world.pass(grace_ms - 1);
    world.commit();
    assert_eq!(world.said(), Vec::<String>::new(), "too early");
    world.pass(1);
    world.commit();
    world.said()
}

#[test]
fn a_queued_task_is_cancelled_when_its_last_waiter_has_been_gone_for_the_grace() {
    // With two who wait, the first may go; it does not matter which of them said that the task is to be given up.
    for first in [8, 9] {
        let mut world = settled();
        world.insert("low", "a", 1);
        ask(&mut world, abandoning(&[1], 60_000));
        world.ask(8, Request::WaitFor(wait_for(&[1], 60_000)));
        world.commit();
        gone(&mut world, first);
        world.pass(2 * GRACE_MS);
        world.commit();
        assert_eq!(world.said(), Vec::<String>::new());
        gone(&mut world, 17 - first);
        assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 1"]);
        assert_eq!(world.state(1), TaskState::Cancelled);
    }
}

#[test]
fn however_the_last_waiter_leaves_the_grace_begins() {
    // Its time ran out, or it was told of progress and does not ask again.
    let mut world = settled();
    world.insert("low", "a", 2);
    ask(&mut world, abandoning(&[1], 1_000));
    world.pass(1_000);
    world.take();
    assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 1"]);
    ask(&mut world, abandoning(&[2], 0));
    assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 2"]);
}

#[test]
fn a_running_task_is_asked_to_stop() {
    // As by CANCEL: its worker hears it, and its outcome decides.
    let mut world = settled();
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    let lease = world.lease(reply);
    ask(&mut world, abandoning(&[1], 60_000));
    gone(&mut world, 9);
    assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 1"]);
    assert!(world.row(1).cancel_requested && world.broker.running[&id(1)].stop.is_some());
    let outcomes = vec![done(1, lease)];
    world.ask(1, Request::Ready(Ready { outcomes, wait_ms: 0, ..plain("w", &["a"]) }));
    world.commit();
    assert_eq!(world.state(1), TaskState::Done);
}

#[test]
fn whoever_comes_back_in_time_keeps_the_task() {
    // Without saying it again, too; and when that one leaves, the grace begins anew.
    for again in [abandoning(&[1], 60_000), Request::WaitFor(wait_for(&[1], 60_000))] {
        let mut world = settled();
        world.insert("low", "a", 1);
        ask(&mut world, abandoning(&[1], 60_000));
        gone(&mut world, 9);
        world.pass(GRACE_MS - 1);
        world.ask(8, again);
        world.commit();
        world.take();
        world.pass(4 * GRACE_MS);
        world.commit();
        assert_eq!((world.said(), world.state(1)), (Vec::new(), TaskState::Queued));
        gone(&mut world, 8);
        assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 1"]);
    }
}

#[test]
fn who_waits_without_saying_so_leaves_the_task_alone() {
    let mut world = settled();
    world.insert("low", "a", 1);
    ask(&mut world, Request::WaitFor(wait_for(&[1], 60_000)));
    gone(&mut world, 9);
    world.pass(10 * GRACE_MS);
    world.commit();
    assert_eq!((world.said(), world.state(1)), (Vec::new(), TaskState::Queued));
}

#[test]
fn a_submit_gives_up_what_it_stored_and_not_what_it_met() {
    // Whether it waits or leaves that to somebody who never comes.
    for wait_ms in [0, 60_000] {
        let mut world = settled();
        ask(&mut world, submit(vec![task(Some("x"))], 0));
        ask(&mut world, submit_abandoning(vec![task(Some("x")), task(Some("y")), task(None)], wait_ms));
        gone(&mut world, 9);
        assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 2 3"]);
        assert_eq!([1, 2, 3].map(|n| world.state(n)), [TaskState::Queued, TaskState::Cancelled, TaskState::Cancelled]);
    }
}

#[test]
fn a_submitter_that_is_gone_before_the_commit_does_not_count_as_one_who_waits() {
    // Its minute of waiting is not waited for.
    let mut world = settled();
    let reply = world.ask(9, submit_abandoning(vec![task(None)], 60_000));
    gone(&mut world, 9);
    assert!(!world.open.contains(&reply));
    world.commit();
    world.take();
    assert_eq!(after_the_grace(&mut world, GRACE_MS), ["abandon 1"]);
}

#[test]
fn a_task_that_ends_in_the_grace_is_not_touched() {
    // Nor is one of which the end came while somebody waited, or that was never there.
    let mut world = settled();
    world.insert("low", "a", 2);
    let reply = world.ask(1, Request::Ready(Ready { max: 2, ..plain("w", &["a"]) }));
    world.commit();
    let leases = world.tasks(reply);
    ask(&mut world, abandoning(&[1, 2, 7], 60_000));
    ask(&mut world, abandoning(&[1, 2], 60_000));
    let outcomes = vec![done(2, leases[1].1)];
    world.ask(1, Request::Ready(Ready { outcomes, max: 0, ..plain("w", &["a"]) }));
    world.commit();
    gone(&mut world, 9);
    let outcomes = vec![done(1, leases[0].1)];
    world.ask(1, Request::Ready(Ready { outcomes, max: 0, ..plain("w", &["a"]) }));
    world.commit();
    world.take();
    assert_eq!(world.broker.marks.iter().count(), 0);
    world.pass(10 * GRACE_MS);
    assert_eq!(world.said(), Vec::<String>::new());
}

#[test]
fn nothing_is_given_up_while_the_broker_itself_may_be_the_reason() {
    // After a start nobody is blamed for as long as workers have to come back; after a stall neither.
    let mut world = World::new();
    world.insert("low", "a", 2);
    ask(&mut world, abandoning(&[1], 60_000));
    gone(&mut world, 9);
    assert_eq!(after_the_grace(&mut world, 15_000), ["abandon 1"]);
    ask(&mut world, abandoning(&[2], 60_000));
    gone(&mut world, 9);
    world.jump(GRACE_MS);
    world.event(Event::Stalled { ms: GRACE_MS });
    assert_eq!(after_the_grace(&mut world, 15_000), ["abandon 2"]);
}

#[test]
fn a_restart_forgets_it_and_whoever_comes_back_says_it_again() {
    let mut world = settled();
    world.insert("low", "a", 2);
    ask(&mut world, abandoning(&[1, 2], 60_000));
    world.restart(false);
    ask(&mut world, abandoning(&[2], 60_000));
    world.pass(60_000);
    world.take();
    world.pass(20_000);
    world.commit();
    assert_eq!([1, 2].map(|n| world.state(n)), [TaskState::Queued, TaskState::Cancelled]);
}

#[test]
fn a_broker_that_stops_or_cannot_write_gives_nothing_up() {
    // The next one is asked by those who still wait; a disk that is full for a while is nobody's leaving.
    let mut world = settled();
    world.insert("low", "a", 2);
    ask(&mut world, abandoning(&[1], 60_000));
    world.event(Event::StoreFailed("disk full".into()));
    gone(&mut world, 9);
    world.pass(3 * GRACE_MS);
    assert_eq!(world.said(), Vec::<String>::new());
    world.event(Event::StoreRecovered);
    world.pass(GRACE_MS);
    assert_eq!(world.said(), ["abandon 1"]);
    ask(&mut world, abandoning(&[2], 60_000));
    world.event(Event::Stop);
    gone(&mut world, 9);
    world.pass(3 * GRACE_MS);
    assert_eq!(world.said(), Vec::<String>::new());
}

#[test]
fn a_group_is_not_given_up() {
    // Neither by a wait for it nor by the submit that makes it; the text says what to do.
    let mut world = settled();
    let group = Some(NewGroup::default());
    let submit = Submit { request: RequestId([1; 16]), tasks: vec![task(None)], wait_ms: 0, abandon: true, group };
    let wait = WaitFor { group: Some(5), abandon: true, ..wait_for(&[], 0) };
    for request in [Request::Submit(submit), Request::WaitFor(wait)] {
        let reply = world.ask(9, request);
        let Answer::Error(error) = &world.answers[&reply] else { panic!("it was taken") };
        assert_eq!((error.code, error.field.as_deref()), (Code::BadBody, Some("abandon")));
    }
}

#[test]
fn marks_are_bounded_those_of_submits_on_their_way_among_them() {
    // The question that would be one too many is refused and can be asked again; what was refused takes no place.
    let mut world = World::with(Settings { waiters_max: MARKED_MAX, ..settings() });
    let page = |n: usize| (1..=512).map(|task| (n * 512 + task) as u64).collect::<Vec<u64>>();
    for n in 0..MARKED_MAX / 512 - 1 {
        assert!(!world.broker_only(9, abandoning(&page(n), 60_000)));
    }
    let tasks: Vec<NewTask> = (0..512).map(|_| task(None)).collect();
    assert!(!world.broker_only(9, submit_abandoning(tasks, 0)));
    for request in [abandoning(&[1_000_000], 0), submit_abandoning(vec![task(None)], 0)] {
        let reply = world.next_reply();
        assert!(world.broker_only(9, request));
        let Answer::Error(error) = &world.answers[&reply] else { panic!("it was taken") };
        assert_eq!((error.code, error.retry, error.field.as_deref()), (Code::Full, true, Some("abandon")));
    }
    let bad = NewTask { max_attempts: Some(0), ..task(None) };
    let mut world = settled();
    ask(&mut world, submit_abandoning(vec![bad], 0));
    assert_eq!((world.broker.marks.promised(), world.broker.marks.iter().count()), (0, 0));
}
