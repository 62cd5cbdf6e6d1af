//! Retention: which ended rows are deleted, and in which pieces.

use std::collections::BTreeSet;

use laneway_core::{Count, Edit, Ended, Next, Op, OpResult};
use rusqlite::types::Value;

use super::subject::{START, Subject, World, kind, task, text};
use crate::store::{Limit, Limits, Pruned, Retention, Store, Sync};

fn aged(age_ms: u64) -> Limit {
    Limit { age_ms: Some(age_ms), count_max: None }
}

fn counted(count_max: u64) -> Limit {
    Limit { age_ms: None, count_max: Some(count_max) }
}

fn all(limit: Limit) -> Retention {
    Retention::new(Limits { done: limit, cancelled: limit, dead: Limit::default() }, std::iter::empty())
}

fn prune<T: Subject>(world: &mut World<T>, retention: &Retention, rows: usize) -> Pruned {
    world.turn(|store, now| store.prune(retention, &BTreeSet::new(), rows, now).unwrap())
}

fn deleted(deleted: usize) -> Pruned {
    Pruned { deleted, over: false }
}

fn over(deleted: usize) -> Pruned {
    Pruned { deleted, over: true }
}

fn ids<T: Subject>(world: &World<T>) -> Vec<i64> {
    world.subject.rows().keys().copied().collect()
}

/// A row that an app put there as ended.
fn ended<T: Subject>(world: &mut World<T>, kind: &str, state: &str, finished_at: i64) -> i64 {
    let finished_at = Value::Integer(finished_at);
    world.insert(&[("kind", text(kind)), ("state", text(state)), ("finished_at", finished_at)])
}

pub(super) fn ended_rows_go_by_their_age<T: Subject>(world: &mut World<T>) {
    // Done and cancelled ones, in pieces, with their failures; what is dead or not over stays.
    for i in 0..6 {
        let (id, run) = world.running();
        if i % 2 == 0 {
            world.end(run.failed(None));
            let run = world.started(id);
            world.end(run.done());
        } else {
            world.end(Ended { error: None, ..run.ended(Next::Dead, Count::Attempt) });
        }
    }
    world.plain();
    assert_eq!(prune(world, &all(aged(1_000)), 99), over(0));
    world.later(2_000);
    assert_eq!(prune(world, &all(aged(10_000)), 99), over(0));
    assert_eq!(prune(world, &all(aged(1_000)), 2), deleted(1));
    assert_eq!(prune(world, &all(aged(1_000)), 2), deleted(1));
    assert_eq!(world.subject.failures().len(), 1);
    assert_eq!(prune(world, &all(aged(1_000)), 2), deleted(1));
    assert_eq!(prune(world, &all(aged(1_000)), 2), over(0));
    assert_eq!(ids(world), [2, 4, 6, 7]);
    assert_eq!(prune(world, &Retention::default(), 1), over(0), "nothing is to go");
}

pub(super) fn outcomes_and_kinds_have_ages_of_their_own<T: Subject>(world: &mut World<T>) {
    // Counted from the end; of a row that an app ended without a time, from its creation. Dead ones are no longer counted.
    let now = START + 1_000;
    for (kind, state) in [("k", "done"), ("k", "cancelled"), ("k", "dead"), ("mail", "done"), ("mail", "dead")] {
        ended(world, kind, state, START + 500);
        ended(world, kind, state, START + 900);
    }
    let timeless = world.insert(&[("kind", text("k")), ("state", text("done"))]);
    world.later(1_000);
    assert_eq!(world.now.wall.0, now);
    let general = Limits { done: aged(300), cancelled: aged(50), dead: Limit::default() };
    let mail = Limits { done: aged(600), cancelled: Limit::default(), dead: aged(300) };
    let retention = Retention::new(general, std::iter::once((&kind("mail"), mail)));
    world.turn(|store, _| while !store.recount(9).unwrap() {});
    let dead = |world: &mut World<T>| match world.ask(Op::Counts) {
        OpResult::Counts(counts) => counts.dead,
        other => panic!("no counts: {other:?}"),
    };
    assert_eq!(dead(world), 4);
    assert_eq!(prune(world, &retention, 99), over(5));
    assert_eq!(ids(world), [2, 5, 6, 7, 8, 10]);
    assert!(!ids(world).contains(&timeless));
    assert_eq!(dead(world), 3);
}

pub(super) fn counts_keep_the_newest<T: Subject>(world: &mut World<T>) {
    // A walk counts, the next one deletes the oldest that are too many, at once; a kind with a count of its own is apart. Live
    // rows between them count for nothing.
    for n in 0..9 {
        ended(world, if n % 3 == 0 { "mail" } else { "k" }, "done", START);
        if n % 2 == 0 {
            world.plain();
        }
    }
    let general = Limits { done: counted(4), cancelled: counted(1), dead: Limit::default() };
    let mail = Limits { done: counted(1), ..Limits::default() };
    let retention = Retention::new(general, std::iter::once((&kind("mail"), mail)));
    let done = |world: &World<T>, name: &str| -> Vec<i64> {
        let rows = world.subject.rows();
        let rows = rows.iter().filter(|(_, row)| row["state"] == text("done") && row["kind"] == text(name));
        rows.map(|(id, _)| *id).collect()
    };
    let (k, mails) = (done(world, "k"), done(world, "mail"));
    assert_eq!((k.len(), mails.len()), (6, 3));
    assert_eq!(prune(world, &retention, 10), deleted(0));
    assert_eq!(prune(world, &retention, 10), deleted(0), "the walk has met too many, and another begins");
    assert_eq!(prune(world, &retention, 99), over(4));
    assert_eq!((done(world, "k"), done(world, "mail")), (k[2..].to_vec(), mails[2..].to_vec()));
    assert_eq!(prune(world, &retention, 99), over(0));
    // One more of a kind that is full.
    ended(world, "k", "done", START);
    assert_eq!(prune(world, &retention, 99), deleted(0));
    assert_eq!(prune(world, &retention, 99), over(1));
    assert_eq!(done(world, "k")[..3], k[3..]);
}

pub(super) fn a_count_takes_none_that_age_has_made_few<T: Subject>(world: &mut World<T>) {
    // The first row ends last: what the ages of those behind it leave is as many as are to be kept, so the count takes none. Neither
    // when they are about to grow old as it counts, nor when they have done so since.
    let limit = Limit { age_ms: Some(1_000), count_max: Some(3) };
    for counted in [900, 100] {
        let first = ended(world, "k", "done", world.now.wall.0 + 900);
        let others = [(); 3].map(|()| ended(world, "k", "done", world.now.wall.0));
        world.later(counted);
        prune(world, &all(limit), 99);
        assert_eq!(ids(world), [first, others[0], others[1], others[2]]);
        world.later(1_100 - counted);
        while !prune(world, &all(limit), 99).over {}
        assert_eq!(ids(world), [first], "counted after {counted} ms");
        world.later(9_000);
        while !prune(world, &all(limit), 99).over {}
        assert!(ids(world).is_empty());
    }
    // Where no age is near the oldest by id are one too many as ever.
    let rows = [(); 4].map(|()| ended(world, "k", "done", world.now.wall.0));
    while !prune(world, &all(limit), 99).over {}
    assert_eq!(ids(world), rows[1..]);
}

pub(super) fn as_many_are_left_as_are_kept_whatever_vanishes<T: Subject>(world: &mut World<T>) {
    // Between the count and the delete: an app deletes a row or gives it another kind, a person purges one or queues it again, old ones go by
    // their age. Never is one deleted that the count keeps, and what is too many then goes with the next rounds.
    let dead = Limits { dead: counted(4), ..Limits::default() };
    let retention = Retention::new(dead, std::iter::empty());
    let of_dead = |world: &World<T>| world.subject.rows().values().filter(|row| row["state"] == text("dead")).count();
    for how in 0..5 {
        let rows: Vec<i64> = (0..7).map(|_| ended(world, "k", "dead", START)).collect();
        let kept = of_dead(world);
        assert_eq!(prune(world, &retention, 99), deleted(0), "{kept} are counted");
        match how {
            0 => world.subject.app_delete(rows[6]),
            1 => world.subject.app_update(rows[6], &[("kind", text("other"))]),
            2 => drop(world.ask(Op::Edit { edit: Edit::Purge, tasks: vec![task(rows[6])] })),
            3 => drop(world.ask(Op::Requeue(vec![task(rows[6])]))),
            _ => (0..20).for_each(|n| {
                let id = ended(world, "mail", "done", START);
                if n == 0 {
                    world.subject.app_delete(id);
                }
            }),
        }
        assert!(of_dead(world) > 4);
        prune(world, &retention, 99);
        // A row of another kind may have been of this one, for all that is known.
        let more = usize::from(how == 1 || how == 4);
        assert_eq!(of_dead(world), 4 + more, "{how}");
        for _ in 0..3 {
            prune(world, &retention, 99);
            assert_eq!(of_dead(world), 4, "{how}");
        }
        for id in ids(world) {
            world.subject.app_delete(id);
        }
        for _ in 0..3 {
            prune(world, &retention, 99);
        }
    }
}

pub(super) fn other_rules_begin_a_walk_anew<T: Subject>(world: &mut World<T>) {
    // What was too much of one kind is not taken from another that has a count now instead, though there are as many groups.
    for kind in ["mail", "k"] {
        for _ in 0..4 {
            ended(world, kind, "done", START);
        }
    }
    let of = |name: &str, count_max| {
        let own = Limits { done: counted(count_max), ..Limits::default() };
        Retention::new(Limits::default(), std::iter::once((&kind(name), own)))
    };
    assert_eq!(prune(world, &of("mail", 1), 99), deleted(0), "three are too many, and go with the next piece");
    assert_eq!(prune(world, &of("k", 4), 99), over(0));
    assert_eq!(ids(world).len(), 8);
    assert_eq!(prune(world, &of("k", 3), 99), deleted(0));
    assert_eq!(prune(world, &of("k", 3), 99), over(1));
    assert_eq!(ids(world), [1, 2, 3, 4, 6, 7, 8]);
}

pub(super) fn a_watched_row_is_kept<T: Subject>(world: &mut World<T>) {
    // Somebody waits for it, and is about to be told; by age as well as by count.
    let old = [ended(world, "k", "done", START), ended(world, "k", "done", START)];
    world.later(1_000);
    let watched: BTreeSet<_> = std::iter::once(task(old[0])).collect();
    let retention = all(aged(500));
    let pruned = world.turn(|store, now| store.prune(&retention, &watched, 99, now).unwrap());
    assert_eq!((pruned, ids(world)), (over(1), vec![old[0]]));
    let none = all(counted(0));
    for _ in 0..3 {
        world.turn(|store, now| store.prune(&none, &watched, 99, now).unwrap());
    }
    assert_eq!(ids(world), [old[0]]);
    for _ in 0..3 {
        prune(world, &none, 99);
    }
    assert!(ids(world).is_empty());
}

pub(super) fn a_walk_stops_at_young_rows_and_an_undone_one_begins_anew<T: Subject>(world: &mut World<T>) {
    // A piece of rows that were all made after the shortest age has run: nothing behind them can be old enough.
    let old = ended(world, "k", "done", START);
    world.later(1_000);
    for _ in 0..4 {
        world.plain();
    }
    let retention = all(aged(500));
    let now = world.now;
    world.subject.store().begin(Sync::Process).unwrap();
    assert_eq!(world.subject.store().prune(&retention, &BTreeSet::new(), 2, now).unwrap(), deleted(1));
    world.subject.store().rollback();
    assert!(ids(world).contains(&old));
    assert_eq!(prune(world, &retention, 2), deleted(1));
    assert_eq!(prune(world, &retention, 2), over(0));
}
