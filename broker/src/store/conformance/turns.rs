//! Turns and epochs, submits, and the questions of people and of those who wait.

use laneway_core::{Count, Ending, FairRules, Next, Op, OpResult};
use laneway_protocol::message::{Filter, KindValues, LaneValues, NewTask, Stored, TaskRow};
use laneway_protocol::{RequestId, SessionName, TaskState};
use rusqlite::types::Value;

use super::subject::{Subject, World, found_ids, ids, key, kind, lane, new_task, rules, task, text};
use crate::store::{KnownKind, KnownSession, Load, Store, StoreError, Sync};

pub(super) fn a_turn_that_is_rolled_back_never_was<T: Subject>(world: &mut World<T>) {
    // Everything of it is undone, and the same steps said again have the same results.
    let id = world.plain();
    world.insert(&[("kind", text("x"))]);
    let run = world.hand_out(id);
    let bad = world.insert(&[("kind", text("x")), ("max_attempts", Value::Integer(0))]);
    let ops = [
        Op::Started(run.started.clone()),
        Op::Ended(run.failed(Some(world.now.wall.after(500)))),
        Op::Submit { request: RequestId([5; 16]), tasks: vec![new_task("y")], group: None, secured: Vec::new() },
        Op::SessionUp { session: SessionName::new("s").unwrap(), name: "n".into(), plain: false },
    ];
    let before = world.subject.rows();
    let now = world.now;
    let mut tries = Vec::new();
    for commit in [false, true] {
        let store = world.subject.store();
        store.begin(Sync::Power).unwrap();
        let results = store.apply(&ops, now).unwrap();
        let mut intake = store.intake(99, now).unwrap();
        intake.due.sort_unstable();
        intake.later.sort_unstable();
        tries.push((results, intake.rows, intake.due, intake.later, intake.rejected));
        if commit {
            store.commit().unwrap();
        } else {
            store.rollback();
            assert_eq!(world.subject.rows(), before);
        }
    }
    assert_eq!(tries[0], tries[1]);
    assert_eq!(tries[1].4[0].end.task, task(bad));
    assert_eq!(world.state(bad), TaskState::Dead);
    let OpResult::Counts(counts) = world.ask(Op::Counts) else { panic!("no counts") };
    let n: u64 = counts.queued.iter().map(|queue| queue.2).sum();
    assert_eq!((n, counts.dead), (3, 1));
    let intake = world.turn(|store, now| store.intake(99, now).unwrap());
    assert_eq!((intake.rows, intake.due.len(), intake.later.len()), (0, 0, 0));
}

pub(super) fn a_change_is_told_once_wherever_it_lands<T: Subject>(world: &mut World<T>) {
    // Between the last look and a turn's begin above all: there it must not be swallowed.
    assert!(!world.subject.store().changed().unwrap());
    world.plain();
    assert!(!world.subject.store().changed().unwrap(), "our own commits are no news");
    world.insert(&[("kind", text("k"))]);
    assert!(world.subject.store().changed().unwrap());
    assert!(!world.subject.store().changed().unwrap());
    world.insert(&[("kind", text("k"))]);
    world.plain();
    world.plain();
    assert!(world.subject.store().changed().unwrap());
    world.insert(&[("kind", text("k"))]);
    let inside = world.turn(|store, _| (store.changed().unwrap(), store.changed().unwrap()));
    assert_eq!(inside, (true, false));
    assert!(!world.subject.store().changed().unwrap());
}

pub(super) fn a_second_broker_takes_over<T: Subject>(world: &mut World<T>) {
    // The first one notices in its next turn, before it writes anything.
    let id = world.plain();
    let mut second = world.subject.another(rules());
    let opened = second.open_epoch([2; 16], world.now).unwrap();
    let store = world.subject.store();
    let error = store.begin(Sync::Power).unwrap_err();
    assert!(matches!(&error, StoreError::Superseded { by } if *by == opened.epoch), "{error:?}");
    assert!(!error.retry());
    store.rollback();
    // It is not forgotten either.
    assert!(matches!(store.begin(Sync::Process), Err(StoreError::Superseded { .. })));
    store.rollback();
    assert!(matches!(store.close_epoch(world.now), Err(StoreError::Superseded { .. })));
    second.begin(Sync::Process).unwrap();
    let results = second.apply(&[Op::Cancel(vec![task(id)])], world.now).unwrap();
    second.commit().unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(world.state(id), TaskState::Cancelled);
}

pub(super) fn an_epoch_knows_how_the_last_one_ended<T: Subject>(world: &mut World<T>) {
    // Secrets of unclean ones, newest first; what runs; who was there; what is paused.
    assert_eq!((world.opened.epoch.0, world.opened.unclean), (1, false));
    let (id, run) = world.running();
    let forged = world.insert(&[("kind", text("k")), ("state", text("running"))]);
    let session = |name: &str| SessionName::new(name).unwrap();
    world.apply(&[
        Op::SessionUp { session: session("s1"), name: "one".into(), plain: false },
        Op::SessionUp { session: session("s2"), name: "two".into(), plain: true },
        Op::SessionGone { session: session("s1") },
        Op::PauseLane { lane: lane("low"), paused: true },
    ]);
    let mut second = world.subject.another(rules());
    let opened = second.open_epoch([2; 16], world.now).unwrap();
    assert_eq!((opened.epoch.0, opened.unclean), (2, true));
    assert_eq!(opened.past_secrets, [[1; 16]]);
    assert_eq!(opened.sessions, [KnownSession { session: "s2".into(), name: "two".into(), plain: true }]);
    assert_eq!(opened.paused, [lane("low")]);
    assert_eq!(found_ids(&opened.running), [id]);
    let found = &opened.running[0];
    assert_eq!((found.lease, found.runs, found.started_at), (Some(run.started.lease), 1, Some(run.started.at)));
    assert_eq!((&found.lane, found.worker.as_deref()), (&lane("normal"), Some("w1")));
    assert_eq!(world.state(forged), TaskState::Dead, "no worker holds it, so nobody could ever end it");
    second.close_epoch(world.now).unwrap();
    let mut third = world.subject.another(rules());
    let opened = third.open_epoch([3; 16], world.now).unwrap();
    assert!(!opened.unclean);
    assert_eq!(opened.past_secrets, [[1; 16]]);
}

pub(super) fn submits_are_all_or_none_and_said_twice_stored_once<T: Subject>(world: &mut World<T>) {
    // A client that heard no answer asks again with the same request id.
    let mut bad = new_task("k");
    bad.max_attempts = Some(0);
    let refused = world.submit(vec![new_task("k"), bad]);
    let reason = "max_attempts 0 is not 1 to 1000000".into();
    assert_eq!(refused, OpResult::Refused { index: 1, field: "max_attempts", reason });
    assert!(world.subject.rows().is_empty());

    let keyed = NewTask { unique_key: Some("one".into()), ..new_task("k") };
    let submit = Op::Submit {
        request: RequestId([5; 16]),
        tasks: vec![keyed.clone(), new_task("k"), keyed],
        group: None,
        secured: Vec::new(),
    };
    let stored = [(1, true), (2, true), (1, false)].map(|(id, new)| Stored { new, ..Stored::met(task(id)) });
    let stored = OpResult::Submitted(stored.to_vec());
    assert_eq!(world.ask(submit.clone()), stored);
    world.later(599_999);
    assert_eq!(world.ask(submit.clone()), stored, "answered as the first time");
    assert_eq!(world.subject.rows().len(), 2);
    world.later(1);
    let OpResult::Submitted(anew) = world.ask(submit) else { panic!("not stored") };
    assert_eq!((anew[0].new, anew[1].new), (false, true), "after ten minutes it is another request");

    let mut full = new_task("k");
    full.lane = Some(lane("high"));
    (full.run_at, full.expires_at) = (Some(world.now.wall.0 + 5), Some(world.now.wall.0 + 9));
    (full.max_attempts, full.timeout_ms) = (Some(7), Some(500));
    (full.unique_key, full.trace) = (Some("key".into()), Some("trace".into()));
    let id = world.submit_one(full.clone());
    world.later(5);
    let read = world.load(&key("high", "k"), 1).tasks.remove(0);
    assert_eq!((read.id, read.due.0), (task(id), world.now.wall.0));
    assert_eq!((read.max_attempts, read.timeout_ms, read.trace), (Some(7), Some(500), full.trace));
    assert_eq!((read.payload, read.expires_at.map(|at| at.0)), (full.payload, full.expires_at));
}

pub(super) fn a_live_key_gives_the_same_task<T: Subject>(world: &mut World<T>) {
    // Waiting, queued or running; once it has ended the key is free. Keys of other kinds are other keys.
    let keyed = |name| {
        let mut task = new_task(name);
        task.unique_key = Some("one".into());
        task
    };
    let submit = |world: &mut World<T>, name| match world.submit(vec![keyed(name), keyed(name)]) {
        OpResult::Submitted(stored) => stored,
        other => panic!("not stored: {other:?}"),
    };
    let stored = submit(world, "k");
    let id = stored[0].task;
    assert_eq!(stored, [Stored::new(id), Stored::met(id)]);
    let run = world.started(1);
    assert!(submit(world, "k").iter().all(|stored| *stored == Stored::met(id)));
    assert!(submit(world, "other")[0].new);
    world.end(run.failed(None));
    assert!(!submit(world, "k")[0].new);
    let find = |world: &mut World<T>| match world.ask(Op::FindKey { kind: kind("k"), unique_key: "one".into() }) {
        OpResult::Found(found) => found_ids(&found),
        other => panic!("not found: {other:?}"),
    };
    let run = world.started(1);
    world.end(run.done());
    assert_eq!(find(world), [1], "an ended task is found by its key too");
    let again = submit(world, "k");
    assert!(again[0].new);
    assert_eq!(find(world), [i64::try_from(again[0].task.value()).unwrap()]);
}

pub(super) fn endings_tell_pruned_from_never_known<T: Subject>(world: &mut World<T>) {
    // For those who wait, now or later than the row lives.
    let (done, run) = world.running();
    world.end(run.done());
    let gone = world.plain();
    world.subject.app_delete(gone);
    let live = world.plain();
    world.subject.app_delete(world.subject.rows().keys().copied().max().unwrap());
    let tasks = [done, gone, live, 99].map(task).to_vec();
    let OpResult::Endings(endings) = world.ask(Op::Endings(tasks.clone())) else { panic!("no endings") };
    assert!(matches!(&endings[0].1, Ending::Final(end) if end.state == TaskState::Done && end.result.is_some()));
    assert_eq!(
        endings[1..].iter().map(|ending| &ending.1).collect::<Vec<_>>(),
        [&Ending::Pruned, &Ending::Pruned, &Ending::NotFound]
    );
    let live = world.plain();
    let ended = world.subject.store().endings(&[task(done), task(gone), task(live)]).unwrap();
    assert_eq!(
        ended.iter().map(|(task, end)| (task.value(), end.is_some())).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    let OpResult::Endings(endings) = world.ask(Op::Endings(vec![task(live)])) else { panic!("no endings") };
    assert_eq!(endings[0].1, Ending::Live { done: None, total: None, note: None });
}

pub(super) fn lists_come_in_pages<T: Subject>(world: &mut World<T>) {
    // Newest first, by state, kind and the lane that a row without one has.
    for name in ["k", "alarm", "k", "k", "alarm"] {
        world.submit_one(new_task(name));
    }
    let run = world.started(3);
    world.end(run.ended(Next::Dead, Count::Attempt));
    let list = |world: &mut World<T>, filter: Filter| match world.ask(Op::List(filter)) {
        OpResult::Rows(page) => (page.rows.iter().map(|row| row.id.value()).collect::<Vec<_>>(), page.next),
        other => panic!("no rows: {other:?}"),
    };
    assert_eq!(list(world, Filter::default()), (vec![5, 4, 3, 2, 1], None));
    assert_eq!(list(world, Filter { limit: 2, ..Filter::default() }), (vec![5, 4], Some(task(4))));
    let rest = Filter { before: Some(task(4)), kind: Some("k".into()), ..Filter::default() };
    assert_eq!(list(world, rest), (vec![3, 1], None));
    assert_eq!(list(world, Filter { state: Some(TaskState::Dead), ..Filter::default() }).0, [3]);
    assert_eq!(list(world, Filter { lane: Some("high".into()), ..Filter::default() }).0, [5, 2]);
    let queued = Filter { lane: Some("normal".into()), state: Some(TaskState::Queued), ..Filter::default() };
    assert_eq!(list(world, queued).0, [4, 1]);
    let show = Op::Show { tasks: vec![task(3), task(77)], detail: false };
    let OpResult::Rows(shown) = world.ask(show) else { panic!("no rows") };
    assert_eq!((shown.rows[0].state, shown.rows[0].attempts), (TaskState::Dead, 1));
    assert_eq!(shown.not_found, [task(77)]);
    let OpResult::Found(found) = world.ask(Op::Find(vec![task(2), task(77)])) else { panic!("not found") };
    assert_eq!((found_ids(&found), &found[0].lane), (vec![2], &lane("high")));
}

pub(super) fn a_paused_lane_stays_paused<T: Subject>(world: &mut World<T>) {
    // Over a restart; its rows are loaded as ever, for the core decides.
    let pause = |paused| Op::PauseLane { lane: lane("normal"), paused };
    assert_eq!(world.ask(pause(true)), OpResult::Paused);
    let id = world.plain();
    assert_eq!(ids(&world.load(&key("normal", "k"), 1).tasks), [id]);
    let opened = |world: &mut World<T>, n| world.subject.another(rules()).open_epoch([n; 16], world.now).unwrap();
    assert_eq!(opened(world, 2).paused, [lane("normal")]);
    let mut third = world.subject.another(rules());
    third.open_epoch([3; 16], world.now).unwrap();
    third.begin(Sync::Power).unwrap();
    third.apply(&[pause(false)], world.now).unwrap();
    third.commit().unwrap();
    assert!(opened(world, 4).paused.is_empty());
}

/// One task, asked about alone.
fn shown<T: Subject>(world: &mut World<T>, id: i64) -> TaskRow {
    let OpResult::Rows(mut shown) = world.ask(Op::Show { tasks: vec![task(id)], detail: true }) else {
        panic!("no rows")
    };
    shown.rows.remove(0)
}

pub(super) fn the_place_in_a_lane_is_counted<T: Subject>(world: &mut World<T>) {
    // Across kinds, with the lane spelled out or not, at once or at a time; not those of other lanes, of later times, or that
    // do not wait; and not where several are asked about at once.
    let first = world.plain();
    let spelled = world.insert(&[("kind", text("other")), ("lane", text("normal"))]);
    world.insert(&[("kind", text("k")), ("lane", text("high"))]);
    world.insert(&[("kind", text("alarm"))]);
    let at = |ms: i64| ("run_at", Value::Integer(ms));
    let now = world.now.wall.0;
    let past = world.insert(&[("kind", text("k")), at(now - 60_000)]);
    let future = world.insert(&[("kind", text("k")), at(now + 60_000)]);
    let last = world.plain();
    let places = |world: &mut World<T>| [past, first, spelled, last].map(|id| shown(world, id).ahead);
    assert_eq!(places(world), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(shown(world, future).ahead, None);
    let run = world.started(first);
    assert_eq!(shown(world, first).ahead, None);
    assert_eq!(shown(world, last).ahead, Some(2));
    world.end(run.ended(Next::Dead, Count::Attempt));
    world.later(120_000);
    // The one of the future is due now, behind all that came before its time.
    assert_eq!(shown(world, future).ahead, Some(3));
    let two = Op::Show { tasks: vec![task(last), task(past)], detail: true };
    let OpResult::Rows(rows) = world.ask(two) else { panic!("no rows") };
    assert_eq!(rows.rows[0].ahead, None);
}

pub(super) fn a_key_that_lives_again_is_told<T: Subject>(world: &mut World<T>) {
    // Of a task that has ended, and only while another with its kind and key is live.
    let keyed = |world: &mut World<T>, kind: &str| world.insert(&[("kind", text(kind)), ("unique_key", text("daily"))]);
    let old = keyed(world, "k");
    let run = world.started(old);
    world.end(run.ended(Next::Dead, Count::Attempt));
    keyed(world, "other");
    assert_eq!(shown(world, old).twin, None);
    let live = keyed(world, "k");
    assert_eq!(shown(world, old).twin, Some(task(live)));
    assert_eq!(shown(world, live).twin, None);
    let run = world.started(live);
    world.end(run.done());
    assert_eq!(shown(world, old).twin, None);
}

pub(super) fn what_is_set_of_kinds_and_lanes_is_kept<T: Subject>(world: &mut World<T>) {
    // Whole, as it was said last; what is taken back is gone. Nothing of an undone turn is left.
    let opened = |world: &mut World<T>, n| world.subject.another(rules()).open_epoch([n; 16], world.now).unwrap();
    let values = KindValues {
        cap: Some(4),
        rate: Some("10/s".parse().unwrap()),
        rate_burst: Some(20),
        lane: Some(lane("low")),
        max_attempts: Some(7),
        timeout_ms: Some(60_000),
        backoff_base_ms: Some(0),
        backoff_max_ms: Some(500),
        done_age_ms: Some(0),
        done_count_max: Some(1_000_000_000_000),
        cancelled_age_ms: Some(3_153_600_000_000),
        cancelled_count_max: Some(1),
        dead_age_ms: Some(2),
        dead_count_max: Some(3),
    };
    let of_lane =
        LaneValues { cap: Some(0), rate: Some(laneway_protocol::Rate::NONE), rate_burst: Some(1), share: Some(10) };
    let set =
        |name: &str, paused, values: &KindValues| Op::SetKind { kind: kind(name), paused, values: values.clone() };
    let set_lane = |values: &LaneValues| Op::SetLane { lane: lane("low"), values: values.clone() };
    assert_eq!(world.ask(set("mail", false, &KindValues { cap: Some(1), ..values.clone() })), OpResult::Set);
    assert_eq!(world.ask(set_lane(&of_lane)), OpResult::Set);
    let none = KindValues::default();
    world.apply(&[set("mail", true, &values), set("k", true, &none), set("k", false, &none)]);
    let second = opened(world, 2);
    assert_eq!(second.kinds, [KnownKind { kind: kind("mail"), paused: true, values }]);
    assert_eq!(second.lanes, [(lane("low"), of_lane)]);
    let mut third = world.subject.another(rules());
    third.open_epoch([3; 16], world.now).unwrap();
    third.begin(Sync::Power).unwrap();
    third.apply(&[set("mail", false, &none), set_lane(&LaneValues::default())], world.now).unwrap();
    third.rollback();
    assert_eq!(opened(world, 4).kinds.len(), 1);
    let mut fifth = world.subject.another(rules());
    fifth.open_epoch([5; 16], world.now).unwrap();
    fifth.begin(Sync::Power).unwrap();
    fifth.apply(&[set("mail", false, &none), set_lane(&LaneValues::default())], world.now).unwrap();
    fifth.commit().unwrap();
    let last = opened(world, 6);
    assert!(last.kinds.is_empty() && last.lanes.is_empty());
}

pub(super) fn rows_without_a_lane_follow_their_kind<T: Subject>(world: &mut World<T>) {
    // At once, also those that were there before and over a restart; a row's own lane goes before it. Taken back, the lane
    // of the settings holds again, which `alarm` has one of.
    let (k, alarm) = (world.plain(), world.insert(&[("kind", text("alarm"))]));
    let own = world.insert(&[("kind", text("k")), ("lane", text("normal"))]);
    let set = |name: &str, to: Option<&str>| {
        let values = KindValues { lane: to.map(lane), ..KindValues::default() };
        Op::SetKind { kind: kind(name), paused: false, values }
    };
    world.apply(&[set("k", Some("low")), set("alarm", Some("normal"))]);
    assert_eq!(ids(&world.load(&key("low", "k"), 9).tasks), [k]);
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [own]);
    assert_eq!(ids(&world.load(&key("normal", "alarm"), 9).tasks), [alarm]);
    let mut second = world.subject.another(rules());
    second.open_epoch([2; 16], world.now).unwrap();
    let load = |store: &mut T::Store, lane: &str, kind: &str, now| {
        store.begin(Sync::Process).unwrap();
        let load = Load { key: &key(lane, kind), skip: &|_| false, rows: 9, bytes: 1_000, fair: &FairRules::default() };
        let rows = store.load(load, now).unwrap();
        store.commit().unwrap();
        ids(&rows.tasks)
    };
    assert_eq!(load(&mut second, "low", "k", world.now), [k]);
    second.begin(Sync::Power).unwrap();
    second.apply(&[set("k", None), set("alarm", Some("low")), set("alarm", None)], world.now).unwrap();
    second.commit().unwrap();
    assert_eq!(load(&mut second, "normal", "k", world.now), [k, own]);
    assert_eq!(load(&mut second, "high", "alarm", world.now), [alarm]);
}
