//! Fair keys: rows of one queue are read by turns of their keys, and told with them.

use laneway_core::{Count, FairRules, IdSet, Next, Op, OpResult};
use laneway_protocol::FairKey;
use laneway_protocol::message::{FairKeyValues, NewTask};
use rusqlite::types::Value;

use super::subject::{START, Subject, World, ids, key, new_task, rules, task, text};
use crate::store::{Load, LoadedRows, Store, Sync};

fn fair_key(name: &str) -> FairKey {
    FairKey::new(name).unwrap()
}

fn keyed(name: &str) -> NewTask {
    NewTask { fair_key: Some(fair_key(name)), ..new_task("k") }
}

fn fair(weights: &[(&str, u32)], closed: &[&str]) -> FairRules {
    FairRules {
        weight: 1,
        weights: weights.iter().map(|(name, weight)| (fair_key(name), *weight)).collect(),
        closed: closed.iter().map(|name| fair_key(name)).collect(),
    }
}

impl<T: Subject> World<T> {
    fn load_fair(&mut self, rows: usize, skip: &[i64], fair: &FairRules) -> LoadedRows {
        let (key, skip) = (key("normal", "k"), skip.iter().map(|id| task(*id)).collect::<IdSet<_>>());
        let load = Load { key: &key, skip: &|task| skip.contains(&task), rows, bytes: 1_000_000, fair };
        self.turn(|store, now| store.load(load, now).unwrap())
    }

    /// What the next load gives, behind an intake as every turn of a broker has it.
    fn news_and_load(&mut self, fair: &FairRules) -> Vec<i64> {
        self.turn(|store, now| store.intake(999, now).unwrap());
        ids(&self.load_fair(500, &[], fair).tasks)
    }

    fn insert_keyed(&mut self, name: &str, n: usize) {
        for _ in 0..n {
            self.insert(&[("kind", text("k")), ("fair_key", text(name))]);
        }
    }
}

pub(super) fn keys_are_read_by_turns_and_weight<T: Subject>(world: &mut World<T>) {
    // Rows 1 to 6 are of x, 7 to 12 of y, 13 to 15 of none; y has weight 2. The next load goes on where this one stopped.
    world.insert_keyed("x", 6);
    world.insert_keyed("y", 6);
    for _ in 0..3 {
        world.plain();
    }
    let fair = fair(&[("y", 2)], &[]);
    let loaded = world.load_fair(6, &[], &fair);
    assert_eq!(ids(&loaded.tasks), [1, 7, 8, 13, 2, 9]);
    assert!(loaded.more);
    let loaded = world.load_fair(4, &ids(&loaded.tasks), &fair);
    assert_eq!(ids(&loaded.tasks), [10, 14, 3, 11], "y has one more in this round");
    let all = world.load_fair(99, &[], &fair);
    assert_eq!(all.tasks.len(), 15);
    assert!(!all.more && all.left.is_empty() && all.passed.is_empty());
}

pub(super) fn a_million_rows_of_one_key_hold_up_nobody<T: Subject>(world: &mut World<T>) {
    // However many come first: a few rows of the load are the other's, and what is left is told.
    world.insert_keyed("many", 200);
    world.insert_keyed("few", 3);
    let loaded = world.load_fair(8, &[], &fair(&[], &[]));
    assert_eq!(ids(&loaded.tasks), [201, 1, 202, 2, 203, 3, 4, 5]);
    assert_eq!((loaded.more, loaded.left), (true, vec![Some(fair_key("many"))]));
}

pub(super) fn closed_keys_are_passed_over_and_told<T: Subject>(world: &mut World<T>) {
    // Only when they have rows that are due; without other rows there is nothing more.
    world.insert_keyed("x", 3);
    world.insert_keyed("y", 3);
    let later = ("run_at", Value::Integer(START + 9_000));
    world.insert(&[("kind", text("k")), ("fair_key", text("z")), later]);
    let loaded = world.load_fair(9, &[], &fair(&[], &["x", "z"]));
    assert_eq!((ids(&loaded.tasks), loaded.more), (vec![4, 5, 6], false));
    assert_eq!(loaded.passed, [fair_key("x")]);
    assert_eq!(loaded.next_at.map(|at| at.0), Some(START + 9_000));
}

/// Keys of rows that are due later, more than a load looks at on the side; and the one due row of another key, 201.
fn many_for_later<T: Subject>(world: &mut World<T>) {
    for n in 1..=200 {
        let later = ("run_at", Value::Integer(START + 10_000 + n));
        world.insert(&[("kind", text("k")), ("fair_key", text(&format!("user{n:03}"))), later]);
    }
    world.insert_keyed("x", 1);
    assert_eq!(world.news_and_load(&fair(&[], &[])), [201]);
}

pub(super) fn rows_of_many_keys_are_read_when_their_time_comes<T: Subject>(world: &mut World<T>) {
    // In the order of their keys, with one that came meanwhile and was due before; after a clock that went back as well.
    many_for_later(world);
    let fair = fair(&[], &[]);
    world.later(10_003);
    assert_eq!(world.news_and_load(&fair), [1, 2, 3, 201]);
    world.later(-10_000);
    assert_eq!(world.news_and_load(&fair), [201]);
    world.insert(&[("kind", text("k")), ("fair_key", text("user199")), ("run_at", Value::Integer(START + 5_000))]);
    assert_eq!(world.news_and_load(&fair), [201]);
    world.later(9_998);
    assert_eq!(world.news_and_load(&fair), [1, 202, 201]);
    world.later(500);
    assert_eq!(world.news_and_load(&fair).len(), 202);
}

pub(super) fn rows_of_many_keys_are_read_when_an_app_moves_them<T: Subject>(world: &mut World<T>) {
    // Made due, by NULL and by a time that is past; given the key of one that has rows for later only; and moved into the queue.
    many_for_later(world);
    let fair = fair(&[], &[]);
    world.subject.app_update(150, &[("run_at", Value::Null)]);
    world.subject.app_update(20, &[("run_at", Value::Integer(START - 5_000))]);
    assert_eq!(world.news_and_load(&fair), [20, 150, 201]);
    world.subject.app_update(201, &[("fair_key", text("user100"))]);
    assert_eq!(world.news_and_load(&fair), [20, 201, 150]);
    let other = world.insert(&[("kind", text("k")), ("lane", text("high")), ("fair_key", text("user180"))]);
    assert_eq!(world.news_and_load(&fair), [20, 201, 150]);
    world.subject.app_update(other, &[("lane", Value::Null)]);
    world.subject.app_update(20, &[("run_at", Value::Integer(START + 90_000))]);
    assert_eq!(world.news_and_load(&fair), [other, 201, 150]);
}

pub(super) fn rows_of_many_keys_are_read_when_they_come_back<T: Subject>(world: &mut World<T>) {
    // A row that failed and one that was requeued, each of a key that had nothing else for now; after a restart all that are due.
    many_for_later(world);
    let fair = fair(&[], &[]);
    world.later(10_007);
    for id in 1..=7 {
        let run = world.started(id);
        world.end(if id == 4 { run.failed(None) } else { run.ended(Next::Dead, Count::Attempt) });
    }
    assert_eq!(world.news_and_load(&fair), [4, 201]);
    world.ask(Op::Requeue(vec![task(6)]));
    assert_eq!(world.news_and_load(&fair), [4, 6, 201]);
    let mut another = world.subject.another(rules());
    another.open_epoch([2; 16], world.now).unwrap();
    let key = key("normal", "k");
    another.begin(Sync::Power).unwrap();
    let loaded =
        another.load(Load { key: &key, skip: &|_| false, rows: 500, bytes: 1_000_000, fair: &fair }, world.now);
    assert_eq!(ids(&loaded.unwrap().tasks), [4, 6, 201]);
}

pub(super) fn each_key_is_read_in_order_of_due_time_and_id<T: Subject>(world: &mut World<T>) {
    // With and without a time, with the lane spelled out or not.
    let row = |name: &str, more: &[(&'static str, Value)]| {
        let mut cells = vec![("kind", text("k")), ("fair_key", text(name))];
        cells.extend(more.iter().cloned());
        cells
    };
    let at = |ms| ("run_at", Value::Integer(START + ms));
    world.insert(&row("x", &[at(50)]));
    world.insert(&row("x", &[("created_at", Value::Integer(START + 40)), ("lane", text("normal"))]));
    world.insert(&row("x", &[at(30), ("lane", text("normal"))]));
    world.insert(&row("y", &[]));
    world.later(100);
    assert_eq!(ids(&world.load_fair(9, &[], &fair(&[], &[])).tasks), [3, 4, 2, 1]);
}

pub(super) fn keys_that_no_task_may_have_are_rejected<T: Subject>(world: &mut World<T>) {
    // By the intake, and by a load when an app has written them later; a submit is refused.
    for (n, bad) in [text(""), text("*"), text(&"k".repeat(256)), Value::Blob(vec![1])].into_iter().enumerate() {
        world.insert(&[("kind", text("k")), ("fair_key", bad)]);
        let rejected = world.turn(|store, now| store.intake(9, now).unwrap()).rejected;
        assert_eq!(rejected.len(), 1, "{n}");
        assert!(rejected[0].end.error.as_ref().is_some_and(|error| error.contains("fair")), "{rejected:?}");
    }
    let id = world.plain();
    world.turn(|store, now| store.intake(9, now).unwrap());
    world.subject.app_update(id, &[("fair_key", text(""))]);
    let loaded = world.load_fair(9, &[], &fair(&[], &[]));
    assert_eq!((loaded.tasks.len(), loaded.rejected.len()), (0, 1));
    match world.submit(vec![keyed("*")]) {
        OpResult::Refused { field: "fair_key", .. } => {}
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(world.submit_one(keyed(&"k".repeat(255))), id + 1);
}

pub(super) fn news_of_keys_is_told<T: Subject>(world: &mut World<T>) {
    // Of an app's rows and of the store's own; rows without a key only where others have one.
    let intake = |world: &mut World<T>| {
        let mut found = world.turn(|store, now| store.intake(99, now).unwrap());
        found.turns.sort();
        (found.turns.into_iter().map(|(_, key)| key).collect::<Vec<_>>(), found.turns_later)
    };
    world.plain();
    assert_eq!(intake(world), (vec![], vec![]));
    world.insert_keyed("x", 2);
    world.submit_one(keyed("y"));
    assert_eq!(intake(world).0, [Some(fair_key("x")), Some(fair_key("y"))]);
    world.load_fair(9, &[], &fair(&[], &[]));
    world.plain();
    world.submit_one(NewTask { run_at: Some(START + 500), ..keyed("z") });
    let (due, later) = intake(world);
    assert_eq!(due, [None]);
    assert_eq!(later.len(), 1);
    assert_eq!((later[0].0.0, &later[0].2), (START + 500, &Some(fair_key("z"))));
    let run = world.started(2);
    world.end(run.failed(None));
    assert_eq!(intake(world).0, [Some(fair_key("x"))]);
}

pub(super) fn the_key_is_read_with_the_row<T: Subject>(world: &mut World<T>) {
    // By load, by look-up, after a restart, and in what people see.
    let id = world.submit_one(keyed("x"));
    assert_eq!(world.load_fair(9, &[], &fair(&[], &[])).tasks[0].fair_key, Some(fair_key("x")));
    world.started(id);
    match world.ask(Op::Find(vec![task(id)])) {
        OpResult::Found(found) => assert_eq!(found[0].fair_key, Some(fair_key("x"))),
        other => panic!("not found: {other:?}"),
    }
    match world.ask(Op::Show { tasks: vec![task(id)], detail: false }) {
        OpResult::Rows(rows) => assert_eq!(rows.rows[0].fair_key.as_deref(), Some("x")),
        other => panic!("not shown: {other:?}"),
    }
    let now = world.now;
    let opened = world.subject.another(rules()).open_epoch([2; 16], now).unwrap();
    assert_eq!(opened.running[0].fair_key, Some(fair_key("x")));
}

pub(super) fn values_of_keys_outlive_the_broker<T: Subject>(world: &mut World<T>) {
    // All that is set of a key at a time; nothing set is no row.
    let values =
        FairKeyValues { weight: Some(3), cap: Some(0), rate: Some("90/m".parse().unwrap()), rate_burst: Some(2) };
    let set = |name: &str, values: &FairKeyValues| Op::SetFairKey { fair_key: fair_key(name), values: values.clone() };
    assert_eq!(world.ask(set("*", &values)), OpResult::Set);
    world.ask(set("x", &values));
    world.ask(set("x", &FairKeyValues::default()));
    let now = world.now;
    let opened = world.subject.another(rules()).open_epoch([2; 16], now).unwrap();
    assert_eq!(opened.fair_keys, [(FairKey::every(), values)]);
}
