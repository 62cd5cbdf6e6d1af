//! The counters of a row tell the truth: each is what the failures and the journals say, and together they are no more than
//! the hand-outs.

use super::super::crew::MAX_ATTEMPTS;
use super::super::table::TaskRow;
use super::{Evidence, Findings};

/// The clocks of rows tick in milliseconds, and a commit or two lie between a cause and its row.
const AROUND_MS: i64 = 1_000;

pub(super) fn judge(evidence: &Evidence, row: &TaskRow, findings: &mut Findings) {
    let failures = evidence.failures_of(row.id);
    let n_failures = |causes: &[&str]| {
        let these = failures.iter().filter(|failure| causes.contains(&failure.cause.as_str()));
        u32::try_from(these.count()).unwrap_or(u32::MAX)
    };
    let mut wrong = Vec::new();
    let ended_well = u32::from(row.state == "done");
    let attempts = n_failures(&["failed", "timeout"]) + ended_well;
    if row.attempts != attempts {
        wrong.push(format!("{} attempts, {attempts} by its failures and its end", row.attempts));
    }
    let attempts_max = row.max_attempts.unwrap_or(MAX_ATTEMPTS);
    if row.attempts > attempts_max {
        wrong.push(format!("{} attempts of at most {attempts_max}", row.attempts));
    }
    let losses = n_failures(&["lost"]);
    if row.losses != losses {
        wrong.push(format!("{} losses, {losses} by its failures", row.losses));
    }
    let counted = row.attempts + row.losses + row.releases;
    let uncounted = row.runs.saturating_sub(counted);
    if row.runs < counted {
        wrong.push(format!("{} runs, which is less than {counted} attempts, losses and releases", row.runs));
    }
    let executions = evidence.executions_of(row.id);
    let last = executions.iter().map(|run| run.run).max().unwrap_or(0);
    // Both the broker's death and a cancel may land between a hand-out and its record: then the row is never told of the run.
    let was_overtaken = row.state == "cancelled" && last == row.runs + 1 && was_broker_killed(evidence, row);
    if last > row.runs && !was_overtaken {
        wrong.push(format!("{} runs, and a worker had run number {last}", row.runs));
    }
    let hurt = was_any_hurt(evidence, row);
    if uncounted > u32::from(row.state == "cancelled") && !hurt {
        wrong.push(format!("{uncounted} hand-outs without a count, and nothing was killed or stopped meanwhile"));
    }
    // A worker that is told of a cancel before it has begun the task hands it back.
    let handed_back = usize::from(row.state == "cancelled" && executions.iter().all(|run| run.run != row.runs));
    let snoozes = executions.iter().filter(|run| run.ended.as_ref().is_some_and(|(_, how)| how == "snooze")).count();
    if row.releases as usize > snoozes + handed_back && !hurt {
        wrong
            .push(format!("{} releases, {snoozes} snoozes, and nothing was killed or stopped meanwhile", row.releases));
    }
    for text in wrong {
        findings.violation("a counter is wrong", Some(row.id), text);
    }
    let totals = &mut findings.totals;
    totals.runs += u64::from(row.runs);
    totals.attempts += u64::from(row.attempts);
    totals.losses += u64::from(row.losses);
    totals.releases += u64::from(row.releases);
    totals.uncounted += u64::from(uncounted);
    totals.overtaken += u64::from(was_overtaken);
}

fn was_any_hurt(evidence: &Evidence, row: &TaskRow) -> bool {
    let (from, to) = life_us(row);
    evidence.faults.any_between(from, to)
}

fn was_broker_killed(evidence: &Evidence, row: &TaskRow) -> bool {
    let (from, to) = life_us(row);
    evidence.faults.broker_killed_between(from, to)
}

/// From when to when something could have happened to a task.
fn life_us(row: &TaskRow) -> (u64, u64) {
    let us = |ms: i64| u64::try_from(ms).unwrap_or(0) * 1_000;
    (us(row.created_at - AROUND_MS), row.finished_at.map_or(u64::MAX, |at| us(at + AROUND_MS)))
}
