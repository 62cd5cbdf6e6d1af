//! Who may speak for a task: a lease is given once, only the current one counts, and nothing is taken from a worker that
//! holds it.

use std::collections::BTreeSet;

use laneway_core::{Count, Ended, Event, Next, Op, OpId, OpResult};
use laneway_protocol::TaskId;
use laneway_protocol::message::{Outcome, Request, Verdict};

use super::{Auditor, Open, id};
use crate::worker::Worker;

impl Auditor {
    /// Before the core is told something: which runs end by that, without a word of theirs.
    pub(crate) fn ends_runs(&mut self, event: &Event) {
        let tasks: Vec<TaskId> = match event {
            Event::Overtaken(ended) => ended.iter().map(|(task, _)| *task).collect(),
            Event::EndedByStore(ended) => ended.iter().map(|end| end.task).collect(),
            Event::CancelRequested(tasks) => {
                for task in tasks {
                    self.is_to_stop(id(*task));
                }
                return;
            }
            Event::Committed(results) => results.iter().flat_map(|(op, result)| self.cancelled(*op, result)).collect(),
            _ => return,
        };
        self.leases.ending.extend(tasks.into_iter().map(id));
    }

    /// The core has dealt with what it was told, and said what it makes of it.
    pub(crate) fn on_ends(&mut self) {
        for task in std::mem::take(&mut self.leases.ending) {
            if self.rows.get(&task).is_some_and(|row| !row.state.is_final()) && !self.requeued.contains(&task) {
                self.fail(format!("task {task} is overtaken and the table says {:?}", self.rows[&task]));
            }
            self.leases.of.remove(&task);
            self.leases.sure.remove(&task);
        }
    }

    /// The tasks that a change by people has ended.
    fn cancelled(&mut self, op: OpId, result: &OpResult) -> Vec<TaskId> {
        let ends = |(_, verdict): &(TaskId, Verdict)| matches!(verdict, Verdict::Cancelled | Verdict::Purged);
        let tasks = self.cancels.remove(&op).or_else(|| self.edits.by_id.remove(&op).map(|(_, tasks)| tasks));
        let said: Vec<(TaskId, Verdict)> = match (tasks, result) {
            (Some(tasks), OpResult::Verdicts(verdicts)) => tasks.into_iter().zip(verdicts.iter().copied()).collect(),
            (_, OpResult::Bulk(sliced)) if self.edits.slices.remove(&op).is_some_and(|slice| !slice.dry_run) => {
                sliced.verdicts.clone()
            }
            _ => return Vec::new(),
        };
        for (task, _) in said.iter().filter(|(_, verdict)| *verdict == Verdict::Requested) {
            self.is_to_stop(id(*task));
        }
        said.into_iter().filter(ends).map(|(task, _)| task).collect()
    }

    pub(crate) fn on_op(&mut self, number: Option<OpId>, op: &Op, now: u64, workers: &[Worker]) {
        self.now = now;
        self.note_held();
        self.on_limit_op(op);
        self.kept_on_op(op);
        self.counts_on_op(op);
        self.defaults_on_op(op);
        self.cron_on_op(number, op);
        self.stakes_on_op(number, op);
        self.keys_on_op(number, op);
        self.replaced_on_op(op);
        self.moving_on_op(op);
        self.batches_on_op(number, op);
        self.groups_on_op(number, op);
        match op {
            Op::Started(started) => {
                self.tally.hand_outs += 1;
                self.check_start(id(started.task));
                self.shares_on_start(started);
                let (task, lease) = (id(started.task), started.lease.value());
                let before = self.leases.of.get(&task).cloned().unwrap_or_default();
                let made = self.rows.get(&task).map_or(0, |row| row.created_at);
                if self.leases.sure.contains(&task) && !before.is_empty() {
                    self.fail(format!("task {task} is handed out while {before:x?} run it"));
                }
                let again = self.leases.ever.insert(lease, (task, made, started.run.into())).is_some();
                if again && !before.contains(&lease) && !self.touched.contains(&task) {
                    self.fail(format!("lease {lease:x} of task {task} is given out twice"));
                }
                let adopted = before.contains(&lease);
                if adopted {
                    self.turns_on_adopted(started);
                } else {
                    self.check_quiet(task);
                    for other in before {
                        self.not_held(task, other, workers);
                    }
                }
                self.leases.of.insert(task, BTreeSet::from([lease]));
                self.leases.sure.insert(task);
                self.leases.newest_run.insert(task, started.run.into());
                self.on_started(started, adopted);
            }
            Op::Ended(ended) => self.on_ended(ended, workers),
            Op::Noted(noted) => {
                self.is_current(id(noted.task), noted.lease.value(), "progress is taken");
                self.checkpoints_on_op(noted);
            }
            Op::Cancel(tasks) => {
                self.waiting.cancelling.extend(tasks.iter().map(|task| id(*task)));
                self.cancels.extend(number.map(|number| (number, tasks.clone())));
            }
            Op::Edit { .. } | Op::Bulk(_) => self.on_edit(number, op),
            _ => {}
        }
        self.note_held();
    }

    fn on_ended(&mut self, ended: &Ended, workers: &[Worker]) {
        let (task, lease) = (id(ended.task), ended.lease.value());
        self.edits.ends.insert(task, ended.at.0);
        self.is_current(task, lease, "a run ends");
        let said =
            |open: &Open| words(&open.request).iter().any(|word| (id(word.task), word.lease.value()) == (task, lease));
        let by_word = self.open.values().any(said);
        if by_word {
            self.leases.ended_by_word.insert((task, lease));
        }
        let session = ended.worker.as_str();
        match ended.next {
            Next::Done(_) => self.tally.done += 1,
            Next::Dead => self.tally.dead += 1,
            Next::Cancelled => self.tally.cancelled += 1,
            Next::Queued { .. } | Next::Already => {}
        }
        match ended.count {
            Count::Loss => {
                self.tally.losses += 1;
                if !self.peers.spoke.contains(session) || !self.peers.shaken.contains(session) {
                    self.fail(format!("task {task} counts a loss of {session}, whose end this broker has not seen"));
                }
            }
            Count::Nothing => *self.leases.nothing.entry(task).or_default() += 1,
            Count::Attempt | Count::Release => {}
        }
        // A worker that does not stop when it is told to is not waited for.
        let too_slow = matches!(ended.next, Next::Cancelled);
        // A hand-out that its own cancel has overtaken is given back, and its worker hears it in the same breath.
        let called_off = self.leases.ending.contains(&task);
        if !by_word && !too_slow && !called_off && matches!(ended.count, Count::Release | Count::Nothing) {
            self.not_held(task, lease, workers);
        }
        self.leases.of.remove(&task);
        self.leases.sure.remove(&task);
    }

    /// A run is taken back: nobody whom this broker has welcomed and never lost may hold it.
    fn not_held(&mut self, task: i64, lease: i64, workers: &[Worker]) {
        // Whoever has the payload from before a replacement is told so when it is back.
        if self.touched.contains(&task) || self.void.contains(task, lease) {
            return;
        }
        let holds = |worker: &&Worker| {
            worker.up
                && self.peers.welcome.contains(worker.name.as_str())
                && !self.peers.shaken.contains(worker.name.as_str())
                && worker
                    .slots
                    .iter()
                    .flat_map(|place| place.link.held())
                    .any(|held| (id(held.0), held.1.value()) == (task, lease))
        };
        if let Some(worker) = workers.iter().find(holds) {
            let found = format!("task {task} is taken from {}, which holds it under {lease:x}", worker.name);
            self.fail(found);
        }
    }

    pub(super) fn is_current(&mut self, task: i64, lease: i64, what: &str) {
        if !self.leases.of.get(&task).is_some_and(|leases| leases.contains(&lease)) {
            let current = self.leases.of.get(&task);
            self.fail(format!("{what} under lease {lease:x} of task {task}, whose current one is {current:x?}"));
        }
    }
}

pub(super) fn words(request: &Request) -> &[Outcome] {
    match request {
        Request::Ready(ready) => &ready.outcomes,
        Request::Bye(bye) => &bye.outcomes,
        _ => &[],
    }
}
