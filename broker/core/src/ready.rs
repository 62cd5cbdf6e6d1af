//! READY: a slot is idle. Which class of workers it belongs to, what its question came to, how long it stays parked.

use std::collections::BTreeMap;
use std::sync::Arc;

use laneway_protocol::limits::{ANSWER_SLACK_MS, BATCH_MAX, WAIT_MS_MAX};
use laneway_protocol::message::{Answer, OutcomeCode, Ready, Wait, WaitReason};
use laneway_protocol::{Code, LaneName, WireError};

use crate::action::Action;
use crate::broker::Broker;
use crate::dispatch::{Ability, ClassId, Idle, LaneRank};
use crate::event::{Asker, ReplyTo};
use crate::limits::{DRAIN_PAUSE_MS, SLOTS_PER_SESSION_MAX};
use crate::outcome::Said;
use crate::settle::{Question, ReadyQuestion};
use crate::time::Now;
use crate::timer::Timer;
use crate::worker::{Parked, SessionId, Settle, Slot, SlotId};

impl Broker {
    pub(crate) fn on_ready(&mut self, from: Asker, mut ready: Ready, now: Now) {
        let slot = match self.slot_of_ready(from, &mut ready, now) {
            Ok(Some(slot)) => slot,
            Ok(None) => return self.out.push(Action::Forget(from.reply)),
            Err(error) => return self.refuse(from.reply, error),
        };
        let mut codes = vec![OutcomeCode::Ok; ready.outcomes.len()];
        let said = Said { reply: from.reply, session: slot.session, settle: ready.batch.map(|batch| (slot, batch)) };
        let left = self.take_outcomes(said, ready.outcomes, &mut codes, now);
        // Whoever waits longer comes before this slot.
        self.feed_gates(now);
        if let Some(ack) = ready.ack {
            self.take_back_after(slot, ack, now);
        }
        let wait_ms = ready.wait_ms.min(WAIT_MS_MAX);
        let question = ReadyQuestion {
            slot,
            conn: from.conn,
            max: (ready.max as usize).min(BATCH_MAX),
            until: now.mono.after(wait_ms),
            late_at: now.mono.after(wait_ms + ANSWER_SLACK_MS),
            committed: ready.committed,
            codes,
            left,
        };
        if left == 0 {
            return self.serve_question(from.reply, question, now);
        }
        self.timers.set(question.late_at, Timer::Question(from.reply));
        self.slot(slot).question = Some(from.reply);
        self.questions.insert(from.reply, Question::Ready(question));
    }

    /// The outcomes of a READY are dealt with: gives tasks, or parks the question.
    pub(crate) fn serve_question(&mut self, reply: ReplyTo, question: ReadyQuestion, now: Now) {
        let ReadyQuestion { slot, conn, max, until, committed, codes, .. } = question;
        let Some(class) = self.workers.slot_mut(slot).map(|slot| slot.class) else {
            return self.refuse(reply, hello_first("the session has ended"));
        };
        if let Some(reason) = self.away_reason(Some(slot.session)) {
            return self.answer_wait(reply, slot, reason, codes);
        }
        let parked = Parked { reply, conn, max, until, idle: 0, committed, outcomes: codes };
        let (tasks, _) = self.choose(slot, class, max, parked.outcomes.len(), now);
        if !tasks.is_empty() {
            return self.hand_out(slot, parked, tasks, now);
        }
        if max == 0 || until <= now.mono {
            return self.answer_wait(reply, slot, WaitReason::Idle, parked.outcomes);
        }
        let idle = self.dispatch.park(class, slot);
        self.timers.set(until, Timer::Parked(slot));
        self.slot(slot).parked = Some(Parked { idle, ..parked });
        if self.slot(slot).settle.is_ripe() {
            self.tell_settled(slot.session);
        }
    }

    /// A new question of the same slot takes the place of the old one, which gets no answer.
    fn replace_question(&mut self, id: SlotId) {
        if let Some(parked) = self.unpark(id) {
            self.out.push(Action::Forget(parked.reply));
        }
        if let Some(reply) = self.slot(id).question.take()
            && self.drop_question(reply)
        {
            self.out.push(Action::Forget(reply));
        }
    }

    /// Takes a slot's parked READY out of every list.
    pub(crate) fn unpark(&mut self, id: SlotId) -> Option<Parked> {
        let slot = self.workers.slot_mut(id)?;
        let parked = slot.parked.take()?;
        let class = slot.class;
        self.dispatch.unpark(Idle { since: parked.idle, class, slot: id });
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
        let reason = self.away_reason(None).unwrap_or(WaitReason::Idle);
        for slot in self.dispatch.idle_slots() {
            let parked = self.unpark(slot).expect("an idle slot is parked");
            self.answer_wait(parked.reply, slot, reason, parked.outcomes);
        }
    }

    pub(crate) fn answer_wait(&mut self, reply: ReplyTo, slot: SlotId, reason: WaitReason, outcomes: Vec<OutcomeCode>) {
        let after_ms = match reason {
            WaitReason::Idle => 0,
            WaitReason::Draining | WaitReason::Stopping | WaitReason::Unknown => DRAIN_PAUSE_MS,
        };
        let settled = self.slot(slot).settle.tell();
        self.answer(reply, Answer::Wait(Wait { epoch: self.epoch, after_ms, reason, outcomes, settled }));
    }

    /// The same for one session.
    pub(crate) fn send_away(&mut self, session: SessionId) {
        let slots: Vec<u32> = self.workers.get(session).slots.keys().copied().collect();
        for slot in slots.into_iter().map(|slot| SlotId { session, slot }) {
            if let Some(parked) = self.unpark(slot) {
                self.answer_wait(parked.reply, slot, WaitReason::Draining, parked.outcomes);
            }
        }
    }

    /// Why workers are sent away, or this one, if they are.
    fn away_reason(&self, session: Option<SessionId>) -> Option<WaitReason> {
        if self.stopping {
            return Some(WaitReason::Stopping);
        }
        let drain = self.drain.or_else(|| self.drain_of(session?));
        drain.map(|_| WaitReason::Draining)
    }

    // ------------------------------------------------------------------------------------------------------ slots

    /// Finds or makes the slot that asks, in the class of what it can run now. Its earlier question is forgotten. `None` for
    /// one that a later one overtook, on another connection: its `ack` would take back what has arrived since.
    fn slot_of_ready(&mut self, from: Asker, ready: &mut Ready, now: Now) -> Result<Option<SlotId>, WireError> {
        if ready.batch == Some(0) {
            return Err(WireError::new(Code::BadBody, "batch 0: batches count from 1").field("batch"));
        }
        let session = self.session_of_ready(from, ready, now)?;
        let id = SlotId { session, slot: ready.slot };
        let max = (ready.max as usize).clamp(1, BATCH_MAX);
        let Some(slot) = self.workers.slot_mut(id) else {
            return self.add_slot(id, max, ready).map(|()| Some(id));
        };
        match ready.n {
            Some(n) if n <= slot.n => return Ok(None),
            Some(n) => slot.n = n,
            None => {}
        }
        self.replace_question(id);
        let slot = self.slot(id);
        let more = max.saturating_sub(slot.max);
        if slot.said.0 != ready.kinds || slot.said.1 != ready.lanes {
            let ability = self.ability_of_ready(session, ready)?;
            self.move_slot(id, &ability);
            self.slot(id).said = (ready.kinds.take(), ready.lanes.take());
        }
        if more > 0 {
            let slot = self.slot(id);
            slot.max = max;
            let class = slot.class;
            self.dispatch.grow(class, more);
            self.demand_for(class);
        }
        Ok(Some(id))
    }

    fn add_slot(&mut self, id: SlotId, max: usize, ready: &mut Ready) -> Result<(), WireError> {
        if self.workers.get(id.session).slots.len() >= SLOTS_PER_SESSION_MAX {
            let text = format!("slot {} is over the limit of {SLOTS_PER_SESSION_MAX} slots", id.slot);
            return Err(WireError::new(Code::Full, text).field("slot"));
        }
        let ability = self.ability_of_ready(id.session, ready)?;
        let class = self.dispatch.join(&ability, max);
        let slot = Slot {
            class,
            max,
            said: (ready.kinds.take(), ready.lanes.take()),
            n: ready.n.unwrap_or(0),
            seq: 0,
            running: BTreeMap::new(),
            parked: None,
            question: None,
            settle: Settle::default(),
        };
        self.workers.get_mut(id.session).slots.insert(id.slot, slot);
        self.demand_for(class);
        Ok(())
    }

    /// What a slot can run: what its READY names, else what its session's HELLO did.
    fn ability_of_ready(&mut self, session: SessionId, ready: &Ready) -> Result<Ability, WireError> {
        let about = self.workers.get(session);
        let kinds = ready.kinds.as_ref().unwrap_or(&about.kinds).clone();
        let lanes = ready.lanes.as_ref().or(about.lanes.as_ref()).cloned();
        self.ability(&kinds, lanes.as_deref())
    }

    /// A slot can run other kinds or lanes now. It must not be parked.
    pub(crate) fn move_slot(&mut self, id: SlotId, ability: &Ability) {
        let max = self.slot(id).max;
        let class = self.dispatch.join(ability, max);
        let left = std::mem::replace(&mut self.slot(id).class, class);
        self.leave_class(left, max);
        self.demand_for(class);
    }

    /// A slot leaves a class: what nobody can run any more goes back to the table.
    pub(crate) fn leave_class(&mut self, class: ClassId, max: usize) {
        for (queue, rows) in self.dispatch.leave(class, max) {
            let key = self.dispatch.key(queue);
            self.out.push(Action::Demand { key, rows: 0, fair: Arc::clone(self.dispatch.fair_rules()) });
            if !rows.is_empty() {
                self.out.push(Action::Unload(rows));
            }
        }
    }

    fn demand_for(&mut self, class: ClassId) {
        for queue in self.dispatch.queues_of_class(class) {
            self.demand(queue);
        }
    }

    fn session_of_ready(&mut self, from: Asker, ready: &Ready, now: Now) -> Result<SessionId, WireError> {
        if ready.epoch.is_some_and(|epoch| epoch != self.epoch) {
            return Err(hello_first("the broker was restarted"));
        }
        let session = match self.workers.by_name(&ready.session) {
            Some(id) if !self.workers.get(id).plain && !self.workers.get(id).welcomed => {
                return Err(hello_first("the HELLO has more pages to come"));
            }
            Some(id) => id,
            None if ready.epoch.is_some() => return Err(hello_first("the session is not known")),
            None => {
                let Some(kinds) = &ready.kinds else {
                    let text = "name the kinds that the worker can run, here or in a HELLO";
                    return Err(WireError::new(Code::BadBody, text).field("kinds"));
                };
                // Before anything is made for it: a READY that makes no sense leaves no session behind.
                self.ability(kinds, ready.lanes.as_deref())?;
                self.add_plain_session(&ready.session, kinds, ready.lanes.as_deref(), now)?
            }
        };
        self.heard(session, from.conn);
        Ok(session)
    }

    pub(crate) fn known_lane(&self, lane: &LaneName, field: &str) -> Result<LaneRank, WireError> {
        self.dispatch.lane(lane).ok_or_else(|| {
            let known: Vec<&str> = self.dispatch.lanes().iter().map(LaneName::as_str).collect();
            let text = format!("lane '{lane}' is not one of {}", known.join(", "));
            WireError::new(Code::UnknownLane, text).field(field)
        })
    }

    /// A slot that was just looked up.
    pub(crate) fn slot(&mut self, id: SlotId) -> &mut Slot {
        self.workers.slot_mut(id).expect("the slot was just looked up")
    }
}

pub(crate) fn hello_first(why: &str) -> WireError {
    WireError::new(Code::HelloFirst, format!("{why}: say HELLO with everything that is held, then ask again"))
}
