//! Why a task was executed more than once, and why a run was lost or timed out: each has a cause among what the drill did,
//! or the broker has blamed or repeated something that was in order.

use super::super::crew::{RESUME_GRACE_MS, TIMEOUT_MS};
use super::super::faults::{HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS, Stop};
use super::super::journal::Execution;
use super::super::table::{FailureRow, TaskRow};
use super::{Evidence, Findings};

/// What an execution was owed to that was not a task's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::drill) enum Cause {
    WorkerKilled,
    WorkerStopped,
    TimedOut,
    Failed,
    Snoozed,
    /// The broker was killed before it had recorded a hand-out to a plain worker, which cannot tell it of that.
    HandOutForgotten,
}

impl Cause {
    pub(in crate::drill) fn text(self) -> &'static str {
        match self {
            Self::WorkerKilled => "the worker before was killed",
            Self::WorkerStopped => "the worker before was stopped for too long",
            Self::TimedOut => "the run before timed out",
            Self::Failed => "the handler had failed",
            Self::Snoozed => "the handler had asked for a pause",
            Self::HandOutForgotten => "a plain worker's hand-out was lost with the broker",
        }
    }
}

/// A stop that the broker must have taken for death: no sign of life for the timeout, less the probe before.
const SILENCE_US: u64 = (HEARTBEAT_TIMEOUT_MS - HEARTBEAT_INTERVAL_MS / 2) * 1_000;
/// A worker that goes on after a stop finishes what it held first, before it hears that this is not its own any more.
const AFTERMATH_US: u64 = 2_000_000;
/// Between a hand-out and its record, and between a death and its row.
const AROUND_US: u64 = 1_000_000;
/// A hand-out that no journal knows: how far back its worker's end may lie.
const UNSEEN_US: u64 = (TIMEOUT_MS + RESUME_GRACE_MS) * 1_000 + 5 * AROUND_US;

pub(super) fn judge(evidence: &Evidence, row: &TaskRow, findings: &mut Findings) {
    let executions = evidence.executions_of(row.id);
    findings.executions += executions.len() as u64;
    for (at, next) in executions.iter().enumerate().skip(1) {
        if executions[..at].iter().any(|earlier| earlier.lease == next.lease) {
            let text = format!("run {} under one lease, {}", next.run, described(evidence, executions));
            findings.violation("a hand-out was executed twice", Some(row.id), text);
        } else if let Some(cause) = why_again(evidence, &executions[at - 1], next) {
            findings.again(cause, row.id);
        } else {
            let text = described(evidence, executions);
            findings.violation("a task was executed twice without a cause", Some(row.id), text);
        }
    }
    for failure in evidence.failures_of(row.id) {
        if let Err(why) = is_owed(evidence, row, failure) {
            findings.violation("a failure has no cause", Some(row.id), format!("run {}: {why}", failure.run));
        }
    }
}

/// Why the task was handed out again after `first`.
fn why_again(evidence: &Evidence, first: &Execution, next: &Execution) -> Option<Cause> {
    let recorded = |cause: &str| {
        evidence.failures_of(first.task).iter().any(|failure| failure.run == first.run && failure.cause == cause)
    };
    let worker = &evidence.faults.workers[first.worker];
    let how = first.ended.as_ref().map(|(_, how)| how.as_str());
    if how == Some("fail") && recorded("failed") {
        return Some(Cause::Failed);
    }
    if how == Some("snooze") && evidence.rows.get(&first.task).is_some_and(|row| row.releases > 0) {
        return Some(Cause::Snoozed);
    }
    if recorded("timeout") {
        return Some(Cause::TimedOut);
    }
    if worker.killed_us.is_some_and(|at| at <= next.started_us) {
        return Some(Cause::WorkerKilled);
    }
    if worker.stops.iter().any(|stop| was_taken_for_dead(evidence, stop, first.started_us, next.started_us)) {
        return Some(Cause::WorkerStopped);
    }
    let forgotten = worker.plain && !worker.committed && first.run == next.run;
    let killed = || evidence.faults.broker_killed_between(first.started_us.saturating_sub(AROUND_US), next.started_us);
    (forgotten && killed()).then_some(Cause::HandOutForgotten)
}

/// Whether a worker that held a task from `held_us` on was still for so long that it was rightly given up by `by_us`. After a
/// broker's death less is enough: the next one waits only so long for those who do not come back.
fn was_taken_for_dead(evidence: &Evidence, stop: &Stop, held_us: u64, by_us: u64) -> bool {
    let restarted =
        evidence.faults.broker_killed_between(stop.from_us.saturating_sub(AROUND_US), by_us.min(stop.to_us));
    let silence = if restarted { 0 } else { SILENCE_US };
    let lasted = stop.to_us.min(by_us).saturating_sub(stop.from_us);
    lasted >= silence && stop.from_us <= by_us && stop.to_us.saturating_add(AFTERMATH_US) >= held_us
}

/// Whether what a failure says has happened.
fn is_owed(evidence: &Evidence, row: &TaskRow, failure: &FailureRow) -> Result<(), String> {
    let runs: Vec<&Execution> =
        evidence.executions_of(row.id).iter().filter(|execution| execution.run == failure.run).collect();
    let failed_us = u64::try_from(failure.failed_at).unwrap_or(0) * 1_000 + AROUND_US;
    let hurt = |worker: usize, held_us: u64| {
        let worker = &evidence.faults.workers[worker];
        worker.killed_us.is_some_and(|at| at <= failed_us)
            || worker.stops.iter().any(|stop| was_taken_for_dead(evidence, stop, held_us, failed_us))
    };
    let described = || described(evidence, evidence.executions_of(row.id));
    match failure.cause.as_str() {
        "failed" => {
            let is_it = |run: &&&Execution| run.ended.as_ref().is_some_and(|(_, how)| how == "fail");
            runs.iter().find(is_it).map(|_| ()).ok_or_else(|| format!("failed, and no handler did: {}", described()))
        }
        "timeout" if evidence.job(row).is_some_and(|job| job.hangs()) || was_too_long(failure) => Ok(()),
        "lost" | "timeout" => {
            let seen = runs.iter().any(|run| hurt(run.worker, run.started_us));
            let session = failure.worker.as_ref().and_then(|session| evidence.sessions.get(session));
            let unseen = || match session {
                // It received the task and had not come to it.
                Some(worker) if failure.cause == "lost" => hurt(*worker, failed_us.saturating_sub(UNSEEN_US)),
                _ => evidence.faults.any_between(failed_us.saturating_sub(UNSEEN_US), failed_us),
            };
            if seen || (runs.is_empty() && unseen()) {
                return Ok(());
            }
            Err(format!("{} by {:?}, and its worker was in order: {}", failure.cause, failure.worker, described()))
        }
        other => Err(format!("nothing in the drill is {other}")),
    }
}

/// Whether a run took all the time it had. A handler that sleeps for less may still: its process may be starved on a busy
/// machine, or have come to the task late because one before it in the batch hung.
fn was_too_long(failure: &FailureRow) -> bool {
    let timeout_ms = i64::try_from(TIMEOUT_MS).unwrap_or(i64::MAX);
    failure.started_at.is_some_and(|started_at| failure.failed_at - started_at >= timeout_ms)
}

/// All executions of a task with what happened to their workers, for people.
fn described(evidence: &Evidence, executions: &[Execution]) -> String {
    let first = executions.iter().map(|run| run.started_us).min().unwrap_or(0);
    let ms = |at: u64| i64::try_from(at).unwrap_or(i64::MAX).saturating_sub_unsigned(first) / 1_000;
    let one = |run: &Execution| {
        let worker = &evidence.faults.workers[run.worker];
        let how = run.ended.as_ref().map_or_else(|| "no end".into(), |(at, how)| format!("{how} at {}", ms(*at)));
        let killed = worker.killed_us.map_or_else(String::new, |at| format!(", killed at {}", ms(at)));
        let plain = if worker.plain { " (plain)" } else { "" };
        let at = ms(run.started_us);
        format!("run {} on {}{plain} at {at} ms, {how}{killed}", run.run, worker.name)
    };
    if executions.is_empty() {
        return "never executed".into();
    }
    let last = executions.iter().map(|run| run.started_us).max().unwrap_or(0);
    let kills = evidence.faults.broker_kills_us.iter();
    let kills = kills.filter(|at| (first.saturating_sub(3 * AROUND_US)..=last + AROUND_US).contains(*at));
    let kills: Vec<String> = kills.map(|at| ms(*at).to_string()).collect();
    let runs = executions.iter().map(one).collect::<Vec<_>>().join("; ");
    if kills.is_empty() { runs } else { format!("{runs}; broker killed at {} ms", kills.join(", ")) }
}
