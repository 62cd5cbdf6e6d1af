//! Those who look and steer: what they are told of tasks, lanes, workers and the whole.

use laneway_protocol::message::{
    Answer, Drain, End, Filter, Hello, KindRow, Kinds, LaneRow, Lanes, ListWorkers, LostWorker, NewSchedule, Outcome,
    Ready, Request, Schedules, StatsReport, Status, Tasks, WorkerRow,
};
use laneway_protocol::{Lease, TaskState};

use super::world::{World, done, failed, hello, id, kind, lane, plain, ready, session};
use crate::ConnId;
use crate::action::Counts;
use crate::event::{Event, ReplyTo};

/// What somebody who looks is told, after a commit.
fn look(world: &mut World, request: Request) -> Answer {
    let reply = world.ask(9, request);
    world.commit();
    world.take();
    world.answers.remove(&reply).unwrap()
}

/// What the store has counted, with each number its own.
fn counts() -> Counts {
    let queued = [("low", "a", 3), ("low", "b", 4), ("normal", "b", 5), ("old", "b", 6), ("gone", "c", 0)];
    Counts {
        submitted: 11,
        queued: queued.map(|(lane, kind, n)| (lane.into(), kind.into(), n)).to_vec(),
        dead: 12,
        wal_bytes: 13,
        wal_pinned_bytes: 17,
        commit_p50_us: 14,
        commit_p99_us: 15,
        overtaken: 16,
    }
}

#[test]
fn a_status_names_tasks_or_a_filter() {
    // Neither or both make no sense. More than 16 rows are not shown with all their detail.
    let cases = [
        (0, true, false, "list"),
        (1, false, false, "show"),
        (0, false, false, "#1 ERR bad_body"),
        (1, true, false, "#1 ERR bad_body"),
        (16, false, true, "show"),
        (17, false, false, "show"),
        (17, false, true, "#1 ERR too_many"),
        (18, false, true, "#1 ERR too_many"),
    ];
    for (n, filtered, detail, expected) in cases {
        let mut world = World::new();
        let filter = filtered.then(Filter::default);
        world.ask(9, Request::Status(Status { tasks: (1..=n).map(id).collect(), filter, detail }));
        let said = world.take();
        assert!(said.len() == 1 && said[0].starts_with(expected), "{n} ids, filter {filtered}, {detail}: {said:?}");
    }
}

#[test]
fn a_requeue_is_answered_after_its_commit() {
    // A dead task is queued again and runs. While the store refuses writes, neither that nor a cancel is asked of it.
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.table.rows.get_mut(&id(1)).unwrap().state = TaskState::Dead;
    let tasks = || Tasks { tasks: vec![id(1), id(2), id(3)] };
    world.ask(9, Request::Requeue(tasks()));
    assert_eq!(world.take(), ["requeue 1 2 3"]);
    world.commit();
    assert_eq!(world.take(), ["#1 VERDICTS [Requeued, Unchanged, NotFound]"]);
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    assert_eq!(world.tasks(reply)[0].0, 1);
    world.event(Event::StoreFailed("disk full".into()));
    world.take();
    world.ask(9, Request::Requeue(tasks()));
    world.ask(9, Request::Cancel(tasks()));
    assert_eq!(world.take(), ["#3 ERR storage", "#4 ERR storage"]);
}

#[test]
fn a_lane_is_told_with_what_is_queued_runs_and_waits_in_it() {
    // Those of the settings in their order, with all their kinds together; then others that have a backlog.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let some = |lanes: &[&str]| Some(lanes.iter().map(|name| lane(name)).collect());
    for (slot, lanes) in [["normal", "low"], ["normal", "low"], ["high", "low"]].iter().enumerate() {
        let slot = u32::try_from(slot).unwrap();
        world.ask(1, Request::Ready(Ready { slot, lanes: some(lanes), ..plain("w", &["a"]) }));
        world.commit();
    }
    world.table.counts = counts();
    let row = |name: &str, configured, queued, running, ready| LaneRow {
        paused: name == "high",
        configured,
        queued,
        running,
        ready,
        handed_out: running,
        ..LaneRow::new(name.into())
    };
    let Answer::Lanes(told) =
        look(&mut world, Request::Lanes(Lanes { pause: vec![lane("high")], resume: vec![], ..Lanes::default() }))
    else {
        panic!("no lanes")
    };
    let expected = [
        row("high", true, 0, 0, 1),
        row("normal", true, 5, 0, 1),
        row("low", true, 7, 1, 2),
        row("old", false, 6, 0, 0),
    ];
    assert_eq!(told.lanes, expected);
}

#[test]
fn a_lane_that_nobody_knows_is_not_paused_and_neither_is_any_other() {
    // The names are looked at before anything is done.
    let mut world = World::new();
    world.ask(9, Request::Lanes(Lanes { pause: vec![lane("high"), lane("none")], resume: vec![], ..Lanes::default() }));
    world.ask(9, Request::Lanes(Lanes { pause: vec![lane("high")], resume: vec![lane("none")], ..Lanes::default() }));
    assert_eq!(world.take(), ["#1 ERR unknown_lane", "#2 ERR unknown_lane"]);
    let Some(Answer::Error(error)) = world.answers.get(&ReplyTo(2)) else { panic!("it was done") };
    assert_eq!(error.text, "lane 'none' is not one of high, normal, low");
    assert_eq!(error.field.as_deref(), Some("resume"));
}

#[test]
fn the_stats_count_what_happened_since_the_start() {
    // Each kind of end its number of times; what the store counts as it says; kinds with a backlog or a worker.
    let mut world = World::new();
    world.insert("low", "a", 7);
    world.hello("w", 1, &["a", "d"]);
    let ends = |n, lease| match n {
        1..=3 => done(n, lease),
        4 | 5 => failed(n, lease),
        _ => Outcome::new(id(n), lease, End::Release),
    };
    for n in 1..=6 {
        let reply = world.ask(1, Request::Ready(ready("w")));
        world.commit();
        let outcomes = vec![ends(n, world.lease(reply)), done(n, Lease::new(1))];
        world.ask(1, Request::Ready(Ready { outcomes, max: 0, ..ready("w") }));
        world.commit();
        // The released task comes back as the next.
    }
    world.ask(2, Request::Ready(plain("v", &["a"])));
    world.commit();
    world.event(Event::Disconnected(ConnId(2)));
    world.pass(500);
    world.commit();
    for slot in 0..2 {
        world.ask(1, Request::Ready(Ready { slot, max: 1, ..ready("w") }));
        world.commit();
    }
    world.ask(1, Request::Ready(Ready { slot: 2, ..ready("w") }));
    world.event(Event::BadMessage);
    world.event(Event::BadMessage);
    world.event(Event::StoreFailed("disk full".into()));
    world.table.counts = counts();
    let Answer::Stats(told) = look(&mut world, Request::Stats) else { panic!("no stats") };
    let kind = |name: &str, queued, workers| KindRow { kind: name.into(), queued, workers };
    let expected = StatsReport {
        epoch: 1,
        version: "1.2.3".into(),
        uptime_ms: 500,
        draining: false,
        quiet: false,
        queued: 18,
        running: 2,
        dead: 12,
        workers: 1,
        workers_lost: 1,
        lost_workers: vec![LostWorker { name: "v".into(), host: String::new(), running: 1, ago_ms: 0 }],
        ready: 1,
        submitted: 11,
        handed_out: 9,
        done: 3,
        failed: 2,
        lost: 1,
        released: 1,
        cancelled: 0,
        stale: 6,
        bad_messages: 2,
        overtaken: 16,
        log_lines_dropped: 0,
        wal_bytes: 13,
        wal_pinned_bytes: 17,
        commit_p50_us: 14,
        commit_p99_us: 15,
        storage_error: Some("disk full".into()),
        kinds: vec![kind("a", 3, 1), kind("b", 15, 0), kind("d", 0, 1)],
    };
    assert_eq!(told, expected);
}

#[test]
fn a_worker_is_told_as_it_introduced_itself() {
    // With its slots that wait, what it runs, how long it is there, and whether its connections are gone. One that said no
    // HELLO is known by what its slots can run. The list goes on behind the session that is named.
    let mut world = World::new();
    world.insert("low", "a", 2);
    let Request::Hello(introduction) = hello("w", &["a", "b"], &[]) else { unreachable!() };
    let (name, host, sdk) = ("thumbs".into(), "al\nder".into(), "x".repeat(200));
    let about = Hello { name, host, pid: 47, sdk, slots: 4, lanes: Some(vec![lane("low")]), ..introduction };
    world.ask(1, Request::Hello(about));
    for slot in 0..3 {
        world.ask(1, Request::Ready(Ready { slot, ..ready("w") }));
        world.commit();
    }
    world.jump(700);
    for (slot, kinds) in [&["b", "a"], &["c", "b"]].iter().enumerate() {
        let slot = u32::try_from(slot).unwrap();
        world.ask(2, Request::Ready(Ready { slot, wait_ms: 0, ..plain("x", *kinds) }));
    }
    world.event(Event::Disconnected(ConnId(2)));
    world.jump(11);
    let workers = |world: &mut World, after: Option<&str>| {
        let Answer::Workers(rows) = look(world, Request::Workers(ListWorkers { after: after.map(session) })) else {
            panic!("no workers")
        };
        assert_eq!(rows.next, None);
        rows.workers
    };
    let first = WorkerRow {
        session: session("w"),
        name: "thumbs".into(),
        host: "alder".into(),
        pid: 47,
        sdk: "x".repeat(128),
        kinds: vec![kind("a"), kind("b")],
        lanes: vec![lane("low")],
        slots: 4,
        ready: 1,
        running: vec![id(1), id(2)],
        connected_ms: 711,
        away: false,
        draining: false,
    };
    let second = WorkerRow {
        session: session("x"),
        name: String::new(),
        host: String::new(),
        pid: 0,
        sdk: String::new(),
        kinds: vec![kind("a"), kind("b"), kind("c")],
        lanes: ["high", "normal", "low"].map(lane).to_vec(),
        slots: 2,
        ready: 0,
        running: Vec::new(),
        connected_ms: 11,
        away: true,
        draining: false,
    };
    assert_eq!(workers(&mut world, None), [first, second.clone()]);
    assert_eq!(workers(&mut world, Some("w")), [second]);
    assert_eq!(workers(&mut world, Some("x")), []);
}

/// Why task `n` is where it is.
fn explain(world: &mut World, n: u64) -> String {
    let asked = Request::Status(Status { tasks: vec![id(n)], filter: None, detail: true });
    let Answer::Status(rows) = look(world, asked) else { panic!("no rows") };
    rows.rows[0].explain.clone().unwrap()
}

#[test]
fn why_a_queued_task_does_not_run_is_told_by_the_nearest_cause() {
    // Each cause hides those behind it.
    let mut world = World::new();
    world.insert_with("low", "a", |row| row.due = row.due.after(70));
    assert_eq!(explain(&mut world, 1), "it is due in 70 ms");
    world.jump(70);
    assert_eq!(explain(&mut world, 1), "no connected worker can run kind 'a'; none is connected");
    world.hello("x", 5, &["b", "c"]);
    assert_eq!(explain(&mut world, 1), "no connected worker can run kind 'a'; those that are offer b, c");
    let lanes = |name| Some(vec![lane(name)]);
    world.ask(1, Request::Ready(Ready { lanes: lanes("high"), wait_ms: 0, ..plain("w", &["a"]) }));
    world.ask(1, Request::Ready(Ready { slot: 1, wait_ms: 0, ..plain("w", &["b"]) }));
    assert_eq!(explain(&mut world, 1), "workers for kind 'a' are connected, but none serves lane 'low'");
    world.ask(1, Request::Ready(Ready { wait_ms: 0, ..plain("w", &["a"]) }));
    world.commit();
    assert_eq!(explain(&mut world, 1), "it is among the next; every worker that can run it is busy");
    let behind = |world: &mut World, ahead| {
        world.table.rows.get_mut(&id(1)).unwrap().ahead = ahead;
        let why = explain(world, 1);
        why.strip_prefix("it is among the next, ").and_then(|why| why.split_once(';')).unwrap().0.to_owned()
    };
    assert_eq!(behind(&mut world, Some(0)), "the first of lane 'low'");
    assert_eq!(behind(&mut world, Some(1)), "behind one of lane 'low'");
    assert_eq!(behind(&mut world, Some(10_000)), "behind 10000 of lane 'low'");
    assert_eq!(behind(&mut world, Some(10_001)), "behind more than 10000 of lane 'low'");
    world.insert_with("low", "a", |row| row.expires_at = Some(row.due));
    assert_eq!(explain(&mut world, 2), "it waits behind earlier tasks, or those of higher lanes");
    let pause = Lanes { pause: vec![lane("low")], resume: Vec::new(), ..Lanes::default() };
    world.ask(9, Request::Lanes(pause));
    assert_eq!(explain(&mut world, 1), "lane 'low' is paused; `laneway lane resume low` resumes it");
    world.ask(9, Request::Drain(Drain::default()));
    assert_eq!(explain(&mut world, 1), "the broker hands out nothing: it is draining");
    world.ask(9, Request::Drain(Drain { release: false, off: true, worker: None }));
    world.event(Event::Quiet(true));
    let quiet = "the broker hands out nothing: it was told to be quiet (SIGTSTP); SIGCONT ends that";
    assert_eq!(explain(&mut world, 1), quiet);
    world.event(Event::Stop);
    assert_eq!(explain(&mut world, 1), "the broker hands out nothing: it is draining");
    world.event(Event::StoreFailed("disk full".into()));
    assert_eq!(explain(&mut world, 1), "nothing is handed out: disk full");
    world.table.rows.get_mut(&id(1)).unwrap().lane = lane("old");
    assert_eq!(explain(&mut world, 1), "lane 'old' is not in the settings; its backlog is kept until it is");

    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    world.restart(false);
    assert_eq!(explain(&mut world, 1), "the broker was just restarted and waits for its workers");
}

#[test]
fn a_worker_that_has_lost_its_connection_offers_nothing() {
    // Neither in a sentence nor in a count, until it is back.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    world.hello("x", 2, &["b"]);
    let workers = |world: &mut World| {
        let Answer::Kinds(rows) = look(world, Request::Kinds(Kinds::default())) else { panic!("no kinds") };
        rows.kinds.iter().map(|row| (row.kind.to_string(), row.workers)).collect::<Vec<_>>()
    };
    assert_eq!(workers(&mut world), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    world.event(Event::Disconnected(ConnId(1)));
    assert_eq!(workers(&mut world), [("a".to_owned(), 0), ("b".to_owned(), 1)]);
    assert_eq!(explain(&mut world, 1), "no connected worker can run kind 'a'; those that are offer b");
    world.event(Event::Disconnected(ConnId(2)));
    assert_eq!(explain(&mut world, 1), "no connected worker can run kind 'a'; none is connected");
}

#[test]
fn what_becomes_of_a_running_task_is_told() {
    // Who runs it and whether it is to stop; after a restart nobody does, and a row that runs for nobody has just ended.
    let mut world = World::new();
    world.insert("low", "a", 1);
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(ready("w")));
    world.commit();
    world.jump(12_000);
    let why = "worker w (pid 1, session w) runs it since 12 s, and may for 48 s more";
    assert_eq!(explain(&mut world, 1), why);
    world.ask(9, Request::Cancel(Tasks { tasks: vec![id(1)] }));
    world.commit();
    let why = "worker w (pid 1, session w) runs it since 12 s, was told to stop, and may for 5000 ms more";
    assert_eq!(explain(&mut world, 1), why);
    world.restart(true);
    let why = "its worker w has not come back since the broker was started; it runs since 0 ms, its lease ends in 48 s, and unless it \
               comes back the task does in 15 s";
    assert_eq!(explain(&mut world, 1), why);
    world.overtake(1, Some(TaskState::Running));
    assert_eq!(explain(&mut world, 1), "worker w has just ended it, or the row was changed by SQL");
}

#[test]
fn schedules_are_the_stores_and_a_refusal_names_the_field() {
    // A look and a change are answered after their commit. While the store refuses writes a change is not asked of it.
    let mut world = World::new();
    let put = |cron: &str| Schedules {
        put: Some(Box::new(NewSchedule::new("s", cron, kind("a"), None))),
        ..Schedules::default()
    };
    world.ask(9, Request::Schedules(Schedules::default()));
    world.ask(9, Request::Schedules(put("* * * * *")));
    assert_eq!(world.take(), ["schedules change false", "schedules change true"]);
    world.commit();
    assert_eq!(world.take(), ["#1 SCHEDULES 0", "#2 SCHEDULES 0"]);
    let reply = world.ask(9, Request::Schedules(put("")));
    world.commit();
    world.take();
    let Some(Answer::Error(error)) = world.answers.get(&reply) else { panic!("it was taken") };
    assert_eq!((error.code.as_str(), error.field.as_deref()), ("bad_task", Some("put.cron")));
    world.event(Event::StoreFailed("disk full".into()));
    world.take();
    world.ask(9, Request::Schedules(put("* * * * *")));
    assert_eq!(world.take(), ["#4 ERR storage"]);
}
