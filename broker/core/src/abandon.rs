//! Tasks that are cancelled when nobody waits for them any more, because one who waited for them said so (`abandon`).
//!
//! A mark lives in memory alone: those who wait say it each time, so that the ones that come back after a restart bring it with
//! them. How the last waiter left makes no difference, a broken connection, an answer, a wait that was long enough: from then on
//! there is a grace in which anybody's wait keeps the task.

use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::{Stored, Submit, Verdict};
use laneway_protocol::{Code, TaskId, WireError};

use crate::action::{Action, Edit, Op};
use crate::broker::Broker;
use crate::id_map::IdMap;
use crate::limits::MARKED_MAX;
use crate::settle::Pending;
use crate::time::{Millis, Now};
use crate::timer::Timer;

/// The marked tasks.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// When each is given up unless somebody comes; `None` while somebody waits for it.
    tasks: IdMap<TaskId, Option<Millis>>,
    /// Those that nobody waits for since the event that is being taken in.
    left: Vec<TaskId>,
    /// Places kept for the tasks of submits that are on their way to the disk.
    promised: usize,
}

impl Marks {
    pub(crate) fn promised(&self) -> usize {
        self.promised
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, Option<Millis>)> + '_ {
        self.tasks.iter().map(|(&task, &at)| (task, at))
    }

    fn is_full(&self, more: usize) -> bool {
        self.tasks.len() + self.promised + more > MARKED_MAX
    }
}

/// So many places are kept while a submit is on its way.
pub(crate) fn promised_marks(submit: &Submit) -> usize {
    if submit.abandon { submit.tasks.len() } else { 0 }
}

impl Broker {
    /// Keeps places for the tasks of a submit, or says why there are none.
    pub(crate) fn promise_marks(&mut self, n_tasks: usize) -> Result<(), WireError> {
        self.check_marks(n_tasks)?;
        self.marks.promised += n_tasks;
        Ok(())
    }

    pub(crate) fn release_marks(&mut self, n_tasks: usize) {
        self.marks.promised -= n_tasks;
    }

    /// Whether so many more tasks can be marked.
    pub(crate) fn check_marks(&self, more: usize) -> Result<(), WireError> {
        if self.marks.is_full(more) {
            let text = format!("{MARKED_MAX} tasks are cancelled when nobody waits for them, as many as may");
            return Err(WireError::new(Code::Full, text).after_ms(1_000).field("abandon"));
        }
        Ok(())
    }

    /// A submit is on disk. What was there before belongs to others, who did not ask for this.
    pub(crate) fn mark_new(&mut self, stored: &[Stored]) {
        for stored in stored.iter().filter(|stored| stored.new) {
            self.mark(stored.task);
        }
    }

    pub(crate) fn mark(&mut self, task: TaskId) {
        let at = self.marks.tasks.entry(task).or_default();
        if at.is_none() && !self.waiters.is_watched(task) {
            self.marks.left.push(task);
        }
    }

    /// Somebody waits for a task for which nobody did.
    pub(crate) fn keep_marked(&mut self, task: TaskId) {
        if let Some(at) = self.marks.tasks.get_mut(&task).and_then(Option::take) {
            self.timers.clear(at, Timer::Abandon(task));
        }
    }

    /// The last of those who waited for a task has left.
    pub(crate) fn leave_marked(&mut self, task: TaskId) {
        if self.marks.tasks.contains_key(&task) {
            self.marks.left.push(task);
        }
    }

    /// A task has ended, or is gone.
    pub(crate) fn unmark(&mut self, task: TaskId) {
        if let Some(Some(at)) = self.marks.tasks.remove(&task) {
            self.timers.clear(at, Timer::Abandon(task));
        }
    }

    /// At the end of each event: the grace begins for tasks that were left in it and stayed so.
    pub(crate) fn begin_abandon(&mut self, now: Now) {
        for task in std::mem::take(&mut self.marks.left) {
            if !self.waiters.is_watched(task) {
                self.give_up_at(task, now.mono.after(self.settings.abandon_grace_ms));
            }
        }
    }

    fn give_up_at(&mut self, task: TaskId, when: Millis) {
        if let Some(at @ None) = self.marks.tasks.get_mut(&task) {
            *at = Some(when);
            self.timers.set(when, Timer::Abandon(task));
        }
    }

    /// The grace of these is over and nobody has come: they are cancelled as if somebody had asked.
    ///
    /// Not while those who wait may still be on their way back from the broker's own absence, nor when it is about to stop: they
    /// will find the next one.
    pub(crate) fn on_abandoned(&mut self, tasks: Vec<TaskId>, now: Now) {
        let back_by = self.grace.until.max(self.started.after(self.settings.resume_grace_ms));
        let mut given_up = Vec::with_capacity(tasks.len());
        for task in tasks {
            let Some(at) = self.marks.tasks.get_mut(&task) else { continue };
            *at = None;
            if now.mono < back_by || self.store_error.is_some() {
                self.give_up_at(task, back_by.max(now.mono.after(self.settings.abandon_grace_ms)));
                continue;
            }
            self.marks.tasks.remove(&task);
            if !self.stopping {
                given_up.push(task);
            }
        }
        for tasks in given_up.chunks(BATCH_MAX) {
            let op = Op::Edit { edit: Edit::Abandon, tasks: tasks.to_vec() };
            self.store_for(op, Pending::Abandon { tasks: tasks.to_vec() });
        }
    }

    pub(crate) fn on_abandoned_cancelled(&mut self, tasks: Vec<TaskId>, verdicts: &[Verdict], now: Now) {
        self.on_edited(tasks.iter().copied().zip(verdicts.iter().copied()), now);
        let changed = |verdict: &Verdict| matches!(verdict, Verdict::Cancelled | Verdict::Requested);
        let tasks = tasks.into_iter().zip(verdicts).filter(|(_, verdict)| changed(verdict));
        let tasks: Vec<TaskId> = tasks.map(|(task, _)| task).collect();
        if !tasks.is_empty() {
            self.out.push(Action::TellAbandoned(tasks));
        }
    }
}
