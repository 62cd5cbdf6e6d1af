//! DRAIN of one worker: it gets nothing more and is asked to leave; the others go on.

use laneway_protocol::message::{Answer, Drain, Drained, ListWorkers, Outcome, Ready, Request};
use laneway_protocol::{Code, TaskState};

use super::world::{World, beat, done, held, plain, ready};

fn drain(worker: &str) -> Drain {
    Drain { worker: Some(worker.into()), ..Drain::default() }
}

fn asked(world: &mut World, drain: Drain) -> Result<Drained, (Code, String)> {
    let reply = world.ask(9, Request::Drain(drain));
    match world.answers.remove(&reply) {
        Some(Answer::Drain(drained)) => Ok(drained),
        Some(Answer::Error(error)) => Err((error.code, error.text)),
        other => panic!("a DRAIN is answered with {other:?}"),
    }
}

#[test]
fn one_worker_leaves_and_the_others_go_on() {
    // What it waits with is answered, its BEAT tells, what it runs is settled; a task that comes goes to the other one.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("one", 1, &["a"]);
    world.hello("two", 2, &["a"]);
    let first = world.ask(1, Request::Ready(ready("one")));
    world.commit();
    let (task, lease) = world.tasks(first)[0];
    world.ask(1, Request::Ready(Ready { slot: 1, ..ready("one") }));
    world.ask(1, beat("one", &[held(task, lease)]));
    let other = world.ask(2, Request::Ready(ready("two")));
    world.commit();
    world.take();
    assert_eq!(asked(&mut world, drain("one")), Ok(Drained { draining: true, workers: 1, running: 1 }));
    let said = world.said();
    assert!(said.iter().any(|line| line.ends_with("WAIT Draining")), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("BEAT cancel [] stale [] drain")), "{said:?}");
    world.insert("low", "a", 1);
    world.commit();
    assert_eq!(world.tasks(other)[0].0, 2);
    world.insert("low", "a", 1);
    world.commit();
    world.take();
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(task, lease)], ..ready("one") }));
    world.commit();
    assert!(world.said().iter().any(|line| line.contains("WAIT Draining ok")));
    assert_eq!((world.state(1), world.state(3)), (TaskState::Done, TaskState::Queued));
    assert_eq!(asked(&mut world, drain("one")), Ok(Drained { draining: true, workers: 1, running: 0 }));
    let reply = world.ask(9, Request::Workers(ListWorkers::default()));
    let Some(Answer::Workers(rows)) = world.answers.remove(&reply) else { panic!("no workers") };
    assert_eq!(rows.workers.iter().map(|row| row.draining).collect::<Vec<_>>(), [true, false]);
    // It may be taken back as long as it is there.
    assert!(!asked(&mut world, Drain { off: true, ..drain("one") }).unwrap().draining);
    let again = world.ask(1, Request::Ready(ready("one")));
    world.commit();
    assert_eq!(world.tasks(again)[0].0, 3);
}

#[test]
fn a_worker_is_told_once_to_hand_back_what_it_runs() {
    // A release may follow a drain, and not the other way round; the drain of all is no less for it.
    let mut world = World::new();
    world.hello("one", 1, &["a"]);
    asked(&mut world, drain("one")).unwrap();
    world.ask(1, beat("one", &[]));
    assert!(world.said().concat().contains("BEAT cancel [] stale [] drain"));
    world.ask(1, beat("one", &[]));
    assert!(!world.said().concat().contains("BEAT"), "it was told");
    asked(&mut world, Drain { release: true, ..drain("one") }).unwrap();
    assert!(world.said().concat().contains("BEAT cancel [] stale [] release"));
    asked(&mut world, drain("one")).unwrap();
    world.ask(9, Request::Drain(Drain::default()));
    world.take();
    world.ask(1, beat("one", &[]));
    assert!(world.said().concat().contains("release"), "still");
}

#[test]
fn a_worker_is_named_by_its_session_or_its_name() {
    // By all of its session before anything else; by what both begin with, or have as a name, it is not told which.
    let mut world = World::new();
    for (n, name) in ["abc1", "abc2", "abc"].iter().enumerate() {
        world.ask(n as u64, Request::Ready(plain(name, &["a"])));
    }
    assert!(asked(&mut world, drain("abc")).is_ok());
    assert!(asked(&mut world, drain("abc2")).is_ok());
    let (code, text) = asked(&mut world, drain("ab")).unwrap_err();
    assert_eq!(code, Code::BadBody);
    assert!(text.starts_with("3 workers are 'ab'") && text.contains("abc1, abc2"), "{text}");
    for nobody in ["abd", ""] {
        assert_eq!(asked(&mut world, drain(nobody)).unwrap_err().0, Code::NotFound);
    }
    world.hello("s-1", 7, &["a"]);
    world.hello("s-2", 8, &["a"]);
    assert!(asked(&mut world, drain("s-1/1")).is_ok(), "as name@host/pid, without a host");
}

#[test]
fn a_session_that_comes_back_from_nothing_is_another() {
    // Who said goodbye and begins anew under the same session is not sent away for what was told before.
    let mut world = World::new();
    world.hello("one", 1, &["a"]);
    asked(&mut world, drain("one")).unwrap();
    world.ask(1, Request::Bye(super::world::bye("one")));
    world.commit();
    assert_eq!(asked(&mut world, drain("one")).unwrap_err().0, Code::NotFound);
    world.insert("low", "a", 1);
    world.hello("one", 1, &["a"]);
    let outcomes: Vec<Outcome> = Vec::new();
    let reply = world.ask(1, Request::Ready(Ready { outcomes, ..ready("one") }));
    world.commit();
    assert_eq!(world.tasks(reply)[0].0, 1);
}
