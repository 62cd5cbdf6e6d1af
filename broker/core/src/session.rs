//! Who is there, what they resume, and who died: HELLO, BEAT, BYE, connections and their end.

use std::collections::HashSet;

use laneway_protocol::limits::{ANSWER_SLACK_MS, KINDS_PER_WORKER_MAX, WAIT_MS_MAX};
use laneway_protocol::message::{Answer, Beat, BeatNoted, Bye, Drain as DrainAsked, Drained, Held, Hello, Welcome};
use laneway_protocol::{Code, Lease, SessionName, TaskId, TaskState, WireError};

use crate::action::{Action, Op, Started};
use crate::broker::{Broker, Drain};
use crate::event::{Asker, ConnId, FoundTask};
use crate::limits::LABEL_BYTES_MAX;
use crate::ready::hello_first;
use crate::settle::{ByeQuestion, FindFor, HelloQuestion, Pending, Question, ReadyQuestion};
use crate::task::{RunEnd, Stop};
use crate::time::Now;
use crate::timer::Timer;
use crate::worker::{About, ParkedBeat, SessionId, SlotId};

/// What a row says about a lease that the core did not know.
pub(crate) enum Claim {
    /// It is the current one; the task runs now.
    Current,
    /// The same run has ended and is on disk.
    Ended,
    Stale,
}

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
            let Held(task, lease) = held;
            self.workers.get_mut(id).resumed.insert(task);
            match self.running.get(&task).map(|running| running.lease) {
                Some(current) if current == lease => self.reassign(task, id),
                Some(_) => question.lost.push(held),
                None if self.settling.get(&task).is_some_and(|&(settling, _)| settling == lease) => {}
                None => unknown.push(held),
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
    pub(crate) fn welcome(&mut self, reply: crate::event::ReplyTo, question: HelloQuestion, now: Now) {
        let HelloQuestion { session: id, lost, more, .. } = question;
        let Some(session) = self.workers.find_mut(id) else {
            return self.refuse(reply, hello_first("the session has ended"));
        };
        if !more {
            session.welcomed = true;
            let resumed = std::mem::take(&mut session.resumed);
            let name = session.name.clone();
            self.release_forgotten(&name, &resumed, now);
            if let Some(hold) = &mut self.hold {
                hold.expected.remove(&name);
                if hold.expected.is_empty() {
                    self.end_hold(now);
                }
            }
        }
        let welcome = Welcome {
            epoch: self.epoch,
            beat_ms: self.settings.beat_ms,
            wait_ms_max: WAIT_MS_MAX,
            payload_bytes_max: self.settings.payload_bytes_max as u64,
            batch_max: u32::try_from(laneway_protocol::limits::BATCH_MAX).expect("a batch is small"),
            lanes: self.settings.lanes.clone(),
            lost,
        };
        self.answer(reply, Answer::Welcome(welcome));
    }

    pub(crate) fn on_beat(&mut self, from: Asker, beat: Beat, now: Now) {
        let known = self.workers.by_name(&beat.session);
        let Some(id) = known.filter(|_| beat.epoch.is_none_or(|epoch| epoch == self.epoch)) else {
            return self.refuse(from.reply, hello_first("the session is not known in this epoch"));
        };
        self.heard(id, from.conn);
        self.drop_beat(id);
        let stale: Vec<Held> = beat.running.iter().copied().filter(|held| !self.is_current(*held)).collect();
        let until = now.mono.after(beat.wait_ms.min(WAIT_MS_MAX));
        let draining = self.drain.is_some();
        let running = &self.running;
        let session = self.workers.get_mut(id);
        let news = session.running.iter().any(|task| running[task].stop.is_some() && !session.told.contains(task))
            || (draining && !session.told_drain);
        session.beat = Some(ParkedBeat { reply: from.reply, conn: from.conn, until });
        if news || !stale.is_empty() || until <= now.mono {
            self.answer_beat_with(id, stale);
        } else {
            self.timers.set(until, Timer::Beat(id));
        }
    }

    pub(crate) fn answer_beat(&mut self, id: SessionId) {
        self.answer_beat_with(id, Vec::new());
    }

    fn answer_beat_with(&mut self, id: SessionId, stale: Vec<Held>) {
        let Some(beat) = self.workers.find_mut(id).and_then(|session| session.beat.take()) else { return };
        self.timers.clear(beat.until, Timer::Beat(id));
        let cancel: Vec<Held> =
            self.held_by(id).into_iter().filter(|held| self.running[&held.0].stop.is_some()).take(512).collect();
        let session = self.workers.get_mut(id);
        session.told.extend(cancel.iter().map(|held| held.0));
        session.told_drain = self.drain.is_some();
        let noted = BeatNoted {
            epoch: self.epoch,
            cancel,
            stale,
            drain: self.drain.is_some(),
            release: self.drain.is_some_and(|drain| drain.release),
        };
        self.answer(beat.reply, Answer::Beat(noted));
    }

    /// A newer BEAT takes the place of the parked one.
    fn drop_beat(&mut self, id: SessionId) {
        if let Some(beat) = self.workers.get_mut(id).beat.take() {
            self.timers.clear(beat.until, Timer::Beat(id));
            self.out.push(Action::Forget(beat.reply));
        }
    }

    /// A running task is to stop: its worker hears it in the answer to its BEAT, or to its next PROGRESS.
    pub(crate) fn tell_stop(&mut self, task: TaskId) {
        if let Some(session) = self.running.get(&task).and_then(|running| running.session) {
            self.answer_beat(session);
        }
    }

    pub(crate) fn on_bye(&mut self, from: Asker, bye: Bye, now: Now) {
        let Some(id) = self.workers.by_name(&bye.session) else {
            if bye.release.is_empty() && bye.outcomes.is_empty() {
                // It says good-bye again: the first answer was lost.
                return self.answer(from.reply, Answer::Bye(laneway_protocol::message::ByeNoted { outcomes: Vec::new() }));
            }
            return self.refuse(from.reply, hello_first("the session is not known"));
        };
        self.heard(id, from.conn);
        let late_at = now.mono.after(ANSWER_SLACK_MS);
        // The outcomes of a BYE settle like those of a READY; no slot is needed for that, any number will do.
        let slot = SlotId { session: id, slot: u32::MAX };
        let codes = vec![laneway_protocol::message::OutcomeCode::Ok; bye.outcomes.len()];
        let mut ready = ReadyQuestion {
            slot,
            conn: from.conn,
            max: 0,
            until: now.mono,
            late_at,
            committed: false,
            codes,
            left: 0,
        };
        self.take_outcomes(from.reply, &mut ready, bye.outcomes, None, now);
        let mut released: Vec<TaskId> = bye.release.iter().filter(|held| self.is_running(**held)).map(|held| held.0).collect();
        if !bye.more {
            // What it holds and does not name goes back as well: nobody is left to run it.
            let rest = self.workers.get(id).running.iter().filter(|task| !released.contains(task)).copied();
            released.extend(rest.collect::<Vec<_>>());
        }
        for task in released {
            let hook = crate::settle::EndHook { question: Some((from.reply, usize::MAX)), settle: None };
            self.end_run_with(task, RunEnd::Released, Vec::new(), Some(hook), now);
            ready.left += 1;
        }
        let question = ByeQuestion { session: id, more: bye.more, codes: ready.codes, left: ready.left, late_at };
        if question.left == 0 {
            self.finish_bye(from.reply, question, now);
        } else {
            self.timers.set(late_at, Timer::Question(from.reply));
            self.questions.insert(from.reply, Question::Bye(question));
        }
    }

    pub(crate) fn finish_bye(&mut self, reply: crate::event::ReplyTo, question: ByeQuestion, now: Now) {
        let ByeQuestion { session, more, codes, .. } = question;
        if !more && self.workers.find_mut(session).is_some() {
            self.end_session(session, now);
        }
        self.answer(reply, Answer::Bye(laneway_protocol::message::ByeNoted { outcomes: codes }));
    }

    // ----------------------------------------------------------------------------------------- coming and going

    pub(crate) fn add_plain_session(&mut self, name: &SessionName, now: Now) -> Result<SessionId, WireError> {
        let id = self.add_session(name, true, now)?;
        // What it was given in an earlier epoch is still its own.
        let orphans: Vec<TaskId> =
            self.running.values().filter(|task| task.session.is_none() && task.worker == *name).map(|task| task.id).collect();
        for task in orphans {
            self.reassign(task, id);
        }
        Ok(id)
    }

    fn session_of_hello(&mut self, hello: &Hello, now: Now) -> Result<SessionId, WireError> {
        if hello.kinds.is_empty() {
            return Err(WireError::new(Code::BadBody, "a worker must name at least one kind").field("kinds"));
        }
        if hello.kinds.len() > KINDS_PER_WORKER_MAX {
            let text = format!("{} kinds, at most {KINDS_PER_WORKER_MAX} are allowed", hello.kinds.len());
            return Err(WireError::new(Code::TooMany, text).field("kinds"));
        }
        for lane in hello.lanes.iter().flatten() {
            self.known_lane(lane, "lanes")?;
        }
        let id = match self.workers.by_name(&hello.session) {
            Some(id) => id,
            None => self.add_session(&hello.session, false, now)?,
        };
        let session = self.workers.get_mut(id);
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
        Ok(id)
    }

    fn add_session(&mut self, name: &SessionName, plain: bool, now: Now) -> Result<SessionId, WireError> {
        if self.workers.len() >= self.settings.sessions_max {
            let text = format!("{} workers are connected, at most that many are allowed (sessions_max)", self.workers.len());
            return Err(WireError::new(Code::Full, text).after_ms(5_000));
        }
        let id = self.workers.add(name.clone(), plain, now.mono);
        self.store(Op::SessionUp { session: name.clone(), name: name.to_string(), plain });
        Ok(id)
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
            self.drop_waiter(reply);
            self.out.push(Action::Forget(reply));
        }
        let Some(id) = self.workers.disconnected(conn) else { return };
        // Nothing may be handed to a slot whose answer would go nowhere.
        let dead: Vec<u32> = self
            .workers
            .get(id)
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
        if self.workers.get(id).beat.is_some_and(|beat| beat.conn == conn) {
            self.drop_beat(id);
        }
        if self.workers.get(id).conns.is_empty() {
            let at = now.mono.after(self.settings.disconnect_grace_ms);
            self.workers.get_mut(id).away = Some(at);
            self.timers.set(at, Timer::Away(id));
        }
    }

    /// No connection of a session came back in time: its process is dead, unless the broker itself was away.
    pub(crate) fn on_away_over(&mut self, id: SessionId, now: Now) {
        if now.mono < self.grace_until {
            self.workers.get_mut(id).away = Some(self.grace_until);
            return self.timers.set(self.grace_until, Timer::Away(id));
        }
        let session = self.workers.get_mut(id);
        session.away = None;
        let suspect = session.suspect;
        for task in session.running.clone() {
            // With a suspect in the process, only the suspect is charged.
            let charged = suspect.is_none_or(|suspect| suspect == task);
            self.end_run(task, RunEnd::Lost { charged }, now);
        }
        self.end_session(id, now);
    }

    /// Forgets a session; what it still holds goes back.
    fn end_session(&mut self, id: SessionId, now: Now) {
        for task in self.workers.get(id).running.clone() {
            self.end_run(task, RunEnd::Released, now);
        }
        let slots: Vec<u32> = self.workers.get(id).slots.keys().copied().collect();
        for slot in slots {
            let slot_id = SlotId { session: id, slot };
            if let Some(parked) = self.unpark(slot_id) {
                self.out.push(Action::Forget(parked.reply));
            }
            let (class, max) = {
                let slot = self.slot(slot_id);
                (slot.class, slot.max)
            };
            self.leave_class(class, max);
        }
        self.drop_beat(id);
        let session = self.workers.remove(id);
        if let Some(at) = session.away {
            self.timers.clear(at, Timer::Away(id));
        }
        self.store(Op::SessionGone { session: session.name });
    }

    /// Rows of an earlier epoch that nobody has resumed go back; those of plain workers keep their leases.
    pub(crate) fn on_orphans_over(&mut self, now: Now) {
        let plain = &self.plain_before;
        let orphans: Vec<TaskId> = self
            .running
            .values()
            .filter(|task| task.session.is_none() && !plain.contains(&task.worker))
            .map(|task| task.id)
            .collect();
        for task in orphans {
            self.end_run(task, RunEnd::Released, now);
        }
    }

    /// A resumed worker no longer holds these tasks of an earlier epoch.
    fn release_forgotten(&mut self, worker: &SessionName, resumed: &HashSet<TaskId>, now: Now) {
        let forgotten: Vec<TaskId> = self
            .running
            .values()
            .filter(|task| task.session.is_none() && task.worker == *worker && !resumed.contains(&task.id))
            .map(|task| task.id)
            .collect();
        for task in forgotten {
            self.end_run(task, RunEnd::Released, now);
        }
    }

    // --------------------------------------------------------------------------------------------------- leases

    /// The row of a lease that the core did not know: adopts the hand-out when it is the current one.
    pub(crate) fn claim(&mut self, found: FoundTask, lease: Lease, session: SessionId, now: Now) -> Claim {
        let id = found.id;
        if let Some(running) = self.running.get(&id) {
            if running.lease != lease {
                return Claim::Stale;
            }
            self.reassign(id, session);
            return Claim::Current;
        }
        if found.state.is_final() {
            return if found.lease == Some(lease) { Claim::Ended } else { Claim::Stale };
        }
        let recorded = found.state == TaskState::Running && found.lease == Some(lease);
        // The one hand-out that an earlier epoch made and could not record.
        let unrecorded = found.state == TaskState::Queued
            && self.past_keys.iter().any(|key| key.lease(id, found.runs + 1) == lease);
        if self.settling.contains_key(&id) || !(recorded || unrecorded) {
            return Claim::Stale;
        }
        if let Some(queue) = self.dispatch.remove(id) {
            self.demand(queue);
        }
        let worker = self.workers.get(session).name.clone();
        let run = if recorded { found.runs } else { found.runs + 1 };
        let started = Started {
            task: id,
            lease,
            run,
            worker: worker.clone(),
            at: now.wall,
            kind: found.kind.clone(),
            lane: found.lane.clone(),
            attempt: found.attempts + 1,
            wait_ms: now.wall.since(found.due),
        };
        self.add_orphan(FoundTask { lease: Some(lease), runs: run, worker: Some(worker.to_string()), ..found }, now);
        self.reassign(id, session);
        if unrecorded {
            self.store(Op::Started(started));
        }
        Claim::Current
    }

    /// A running task belongs to this session now.
    pub(crate) fn reassign(&mut self, task: TaskId, session: SessionId) {
        let running = self.running.get_mut(&task).expect("only a running task is reassigned");
        if running.session == Some(session) {
            return;
        }
        let before = (running.session.replace(session), running.slot.take());
        let losses = running.losses;
        if let (Some(before), slot) = before {
            let before = self.workers.get_mut(before);
            before.running.remove(&task);
            before.told.remove(&task);
            if before.suspect == Some(task) {
                before.suspect = None;
            }
            if let Some(slot) = slot.and_then(|slot| before.slots.get_mut(&slot)) {
                slot.running.remove(&task);
            }
        }
        let session = self.workers.get_mut(session);
        session.running.insert(task);
        if losses > 0 && session.suspect.is_none() {
            session.suspect = Some(task);
        }
    }

    pub(crate) fn on_cancel_requested(&mut self, tasks: &[TaskId], now: Now) {
        for id in tasks {
            let Some(task) = self.running.get_mut(id).filter(|task| task.stop.is_none()) else { continue };
            task.stop = Some(Stop::Cancel);
            self.timers.clear(task.deadline, Timer::Lease(*id));
            task.deadline = task.deadline.min(now.mono.after(self.settings.cancel_grace_ms));
            self.timers.set(task.deadline, Timer::Lease(*id));
            self.tell_stop(*id);
        }
    }

    pub(crate) fn on_drain(&mut self, from: Asker, drain: DrainAsked) {
        if drain.off {
            self.drain = None;
        } else if self.drain.is_none_or(|now| drain.release && !now.release) {
            self.drain = Some(Drain { release: drain.release });
            self.send_parked_away();
            let sessions: Vec<SessionId> = self.workers.iter().map(|(id, _)| id).collect();
            for id in sessions {
                self.answer_beat(id);
            }
        }
        let drained = Drained {
            draining: self.drain.is_some(),
            workers: self.workers.len() as u64,
            running: self.running.len() as u64,
        };
        self.answer(from.reply, Answer::Drain(drained));
    }

    fn is_running(&self, held: Held) -> bool {
        self.running.get(&held.0).is_some_and(|running| running.lease == held.1)
    }

    /// Whether a lease is the current one, or was until a moment ago.
    fn is_current(&self, held: Held) -> bool {
        self.is_running(held) || self.settling.get(&held.0).is_some_and(|&(lease, _)| lease == held.1)
    }
}

fn label(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).scan(0, |bytes, c| {
        *bytes += c.len_utf8();
        (*bytes <= LABEL_BYTES_MAX).then_some(c)
    }).collect()
}
