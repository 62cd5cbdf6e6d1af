//! How fast queued tasks are completed, and how well workers are kept busy by tasks of different lengths.

use std::time::{Duration, Instant};

use super::Bench;
use super::figure::{Figure, Report, Unit, counted};
use super::limits;
use super::stage::{Durability, Stage};
use super::worker::{NOOP, SLEEP};
use crate::error::Error;

/// The lane of tasks that say nothing, as the settings have it unless told otherwise.
pub(super) const LANE: &str = "normal";
/// Bytes of a payload, as JSON text.
pub(super) const PAYLOAD_BYTES: usize = 100;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for durability in Durability::BOTH {
        for &max in bench.scale.drain_maxes {
            for &slots in bench.scale.drain_slots {
                drain(bench, report, durability, slots, max)?;
            }
        }
    }
    Ok(())
}

/// From the moment when the first task may be handed out until the last row is done.
fn drain(bench: &Bench, report: &mut Report, durability: Durability, slots: u32, max: u32) -> Result<(), Error> {
    let tasks = if max == 1 { bench.scale.drain_tasks_alone } else { bench.scale.drain_tasks };
    let mut stage = Stage::open(bench, durability)?;
    stage.pause(&[LANE], true)?;
    stage.insert(NOOP, None, tasks, |_| payload())?;
    stage.hire(slots, max)?;
    stage.await_queued(tasks)?;
    let (broker, workers) = (stage.broker().cpu()?, stage.workers_cpu()?);
    let started = Instant::now();
    stage.pause(&[LANE], false)?;
    let took = stage.await_end()?.duration_since(started);
    let per_task = |cpu: Duration| cpu.as_secs_f64() * 1e6 / f64::from(tasks);
    let broker = per_task(stage.broker().cpu()?.saturating_sub(broker));
    let workers = per_task(stage.workers_cpu()?.saturating_sub(workers));
    report.count(stage.tally_done(tasks)?);

    let name = format!("{}, max {max}, {}", counted(slots, "slot"), durability.word());
    // A task at a time costs one round trip; many at a time cost little but their rows.
    let limit = if max == 1 { limits::round_trips(slots) } else { limits::completes(durability) };
    let figure = Figure::new("drain", name, Unit::PerSecond, f64::from(tasks) / took.as_secs_f64())
        .over(limit)
        .note(format!("cpu a task: broker {broker:.1} us, workers {workers:.1} us"));
    report.add(figure);
    Ok(())
}

/// Nine tasks of 1 ms to one of 50 ms, over the time that perfect packing would take.
pub(super) fn makespan(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    const SLOTS: u32 = 8;
    // In an order that has no rhythm, and is the same in every run.
    let millis = |row: u32| if row.wrapping_mul(2_654_435_761) >> 16 & 0xffff < 0x1999 { 50 } else { 1 };
    let tasks = bench.scale.makespan_tasks;
    let ideal = (0..tasks).map(millis).sum::<u32>() / SLOTS;

    let mut stage = Stage::open(bench, Durability::Full)?;
    stage.pause(&[LANE], true)?;
    stage.insert(SLEEP, None, tasks, |row| millis(row).to_string())?;
    stage.hire(SLOTS, 1)?;
    stage.await_queued(tasks)?;
    let started = Instant::now();
    stage.pause(&[LANE], false)?;
    let took = stage.await_end()?.duration_since(started);
    report.count(stage.tally_done(tasks)?);
    let ratio = took.as_secs_f64() * 1_000.0 / f64::from(ideal);
    let name = format!("{tasks} tasks, 90% 1 ms, 10% 50 ms, {SLOTS} slots, full");
    report.add(Figure::new("makespan", name, Unit::Times, ratio).note(format!("ideal {ideal} ms")));
    Ok(())
}

pub(super) fn payload() -> String {
    format!("\"{}\"", "x".repeat(PAYLOAD_BYTES - 2))
}
