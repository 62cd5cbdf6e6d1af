//! How fast tasks are stored: by wire and by SQL, one by one and many at once, and while others are completed.

use std::thread;
use std::time::Instant;

use laneway::{Client, Task};

use super::drain::payload;
use super::figure::{Figure, Report, Unit};
use super::limits;
use super::stage::{Durability, Stage};
use super::worker::NOOP;
use super::{Bench, join};
use crate::error::Error;

/// Slots and batch of the workers that complete tasks while more come in.
const SLOTS: u32 = 4;
const BATCH: u32 = 64;
/// Clients that submit at the same time.
const CLIENTS: u32 = 16;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for durability in Durability::BOTH {
        by_wire(bench, report, durability)?;
        by_clients(bench, report, durability)?;
        by_sql(bench, report, durability)?;
        while_draining(bench, report, durability)?;
    }
    Ok(())
}

fn by_wire(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let (single, bulk) = (bench.scale.submits_single, bench.scale.submits_bulk);
    let stage = Stage::open(bench, durability)?;
    let started = Instant::now();
    for _ in 0..single {
        stage.client().submit(task())?;
    }
    let rate = f64::from(single) / started.elapsed().as_secs_f64();
    let name = format!("wire, one by one, {}", durability.word());
    report.add(Figure::new("submit", name, Unit::PerSecond, rate).over(limits::single_commits(durability)));

    let tasks: Vec<Task> = (0..bulk).map(|_| task()).collect();
    let started = Instant::now();
    stage.client().submit_many(tasks)?;
    let rate = f64::from(bulk) / started.elapsed().as_secs_f64();
    let name = format!("wire, in messages of 512, {}", durability.word());
    report.add(Figure::new("submit", name, Unit::PerSecond, rate).over(limits::inserts(durability)));
    report.count(stage.tally_queued(single + bulk)?);
    Ok(())
}

/// Each client waits for its own answer.
fn by_clients(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let each = bench.scale.submits_each;
    let stage = Stage::open(bench, durability)?;
    let clients = stage.clients(CLIENTS)?;
    let started = Instant::now();
    thread::scope(|scope| {
        let submit = |client| move || submit_each(client, each);
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(submit(client))).collect();
        threads.into_iter().try_for_each(join)
    })?;
    let rate = f64::from(CLIENTS * each) / started.elapsed().as_secs_f64();
    let name = format!("wire, {CLIENTS} clients one by one, {}", durability.word());
    report.add(Figure::new("submit", name, Unit::PerSecond, rate).over(limits::round_trips(CLIENTS)));
    report.count(stage.tally_queued(CLIENTS * each)?);
    Ok(())
}

fn submit_each(client: &Client, n: u32) -> Result<(), laneway::Error> {
    (0..n).try_for_each(|_| client.submit(task()).map(drop))
}

/// What an app can do itself, beside a broker; `durability` is the app's own setting.
fn by_sql(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let (single, bulk) = (bench.scale.submits_single, bench.scale.submits_bulk);
    let fail = |error| Error::database("insert tasks", error);
    let stage = Stage::open(bench, durability)?;
    let app = stage.app()?;
    app.pragma_update(None, "synchronous", durability.word()).map_err(fail)?;
    let mut insert = app.prepare("INSERT INTO tasks (kind, payload) VALUES (?1, ?2)").map_err(fail)?;
    let text = payload();
    let started = Instant::now();
    for _ in 0..single {
        insert.execute((NOOP, &text)).map_err(fail)?;
    }
    let rate = f64::from(single) / started.elapsed().as_secs_f64();
    let name = format!("SQL, one by one, {}", durability.word());
    report.add(Figure::new("submit", name, Unit::PerSecond, rate).over(limits::single_commits(durability)));

    let started = Instant::now();
    stage.insert(NOOP, None, bulk, |_| payload())?;
    let rate = f64::from(bulk) / started.elapsed().as_secs_f64();
    let name = format!("SQL, one transaction, {}", durability.word());
    report.add(Figure::new("submit", name, Unit::PerSecond, rate).over(limits::inserts(durability)));
    report.count(stage.tally_queued(single + bulk)?);
    Ok(())
}

/// Completed tasks a second while one client submits.
fn while_draining(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let bulk = bench.scale.submits_bulk;
    let mut stage = Stage::open(bench, durability)?;
    stage.hire(SLOTS, BATCH)?;
    let tasks: Vec<Task> = (0..bulk).map(|_| task()).collect();
    let started = Instant::now();
    stage.client().submit_many(tasks)?;
    let took = stage.await_end()?.duration_since(started);
    report.count(stage.tally_done(bulk)?);
    let name = format!("wire, while {SLOTS} slots drain, max {BATCH}, {}", durability.word());
    let rate = f64::from(bulk) / took.as_secs_f64();
    report.add(Figure::new("submit", name, Unit::PerSecond, rate).over(limits::completes(durability)));
    Ok(())
}

fn task() -> Task {
    Task::new(NOOP).payload_raw(laneway::Payload::json(payload()))
}
