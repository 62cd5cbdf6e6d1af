//! Handing out: the only place where a task leaves its queue for a worker, and where a hand-out that never arrived is
//! taken back.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};

use laneway_protocol::limits::ANSWER_SLACK_MS;
use laneway_protocol::message::{Answer, HandOut, HandedTask, Held, Wait, WaitReason};
use laneway_protocol::{FairKey, Payload, TaskId};

use crate::action::{Action, Op, Started};
use crate::broker::Broker;
use crate::dispatch::{ClassId, Idle, IdleLine, QueueIndex};
use crate::event::{FoundTask, Loaded, QueueKey, QueuedTask, ReplyTo};
use crate::limits::{
    HANDOUT_BODY_BYTES_MAX, HANDOUT_CODE_BYTES, HANDOUT_PAYLOAD_BYTES_MAX, HANDOUT_TASK_BYTES, OPS_MAX,
    RECENT_HANDOUTS_MAX,
};
use crate::settle::{FindFor, Pending, Question};
use crate::task::{RunEnd, Running, timeout_ms};
use crate::time::Now;
use crate::timer::Timer;
use crate::worker::{Parked, SlotId};

/// What serving a ready slot came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Took,
    /// Nothing that any slot of its class may take now.
    Nothing,
    /// Only suspects, and its process runs one already.
    SuspectsOnly,
}

impl Broker {
    pub(crate) fn on_loaded(&mut self, loads: Vec<Loaded>, now: Now) {
        let mut fresh = Vec::with_capacity(loads.len());
        for loaded in loads {
            fresh.extend(self.take_in(loaded));
        }
        for &(queue, lower_lanes_go_on) in &fresh {
            let line = self.dispatch.idle_line(Some(queue));
            self.feed(line, (!lower_lanes_go_on).then_some(queue), now);
        }
        for (queue, _) in fresh {
            self.demand(queue);
        }
    }

    /// Due rows of fair keys have turned up in the table while others may fill the read-ahead.
    pub(crate) fn on_appeared(&mut self, rows: Vec<(QueueKey, Option<FairKey>)>) {
        let mut looked_at = BTreeSet::new();
        for (at, key) in rows {
            // With an open demand they are loaded as they turn up; and what one key does not move the next does not.
            if let Some(queue) = self.dispatch.appeared(&at, key.as_ref())
                && looked_at.insert(queue)
            {
                self.relieve(queue, key.as_ref());
            }
        }
    }

    /// A key has tasks in the table and none at hand: others give up what they have beyond their part.
    pub(crate) fn relieve(&mut self, queue: QueueIndex, key: Option<&FairKey>) {
        let rows = self.dispatch.make_room(queue, key);
        if !rows.is_empty() {
            self.out.push(Action::Unload(rows));
            self.demand(queue);
        }
    }

    /// The table has rows of a key of which nothing is at hand, which an open demand may pass over, for the key was closed.
    pub(crate) fn look_again(&mut self, queue: QueueIndex, key: Option<&FairKey>) {
        match self.dispatch.ask_again(queue) {
            Some(rows) => self.demand_rows(queue, rows),
            None => self.relieve(queue, key),
        }
    }

    /// Puts rows that were read ahead into their queue. Gives it, and whether lower lanes had to wait for it until now.
    fn take_in(&mut self, mut loaded: Loaded) -> Option<(QueueIndex, bool)> {
        let rows = loaded.tasks.len();
        let (at, passed) = (loaded.key.clone(), std::mem::take(&mut loaded.passed));
        let mut unload = Vec::new();
        loaded.tasks.retain(|task| {
            if self.secured.contains(task.id) {
                // The store gives it again when it is replaced.
                return false;
            }
            if self.settling.contains_key(&task.id) {
                // Read while the end of its last run is still to be reported: to be read again.
                unload.push(task.id);
                return false;
            }
            !self.running.contains_key(&task.id)
        });
        let queue = self.dispatch.loaded(loaded, rows).map_err(|unserved| unload.extend(unserved)).ok();
        if let Some((queue, _)) = queue {
            unload.extend(self.dispatch.drop_held(queue));
        }
        if !unload.is_empty() {
            self.out.push(Action::Unload(unload));
        }
        for key in passed {
            if let Some(queue) = self.dispatch.appeared(&at, Some(&key)) {
                self.look_again(queue, Some(&key));
            }
        }
        queue
    }

    /// After whatever stopped hand-outs is over.
    pub(crate) fn feed_all(&mut self, now: Now) {
        let line = self.dispatch.idle_line(None);
        self.feed(line, None, now);
    }

    /// Serves waiting slots, the longest idle first, until none is left that takes anything; or, when only the tasks of
    /// one queue are new, until that has no more.
    pub(crate) fn feed(&mut self, mut line: IdleLine, only: Option<QueueIndex>, now: Now) {
        while let Some(Reverse(idle)) = line.pop() {
            if !self.may_hand_out() || only.is_some_and(|queue| !self.dispatch.has_task(queue)) {
                return;
            }
            if self.serve_parked(idle, now) != Served::Nothing {
                line.extend(self.dispatch.next_idle(idle.class, idle.since).map(Reverse));
            }
        }
    }

    /// Offers the suspects at hand to processes that could take none until now.
    pub(crate) fn feed_cleared(&mut self, now: Now) {
        for session in std::mem::take(&mut self.cleared) {
            let Some(about) = self.workers.find_mut(session).filter(|about| about.suspect.is_none()) else { continue };
            let idle = about.slots.iter().filter_map(|(&slot, state)| {
                let since = state.parked.as_ref()?.idle;
                Some(Reverse(Idle { since, class: state.class, slot: SlotId { session, slot } }))
            });
            let line = idle.collect();
            self.feed(line, None, now);
        }
    }

    fn serve_parked(&mut self, idle: Idle, now: Now) -> Served {
        let parked = self.slot(idle.slot).parked.as_ref().expect("an idle slot is parked");
        let (max, n_codes) = (parked.max, parked.outcomes.len());
        let (tasks, suspects_only) = self.choose(idle.slot, idle.class, max, n_codes, now);
        if tasks.is_empty() {
            return if suspects_only { Served::SuspectsOnly } else { Served::Nothing };
        }
        let parked = self.unpark(idle.slot).expect("an idle slot is parked");
        self.hand_out(idle.slot, parked, tasks, now);
        Served::Took
    }

    /// Takes up to `max` tasks for a slot out of their queues, in the order of dispatch. Also tells whether there were
    /// suspects that only this process may not take. `n_codes` outcome codes share the answer's body.
    pub(crate) fn choose(
        &mut self,
        slot: SlotId,
        class: ClassId,
        max: usize,
        n_codes: usize,
        now: Now,
    ) -> (Vec<(QueueKey, QueuedTask)>, bool) {
        let mut chosen = Vec::new();
        if !self.may_hand_out() {
            return (chosen, false);
        }
        let (mut body, mut payloads) = (n_codes * HANDOUT_CODE_BYTES, 0);
        let takes_suspects = self.workers.get(slot.session).suspect.is_none();
        while chosen.len() < max && body < HANDOUT_BODY_BYTES_MAX && payloads < HANDOUT_PAYLOAD_BYTES_MAX {
            let mut passed_suspect = false;
            let sharers = self.dispatch.sharers(class, takes_suspects);
            let owed = self.dispatch.owed(class, sharers, takes_suspects);
            let head = owed.or_else(|| {
                self.dispatch.choices(class).find(|head| {
                    let takes = !head.suspect || takes_suspects;
                    passed_suspect |= !takes;
                    takes
                })
            });
            let Some(head) = head else { return (chosen, passed_suspect) };
            if head.suspect && !chosen.is_empty() {
                // A suspect travels alone, and nothing behind it goes before it.
                break;
            }
            let (queue, task) = self.dispatch.take(head);
            self.demand(queue);
            if self.dispatch.ran_dry(queue, task.fair_key.as_ref()) {
                self.look_again(queue, task.fair_key.as_ref());
            }
            if task.runs == 0 && task.expires_at.is_some_and(|at| at <= now.wall) {
                // The store's sweep cancels the row and tells.
                self.out.push(Action::Unload(vec![task.id]));
                continue;
            }
            let key = self.dispatch.key(queue);
            body += HANDOUT_TASK_BYTES + key.kind.as_str().len() + key.lane.as_str().len();
            body += task.trace.as_ref().map_or(0, String::len);
            payloads += bytes(task.payload.as_ref()) + bytes(task.checkpoint.as_ref());
            self.dispatch.count_hand_out(head);
            self.dispatch.count_share(sharers, queue);
            self.pass_gates(&key.kind, &key.lane, task.fair_key.as_ref(), task.id, now);
            chosen.push((key, task));
            if head.suspect {
                break;
            }
        }
        (chosen, false)
    }

    /// Gives tasks to a slot: leases, records, and the answer to its READY.
    pub(crate) fn hand_out(&mut self, id: SlotId, parked: Parked, tasks: Vec<(QueueKey, QueuedTask)>, now: Now) {
        let slot = self.slot(id);
        // A peer that says the highest number of all as its `ack` only hurts itself.
        slot.seq = slot.seq.saturating_add(1);
        let (seq, settled) = (slot.seq, slot.settle.tell());
        self.stats.handed_out += tasks.len() as u64;
        let tasks = tasks.into_iter().map(|(key, task)| self.grant(id, seq, key, task, now)).collect();
        let answer = HandOut { epoch: self.epoch, seq, tasks, outcomes: parked.outcomes, settled };
        if !parked.committed {
            self.remember_hand_out(parked.reply, id, seq);
            return self.answer(parked.reply, Answer::Tasks(answer));
        }
        // Looked up behind the records, in the same commit: who still runs under its lease is on disk.
        let ids = answer.tasks.iter().map(|task| task.task).collect();
        let late_at = now.mono.after(ANSWER_SLACK_MS);
        self.timers.set(late_at, Timer::Question(parked.reply));
        self.questions.insert(parked.reply, Question::Simple { late_at });
        self.slot(id).question = Some(parked.reply);
        let find = FindFor::Committed { answer: Box::new(answer), slot: id };
        self.store_for(Op::Find(ids), Pending::Find { reply: parked.reply, find });
    }

    /// Starts one lease.
    fn grant(&mut self, slot: SlotId, seq: u64, key: QueueKey, task: QueuedTask, now: Now) -> HandedTask {
        let QueueKey { lane, kind } = key;
        let (run, attempt) = (task.runs + 1, task.attempts + 1);
        let lease = self.key.lease(task.id, task.created_at, run);
        let timeout_ms = timeout_ms(task.timeout_ms, &kind, &self.settings);
        let max_attempts = task.max_attempts.unwrap_or_else(|| self.settings.kind(&kind).max_attempts);
        let deadline = now.mono.after(timeout_ms);
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
            fair_key: task.fair_key,
            group: task.group,
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
            events: self.last_words.take(task.id, run),
            noted: None,
            unwritten: None,
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
            attempt,
            wait_ms: now.wall.since(task.due),
        }));
        HandedTask {
            task: task.id,
            lease,
            kind,
            lane,
            run,
            attempt,
            max_attempts,
            timeout_ms,
            payload: task.payload,
            trace: task.trace,
            checkpoint: task.checkpoint,
        }
    }

    /// Whether anything may be handed out now. Once stopped by a full list of operations it goes on when that is half
    /// empty.
    fn may_hand_out(&mut self) -> bool {
        self.blocked |= self.pending.len() >= OPS_MAX;
        self.is_handing_out()
    }

    pub(crate) fn is_handing_out(&self) -> bool {
        let is_held = self.blocked || self.quiet || self.stopping;
        !is_held && self.hold.is_none() && self.store_error.is_none() && self.drain.is_none()
    }

    // ------------------------------------------------------------------------------------ hand-outs on their way

    /// Hand-outs were recorded: tells the worker about those whose row took it.
    pub(crate) fn on_recorded(&mut self, reply: ReplyTo, answer: HandOut, slot: SlotId, found: &[FoundTask], now: Now) {
        let recorded: HashSet<Held> = found.iter().filter_map(|row| Some(Held(row.id, row.lease?))).collect();
        let tells = self.close_question(reply);
        let mut tasks = Vec::with_capacity(answer.tasks.len());
        for task in answer.tasks {
            let held = Held(task.task, task.lease);
            if !self.is_running(held) {
                // Taken back meanwhile.
            } else if !recorded.contains(&held) {
                self.drop_running(task.task);
            } else if tells {
                tasks.push(task);
            } else {
                self.end_run(task.task, RunEnd::Unreceived, now);
            }
        }
        if !tells {
            return;
        }
        let HandOut { epoch, seq, outcomes, settled, .. } = answer;
        if tasks.is_empty() {
            return self
                .answer(reply, Answer::Wait(Wait { epoch, after_ms: 0, reason: WaitReason::Idle, outcomes, settled }));
        }
        self.remember_hand_out(reply, slot, seq);
        self.answer(reply, Answer::Tasks(HandOut { epoch, seq, tasks, outcomes, settled }));
    }

    /// Tasks sent after `ack` were not received: they go back at once, nothing counted.
    pub(crate) fn take_back_after(&mut self, slot: SlotId, ack: u64, now: Now) {
        let slot = self.slot(slot);
        // A session that was lost and came back within the epoch goes on counting where it was.
        slot.seq = slot.seq.max(ack);
        let lost: Vec<TaskId> = slot.running.iter().filter(|&(_, &seq)| seq > ack).map(|(&id, _)| id).collect();
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

    /// The shell reports what it could not send before it asks for anything else, so the latest hand-outs are enough.
    fn remember_hand_out(&mut self, reply: ReplyTo, slot: SlotId, seq: u64) {
        if self.handed.len() == RECENT_HANDOUTS_MAX {
            self.handed.pop_front();
        }
        self.handed.push_back((reply, slot, seq));
    }
}

fn bytes(payload: Option<&Payload>) -> usize {
    payload.map_or(0, |payload| payload.bytes.len())
}
