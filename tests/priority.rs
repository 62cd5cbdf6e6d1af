//! Promise 3: priority is decided at dispatch, and slots can be reserved so that long low tasks cannot occupy them all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;

use harness::{Broker, Place, Table, WorkerProcess, wait_until};
use laneway_protocol::LaneName;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Urgent tasks that are inserted under 20,000 queued low ones go to the very next slots that become free.
#[test]
fn urgent_tasks_start_before_any_further_low_one() {
    const SLOTS: usize = 4;
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    block(&place, &table, SLOTS);
    table.insert_many(20_000, "low", "echo", "1");
    wait_for_queued(&broker, "low", 20_000);
    table.insert_many(40, "high", "echo", "2");
    wait_for_queued(&broker, "high", 40);

    open_gate(&place);
    table.wait_for_count("lane = 'high' AND state = 'done' AND kind = 'echo'", 40);
    wait_until("a low task to begin", || place.journal().lines().len() > 2 * (40 + SLOTS) + 20);
    assert_eq!(low_before_last_high(&table), 0, "low tasks started while urgent ones waited");
}

/// The same while the low ones flow: within a turn of the scheduler after their commit the urgent ones have all slots.
#[test]
fn urgent_tasks_overtake_a_flowing_backlog() {
    const SLOTS: usize = 4;
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    table.insert_many(20_000, "low", "sleep", r#"{"ms":10}"#);
    let _worker = WorkerProcess::start(&place, "slots=4");
    wait_until("the backlog to flow", || place.journal().lines().len() > 100);
    table.insert_many(40, "high", "sleep", r#"{"ms":10}"#);
    let committed = harness::now_us();
    table.wait_for_count("lane = 'high' AND state = 'done'", 40);

    let high: HashSet<i64> = ids(&table, "lane = 'high'");
    let begun: Vec<_> = place.journal().lines().into_iter().filter(|line| line.what == "begin").collect();
    let last_high = begun.iter().filter(|line| high.contains(&line.task)).map(|line| line.at_us).max().unwrap();
    let overtaken_by =
        |line: &&harness::Run| !high.contains(&line.task) && (committed..last_high).contains(&line.at_us);
    let n_low = begun.iter().filter(overtaken_by).count();
    // Between the commit and the turn that sees it, a busy machine may start a few; first in, first out would start all.
    assert!(n_low <= 10 * SLOTS, "{n_low} low tasks started after the urgent ones were committed");
    assert!(last_high - committed < 5_000_000, "the urgent ones took {} µs", last_high - committed);
    assert!(table.count("lane = 'low' AND state = 'queued'") > 10_000, "the backlog had not gone");
}

/// More urgent tasks than the window holds: the lane counts as non-empty until a refill came back short, so no low task
/// slips through between two refills.
#[test]
fn a_refill_between_two_windows_lets_no_low_task_through() {
    const SLOTS: usize = 4;
    let place = Place::new();
    let broker = Broker::start_with(&place, &["window_rows_max=16"]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4");
    block(&place, &table, SLOTS);
    table.insert_many(1_000, "low", "echo", "1");
    table.insert_many(1_000, "high", "echo", "2");
    wait_for_queued(&broker, "low", 1_000);
    wait_for_queued(&broker, "high", 1_000);
    open_gate(&place);
    table.wait_for_count("kind = 'echo' AND state = 'done' AND runs = 1", 2_000);
    assert_eq!(low_before_last_high(&table), 0, "low tasks started while urgent ones waited");
}

/// Long low tasks on every slot that they may have: an urgent task starts at once on the reserved one.
#[test]
fn a_reserved_slot_is_free_for_urgent_tasks() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4 reserve=high:1");
    let gate = gate(&place);
    table.insert_many(10, "low", "gate", &gate);
    table.wait_for_count("state = 'running'", 3);
    // The broker knows of all the low ones, and has a slot that waits: still they do not get it.
    wait_for_queued(&broker, "low", 7);
    assert_eq!(broker.client().stats().unwrap().ready, 1);
    for _ in 0..20 {
        let before = harness::now_us();
        let urgent = table.insert_in("high", "echo", "1");
        let waited = place.journal().wait_for_begin(urgent, 1).at_us.saturating_sub(before);
        assert!(waited < 1_000_000, "an urgent task waited {waited} µs for its reserved slot");
        table.wait_for_state(urgent, "done");
    }
    assert_eq!(table.count("lane = 'low' AND runs > 0"), 3, "a low task was in the reserved slot");
    open_gate(&place);
    table.wait_for_count("lane = 'low' AND state = 'done'", 10);
}

/// Within a lane tasks start in the order in which they became due, whatever their kinds.
#[test]
fn a_lane_is_first_in_first_out_across_its_kinds() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    table.0.execute_batch("BEGIN IMMEDIATE").unwrap();
    let order: Vec<i64> = (0..60).map(|n| table.insert(["echo", "sleep"][n % 2], "{}")).collect();
    table.0.execute_batch("COMMIT").unwrap();
    wait_for_queued(&broker, "normal", 60);
    let _worker = WorkerProcess::start(&place, "slots=1 kinds=echo,sleep");
    table.wait_for_count("state = 'done'", 60);
    let begun: Vec<i64> =
        place.journal().lines().into_iter().filter(|line| line.what == "begin").map(|line| line.task).collect();
    assert_eq!(begun, order);
}

/// A paused lane hands nothing out and holds up no other; the pause outlives the broker; a resume lets it flow.
#[test]
fn a_paused_lane_keeps_its_tasks_and_blocks_nobody() {
    let place = Place::new();
    let lane = |name| LaneName::new(name).unwrap();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let rows = broker.client().set_lanes(vec![lane("high")], Vec::new()).unwrap();
    assert!(rows.iter().any(|row| row.lane == "high" && row.paused));
    table.insert_many(5, "high", "echo", "1");
    table.insert_many(100, "low", "echo", "1");
    table.wait_for_count("lane = 'low' AND state = 'done'", 100);
    assert_eq!(table.count("lane = 'high' AND runs > 0"), 0, "a paused lane handed out");
    let paused: i64 = table.one("SELECT min(id) FROM tasks WHERE lane = 'high'", []);
    let detail = broker.client().status(&[u64::try_from(paused).unwrap().try_into().unwrap()], true).unwrap();
    assert!(detail.rows[0].explain.as_ref().unwrap().contains("paused"), "{:?}", detail.rows[0].explain);
    assert_eq!(broker.stop(), 0);

    let broker = Broker::start(&place);
    table.insert_many(5, "low", "echo", "1");
    table.wait_for_count("lane = 'low' AND state = 'done'", 105);
    assert_eq!(table.count("lane = 'high' AND runs > 0"), 0, "the pause was forgotten");
    broker.client().set_lanes(Vec::new(), vec![lane("high")]).unwrap();
    table.wait_for_count("lane = 'high' AND state = 'done'", 5);
}

/// A task for later, however urgent its lane, holds up nothing that is due now.
#[test]
fn a_delayed_urgent_task_holds_up_nothing() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let in_an_hour = i64::try_from(harness::now_us() / 1_000).unwrap() + 3_600_000;
    table.execute("INSERT INTO tasks(kind, lane, run_at) VALUES ('echo', 'high', ?1)", [in_an_hour]);
    let low = table.insert_in("low", "echo", "1");
    table.wait_for_state(low, "done");
    assert_eq!(table.count("lane = 'high' AND state = 'queued'"), 1);
}

// ------------------------------------------------------------------------------------------------------------ private

fn gate(place: &Place) -> String {
    serde_json::json!({ "path": place.path("gate") }).to_string()
}

/// Fills all slots, until [`open_gate`].
fn block(place: &Place, table: &Table, slots: usize) {
    table.insert_many(slots, "high", "gate", &gate(place));
    wait_until("all slots to be busy", || place.journal().lines().len() == slots);
}

fn open_gate(place: &Place) {
    std::fs::write(place.path("gate"), "").unwrap();
}

/// Waits until the broker itself has seen so many rows of a lane.
#[track_caller]
fn wait_for_queued(broker: &Broker, lane: &str, n: u64) {
    let client = broker.client();
    wait_until(&format!("{n} queued tasks in {lane}"), || {
        client.lanes().unwrap().iter().any(|row| row.lane == lane && row.queued == n)
    });
}

fn ids(table: &Table, condition: &str) -> HashSet<i64> {
    let mut rows = table.0.prepare(&format!("SELECT id FROM tasks WHERE {condition}")).unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// How many low tasks were handed out before the last high one, by what the broker wrote: handlers on several threads do not
/// begin in the order of their hand-outs.
fn low_before_last_high(table: &Table) -> i64 {
    table.count(
        "lane = 'low' AND kind = 'echo' AND started_at < (SELECT max(started_at) FROM tasks WHERE lane = 'high')",
    )
}
