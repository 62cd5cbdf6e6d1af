//! Every acknowledged task is there and has ended as it must, with the result that its handler computes; and what was once
//! told about an end is still so.

use std::collections::{HashMap, HashSet};

use super::super::crew::LOSSES_MAX;
use super::super::job::{Job, Source};
use super::super::ledger::{Ledger, Told};
use super::super::table::TaskRow;
use super::{Evidence, Findings};

pub(super) fn judge(evidence: &Evidence, ledger: &Ledger, findings: &mut Findings) {
    let mut cancels: HashMap<i64, Told> = HashMap::new();
    for cancel in &ledger.cancels {
        cancels.insert(cancel.task, cancel.told);
    }
    acknowledged(evidence, ledger, findings);
    for row in evidence.rows.values() {
        one(evidence, row, cancels.get(&row.id).copied(), findings);
    }
    told(evidence, ledger, findings);
}

/// What was acknowledged is stored, once, and nothing else is.
fn acknowledged(evidence: &Evidence, ledger: &Ledger, findings: &mut Findings) {
    let mut known: HashSet<u64> = ledger.unsure.iter().copied().collect();
    for acknowledged in &ledger.tasks {
        known.insert(acknowledged.number);
        let number = evidence.rows.get(&acknowledged.task).map(|row| row.number);
        if number != Some(Some(acknowledged.number)) {
            let what = match number {
                None => "is not in the table".into(),
                Some(number) => format!("is another one's row: {number:?}"),
            };
            let text = format!("number {} was acknowledged and {what}", acknowledged.number);
            findings.violation("a task was lost", Some(acknowledged.task), text);
        }
    }
    let mut stored: HashMap<u64, i64> = HashMap::new();
    for row in evidence.rows.values() {
        let Some(number) = row.number else {
            findings.violation("a row is nobody's", Some(row.id), format!("its payload is {:?}", row.payload));
            continue;
        };
        if let Some(first) = stored.insert(number, row.id) {
            findings.violation("a task was stored twice", Some(row.id), format!("it is task {first} too"));
        }
        if !known.contains(&number) {
            findings.violation("a row is nobody's", Some(row.id), format!("number {number} was never acknowledged"));
        }
    }
}

fn one(evidence: &Evidence, row: &TaskRow, told: Option<Told>, findings: &mut Findings) {
    let Some(job) = evidence.job(row) else { return };
    stored_as_given(row, &job, findings);
    let place = match row.state.as_str() {
        "done" => 1,
        "dead" => 2,
        "cancelled" => 3,
        state => return findings.violation("a task did not end", Some(row.id), format!("it is {state}")),
    };
    if let Some(source) = Source::of(job.number) {
        let counts = findings.sources.entry(source).or_default();
        counts[0] += 1;
        counts[place] += 1;
    }
    let wrong = match row.state.as_str() {
        "done" if job.is_doomed() => Some("its handler never succeeds".into()),
        "done" if told == Some(Told::Cancelled) => Some("its cancel was acknowledged before it started".into()),
        "done" if row.result.as_deref() != Some(&job.result()) => {
            findings.violation("a result is wrong", Some(row.id), format!("{:?}, not {}", row.result, job.result()));
            None
        }
        "done" if !ran(evidence, row) => Some("no handler ended under its lease".into()),
        "dead" if told.is_some_and(|told| told != Told::Nothing) => Some("its cancel was acknowledged".into()),
        "dead" if row.losses >= LOSSES_MAX => {
            findings.totals.dead_by_losses += 1;
            None
        }
        "dead" if !job.is_doomed() => Some(format!("its handler succeeds in the end: {:?}", row.error)),
        "cancelled" if told.is_none() => Some(format!("nobody cancelled it: {:?}", row.error)),
        _ => None,
    };
    if let Some(why) = wrong {
        findings.violation("a task ended wrongly", Some(row.id), format!("it is {} and {why}", row.state));
    }
}

fn stored_as_given(row: &TaskRow, job: &Job, findings: &mut Findings) {
    let stored = (row.kind.as_str(), row.payload.as_deref(), row.unique_key.as_deref(), row.max_attempts);
    let given = (job.kind, Some(job.payload.as_str()), job.unique_key.as_deref(), job.max_attempts);
    if stored != given || job.lane.is_some_and(|lane| row.lane.as_deref() != Some(lane)) {
        let text = format!("{stored:?} in lane {:?}, given as {given:?} in lane {:?}", row.lane, job.lane);
        findings.violation("a row is not as it was given", Some(row.id), text);
    }
}

/// Whether a journal has the run that the row says it ended with.
fn ran(evidence: &Evidence, row: &TaskRow) -> bool {
    let is_it = |how: &Option<(u64, String)>| how.as_ref().is_some_and(|(_, how)| how == "done");
    evidence.executions_of(row.id).iter().any(|run| Some(run.lease) == row.lease && is_it(&run.ended))
}

/// Ends that callers were told, and those that were seen in the table, are the ends still.
fn told(evidence: &Evidence, ledger: &Ledger, findings: &mut Findings) {
    for call in &ledger.calls {
        let Some(row) = evidence.rows.get(&call.task) else { continue };
        if row.state != call.state.as_str() || row.result != call.result {
            let text = format!("told {} {:?}, stored {} {:?}", call.state, call.result, row.state, row.result);
            findings.violation("a caller was told another end", Some(call.task), text);
        }
    }
    for seen in &ledger.seen {
        let now = evidence.rows.get(&seen.task).map(|row| (&row.state, &row.result, row.lease, row.finished_at));
        let then = (&seen.state, &seen.result, seen.lease, seen.finished_at);
        if now != Some(then) {
            findings.violation("an end has changed", Some(seen.task), format!("from {then:?} to {now:?}"));
        }
    }
}
