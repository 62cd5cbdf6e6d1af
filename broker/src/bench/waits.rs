//! How long it takes from insert or submit to the start of the handler: on an idle system, and for urgent tasks while bulk
//! work keeps every worker busy.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use laneway::Task;
use rusqlite::Connection;

use super::Bench;
use super::drain;
use super::figure::{Figure, Report, Unit, percentile};
use super::limits;
use super::stage::{Durability, Stage};
use super::worker::{NOOP, SLEEP, STAMP, now_ns};
use crate::error::Error;

/// About 200 tasks a second: the system is idle between two.
const PAUSE: Duration = Duration::from_millis(5);
/// About 50 urgent tasks a second.
const URGENT_PAUSE: Duration = Duration::from_millis(20);
const BULK_LANE: &str = "low";
const URGENT_LANE: &str = "high";
/// Slots that the bulk work keeps busy.
const BUSY_SLOTS: u32 = 4;

/// When each task was put in: before its insert began, and when the insert returned.
#[derive(Default)]
struct Inserted(HashMap<i64, (u64, u64)>);

pub(super) fn latency(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for durability in Durability::BOTH {
        by_sql(bench, report, durability)?;
        by_wire(bench, report, durability)?;
    }
    Ok(())
}

/// A plain INSERT of an app, with the app's own sync.
fn by_sql(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let mut stage = Stage::open(bench, durability)?;
    stage.hire(1, 1)?;
    let app = stage.app()?;
    app.pragma_update(None, "synchronous", durability.word())
        .map_err(|error| Error::database("set the app's sync", error))?;
    let mut inserted = Inserted::default();
    for _ in 0..bench.scale.latency_samples {
        thread::sleep(PAUSE);
        inserted.insert(&app, None)?;
    }
    stage.await_end()?;
    report.count(stage.tally_done(bench.scale.latency_samples)?);
    let (mut whole, mut after_commit) = inserted.waits(&app)?;
    let word = durability.word();
    add_waits(report, "latency", &format!("SQL insert to start, {word}"), &mut whole);
    add_waits(report, "latency", &format!("SQL commit to start, {word}"), &mut after_commit);
    Ok(())
}

fn by_wire(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let mut stage = Stage::open(bench, durability)?;
    stage.hire(1, 1)?;
    let app = stage.app()?;
    let samples = bench.scale.latency_samples;
    let mut submitted = Inserted::default();
    for _ in 0..samples {
        thread::sleep(PAUSE);
        submitted.submit(&stage, Task::new(STAMP))?;
    }
    stage.await_end()?;
    let (mut whole, _) = submitted.waits(&app)?;
    let word = durability.word();
    add_waits(report, "latency", &format!("wire submit to start, {word}"), &mut whole);

    let mut results = Vec::new();
    for _ in 0..samples {
        thread::sleep(PAUSE);
        let before = Instant::now();
        stage.client().submit_and_wait(Task::new(STAMP))?;
        results.push(before.elapsed().as_secs_f64() * 1e6);
    }
    report.count(stage.tally_done(2 * samples)?);
    add_waits(report, "latency", &format!("wire submit to result, {word}"), &mut results);
    Ok(())
}

pub(super) fn urgent(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    urgent_by_wire(bench, report)?;
    urgent_by_sql(bench, report)
}

/// While tasks that do nothing keep every slot busy: what `bench/run` asks of every other system.
fn urgent_by_wire(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let bulk = bench.scale.urgent_noops;
    let mut stage = Stage::open(bench, Durability::Full)?;
    stage.pause(&[BULK_LANE], true)?;
    stage.insert(NOOP, Some(BULK_LANE), bulk, |_| drain::payload())?;
    stage.hire(BUSY_SLOTS, 1)?;
    stage.await_queued(bulk)?;
    stage.pause(&[BULK_LANE], false)?;
    let mut submitted = Inserted::default();
    // Stops well before the bulk work is over, else the last ones would find idle slots.
    while stage.client().stats()?.done < u64::from(bulk / 10 * 9) {
        thread::sleep(URGENT_PAUSE);
        submitted.submit(&stage, Task::new(STAMP).lane(URGENT_LANE))?;
    }
    let n_urgent = u32::try_from(submitted.0.len()).unwrap_or(u32::MAX);
    stage.await_end()?;
    let (mut whole, _) = submitted.waits(&stage.app()?)?;
    report.count(stage.tally_done(bulk + n_urgent)?);
    let name = format!("wire submit to start, {BUSY_SLOTS} slots busy with no-ops, full");
    add_waits(report, "urgent", &name, &mut whole);
    Ok(())
}

/// An app's own commits, while tasks of 1 ms keep every slot busy.
fn urgent_by_sql(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let bulk = bench.scale.urgent_bulk;
    let mut stage = Stage::open(bench, Durability::Full)?;
    stage.pause(&[BULK_LANE], true)?;
    stage.insert(SLEEP, Some(BULK_LANE), bulk, |_| "1".into())?;
    stage.hire(BUSY_SLOTS, 1)?;
    stage.await_queued(bulk)?;
    stage.pause(&[BULK_LANE], false)?;
    let app = stage.app()?;
    let mut inserted = Inserted::default();
    // Stops well before the bulk work is over, else the last ones would find idle slots.
    let until = Instant::now() + Duration::from_millis(u64::from(bulk / BUSY_SLOTS)).mul_f64(0.8);
    while Instant::now() < until {
        thread::sleep(URGENT_PAUSE);
        inserted.insert(&app, Some(URGENT_LANE))?;
    }
    let n_urgent = u32::try_from(inserted.0.len()).unwrap_or(u32::MAX);
    stage.await_end()?;
    report.count(stage.tally_done(bulk + n_urgent)?);
    let (mut whole, mut after_commit) = inserted.waits(&app)?;
    let mut inserts = inserted.inserts();
    let busy = format!("{BUSY_SLOTS} slots busy with 1 ms tasks, full");
    add_waits(report, "urgent", &format!("SQL insert itself, {busy}"), &mut inserts);
    add_waits(report, "urgent", &format!("SQL insert to start, {busy}"), &mut whole);
    add_waits(report, "urgent", &format!("SQL commit to start, {busy}"), &mut after_commit);
    Ok(())
}

fn add_waits(report: &mut Report, part: &'static str, name: &str, waits: &mut [f64]) {
    for percent in [50, 99] {
        let figure = Figure::new(part, format!("{name}, p{percent}"), Unit::Micros, percentile(waits, percent));
        report.add(figure.over(limits::IDLE_ROUND_TRIP));
    }
}

impl Inserted {
    fn submit(&mut self, stage: &Stage<'_>, task: Task) -> Result<(), Error> {
        let before = now_ns();
        let stored = stage.client().submit(task)?;
        self.0.insert(stored.task.value().cast_signed(), (before, now_ns()));
        Ok(())
    }

    fn insert(&mut self, app: &Connection, lane: Option<&str>) -> Result<(), Error> {
        let fail = |error| Error::database("insert a task", error);
        let mut statement = app.prepare_cached("INSERT INTO tasks (kind, lane) VALUES (?1, ?2)").map_err(fail)?;
        let before = now_ns();
        statement.execute((STAMP, lane)).map_err(fail)?;
        self.0.insert(app.last_insert_rowid(), (before, now_ns()));
        Ok(())
    }

    /// How long each insert took, commit and waiting for the lock included, in microseconds.
    fn inserts(&self) -> Vec<f64> {
        self.0.values().map(|&(before, after)| micros(before, after.cast_signed())).collect()
    }

    /// From before the insert, and from its return, to the start of the handler, in microseconds. The second may be below
    /// zero: the commit is seen before the app hears of it.
    fn waits(&self, app: &Connection) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let fail = |error| Error::database("read the results", error);
        let mut statement =
            app.prepare("SELECT id, CAST(result AS INTEGER) FROM tasks WHERE kind = ?1").map_err(fail)?;
        let rows =
            statement.query_map([STAMP], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).map_err(fail)?;
        let (mut whole, mut after_commit) = (Vec::new(), Vec::new());
        for row in rows {
            let (task, started) = row.map_err(fail)?;
            let Some(&(before, after)) = self.0.get(&task) else { continue };
            whole.push(micros(before, started));
            after_commit.push(micros(after, started));
        }
        Ok((whole, after_commit))
    }
}

/// Between two times in Unix nanoseconds.
fn micros(from: u64, to: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "differences of seconds at most")]
    let nanos = to.saturating_sub_unsigned(from) as f64;
    nanos / 1_000.0
}
