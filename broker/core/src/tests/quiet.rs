//! A broker that was told to be quiet: nothing is handed out, and everything else goes on.

use laneway_protocol::TaskState;
use laneway_protocol::message::{Answer, NewTask, Ready, Request};

use super::world::{World, done, kind, ready, submit};
use crate::event::Event;

#[test]
fn a_quiet_broker_hands_nothing_out_and_takes_everything_in() {
    // Proves that slots wait with their questions and are not sent away, that outcomes, submits and inserts are taken, that it is
    // told, and that those who have waited are served when it is over, the longest idle first.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let first = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let lease = world.lease(first);
    world.event(Event::Quiet(true));
    let waits = world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    let also = world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease)], ..ready("w") }));
    world.insert("normal", "a", 1);
    let asked = world.ask(7, submit(vec![NewTask::new(kind("a"), None)], 0));
    world.commit();
    assert!(world.open.contains(&waits) && world.open.contains(&also), "{:?}", world.said());
    assert!(matches!(world.answers.get(&asked), Some(Answer::Submit(_))));
    assert_eq!([1, 2, 3].map(|task| world.state(task)), [TaskState::Done, TaskState::Queued, TaskState::Queued]);
    let told = world.ask(9, Request::Stats);
    world.commit();
    assert!(matches!(world.answers.get(&told), Some(Answer::Stats(stats)) if stats.quiet && !stats.draining));

    world.event(Event::Quiet(false));
    world.commit();
    assert_eq!((world.tasks(waits)[0].0, world.tasks(also)[0].0), (2, 3));
}

#[test]
fn a_quiet_broker_answers_in_time_and_can_be_told_twice() {
    // Proves that a slot hears at the end of its time that there is nothing, and that neither word matters the second time.
    let mut world = World::new();
    world.hello("w", 1, &["a"]);
    world.event(Event::Quiet(true));
    world.event(Event::Quiet(true));
    world.insert("low", "a", 1);
    world.ask(1, Request::Ready(ready("w")));
    world.commit();
    world.take();
    world.pass(10_000);
    assert_eq!(world.said(), ["#2 WAIT Idle"]);
    world.event(Event::Quiet(false));
    world.event(Event::Quiet(false));
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    assert_eq!(world.tasks(reply)[0].0, 1);
}

#[test]
fn a_restart_forgets_that_it_was_told_to_be_quiet() {
    // Proves that the next broker hands out: nothing of it is on disk.
    let mut world = World::new();
    world.event(Event::Quiet(true));
    world.insert("low", "a", 1);
    world.restart(true);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    assert_eq!(world.tasks(reply)[0].0, 1);
}
