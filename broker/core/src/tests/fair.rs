//! Fair keys: tasks of one lane take turns by key and weight, whoever has how many; caps and rates of keys.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::message::{Answer, FairKeyRow, FairKeyValues, FairKeys, Request, SetFairKey};
use laneway_protocol::{Code, FairKey, TaskId, TaskState};
use proptest::prelude::*;

use super::slot::Slot;
use super::world::{World, id, kind, settings};
use crate::Settings;

fn fair_key(name: &str) -> FairKey {
    FairKey::new(name).unwrap()
}

fn set(world: &mut World, name: &str, values: FairKeyValues) {
    let set = vec![SetFairKey { fair_key: fair_key(name), values }];
    world.ask(90, Request::FairKeys(FairKeys { set, ..FairKeys::default() }));
    world.commit();
}

fn weight(n: u32) -> FairKeyValues {
    FairKeyValues { weight: Some(n), ..FairKeyValues::default() }
}

fn cap(n: u32) -> FairKeyValues {
    FairKeyValues { cap: Some(n), ..FairKeyValues::default() }
}

/// Rows of a key; of none for "".
fn insert(world: &mut World, kind_name: &str, key: &str, n: usize) {
    for _ in 0..n {
        world.insert_with("normal", kind_name, |row| row.fair_key = FairKey::new(key).ok());
    }
}

fn key_of(world: &World, task: TaskId) -> String {
    world.table.rows[&task].fair_key.as_ref().map_or_else(String::new, ToString::to_string)
}

/// The keys of the next hand-outs.
fn taken(world: &mut World, slot: &mut Slot, n: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for _ in 0..n {
        let task = slot.take(world);
        keys.extend(task.map(|task| key_of(world, task)));
        world.commit();
    }
    keys
}

fn count(keys: &[String], key: &str) -> usize {
    keys.iter().filter(|other| *other == key).count()
}

/// A slot that has looked at the queue, so that what comes is read ahead.
fn started() -> (World, Slot) {
    let mut world = World::new();
    let mut slot = Slot::new("w", 1, &["a"]);
    slot.take(&mut world);
    world.commit();
    (world, slot)
}

#[test]
fn keys_take_turns_by_weight_and_each_is_first_in_first_out() {
    // One of a for three of b; tasks without a key are as one key of weight 1.
    let (mut world, mut slot) = started();
    set(&mut world, "b", weight(3));
    insert(&mut world, "a", "a", 20);
    insert(&mut world, "a", "b", 40);
    insert(&mut world, "a", "", 20);
    world.commit();
    let keys = taken(&mut world, &mut slot, 25);
    assert_eq!((count(&keys, "a"), count(&keys, "b"), count(&keys, "")), (5, 15, 5), "{keys:?}");
    assert!(keys.chunks(5).all(|round| count(round, "b") == 3), "{keys:?}");
    let of_b: Vec<u64> = world.table.rows.iter().filter(|(_, row)| row.runs > 0).map(|(id, _)| id.value()).collect();
    assert_eq!(of_b, (1..=5).chain(21..=35).chain(61..=65).collect::<Vec<_>>());
}

#[test]
fn a_lane_without_keys_is_first_in_first_out() {
    let (mut world, mut slot) = started();
    insert(&mut world, "a", "", 9);
    world.commit();
    let tasks: Vec<TaskId> = (0..9)
        .map(|_| {
            let task = slot.take(&mut world).unwrap();
            world.commit();
            task
        })
        .collect();
    assert_eq!(tasks, (1..=9).map(id).collect::<Vec<_>>());
}

#[test]
fn a_new_key_does_not_wait_for_what_was_read_ahead() {
    // One key fills the read-ahead of 32 many times over; ten of another come and take every second hand-out, and one of a
    // third is the next but one.
    let (mut world, mut slot) = started();
    insert(&mut world, "a", "many", 500);
    world.commit();
    taken(&mut world, &mut slot, 3);
    insert(&mut world, "a", "few", 10);
    world.commit();
    let keys = taken(&mut world, &mut slot, 10);
    assert_eq!(count(&keys, "few"), 5, "{keys:?}");
    insert(&mut world, "a", "one", 1);
    insert(&mut world, "a", "", 1);
    world.commit();
    let keys = taken(&mut world, &mut slot, 4);
    assert_eq!((count(&keys, "one"), count(&keys, "")), (1, 1), "{keys:?}");
    let keys = taken(&mut world, &mut slot, 8);
    assert_eq!(count(&keys, "few"), 4, "{keys:?}");
}

#[test]
fn rows_that_come_one_by_one_are_not_lost_behind_others() {
    // Told while the key has one at hand, the next is read once that is gone.
    let (mut world, mut slot) = started();
    insert(&mut world, "a", "many", 500);
    world.commit();
    for _ in 0..4 {
        insert(&mut world, "a", "few", 1);
        world.commit();
    }
    let keys = taken(&mut world, &mut slot, 9);
    assert_eq!(count(&keys, "few"), 4, "{keys:?}");
}

#[test]
fn more_keys_than_are_read_ahead_take_turns_as_well() {
    // Fifty keys with four tasks each, of which 16 are read ahead: nobody waits for more than two rounds of all.
    let mut world = World::with(Settings { window_rows_min: 16, window_rows_max: 16, ..settings() });
    let mut slot = Slot::new("w", 1, &["a"]);
    slot.take(&mut world);
    world.commit();
    for n in 0..50 {
        insert(&mut world, "a", &format!("k{n}"), 4);
    }
    world.commit();
    let keys = taken(&mut world, &mut slot, 200);
    assert_eq!(keys.len(), 200);
    for n in 0..50 {
        let name = format!("k{n}");
        let at: Vec<usize> = keys.iter().enumerate().filter(|(_, key)| **key == name).map(|(at, _)| at).collect();
        assert_eq!(at.len(), 4);
        assert!(at[0] < 100 && at.windows(2).all(|pair| pair[1] - pair[0] <= 100), "{name} at {at:?}");
    }
}

#[test]
fn turns_hold_over_the_kinds_of_a_lane() {
    // A key with tasks of two kinds gets no more than one with one.
    let mut world = World::new();
    let mut slot = Slot::new("w", 1, &["a", "b"]);
    slot.take(&mut world);
    world.commit();
    insert(&mut world, "a", "x", 20);
    insert(&mut world, "b", "x", 20);
    insert(&mut world, "b", "y", 20);
    world.commit();
    let keys = taken(&mut world, &mut slot, 20);
    assert_eq!(count(&keys, "x"), 10, "{keys:?}");
    assert!(world.table.rows.values().any(|row| row.runs > 0 && row.kind == kind("a")));
}

#[test]
fn nobody_saves_up_turns() {
    // Twenty hand-outs went to another key while this one had nothing.
    let (mut world, mut slot) = started();
    insert(&mut world, "a", "x", 1);
    insert(&mut world, "a", "y", 40);
    world.commit();
    taken(&mut world, &mut slot, 20);
    insert(&mut world, "a", "x", 20);
    world.commit();
    let keys = taken(&mut world, &mut slot, 10);
    assert!((4..=6).contains(&count(&keys, "x")), "{keys:?}");
}

#[test]
fn a_key_that_no_worker_could_run_holds_up_nobody_later() {
    // Its tasks wait for a worker while forty of another are given out; then a worker comes for both.
    let (mut world, mut slot) = started();
    let mut both = Slot::new("v", 2, &["b"]);
    both.take(&mut world);
    insert(&mut world, "a", "x", 80);
    insert(&mut world, "b", "y", 40);
    world.commit();
    taken(&mut world, &mut slot, 40);
    slot.kinds = &["a", "b"];
    let keys = taken(&mut world, &mut slot, 10);
    assert!((5..=6).contains(&count(&keys, "y")), "{keys:?}");
}

// ------------------------------------------------------------------------------------------------------ caps and rates

#[test]
fn a_cap_holds_for_every_key_and_keeps_nobody_else_back() {
    // Two of each key by `*`, one of its own for y; what is over stands before no lower lane.
    let mut world = World::new();
    set(&mut world, "*", cap(2));
    set(&mut world, "y", cap(1));
    let mut slots: Vec<Slot> =
        ["s", "t", "u", "v", "w"].into_iter().zip(1..).map(|(name, conn)| Slot::new(name, conn, &["a"])).collect();
    for slot in &mut slots {
        slot.take(&mut world);
    }
    insert(&mut world, "a", "x", 5);
    insert(&mut world, "a", "y", 5);
    world.insert("low", "a", 1);
    world.commit();
    let mut given = BTreeMap::new();
    for slot in &mut slots {
        if let Some(task) = slot.take(&mut world) {
            *given.entry((world.table.rows[&task].lane.to_string(), key_of(&world, task))).or_insert(0) += 1;
        }
        world.commit();
    }
    let key = |lane: &str, key: &str| (lane.to_owned(), key.to_owned());
    let expected = BTreeMap::from([(key("normal", "x"), 2), (key("normal", "y"), 1), (key("low", ""), 1)]);
    assert_eq!(given, expected, "the fifth slot waits");
    // An end lets the next of its key start.
    let mut next = Vec::new();
    for _ in 0..8 {
        for slot in &mut slots {
            next.extend(slot.take(&mut world).map(|task| key_of(&world, task)));
            world.commit();
        }
    }
    assert_eq!((count(&next, "x"), count(&next, "y")), (3, 4), "{next:?}");
}

#[test]
fn what_runs_is_counted_after_a_restart() {
    // The orphan of a worker that has not come back is one of the two.
    let (mut world, mut slot) = started();
    set(&mut world, "x", cap(2));
    insert(&mut world, "a", "x", 5);
    world.commit();
    slot.take(&mut world).unwrap();
    world.commit();
    world.restart(true);
    let mut others = [Slot::new("t", 5, &["a"]), Slot::new("u", 6, &["a"])];
    let mut tasks = BTreeSet::new();
    for _ in 0..3 {
        for slot in &mut others {
            if slot.outcomes.is_empty() {
                tasks.extend(slot.take(&mut world));
            }
            world.commit();
        }
    }
    assert_eq!(tasks.len(), 1, "{tasks:?}");
}

#[test]
fn a_rate_lets_tasks_of_a_key_start_in_time() {
    // Ten a second, two at once after a pause; a gate is gone when its tokens are all there.
    let (mut world, mut slot) = started();
    let rate = FairKeyValues { rate: Some("10/s".parse().unwrap()), rate_burst: Some(2), ..FairKeyValues::default() };
    set(&mut world, "x", rate);
    insert(&mut world, "a", "x", 6);
    world.commit();
    assert_eq!(taken(&mut world, &mut slot, 3).len(), 1, "a bucket begins with one token");
    world.pass(99);
    assert_eq!(taken(&mut world, &mut slot, 1).len(), 0);
    world.pass(1);
    assert_eq!(taken(&mut world, &mut slot, 2).len(), 1);
    world.pass(1_000);
    assert_eq!(taken(&mut world, &mut slot, 4).len(), 2);
    world.pass(1_000);
    assert_eq!(taken(&mut world, &mut slot, 4).len(), 2);
    world.pass(1_000);
    slot.take(&mut world);
    world.commit();
    world.pass(1_000);
    assert_eq!(world.broker.dispatch.closed_places().count(), 0);
}

#[test]
fn what_was_passed_over_is_read_once_the_key_is_open() {
    // While x is closed its rows are left in the table, more than a window of them, and others go on.
    let (mut world, mut slot) = started();
    let mut other = Slot::new("v", 2, &["a"]);
    other.take(&mut world);
    set(&mut world, "x", cap(1));
    insert(&mut world, "a", "x", 100);
    insert(&mut world, "a", "y", 3);
    world.commit();
    let keys = taken(&mut world, &mut slot, 1);
    let more = taken(&mut world, &mut other, 3);
    let of_x = count(&keys, "x") + count(&more, "x");
    assert_eq!((of_x, count(&more, "y") + count(&keys, "y")), (1, 3), "{keys:?} {more:?}");
    let mut of_x = 0;
    for _ in 0..60 {
        of_x += taken(&mut world, &mut slot, 1).len() + taken(&mut world, &mut other, 1).len();
        let running = world.broker.running.len();
        assert!(running <= 1, "{running} run");
    }
    assert!(of_x >= 30, "{of_x}");
    set(&mut world, "x", cap(0));
    let both: usize = [&mut slot, &mut other].map(|slot| taken(&mut world, slot, 1).len()).iter().sum();
    assert_eq!(both, 2);
}

#[test]
fn a_key_that_opens_and_closes_all_the_time_is_read_as_rarely_as_any() {
    // With a cap of one it closes at each hand-out: what is at hand of it is held meanwhile, and not read anew.
    let (mut world, mut slot) = started();
    set(&mut world, "x", cap(1));
    insert(&mut world, "a", "x", 300);
    world.commit();
    world.take();
    let mut n = 0;
    while n < 64 {
        n += taken(&mut world, &mut slot, 1).len();
    }
    let demands = world.take().iter().filter(|line| line.starts_with("demand ")).count();
    assert!(demands <= 8, "{demands} demands for {n} tasks");
}

#[test]
fn values_are_told_with_where_they_are_from() {
    // Of the settings and set over them; reset goes back; what makes no sense is refused by its field.
    let own = FairKeyValues { cap: Some(3), rate: Some("1/s".parse().unwrap()), ..FairKeyValues::default() };
    let every = FairKeyValues { cap: Some(9), weight: Some(2), ..FairKeyValues::default() };
    let fair_key_values = [(fair_key("x"), own), (FairKey::every(), every)].into();
    let mut world = World::with(Settings { fair_key_values, ..settings() });
    let rows = |world: &mut World| -> Vec<FairKeyRow> {
        let reply = world.ask(90, Request::FairKeys(FairKeys::default()));
        world.commit();
        match world.answers.remove(&reply) {
            Some(Answer::FairKeys(rows)) => rows.fair_keys,
            other => panic!("answered with {other:?}"),
        }
    };
    set(&mut world, "x", FairKeyValues { cap: Some(0), ..weight(5) });
    let x = &rows(&mut world)[1];
    assert_eq!((x.fair_key.as_str(), x.weight, x.cap, x.rate), ("x", 5, None, Some("1/s".parse().unwrap())));
    assert_eq!((x.set.join(" "), x.settings.join(" ")), ("weight cap".into(), "rate".into()));
    world.ask(90, Request::FairKeys(FairKeys { reset: vec![fair_key("x")], ..FairKeys::default() }));
    world.commit();
    let x = &rows(&mut world)[1];
    assert_eq!((x.weight, x.cap, x.set.len()), (2, Some(3), 0));
    for (values, field) in [(weight(0), "weight"), (weight(1_001), "weight"), (cap(1_000_001), "cap")] {
        let set = vec![SetFairKey { fair_key: fair_key("x"), values }];
        let reply = world.ask(90, Request::FairKeys(FairKeys { set, ..FairKeys::default() }));
        match world.answers.remove(&reply) {
            Some(Answer::Error(error)) => {
                assert_eq!((error.code, error.field), (Code::BadBody, Some(format!("set[0].values.{field}"))));
            }
            other => panic!("answered with {other:?}"),
        }
    }
}

// -------------------------------------------------------------------------------------------------------- random loads

const KEYS: [&str; 5] = ["", "v", "x", "y", "z"];
const KINDS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Act {
    Insert { key: usize, kind: usize, n: usize },
    Take { slot: usize },
    Fail { slot: usize },
    Pass(u64),
}

fn some_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (0..KEYS.len(), 0..KINDS.len(), prop_oneof![1..4_usize, 40..90_usize])
            .prop_map(|(key, kind, n)| Act::Insert { key, kind, n }),
        12 => (0..4_usize).prop_map(|slot| Act::Take { slot }),
        1 => (0..4_usize).prop_map(|slot| Act::Fail { slot }),
        1 => (1..500_u64).prop_map(Act::Pass),
    ]
}

/// How much two keys got since both have had tasks, each by its weight: now, and the least and the most so far.
type Gap = (f64, f64, f64);

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// While two keys have tasks that the workers can run, what each gets by its weight differs by little more than a task
    /// of each, over any part of that time, whatever else comes and goes: with caps of others, retries, two kinds and a
    /// read-ahead far smaller than the backlog.
    #[test]
    fn keys_with_tasks_get_their_parts(
        weights in prop::collection::vec(1..6_u32, KEYS.len()),
        acts in prop::collection::vec(some_act(), 50..400),
    ) {
        let mut world = World::new();
        let weight_of = |key: usize| if key == 0 { 1 } else { weights[key] };
        for (key, name) in KEYS.iter().enumerate().skip(1) {
            set(&mut world, name, weight(weight_of(key)));
        }
        let names = ["s", "t", "u", "w"];
        let mut slots: Vec<Slot> =
            names.into_iter().zip(1..).map(|(name, conn)| Slot::new(name, conn, &KINDS)).collect();
        for slot in &mut slots {
            slot.take(&mut world);
        }
        world.commit();
        let mut gaps: BTreeMap<(usize, usize), Gap> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Insert { key, kind, n } => insert(&mut world, KINDS[kind], KEYS[key], n),
                Act::Pass(ms) => world.pass(ms),
                Act::Fail { slot } => {
                    for outcome in &mut slots[slot].outcomes {
                        outcome.end = laneway_protocol::message::End::Fail;
                    }
                }
                Act::Take { slot } => {
                    let waits: BTreeSet<usize> = waiting(&world);
                    let task = slots[slot].take(&mut world);
                    if let Some(task) = task {
                        let key = KEYS.iter().position(|key| *key == key_of(&world, task)).unwrap();
                        note(&mut gaps, &waits, key, weight_of);
                    }
                }
            }
            world.commit();
            for (&(a, b), &(_, least, most)) in &gaps {
                let bound = 1.0 / f64::from(weight_of(a)) + 1.0 / f64::from(weight_of(b)) + 0.001;
                prop_assert!(most - least <= bound, "{} and {}: {}", KEYS[a], KEYS[b], most - least);
            }
        }
    }
}

/// Keys with tasks that are due and wait.
fn waiting(world: &World) -> BTreeSet<usize> {
    let waits = world.table.rows.iter().filter(|(id, row)| {
        row.state == TaskState::Queued
            && row.due <= world.now.wall
            && !world.broker.running.contains_key(id)
            && !world.broker.settling.contains_key(id)
    });
    waits.map(|(id, _)| KEYS.iter().position(|key| *key == key_of(world, *id)).unwrap()).collect()
}

fn note(
    gaps: &mut BTreeMap<(usize, usize), Gap>,
    waits: &BTreeSet<usize>,
    taken: usize,
    weight_of: impl Fn(usize) -> u32,
) {
    for a in 0..KEYS.len() {
        for b in a + 1..KEYS.len() {
            if !(waits.contains(&a) && waits.contains(&b)) {
                gaps.remove(&(a, b));
                continue;
            }
            let (now, least, most) = gaps.entry((a, b)).or_default();
            if taken == a {
                *now += 1.0 / f64::from(weight_of(a));
            } else if taken == b {
                *now -= 1.0 / f64::from(weight_of(b));
            }
            (*least, *most) = (least.min(*now), most.max(*now));
        }
    }
}
