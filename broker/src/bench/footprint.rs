//! What the broker costs while nothing happens: memory with many queued tasks, processor time with idle workers.

use std::thread;
use std::time::Duration;

use super::Bench;
use super::drain::payload;
use super::figure::{Figure, Report, Unit};
use super::stage::{Durability, Stage};
use super::worker::NOOP;
use crate::error::Error;

/// Tasks of one insert.
const PAGE: u32 = 100_000;
/// Slots of the workers that drain many queued rows.
const DRAIN_SLOTS: u32 = 16;
/// Slots of the workers that wait for tasks, as many as `bench/run` gives every other system.
const IDLE_SLOTS: u32 = 64;
/// How long workers drain while the most memory is looked for.
const DRAIN: Duration = Duration::from_secs(2);

/// Resident memory with many queued rows: at rest, and the most while they are inserted and while some are completed.
pub(super) fn memory(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let rows = bench.scale.queued_rows;
    let mut stage = Stage::open(bench, Durability::Normal)?;
    let (empty, _) = stage.broker().memory()?;
    stage.pause(&["normal"], true)?;
    stage.hire(DRAIN_SLOTS, 16)?;
    for page in 0..rows.div_ceil(PAGE) {
        stage.insert(NOOP, None, PAGE.min(rows - page * PAGE), |_| payload())?;
    }
    stage.await_queued(rows)?;
    let (at_rest, most) = stage.broker().memory()?;
    report.count(stage.tally_queued(rows)?);
    stage.pause(&["normal"], false)?;
    thread::sleep(DRAIN);
    let (_, draining) = stage.broker().memory()?;
    for (name, bytes) in [
        ("broker, nothing queued".to_owned(), empty),
        (format!("broker, {rows} queued"), at_rest),
        (format!("broker, most while {rows} are inserted"), most),
        (format!("broker, most while {rows} are drained"), draining),
    ] {
        report.add(Figure::new("memory", name, Unit::Mebibytes, mebibytes(bytes)));
    }
    Ok(())
}

/// Processor time of the broker, and of a worker slot, while nothing is to do.
pub(super) fn idle(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let time = bench.scale.idle_time;
    let mut stage = Stage::open(bench, Durability::Full)?;
    stage.hire(IDLE_SLOTS, 1)?;
    let (broker, workers) = (stage.broker().cpu()?, stage.workers_cpu()?);
    thread::sleep(time);
    let share = |cpu: Duration| cpu.as_secs_f64() / time.as_secs_f64() * 100.0;
    let broker = share(stage.broker().cpu()?.saturating_sub(broker));
    let workers = share(stage.workers_cpu()?.saturating_sub(workers));
    report.add(Figure::new("idle", format!("broker, {IDLE_SLOTS} slots ready"), Unit::PercentOfCore, broker));
    report.add(Figure::new("idle", format!("all workers, {IDLE_SLOTS} slots"), Unit::PercentOfCore, workers));
    Ok(())
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    const MIB: f64 = 1024.0 * 1024.0;
    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^53 bytes")]
    let bytes = bytes as f64;
    bytes / MIB
}
