//! Caps, rates and pauses of kinds and lanes, with a real broker, real workers and real time: nothing runs over them, nothing
//! else waits for them, and they outlive the broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, RawPeer, Said, Table, WorkerProcess, plain_ready, wait_until};
use laneway_protocol::message::{Answer, Bye, End, KindValues, Kinds, Outcome, Ready, Request, SetKind};
use laneway_protocol::{Kind, SessionName};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

fn laneway(place: &Place, words: &[&str]) -> Said {
    Said::by(place, &[], &[&["--endpoint", &place.endpoint()], words].concat())
}

/// The row of a kind in `laneway kind list`.
fn listed(place: &Place, kind: &str) -> serde_json::Value {
    let rows = laneway(place, &["kind", "list", "-o", "json"]).json();
    rows.into_iter().find(|row| row["kind"] == kind).unwrap_or_else(|| panic!("{kind} is not listed"))
}

#[test]
fn a_cap_holds_over_a_killed_broker_and_nothing_else_waits() {
    // Proves that no more than the cap run whatever waits, that other kinds go on in the slots that are left, that the live
    // leases of a broker that was killed count for the next one, and that the rest starts when the cap goes.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    laneway(&place, &["kind", "set", "sleep", "cap=2"]).is(0, "");
    let _worker = WorkerProcess::start(&place, "kinds=sleep,echo slots=6");
    table.insert_many(5, "high", "sleep", r#"{"ms": 60000}"#);
    table.wait_for_count("state = 'running'", 2);
    for _ in 0..5 {
        let echo = table.insert_in("low", "echo", "{}");
        table.wait_for_state(echo, "done");
    }
    assert_eq!(table.count("state = 'running' AND kind = 'sleep'"), 2);
    let row = listed(&place, "sleep");
    assert_eq!((&row["cap"], &row["running"], &row["queued"]), (&2.into(), &2.into(), &3.into()));
    assert_eq!(row["set"], serde_json::json!(["cap"]));
    broker.kill();
    let broker = Broker::start(&place);
    wait_until("the worker to be back", || broker.client().stats().unwrap().ready > 0);
    let echo = table.insert_in("low", "echo", "{}");
    table.wait_for_state(echo, "done");
    assert_eq!(table.count("state = 'running'"), 2);
    assert_eq!(listed(&place, "sleep")["cap"], 2, "it is kept");
    laneway(&place, &["lane", "set", "high", "cap=3"]).is(0, "");
    laneway(&place, &["kind", "set", "sleep", "cap=none"]).is(0, "");
    table.wait_for_count("state = 'running'", 3);
    let waits = table.one("SELECT id FROM tasks WHERE state = 'queued' LIMIT 1", []);
    let why = |id: i64| laneway(&place, &["task", "explain", &id.to_string()]).out;
    assert!(why(waits).contains("lane 'high' runs 3 of at most 3"), "{}", why(waits));
    laneway(&place, &["lane", "reset", "high"]).is(0, "");
    table.wait_for_count("state = 'running'", 5);
}

#[test]
fn a_rate_is_kept_to_and_used() {
    // Proves with the rows' own times that no second has more starts than the rate and the burst, and that slots do not wait
    // longer than they must.
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["kinds.echo.rate=20/s", "kinds.echo.rate_burst=2"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=echo slots=8");
    table.insert_many(41, "normal", "echo", "{}");
    table.wait_for_count("state = 'done'", 41);
    let times: Vec<i64> = (1..=41)
        .map(|id| table.column::<i64>(id, "started_at"))
        .collect::<std::collections::BTreeSet<i64>>()
        .into_iter()
        .collect();
    let took = times.last().unwrap() - times[0];
    assert!((1_900..6_000).contains(&took), "41 starts at 20 in a second took {took} ms");
    let within = "SELECT max((SELECT count(*) FROM tasks b WHERE b.started_at BETWEEN a.started_at AND a.started_at + 999)) \
                  FROM tasks a";
    // Row times are of the wall clock, cut to milliseconds.
    let most: i64 = table.one(within, []);
    assert!(most <= 23, "{most} starts in a second");
    let row = listed(&place, "echo");
    assert_eq!((&row["rate"], &row["rate_burst"]), (&"20/s".into(), &2.into()));
    assert_eq!(row["settings"], serde_json::json!(["rate", "rate_burst"]));
}

#[test]
fn a_paused_kind_waits_explained_and_a_default_changes_at_once() {
    // Proves the whole way of a pause and of defaults through the command line, the SDK, the socket and the table: kept over a
    // restart, told in `task explain`, and refused with the bound when it makes no sense.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "kinds=echo,fail");
    laneway(&place, &["kind", "pause", "echo"]).is(0, "");
    let waits = table.insert("echo", "{}");
    let why = || laneway(&place, &["task", "explain", &waits.to_string()]).out;
    let says = "its kind 'echo' is paused; `laneway kind resume echo` resumes it";
    wait_until("the pause to be told", || why().contains(says));
    assert_eq!(broker.stop(), 0);
    let broker = Broker::start(&place);
    let client = broker.client();
    wait_until("the worker to be back", || client.stats().unwrap().ready > 0);
    let values = KindValues { max_attempts: Some(1), lane: Some("low".parse().unwrap()), ..KindValues::default() };
    let set = vec![SetKind { kind: Kind::new("fail").unwrap(), values }];
    let rows = client.change_kinds(Kinds { set, ..Kinds::default() }).unwrap();
    let fail = rows.iter().find(|row| row.kind.as_str() == "fail").unwrap();
    assert_eq!((fail.lane.as_str(), fail.max_attempts), ("low", 1));
    let failing = table.insert("fail", "{}");
    table.wait_for_state(failing, "dead");
    assert_eq!(table.column::<i64>(failing, "attempts"), 1);
    let shown = laneway(&place, &["task", "show", &failing.to_string(), "-o", "json"]).json();
    assert_eq!(shown[0]["lane"], "low");
    assert_eq!(table.state(waits), "queued");
    let paused = listed(&place, "echo");
    assert_eq!((&paused["paused"], &paused["queued"], &paused["workers"]), (&true.into(), &1.into(), &1.into()));

    laneway(&place, &["kind", "set", "echo", "rate=1/h"]).is(0, "");
    laneway(&place, &["kind", "resume", "echo"]).is(0, "");
    table.wait_for_state(waits, "done");
    let next = table.insert("echo", "{}");
    let why = || laneway(&place, &["task", "explain", &next.to_string()]).out;
    wait_until("the rate to be told", || {
        why().contains("the rate of kind 'echo', 1/h, lets the next one start in 59 min")
    });
    laneway(&place, &["kind", "reset", "echo"]).is(0, "");
    table.wait_for_state(next, "done");

    laneway(&place, &["kind", "set", "echo", "cap=1000001"]).is(5, "must be 0 to 1000000");
    laneway(&place, &["kind", "set", "echo", "lane=nowhere"]).is(5, "'nowhere'");
    laneway(&place, &["kind", "set", "echo", "rate=10"]).is(2, "as in 10/s");
    laneway(&place, &["kind", "set", "echo", "colour=red"]).is(2, "cap, rate, rate_burst");
    laneway(&place, &["lane", "set", "nowhere", "cap=1"]).is(5, "'nowhere'");
}

/// The tasks in the order in which they began.
fn begun(place: &Place) -> Vec<i64> {
    place.journal().lines().into_iter().filter(|line| line.what == "begin").map(|line| line.task).collect()
}

#[test]
fn a_lane_with_a_share_is_served_beneath_a_flood() {
    // Proves that tasks of the lowest lane run while a higher one has more than can be done, as often as `lane list` says, and
    // that the strict order is back when the share goes.
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["lane_limits.low.share=10"]);
    let table = Table::open(&place);
    table.insert_many(400, "high", "echo", "{}");
    table.insert_many(40, "low", "echo", "{}");
    let row = laneway(&place, &["lane", "list", "-o", "json"]).json().remove(2);
    assert_eq!((&row["lane"], &row["share"], &row["one_of"]), (&"low".into(), &10.into(), &10.into()));
    assert!(laneway(&place, &["lane", "list"]).out.contains("10 %, 1 of 10"));
    let worker = WorkerProcess::start(&place, "kinds=echo");
    table.wait_for_count("state = 'done'", 440);
    // The order of the hand-outs of the one slot is that of the runs in the journal.
    let order: Vec<bool> = begun(&place).into_iter().map(|task| task > 400).collect();
    let last_high = order.iter().rposition(|low| !low).unwrap();
    // Before the first refill, and at the end, one of the lanes has nothing at hand.
    let both = &order[..last_high.min(300)];
    for (from, window) in both.windows(10).enumerate().skip(40) {
        assert!(window.contains(&true), "none of the low lane in 10 hand-outs from {from} on");
    }
    let low = both.iter().filter(|low| **low).count();
    assert!((20..=31).contains(&low), "{low} of 300 are of the low lane");
    drop(worker);
    laneway(&place, &["lane", "set", "low", "share=none"]).is(0, "");
    laneway(&place, &["lane", "set", "high", "share=101"]).is(5, "must be 0 to 100");
    table.insert_many(60, "high", "echo", "{}");
    table.insert_many(5, "low", "echo", "{}");
    let _worker = WorkerProcess::start(&place, "kinds=echo");
    table.wait_for_count("state = 'done'", 505);
    let order: Vec<bool> = begun(&place).into_iter().skip(440).map(|task| task > 500).collect();
    assert_eq!(order.iter().position(|low| *low), Some(60), "{order:?}");
}

#[test]
fn what_a_lane_is_owed_outlives_the_workers() {
    // Proves that workers of which each takes five tasks and leaves serve the lowest lane together as one that stays would, in
    // as many hand-outs as `lane list` says; workers that can run other kinds beside among them.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["lane_limits.low.share=10"]);
    let table = Table::open(&place);
    table.insert_many(200, "high", "echo", "{}");
    table.insert_many(30, "low", "echo", "{}");
    // While it is there the rows stay read ahead.
    let steady = RawPeer::req(broker.endpoint());
    steady.ask(Request::Ready(Ready { max: 0, ..plain_ready("steady", "echo", 0, 0) }));
    let mut lanes = Vec::new();
    for n in 0..20 {
        let peer = RawPeer::req(broker.endpoint());
        let session = format!("worker-{n}");
        let mut kinds = vec![Kind::new("echo").unwrap()];
        kinds.extend((n % 2 == 0).then(|| Kind::new(format!("own-{n}")).unwrap()));
        let mut outcomes = Vec::new();
        for seq in 0..5 {
            let ready = Ready { kinds: Some(kinds.clone()), outcomes, ..plain_ready(&session, "echo", seq, 20_000) };
            let Answer::Tasks(tasks) = peer.ask(Request::Ready(ready)) else { panic!("there are tasks") };
            lanes.push(tasks.tasks[0].lane.to_string());
            outcomes = vec![Outcome::new(tasks.tasks[0].task, tasks.tasks[0].lease, End::Done)];
        }
        let session = SessionName::new(&session).unwrap();
        peer.ask(Request::Bye(Bye { session, outcomes, release: Vec::new(), more: false }));
    }
    for (from, ten) in lanes.windows(10).enumerate().skip(20) {
        assert!(ten.contains(&"low".into()), "none of the low lane in 10 hand-outs from {from} on: {ten:?}");
    }
}
