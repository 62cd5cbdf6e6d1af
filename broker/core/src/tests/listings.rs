//! What people see of kinds and lanes that have values of their own, and what keeps a task back by them.

use laneway_protocol::message::{Answer, KindRows, KindValues, Kinds, LaneValues, Lanes, Request, SetKind, Status};
use laneway_protocol::{Code, Kind};

use super::limits::{cap, kinds, lanes, rate, set_kind, set_lane};
use super::world::{World, id, kind, lane, plain, settings};
use crate::Settings;

fn explain(world: &mut World, n: u64) -> String {
    let reply = world.ask(90, Request::Status(Status { tasks: vec![id(n)], filter: None, detail: true }));
    world.commit();
    match world.answers.remove(&reply) {
        Some(Answer::Status(rows)) => rows.rows[0].explain.clone().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn kinds_are_listed_with_what_waits_in_all_lanes() {
    // Those that only stand in the table, those that only a worker or a value names; a kind with nothing is not made up.
    let own = KindValues { cap: Some(3), rate: Some("5/s".parse().unwrap()), ..KindValues::default() };
    let mut world = World::with(Settings { kind_values: [(kind("set"), own)].into(), ..settings() });
    let queued = [("high", "two", 2), ("low", "two", 3), ("low", "one", 1), ("low", "none", 0), ("low", "", 4)];
    world.table.counts.queued = queued.map(|(lane, kind, n)| (lane.into(), kind.into(), n)).to_vec();
    world.hello("w", 1, &["worker"]);
    world.ask(9, set_kind("set", cap(7)));
    let rows = kinds(&mut world);
    let seen: Vec<(&str, u64, u64)> = rows.iter().map(|row| (row.kind.as_str(), row.queued, row.workers)).collect();
    assert_eq!(seen, [("one", 1, 0), ("set", 0, 0), ("two", 5, 0), ("worker", 0, 1)]);
    let set = &rows[1];
    assert_eq!((set.cap, set.rate.unwrap().to_string().as_str(), set.rate_burst), (Some(7), "5/s", None));
    assert_eq!((&*set.set, &*set.settings), (&["cap".to_owned()][..], &["rate".to_owned()][..]));
    world.ask(9, set_kind("set", rate("5/s", 2)));
    assert_eq!(kinds(&mut world)[1].rate_burst, Some(2));
    assert_eq!(kinds(&mut world)[1].settings, [""; 0], "both are set now");
}

#[test]
fn the_next_page_of_kinds_begins_behind_the_last() {
    let mut world = World::new();
    world.table.counts.queued = ["a", "b", "c"].map(|kind| ("low".into(), kind.into(), 1)).to_vec();
    let mut behind = |after: &str| {
        let reply = world.ask(90, Request::Kinds(Kinds { after: Some(kind(after)), ..Kinds::default() }));
        world.commit();
        let Some(Answer::Kinds(KindRows { kinds, next })) = world.answers.remove(&reply) else { panic!() };
        assert_eq!(next, None);
        kinds.into_iter().map(|row| row.kind).collect::<Vec<Kind>>()
    };
    assert_eq!(behind("a"), [kind("b"), kind("c")]);
    assert_eq!(behind("bb"), [kind("c")]);
    assert_eq!(behind("c"), []);
}

#[test]
fn lanes_are_listed_with_what_is_set() {
    let mut world = World::new();
    let values = LaneValues { cap: Some(2), rate: Some("9/m".parse().unwrap()), ..LaneValues::default() };
    world.ask(9, set_lane("normal", values.clone()));
    let row = lanes(&mut world).remove(1);
    assert_eq!((row.cap, row.rate.unwrap().to_string().as_str(), row.rate_burst), (Some(2), "9/m", None));
    assert_eq!(row.set, ["cap", "rate"]);
    world.ask(9, set_lane("normal", LaneValues { rate_burst: Some(1), share: Some(40), ..LaneValues::default() }));
    let row = lanes(&mut world).remove(1);
    assert_eq!(
        (row.cap, row.rate_burst, row.share, row.one_of),
        (Some(2), Some(1), Some(40), Some(3)),
        "on top of what was set"
    );
    assert_eq!(row.set, ["cap", "rate", "rate_burst", "share"]);
    world.ask(9, Request::Lanes(Lanes { reset: vec![lane("normal")], ..Lanes::default() }));
    let row = lanes(&mut world).remove(1);
    assert_eq!((row.cap, row.rate, row.set.len()), (None, None, 0));
}

#[test]
fn what_keeps_a_task_back_is_told_with_its_figures() {
    // A pause of its kind before a cap, the cap of its kind before that of its lane, and when the next token comes.
    let mut world = World::new();
    world.ask(9, set_kind("a", rate("1/s", 1)));
    world.insert("low", "a", 2);
    world.ask(1, Request::Ready(plain("w", &["a"])));
    world.ask(2, Request::Ready(plain("v", &["a"])));
    world.commit();
    assert_eq!(explain(&mut world, 2), "the rate of kind 'a', 1/s, lets the next one start in 1000 ms");
    let none = KindValues { rate: Some("none".parse().unwrap()), cap: Some(1), ..KindValues::default() };
    world.ask(9, set_lane("low", LaneValues { cap: Some(1), ..LaneValues::default() }));
    world.ask(9, set_kind("a", none));
    assert_eq!(explain(&mut world, 2), "kind 'a' runs 1 of at most 1");
    world.ask(9, set_kind("a", cap(0)));
    assert_eq!(explain(&mut world, 2), "lane 'low' runs 1 of at most 1");
    world.ask(9, Request::Kinds(Kinds { pause: vec![kind("a")], ..Kinds::default() }));
    assert_eq!(explain(&mut world, 2), "its kind 'a' is paused; `laneway kind resume a` resumes it");
}

#[test]
fn bounds_of_what_is_set_are_met_to_the_last() {
    // A backoff may be as long as its longest; as many kinds as may have values of their own, and a known one always.
    let mut world = World::new();
    let backoff = |ms| KindValues { backoff_base_ms: Some(ms), ..KindValues::default() };
    let refused = |world: &mut World, request| {
        let reply = world.ask(9, request);
        world.commit();
        match world.answers.remove(&reply) {
            Some(Answer::Error(error)) => Some(error.code),
            _ => None,
        }
    };
    assert_eq!(refused(&mut world, set_kind("k0", backoff(1_000))), None);
    assert_eq!(refused(&mut world, set_kind("k0", backoff(1_001))), Some(Code::BadBody));
    for n in 0..10 {
        assert_eq!(refused(&mut world, set_kind(&format!("k{n}"), cap(1))), None, "k{n}");
    }
    assert_eq!(refused(&mut world, set_kind("k10", cap(1))), Some(Code::Full));
    let some = [set("k0"), set("k10")].to_vec();
    assert_eq!(refused(&mut world, Request::Kinds(Kinds { set: some, ..Kinds::default() })), Some(Code::Full));
    assert_eq!(refused(&mut world, set_kind("k9", cap(2))), None, "it is one of the ten");
}

fn set(name: &str) -> SetKind {
    SetKind { kind: kind(name), values: cap(3) }
}
