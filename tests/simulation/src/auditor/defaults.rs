//! What holds for tasks that do not say: a hand-out tells the attempts and the timeout of its row or its kind, a run that fails is retried
//! after the backoff of its kind or is the last one, and a run is taken back at its timeout, no sooner and not later.

use std::collections::BTreeMap;

use laneway_core::{Cause, Ended, Next, Op, Started};
use laneway_protocol::Kind;
use laneway_protocol::message::{HandedTask, KindValues, Outcome};

use super::runs::words;
use super::{Auditor, id};
use crate::plan::{CANCEL_GRACE_MS, Plan};

/// A turn of the router behind the deadline.
pub(super) const SLACK_MS: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Defaults {
    /// What the settings say of every kind, and what was set of one.
    all: KindValues,
    set: BTreeMap<String, KindValues>,
    /// By lease, of this broker.
    runs: BTreeMap<i64, Run>,
}

/// What a hand-out has to go by.
#[derive(Debug, Clone, Copy)]
struct Run {
    task: i64,
    at: u64,
    attempt: u32,
    attempts_max: u32,
    timeout_ms: u64,
}

impl Defaults {
    pub(super) fn new(plan: &Plan) -> Self {
        let settings = plan.settings().defaults;
        let all = KindValues {
            max_attempts: Some(settings.max_attempts),
            timeout_ms: Some(settings.timeout_ms),
            backoff_base_ms: Some(settings.backoff_base_ms),
            backoff_max_ms: Some(settings.backoff_max_ms),
            ..KindValues::default()
        };
        Self { all, ..Self::default() }
    }

    /// When this broker has handed a run out.
    pub(super) fn handed_at(&self, lease: i64) -> Option<u64> {
        self.runs.get(&lease).map(|run| run.at)
    }

    /// Something said of the kind, or of all.
    fn of<T>(&self, kind: &Kind, value: impl Fn(&KindValues) -> Option<T>) -> T {
        let own = self.set.get(kind.as_str()).and_then(&value);
        own.or_else(|| value(&self.all)).expect("the settings say it")
    }
}

impl Auditor {
    pub(super) fn defaults_on_start(&mut self, kinds: &[(Kind, bool, KindValues)]) {
        self.defaults.set = kinds.iter().map(|(kind, _, values)| (kind.to_string(), values.clone())).collect();
        self.defaults.runs.clear();
    }

    pub(super) fn defaults_on_op(&mut self, op: &Op) {
        match op {
            Op::SetKind { kind, values, .. } => drop(self.defaults.set.insert(kind.to_string(), values.clone())),
            Op::Started(started) => self.note_run(started),
            Op::Ended(ended) => self.check_end(ended),
            _ => {}
        }
    }

    fn note_run(&mut self, started: &Started) {
        // Another broker has made it.
        let is_adopted = self.leases.ever.contains_key(&started.lease.value());
        let Some(row) = self.rows.get(&id(started.task)).filter(|_| !is_adopted) else { return };
        let own = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let max = own(row.max_attempts).and_then(|max| u32::try_from(max).ok());
        let attempts_max = max.unwrap_or_else(|| self.defaults.of(&started.kind, |values| values.max_attempts));
        let timeout_ms =
            own(row.timeout_ms).unwrap_or_else(|| self.defaults.of(&started.kind, |values| values.timeout_ms));
        let run = Run { task: id(started.task), at: self.now, attempt: started.attempt, attempts_max, timeout_ms };
        self.defaults.runs.insert(started.lease.value(), run);
    }

    /// What a worker is told of its task.
    pub(super) fn check_told(&mut self, task: &HandedTask) {
        let Some(run) = self.defaults.runs.get(&task.lease.value()) else { return };
        let told = (task.attempt, task.max_attempts, task.timeout_ms);
        if told != (run.attempt, run.attempts_max, run.timeout_ms) && !self.touched.contains(&id(task.task)) {
            let found = format!("task {} is handed out with {told:?} in place of {run:?}", task.task);
            self.fail(found);
        }
    }

    fn check_end(&mut self, ended: &Ended) {
        let Some(run) = self.defaults.runs.remove(&ended.lease.value()) else { return };
        let failed = matches!(ended.cause, Some(Cause::Failed | Cause::Timeout)) && ended.next != Next::Cancelled;
        if !failed || self.touched.contains(&id(ended.task)) {
            return;
        }
        let ran_ms = self.now - run.at;
        if ended.cause == Some(Cause::Timeout) && ran_ms < run.timeout_ms {
            self.fail(format!("task {} is taken back after {ran_ms} ms: {run:?}", ended.task));
        }
        let said = self.said(ended);
        let (gives_up, after_ms) = said.map_or((false, None), |word| (word.dead, word.after_ms));
        let last = gives_up || run.attempt >= run.attempts_max;
        let (base, most) = (
            self.defaults.of(&ended.kind, |values| values.backoff_base_ms),
            self.defaults.of(&ended.kind, |values| values.backoff_max_ms),
        );
        let full = base.saturating_mul(1 << (run.attempt - 1).min(32)).min(most);
        let right = match ended.next {
            Next::Dead => last,
            Next::Queued { run_at } => {
                let after = run_at.map_or(0, |at| at.0 - ended.at.0);
                let after = u64::try_from(after).unwrap_or(u64::MAX);
                !last && after_ms.map_or((full - full / 2..=full).contains(&after), |said| said == after)
            }
            _ => false,
        };
        self.tally.failures += 1;
        if !right {
            self.fail(format!(
                "task {} fails as {run:?}, a backoff of {full} ms, and this comes: {ended:?}",
                ended.task
            ));
        }
    }

    /// What its worker has said of a run, if anything.
    fn said(&self, ended: &Ended) -> Option<&Outcome> {
        let mut said = self.open.values().flat_map(|open| words(&open.request));
        said.find(|word| (word.task, word.lease) == (ended.task, ended.lease))
    }

    /// A run past its timeout and the grace to stop in.
    pub(super) fn runs_too_long(&self) -> Option<String> {
        // Time that the broker stood still, or was away, does not count.
        let holds = |lease: &i64, run: &Run| self.leases.of.get(&run.task).is_some_and(|leases| leases.contains(lease));
        let mut runs = self.defaults.runs.iter().filter(|(lease, run)| run.at > self.disturbed && holds(lease, run));
        let (lease, run) = runs.find(|(_, run)| self.now > run.at + run.timeout_ms + CANCEL_GRACE_MS + SLACK_MS)?;
        Some(format!("the run under lease {lease:x} goes on past its timeout: {run:?}"))
    }
}
