//! Who is there and who died: HELLO, BYE, connections and their end.

use laneway_protocol::limits::{ANSWER_SLACK_MS, BATCH_MAX, KINDS_PER_WORKER_MAX, WAIT_MS_MAX};
use laneway_protocol::message::{Answer, Bye, ByeNoted, Held, Hello, OutcomeCode, WaitReason, Welcome};
use laneway_protocol::{Code, Kind, LaneName, SessionName, WireError};

use crate::action::{Action, Op, WorkerEvent};
use crate::broker::Broker;
use crate::dispatch::Ability;
use crate::event::{Asker, ConnId, ReplyTo};
use crate::limits::LABEL_BYTES_MAX;
use crate::outcome::Said;
use crate::ready::hello_first;
use crate::settle::{ByeQuestion, EndHook, FindFor, HelloQuestion, Pending, Question};
use crate::task::RunEnd;
use crate::time::Now;
use crate::timer::Timer;
use crate::worker::{About, SessionId, SlotId};

impl Broker {
    pub(crate) fn on_hello(&mut self, from: Asker, hello: Hello, now: Now) {
        let id = match self.session_of_hello(&hello, now) {
            Ok(id) => id,
            Err(error) => return self.refuse(from.reply, error),
        };
        self.heard(id, from.conn);
        let late_at = now.mono.after(ANSWER_SLACK_MS);
        let mut question = HelloQuestion { session: id, lost: Vec::new(), more: hello.more, late_at };
        let mut unknown = Vec::new();
        for held in hello.resume {
            if self.is_running(held) {
                self.reassign(held.0, id, now);
            } else if self.settling.get(&held.0).is_some_and(|settling| settling.repeats(held.1)) {
                // Its outcome was said and is on its way to the disk.
            } else if self.running.contains_key(&held.0) {
                question.lost.push(held);
            } else {
                unknown.push(held);
            }
        }
        if unknown.is_empty() {
            return self.welcome(from.reply, question, now);
        }
        let ids = unknown.iter().map(|held| held.0).collect();
        self.timers.set(late_at, Timer::Question(from.reply));
        self.questions.insert(from.reply, Question::Hello(question));
        self.store_for(Op::Find(ids), Pending::Find { reply: from.reply, find: FindFor::Resume(unknown) });
    }

    /// Everything a HELLO named is known: answers it, and after the last page the session may take tasks.
    pub(crate) fn welcome(&mut self, reply: ReplyTo, question: HelloQuestion, now: Now) {
        let HelloQuestion { session, lost, more, .. } = question;
        let Some(session) = self.workers.find_mut(session) else {
            return self.refuse(reply, hello_first("the session has ended"));
        };
        if !more {
            let is_new = !std::mem::replace(&mut session.welcomed, true);
            let name = session.name.clone();
            if is_new {
                let (worker, kinds, lanes) = (session.worker(), session.kinds.clone(), session.lanes.clone());
                self.out.push(Action::Tell(WorkerEvent::Connected { worker, kinds, lanes }));
            }
            self.on_resumed(&name, now);
        }
        let welcome = Welcome {
            epoch: self.epoch,
            beat_ms: self.settings.beat_ms,
            wait_ms_max: WAIT_MS_MAX,
            payload_bytes_max: self.settings.payload_bytes_max as u64,
            batch_max: u32::try_from(BATCH_MAX).expect("a batch is small"),
            lanes: self.settings.lanes.clone(),
            lost,
        };
        self.answer(reply, Answer::Welcome(welcome));
    }

    pub(crate) fn on_bye(&mut self, from: Asker, bye: Bye, now: Now) {
        let Some(id) = self.session_of(&bye.session, now) else {
            if bye.release.is_empty() && bye.outcomes.is_empty() {
                // It says good-bye again: the first answer was lost.
                return self.answer(from.reply, Answer::Bye(ByeNoted { outcomes: Vec::new() }));
            }
            return self.refuse(from.reply, hello_first("the session is not known"));
        };
        self.heard(id, from.conn);
        let late_at = now.mono.after(ANSWER_SLACK_MS);
        let said = Said { reply: from.reply, session: id, settle: None };
        let mut codes = vec![OutcomeCode::Ok; bye.outcomes.len()];
        let mut left = self.take_outcomes(said, bye.outcomes, &mut codes, now);
        // Its place among the outcomes is past their end: it has no code.
        let hook = EndHook { question: Some((from.reply, usize::MAX)), settle: None };
        for held in bye.release {
            if self.is_running(held) {
                self.end_run_with(held.0, RunEnd::Released, Vec::new(), Some(hook), now);
                left += 1;
            } else if self.join_settling(held, hook) {
                left += 1;
            }
        }
        if !bye.more {
            // What it holds and does not name goes back as well: nobody is left to run it.
            for Held(task, _) in self.held_by(id) {
                self.end_run_with(task, RunEnd::Released, Vec::new(), Some(hook), now);
                left += 1;
            }
        }
        let question = ByeQuestion { session: id, more: bye.more, codes, left, late_at };
        if question.left == 0 {
            self.finish_bye(from.reply, question, now);
        } else {
            self.timers.set(late_at, Timer::Question(from.reply));
            self.questions.insert(from.reply, Question::Bye(question));
        }
    }

    pub(crate) fn finish_bye(&mut self, reply: ReplyTo, question: ByeQuestion, now: Now) {
        let ByeQuestion { session, more, codes, .. } = question;
        if !more && self.workers.find_mut(session).is_some() {
            let worker = self.workers.get(session).worker();
            self.end_session(session, now);
            self.out.push(Action::Tell(WorkerEvent::Left { worker }));
        }
        self.answer(reply, Answer::Bye(ByeNoted { outcomes: codes }));
    }

    // ----------------------------------------------------------------------------------------- coming and going

    /// A session by its name. A plain one of the last epoch is known again as soon as it speaks, for it says no HELLO.
    pub(crate) fn session_of(&mut self, name: &SessionName, now: Now) -> Option<SessionId> {
        match self.workers.by_name(name) {
            None if self.before.get(name) == Some(&true) => self.add_plain_session(name, &[], None, now).ok(),
            known => known,
        }
    }

    /// `kinds` and `lanes` are for the log: each of its slots says its own.
    pub(crate) fn add_plain_session(
        &mut self,
        name: &SessionName,
        kinds: &[Kind],
        lanes: Option<&[LaneName]>,
        now: Now,
    ) -> Result<SessionId, WireError> {
        let id = self.add_session(name, now)?;
        let session = self.workers.get_mut(id);
        session.plain = true;
        let (worker, kinds, lanes) = (session.worker(), kinds.to_vec(), lanes.map(<[LaneName]>::to_vec));
        self.out.push(Action::Tell(WorkerEvent::Connected { worker, kinds, lanes }));
        self.store(Op::SessionUp { session: name.clone(), name: name.to_string(), plain: true });
        // What it was given in an earlier epoch is still its own.
        for task in self.orphans(|worker| worker == name) {
            self.reassign(task, id, now);
        }
        Ok(id)
    }

    fn session_of_hello(&mut self, hello: &Hello, now: Now) -> Result<SessionId, WireError> {
        self.ability(&hello.kinds, hello.lanes.as_deref())?;
        let id = match self.workers.by_name(&hello.session) {
            Some(id) => {
                self.adapt_slots(id, &hello.kinds, hello.lanes.as_deref());
                id
            }
            None => self.add_session(&hello.session, now)?,
        };
        let session = self.workers.get_mut(id);
        let is_new = session.plain || !session.welcomed;
        session.plain = false;
        session.about = About {
            name: label(&hello.name),
            host: label(&hello.host),
            pid: hello.pid,
            sdk: label(&hello.sdk),
            slots: hello.slots,
        };
        session.kinds.clone_from(&hello.kinds);
        session.lanes.clone_from(&hello.lanes);
        if is_new {
            let name = session.worker().label();
            self.store(Op::SessionUp { session: hello.session.clone(), name, plain: false });
        }
        Ok(id)
    }

    /// A HELLO says other kinds or lanes than the one before: slots that said none of their own follow it. Those that
    /// wait ask again.
    fn adapt_slots(&mut self, id: SessionId, kinds: &[Kind], lanes: Option<&[LaneName]>) {
        let session = self.workers.get(id);
        if session.kinds == kinds && session.lanes.as_deref() == lanes {
            return;
        }
        let follow: Vec<(u32, Ability)> = session
            .slots
            .iter()
            .filter(|(_, slot)| slot.said.0.is_none() || slot.said.1.is_none())
            .map(|(&slot, state)| (slot, state.said.clone()))
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|(slot, (own_kinds, own_lanes))| {
                let kinds = own_kinds.as_deref().unwrap_or(kinds);
                Some((slot, self.ability(kinds, own_lanes.as_deref().or(lanes)).ok()?))
            })
            .collect();
        for (slot, ability) in follow {
            let slot = SlotId { session: id, slot };
            if let Some(parked) = self.unpark(slot) {
                self.answer_wait(parked.reply, slot, WaitReason::Idle, parked.outcomes);
            }
            self.move_slot(slot, &ability);
        }
    }

    fn add_session(&mut self, name: &SessionName, now: Now) -> Result<SessionId, WireError> {
        if self.workers.len() >= self.settings.sessions_max {
            let text =
                format!("{} workers are connected, at most that many are allowed (sessions_max)", self.workers.len());
            return Err(WireError::new(Code::Full, text).after_ms(5_000));
        }
        self.before.remove(name);
        Ok(self.workers.add(name.clone(), now.mono))
    }

    /// A word came from a session: it is there.
    pub(crate) fn heard(&mut self, id: SessionId, conn: ConnId) {
        self.workers.heard(id, conn);
        if let Some(at) = self.workers.get_mut(id).away.take() {
            self.timers.clear(at, Timer::Away(id));
        }
    }

    pub(crate) fn on_disconnected(&mut self, conn: ConnId, now: Now) {
        for reply in self.waiters.of_conn(conn) {
            let waits = self.drop_waiter(reply).is_some();
            self.waiters.unexpect(conn, reply);
            if waits || self.close_question(reply) {
                self.out.push(Action::Forget(reply));
            }
        }
        for id in self.workers.disconnected(conn) {
            self.on_connection_gone(id, conn, now);
        }
    }

    fn on_connection_gone(&mut self, id: SessionId, conn: ConnId, now: Now) {
        let session = self.workers.get(id);
        // Nothing may be handed to a slot whose answer would go nowhere.
        let dead: Vec<u32> = session
            .slots
            .iter()
            .filter(|(_, slot)| slot.parked.as_ref().is_some_and(|parked| parked.conn == conn))
            .map(|(&slot, _)| slot)
            .collect();
        for slot in dead {
            if let Some(parked) = self.unpark(SlotId { session: id, slot }) {
                self.out.push(Action::Forget(parked.reply));
            }
        }
        let session = self.workers.get_mut(id);
        if session.conns.is_empty() {
            let at = now.mono.after(self.settings.disconnect_grace_ms);
            session.away = Some(at);
            self.timers.set(at, Timer::Away(id));
        }
        if self.workers.get(id).beat.is_some_and(|beat| beat.conn == conn) {
            self.drop_beat(id);
        }
    }

    /// No connection of a session came back in time: its process is dead, unless the broker itself was away.
    pub(crate) fn on_away_over(&mut self, id: SessionId, now: Now) {
        let session = self.workers.get_mut(id);
        if now.mono < self.grace.until {
            session.away = Some(self.grace.until);
            return self.timers.set(self.grace.until, Timer::Away(id));
        }
        session.away = None;
        let suspect = session.suspect;
        let worker = session.worker();
        self.lost_workers.note(session, now.mono);
        self.out.push(Action::Tell(WorkerEvent::Lost { worker: worker.clone(), running: session.running.len() }));
        for task in self.workers.get(id).running.clone() {
            // With a suspect in the process, only the suspect is charged.
            let charged = suspect.is_none_or(|suspect| suspect == task);
            self.end_run(task, RunEnd::Lost { charged, worker: worker.clone() }, now);
        }
        self.end_session(id, now);
    }

    /// Forgets a session; what it still holds goes back.
    fn end_session(&mut self, id: SessionId, now: Now) {
        for Held(task, _) in self.held_by(id) {
            self.end_run(task, RunEnd::Released, now);
        }
        let slots: Vec<u32> = self.workers.get(id).slots.keys().copied().collect();
        for slot in slots {
            let slot_id = SlotId { session: id, slot };
            if let Some(parked) = self.unpark(slot_id) {
                self.answer_wait(parked.reply, slot_id, WaitReason::Idle, parked.outcomes);
            }
            let (class, max) = {
                let slot = self.slot(slot_id);
                (slot.class, slot.max)
            };
            self.leave_class(class, max);
        }
        self.answer_beat(id);
        let session = self.workers.remove(id);
        if let Some(at) = session.away {
            self.timers.clear(at, Timer::Away(id));
        }
        self.store(Op::SessionGone { session: session.name });
    }

    /// The tasks that a session holds, with their leases.
    fn held_by(&self, session: SessionId) -> Vec<Held> {
        self.workers.get(session).running.iter().map(|id| Held(*id, self.running[id].lease)).collect()
    }

    /// What a slot can run, by the names that it or its session says.
    pub(crate) fn ability(&mut self, kinds: &[Kind], lanes: Option<&[LaneName]>) -> Result<Ability, WireError> {
        if kinds.is_empty() {
            return Err(WireError::new(Code::BadBody, "a worker must name at least one kind").field("kinds"));
        }
        if kinds.len() > KINDS_PER_WORKER_MAX {
            let text = format!("{} kinds, at most {KINDS_PER_WORKER_MAX} are allowed", kinds.len());
            return Err(WireError::new(Code::TooMany, text).field("kinds"));
        }
        let mut ranks = match lanes {
            None => self.dispatch.all_lanes(),
            Some([]) => {
                return Err(WireError::new(Code::BadBody, "name at least one lane, or leave it out").field("lanes"));
            }
            Some(lanes) => lanes.iter().map(|lane| self.known_lane(lane, "lanes")).collect::<Result<_, _>>()?,
        };
        let mut indexes = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let known = self.dispatch.kind_of(kind).is_some();
            let index = self.dispatch.learn_kind(kind).ok_or_else(|| {
                let kinds_max = self.settings.kinds_max;
                let text =
                    format!("kind '{kind}' is new and {kinds_max} kinds are known, as many as may be (kinds_max)");
                WireError::new(Code::Full, text).field("kinds")
            })?;
            if !known {
                self.stir_kind(index);
            }
            indexes.push(index);
        }
        ranks.sort_unstable();
        ranks.dedup();
        indexes.sort_unstable();
        indexes.dedup();
        Ok(Ability { lanes: ranks, kinds: indexes })
    }
}

/// What a worker says of itself, fit for one line of a log.
fn label(text: &str) -> String {
    let mut bytes = 0;
    let printable = text.chars().filter(|c| !c.is_control());
    let fits = printable.take_while(|c| {
        bytes += c.len_utf8();
        bytes <= LABEL_BYTES_MAX
    });
    fits.collect()
}
