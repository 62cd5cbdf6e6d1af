//! Schedules: which slots fire, once each, and what an app may do to the rows meanwhile. The world's clock stands at 19:33:20
//! UTC on the 3rd of September 2027, a whole number of seconds.

use laneway_core::{Millis, Op, OpResult, UnixMillis};
use laneway_protocol::TaskState;
use laneway_protocol::message::{CatchUp, NewSchedule, Payload, ScheduleRows, Schedules};
use rusqlite::types::Value;

use super::subject::{START, Subject, World, ids, key, kind, lane, rules, text};
use crate::store::{Fired, Store, Sync};

/// The first second that is the first of its minute.
const MINUTE: i64 = START - START % 60_000 + 60_000;

impl<T: Subject> World<T> {
    /// As the scheduler does it: what is to be planned, then what is due.
    fn fire(&mut self) -> Fired {
        self.turn(|store, now| store.fire(0, now).unwrap());
        self.turn(|store, now| store.fire(99, now).unwrap())
    }

    /// At this time of the wall clock; the other clock goes along as far as time does.
    fn fire_at(&mut self, wall: i64) -> Fired {
        let passed = u64::try_from(wall - self.now.wall.0).unwrap_or(0);
        self.now.mono = Millis(self.now.mono.0 + passed);
        self.now.wall = UnixMillis(wall);
        self.fire()
    }

    fn schedule(&mut self, cron: &str, cells: &[(&'static str, Value)]) -> i64 {
        let name = format!("{cron} {}", self.subject.schedules().len());
        let mut all = vec![("name", text(&name)), ("cron", text(cron))];
        if cells.iter().all(|cell| cell.0 != "kind") {
            all.push(("kind", text("k")));
        }
        all.extend(cells.iter().cloned());
        self.subject.app_insert_schedule(&all)
    }

    fn schedule_cell(&self, id: i64, column: &str) -> Value {
        self.subject.schedules()[&id][column].clone()
    }

    fn error(&self, id: i64) -> String {
        match self.schedule_cell(id, "error") {
            Value::Text(error) => error,
            other => panic!("no error: {other:?}"),
        }
    }
}

/// Seconds behind [`MINUTE`] at which slots were fired.
fn seconds(fired: &Fired) -> Vec<i64> {
    fired.slots.iter().map(|slot| (slot.slot.0 - MINUTE) / 1_000).collect()
}

pub(super) fn a_schedule_fires_each_slot_once<T: Subject>(world: &mut World<T>) {
    // A row with a name, a rhythm and a kind is a whole schedule; each slot is a task as a submit would make it.
    let id = world.schedule("* * * * *", &[]);
    let fired = world.turn(|store, now| store.fire(0, now).unwrap());
    assert_eq!((fired.next_at, fired.more), (Some(UnixMillis(MINUTE)), false));
    assert_eq!(world.fire_at(MINUTE - 1), Fired { next_at: Some(UnixMillis(MINUTE)), ..Fired::default() });
    let fired = world.fire_at(MINUTE);
    assert_eq!((seconds(&fired), fired.next_at), (vec![0], Some(UnixMillis(MINUTE + 60_000))));
    assert_eq!((fired.slots[0].task.value(), fired.slots[0].new), (1, true));
    assert_eq!(world.fire().slots, []);
    assert_eq!(seconds(&world.fire_at(MINUTE + 60_300)), [60]);
    assert_eq!(world.subject.slots(), [(id, MINUTE, 1, true), (id, MINUTE + 60_000, 2, true)]);
    assert_eq!(world.schedule_cell(id, "last_at"), Value::Integer(MINUTE + 60_000));
    assert_eq!(world.schedule_cell(id, "last_task"), Value::Integer(2));
    // They are told as new work, with all that the row says.
    let intake = world.turn(|store, now| store.intake(99, now).unwrap());
    assert_eq!(intake.due, [key("normal", "k")]);
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [1, 2]);

    let cells = [
        ("lane", text("high")),
        ("payload", text("{\"n\":1}")),
        ("max_attempts", Value::Integer(7)),
        ("timeout_ms", Value::Integer(500)),
        ("unique_key", text("one")),
        ("time_zone", text("Asia/Kolkata")),
    ];
    world.schedule("37 8 * * *", &cells);
    let fired = world.fire_at(MINUTE + 90_000);
    assert_eq!(seconds(&fired), [] as [i64; 0]);
    let fired = world.fire_at(MINUTE + 86_400_000);
    let slot = fired.slots.iter().find(|slot| slot.schedule.starts_with("37 8")).unwrap();
    let row = &world.subject.rows()[&i64::try_from(slot.task.value()).unwrap()];
    for (column, value) in cells.iter().filter(|cell| cell.0 != "time_zone") {
        assert_eq!(row[column], *value, "{column}");
    }
    assert_eq!(slot.slot.0 % 86_400_000, 11_220_000, "08:37 there is 03:07 in UTC");
}

pub(super) fn what_passed_while_nobody_looked_is_made_up_for<T: Subject>(world: &mut World<T>) {
    // As the policy of each says, in order; and by a broker that starts as by one that stood still.
    let all = ("catch_up", text("all"));
    let schedules = [
        world.schedule("* * * * *", &[]),
        world.schedule("* * * * *", &[("catch_up", text("skip"))]),
        world.schedule("* * * * *", std::slice::from_ref(&all)),
        world.schedule("* * * * *", &[all, ("catch_up_max", Value::Integer(3))]),
        world.schedule("0 * * * *", &[("catch_up", text("skip"))]),
    ];
    world.fire();
    let hour = MINUTE - MINUTE % 3_600_000 + 3_600_000;
    let now = hour + 10 * 60_000 + 5_000;
    world.now.wall = UnixMillis(now);
    let mut store = world.subject.another(rules());
    store.open_epoch([2; 16], world.now).unwrap();
    store.begin(Sync::Power).unwrap();
    let fired = store.fire(999, world.now).unwrap();
    store.commit().unwrap();
    let slots = world.subject.slots();
    let of = |id: i64| slots.iter().filter(|slot| slot.0 == id).map(|slot| slot.1).collect::<Vec<_>>();
    let minutes = |back: std::ops::Range<i64>| back.rev().map(|n| now - 5_000 - n * 60_000).collect::<Vec<_>>();
    assert_eq!(of(schedules[0]), minutes(0..1));
    assert_eq!(of(schedules[1]), minutes(0..1), "5 s late is on time");
    assert_eq!(of(schedules[2]).first(), Some(&MINUTE));
    assert_eq!(of(schedules[2]).len(), usize::try_from((now - 5_000 - MINUTE) / 60_000 + 1).unwrap());
    assert_eq!(of(schedules[3]), minutes(0..3));
    assert_eq!(of(schedules[4]), [] as [i64; 0], "10 minutes late is too late");
    assert_eq!((fired.slots.len(), fired.more), (slots.len(), false));
    assert_eq!(fired.next_at, Some(UnixMillis(now + 55_000)));
}

pub(super) fn a_turn_fires_no_more_than_it_is_asked_to<T: Subject>(world: &mut World<T>) {
    // The rest is due at once, and none of it is lost to the bound.
    world.schedule("* * * * * *", &[("catch_up", text("all"))]);
    world.schedule("* * * * * *", &[]);
    world.fire();
    world.later(10_000);
    let mut n_slots = Vec::new();
    for _ in 0..4 {
        let fired = world.turn(|store, now| store.fire(4, now).unwrap());
        n_slots.push(fired.slots.len());
        assert_eq!(fired.next_at.unwrap().0 <= world.now.wall.0, n_slots.len() < 3, "{n_slots:?}");
    }
    assert_eq!(n_slots, [4, 4, 3, 0]);
    // Asked for none, it fires none.
    world.later(1_000);
    let fired = world.turn(|store, now| store.fire(0, now).unwrap());
    assert_eq!((fired.slots.len(), fired.next_at), (0, Some(world.now.wall)));
}

pub(super) fn many_that_never_come_take_turns<T: Subject>(world: &mut World<T>) {
    // Each turn finds a few of them out, and a good one behind them has its slot.
    for _ in 0..20 {
        world.schedule("0 0 30 2 *", &[]);
    }
    world.schedule("* * * * *", &[]);
    let mut n_turns = 0;
    let fired = loop {
        n_turns += 1;
        let fired = world.turn(|store, now| store.fire(0, now).unwrap());
        assert!(fired.wrong.len() <= 8);
        if !fired.more {
            break fired;
        }
    };
    assert_eq!((n_turns, fired.next_at), (3, Some(UnixMillis(MINUTE))));
}

pub(super) fn a_fired_slot_is_never_fired_again<T: Subject>(world: &mut World<T>) {
    // Not when the clock goes back, nor when its next slot is forgotten then, nor when an app sets it to the past.
    let id = world.schedule("* * * * *", &[("catch_up", text("all"))]);
    world.fire();
    assert_eq!(world.fire_at(MINUTE + 120_000).slots.len(), 3);
    for (back, next_at) in [(0, None), (3_600_000, None), (3_600_000, Some(MINUTE)), (0, Some(MINUTE - 60_000))] {
        world.now.wall = UnixMillis(MINUTE + 120_000 - back);
        let next_at = next_at.map_or(Value::Null, Value::Integer);
        world.subject.app_update_schedule(id, &[("next_at", next_at)]);
        let fired = world.fire();
        let new: Vec<i64> = seconds(&fired);
        // One before the first slot was never fired.
        assert!(new.iter().all(|second| *second == -60), "{back} {new:?}");
    }
    assert_eq!(seconds(&world.fire_at(MINUTE + 180_000)), [180]);
    let mut slots: Vec<i64> = world.subject.slots().iter().map(|slot| slot.1).collect();
    slots.dedup();
    assert_eq!(slots.len(), world.subject.slots().len());
    assert_eq!(world.subject.rows().len(), slots.len());
}

pub(super) fn a_slot_whose_key_is_live_makes_no_second_task<T: Subject>(world: &mut World<T>) {
    // It is noted with the task that it met; once that has ended, the next slot makes one again.
    let id = world.schedule("* * * * *", &[("unique_key", text("one"))]);
    world.fire();
    let first = world.fire_at(MINUTE).slots[0].task;
    let met = world.fire_at(MINUTE + 60_000).slots.remove(0);
    assert_eq!((met.task, met.new), (first, false));
    let run = world.started(1);
    assert!(!world.fire_at(MINUTE + 120_000).slots[0].new, "it runs");
    world.end(run.done());
    let next = world.fire_at(MINUTE + 180_000).slots.remove(0);
    assert!(next.new);
    let slots = world.subject.slots();
    assert_eq!(slots.iter().map(|slot| slot.3).collect::<Vec<_>>(), [true, false, false, true]);
    assert_eq!(world.schedule_cell(id, "last_at"), Value::Integer(MINUTE + 180_000));
    assert_eq!(world.subject.rows().len(), 2);
}

pub(super) fn a_schedule_that_makes_no_sense_costs_nobody_else_anything<T: Subject>(world: &mut World<T>) {
    // Its row says what to mend; mended by a plain UPDATE it fires. The same when it stops making sense later.
    let wrong = [
        (world.schedule("61 * * * *", &[]), "cron '61 * * * *' makes no sense"),
        (world.schedule("* * * * *", &[("time_zone", text("Nowhere"))]), "time_zone 'Nowhere' is not known"),
        (world.schedule("* * * * *", &[("lane", text("hihg"))]), "use one of high, normal, low"),
        (world.schedule("* * * * *", &[("kind", text(""))]), "choose another name"),
        (world.schedule("0 0 30 2 *", &[]), "names no time to come"),
        (world.schedule("* * * * *", &[("payload", text(&"x".repeat(2_000)))]), "2000 bytes, at most 1000"),
        (world.schedule("* * * * *", &[("max_attempts", Value::Integer(1_000_001))]), "is not 1 to 1000000"),
    ];
    let good = world.schedule("* * * * *", &[]);
    let fired = world.turn(|store, now| store.fire(0, now).unwrap());
    assert_eq!((fired.wrong.len(), fired.next_at), (wrong.len(), Some(UnixMillis(MINUTE))), "{:?}", fired.wrong);
    for (id, part) in wrong {
        assert!(world.error(id).contains(part), "{}", world.error(id));
    }
    assert_eq!(seconds(&world.fire_at(MINUTE)), [0]);
    let (id, _) = wrong[0];
    world.subject.app_update_schedule(id, &[("cron", text("1 * * * *"))]);
    assert_eq!(world.fire().wrong, []);
    assert_eq!(world.schedule_cell(id, "error"), Value::Null);
    assert_eq!(world.schedule_cell(id, "next_at"), Value::Integer(MINUTE - MINUTE % 3_600_000 + 3_660_000));

    world.subject.app_update_schedule(good, &[("lane", text("hihg"))]);
    assert_eq!(world.fire_at(MINUTE + 60_000).wrong.len(), 1);
    world.subject.app_update_schedule(good, &[("lane", Value::Null), ("catch_up", text("all"))]);
    assert_eq!(seconds(&world.fire_at(MINUTE + 120_000)), [60, 120], "what it missed is made up for");
    // A broker that starts looks at all of them anew.
    world.subject.app_update_schedule(good, &[("lane", text("new"))]);
    assert_eq!(world.fire_at(MINUTE + 180_000).wrong.len(), 1);
    let mut rules = rules();
    rules.lanes.push(lane("new"));
    let mut store = world.subject.another(rules);
    store.open_epoch([2; 16], world.now).unwrap();
    store.begin(Sync::Power).unwrap();
    let fired = store.fire(99, world.now).unwrap();
    assert_eq!((fired.wrong.len(), seconds(&fired)), (wrong.len() - 1, vec![180]));
    store.commit().unwrap();
}

pub(super) fn a_change_by_sql_is_all_it_takes<T: Subject>(world: &mut World<T>) {
    // Of the rhythm above all: the next slot is worked out from now. Other columns leave it as it is.
    let id = world.schedule("* * * * *", &[]);
    world.fire();
    let next_at = |world: &World<T>| world.schedule_cell(id, "next_at");
    world.subject.app_update_schedule(id, &[("payload", text("7")), ("cron", text("* * * * *"))]);
    assert_eq!(next_at(world), Value::Integer(MINUTE));
    world.subject.app_update_schedule(id, &[("cron", text("30 * * * * *"))]);
    assert_eq!(next_at(world), Value::Null);
    world.fire();
    assert_eq!(next_at(world), Value::Integer(MINUTE + 30_000 - if MINUTE - START > 30_000 { 60_000 } else { 0 }));
    world.subject.app_update_schedule(id, &[("cron", text("0 0 * * *")), ("time_zone", text("Asia/Kathmandu"))]);
    world.fire();
    let Value::Integer(at) = next_at(world) else { panic!("not planned") };
    assert_eq!(at % 86_400_000, 65_700_000, "midnight there is 18:15 in UTC");
    world.subject.app_delete_schedule(id);
    assert_eq!(world.fire(), Fired::default());
}

pub(super) fn a_paused_schedule_fires_nothing_and_makes_up_for_nothing<T: Subject>(world: &mut World<T>) {
    // Resumed, it goes on from now whatever its policy.
    let id = world.schedule("* * * * *", &[("catch_up", text("all"))]);
    world.fire();
    assert_eq!(seconds(&world.fire_at(MINUTE)), [0]);
    world.subject.app_update_schedule(id, &[("paused", Value::Integer(1))]);
    assert_eq!(world.fire_at(MINUTE + 600_000), Fired::default());
    world.subject.app_update_schedule(id, &[("paused", Value::Integer(0))]);
    let fired = world.fire();
    assert_eq!((fired.slots.len(), fired.next_at), (0, Some(UnixMillis(MINUTE + 660_000))));
    assert_eq!(seconds(&world.fire_at(MINUTE + 660_000)), [660]);
    // Paused twice or resumed twice is as once.
    world.subject.app_update_schedule(id, &[("paused", Value::Integer(0))]);
    assert_eq!(world.schedule_cell(id, "next_at"), Value::Integer(MINUTE + 720_000));
}

pub(super) fn a_clock_that_was_far_ahead_silences_no_schedule<T: Subject>(world: &mut World<T>) {
    // For a moment it is the year 2099; a minute after the clock is right again, so is the schedule.
    let id = world.schedule("* * * * *", &[]);
    world.fire();
    let year_2099 = 4_070_908_800_000;
    world.now.wall = UnixMillis(year_2099);
    assert_eq!(world.fire().slots.len(), 1);
    world.now.wall = UnixMillis(MINUTE);
    world.now.mono = Millis(world.now.mono.0 + 60_000);
    let fired = world.fire();
    assert_eq!((fired.slots.len(), fired.next_at), (0, Some(UnixMillis(MINUTE + 60_000))));
    assert_eq!(seconds(&world.fire_at(MINUTE + 60_000)), [60]);
    assert_eq!(world.schedule_cell(id, "last_at"), Value::Integer(MINUTE + 60_000));
}

pub(super) fn slots_are_remembered_to_a_bound<T: Subject>(world: &mut World<T>) {
    // The newest thousand of each schedule, and none of a schedule that is gone.
    let cells = [("catch_up", text("all")), ("catch_up_max", Value::Integer(700)), ("unique_key", text("one"))];
    let id = world.schedule("* * * * * *", &cells);
    let other = world.schedule("* * * * *", &[]);
    world.fire();
    for _ in 0..2 {
        world.later(700_000);
        world.turn(|store, now| store.fire(10_000, now).unwrap());
    }
    let slots = world.subject.slots();
    let of = |id: i64| slots.iter().filter(|slot| slot.0 == id).map(|slot| slot.1).collect::<Vec<_>>();
    assert_eq!((of(id).len(), of(id)[0], of(other).len()), (1_000, world.now.wall.0 - 999_000, 2));
    world.subject.app_delete_schedule(id);
    assert!(world.subject.slots().iter().all(|slot| slot.0 == other));
}

pub(super) fn a_fired_turn_that_is_undone_never_was<T: Subject>(world: &mut World<T>) {
    // Neither its task nor its slot; the next turn fires it.
    world.schedule("* * * * *", &[]);
    world.fire();
    world.now.wall = UnixMillis(MINUTE);
    let now = world.now;
    let store = world.subject.store();
    store.begin(Sync::Power).unwrap();
    assert_eq!(store.fire(9, now).unwrap().slots.len(), 1);
    store.rollback();
    assert!(world.subject.slots().is_empty() && world.subject.rows().is_empty());
    assert_eq!(seconds(&world.fire()), [0]);
    assert_eq!(world.state(1), TaskState::Queued);
    assert_eq!(world.subject.rows().len(), 1);
}

/// What the store says to somebody who asks by the wire.
fn ask<T: Subject>(world: &mut World<T>, asked: Schedules) -> ScheduleRows {
    match world.ask(Op::Schedules(Box::new(asked))) {
        OpResult::Schedules(rows) => rows,
        other => panic!("no schedules: {other:?}"),
    }
}

fn names(rows: &ScheduleRows) -> Vec<&str> {
    rows.schedules.iter().map(|row| row.name.as_str()).collect()
}

pub(super) fn schedules_are_added_changed_and_removed_by_the_wire<T: Subject>(world: &mut World<T>) {
    // The row is as an app would have inserted it; another rhythm begins from now, anything else leaves the next slot alone.
    let new = NewSchedule {
        time_zone: Some("Europe/Berlin".into()),
        lane: Some(lane("low")),
        unique_key: Some("key".into()),
        max_attempts: Some(5),
        timeout_ms: Some(60_000),
        catch_up: Some(CatchUp::All),
        catch_up_max: Some(7),
        ..NewSchedule::new("nightly", "0 3 * * *", kind("k"), Some(Payload::json("{}")))
    };
    let put = |new: &NewSchedule| Schedules { put: Some(Box::new(new.clone())), ..Schedules::default() };
    let added = ask(world, put(&new)).schedules.remove(0);
    assert_eq!((added.name.as_str(), added.time_zone.as_str(), added.created_at), ("nightly", "Europe/Berlin", START));
    assert_eq!((added.catch_up.as_str(), added.catch_up_max, added.next_at), ("all", Some(7), None));
    world.fire();
    let by_name = |name: &str| Schedules { name: Some(name.into()), ..Schedules::default() };
    let shown = ask(world, by_name("nightly")).schedules.remove(0);
    assert_eq!((shown.payload, shown.timeout_ms, shown.max_attempts), (new.payload.clone(), Some(60_000), Some(5)));
    assert!(shown.next_at.is_some());
    let changed = NewSchedule { payload: None, lane: None, ..new.clone() };
    let changed = ask(world, put(&changed)).schedules.remove(0);
    assert_eq!((changed.next_at, changed.lane), (shown.next_at, None));
    let changed = ask(world, put(&NewSchedule { cron: "0 4 * * *".into(), ..new })).schedules.remove(0);
    assert_eq!(changed.next_at, None);
    assert_eq!(world.subject.schedules().len(), 1);

    for name in ["a", "b"] {
        ask(world, put(&NewSchedule::new(name, "* * * * *", kind("k"), None)));
    }
    let listed = ask(world, Schedules::default());
    assert_eq!((names(&listed), listed.next.as_deref()), (vec!["a", "b", "nightly"], None));
    assert!(listed.schedules[2].payload.is_none(), "only where it is asked for by name");
    let behind = Schedules { after: Some("a".into()), ..Schedules::default() };
    assert_eq!(names(&ask(world, behind)), ["b", "nightly"]);
    let change = Schedules {
        pause: vec!["a".into(), "gone".into()],
        remove: vec!["b".into(), "never".into()],
        ..Schedules::default()
    };
    let rows = ask(world, change);
    assert_eq!((names(&rows), rows.schedules[0].paused), (vec!["a"], true));
    assert_eq!(rows.not_found, ["gone", "never"]);
    let resumed = ask(world, Schedules { resume: vec!["a".into()], ..Schedules::default() });
    assert!(!resumed.schedules[0].paused);
    assert_eq!(ask(world, by_name("b")).not_found, ["b"]);
}

pub(super) fn a_schedule_of_the_wire_that_makes_no_sense_is_refused<T: Subject>(world: &mut World<T>) {
    // With the field and what to write instead; nothing is stored or changed.
    let good = NewSchedule::new("s", "* * * * *", kind("k"), None);
    let cases: [(&str, &str, NewSchedule); 6] = [
        ("cron", "write minute, hour", NewSchedule { cron: "soon".into(), ..good.clone() }),
        ("time_zone", "such as Europe/Berlin", NewSchedule { time_zone: Some("Mars".into()), ..good.clone() }),
        ("lane", "use one of high, normal, low", NewSchedule { lane: Some(lane("hihg")), ..good.clone() }),
        ("name", "use 1 to 128", NewSchedule { name: "x".repeat(129), ..good.clone() }),
        ("catch_up_max", "is not 1 to 1000", NewSchedule { catch_up_max: Some(0), ..good.clone() }),
        ("max_attempts", "is not 1 to 1000000", NewSchedule { max_attempts: Some(0), ..good }),
    ];
    for (field, part, new) in cases {
        let asked = Schedules { put: Some(Box::new(new)), ..Schedules::default() };
        let OpResult::Refused { field: told, reason, .. } = world.ask(Op::Schedules(Box::new(asked))) else {
            panic!("{field} was taken")
        };
        assert_eq!(told, field);
        assert!(reason.contains(part), "{reason}");
    }
    assert!(world.subject.schedules().is_empty());
}
