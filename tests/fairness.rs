//! Fair keys, with a real broker, real workers and a real backlog: nobody's tasks hold up another's, and no key runs more than
//! its cap.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Broker, Place, Said, Table, WorkerProcess, wait_until};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn laneway(place: &Place, words: &[&str]) -> Said {
    Said::by(place, &[], &[&["--endpoint", &place.endpoint()], words].concat())
}

/// Rows of one key, in one transaction.
fn insert(table: &Table, kind: &str, payload: &str, key: &str, n: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?4) \
               INSERT INTO tasks(kind, payload, fair_key) SELECT ?1, ?2, ?3 FROM n";
    table.execute(sql, (kind, payload, key, n));
}

#[test]
fn ten_tasks_do_not_wait_for_a_hundred_thousand() {
    // Proves with one slot that runs one task at a time: while a backlog of another key is worked off, ten tasks that come later
    // are served in turn with it; and what a key weighs is what it gets.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    insert(&table, "echo", "1", "big", 100_000);
    let _worker = WorkerProcess::start(&place, "kinds=echo slots=1");
    wait_until("the backlog to be begun", || table.count("state = 'done'") > 200);
    insert(&table, "echo", "2", "small", 10);
    let before = table.count("runs > 0");
    table.wait_for_count("fair_key = 'small' AND state = 'done'", 10);
    // From the first of the ten to the last, by the rows' own times, which are whole milliseconds.
    let between = "fair_key = 'big' AND started_at > (SELECT min(started_at) FROM tasks WHERE fair_key = 'small') \
                   AND finished_at < (SELECT max(finished_at) FROM tasks WHERE fair_key = 'small')";
    let beside = table.count(between);
    assert!(beside <= 12, "{beside} of the backlog ran between the ten");
    // Before that some ran while the broker had not seen them yet; but not a hundred thousand.
    let ahead = "fair_key = 'big' AND started_at < (SELECT min(started_at) FROM tasks WHERE fair_key = 'small')";
    let ahead = table.count(ahead) - before;
    assert!(ahead < 5_000, "{ahead} of the backlog went before the first");
    laneway(&place, &["fair-key", "set", "big", "weight=4"]).is(0, "");
    insert(&table, "echo", "3", "small", 1_000);
    wait_until("some hundreds of the other key", || table.count("payload = '3' AND state = 'done'") >= 300);
    let nth = |n: i64| -> i64 {
        let sql = "SELECT started_at FROM tasks WHERE payload = '3' AND runs > 0 ORDER BY started_at LIMIT 1 OFFSET ?1";
        table.one(sql, [n])
    };
    let sql = "SELECT count(*) FROM tasks WHERE fair_key = ?1 AND started_at BETWEEN ?2 AND ?3";
    let [big, small] = ["big", "small"].map(|key| table.one::<i64>(sql, (key, nth(20), nth(290))));
    let share = big * 100 / small;
    assert!((380..420).contains(&share), "{big} beside {small}, at a weight of 4 to 1");
}

#[test]
fn tens_of_thousands_of_reminders_hold_up_nobody() {
    // Proves with reminders for later, each of a key of its own, in the same queue: the due rows of another key run about as fast
    // as without them, tasks of another kind beside them as well, and the one that an app makes due runs when it says so; all of
    // that by a broker that has just started, too.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=echo slots=4");
    let _other = WorkerProcess::start(&place, "kinds=sleep slots=1");
    let drain = |payload: &str| {
        let began = Instant::now();
        insert(&table, "echo", payload, "big", 2_000);
        table.wait_for_count(&format!("payload = '{payload}' AND state = 'done'"), 2_000);
        began.elapsed()
    };
    let alone = drain("1");
    let reminders = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
                     INSERT INTO tasks(kind, payload, fair_key, run_at) \
                     SELECT 'echo', '9', printf('a-user-%06d', i), (unixepoch() + 86400) * 1000 FROM n";
    table.execute(reminders, []);
    wait_until("the reminders to be seen", || broker.client().stats().unwrap().queued == 20_000);
    let slow = alone * 4 + Duration::from_secs(1);
    let beside = drain("2");
    assert!(beside < slow, "{beside:?} beside reminders, {alone:?} without");
    insert(&table, "echo", "3", "big", 2_000);
    let began = Instant::now();
    let other = table.insert("sleep", r#"{"ms": 1}"#);
    table.wait_for_state(other, "done");
    assert!(began.elapsed() < slow, "a task of another kind waited for {:?}", began.elapsed());
    table.wait_for_count("payload = '3' AND state = 'done'", 2_000);

    // Everybody is idle. The keys in the middle and at the end have rows for later only.
    let run_now = |user: u32| {
        let id: i64 = table.one("SELECT id FROM tasks WHERE fair_key = ?1", [format!("a-user-{user:06}")]);
        let began = Instant::now();
        table.execute("UPDATE tasks SET run_at = NULL WHERE id = ?1 AND state = 'queued'", [id]);
        table.wait_for_state(id, "done");
        assert!(began.elapsed() < slow, "it waited for {:?}", began.elapsed());
    };
    run_now(10_000);
    run_now(20_000);
    broker.kill();
    let _broker = Broker::start(&place);
    let again = drain("4");
    assert!(again < slow, "{again:?} after a restart, {alone:?} at first");
    run_now(15_000);
    assert_eq!(table.count("payload = '9' AND state = 'done'"), 3);
}

#[test]
fn a_cap_of_every_key_holds_over_a_killed_broker() {
    // Proves that the live leases of each key are counted, by the next broker as well; that others run beside it; and that the
    // reason is told.
    let place = Place::new();
    let settings = ["fair_keys.*.cap=2"];
    let broker = Broker::start_with(&place, &settings);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=sleep slots=8");
    for key in ["acme", "other"] {
        insert(&table, "sleep", r#"{"ms": 60000}"#, key, 5);
    }
    table.wait_for_count("state = 'running'", 4);
    broker.kill();
    let broker = Broker::start_with(&place, &settings);
    wait_until("the worker to be back", || broker.client().stats().unwrap().ready > 0);
    laneway(&place, &["submit", "sleep", r#"{"ms": 60000}"#, "--fair-key", "third"]).is(0, "");
    table.wait_for_count("state = 'running'", 5);
    for key in ["acme", "other"] {
        assert_eq!(table.count(&format!("state = 'running' AND fair_key = '{key}'")), 2, "{key}");
    }
    let waits: i64 = table.one("SELECT max(id) FROM tasks WHERE state = 'queued' AND fair_key = 'acme'", []);
    let why = laneway(&place, &["task", "explain", &waits.to_string()]).out;
    assert!(why.contains("fair key 'acme' runs 2 of at most 2"), "{why}");
    laneway(&place, &["fair-key", "set", "acme", "cap=4"]).is(0, "");
    table.wait_for_count("state = 'running' AND fair_key = 'acme'", 4);
    let rows = laneway(&place, &["fair-key", "list", "-o", "json"]).json();
    let acme = rows.into_iter().find(|row| row["fair_key"] == "acme").unwrap();
    assert_eq!((&acme["cap"], &acme["running"], &acme["weight"]), (&4.into(), &4.into(), &1.into()));
    assert_eq!(acme["set"], serde_json::json!(["cap"]));
    assert!(laneway(&place, &["fair-key", "list"]).out.contains("acme"));
    assert!(laneway(&place, &["task", "show", &waits.to_string()]).out.contains("acme"));
    laneway(&place, &["fair-key", "set", "acme", "wieght=2"]).is(2, "weight, cap, rate or rate_burst");
    laneway(&place, &["submit", "sleep", "--fair-key", ""]).is(2, "fair key is empty");
}

#[test]
fn a_place_behind_ones_own_key_is_told() {
    // Proves that what waits behind others says whose they are: those of other keys take turns with it.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=sleep slots=1");
    wait_until("the worker to be there", || broker.client().stats().unwrap().ready == 1);
    insert(&table, "sleep", r#"{"ms": 60000}"#, "acme", 4);
    insert(&table, "sleep", r#"{"ms": 60000}"#, "other", 1);
    table.wait_for_count("state = 'running'", 1);
    let why = |id: i64| laneway(&place, &["task", "explain", &id.to_string()]).out;
    wait_until("the queue to be read", || why(4).contains("among the next"));
    assert!(why(4).contains("behind 2 of fair key 'acme' in lane 'normal', whose keys take turns"), "{}", why(4));
    assert!(why(5).contains("the first of fair key 'other' in lane 'normal'"), "{}", why(5));
}
