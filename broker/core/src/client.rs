//! Those who submit, wait and cancel, and what they hear on the way.

use std::collections::BTreeSet;

use laneway_protocol::limits::{ANSWER_SLACK_MS, WAIT_MS_MAX};
use laneway_protocol::message::{Answer, Final, Held, ProgressEvent, Stored, Submit, Submitted, WaitFor, Waited};
use laneway_protocol::{Code, TaskId, TaskState, WireError};

use crate::abandon::promised_marks;
use crate::action::{Action, Ending, Op};
use crate::broker::Broker;
use crate::dispatch::Removed;
use crate::event::{Asker, ConnId, FoundTask, ReplyTo};
use crate::page::{self, Told};
use crate::place::Place;
use crate::progress::{Events, in_order};
use crate::settle::{Pending, Question};
use crate::time::{Millis, Now};
use crate::timer::Timer;
use crate::unique::{derive_key, replaces};
use crate::waiter::{Asked, Waiter};
use crate::workflow::GroupWait;

impl Broker {
    pub(crate) fn on_submit(&mut self, from: Asker, mut submit: Submit, now: Now) {
        if let Some(error) = self.intake_refusal() {
            return self.refuse(from.reply, error);
        }
        if submit.tasks.is_empty() {
            let error = WireError::new(Code::BadBody, "a submit needs at least one task").field("tasks");
            return self.refuse(from.reply, error);
        }
        let wait_ms = submit.wait_ms.min(WAIT_MS_MAX);
        if wait_ms > 0 && self.waiters.len() >= self.settings.waiters_max {
            return self.refuse(from.reply, self.too_many_waiters());
        }
        if submit.abandon && submit.group.is_some() {
            return self.refuse(from.reply, group_stays());
        }
        if let Err(error) = self.promise_marks(promised_marks(&submit)) {
            return self.refuse(from.reply, error);
        }
        let (reply, conn, until) = (from.reply, from.conn, now.mono.after(wait_ms));
        self.hold_question(reply, until.after(ANSWER_SLACK_MS));
        self.waiters.expect(conn, reply);
        submit.tasks.iter_mut().for_each(derive_key);
        let replaces = replaces(&submit.tasks);
        if replaces.is_empty() {
            return self.submit((reply, conn, until), submit, Vec::new());
        }
        let pending = Pending::Twins { reply, conn, until, submit: Box::new(submit) };
        self.store_for(Op::FindTwins(replaces), pending);
    }

    /// Gives the store what a submit wants stored; of live tasks it may replace those that are secured.
    pub(crate) fn submit(
        &mut self,
        (reply, conn, until): (ReplyTo, ConnId, Millis),
        submit: Submit,
        secured: Vec<Held>,
    ) {
        let promised = promised_marks(&submit);
        let Submit { request, tasks, group, .. } = submit;
        let op = Op::Submit { request, tasks, group: group.map(Box::new), secured: secured.clone() };
        self.store_for(op, Pending::Submit { reply, conn, until, secured, promised });
    }

    pub(crate) fn on_submitted(
        &mut self,
        reply: ReplyTo,
        conn: ConnId,
        until: Millis,
        stored: Vec<Stored>,
        group: Option<u64>,
        now: Now,
    ) {
        if !self.close_question(reply) {
            return;
        }
        if until <= now.mono {
            return self.answer(reply, Answer::Submit(Submitted { tasks: stored, finals: Vec::new(), group }));
        }
        let pending: BTreeSet<TaskId> = stored.iter().map(|task| task.task).collect();
        let ids = pending.iter().copied().collect();
        self.add_waiter(
            reply,
            Waiter { conn, pending, finals: Vec::new(), until, alarm: until, asked: Asked::Submit(stored, group) },
        );
        // They may have ended before this submit, or while word of it was on its way.
        self.store_for(Op::Endings(ids), Pending::Check { reply });
    }

    pub(crate) fn on_wait_for(&mut self, from: Asker, wait: WaitFor, now: Now) {
        if self.waiters.len() >= self.settings.waiters_max {
            return self.refuse(from.reply, self.too_many_waiters());
        }
        let until = now.mono.after(wait.wait_ms.min(WAIT_MS_MAX));
        if let Some(group) = wait.group {
            if wait.abandon {
                return self.refuse(from.reply, group_stays());
            }
            return self.wait_for_group(from, group, &wait, until, now);
        }
        match (&wait.kind, &wait.unique_key) {
            (Some(kind), Some(unique_key)) => {
                let op = Op::FindKey { kind: kind.clone(), unique_key: unique_key.clone() };
                self.hold_question(from.reply, until.after(ANSWER_SLACK_MS));
                self.waiters.expect(from.conn, from.reply);
                let pending = Pending::Key { reply: from.reply, wait: Box::new(wait), conn: from.conn, until };
                self.store_for(op, pending);
            }
            (None, None) if !wait.tasks.is_empty() => self.wait_for(from.reply, from.conn, &wait, until),
            _ => {
                let text = "name tasks by id, or one by kind and unique_key together";
                self.refuse(from.reply, WireError::new(Code::BadBody, text).field("tasks"));
            }
        }
    }

    pub(crate) fn on_key_found(
        &mut self,
        reply: ReplyTo,
        conn: ConnId,
        mut wait: WaitFor,
        until: Millis,
        found: &[FoundTask],
    ) {
        if !self.close_question(reply) {
            return;
        }
        let Some(task) = found.first() else {
            let text = format!(
                "no task of kind '{}' has the unique key '{}'",
                wait.kind.as_ref().map_or("", |kind| kind.as_str()),
                wait.unique_key.as_deref().unwrap_or_default()
            );
            return self.refuse(reply, WireError::new(Code::NotFound, text).field("unique_key"));
        };
        wait.tasks.push(task.id);
        self.wait_for(reply, conn, &wait, until);
    }

    fn wait_for(&mut self, reply: ReplyTo, conn: ConnId, wait: &WaitFor, until: Millis) {
        let (place, gap) = Place::of(wait.cursor, self.epoch);
        let asked = Asked::WaitFor { place, gap, checked: false, not_found: Vec::new(), pruned: Vec::new() };
        let pending: BTreeSet<TaskId> = wait.tasks.iter().copied().collect();
        if wait.abandon {
            if let Err(error) = self.check_marks(pending.len()) {
                return self.refuse(reply, error);
            }
            for &task in &pending {
                self.mark(task);
            }
        }
        let ids = pending.iter().copied().collect();
        let alarm = until.after(ANSWER_SLACK_MS);
        self.add_waiter(reply, Waiter { conn, pending, finals: Vec::new(), until, alarm, asked });
        // First on the list, then the look: an end between the two is not missed.
        self.store_for(Op::Endings(ids), Pending::Check { reply });
    }

    /// The store told which of a waiter's tasks had ended before it came.
    pub(crate) fn on_checked(&mut self, reply: ReplyTo, endings: Vec<(TaskId, Ending)>, now: Now) {
        let mut rows = Vec::new();
        for (task, ending) in endings {
            if self.waiters.get(reply).is_none_or(|waiter| !waiter.pending.contains(&task)) {
                continue;
            }
            match ending {
                Ending::Final(ended) => {
                    self.leave_task(reply, task);
                    let waiter = self.waiters.get_mut(reply).expect("just looked up");
                    if !matches!(waiter.asked, Asked::Group { .. }) {
                        waiter.finals.push(ended);
                    }
                }
                Ending::Live { done, total, note } => {
                    if (done.is_some() || total.is_some() || note.is_some()) && self.wants_row(reply, task) {
                        let n = task.value();
                        rows.push(ProgressEvent { n, task, done, total, note, data: None, log: None });
                    }
                }
                ending @ (Ending::Pruned | Ending::NotFound) => {
                    self.leave_task(reply, task);
                    let waiter = self.waiters.get_mut(reply).expect("just looked up");
                    if let Asked::WaitFor { not_found, pruned, .. } = &mut waiter.asked {
                        if ending == Ending::Pruned { pruned.push(task) } else { not_found.push(task) }
                    }
                }
            }
        }
        let missed = self.has_missed(reply);
        let Some(waiter) = self.waiters.get_mut(reply) else { return };
        match &mut waiter.asked {
            Asked::Group { checked, gap, .. } | Asked::WaitFor { checked, gap, .. } => {
                (*checked, *gap) = (true, *gap || missed);
            }
            Asked::Submit(..) => {}
        }
        let alarm = std::mem::replace(&mut waiter.alarm, waiter.until);
        self.timers.clear(alarm, Timer::Waiter(reply));
        self.timers.set(waiter.until, Timer::Waiter(reply));
        if let Asked::Group { group, .. } = waiter.asked {
            return self.on_group_looked(reply, group, rows, now);
        }
        if waiter.until <= now.mono || !rows.is_empty() || self.has_news(reply) {
            return self.answer_waiter(reply, rows);
        }
        if let Some(Waiter { asked: Asked::WaitFor { place, .. }, .. }) = self.waiters.get_mut(reply) {
            // Nothing is left to be told of what was said until now.
            *place = Place::Events(self.event_n);
        }
    }

    /// Whether the progress in the row of a task is news for a waiter: it is the latest that is known, and was not told.
    fn wants_row(&self, reply: ReplyTo, task: TaskId) -> bool {
        let place = self.waiters.get(reply).and_then(|waiter| waiter.asked.place());
        place.is_some_and(|place| place.wants_row(task)) && !self.events_of(task).is_some_and(Events::tell_standing)
    }

    /// Whether events of a waiter's tasks behind its place are not kept any more. Who has heard nothing yet misses nothing.
    fn has_missed(&self, reply: ReplyTo) -> bool {
        let Some(waiter) = self.waiters.get(reply) else { return false };
        let Some(place) = waiter.asked.place() else { return false };
        if let Asked::Group { group, .. } = waiter.asked {
            return self.has_missed_of_group(group, place);
        }
        let mut tasks = waiter.pending.iter().copied().chain(waiter.finals.iter().map(|ended| ended.task));
        place != Place::Rows(0) && tasks.any(|task| self.gap_after(task, place.events_after()))
    }

    /// A task ended: tells everybody who waits for it.
    pub(crate) fn tell_ended(&mut self, ended: &Final) {
        self.unmark(ended.task);
        if !self.waiters.is_watched(ended.task) {
            return;
        }
        self.out.push(Action::Unwatch(ended.task));
        let replies = self.waiters.ended(ended);
        let over = self.waiters.leave_crowds(ended.task);
        for reply in replies {
            self.answer_waiter_if_news(reply);
        }
        for group in over {
            self.on_crowd_over(group);
        }
    }

    /// A task's row is gone.
    pub(crate) fn tell_vanished(&mut self, task: TaskId) {
        self.unmark(task);
        for reply in self.waiters.of_task(task) {
            self.leave_task(reply, task);
            if let Some(Waiter { asked: Asked::WaitFor { pruned, .. }, .. }) = self.waiters.get_mut(reply) {
                pruned.push(task);
            }
            self.answer_waiter_if_news(reply);
        }
        let is_watched = self.waiters.is_watched(task);
        let over = self.waiters.leave_crowds(task);
        if is_watched && !self.waiters.is_watched(task) {
            self.out.push(Action::Unwatch(task));
        }
        for group in over {
            self.on_crowd_over(group);
        }
    }

    /// The store has ended tasks that were not running.
    pub(crate) fn on_ended_by_store(&mut self, ended: &[Final], now: Now) {
        for ended in ended {
            self.stats.cancelled += u64::from(ended.state == TaskState::Cancelled);
            self.take_out(ended.task);
            self.call_off(ended.task, now);
            self.tell_ended(ended);
        }
    }

    /// Tasks ended or vanished by another hand than the core's.
    pub(crate) fn on_overtaken(&mut self, ended: Vec<(TaskId, Option<Final>)>) {
        for (id, ended) in ended {
            self.withdraw(id);
            match ended {
                Some(ended) => self.tell_ended(&ended),
                None => self.tell_vanished(id),
            }
        }
    }

    /// A task will not start any more, and what runs of it runs for nothing.
    pub(crate) fn withdraw(&mut self, id: TaskId) {
        self.take_out(id);
        self.lose_lease(id);
    }

    /// A task is not handed out from where it was read ahead.
    pub(crate) fn take_out(&mut self, id: TaskId) {
        if let Some(Removed { queue, fair_key, ran_dry }) = self.dispatch.remove(id) {
            self.demand(queue);
            if ran_dry {
                self.look_again(queue, fair_key.as_ref());
            }
        }
    }

    /// A waiter has waited long enough: answers with what there is, if the store has told what there is.
    pub(crate) fn on_waiter_over(&mut self, reply: ReplyTo) {
        let unchecked = |waiter: &Waiter| {
            matches!(waiter.asked, Asked::WaitFor { checked: false, .. } | Asked::Group { checked: false, .. })
        };
        if self.waiters.get(reply).is_some_and(unchecked) {
            self.drop_waiter(reply);
            self.refuse(reply, self.late());
        } else {
            self.answer_waiter(reply, Vec::new());
        }
    }

    pub(crate) fn answer_waiter_if_news(&mut self, reply: ReplyTo) {
        if self.has_news(reply) {
            self.answer_waiter(reply, Vec::new());
        }
    }

    /// Whether there is something that a waiter asked for.
    fn has_news(&self, reply: ReplyTo) -> bool {
        let Some(waiter) = self.waiters.get(reply) else { return false };
        match &waiter.asked {
            Asked::Submit(..) => waiter.pending.is_empty(),
            // Its crowd is told of what there is.
            Asked::Group { .. } | Asked::WaitFor { checked: false, .. } => false,
            Asked::WaitFor { place, gap, not_found, pruned, .. } => {
                let after = place.events_after();
                let has_events = |&id| self.events_of(id).is_some_and(|events| events.after(after).next().is_some());
                *gap || !(waiter.finals.is_empty() && not_found.is_empty() && pruned.is_empty())
                    || waiter.pending.iter().any(has_events)
            }
        }
    }

    /// Answers with all that there is, `rows` first: the progress that the table shows and that is news.
    pub(crate) fn answer_waiter(&mut self, reply: ReplyTo, mut rows: Vec<ProgressEvent>) {
        let Some(waiter) = self.drop_waiter(reply) else { return };
        let Waiter { conn, until, finals, mut pending, asked, .. } = waiter;
        let answer = match asked {
            Asked::Group { group, place, gap, .. } => {
                return self.ask_group_again(group, vec![(reply, GroupWait { conn, until, place, gap })]);
            }
            Asked::Submit(tasks, group) => {
                let Told { finals, .. } = page::told(finals, std::iter::empty(), &mut pending);
                Answer::Submit(Submitted { tasks, finals, group })
            }
            Asked::WaitFor { place, gap, not_found, pruned, .. } => {
                let tasks = pending.iter().copied().chain(finals.iter().map(|ended| ended.task));
                rows.sort_by_key(|event| event.n);
                let said: Vec<&Events> = tasks.filter_map(|id| self.events_of(id)).collect();
                let events = rows.iter().chain(in_order(said.into_iter(), place.events_after()));
                let Told { finals, events, cut_short } = page::told(finals, events, &mut pending);
                let cursor = place.behind(&events, rows.len(), cut_short, self.event_n).cursor(self.epoch);
                let pending = pending.into_iter().collect();
                Answer::WaitFor(Waited { cursor, gap, events, finals, pending, not_found, pruned, group: None })
            }
        };
        self.answer(reply, answer);
    }

    /// What is kept of a task's progress, whether it runs or has run.
    fn events_of(&self, id: TaskId) -> Option<&Events> {
        self.running.get(&id).map(|task| &task.events).or_else(|| self.last_words.get(id))
    }

    /// Whether events of a task behind number `n` are not kept any more.
    fn gap_after(&self, id: TaskId, n: u64) -> bool {
        self.running.get(&id).map_or_else(|| self.last_words.gap_after(id, n), |task| task.events.gap_after(n))
    }

    pub(crate) fn add_waiter(&mut self, reply: ReplyTo, waiter: Waiter) {
        self.timers.set(waiter.alarm, Timer::Waiter(reply));
        for task in self.waiters.add(reply, waiter) {
            self.keep_marked(task);
            self.out.push(Action::Watch(task));
        }
    }

    pub(crate) fn drop_waiter(&mut self, reply: ReplyTo) -> Option<Waiter> {
        let (waiter, unwatched) = self.waiters.remove(reply)?;
        self.timers.clear(waiter.alarm, Timer::Waiter(reply));
        self.unwatch(unwatched);
        Some(waiter)
    }

    /// Nobody waits for these any more.
    pub(crate) fn unwatch(&mut self, tasks: Vec<TaskId>) {
        for task in tasks {
            self.leave_marked(task);
            self.out.push(Action::Unwatch(task));
        }
    }

    /// A task has ended, or is gone, for one who waits.
    fn leave_task(&mut self, reply: ReplyTo, task: TaskId) {
        self.unmark(task);
        self.waiters.drop_task(reply, task);
        if !self.waiters.is_watched(task) {
            self.out.push(Action::Unwatch(task));
        }
    }

    pub(crate) fn hold_question(&mut self, reply: ReplyTo, late_at: Millis) {
        self.timers.set(late_at, Timer::Question(reply));
        self.questions.insert(reply, Question::Simple { late_at });
    }

    pub(crate) fn too_many_waiters(&self) -> WireError {
        let text =
            format!("{} questions wait for tasks, at most that many are allowed (waiters_max)", self.waiters.len());
        WireError::new(Code::Full, text).after_ms(1_000)
    }
}

/// Why nobody gives a whole group up by leaving: who waits for a group waits for a part of its tasks at a time.
fn group_stays() -> WireError {
    let text =
        "a group is not given up by those who wait for it: cancel it by GROUP, or wait for its tasks by their ids";
    WireError::new(Code::BadBody, text).field("abandon")
}
