//! READY: outcomes in, tasks out. The only place where a task leaves its queue.

use laneway_protocol::limits::{ANSWER_SLACK_MS, BATCH_MAX, KINDS_PER_WORKER_MAX, TEXT_BYTES_MAX, WAIT_MS_MAX};
use laneway_protocol::message::{
    Answer, End, HandOut, HandedTask, Held, Outcome, OutcomeCode, Ready, Wait, WaitReason,
};
use laneway_protocol::{Code, Kind, LaneName, TaskId, WireError};

use crate::action::{Action, Op, Started};
use crate::broker::Broker;
use crate::dispatch::{Ability, ClassId, QueueIndex};
use crate::event::{Asker, Loaded, QueuedTask, ReplyTo};
use crate::limits::{
    HANDOUT_BODY_BYTES_MAX, HANDOUT_PAYLOAD_BYTES_MAX, HANDOUT_TASK_BYTES, OPS_MAX, SLOTS_PER_SESSION_MAX,
};
use crate::settle::{EndHook, FindFor, Pending, PendingEnd, Question, ReadyQuestion};
use crate::task::{Events, RunEnd, Running, timeout_ms};
use crate::time::Now;
use crate::timer::Timer;
use crate::worker::{Parked, SessionId, Settle, Slot, SlotId};

/// What serving a ready slot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Took,
    /// Nothing that any slot of its class may take now.
    Nothing,
    /// Only suspects, and its process runs one already.
    SuspectsOnly,
}

/// What became of an outcome at first sight.
enum Taken {
    /// Ends a run; the store will report.
    Recording,
    Known(OutcomeCode),
    /// Nothing here is known of the task: the row decides.
    Unknown(Outcome),
}

impl Broker {
    pub(crate) fn on_ready(&mut self, from: Asker, mut ready: Ready, now: Now) {
        let slot = match self.slot_of_ready(from, &mut ready, now) {
            Ok(slot) => slot,
            Err(error) => return self.refuse(from.reply, error),
        };
        self.replace_question(slot);
        let wait_ms = ready.wait_ms.min(WAIT_MS_MAX);
        let mut question = ReadyQuestion {
            slot,
            conn: from.conn,
            max: (ready.max as usize).min(BATCH_MAX),
            until: now.mono.after(wait_ms),
            late_at: now.mono.after(wait_ms + ANSWER_SLACK_MS),
            committed: ready.committed,
            codes: vec![OutcomeCode::Ok; ready.outcomes.len()],
            left: 0,
        };
        let finished: Vec<TaskId> = if ready.ack.is_some() { ready.outcomes.iter().map(|o| o.task).collect() } else { Vec::new() };
        self.take_outcomes(from.reply, &mut question, ready.outcomes, ready.batch, now);
        if let Some(ack) = ready.ack {
            self.take_back_after(slot, ack, &finished, now);
        }
        if question.left > 0 {
            self.timers.set(question.late_at, Timer::Question(from.reply));
            self.slot(slot).question = Some(from.reply);
            self.questions.insert(from.reply, Question::Ready(question));
        } else {
            self.serve_question(from.reply, question, now);
        }
    }

    /// The outcomes of a READY are dealt with: gives tasks, or parks the question.
    pub(crate) fn serve_question(&mut self, reply: ReplyTo, question: ReadyQuestion, now: Now) {
        let ReadyQuestion { slot, conn, max, until, committed, codes, .. } = question;
        if self.workers.slot_mut(slot).is_none() {
            return self.refuse(reply, hello_first("the session has ended"));
        }
        if let Some(reason) = self.away_reason() {
            return self.answer_wait(reply, slot, reason, codes);
        }
        let parked = Parked { reply, conn, max, until, idle: 0, committed, outcomes: codes };
        if max == 0 {
            return self.answer_wait(reply, slot, WaitReason::Idle, parked.outcomes);
        }
        let class = self.slot(slot).class;
        let (tasks, _) = self.choose(slot, class, max, now);
        if !tasks.is_empty() {
            return self.hand_out(slot, parked, tasks, now);
        }
        if until <= now.mono {
            return self.answer_wait(reply, slot, WaitReason::Idle, parked.outcomes);
        }
        let idle = self.dispatch.park(class, slot);
        self.timers.set(until, Timer::Parked(slot));
        self.slot(slot).parked = Some(Parked { idle, ..parked });
    }

    pub(crate) fn on_loaded(&mut self, loaded: Loaded, now: Now) {
        let (running, settling) = (&self.running, &self.settling);
        let gone = |id: TaskId| running.contains_key(&id) || settling.contains_key(&id);
        let (queue, unserved) = self.dispatch.loaded(loaded, gone);
        if !unserved.is_empty() {
            self.out.push(Action::Unload(unserved));
        }
        if let Some(queue) = queue {
            self.feed_around(queue, now);
        }
    }

    /// Gives what stands in a queue, and what its barrier held back, to the slots that wait.
    fn feed_around(&mut self, queue: QueueIndex, now: Now) {
        self.feed(queue, now);
        self.demand(queue);
        if self.dispatch.ready() == 0 {
            return;
        }
        // A barrier that went away may have held back lower lanes of the same classes.
        for class in self.dispatch.ready_classes(queue) {
            self.feed_class(class, now);
        }
    }

    /// After whatever stopped hand-outs is over.
    pub(crate) fn feed_all(&mut self, now: Now) {
        for queue in self.dispatch.all_queues() {
            self.feed(queue, now);
            self.demand(queue);
        }
    }

    /// Serves ready slots while `queue` has a task, the longest idle first.
    fn feed(&mut self, queue: QueueIndex, now: Now) {
        'again: while self.may_hand_out() && self.dispatch.has_task(queue) {
            for class in self.dispatch.ready_classes(queue) {
                if self.feed_class_once(class, now) == Served::Took {
                    continue 'again;
                }
            }
            return;
        }
    }

    fn feed_class(&mut self, class: ClassId, now: Now) {
        while self.may_hand_out() && self.feed_class_once(class, now) == Served::Took {}
    }

    fn feed_class_once(&mut self, class: ClassId, now: Now) -> Served {
        let mut tried = 0;
        // Only suspects make one slot of a class differ from another, and they are few.
        loop {
            let Some(slot) = self.dispatch.ready_slots(class).nth(tried) else { return Served::Nothing };
            match self.serve_parked(slot, class, now) {
                Served::SuspectsOnly => tried += 1,
                served => return served,
            }
        }
    }

    fn serve_parked(&mut self, slot: SlotId, class: ClassId, now: Now) -> Served {
        let max = self.slot(slot).parked.as_ref().expect("a ready slot is parked").max;
        let (tasks, suspects_only) = self.choose(slot, class, max, now);
        if tasks.is_empty() {
            return if suspects_only { Served::SuspectsOnly } else { Served::Nothing };
        }
        let parked = self.unpark(slot).expect("a ready slot is parked");
        self.hand_out(slot, parked, tasks, now);
        Served::Took
    }

    /// Takes up to `max` tasks for a slot out of their queues, in the order of dispatch. Also tells whether there were
    /// suspects that only this process may not take.
    fn choose(&mut self, slot: SlotId, class: ClassId, max: usize, now: Now) -> (Vec<Chosen>, bool) {
        let (mut picked, mut suspects_only) = (Vec::new(), false);
        if !self.may_hand_out() {
            return (picked, false);
        }
        let (mut body, mut payloads) = (0, 0);
        let mut touched: Option<QueueIndex> = None;
        let free_of_suspects = self.workers.get(slot.session).suspect.is_none();
        while picked.len() < max && body < HANDOUT_BODY_BYTES_MAX && payloads < HANDOUT_PAYLOAD_BYTES_MAX {
            let may_take_suspect = free_of_suspects && picked.is_empty();
            let mut passed_suspect = false;
            let head = self.dispatch.choices(class).find(|head| {
                let takes = !head.suspect || may_take_suspect;
                passed_suspect |= !takes;
                takes
            });
            let Some(head) = head else {
                suspects_only = passed_suspect;
                break;
            };
            let (queue, task) = self.dispatch.take(head);
            if touched != Some(queue) {
                touched.into_iter().for_each(|before| self.demand(before));
                touched = Some(queue);
            }
            if task.runs == 0 && task.expires_at.is_some_and(|at| at <= now.wall) {
                // The store's sweep cancels the row and tells.
                continue;
            }
            let key = self.dispatch.key(queue);
            body += HANDOUT_TASK_BYTES + key.kind.as_str().len() + key.lane.as_str().len() + task.trace.as_ref().map_or(0, String::len);
            payloads += task.payload.as_ref().map_or(0, |p| p.bytes.len()) + task.checkpoint.as_ref().map_or(0, |p| p.bytes.len());
            picked.push(Chosen { task, kind: key.kind, lane: key.lane });
            if head.suspect {
                break;
            }
        }
        touched.into_iter().for_each(|queue| self.demand(queue));
        (picked, suspects_only)
    }

    /// Gives tasks to a slot: leases, records, and the answer to its READY.
    fn hand_out(&mut self, slot: SlotId, parked: Parked, tasks: Vec<Chosen>, now: Now) {
        let seq = {
            let slot = self.slot(slot);
            slot.seq += 1;
            slot.seq
        };
        let mut handed = Vec::with_capacity(tasks.len());
        for task in tasks {
            handed.push(self.grant(slot, seq, task, now));
        }
        self.stats.handed_out += handed.len() as u64;
        let settled = self.slot(slot).settle.settled();
        let answer = HandOut { epoch: self.epoch, seq, tasks: handed, outcomes: parked.outcomes, settled };
        if parked.committed {
            // Looked up behind the records, in the same commit: who still runs under its lease is on disk.
            let ids = answer.tasks.iter().map(|task| task.task).collect();
            let late_at = now.mono.after(ANSWER_SLACK_MS);
            self.timers.set(late_at, Timer::Question(parked.reply));
            self.questions.insert(parked.reply, Question::Simple { late_at });
            let find = FindFor::Committed { answer: Box::new(answer), slot };
            self.store_for(Op::Find(ids), Pending::Find { reply: parked.reply, find });
            return;
        }
        self.remember_hand_out(parked.reply, slot, seq);
        self.answer(parked.reply, Answer::Tasks(answer));
    }

    /// Starts one lease.
    fn grant(&mut self, slot: SlotId, seq: u64, queued: Chosen, now: Now) -> HandedTask {
        let Chosen { task, kind, lane } = queued;
        let run = task.runs + 1;
        let lease = self.key.lease(task.id, run);
        let timeout = timeout_ms(task.timeout_ms, &kind, &self.settings);
        let max_attempts = task.max_attempts.unwrap_or(self.settings.kind(&kind).max_attempts);
        let deadline = now.mono.after(timeout);
        let session = self.workers.get_mut(slot.session);
        session.running.insert(task.id);
        if task.losses > 0 {
            session.suspect = Some(task.id);
        }
        session.slots.get_mut(&slot.slot).expect("the slot asks").running.insert(task.id, seq);
        let worker = session.name.clone();
        self.timers.set(deadline, Timer::Lease(task.id));
        let running = Running {
            id: task.id,
            kind: kind.clone(),
            lane: lane.clone(),
            lease,
            run,
            attempts: task.attempts,
            losses: task.losses,
            max_attempts,
            worker: worker.clone(),
            session: Some(slot.session),
            slot: Some(slot.slot),
            since: now.mono,
            deadline,
            stop: None,
            events: Events::default(),
            noted: None,
        };
        let before = self.running.insert(task.id, running);
        assert!(before.is_none(), "task {} is handed out while it runs", task.id);
        self.store(Op::Started(Started {
            task: task.id,
            lease,
            run,
            worker,
            at: now.wall,
            kind: kind.clone(),
            lane: lane.clone(),
            attempt: task.attempts + 1,
            wait_ms: now.wall.since(task.due),
        }));
        HandedTask {
            task: task.id,
            lease,
            kind,
            lane,
            run,
            attempt: task.attempts + 1,
            max_attempts,
            timeout_ms: timeout,
            payload: task.payload,
            trace: task.trace,
            checkpoint: task.checkpoint,
        }
    }

    // --------------------------------------------------------------------------------------------------- outcomes

    /// Deals with each outcome as far as that can be done at once; `question.left` counts those that hang on the store.
    pub(crate) fn take_outcomes(
        &mut self,
        reply: ReplyTo,
        question: &mut ReadyQuestion,
        outcomes: Vec<Outcome>,
        batch: Option<u64>,
        now: Now,
    ) {
        let slot = question.slot;
        let settle = batch.map(|batch| (slot, batch));
        let (mut recording, mut unknown) = (0, Vec::new());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            // With a batch number the answer does not wait for the commit of what is known to be good.
            let hook = EndHook { question: batch.is_none().then_some((reply, index)), settle };
            match self.take_outcome(outcome, hook, now) {
                Taken::Recording => {
                    recording += 1;
                    question.left += usize::from(batch.is_none());
                }
                Taken::Known(code) => question.codes[index] = code,
                Taken::Unknown(outcome) => unknown.push((index, outcome)),
            }
        }
        if let Some(batch) = batch {
            let to_disk = recording + unknown.len();
            self.slot(slot).settle.open(batch, to_disk);
        }
        if !unknown.is_empty() {
            question.left += unknown.len();
            let ids = unknown.iter().map(|(_, outcome)| outcome.task).collect();
            let find = FindFor::Outcomes { unknown, settle, session: slot.session };
            self.store_for(Op::Find(ids), Pending::Find { reply, find });
        }
    }

    fn take_outcome(&mut self, outcome: Outcome, hook: EndHook, now: Now) -> Taken {
        if let Some(running) = self.running.get(&outcome.task) {
            if running.lease != outcome.lease {
                self.stats.stale += 1;
                return Taken::Known(OutcomeCode::Stale);
            }
            self.record_outcome(outcome, hook, now);
            return Taken::Recording;
        }
        if let Some(&(lease, op)) = self.settling.get(&outcome.task) {
            if lease != outcome.lease {
                self.stats.stale += 1;
                return Taken::Known(OutcomeCode::Stale);
            }
            if let Some(Pending::End(end)) = self.pending.get_mut(&op) {
                end.hooks.push(hook);
            }
            return Taken::Recording;
        }
        Taken::Unknown(outcome)
    }

    /// Ends the run that an outcome is about; its lease was found good.
    pub(crate) fn record_outcome(&mut self, outcome: Outcome, hook: EndHook, now: Now) {
        let Outcome { task, end, result, error, after_ms, dead, spawn, .. } = outcome;
        let end = match end {
            End::Done => match result {
                Some(result) if result.bytes.len() > self.settings.payload_bytes_max => RunEnd::Failed {
                    error: format!(
                        "result of {} bytes is over the limit of {} (payload_bytes_max)",
                        result.bytes.len(),
                        self.settings.payload_bytes_max
                    ),
                    after_ms: None,
                    dead: true,
                },
                result => RunEnd::Done(result),
            },
            End::Fail => RunEnd::Failed { error: cut(error.unwrap_or_default()), after_ms, dead },
            End::Snooze => RunEnd::Snoozed { after_ms: after_ms.unwrap_or(0) },
            End::Release => RunEnd::Released,
            End::Cancelled => RunEnd::Cancelled,
            End::Already => RunEnd::Already,
        };
        self.end_run_with(task, end, spawn, Some(hook), now);
    }

    pub(crate) fn end_run(&mut self, id: TaskId, end: RunEnd, now: Now) {
        self.end_run_with(id, end, Vec::new(), None, now);
    }

    /// Takes a task off its worker and sends its record to the store.
    pub(crate) fn end_run_with(
        &mut self,
        id: TaskId,
        end: RunEnd,
        spawn: Vec<laneway_protocol::message::NewTask>,
        hook: Option<EndHook>,
        now: Now,
    ) {
        let running = self.drop_running(id);
        match &end {
            RunEnd::Done(_) | RunEnd::Already => self.stats.done += 1,
            RunEnd::Failed { .. } | RunEnd::TimedOut => self.stats.failed += 1,
            RunEnd::Lost { charged: true } => self.stats.lost += 1,
            RunEnd::Cancelled => self.stats.cancelled += 1,
            RunEnd::Snoozed { .. } | RunEnd::Released | RunEnd::Unreceived | RunEnd::Lost { charged: false } => {
                self.stats.released += 1;
            }
        }
        let mut ended = running.end(end, &self.settings, &mut self.random, now);
        ended.spawn = spawn;
        let watched = self.waiters.is_watched(id);
        let result = match &ended.next {
            crate::action::Next::Done(result) if watched => result.clone(),
            _ => None,
        };
        let end = PendingEnd { task: id, hooks: hook.into_iter().collect(), result, error: ended.error.clone() };
        let op = self.store_for(Op::Ended(ended), Pending::End(end));
        self.settling.insert(id, (running.lease, op));
    }

    /// Forgets that a task runs; nothing is recorded.
    pub(crate) fn drop_running(&mut self, id: TaskId) -> Running {
        let running = self.running.remove(&id).expect("only a running task ends");
        self.timers.clear(running.deadline, Timer::Lease(id));
        if let Some(session) = running.session {
            let session = self.workers.get_mut(session);
            session.running.remove(&id);
            session.told.remove(&id);
            if session.suspect == Some(id) {
                session.suspect = None;
            }
            if let Some(slot) = running.slot.and_then(|slot| session.slots.get_mut(&slot)) {
                slot.running.remove(&id);
            }
        }
        running
    }

    /// Tasks sent after `ack` were not received: they go back at once, nothing counted.
    fn take_back_after(&mut self, slot: SlotId, ack: u64, finished: &[TaskId], now: Now) {
        let lost: Vec<TaskId> = self
            .slot(slot)
            .running
            .iter()
            .filter(|&(id, &seq)| seq > ack && !finished.contains(id))
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            self.end_run(id, RunEnd::Unreceived, now);
        }
    }

    /// The socket could not take a hand-out.
    pub(crate) fn on_undelivered(&mut self, reply: ReplyTo, now: Now) {
        let Some(place) = self.handed.iter().rposition(|&(to, ..)| to == reply) else { return };
        let (_, slot, seq) = self.handed.remove(place).expect("just found");
        let Some(slot) = self.workers.slot_mut(slot) else { return };
        let tasks: Vec<TaskId> = slot.running.iter().filter(|&(_, &sent)| sent == seq).map(|(&id, _)| id).collect();
        for id in tasks {
            self.end_run(id, RunEnd::Unreceived, now);
        }
    }

    // ------------------------------------------------------------------------------------------------------ slots

    /// Finds or makes the slot that asks, in the class of what it can run now.
    fn slot_of_ready(&mut self, from: Asker, ready: &mut Ready, now: Now) -> Result<SlotId, WireError> {
        let session = self.session_of_ready(from, ready, now)?;
        let id = SlotId { session, slot: ready.slot };
        let max = (ready.max as usize).clamp(1, BATCH_MAX);
        if let Some(slot) = self.workers.slot_mut(id) {
            // The usual case: nothing changed but perhaps a pause in taking tasks.
            if slot.said.0 == ready.kinds && slot.said.1 == ready.lanes && (slot.max == max || ready.max == 0) {
                return Ok(id);
            }
        } else if self.workers.get(session).slots.len() >= SLOTS_PER_SESSION_MAX {
            let text = format!("slot {} is over the limit of {SLOTS_PER_SESSION_MAX} slots", ready.slot);
            return Err(WireError::new(Code::Full, text).field("slot"));
        }
        let about = self.workers.get(session);
        let kinds = ready.kinds.as_ref().unwrap_or(&about.kinds).clone();
        let lanes = ready.lanes.as_ref().or(about.lanes.as_ref()).cloned();
        let ability = self.ability(&kinds, lanes.as_deref())?;
        let class = self.dispatch.join(&ability, max);
        let said = (ready.kinds.take(), ready.lanes.take());
        let session = self.workers.get_mut(session);
        let left = match session.slots.get_mut(&ready.slot) {
            Some(slot) => {
                let left = (std::mem::replace(&mut slot.class, class), std::mem::replace(&mut slot.max, max));
                slot.said = said;
                Some((left, slot.parked.as_ref().map(|parked| parked.idle)))
            }
            None => {
                let slot = Slot {
                    class,
                    max,
                    said,
                    seq: 0,
                    running: std::collections::BTreeMap::new(),
                    parked: None,
                    question: None,
                    settle: Settle::default(),
                };
                session.slots.insert(ready.slot, slot);
                None
            }
        };
        if let Some(((old, old_max), idle)) = left {
            if let Some(idle) = idle {
                // The parked question is replaced in a moment; it must leave the line of its old class.
                self.dispatch.unpark(old, idle);
            }
            self.leave_class(old, old_max);
        }
        for queue in self.dispatch.queues_of_class(class) {
            self.demand(queue);
        }
        Ok(id)
    }

    fn session_of_ready(&mut self, from: Asker, ready: &Ready, now: Now) -> Result<SessionId, WireError> {
        if ready.epoch.is_some_and(|epoch| epoch != self.epoch) {
            return Err(hello_first("the broker was restarted"));
        }
        let known = self.workers.by_name(&ready.session);
        let session = match known {
            Some(id) if !self.workers.get(id).plain && !self.workers.get(id).welcomed => {
                return Err(hello_first("the HELLO has more pages to come"));
            }
            Some(id) => id,
            None if ready.epoch.is_some() => return Err(hello_first("the session is not known")),
            None if ready.kinds.as_ref().is_none_or(Vec::is_empty) => {
                let text = "name the kinds that the worker can run, here or in a HELLO";
                return Err(WireError::new(Code::BadBody, text).field("kinds"));
            }
            None => self.add_plain_session(&ready.session, now)?,
        };
        self.heard(session, from.conn);
        Ok(session)
    }

    fn ability(&mut self, kinds: &[Kind], lanes: Option<&[LaneName]>) -> Result<Ability, WireError> {
        if kinds.is_empty() {
            return Err(WireError::new(Code::BadBody, "a worker must name at least one kind").field("kinds"));
        }
        if kinds.len() > KINDS_PER_WORKER_MAX {
            let text = format!("{} kinds, at most {KINDS_PER_WORKER_MAX} are allowed", kinds.len());
            return Err(WireError::new(Code::TooMany, text).field("kinds"));
        }
        let mut ranks = match lanes {
            None => self.dispatch.all_lanes(),
            Some(lanes) => lanes.iter().map(|lane| self.known_lane(lane, "lanes")).collect::<Result<_, _>>()?,
        };
        let mut indexes = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let index = self.dispatch.learn_kind(kind).ok_or_else(|| {
                let text = format!("kind '{kind}' would be number {}, at most that many less one are kept (kinds_max)", self.settings.kinds_max + 1);
                WireError::new(Code::Full, text).field("kinds")
            })?;
            indexes.push(index);
        }
        ranks.sort_unstable();
        ranks.dedup();
        indexes.sort_unstable();
        indexes.dedup();
        Ok(Ability { lanes: ranks, kinds: indexes })
    }

    pub(crate) fn known_lane(&self, lane: &LaneName, field: &str) -> Result<crate::dispatch::LaneRank, WireError> {
        self.dispatch.lane(lane).ok_or_else(|| {
            let known: Vec<&str> = self.dispatch.lanes().iter().map(LaneName::as_str).collect();
            let text = format!("lane '{lane}' is not one of {}", known.join(", "));
            WireError::new(Code::UnknownLane, text).field(field)
        })
    }

    /// A slot leaves a class: what nobody can run any more goes back to the table.
    pub(crate) fn leave_class(&mut self, class: ClassId, max: usize) {
        for (queue, rows) in self.dispatch.leave(class, max) {
            let key = self.dispatch.key(queue);
            self.out.push(Action::Demand { key, rows: 0 });
            if !rows.is_empty() {
                self.out.push(Action::Unload(rows));
            }
        }
    }

    /// A new question of the same slot takes the place of the old one, which gets no answer.
    fn replace_question(&mut self, id: SlotId) {
        if let Some(parked) = self.unpark(id) {
            self.out.push(Action::Forget(parked.reply));
        }
        if let Some(reply) = self.slot(id).question.take() {
            if let Some(Question::Ready(question)) = self.questions.remove(&reply) {
                self.timers.clear(question.late_at, Timer::Question(reply));
                self.out.push(Action::Forget(reply));
            }
        }
    }

    /// Takes a slot's parked READY out of every list.
    pub(crate) fn unpark(&mut self, id: SlotId) -> Option<Parked> {
        let slot = self.workers.slot_mut(id)?;
        let parked = slot.parked.take()?;
        let class = slot.class;
        self.dispatch.unpark(class, parked.idle);
        self.timers.clear(parked.until, Timer::Parked(id));
        Some(parked)
    }

    pub(crate) fn on_parked_over(&mut self, id: SlotId) {
        if let Some(parked) = self.unpark(id) {
            self.answer_wait(parked.reply, id, WaitReason::Idle, parked.outcomes);
        }
    }

    /// Answers every parked READY: draining or stopping.
    pub(crate) fn send_parked_away(&mut self) {
        let parked: Vec<SlotId> = self.slots_where(|slot| slot.parked.is_some());
        let reason = self.away_reason().unwrap_or(WaitReason::Idle);
        for id in parked {
            let parked = self.unpark(id).expect("just found parked");
            self.answer_wait(parked.reply, id, reason, parked.outcomes);
        }
    }

    pub(crate) fn slots_where(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<SlotId> {
        let mut found: Vec<SlotId> = self
            .workers
            .iter()
            .flat_map(|(session, about)| about.slots.iter().map(move |(&slot, state)| (SlotId { session, slot }, state)))
            .filter(|(_, state)| wanted(state))
            .map(|(id, _)| id)
            .collect();
        found.sort_unstable();
        found
    }

    fn answer_wait(&mut self, reply: ReplyTo, slot: SlotId, reason: WaitReason, outcomes: Vec<OutcomeCode>) {
        let after_ms = match reason {
            WaitReason::Idle => 0,
            WaitReason::Draining | WaitReason::Stopping | WaitReason::Unknown => 500,
        };
        let settled = self.slot(slot).settle.settled();
        self.answer(reply, Answer::Wait(Wait { epoch: self.epoch, after_ms, reason, outcomes, settled }));
    }

    /// Why workers are sent away, if they are.
    fn away_reason(&self) -> Option<WaitReason> {
        if self.stopping {
            Some(WaitReason::Stopping)
        } else {
            self.drain.map(|_| WaitReason::Draining)
        }
    }

    fn may_hand_out(&mut self) -> bool {
        if self.pending.len() >= OPS_MAX {
            self.blocked = true;
            return false;
        }
        self.hold.is_none() && self.store_error.is_none() && self.drain.is_none() && !self.stopping
    }

    pub(crate) fn slot(&mut self, id: SlotId) -> &mut Slot {
        self.workers.slot_mut(id).expect("the slot was just looked up")
    }

    /// The tasks that a session holds, with their leases.
    pub(crate) fn held_by(&self, session: SessionId) -> Vec<Held> {
        self.workers.get(session).running.iter().map(|id| Held(*id, self.running[id].lease)).collect()
    }
}

/// A task taken out of its queue, with the names it goes out under.
struct Chosen {
    task: QueuedTask,
    kind: Kind,
    lane: LaneName,
}

pub(crate) fn hello_first(why: &str) -> WireError {
    WireError::new(Code::HelloFirst, format!("{why}: say HELLO with everything that is held, then ask again"))
}

/// Cuts a text at a character boundary.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
