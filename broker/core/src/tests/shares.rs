//! Shares of lanes: of any hand-outs in a row a lane gets at least its part while it has tasks, and everything else goes
//! in the strict order.

use laneway_protocol::message::{Answer, LaneValues, Lanes, Ready, Request, SetLane};
use proptest::prelude::*;

use super::slot::Slot;
use super::world::{World, kind, lane, plain, settings};
use crate::Settings;
use crate::event::QueueKey;

const LANES: [&str; 4] = ["urgent", "high", "normal", "low"];

fn set(world: &mut World, name: &str, share: u32) {
    let values = LaneValues { share: Some(share), ..LaneValues::default() };
    let set = vec![SetLane { lane: lane(name), values }];
    world.ask(90, Request::Lanes(Lanes { set, ..Lanes::default() }));
    world.commit();
}

fn four_lanes() -> World {
    World::with(Settings { lanes: LANES.map(lane).to_vec(), ..settings() })
}

/// The lane of what a slot takes next.
fn next_lane(slot: &mut Slot, world: &mut World) -> Option<usize> {
    let task = slot.take_task(world)?;
    LANES.iter().position(|name| *name == task.lane.as_str())
}

/// The lanes of the next hand-outs, by their first letters.
fn taken(world: &mut World, slot: &mut Slot, n: usize) -> String {
    let mut lanes = String::new();
    for _ in 0..n {
        lanes.extend(next_lane(slot, world).map(|lane| &LANES[lane][..1]));
        world.commit();
    }
    lanes
}

#[test]
fn a_share_of_ten_is_every_tenth_and_no_share_is_strict() {
    let mut world = four_lanes();
    for name in LANES {
        world.insert(name, "a", 60);
    }
    let mut slot = Slot::new("w", 1, &["a"]);
    slot.take(&mut world);
    world.commit();
    assert_eq!(taken(&mut world, &mut slot, 12), "u".repeat(12));
    set(&mut world, "low", 10);
    assert_eq!(taken(&mut world, &mut slot, 30), ["u".repeat(9), "l".into()].concat().repeat(3));
    set(&mut world, "normal", 50);
    assert_eq!(taken(&mut world, &mut slot, 20), world_order(20));
    set(&mut world, "low", 0);
    set(&mut world, "normal", 0);
    assert_eq!(taken(&mut world, &mut slot, 5), "uuuuu");
}

/// Half to `normal`, a tenth to `low`, the rest to `urgent`: where both are owed, the one that is owed most goes first.
fn world_order(n: usize) -> String {
    let (mut normal, mut low, mut order) = (0, 0, String::new());
    for _ in 0..n {
        (normal, low) = (normal + 50, low + 10);
        if normal >= 100 && normal >= low {
            normal -= 100;
            order.push('n');
        } else if low >= 100 {
            low -= 100;
            order.push('l');
        } else {
            order.push('u');
        }
    }
    order
}

#[test]
fn a_lane_that_had_nothing_is_owed_nothing() {
    // Half of the hand-outs in a row would be its, if what it could not take were kept for it.
    let mut world = four_lanes();
    set(&mut world, "low", 10);
    world.insert("urgent", "a", 60);
    let mut slot = Slot::new("w", 1, &["a"]);
    slot.take(&mut world);
    world.commit();
    assert_eq!(taken(&mut world, &mut slot, 30), "u".repeat(30));
    world.insert("low", "a", 5);
    world.commit();
    assert_eq!(taken(&mut world, &mut slot, 10), ["u".repeat(9), "l".into()].concat());
}

#[test]
fn a_share_passes_a_barrier_and_a_bound_holds_a_share() {
    // The urgent lane is empty here and perhaps not in the table, the low one is owed: it goes. A capped lane is owed nothing.
    let mut world =
        World::with(Settings { lanes: LANES.map(lane).to_vec(), window_rows_min: 1, window_rows_max: 1, ..settings() });
    set(&mut world, "low", 100);
    world.insert("urgent", "a", 9);
    world.insert("low", "a", 9);
    let mut slot = Slot::new("w", 1, &["a"]);
    slot.take(&mut world);
    world.commit();
    assert_eq!(next_lane(&mut slot, &mut world), Some(3));
    let values = LaneValues { cap: Some(1), ..LaneValues::default() };
    let capped = vec![SetLane { lane: lane("low"), values }];
    world.ask(90, Request::Lanes(Lanes { set: capped, ..Lanes::default() }));
    world.commit();
    let mut other = Slot::new("v", 2, &["a"]);
    assert_eq!(next_lane(&mut other, &mut world), Some(0), "one of the low lane runs");
    assert_eq!(next_lane(&mut slot, &mut world), Some(3), "and none any more");
}

#[test]
fn shares_are_told_with_what_they_come_to_and_are_no_more_than_all() {
    let mut world = four_lanes();
    set(&mut world, "low", 15);
    set(&mut world, "normal", 80);
    let values = LaneValues { share: Some(6), ..LaneValues::default() };
    let over = vec![SetLane { lane: lane("high"), values }];
    let reply = world.ask(90, Request::Lanes(Lanes { set: over, ..Lanes::default() }));
    let Some(Answer::Error(error)) = world.answers.remove(&reply) else { panic!("101 per cent") };
    assert!(error.text.contains("101 per cent, at most 100"), "{}", error.text);
    world.restart(true);
    let reply = world.ask(90, Request::Lanes(Lanes::default()));
    world.commit();
    let Some(Answer::Lanes(rows)) = world.answers.remove(&reply) else { panic!("no lanes") };
    let told: Vec<_> = rows.lanes.iter().map(|row| (row.share, row.one_of)).collect();
    assert_eq!(told, [(None, None), (None, None), (Some(80), Some(3)), (Some(15), Some(14))]);
}

#[test]
fn shares_that_come_to_all_are_each_met() {
    // There is no room for a wrong order: of several lanes that are owed one, the one that is owed most must go first.
    for shares in [[0, 90, 3, 6], [0, 54, 9, 36], [0, 56, 7, 35], [0, 2, 2, 96], [0, 95, 2, 2], [25, 25, 25, 25]] {
        let mut world = four_lanes();
        for (name, share) in LANES.into_iter().zip(shares) {
            set(&mut world, name, share);
            world.insert(name, "a", 205);
        }
        let mut slot = Slot::new("w", 1, &["a"]);
        slot.take(&mut world);
        world.commit();
        let mut hand_outs = Vec::new();
        for _ in 0..200 {
            let lane = next_lane(&mut slot, &mut world).expect("every lane is full");
            hand_outs.push(HandOut { at_hand: [true; 4], lane });
            world.commit();
        }
        check_bound(&hand_outs, shares);
    }
}

#[test]
fn what_is_owed_outlives_the_slots_it_was_owed_by() {
    // Sixty workers take five tasks each and leave, as `laneway work` does when it is started anew for each batch.
    let mut world = four_lanes();
    set(&mut world, "low", 10);
    world.insert("urgent", "a", 400);
    world.insert("low", "a", 60);
    let mut lanes = Vec::new();
    while lanes.len() < 300 {
        let mut slot = Slot::new("w", 1, &["a"]);
        for _ in 0..5 {
            lanes.extend(next_lane(&mut slot, &mut world));
            world.commit();
        }
        slot.leave(&mut world);
        world.commit();
    }
    assert_tenths(&lanes[20..]);
}

#[test]
fn slots_of_many_sorts_owe_a_lane_together() {
    // Twenty slots, each with a kind of its own beside the one that all can run.
    let kinds: [&'static [&'static str]; 20] = std::array::from_fn(|n| -> &'static [&'static str] {
        let own: &'static str = format!("own{n}").leak();
        vec![own, "a"].leak()
    });
    let mut world = four_lanes();
    set(&mut world, "low", 10);
    world.insert("urgent", "a", 400);
    world.insert("low", "a", 60);
    let names: [&'static str; 20] = std::array::from_fn(|n| -> &'static str { format!("w{n}").leak() });
    let mut slots: Vec<Slot> =
        (1..).zip(names).zip(kinds).map(|((n, name), kinds)| Slot::new(name, n, kinds)).collect();
    let mut lanes = Vec::new();
    for _ in 0..9 {
        for slot in &mut slots {
            lanes.extend(next_lane(slot, &mut world));
            world.commit();
        }
    }
    assert_tenths(&lanes[20..]);
}

/// Of any ten one is of the lowest lane.
fn assert_tenths(lanes: &[usize]) {
    for (from, ten) in lanes.windows(10).enumerate() {
        assert_eq!(ten.iter().filter(|lane| **lane == 3).count(), 1, "from {from} on: {ten:?}");
    }
}

#[test]
fn a_suspect_is_nothing_that_a_lane_is_owed_where_it_may_not_run() {
    // The process runs a suspect already: of the low lane it gets what stands behind the next one.
    let mut world = four_lanes();
    set(&mut world, "low", 50);
    for _ in 0..2 {
        world.insert_with("low", "a", |row| row.losses = 1);
    }
    let mut slot = Slot::new("w", 1, &["a"]);
    slot.take(&mut world);
    world.commit();
    assert_eq!(next_lane(&mut slot, &mut world), Some(3), "a suspect, alone");
    world.commit();
    world.insert("urgent", "a", 9);
    world.commit();
    let beside = |world: &mut World| {
        let reply = world.ask(2, Request::Ready(Ready { slot: 1, wait_ms: 0, ..plain("w", &["a"]) }));
        world.commit();
        match world.answers.remove(&reply) {
            Some(Answer::Tasks(tasks)) => Some(tasks.tasks[0].task.value()),
            _ => None,
        }
    };
    assert_eq!(beside(&mut world), Some(3), "the low lane has nothing for it");
    world.insert("low", "a", 1);
    world.commit();
    assert_eq!([beside(&mut world), beside(&mut world)], [Some(4), Some(12)], "every second, and not the suspect");
}

/// What a hand-out was: of which lanes its slot could have taken a task, and of which it took one.
struct HandOut {
    at_hand: [bool; 4],
    lane: usize,
}

/// The lanes of which a slot could take a task now.
fn at_hand(world: &World, slot: &Slot) -> [bool; 4] {
    LANES.map(|name| {
        let serves = slot.lanes.as_ref().is_none_or(|lanes| lanes.contains(&lane(name)));
        let has = |kind_name: &&str| {
            let queue = world.broker.dispatch.queue(&QueueKey { lane: lane(name), kind: kind(kind_name) });
            queue.is_some_and(|queue| world.broker.dispatch.has_task(queue))
        };
        serves && slot.kinds.iter().any(has)
    })
}

/// Of any hand-outs in a row to slots that could have taken a task of a lane, it has its share, less than one for each lane that
/// has a share; so at least one of as many as people are told.
fn check_bound(hand_outs: &[HandOut], shares: [u32; 4]) {
    let n_shares = shares.iter().filter(|share| **share > 0).count();
    for (lane, share) in shares.into_iter().enumerate().filter(|(_, share)| *share > 0) {
        let share = share as usize;
        let of_lane: Vec<bool> =
            hand_outs.iter().filter(|hand_out| hand_out.at_hand[lane]).map(|hand_out| hand_out.lane == lane).collect();
        for from in 0..of_lane.len() {
            let mut got = 0;
            for (n, taken) in (1..).zip(&of_lane[from..]) {
                got += usize::from(*taken);
                let due = n * share;
                assert!(
                    (got + n_shares) * 100 > due,
                    "{got} of {n} from {from} on are of lane {lane} with share {share}"
                );
                assert!(got > 0 || n < (100 * n_shares).div_ceil(share), "none of {n} is of lane {lane}");
            }
        }
    }
}

const NAMES: [&str; 6] = ["p", "q", "r", "s", "t", "u"];
const KINDS: [&[&str]; 4] = [&["a", "b"], &["b"], &["a"], &["b", "c"]];

/// Lanes that a slot serves, one bit for each.
fn lanes_of(bits: u8) -> Option<Vec<laneway_protocol::LaneName>> {
    let some: Vec<_> = (0..4).filter(|rank| bits & (1 << rank) != 0).map(|rank| lane(LANES[rank])).collect();
    (!some.is_empty()).then_some(some)
}

proptest! {
    #[test]
    fn the_bound_holds_under_any_load(
        weights in prop::array::uniform4(0..100_u32),
        total in 1..=100_u32,
        steps in prop::collection::vec((0..10_u8, any::<u8>(), any::<u8>()), 20..160),
    ) {
        // Slots of all sorts come, take some tasks, turn to other kinds and lanes, and leave; lanes fill, run dry, and fill again.
        let sum = weights.iter().sum::<u32>().max(1);
        let shares = weights.map(|weight| weight * total / sum);
        let mut world = four_lanes();
        for (name, share) in LANES.into_iter().zip(shares) {
            set(&mut world, name, share);
        }
        let mut slots: Vec<Slot> = (1..).zip(NAMES).map(|(n, name)| Slot::new(name, n, KINDS[0])).collect();
        let mut hand_outs: Vec<HandOut> = Vec::new();
        for (what, x, y) in steps {
            let who = usize::from(y) % slots.len();
            match what {
                0 | 1 => {
                    drop(world.insert(LANES[usize::from(x % 4)], ["a", "b", "c"][usize::from(y % 3)], u64::from(x / 8)));
                }
                2 => world.commit(),
                3 => slots[who].leave(&mut world),
                4 => (slots[who].kinds, slots[who].lanes) = (KINDS[usize::from(x % 4)], lanes_of(x / 4)),
                _ => {
                    for _ in 0..x % 16 {
                        let at_hand = at_hand(&world, &slots[who]);
                        let Some(lane) = next_lane(&mut slots[who], &mut world) else { break };
                        hand_outs.push(HandOut { at_hand, lane });
                        if x % 3 == 0 {
                            world.commit();
                        }
                    }
                }
            }
        }
        check_bound(&hand_outs, shares);
    }
}
