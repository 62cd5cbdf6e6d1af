//! Schedules, with the real binary: a row in `schedules` makes a task for each of its slots, once, through kills, restarts and
//! clocks that jump, by the time zone that is built in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use harness::tools::libfaketime;
use harness::{Broker, Place, Random, Said, Table, WorkerProcess, now_us, wait_until};
use laneway_protocol::Kind;
use laneway_protocol::message::{NewSchedule, Payload};
use serde_json::json;

const HOUR_MS: i64 = 3_600_000;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn schedule(table: &Table, name: &str, columns: &str, values: &str) -> i64 {
    let sql = format!("INSERT INTO schedules(name, kind, payload, {columns}) VALUES ('{name}', 'echo', '1', {values})");
    table.execute(&sql, []);
    table.0.last_insert_rowid()
}

/// The slots that were fired, in order, and the task of each.
fn slots(table: &Table, schedule: i64) -> Vec<(i64, i64)> {
    let mut rows = table.0.prepare("SELECT slot, task FROM schedule_slots WHERE schedule = ?1 ORDER BY slot").unwrap();
    rows.query_map([schedule], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn cell<T: rusqlite::types::FromSql>(table: &Table, schedule: i64, column: &str) -> T {
    table.one(&format!("SELECT {column} FROM schedules WHERE id = ?1"), [schedule])
}

#[test]
fn each_second_fires_once_while_brokers_are_killed() {
    // Proves that every slot makes one task and every task belongs to one slot, whatever instant the kill hits, and that those
    // of the time without a broker are made up for.
    let place = Place::new();
    let random = Random::new();
    let mut broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    let id = schedule(&table, "each second", "cron, catch_up", "'* * * * * *', 'all'");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(600 + random.below(1_500)));
        broker.kill();
        std::thread::sleep(Duration::from_millis(random.below(2_500)));
        broker = Broker::start(&place);
    }
    let n = slots(&table, id).len();
    wait_until("two more slots", || slots(&table, id).len() > n + 2);
    table.execute("UPDATE schedules SET paused = 1", []);
    let fired = slots(&table, id);
    assert!(fired.windows(2).all(|two| two[1].0 - two[0].0 == 1_000), "a slot is missing: {fired:?}");
    let mut tasks: Vec<i64> = fired.iter().map(|slot| slot.1).collect();
    tasks.sort_unstable();
    tasks.dedup();
    assert_eq!(tasks.len(), fired.len(), "two slots share a task");
    assert_eq!(table.count("1"), i64::try_from(fired.len()).unwrap(), "a task belongs to no slot");
    table.wait_for_count("state = 'done'", i64::try_from(fired.len()).unwrap());
}

#[test]
fn a_slot_fires_in_its_second_and_not_before() {
    // Proves that the broker sleeps until a slot and no longer: a tenth of a second late is for a busy machine.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let id = schedule(&table, "each second", "cron", "'* * * * * *'");
    wait_until("five slots", || slots(&table, id).len() >= 5);
    let sql = "SELECT fired_at - slot FROM schedule_slots ORDER BY 1";
    let mut rows = table.0.prepare(sql).unwrap();
    let late: Vec<i64> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(late.iter().all(|ms| (0..1_000).contains(ms)) && late[0] < 100, "{late:?}");
}

#[test]
fn what_an_app_gets_wrong_is_told_in_the_row_or_at_once() {
    // Proves that a bad schedule says what to write instead, costs the good one nothing, and fires once it is mended.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let bad = schedule(&table, "bad", "cron", "'* * * * * * * *'");
    let nowhere = schedule(&table, "nowhere", "cron, time_zone", "'* * * * * *', 'Europe/Nowhere'");
    let good = schedule(&table, "good", "cron", "'* * * * * *'");
    wait_until("a slot of the good one", || !slots(&table, good).is_empty());
    assert!(cell::<String>(&table, bad, "error").contains("'30 2 * * MON-FRI'"));
    assert!(cell::<String>(&table, nowhere, "error").contains("such as Europe/Berlin"));
    assert!(broker.log().iter().any(|line| line["schedule"] == "bad" && line["level"] == "WARN"));
    table.execute("UPDATE schedules SET cron = '* * * * * *' WHERE name = 'bad'", []);
    wait_until("a slot of the mended one", || !slots(&table, bad).is_empty());
    assert_eq!(cell::<Option<String>>(&table, bad, "error"), None);
    for (column, value, told) in [
        ("catch_up", "'twice'", "catch_up is skip, one or all"),
        ("catch_up_max", "1001", "catch_up_max is 1 to 1000"),
        ("paused", "2", "paused is 0 or 1"),
        ("max_attempts", "0", "max_attempts is at least 1"),
        ("next_at", "'tomorrow'", "next_at is in Unix milliseconds"),
    ] {
        let error = table.0.execute(&format!("UPDATE schedules SET {column} = {value}"), []).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn a_slot_whose_key_is_live_starts_no_second_run() {
    // Proves the overlap policy: while a run takes longer than the rhythm, the next ones are noted and not made.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    table.execute(
        "INSERT INTO schedules(name, cron, kind, payload, unique_key) VALUES ('s', '* * * * * *', 'sleep', '{\"ms\": 2500}', 's')",
        [],
    );
    let met = "SELECT count(*) FROM schedule_slots WHERE new = 0";
    wait_until("slots that met a task", || table.one::<i64>(met, []) >= 3);
    assert!(table.count("state = 'running'") <= 1);
    let overlaps = "SELECT count(*) FROM tasks a JOIN tasks b ON a.id < b.id AND b.started_at < a.finished_at";
    assert_eq!(table.one::<i64>(overlaps, []), 0);
}

/// The wall clock of a broker's process, by libfaketime; the monotonic one stays the machine's.
struct WallClock(PathBuf);

impl WallClock {
    fn new(place: &Place, text: &str) -> Self {
        let clock = Self(place.path("clock"));
        clock.set(text);
        clock
    }

    fn env(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", libfaketime().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// By a rename: the process never reads half a file.
    fn set(&self, text: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{text}\n")).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_is_made_up_for_by_each_policy_and_fires_nothing_twice() {
    // Proves all three policies over three hours that never were, and that an hour that comes again brings no slot again.
    let place = Place::new();
    let clock = WallClock::new(&place, "+0");
    let broker = Broker::start_under(&place, &[], &clock.env());
    let table = Table::open(&place);
    // Never in the minute after now, so that no slot is on time.
    let minute = (now_us() / 60_000_000 + 30) % 60;
    let add =
        |name: &str, policy: &str| schedule(&table, name, "cron, catch_up", &format!("'{minute} * * * *', '{policy}'"));
    let (skip, one, all) = (add("skip", "skip"), add("one", "one"), add("all", "all"));
    wait_until("all to be planned", || table.one::<i64>("SELECT count(next_at) FROM schedules", []) == 3);
    clock.set(&format!("+{}", 3 * HOUR_MS / 1_000));
    let counts = || [skip, one, all].map(|id| slots(&table, id).len());
    wait_until("the jump to be made up for", || counts() == [0, 1, 3]);
    let newest = slots(&table, all)[2].0;
    assert_eq!(slots(&table, one)[0].0, newest);
    clock.set("+0");
    std::thread::sleep(Duration::from_millis(500));
    table.execute("UPDATE schedules SET next_at = NULL", []);
    wait_until("all to be planned anew", || table.one::<i64>("SELECT count(next_at) FROM schedules", []) == 3);
    assert_eq!(cell::<i64>(&table, all, "next_at"), newest + HOUR_MS);
    broker.kill();
    let _broker = Broker::start_under(&place, &[], &clock.env());
    clock.set(&format!("+{}", 4 * HOUR_MS / 1_000));
    wait_until("the hour after", || counts()[1..] == [2, 4]);
    assert_eq!(slots(&table, all)[3].0, newest + HOUR_MS);
}

#[test]
fn a_night_on_which_the_clock_leaps_has_its_run() {
    // Proves on the 28th of March 2027 in Berlin, where 02:30 never was, that the run comes at the leap, two seconds from now;
    // and at 02:30 the day after.
    let place = Place::new();
    let now_s = i64::try_from(now_us() / 1_000_000).unwrap();
    let leap_s = 1_806_195_600;
    let clock = WallClock::new(&place, &format!("{:+}", leap_s - 2 - now_s));
    let _broker = Broker::start_under(&place, &[], &clock.env());
    let table = Table::open(&place);
    let id = schedule(&table, "nightly", "cron, time_zone", "'30 2 * * *', 'Europe/Berlin'");
    wait_until("the night's run", || !slots(&table, id).is_empty());
    assert_eq!(slots(&table, id)[0].0, leap_s * 1_000);
    assert_eq!(cell::<i64>(&table, id, "next_at"), (leap_s + 86_400 - 1_800) * 1_000);
}

fn laneway(place: &Place, words: &[&str]) -> Said {
    let endpoint = place.endpoint();
    Said::by(place, &[], &[&["--endpoint", &endpoint], words].concat())
}

#[test]
fn people_add_look_at_pause_run_and_remove_schedules() {
    // Proves the whole group of commands, for eyes and for programs, and what a mistake is answered with.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let said = laneway(
        &place,
        &[
            "schedule",
            "add",
            "nightly",
            "30 2 * * *",
            "echo",
            r#"{"n": 1}"#,
            "--tz",
            "Europe/Berlin",
            "--catch-up",
            "all",
            "--catch-up-max",
            "5",
            "--unique-key",
            "night",
            "--max-attempts",
            "7",
            "-o",
            "json",
        ],
    );
    said.is(0, "");
    let added = &said.json()[0];
    assert_eq!(
        (&added["name"], &added["catch_up"], &added["catch_up_max"]),
        (&json!("nightly"), &json!("all"), &json!(5))
    );
    assert!(added["next_at"].is_i64(), "when it comes next is told at once: {added}");
    let show = |words: &[&str]| laneway(&place, &[&["schedule", "show", "nightly"], words].concat());
    wait_until("the next time", || show(&["-o", "json"]).json()[0]["next_at"].is_i64());
    let shown = show(&["-o", "json"]).json().remove(0);
    assert_eq!((&shown["payload"], &shown["max_attempts"]), (&json!({"n": 1}), &json!(7)));
    assert_eq!(shown["slots"].as_array().unwrap().len(), 5);
    let text = show(&[]).out;
    assert!(text.matches("02:30:00 +0").count() >= 4 && text.contains("Europe/Berlin"), "{text}");

    let said = laneway(&place, &["schedule", "run", "nightly", "-o", "json"]);
    said.is(0, "");
    let task = said.json()[0]["task"].as_i64().unwrap();
    assert_eq!(table.column::<String>(task, "kind || payload || unique_key || max_attempts"), "echo{\"n\": 1}night7");
    assert_eq!(
        laneway(&place, &["schedule", "run", "nightly", "-o", "json"]).json()[0]["new"],
        json!(false),
        "its key lives"
    );
    assert_eq!(table.one::<i64>("SELECT count(*) FROM schedule_slots", []), 0);

    laneway(&place, &["schedule", "add", "tick", "* * * * * *", "echo"]).is(0, "");
    wait_until("a tick", || table.one::<i64>("SELECT count(*) FROM schedule_slots", []) > 0);
    let list = laneway(&place, &["schedule", "list"]).out;
    assert!(list.lines().count() == 3 && list.contains("nightly") && list.contains("live"), "{list}");
    assert!(laneway(&place, &["schedule", "pause", "tick"]).out.contains("paused"));
    laneway(&place, &["schedule", "resume", "tick", "tock"]).is(4, "no schedule 'tock'");
    laneway(&place, &["schedule", "remove", "tick"]).is(0, "");
    laneway(&place, &["schedule", "show", "tick"]).is(4, "no schedule 'tick'");
    assert_eq!(laneway(&place, &["schedule", "list", "-o", "json"]).json().len(), 1);

    laneway(&place, &["schedule", "add", "bad", "every day", "echo"]).is(5, "write minute, hour");
    laneway(&place, &["schedule", "add", "bad", "* * * * *", "echo", "--tz", "Berlin"]).is(5, "such as Europe/Berlin");
    laneway(&place, &["schedule", "add", "bad", "* * * * *", "echo", "--lane", "hihg"]).is(5, "hihg");
    laneway(&place, &["schedule", "add", "bad", "* * * * *", "echo", "--catch-up", "twice"]).is(2, "twice");
}

#[test]
fn an_app_keeps_its_schedules_by_the_library() {
    // Proves the client's own methods: the same schedule said again at each start of an app disturbs nothing.
    let place = Place::new();
    let broker = Broker::start(&place);
    let client = broker.client();
    let nightly = || NewSchedule::new("nightly", "0 3 * * *", Kind::new("echo").unwrap(), Some(Payload::json("1")));
    client.put_schedule(nightly()).unwrap();
    wait_until("the next time", || client.schedule("nightly").unwrap().unwrap().next_at.is_some());
    let planned = client.schedule("nightly").unwrap().unwrap();
    assert_eq!(client.put_schedule(nightly()).unwrap().next_at, planned.next_at);
    for n in 0..600 {
        client.put_schedule(NewSchedule { name: format!("s{n:03}"), ..nightly() }).unwrap();
    }
    let names: Vec<String> = client.schedules().unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!((names.len(), names.is_sorted()), (601, true));
    let rows = client.change_schedules(Vec::new(), Vec::new(), vec!["s000".into(), "gone".into()]).unwrap();
    assert_eq!(rows.not_found, ["gone"]);
    assert!(client.run_schedule("nightly").unwrap().unwrap().new);
    assert_eq!(client.run_schedule("s000").unwrap(), None);
}
