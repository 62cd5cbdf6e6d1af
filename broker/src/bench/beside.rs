//! How fast workers drain while apps commit rows of their own: all of them want the one write lock of the database.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode};

use super::drain::{LANE, payload};
use super::figure::{Figure, Report, Unit, percentile};
use super::stage::{Durability, Stage};
use super::worker::NOOP;
use super::{Bench, join, limits};
use crate::error::Error;

const APPS: u32 = 4;
const SLOTS: u32 = 4;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for max in [1, 64] {
        drain(bench, report, max)?;
    }
    Ok(())
}

/// From the moment when the first task may be handed out until as many rows are done as were queued then. What the apps insert
/// are tasks too, so the workers have enough to do to the end.
fn drain(bench: &Bench, report: &mut Report, max: u32) -> Result<(), Error> {
    let tasks = bench.scale.beside_tasks;
    let mut stage = Stage::open(bench, Durability::Full)?;
    stage.pause(&[LANE], true)?;
    stage.insert(NOOP, None, tasks, |_| payload())?;
    stage.hire(SLOTS, max)?;
    stage.await_queued(tasks)?;
    let apps = (0..APPS).map(|_| stage.app()).collect::<Result<Vec<_>, _>>()?;
    let over = AtomicBool::new(false);
    let (took, mut waits) = thread::scope(|scope| {
        let over = &over;
        let threads: Vec<_> = apps.into_iter().map(|app| scope.spawn(move || insert_until(over, &app))).collect();
        let started = Instant::now();
        let done = stage.pause(&[LANE], false).and_then(|()| stage.await_done(tasks));
        // After a failure too: the threads are waited for.
        over.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for thread in threads {
            waits.extend(join(thread)?);
        }
        Ok::<_, Error>((done?.duration_since(started), waits))
    })?;
    let inserted = u32::try_from(waits.len()).unwrap_or(u32::MAX);
    stage.await_end()?;
    report.count(stage.tally_done(tasks + inserted)?);

    let full = Durability::Full;
    let per_second = |rows: u32| f64::from(rows) / took.as_secs_f64();
    let limit = if max == 1 { limits::round_trips(SLOTS) } else { limits::completes(full) };
    let who = format!("{SLOTS} slots, max {max}, full");
    let mut add = |name: String, unit, value, limit: &str| {
        report.add(Figure::new("beside", name, unit, value).over(limit));
    };
    add(format!("beside {APPS} apps by SQL, {who}"), Unit::PerSecond, per_second(tasks), &limit);
    let commits = limits::single_commits(full);
    add(format!("commits of {APPS} apps by SQL beside {who}"), Unit::PerSecond, per_second(inserted), &commits);
    let wait = percentile(&mut waits, 99);
    report.add(Figure::new("beside", format!("a commit of an app by SQL beside {who}, p99"), Unit::Micros, wait));
    Ok(())
}

/// An app that inserts one row after the other, each in a commit of its own, at least one; gives how many microseconds each took.
/// Who gets no lock within the busy timeout tries again, and the wait goes on.
fn insert_until(over: &AtomicBool, app: &Connection) -> Result<Vec<f64>, Error> {
    let fail = |error| Error::database("insert a task", error);
    let mut insert = app.prepare("INSERT INTO tasks (kind, payload) VALUES (?1, ?2)").map_err(fail)?;
    let text = payload();
    let mut waits = Vec::new();
    loop {
        let before = Instant::now();
        while let Err(error) = insert.execute((NOOP, &text)) {
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
                return Err(fail(error));
            }
        }
        waits.push(before.elapsed().as_secs_f64() * 1e6);
        if over.load(Ordering::Relaxed) {
            return Ok(waits);
        }
    }
}
