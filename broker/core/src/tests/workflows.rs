//! Those who wait for groups and ask about them, and children that ask for their parents.

use laneway_protocol::message::{AboutGroup, Answer, NewGroup, Progress, Request, Submit, WaitFor, Waited};
use laneway_protocol::{Code, Lease, RequestId, TaskId, TaskState};

use super::world::{World, done, id, kind, plain, session, wait_for};
use crate::event::ReplyTo;

fn group_wait(wait_ms: u64) -> Request {
    Request::WaitFor(WaitFor { group: Some(5), ..wait_for(&[], wait_ms) })
}

fn waited(world: &World, reply: ReplyTo) -> Option<Waited> {
    match world.answers.get(&reply) {
        None => None,
        Some(Answer::WaitFor(waited)) => Some(waited.clone()),
        Some(other) => panic!("not what was asked for: {other:?}"),
    }
}

/// Lets the core hear whatever the store has to tell.
fn settle(world: &mut World) {
    for _ in 0..4 {
        world.commit();
    }
}

#[test]
fn a_group_is_waited_for_until_its_last_task_has_ended() {
    // One that joins meanwhile is waited for as well; the answer has the counts, and no results pile up for it.
    let mut world = World::new();
    let mut tasks = world.insert("low", "nobody", 2);
    world.table.groups.insert(5, tasks.clone());
    let reply = world.ask(9, group_wait(60_000));
    settle(&mut world);
    assert!(waited(&world, reply).is_none());
    tasks.extend(world.insert("low", "nobody", 1));
    world.table.groups.insert(5, tasks);
    for n in [1, 2] {
        world.ask(8, Request::Cancel(laneway_protocol::message::Tasks { tasks: vec![id(n)] }));
        settle(&mut world);
    }
    assert!(waited(&world, reply).is_none(), "the third has not ended");
    world.ask(8, Request::Cancel(laneway_protocol::message::Tasks { tasks: vec![id(3)] }));
    settle(&mut world);
    let group = waited(&world, reply).expect("all have ended").group.expect("it was asked for");
    assert_eq!((group.live(), group.cancelled, group.total()), (0, 3, 3));
    assert_eq!(world.table.watched.len(), 0, "nobody is watched for nothing");
}

#[test]
fn a_wait_for_a_group_that_takes_too_long_tells_where_it_stands() {
    // And one for a group that nobody knows, or for two things at once, is refused.
    let mut world = World::new();
    let tasks = world.insert("low", "nobody", 2);
    world.table.groups.insert(5, tasks);
    let reply = world.ask(9, group_wait(1_000));
    settle(&mut world);
    world.pass(1_000);
    settle(&mut world);
    let answer = waited(&world, reply).expect("its time is over");
    assert_eq!((answer.group.unwrap().queued, answer.pending.len()), (2, 2));
    for (request, code) in [
        (Request::WaitFor(WaitFor { group: Some(6), ..wait_for(&[], 0) }), Code::NotFound),
        (Request::WaitFor(WaitFor { group: Some(5), ..wait_for(&[1], 0) }), Code::BadBody),
        (Request::Group(AboutGroup { group: 6, cancel: false }), Code::NotFound),
    ] {
        let reply = world.ask(9, request);
        settle(&mut world);
        let Answer::Error(error) = &world.answers[&reply] else { panic!("not refused") };
        assert_eq!((error.code, error.field.as_deref()), (code, Some("group")));
    }
}

#[test]
fn a_group_is_cancelled_and_then_shown() {
    // The answer follows the commit of the last part.
    let mut world = World::new();
    let tasks = world.insert("low", "nobody", 2);
    world.table.groups.insert(5, tasks);
    let reply = world.ask(9, Request::Group(AboutGroup { group: 5, cancel: true }));
    assert_eq!(world.take(), ["cancel group 5"]);
    settle(&mut world);
    assert!(matches!(&world.answers[&reply], Answer::Group(row) if row.group == 5));
    assert!(world.table.rows.values().all(|row| row.cancel_requested));
}

#[test]
fn a_submit_that_makes_a_group_hears_its_number() {
    // With the ids of its tasks.
    let mut world = World::new();
    let tasks = vec![laneway_protocol::message::NewTask::new(kind("a"), None)];
    let submit =
        Submit { request: RequestId([1; 16]), tasks, wait_ms: 0, abandon: false, group: Some(NewGroup::default()) };
    let reply = world.ask(9, Request::Submit(submit));
    settle(&mut world);
    let Answer::Submit(submitted) = &world.answers[&reply] else { panic!("not stored") };
    assert_eq!((submitted.tasks.len(), submitted.group), (1, Some(1)));
}

/// Task 2 of worker `w` asks how its parents behind this id ended.
fn ask_parents(world: &mut World, lease: Lease, after: u64) -> Answer {
    let question = Progress {
        session: session("w"),
        task: id(2),
        lease,
        done: None,
        total: None,
        note: None,
        extend_ms: None,
        data: None,
        log: None,
        checkpoint: None,
        parents: Some(after),
    };
    let reply = world.ask(1, Request::Progress(question));
    settle(world);
    world.answers[&reply].clone()
}

#[test]
fn parents_without_room_come_with_the_next_question() {
    // Each once, in order, however long what they failed with.
    let mut world = World::new();
    world.insert("low", "b", 1);
    world.insert("low", "a", 1);
    let asked = world.ask(1, Request::Ready(plain("w", &["a"])));
    settle(&mut world);
    let lease = world.lease(asked);
    let parents: Vec<TaskId> = (0..100)
        .map(|_| {
            world.insert_with("low", "b", |row| {
                row.state = TaskState::Dead;
                row.error = Some("é".repeat(20_000));
            })
        })
        .collect();
    world.table.parents.insert(id(2), parents.clone());
    let (mut told, mut pages, mut after) = (Vec::new(), 0, 0);
    loop {
        let Answer::Progress(noted) = ask_parents(&mut world, lease, after) else { panic!("not told") };
        pages += 1;
        told.extend(noted.parents.iter().map(|parent| parent.task));
        after = told.last().unwrap().value();
        if !noted.more {
            break;
        }
    }
    assert!(told == parents && (2..=parents.len() / 4).contains(&pages), "{pages} pages: {told:?}");
}

#[test]
fn a_group_is_waited_for_alone() {
    // Beside a task or a key it could mean either.
    let mut world = World::new();
    let alone = WaitFor { group: Some(5), ..wait_for(&[], 100) };
    for more in [
        WaitFor { tasks: vec![id(1)], ..alone.clone() },
        WaitFor { kind: Some(kind("a")), ..alone.clone() },
        WaitFor { unique_key: Some("x".into()), ..alone },
    ] {
        let reply = world.ask(9, Request::WaitFor(more));
        let Some(Answer::Error(error)) = world.answers.remove(&reply) else { panic!("taken") };
        assert_eq!((error.code, error.field.as_deref()), (Code::BadBody, Some("group")));
    }
}

#[test]
fn a_running_child_is_told_how_its_parents_ended() {
    // Under its lease alone, behind the id that it names, and with their results.
    let mut world = World::new();
    world.insert("low", "a", 2);
    let asked = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    let first = world.lease(asked);
    world.ask(
        1,
        Request::Ready(laneway_protocol::message::Ready { outcomes: vec![done(1, first)], ..plain("w", &["a"]) }),
    );
    settle(&mut world);
    let lease = *world.table.rows[&id(2)].lease.as_ref().expect("the second runs");
    world.table.parents.insert(id(2), vec![id(1)]);
    let ask = |world: &mut World, after, lease| ask_parents(world, lease, after);
    let Answer::Progress(noted) = ask(&mut world, 0, lease) else { panic!("not told") };
    assert_eq!((noted.parents[0].task, noted.parents[0].state, noted.more), (id(1), TaskState::Done, false));
    let Answer::Progress(noted) = ask(&mut world, 1, lease) else { panic!("not told") };
    assert!(noted.parents.is_empty());
    assert!(matches!(ask(&mut world, 0, first), Answer::Error(error) if error.code == Code::Stale));
}

#[test]
fn for_whom_a_task_waits_is_told_in_a_sentence() {
    // By name as far as there is room, and how many there are besides.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let mut row = world.table.show(&[id(1)]).rows.remove(0);
    let mut says = |ids: &[u64], n: u32| {
        (row.waits_for, row.waits_for_n) = (ids.iter().map(|n| id(*n)).collect(), n);
        crate::waits_for(&row)
    };
    assert_eq!(says(&[7], 1), "it waits for task 7, which has not ended");
    assert_eq!(says(&[7, 9], 2), "it waits for 2 tasks that have not ended: 7, 9");
    assert_eq!(says(&[7, 9], 40), "it waits for 40 tasks that have not ended: 7, 9 and 38 more");
}
