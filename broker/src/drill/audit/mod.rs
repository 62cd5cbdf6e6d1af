//! The audit: holds the table against what was acknowledged and against what really ran. Reads evidence, touches nothing,
//! knows no code of the broker; slow and simple on purpose. Every rule that does not hold is a violation.

mod cause;
mod counters;
mod ends;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

pub(super) use self::cause::Cause;
use super::faults::Done;
use super::job::{Job, Source};
use super::journal::Execution;
use super::ledger::Ledger;
use super::table::{FailureRow, TaskRow};

/// Everything there is to judge by.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    pub(super) seed: u64,
    pub(super) rows: BTreeMap<i64, TaskRow>,
    /// By task.
    pub(super) failures: HashMap<i64, Vec<FailureRow>>,
    /// By task, in order of the hand-outs.
    pub(super) executions: HashMap<i64, Vec<Execution>>,
    pub(super) faults: Done,
    /// Which worker process a session was.
    sessions: HashMap<String, usize>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<Violation>,
    /// Tasks of each source: in, done, dead, cancelled.
    pub(super) sources: BTreeMap<Source, [u64; 4]>,
    /// Executions that were not a task's first, by what they were owed to.
    pub(super) again: BTreeMap<Cause, Again>,
    pub(super) executions: u64,
    pub(super) totals: Totals,
}

/// How often one cause made executions repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) times: u64,
    pub(super) tasks: u64,
    /// The last of these tasks.
    pub(super) example: i64,
}

/// Sums over all rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) runs: u64,
    pub(super) attempts: u64,
    pub(super) losses: u64,
    pub(super) releases: u64,
    /// Hand-outs that were taken back without a count: not received, or not to blame.
    pub(super) uncounted: u64,
    /// Cancelled while the broker died before it recorded a hand-out: a worker ran what its row never heard of.
    pub(super) overtaken: u64,
    pub(super) dead_by_losses: u64,
}

/// A promise that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) rule: &'static str,
    pub(super) task: Option<i64>,
    pub(super) text: String,
}

impl Evidence {
    pub(super) fn new(
        seed: u64,
        rows: Vec<TaskRow>,
        failures: Vec<FailureRow>,
        executions: Vec<Execution>,
        faults: Done,
    ) -> Self {
        let mut evidence = Self { seed, faults, ..Self::default() };
        evidence.rows = rows.into_iter().map(|row| (row.id, row)).collect();
        for failure in failures {
            evidence.failures.entry(failure.task).or_default().push(failure);
        }
        for execution in executions {
            evidence.executions.entry(execution.task).or_default().push(execution);
        }
        for executions in evidence.executions.values_mut() {
            executions.sort_by_key(|execution| (execution.run, execution.started_us));
        }
        evidence.sessions = evidence.learn_sessions();
        evidence
    }

    pub(super) fn executions_of(&self, task: i64) -> &[Execution] {
        self.executions.get(&task).map_or(&[], Vec::as_slice)
    }

    pub(super) fn failures_of(&self, task: i64) -> &[FailureRow] {
        self.failures.get(&task).map_or(&[], Vec::as_slice)
    }

    pub(super) fn job(&self, row: &TaskRow) -> Option<Job> {
        row.number.map(|number| Job::new(self.seed, number))
    }

    /// Sessions are random names; a row that a session ended and the run in a journal tell which process it was.
    fn learn_sessions(&self) -> HashMap<String, usize> {
        let ended = self.rows.values().filter_map(|row| {
            let execution = self.executions_of(row.id).iter().find(|run| Some(run.lease) == row.lease)?;
            Some((row.worker.clone()?, execution.worker))
        });
        ended.collect()
    }
}

/// Judges. `ledger` is what the apps were promised.
pub(super) fn audit(evidence: &Evidence, ledger: &Ledger) -> Findings {
    let mut findings = Findings::default();
    for text in &ledger.complaints {
        findings.violation("an app or a process had an error", None, text.clone());
    }
    ends::judge(evidence, ledger, &mut findings);
    keys::judge(evidence, ledger, &mut findings);
    for row in evidence.rows.values() {
        counters::judge(evidence, row, &mut findings);
        cause::judge(evidence, row, &mut findings);
    }
    findings
}

impl Findings {
    /// Tasks come one after the other.
    fn again(&mut self, cause: Cause, task: i64) {
        let again = self.again.entry(cause).or_default();
        again.times += 1;
        again.tasks += u64::from(again.example != task);
        again.example = task;
    }

    pub(super) fn violation(&mut self, rule: &'static str, task: Option<i64>, text: impl Into<String>) {
        self.violations.push(Violation { rule, task, text: text.into() });
    }
}
