//! What a person sees who asks the broker to tell what it knows.

use laneway_protocol::message::{Drain, Ready, Request, Tasks};

use super::world::{World, id, ready};
use crate::event::Event;
use crate::limits::DUMP_LEASES_MAX;

#[test]
fn lanes_and_leases_are_told_as_they_are() {
    // Proves each number: what is at hand and runs in each lane, who runs a task since when and for how long, that a stop is told,
    // and that a run whose worker has not come back is an orphan.
    let mut world = World::new();
    world.insert("high", "a", 1);
    world.insert("low", "a", 2);
    world.hello("w", 1, &["a"]);
    world.ask(1, Request::Ready(ready("w")));
    world.ask(1, Request::Ready(Ready { slot: 1, ..ready("w") }));
    world.commit();
    world.jump(1_000);
    world.ask(9, Request::Cancel(Tasks { tasks: vec![id(2)] }));
    world.commit();
    let dump = world.broker.dump(world.now);
    let lanes = dump.lanes.iter().map(|lane| (lane.lane.as_str(), lane.at_hand, lane.running, lane.handed_out));
    assert_eq!(lanes.collect::<Vec<_>>(), [("high", 0, 1, 1), ("normal", 0, 0, 0), ("low", 1, 1, 1)]);
    let leases = dump.leases.iter().map(|lease| (lease.task, lease.since_ms, lease.left_ms, lease.note));
    assert_eq!(leases.collect::<Vec<_>>(), [(id(1), 1_000, 59_000, None), (id(2), 1_000, 5_000, Some("cancel"))]);
    assert_eq!((dump.leases[0].worker.as_str(), dump.leases[0].slot), ("w/1", Some(0)));
    assert_eq!((dump.workers, dump.ready, dump.running, dump.more_leases, dump.held_back), (1, 0, 2, 0, None));

    world.restart(true);
    let dump = world.broker.dump(world.now);
    assert!(dump.leases.iter().all(|lease| lease.note == Some("orphan") && lease.worker == "w"), "{dump:?}");
}

#[test]
fn the_oldest_leases_are_told_and_the_others_counted() {
    // Proves the bound, however many tasks run.
    let mut world = World::new();
    let n = DUMP_LEASES_MAX as u64 + 7;
    world.hello("w", 1, &["a"]);
    for _ in 0..n {
        world.insert("low", "a", 1);
        world.ask(1, Request::Ready(Ready { slot: u32::try_from(world.table.rows.len()).unwrap(), ..ready("w") }));
        world.commit();
        world.jump(1);
    }
    let dump = world.broker.dump(world.now);
    assert_eq!((dump.leases.len(), dump.more_leases), (DUMP_LEASES_MAX, 7));
    assert!(dump.leases.is_sorted_by(|a, b| a.since_ms > b.since_ms));
    assert_eq!(dump.leases[0].since_ms, n);
}

#[test]
fn whoever_asks_why_nothing_is_handed_out_is_told() {
    // Proves a reason for each thing that holds hand-outs back, the most serious first.
    let mut world = World::new();
    let why = |world: &World| world.broker.dump(world.now).held_back.unwrap_or_default();
    assert_eq!(why(&world), "");
    world.event(Event::Quiet(true));
    assert!(why(&world).contains("quiet"));
    world.ask(9, Request::Drain(Drain::default()));
    assert!(why(&world).contains("drains"));
    world.event(Event::Stop);
    assert!(why(&world).contains("stops"));
    world.event(Event::StoreFailed("disk full".into()));
    assert!(why(&world).contains("disk full"));
}
