//! Queues: what load, intake, sweep and the counts make of rows, whoever wrote them.

use laneway_core::{Count, FairRules, Next, Op, OpResult, UnixMillis};
use laneway_protocol::TaskState;
use laneway_protocol::message::{Payload, Verdict};
use rusqlite::types::Value;

use super::subject::{START, Subject, World, ids, key, lane, new_task, rules, task, text};
use crate::store::{Load, Rules, Store, Sync};

fn counts<T: Subject>(world: &mut World<T>) -> Vec<(String, String, u64)> {
    match world.ask(Op::Counts) {
        OpResult::Counts(counts) => counts.queued,
        other => panic!("no counts: {other:?}"),
    }
}

fn recount<T: Subject>(world: &mut World<T>, rows: usize) {
    for _ in 0..1000 {
        if world.turn(|store, _| store.recount(rows).unwrap()) {
            return;
        }
    }
    panic!("the pass never ends");
}

pub(super) fn load_is_in_order_of_due_time_and_id<T: Subject>(world: &mut World<T>) {
    // Rows at once, retries and delayed ones mixed, with the lane spelled out and not.
    let at = |ms| ("run_at", Value::Integer(START + ms));
    let created = |ms| ("created_at", Value::Integer(START + ms));
    let (k, normal) = (("kind", text("k")), ("lane", text("normal")));
    let rows: [&[(&'static str, Value)]; 7] = [
        &[k.clone(), created(50)],
        &[k.clone(), normal.clone(), created(40)],
        &[k.clone(), at(30)],
        &[k.clone(), normal.clone(), at(20)],
        &[k.clone(), at(50)],
        &[k.clone(), created(60)],
        &[k.clone(), normal, created(50)],
    ];
    for row in rows {
        world.insert(row);
    }
    world.later(100);
    let loaded = world.load(&key("normal", "k"), 9);
    assert_eq!(ids(&loaded.tasks), [4, 3, 2, 1, 5, 7, 6]);
    assert_eq!(loaded.tasks[0].due, UnixMillis(START + 20));
    assert!(!loaded.more);
    // A part of it is the head of it.
    let loaded = world.load(&key("normal", "k"), 3);
    assert_eq!((ids(&loaded.tasks), loaded.more), (vec![4, 3, 2], true));
    assert!(!world.load(&key("normal", "k"), 7).more);
}

pub(super) fn rows_without_a_lane_belong_to_the_default_of_their_kind<T: Subject>(world: &mut World<T>) {
    // To that one only.
    for kind in ["k", "alarm"] {
        world.insert(&[("kind", text(kind))]);
        world.insert(&[("kind", text(kind)), ("lane", text("high"))]);
        world.insert(&[("kind", text(kind)), ("lane", text("normal"))]);
    }
    let loaded = |world: &mut World<T>, lane, kind| ids(&world.load(&key(lane, kind), 9).tasks);
    assert_eq!(loaded(world, "normal", "k"), [1, 3]);
    assert_eq!(loaded(world, "high", "k"), [2]);
    assert_eq!(loaded(world, "high", "alarm"), [4, 5]);
    assert_eq!(loaded(world, "normal", "alarm"), [6]);
}

pub(super) fn load_leaves_out_what_it_is_told_to<T: Subject>(world: &mut World<T>) {
    // Rows in memory or handed out are still queued in the table; `more` counts only those that are left.
    for _ in 0..6 {
        world.plain();
    }
    let key = key("normal", "k");
    let loaded = world.load_but(&key, 2, &[1, 2, 4]);
    assert_eq!((ids(&loaded.tasks), loaded.more), (vec![3, 5], true));
    let loaded = world.load_but(&key, 2, &[1, 2, 3, 4]);
    assert_eq!((ids(&loaded.tasks), loaded.more), (vec![5, 6], false));
    let loaded = world.load_but(&key, 2, &[1, 2, 3, 4, 5, 6]);
    assert!(loaded.tasks.is_empty() && !loaded.more);
}

pub(super) fn load_is_bounded_in_bytes_but_gives_one<T: Subject>(world: &mut World<T>) {
    // Else one row over the bound would stop its queue.
    for bytes in [100, 300, 10] {
        let mut task = new_task("k");
        task.payload = Some(Payload::bin(vec![7; bytes]));
        world.submit_one(task);
    }
    let load = |world: &mut World<T>, bytes| {
        let key = key("normal", "k");
        world.turn(|store, now| {
            store.load(Load { key: &key, skip: &|_| false, rows: 9, bytes, fair: &FairRules::default() }, now).unwrap()
        })
    };
    let loaded = load(world, 50);
    assert_eq!((ids(&loaded.tasks), loaded.more), (vec![1], true));
    assert_eq!(loaded.tasks[0].payload, Some(Payload::bin(vec![7; 100])));
    assert_eq!(ids(&load(world, 350).tasks), [1]);
    assert_eq!(ids(&load(world, 400).tasks), [1, 2]);
    assert_eq!(ids(&load(world, 410).tasks), [1, 2, 3]);
}

pub(super) fn later_rows_are_told_and_come_when_they_are_due<T: Subject>(world: &mut World<T>) {
    // By load and by intake, whoever inserted them; fractions of a millisecond are an app's arithmetic.
    let key = key("normal", "k");
    let at = world.now.wall.after(1000);
    world.insert(&[("kind", text("k")), ("run_at", Value::Integer(at.0))]);
    world.insert(&[("kind", text("k")), ("run_at", Value::Real(1_820_000_002_000.5))]);
    let intake = world.turn(|store, now| store.intake(9, now).unwrap());
    assert_eq!((intake.rows, intake.due.as_slice()), (2, [].as_slice()));
    assert_eq!(intake.later, [(key.clone(), at)]);
    let loaded = world.load(&key, 9);
    assert_eq!((loaded.tasks.len(), loaded.more, loaded.next_at), (0, false, Some(at)));
    world.later(1000);
    let loaded = world.load(&key, 9);
    assert_eq!((ids(&loaded.tasks), loaded.next_at), (vec![1], Some(at.after(1001))));
    world.later(1001);
    let loaded = world.load(&key, 9);
    assert_eq!((ids(&loaded.tasks), loaded.next_at), (vec![1, 2], None));

    let (id, run) = (3, world.plain());
    assert_eq!(id, run);
    let run = world.started(id);
    let at = world.now.wall.after(5000);
    world.end(run.failed(Some(at)));
    let intake = world.turn(|store, now| store.intake(9, now).unwrap());
    assert!(intake.later.contains(&(key, at)), "{intake:?}");
}

pub(super) fn rows_without_run_at_are_due_whatever_the_clock_says<T: Subject>(world: &mut World<T>) {
    // A clock that went back by an hour, here or where the row was inserted.
    world.insert(&[("kind", text("k")), ("created_at", Value::Integer(START + 3_600_000))]);
    world.later(-3_600_000);
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [1]);
}

pub(super) fn bad_rows_become_dead_with_a_reason<T: Subject>(world: &mut World<T>) {
    // In the intake and in the load alike, and a good row beside them is not touched.
    let cases: [(&str, Value, &str); 11] = [
        (
            "lane",
            text("hihg"),
            "lane 'hihg' is not configured: use one of high, normal, low, or add it to the settings",
        ),
        ("lane", Value::Blob(vec![1]), "lane is a BLOB of 1 bytes: insert TEXT or NULL"),
        ("kind", Value::Blob(vec![1]), "kind is a BLOB of 1 bytes: insert TEXT"),
        ("kind", text("a\nb"), "kind \"a\\nb\" has control characters: choose another name"),
        (
            "run_at",
            Value::Integer(1_700_000_000),
            "run_at 1700000000 looks like seconds: use milliseconds, 1700000000000",
        ),
        ("run_at", text("soon"), "run_at is the text 'soon': insert Unix milliseconds as INTEGER"),
        ("max_attempts", Value::Integer(0), "max_attempts 0 is not 1 to 1000000"),
        ("timeout_ms", text("long"), "timeout_ms is the text 'long': insert a whole number or NULL"),
        ("payload", Value::Integer(5), "payload is a number: insert it as TEXT, which is JSON, or as BLOB"),
        (
            "payload",
            Value::Blob(vec![0; 1001]),
            "payload has 1001 bytes, at most 1000 are allowed: store it elsewhere and insert its place",
        ),
        ("expires_at", Value::Integer(12), "expires_at 12 looks like seconds: use milliseconds, 12000"),
    ];
    let good = world.insert(&[("kind", text("k"))]);
    for by_load in [false, true] {
        for (column, value, reason) in &cases {
            let mut cells = vec![("kind", text("k")), ("lane", Value::Null)];
            cells.retain(|cell| cell.0 != *column);
            cells.push((column, value.clone()));
            let id = world.insert(&cells);
            let mut rejected = Vec::new();
            if by_load {
                world.later(1);
                rejected.extend(world.load(&key("normal", "k"), 99).rejected);
                // Where no load finds them, the sweep does.
                world.turn(|store, _| store.recount(9999).unwrap());
                rejected.extend(world.turn(|store, now| store.sweep(99, now).unwrap().ended));
            } else {
                rejected.extend(world.turn(|store, now| store.intake(99, now).unwrap().rejected));
            }
            assert_eq!(rejected.len(), 1, "{column} {value:?}");
            assert_eq!((rejected[0].end.task, rejected[0].end.state), (task(id), TaskState::Dead));
            assert_eq!(rejected[0].end.error.as_deref(), Some(*reason));
            assert_eq!((world.state(id), world.cell(id, "error")), (TaskState::Dead, text(reason)));
            assert_eq!(world.counters(id), [0, 0, 0, 0]);
            let failure = world.subject.failures().pop().unwrap();
            assert_eq!((failure.task, failure.cause, failure.error.as_str()), (id, "rejected", *reason));
        }
    }
    assert_eq!(ids(&world.load(&key("normal", "k"), 99).tasks), [good]);
    recount(world, 999);
    assert_eq!(counts(world), [("normal".into(), "k".into(), 1)]);
}

pub(super) fn a_head_full_of_bad_rows_hides_nothing<T: Subject>(world: &mut World<T>) {
    // Load reads two rows here and finds three bad ones before the good one.
    for _ in 0..3 {
        world.insert(&[("kind", text("k")), ("max_attempts", Value::Integer(0))]);
    }
    let good = world.insert(&[("kind", text("k"))]);
    let loaded = world.load(&key("normal", "k"), 1);
    assert_eq!((ids(&loaded.tasks), loaded.rejected.len()), (vec![good], 3));
}

pub(super) fn a_look_finds_what_a_turn_would_and_writes_nothing<T: Subject>(world: &mut World<T>) {
    // What is to be rejected is left to a turn, and what takes turns goes on where it was.
    let look = |world: &mut World<T>, fair: &FairRules| {
        let (now, key) = (world.now, key("normal", "k"));
        let store = world.subject.store();
        store.look().unwrap();
        let loaded = store.load(Load { key: &key, skip: &|_| false, rows: 2, bytes: 999, fair }, now).unwrap();
        store.end_look().unwrap();
        loaded
    };
    for keyed in [false, true] {
        let insert = |world: &mut World<T>, cell: (&'static str, Value)| {
            let mut cells = vec![("kind", text("k")), cell];
            cells.extend(keyed.then(|| ("fair_key", text("x"))));
            world.insert(&cells)
        };
        let fair = FairRules::default();
        let good = [insert(world, ("lane", Value::Null)), insert(world, ("lane", text("normal")))];
        let loaded = look(world, &fair);
        assert_eq!((ids(&loaded.tasks), loaded.unfit), (good.to_vec(), false));
        world.subject.app_update(good[0], &[("max_attempts", Value::Integer(0))]);
        world.subject.app_update(good[1], &[("cancel_requested", Value::Integer(1))]);
        let third = insert(world, ("lane", Value::Null));
        let loaded = look(world, &fair);
        assert!(loaded.unfit && loaded.tasks.is_empty() && loaded.rejected.is_empty(), "{loaded:?}");
        assert_eq!(world.subject.rows()[&good[0]]["state"], text("queued"));
        let loaded = world.load(&key("normal", "k"), 2);
        assert_eq!((ids(&loaded.tasks), loaded.rejected.len(), loaded.unfit), (vec![third], 2, false));
        world.subject.app_delete(third);
    }
}

pub(super) fn intake_tells_new_queues_once<T: Subject>(world: &mut World<T>) {
    // In pieces; rows of our own hand are told too; a row that is not queued is in no queue.
    for kind in ["a", "a", "b"] {
        world.insert(&[("kind", text(kind))]);
    }
    world.insert(&[("kind", text("c")), ("state", text("done"))]);
    let bad = world.insert(&[("kind", text("c")), ("state", text("waiting"))]);
    let intake = |world: &mut World<T>| world.turn(|store, now| store.intake(2, now).unwrap());
    let first = intake(world);
    assert_eq!((first.rows, first.due.as_slice()), (2, [key("normal", "a")].as_slice()));
    let second = intake(world);
    assert_eq!((second.rows, second.due.as_slice()), (2, [key("normal", "b")].as_slice()));
    let third = intake(world);
    assert_eq!((third.rows, third.due.len()), (1, 0));
    assert_eq!(third.rejected[0].end.task, task(bad));
    let own = world.submit_one(new_task("d"));
    assert_eq!(intake(world).due, [key("normal", "d")]);
    assert!(intake(world).due.is_empty());
    let run = world.started(own);
    world.end(run.ended(Next::Queued { run_at: None }, Count::Release));
    assert_eq!(intake(world).due.len(), 1);
    world.apply(&[Op::Cancel(vec![task(own)])]);
    world.apply(&[Op::Requeue(vec![task(own)])]);
    assert_eq!(intake(world).due, [key("normal", "d")]);
}

pub(super) fn the_sweep_finds_what_apps_change<T: Subject>(world: &mut World<T>) {
    // UPDATEs that no watermark sees: cancels, wrong types, a state that is the broker's.
    let [cancelled, asked, bent, forged] = [world.plain(), world.running().0, world.plain(), world.plain()];
    let sweep = |world: &mut World<T>| world.turn(|store, now| store.sweep(9, now).unwrap());
    let nothing = sweep(world);
    assert!(nothing.ended.is_empty() && nothing.cancel_requested.is_empty() && !nothing.more);
    world.subject.app_update(cancelled, &[("cancel_requested", Value::Integer(1))]);
    world.subject.app_update(asked, &[("cancel_requested", text("yes"))]);
    world.subject.app_update(bent, &[("run_at", text("tomorrow"))]);
    world.subject.app_update(forged, &[("state", text("running"))]);
    let swept = sweep(world);
    let mut ended: Vec<(u64, TaskState)> =
        swept.ended.iter().map(|row| (row.end.task.value(), row.end.state)).collect();
    ended.sort_unstable_by_key(|end| end.0);
    assert_eq!(ended, [(1, TaskState::Cancelled), (3, TaskState::Dead), (4, TaskState::Dead)]);
    assert_eq!(swept.cancel_requested, [task(asked)]);
    assert_eq!(world.state(asked), TaskState::Running);
    // The running one is told until it ends.
    let swept = sweep(world);
    assert_eq!((swept.ended.len(), swept.cancel_requested.as_slice()), (0, [task(asked)].as_slice()));
}

pub(super) fn rows_that_came_while_no_broker_ran_are_judged_too<T: Subject>(world: &mut World<T>) {
    // The intake begins behind them; what no load can find, the count does.
    let lost = world.insert(&[("kind", text("k")), ("lane", text("hihg"))]);
    let good = world.insert(&[("kind", text("k"))]);
    let mut second = world.subject.another(rules());
    second.open_epoch([2; 16], world.now).unwrap();
    let now = world.now;
    second.begin(Sync::Power).unwrap();
    assert_eq!(second.intake(9, now).unwrap().rows, 0);
    let queue = key("normal", "k");
    let loaded = second
        .load(Load { key: &queue, skip: &|_| false, rows: 9, bytes: 999, fair: &FairRules::default() }, now)
        .unwrap();
    assert_eq!(ids(&loaded.tasks), [good]);
    assert!(second.sweep(9, now).unwrap().ended.is_empty());
    assert!(second.recount(999).unwrap());
    let swept = second.sweep(9, now).unwrap();
    second.commit().unwrap();
    assert_eq!(swept.ended.len(), 1);
    assert_eq!(world.state(lost), TaskState::Dead);
}

pub(super) fn a_lane_of_earlier_settings_keeps_its_backlog<T: Subject>(world: &mut World<T>) {
    // It can be loaded, and counted; only new submits are refused.
    let id = world.insert(&[("kind", text("k")), ("lane", text("low"))]);
    let fewer = Rules { lanes: vec![lane("high"), lane("normal")], ..rules() };
    let mut second = world.subject.another(fewer);
    second.open_epoch([2; 16], world.now).unwrap();
    let now = world.now;
    second.begin(Sync::Power).unwrap();
    while !second.recount(999).unwrap() {}
    assert!(second.sweep(9, now).unwrap().ended.is_empty());
    let queue = key("low", "k");
    let loaded = second
        .load(Load { key: &queue, skip: &|_| false, rows: 9, bytes: 999, fair: &FairRules::default() }, now)
        .unwrap();
    assert_eq!(ids(&loaded.tasks), [id]);
    let mut task = new_task("k");
    task.lane = Some(lane("low"));
    let submit = Op::Submit {
        request: laneway_protocol::RequestId([9; 16]),
        tasks: vec![task],
        group: None,
        secured: Vec::new(),
    };
    let result = second.apply(&[submit], now).unwrap().remove(0);
    second.commit().unwrap();
    assert!(matches!(result, Some(OpResult::Refused { index: 0, field: "lane", .. })), "{result:?}");
}

pub(super) fn expiry_bounds_the_first_start_only<T: Subject>(world: &mut World<T>) {
    // One that has run once is not expired, whatever came of that run.
    let expires = Value::Integer(START + 500);
    let never = world.insert(&[("kind", text("k")), ("expires_at", expires.clone())]);
    let tried = world.insert(&[("kind", text("k")), ("expires_at", expires.clone())]);
    let unseen = world.insert(&[("kind", text("k")), ("expires_at", expires)]);
    let run = world.started(tried);
    world.end(run.failed(None));
    let sweep = |world: &mut World<T>| world.turn(|store, now| store.sweep(9, now).unwrap());
    let swept = sweep(world);
    assert_eq!((swept.ended.len(), swept.next_at), (0, Some(UnixMillis(START + 500))));
    world.subject.app_delete(unseen);
    world.later(500);
    let swept = sweep(world);
    assert_eq!((swept.ended.len(), swept.next_at), (1, None));
    assert_eq!((swept.ended[0].end.task, swept.ended[0].end.error.as_deref()), (task(never), Some("expired")));
    assert_eq!(world.state(never), TaskState::Cancelled);
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [tried]);
    // A load before the next sweep does not hand one out either.
    let late = world.insert(&[("kind", text("k")), ("expires_at", Value::Integer(START + 400))]);
    let loaded = world.load(&key("normal", "k"), 9);
    assert_eq!((ids(&loaded.tasks), loaded.rejected[0].end.task), (vec![tried], task(late)));
}

pub(super) fn counts_follow_and_are_mended<T: Subject>(world: &mut World<T>) {
    // By the store's own steps at once; what apps change unseen by the next pass, however small its pieces.
    let expect = |world: &mut World<T>, normal: u64, alarm: u64| {
        let mut expected = Vec::new();
        if alarm > 0 {
            expected.push(("high".to_owned(), "alarm".to_owned(), alarm));
        }
        if normal > 0 {
            expected.push(("normal".to_owned(), "k".to_owned(), normal));
        }
        assert_eq!(counts(world), expected);
    };
    for _ in 0..5 {
        world.plain();
    }
    world.submit_one(new_task("alarm"));
    expect(world, 5, 1);
    world.insert(&[("kind", text("k")), ("run_at", Value::Integer(START + 9))]);
    world.insert(&[("kind", text("k")), ("lane", text("normal"))]);
    world.insert(&[("kind", text("k")), ("run_at", Value::Integer(START + 9)), ("lane", text("normal"))]);
    world.turn(|store, now| store.intake(99, now).unwrap());
    expect(world, 8, 1);
    let run = world.started(1);
    expect(world, 7, 1);
    world.end(run.failed(None));
    expect(world, 8, 1);
    let run = world.hand_out(1);
    world.apply(&[Op::Started(run.started.clone()), Op::Ended(run.done())]);
    assert_eq!(world.ask(Op::Cancel(vec![task(2)])), OpResult::Verdicts(vec![Verdict::Cancelled]));
    expect(world, 6, 1);
    for rows in [1, 2, 3, 999] {
        recount(world, rows);
        expect(world, 6, 1);
    }
    world.subject.app_delete(3);
    world.subject.app_update(4, &[("state", text("dead"))]);
    world.subject.app_delete(6);
    recount(world, 2);
    expect(world, 4, 0);
    // What happens between two pieces of a pass is not lost on it.
    world.turn(|store, _| store.recount(2).unwrap());
    let run = world.hand_out(5);
    world.apply(&[Op::Started(run.started.clone()), Op::Ended(run.done())]);
    world.plain();
    recount(world, 2);
    expect(world, 4, 0);
    let OpResult::Counts(counts) = world.ask(Op::Counts) else { panic!("no counts") };
    assert_eq!(counts.dead, 1);
    let new_rows = i64::try_from(counts.submitted).unwrap();
    assert_eq!(Some(new_rows), world.subject.rows().keys().next_back().copied(), "submits and an app's rows alike");
}

pub(super) fn a_requeued_row_of_a_wrong_type_takes_no_other_with_it<T: Subject>(world: &mut World<T>) {
    // Its lane is no way to spell a queue, so rows without a lane, whose kind it shares, are left alone.
    let bad = world.insert(&[("kind", text("k")), ("lane", Value::Blob(vec![1]))]);
    let good = world.plain();
    let sweep = |world: &mut World<T>| world.turn(|store, now| store.sweep(100, now).unwrap());
    sweep(world);
    assert_eq!((world.state(bad), world.state(good)), (TaskState::Dead, TaskState::Queued));
    assert_eq!(world.ask(Op::Requeue(vec![task(bad)])), OpResult::Verdicts(vec![Verdict::Requeued]));
    sweep(world);
    assert_eq!((world.state(bad), world.state(good)), (TaskState::Dead, TaskState::Queued));
    assert_eq!(ids(&world.load(&key("normal", "k"), 1).tasks), [good]);
}
