//! Who is there: connections, losses, suspects, stalls.

use laneway_protocol::message::{Answer, Beat, Bye, Hello, Ready, Request, Status};
use laneway_protocol::{Code, Epoch, Lease, TaskState};

use super::world::{World, beat, bye, done, held, hello, id, plain, ready, session, settings};
use crate::ConnId;
use crate::Settings;
use crate::event::Event;

/// A world where session w runs tasks 1 to 4, each in its slot, over connections 1 and 2.
fn four_running() -> World {
    let mut world = World::new();
    world.insert("low", "a", 4);
    world.hello("w", 1, &["a"]);
    for slot in 0..4 {
        world.ask(1 + u64::from(slot % 2), Request::Ready(Ready { slot, ..ready("w") }));
        world.commit();
    }
    world.take();
    world
}

#[test]
fn a_ready_that_a_newer_one_overtook_changes_nothing() {
    // It comes late, on a connection that its worker has given up; its `ack` knows nothing of the task that runs since.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.hello("w", 1, &["a"]);
    let newer = world.ask(2, Request::Ready(Ready { ack: Some(0), n: Some(2), ..ready("w") }));
    world.commit();
    let lease = world.lease(newer);
    world.take();
    world.ask(1, Request::Ready(Ready { ack: Some(0), n: Some(1), ..ready("w") }));
    assert_eq!(world.take(), ["#3 forgotten"]);
    world.ask(2, Request::Ready(Ready { ack: Some(1), n: Some(3), outcomes: vec![done(1, lease)], ..ready("w") }));
    world.commit();
    assert_eq!((world.state(1), world.counts(1)), (TaskState::Done, [1, 1, 0, 0]));
}

#[test]
fn a_dead_worker_is_noticed_when_its_last_connection_is_gone_for_the_grace() {
    // One connection less means nothing. All four tasks count a loss, no attempt.
    let mut world = four_running();
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(1_000);
    assert!(world.said().is_empty());
    world.event(Event::Disconnected(ConnId(2)));
    world.pass(499);
    assert!(world.said().is_empty());
    world.pass(1);
    let lost = |task| format!("ended {task} queued, loss lost");
    assert_eq!(world.said(), [lost(1), lost(2), lost(3), lost(4), "session w gone".into()]);
    world.commit();
    for task in 1..=4 {
        assert_eq!(world.counts(task), [1, 0, 1, 0]);
    }
}

#[test]
fn a_word_within_the_grace_saves_the_session() {
    // A new connection speaks for it.
    let mut world = four_running();
    world.event(Event::Disconnected(ConnId(1)));
    world.event(Event::Disconnected(ConnId(2)));
    world.pass(400);
    world.ask(3, beat("w", &[]));
    world.pass(10_000);
    assert_eq!(world.broker.n_running(), 4);
}

#[test]
fn nothing_is_handed_to_a_connection_that_is_gone() {
    // Its parked READY and BEAT are forgotten; the task goes to a slot that is there.
    let mut world = World::new();
    let gone = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.ask(1, beat("w", &[]));
    world.commit();
    world.take();
    world.event(Event::Disconnected(ConnId(1)));
    assert_eq!(world.said(), [format!("#{} forgotten", gone.0), "#2 forgotten".into()]);
    let here = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.insert("low", "a", 1);
    world.commit();
    assert_eq!(world.tasks(here)[0].0, 1);
}

#[test]
fn a_connection_that_goes_takes_only_its_own_questions_with_it() {
    // What is parked on the other connection of the session stays and is answered there.
    let mut world = World::new();
    world.hello("w", 1, &["a"]);
    let gone = world.ask(1, Request::Ready(ready("w")));
    let stays = world.ask(2, Request::Ready(Ready { slot: 1, ..ready("w") }));
    let beat = world.ask(2, beat("w", &[]));
    world.commit();
    world.take();
    world.event(Event::Disconnected(ConnId(1)));
    assert_eq!(world.said(), [format!("#{} forgotten", gone.0)]);
    world.insert("low", "a", 1);
    world.commit();
    assert_eq!(world.tasks(stays)[0].0, 1);
    world.event(Event::Disconnected(ConnId(2)));
    assert!(world.said().contains(&format!("#{} forgotten", beat.0)));
}

#[test]
fn one_connection_may_carry_two_sessions() {
    // When it closes, both are lost.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.ask(1, Request::Ready(plain("v", &["a"])));
    world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(500);
    world.commit();
    assert_eq!((world.counts(1), world.counts(2)), ([1, 0, 1, 0], [1, 0, 1, 0]));
}

#[test]
fn only_the_suspect_is_charged() {
    // Task 1 lost a worker before; it runs beside task 2, and the process dies.
    let mut world = World::new();
    world.insert_with("high", "a", |row| row.losses = 1);
    world.insert("low", "a", 1);
    for slot in 0..2 {
        world.ask(1, Request::Ready(Ready { slot, ..plain("w", &["a"]) }));
        world.commit();
    }
    world.take();
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(500);
    assert_eq!(world.said(), ["ended 1 queued, loss lost", "ended 2 queued, nothing", "session w gone"]);
}

#[test]
fn the_last_loss_is_dead() {
    // Three workers died under it; it is kept with its error.
    let mut world = World::new();
    world.insert("low", "a", 1);
    for conn in 1..=3 {
        world.ask(conn, Request::Ready(plain(&format!("w{conn}"), &["a"])));
        world.commit();
        world.event(Event::Disconnected(ConnId(conn)));
        world.pass(500);
        world.commit();
    }
    assert_eq!((world.state(1), world.counts(1)), (TaskState::Dead, [3, 0, 3, 0]));
    assert_eq!(world.row(1).error.as_deref(), Some("its worker w3 died while it ran (loss 3 of 3)"));
}

#[test]
fn who_comes_and_goes_is_told_by_the_name_that_people_know() {
    // Once for each worker: with its last page of HELLO or, when it says none, its first word; how it went; and the error of
    // what it took down says whose fault that was. A HELLO said again is nothing new.
    let mut world = World::new();
    let told = |world: &mut World| -> Vec<String> {
        world.take().into_iter().filter_map(|line| line.strip_prefix("tell ").map(str::to_owned)).collect()
    };
    world.ask(1, Request::Ready(plain("quiet", &["a", "b"])));
    world.ask(1, Request::Ready(Ready { slot: 1, ..plain("quiet", &["a"]) }));
    assert_eq!(told(&mut world), ["quiet connected [a b]"]);
    let Request::Hello(introduction) = hello("0123456789", &["c"], &[]) else { unreachable!() };
    let introduction = Hello { name: "thumbs".into(), host: "alder".into(), pid: 47, ..introduction };
    world.ask(2, Request::Hello(Hello { more: true, ..introduction.clone() }));
    assert!(told(&mut world).is_empty(), "there are more pages to come");
    world.ask(2, Request::Hello(introduction.clone()));
    assert_eq!(told(&mut world), ["thumbs@alder/47 connected [c]"]);
    world.ask(2, Request::Hello(introduction));
    assert!(told(&mut world).is_empty());
    world.ask(1, Request::Bye(bye("quiet")));
    assert_eq!(told(&mut world), ["quiet left"]);

    world.insert("low", "c", 1);
    world.ask(2, Request::Ready(ready("0123456789")));
    world.commit();
    let asked = world.ask(9, Request::Status(Status { tasks: vec![id(1)], filter: None, detail: true }));
    world.commit();
    let Some(Answer::Status(rows)) = world.answers.get(&asked) else { panic!("no rows") };
    let why = rows.rows[0].explain.as_deref().unwrap();
    assert!(why.starts_with("worker thumbs (host alder, pid 47, session 01234567…) runs it since 0 ms"), "{why}");
    world.take();
    world.event(Event::Disconnected(ConnId(2)));
    world.pass(500);
    assert_eq!(told(&mut world), ["thumbs@alder/47 lost with 1"]);
    world.commit();
    let error = "its worker thumbs (host alder, pid 47, session 01234567…) died while it ran (loss 1 of 3)";
    assert_eq!(world.row(1).error.as_deref(), Some(error));
}

#[test]
fn after_a_stall_nobody_is_declared_dead_for_the_grace() {
    // Connections closed and leases ran out while the broker stood still. A worker that comes back in time keeps its
    // task; one that does not is lost when the grace is over. A lease that is younger than the stall runs out as usual.
    let mut world = World::new();
    for kind in ["a", "b"] {
        world.insert_with("low", kind, |row| row.timeout_ms = Some(5_000));
    }
    world.insert_with("low", "c", |row| row.timeout_ms = Some(5_000));
    for (conn, name, kind) in [(1, "v", "a"), (2, "w", "b")] {
        world.ask(conn, Request::Ready(plain(name, &[kind])));
        world.commit();
    }
    world.jump(30_000);
    world.event(Event::Stalled { ms: 30_000 });
    world.event(Event::Tick);
    world.event(Event::Disconnected(ConnId(1)));
    world.event(Event::Disconnected(ConnId(2)));
    world.take();
    world.pass(1_000);
    let young = world.ask(3, Request::Ready(plain("x", &["c"])));
    world.commit();
    assert_eq!(world.tasks(young)[0].0, 3);
    world.ask(4, beat("v", &[]));
    world.take();
    world.pass(13_000);
    let said = world.said();
    assert!(said.iter().any(|line| line.starts_with("ended 3 ")), "{said:?}");
    assert_eq!(world.broker.n_running(), 2, "{said:?}");
    world.ask(4, beat("v", &[]));
    world.pass(1_000);
    assert_eq!(world.said(), ["#5 BEAT cancel [1] stale []", "ended 2 queued, loss lost", "session w gone"]);
    world.pass(5_000);
    assert!(world.said()[0].starts_with("ended 1 queued"), "its lease ends after the grace, and a word to its worker");
}

#[test]
fn workers_that_died_are_told_of_for_ten_minutes() {
    // The newest sixteen, the newest first; a plain one with nothing in hand has left. The count stays.
    let mut world = World::new();
    let told = |world: &mut World| {
        let reply = world.ask(99, Request::Stats);
        world.commit();
        let Some(Answer::Stats(stats)) = world.answers.remove(&reply) else { panic!("no stats") };
        (stats.workers_lost, stats.lost_workers)
    };
    world.ask(1, Request::Ready(plain("idle", &["a"])));
    world.commit();
    for n in 2..20 {
        world.hello(&format!("w{n}"), n, &["a"]);
    }
    for n in 1..20 {
        world.event(Event::Disconnected(ConnId(n)));
        world.pass(500);
        world.commit();
    }
    let (n, lost) = told(&mut world);
    assert_eq!((n, lost.len()), (18, 16));
    let ages: Vec<u64> = lost.iter().map(|worker| worker.ago_ms).collect();
    assert_eq!((ages[0], ages[15]), (0, 7_500));
    assert!(lost.iter().all(|worker| worker.running == 0 && !worker.name.is_empty()), "{lost:?}");
    world.pass(600_000);
    assert_eq!(told(&mut world), (18, Vec::new()));
}

#[test]
fn a_session_that_was_lost_goes_on_where_it_was_in_the_epoch() {
    // Its counting of hand-outs continues, so that one that is lost on the way is still noticed.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(Ready { ack: Some(57), ..ready("w") }));
    world.commit();
    assert_eq!(world.said(), ["started 1 run 1 by w", "#2 TASKS seq 58 [1]"]);
    world.ask(1, Request::Ready(Ready { ack: Some(57), ..ready("w") }));
    assert_eq!(world.said(), ["ended 1 queued, nothing"]);
}

#[test]
fn a_session_that_ends_leaves_no_question_open() {
    // A READY waits for the store when its session says good-bye and its connection closes.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let lease = world.lease(reply);
    world.take();
    let wrong = done(7, lease);
    world.ask(1, Request::Ready(Ready { outcomes: vec![done(1, lease), wrong.clone()], ..ready("w") }));
    world.ask(1, Request::Ready(Ready { slot: 1, outcomes: vec![wrong], batch: Some(3), ..ready("w") }));
    world.ask(1, Request::Bye(bye("w")));
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(500);
    world.commit();
    world.pass(11_000);
    assert!(world.open.is_empty(), "{:?}", world.open);
    assert_eq!(world.state(1), TaskState::Done);
}

#[test]
fn sessions_are_bounded() {
    // One more is refused, and may come when another has gone.
    let mut settings = settings();
    settings.sessions_max = 1;
    let mut world = World::with(settings);
    world.hello("v", 1, &["a"]);
    world.ask(2, hello("w", &["a"], &[]));
    assert_eq!(world.said(), ["#2 ERR full"]);
    world.event(Event::Disconnected(ConnId(1)));
    world.pass(500);
    world.ask(2, hello("w", &["a"], &[]));
    assert_eq!(world.said(), ["session v gone", "session w up", "#3 WELCOME lost []"]);
}

#[test]
fn a_beat_tells_stale_leases_at_once_and_parks_otherwise() {
    // Known leases park it; one that is not its own is news.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let lease = world.lease(reply);
    world.take();
    world.ask(1, beat("w", &[held(1, lease), held(9, lease)]));
    assert_eq!(world.said(), ["#3 BEAT cancel [] stale [9]"]);
    world.ask(1, beat("w", &[held(1, lease)]));
    world.ask(1, beat("w", &[held(1, lease)]));
    assert_eq!(world.said(), ["#4 forgotten"]);
    world.pass(10_000);
    assert_eq!(world.said(), ["#5 BEAT cancel [] stale []"]);
    world.ask(2, beat("nobody", &[]));
    assert_eq!(world.said(), ["#6 ERR hello_first"]);
    assert_eq!(world.table.rows[&id(1)].lease, Some(lease));
}

#[test]
fn a_beat_of_another_epoch_says_hello_first() {
    // Its own epoch or none is fine. A BEAT that does not wait is answered at once.
    let mut world = World::new();
    world.hello("w", 1, &["a"]);
    let beat = |epoch, wait_ms| Request::Beat(Beat { session: session("w"), epoch, running: Vec::new(), wait_ms });
    world.ask(1, beat(Some(Epoch(2)), 10_000));
    world.ask(1, beat(Some(Epoch(1)), 0));
    world.ask(1, beat(None, 0));
    world.ask(1, beat(Some(Epoch(1)), 1));
    assert_eq!(world.said(), ["#2 ERR hello_first", "#3 BEAT cancel [] stale []", "#4 BEAT cancel [] stale []"]);
}

#[test]
fn a_goodbye_of_a_stranger_is_believed_when_it_says_nothing() {
    // With outcomes or leases the broker must first be told everything.
    let mut world = World::new();
    let lease = Lease::new(1);
    world.ask(1, Request::Bye(bye("w")));
    world.ask(1, Request::Bye(Bye { release: vec![held(1, lease)], ..bye("w") }));
    world.ask(1, Request::Bye(Bye { outcomes: vec![done(1, lease)], ..bye("w") }));
    assert_eq!(world.said(), ["#1 BYE", "#2 ERR hello_first", "#3 ERR hello_first"]);
}

#[test]
fn what_a_session_names_is_bounded() {
    // 256 kinds and 4,096 slots; one more is refused with the field that names it, and costs nothing else.
    let mut world = World::with(Settings { kinds_max: 1_000, ..settings() });
    let kinds: Vec<String> = (0..257).map(|n| format!("k{n}")).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let refused = |world: &World, reply| match world.answers.get(&reply) {
        Some(Answer::Error(error)) => Some((error.code, error.field.clone().unwrap())),
        _ => None,
    };
    let reply = world.ask(1, hello("v", &kinds, &[]));
    assert_eq!(refused(&world, reply), Some((Code::TooMany, "kinds".into())));
    let reply = world.ask(1, hello("v", &kinds[..256], &[]));
    assert_eq!(refused(&world, reply), None);
    world.hello("w", 1, &["a"]);
    for slot in 0..4_096 {
        assert!(!world.broker_only(1, Request::Ready(Ready { slot, ..ready("w") })));
    }
    let reply = world.ask(1, Request::Ready(Ready { slot: 4_096, ..ready("w") }));
    assert_eq!(refused(&world, reply), Some((Code::Full, "slot".into())));
}
