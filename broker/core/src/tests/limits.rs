//! Caps, rates, and pauses of kinds: what is kept back, what goes on beside it, and when it comes again.

use laneway_protocol::limits::{KEPT_AGE_MS_MAX, KEPT_COUNT_MAX};
use laneway_protocol::message::{
    Answer, KindState, KindValues, Kinds, LaneRow, LaneValues, Lanes, Ready, Request, SetKind, SetLane,
};
use laneway_protocol::{Code, Lease};

use super::world::{World, done, held, hello, id, kind, lane, plain, ready, settings};
use crate::Settings;
use crate::event::ReplyTo;

pub(super) fn set_kind(name: &str, values: KindValues) -> Request {
    Request::Kinds(Kinds { set: vec![SetKind { kind: kind(name), values }], ..Kinds::default() })
}

pub(super) fn cap(n: u32) -> KindValues {
    KindValues { cap: Some(n), ..KindValues::default() }
}

pub(super) fn rate(text: &str, burst: u32) -> KindValues {
    KindValues { rate: Some(text.parse().unwrap()), rate_burst: Some(burst), ..KindValues::default() }
}

pub(super) fn set_lane(name: &str, values: LaneValues) -> Request {
    Request::Lanes(Lanes { set: vec![SetLane { lane: lane(name), values }], ..Lanes::default() })
}

/// Slots of their own sessions wait for kinds a and b, each with the number of its session as its connection.
fn idle(world: &mut World, n: u64) -> Vec<ReplyTo> {
    let slots = (0..n).map(|n| world.ask(n, Request::Ready(plain(&format!("w{n}"), &["a", "b"])))).collect();
    world.commit();
    slots
}

/// The ids that each of these slots was given so far.
fn given(world: &World, slots: &[ReplyTo]) -> Vec<Vec<u64>> {
    let of = |slot: &ReplyTo| match world.answers.get(slot) {
        Some(Answer::Tasks(_)) => world.tasks(*slot).into_iter().map(|(id, _)| id).collect(),
        _ => Vec::new(),
    };
    slots.iter().map(of).collect()
}

fn running(world: &World) -> Vec<u64> {
    let mut ids: Vec<u64> = world.broker.running.keys().map(|id| id.value()).collect();
    ids.sort_unstable();
    ids
}

pub(super) fn kinds(world: &mut World) -> Vec<KindState> {
    let reply = world.ask(90, Request::Kinds(Kinds::default()));
    world.commit();
    match world.answers.remove(&reply) {
        Some(Answer::Kinds(rows)) => rows.kinds,
        other => panic!("{other:?}"),
    }
}

pub(super) fn lanes(world: &mut World) -> Vec<LaneRow> {
    let reply = world.ask(90, Request::Lanes(Lanes::default()));
    world.commit();
    match world.answers.remove(&reply) {
        Some(Answer::Lanes(rows)) => rows.lanes,
        other => panic!("{other:?}"),
    }
}

/// One word of a worker that has done its task and asks for no other.
fn finish(world: &mut World, n: u64, task: u64, lease: Lease) {
    let question =
        Ready { outcomes: vec![done(task, lease)], max: 0, ack: Some(9), ..plain(&format!("w{n}"), &["a", "b"]) };
    let reply = world.ask(n, Request::Ready(question));
    world.commit();
    let answer = world.answers.get(&reply);
    assert!(matches!(answer, Some(Answer::Wait(_))), "{answer:?}");
}

#[test]
fn a_kind_that_is_named_is_told_of_though_nothing_is_left_of_it() {
    // Proves that whoever takes values back, or resumes, sees what holds from then on, and that the list is as short as before.
    let mut world = World::new();
    let one = vec![kind("a")];
    let reset = Kinds { reset: one.clone(), ..Kinds::default() };
    for back in [reset, Kinds { resume: one.clone(), ..Kinds::default() }] {
        world.ask(90, set_kind("a", cap(3)));
        world.ask(90, Request::Kinds(Kinds { pause: one.clone(), ..Kinds::default() }));
        world.ask(90, Request::Kinds(Kinds { reset: one.clone(), ..Kinds::default() }));
        world.ask(90, Request::Kinds(Kinds { resume: one.clone(), ..Kinds::default() }));
        let reply = world.ask(90, Request::Kinds(back));
        world.commit();
        let Some(Answer::Kinds(rows)) = world.answers.remove(&reply) else { panic!("no rows") };
        let told: Vec<_> = rows.kinds.iter().map(|row| (row.kind.as_str(), row.cap, row.paused)).collect();
        assert_eq!(told, [("a", None, false)]);
        assert_eq!(kinds(&mut world), []);
    }
}

#[test]
fn a_paused_kind_holds_its_tasks_and_stands_before_nobody() {
    // In every lane, whatever is read ahead; what runs goes on; the pause outlives a restart.
    let mut world = World::new();
    world.insert("high", "a", 2);
    world.insert("low", "b", 1);
    let slots = idle(&mut world, 1);
    assert_eq!(given(&world, &slots), [[1]]);
    world.ask(9, Request::Kinds(Kinds { pause: vec![kind("a")], ..Kinds::default() }));
    world.commit();
    let more = world.ask(5, Request::Ready(plain("v", &["a", "b"])));
    world.commit();
    assert_eq!(given(&world, &[more]), [[3]], "the lower lane goes on");
    assert!(kinds(&mut world)[0].paused);
    world.restart(true);
    let after = world.ask(5, Request::Ready(plain("u", &["a"])));
    world.commit();
    assert!(world.open.contains(&after) && kinds(&mut world)[0].paused);
    world.ask(9, Request::Kinds(Kinds { resume: vec![kind("a")], ..Kinds::default() }));
    assert_eq!(given(&world, &[after]), [[2]], "at once");
}

#[test]
fn no_more_than_the_cap_run_and_the_next_starts_when_one_ends() {
    // Slots stay idle beside the rest, lower lanes are served, batches stop at the cap, and an end by any way counts.
    let mut world = World::new();
    world.ask(9, set_kind("a", cap(2)));
    world.insert("high", "a", 5);
    world.insert("low", "b", 1);
    let batch = world.ask(0, Request::Ready(Ready { max: 4, ..plain("w0", &["a", "b"]) }));
    world.commit();
    assert_eq!(given(&world, &[batch]), [[1, 2, 6]], "two of the four, and what stands behind them");
    let slots: Vec<ReplyTo> = (1..3).map(|n| world.ask(n, Request::Ready(plain(&format!("w{n}"), &["a"])))).collect();
    world.commit();
    assert_eq!(given(&world, &slots), [[0_u64; 0]; 2]);
    let lease = world.tasks(batch)[0].1;
    finish(&mut world, 0, 1, lease);
    assert_eq!(given(&world, &slots), [vec![3], vec![]], "the one that has waited longest");
    world.overtake(3, None);
    assert_eq!(given(&world, &slots), [vec![3], vec![4]], "a row that an app deletes frees its place");
    assert_eq!(kinds(&mut world)[0].running, 2);
    world.ask(9, set_kind("a", cap(0)));
    let last = world.ask(7, Request::Ready(plain("x", &["a"])));
    assert_eq!(given(&world, &[last]), [[5]], "0 takes the cap away");
}

#[test]
fn who_waits_longest_gets_the_place_that_another_slot_frees() {
    // The slot that brings the outcome asks again in the same word and stands behind.
    let mut world = World::new();
    world.ask(9, set_kind("a", cap(1)));
    world.insert("low", "a", 3);
    let slots = idle(&mut world, 2);
    let lease = world.lease(slots[0]);
    let again = Ready { outcomes: vec![done(1, lease)], batch: Some(1), ack: Some(1), ..plain("w0", &["a", "b"]) };
    let again = world.ask(0, Request::Ready(again));
    assert_eq!(given(&world, &[slots[1], again]), [vec![2], vec![]]);
}

#[test]
fn a_cap_counts_what_an_earlier_broker_handed_out() {
    // Orphans are live leases; they free their place when nobody comes back for them.
    let mut world = World::new();
    world.ask(9, set_kind("a", cap(2)));
    world.insert("low", "a", 4);
    let slots = idle(&mut world, 2);
    assert_eq!(given(&world, &slots), [[1], [2]]);
    world.restart(true);
    let after = world.ask(7, Request::Ready(Ready { wait_ms: 60_000, ..plain("x", &["a"]) }));
    world.commit();
    assert!(world.open.contains(&after), "two run");
    assert_eq!(running(&world), [1, 2]);
    let said = Ready { outcomes: vec![done(1, world.row(1).lease.unwrap())], max: 0, ..plain("w0", &["a"]) };
    world.ask(0, Request::Ready(said));
    world.commit();
    assert_eq!(given(&world, &[after]), [[3]]);
}

#[test]
fn a_lower_cap_takes_nothing_away() {
    // Three run, one may: the next starts when none is left. A cap of a lane holds for all its kinds.
    let mut world = World::new();
    world.insert("low", "a", 3);
    world.insert("low", "b", 2);
    let slots = idle(&mut world, 3);
    world.ask(9, set_lane("low", LaneValues { cap: Some(1), ..LaneValues::default() }));
    world.commit();
    assert_eq!((lanes(&mut world)[2].running, lanes(&mut world)[2].cap), (3, Some(1)));
    let next = world.ask(7, Request::Ready(plain("x", &["a", "b"])));
    world.commit();
    for n in 0..3 {
        assert!(world.open.contains(&next), "{} run", 3 - n);
        let lease = world.lease(slots[usize::try_from(n).unwrap()]);
        finish(&mut world, n, n + 1, lease);
    }
    assert_eq!(given(&world, &[next]), [[4]]);
    world.ask(9, Request::Lanes(Lanes { reset: vec![lane("low")], ..Lanes::default() }));
    let last = world.ask(8, Request::Ready(plain("y", &["b"])));
    assert_eq!(given(&world, &[last]), [[5]]);
}

#[test]
fn a_closed_lane_is_passed_over_with_its_barrier() {
    // The capped lane is empty here and not in the table; what is below does not wait for the refill.
    let mut world = World::with(Settings { window_rows_min: 1, window_rows_max: 1, ..settings() });
    world.ask(9, set_lane("high", LaneValues { cap: Some(1), ..LaneValues::default() }));
    world.insert("high", "a", 9);
    world.insert("low", "a", 1);
    let slots = idle(&mut world, 2);
    assert_eq!(given(&world, &slots), [[1], [10]]);
}

#[test]
fn a_rate_spaces_the_starts_to_the_millisecond() {
    // One token at first, then one each 100 ms, with a deadline for exactly that; a pause gives the burst.
    let mut world = World::new();
    world.ask(9, set_kind("a", rate("10/s", 2)));
    world.insert("high", "a", 9);
    world.insert("low", "b", 1);
    let slots = idle(&mut world, 6);
    assert_eq!(given(&world, &slots).concat(), [1, 10], "and the lower lane goes on");
    let begun = world.now.mono;
    assert_eq!(world.broker.next_deadline(), Some(begun.after(100)));
    world.pass(99);
    assert_eq!(running(&world).len(), 2);
    world.pass(1);
    assert_eq!(running(&world), [1, 2, 10]);
    world.pass(250);
    assert_eq!(running(&world), [1, 2, 3, 4, 10]);
    let left = slots.iter().filter(|slot| world.open.contains(slot)).count();
    assert_eq!(left, 1);
    world.pass(9_000);
    let slots = idle(&mut world, 6);
    assert_eq!(given(&world, &slots).concat().len(), 2, "the burst");
}

#[test]
fn an_end_gives_no_token_back_and_a_restart_begins_with_one() {
    let mut world = World::new();
    world.ask(9, set_kind("a", rate("1/h", 1)));
    world.insert("low", "a", 3);
    let slots = idle(&mut world, 2);
    let lease = world.lease(slots[0]);
    finish(&mut world, 0, 1, lease);
    assert!(running(&world).is_empty());
    world.restart(true);
    let slots = idle(&mut world, 2);
    assert_eq!(given(&world, &slots).concat(), [2]);
}

#[test]
fn a_committed_hand_out_and_a_suspect_count_like_any_other() {
    let mut world = World::new();
    world.ask(9, set_kind("a", cap(1)));
    world.insert_with("high", "a", |row| row.losses = 1);
    world.insert("high", "a", 1);
    let first = world.ask(0, Request::Ready(Ready { committed: true, ..plain("w0", &["a"]) }));
    let second = world.ask(1, Request::Ready(plain("w1", &["a"])));
    world.commit();
    assert_eq!(given(&world, &[first, second]), [vec![1], vec![]]);
}

#[test]
fn what_is_set_holds_over_the_settings_and_a_reset_takes_it_back() {
    // Each value with where it comes from; a new hand-out has what was set, a task's own word goes before it.
    let own = KindValues { cap: Some(3), timeout_ms: Some(5_000), ..KindValues::default() };
    let mut world = World::with(Settings { kind_values: [(kind("a"), own)].into(), ..settings() });
    let values = KindValues { max_attempts: Some(7), timeout_ms: Some(9_000), cap: Some(0), ..KindValues::default() };
    world.ask(9, set_kind("a", values));
    world.ask(9, set_kind("a", KindValues { backoff_base_ms: Some(10), ..KindValues::default() }));
    world.insert("low", "a", 1);
    world.insert_with("low", "a", |row| row.timeout_ms = Some(100));
    let slots = idle(&mut world, 2);
    let handed = |world: &World, n: usize| match world.answers.get(&slots[n]) {
        Some(Answer::Tasks(tasks)) => (tasks.tasks[0].max_attempts, tasks.tasks[0].timeout_ms),
        other => panic!("{other:?}"),
    };
    assert_eq!((handed(&world, 0), handed(&world, 1)), ((7, 9_000), (7, 100)));
    let row = kinds(&mut world).remove(0);
    assert_eq!((row.cap, row.max_attempts, row.timeout_ms, row.backoff_base_ms), (None, 7, 9_000, 10));
    assert_eq!(row.set, ["cap", "max_attempts", "timeout_ms", "backoff_base_ms"]);
    assert!(row.settings.is_empty());
    world.restart(true);
    assert_eq!(kinds(&mut world).remove(0).max_attempts, 7, "it is kept");
    world.ask(9, Request::Kinds(Kinds { reset: vec![kind("a")], ..Kinds::default() }));
    let row = kinds(&mut world).remove(0);
    assert_eq!((row.cap, row.max_attempts, row.timeout_ms), (Some(3), 3, 5_000));
    assert_eq!((row.set.len(), row.settings), (0, vec!["cap".to_owned(), "timeout_ms".to_owned()]));
}

#[test]
fn a_kind_moves_to_another_lane_with_what_was_read_ahead() {
    // Its queues are read anew, for rows without a lane stand elsewhere now.
    let mut world = World::new();
    world.insert("normal", "a", 3);
    world.ask(0, Request::Ready(Ready { wait_ms: 0, ..plain("w", &["a"]) }));
    world.commit();
    world.take();
    world.ask(9, set_kind("a", KindValues { lane: Some(lane("low")), ..KindValues::default() }));
    let said = world.take();
    for line in ["unload 1 2 3", "demand normal/a 32", "demand low/a 32"] {
        assert!(said.iter().any(|other| other == line), "{line} is not in {said:?}");
    }
    world.commit();
    assert_eq!(kinds(&mut world)[0].lane, lane("low"));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    // With the field, the value and the bound.
    let mut world = World::new();
    let lane_of = |name: &str| KindValues { lane: Some(lane(name)), ..KindValues::default() };
    let attempts = KindValues { max_attempts: Some(0), ..KindValues::default() };
    let backoff = KindValues { backoff_base_ms: Some(2_000), ..KindValues::default() };
    let age = KindValues { dead_age_ms: Some(KEPT_AGE_MS_MAX + 1), ..KindValues::default() };
    let count = KindValues { done_count_max: Some(KEPT_COUNT_MAX + 1), ..KindValues::default() };
    let share = |share| LaneValues { share: Some(share), ..LaneValues::default() };
    for (request, code, field, says) in [
        (set_kind("a", cap(1_000_001)), Code::BadBody, "set[0].values.cap", "1000001: must be 0 to 1000000"),
        (set_kind("a", attempts), Code::BadBody, "set[0].values.max_attempts", "must be 1 to"),
        (
            set_kind("a", backoff),
            Code::BadBody,
            "set[0].values.backoff_base_ms",
            "2000, over its backoff_max_ms of 1000",
        ),
        (set_kind("a", age), Code::BadBody, "set[0].values.dead_age_ms", "must be 0 to 3153600000000"),
        (set_kind("a", count), Code::BadBody, "set[0].values.done_count_max", "must be 0 to 1000000000000"),
        (set_kind("a", lane_of("none")), Code::UnknownLane, "set[0].values.lane", "'none'"),
        (set_lane("none", share(1)), Code::UnknownLane, "set[0].lane", "'none'"),
        (set_lane("low", share(101)), Code::BadBody, "set[0].values.share", "must be 0 to 100"),
    ] {
        let reply = world.ask(9, request);
        let Some(Answer::Error(error)) = world.answers.remove(&reply) else { panic!("{field} was taken") };
        assert_eq!((error.code, error.field.as_deref()), (code, Some(field)));
        assert!(error.text.contains(says), "{}", error.text);
    }
    assert!(world.table.inbox.is_empty() && world.broker.set_kinds.is_empty() && world.broker.set_lanes.is_empty());
    for n in 0..10 {
        world.ask(9, set_kind(&format!("k{n}"), cap(1)));
    }
    let reply = world.ask(9, set_kind("k10", cap(1)));
    let Some(Answer::Error(error)) = world.answers.remove(&reply) else { panic!("taken") };
    assert_eq!(error.code, Code::Full);
}

#[test]
fn a_resumed_task_counts_once() {
    // A session comes back for what it holds: its hand-out was counted as an orphan's.
    let mut world = World::new();
    world.ask(9, set_kind("a", cap(2)));
    world.insert("low", "a", 3);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit();
    let lease = world.lease(reply);
    world.restart(false);
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    world.commit();
    let slots: Vec<ReplyTo> = (0..2).map(|slot| world.ask(1, Request::Ready(Ready { slot, ..ready("w") }))).collect();
    world.commit();
    assert_eq!(given(&world, &slots), [vec![2], vec![]]);
    assert_eq!(id(1), *world.broker.running.keys().min().unwrap());
}

#[test]
fn a_hand_out_that_is_adopted_counts_before_the_hold_ends() {
    // The last worker that was waited for brings a task that no row shows; what it frees goes out in the same event.
    let mut world = World::new();
    world.ask(9, set_kind("a", cap(1)));
    world.insert("low", "a", 2);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(ready("w")));
    world.commit_ops();
    world.load();
    let lease = world.lease(reply);
    world.restart(false);
    let other = world.ask(2, Request::Ready(plain("v", &["a"])));
    world.commit();
    assert!(world.open.contains(&other), "hand-outs wait");
    world.ask(1, hello("w", &["a"], &[held(1, lease)]));
    world.commit();
    assert_eq!((running(&world), world.open.contains(&other)), (vec![1], true));
}

#[test]
fn a_token_that_has_come_is_there_before_its_timer_is_looked_at() {
    // A READY comes in the same moment, ahead of the tick: the urgent task goes first, to the slot that has waited longer.
    let mut world = World::new();
    world.ask(9, set_kind("a", rate("10/s", 1)));
    world.insert("high", "a", 3);
    let slots = idle(&mut world, 2);
    assert_eq!(given(&world, &slots), [vec![1], vec![]]);
    world.insert("low", "b", 1);
    world.jump(100);
    let late = world.ask(7, Request::Ready(plain("x", &["a", "b"])));
    assert_eq!(given(&world, &[slots[1], late]), [vec![2], vec![]]);
    world.jump(100);
    let later = world.ask(8, Request::Ready(plain("y", &["b"])));
    assert_eq!(given(&world, &[late, later]), [vec![3], vec![]]);
}
