//! Telling workers to stop: a cancel, a lease that runs out, a task that went elsewhere, a drain. They hear it in the
//! answer to their BEAT, which is parked for that, or to their next PROGRESS.

use laneway_protocol::limits::{BATCH_MAX, WAIT_MS_MAX};
use laneway_protocol::message::{Answer, Beat, BeatNoted, Drain as DrainAsked, Drained, Held, Settled};
use laneway_protocol::{Code, TaskId, WireError};

use crate::action::Action;
use crate::broker::Broker;
use crate::event::Asker;
use crate::limits::WORKERS_TOLD_MAX;
use crate::outcome::cut;
use crate::ready::hello_first;
use crate::task::{RunEnd, Stop};
use crate::time::{Millis, Now};
use crate::timer::Timer;
use crate::worker::{ParkedBeat, Session, SessionId};

/// No task is handed out and the workers are asked to leave; or to one worker none is, and it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// They hand back what they run instead of finishing it.
    pub(crate) release: bool,
}

impl Broker {
    pub(crate) fn on_beat(&mut self, from: Asker, beat: &Beat, now: Now) {
        let known = self.session_of(&beat.session, now);
        let Some(id) = known.filter(|_| beat.epoch.is_none_or(|epoch| epoch == self.epoch)) else {
            return self.refuse(from.reply, hello_first("the session is not known in this epoch"));
        };
        self.heard(id, from.conn);
        self.drop_beat(id);
        let stale: Vec<Held> = beat.running.iter().copied().filter(|held| !self.is_current(*held)).collect();
        let until = now.mono.after(beat.wait_ms.min(WAIT_MS_MAX));
        let draining = self.drain_of(id).is_some();
        let running = &self.running;
        let session = self.workers.get_mut(id);
        let news = session.running.iter().any(|task| running[task].stop.is_some() && !session.told.contains(task))
            || (draining && !session.told_drain)
            || session.slots.values().any(|slot| slot.parked.is_some() && slot.settle.is_ripe());
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
        let drain = self.drain_of(id);
        let running = &self.running;
        let session = self.workers.get_mut(id);
        // Those that were told are told again, for that answer may have been lost, but not before the others.
        let mut stopped: Vec<TaskId> =
            session.running.iter().copied().filter(|task| running[task].stop.is_some()).collect();
        stopped.sort_by_key(|task| session.told.contains(task));
        stopped.truncate(BATCH_MAX);
        let cancel = stopped.iter().map(|task| Held(*task, running[task].lease)).collect();
        session.told.extend(stopped);
        session.told_drain = drain.is_some();
        let settled = session.slots.iter_mut().filter(|(_, slot)| slot.settle.has_news());
        let settled = settled.take(BATCH_MAX).map(|(&number, slot)| Settled(number, slot.settle.tell())).collect();
        let noted = BeatNoted {
            epoch: self.epoch,
            cancel,
            stale,
            settled,
            drain: drain.is_some(),
            release: drain.is_some_and(|drain| drain.release),
        };
        self.answer(beat.reply, Answer::Beat(noted));
    }

    /// Outcomes of slots that wait for a task are on disk: the process hears it at once if its BEAT is parked, for the answers
    /// to its READYs may be long in coming.
    pub(crate) fn tell_settled(&mut self, id: SessionId) {
        let session = self.workers.find_mut(id);
        let is_news =
            |session: &mut Session| session.slots.values().any(|slot| slot.parked.is_some() && slot.settle.is_ripe());
        if session.is_some_and(is_news) {
            self.answer_beat(id);
        }
    }

    /// A newer BEAT takes the place of the parked one, or its connection is gone.
    pub(crate) fn drop_beat(&mut self, id: SessionId) {
        if let Some(beat) = self.workers.get_mut(id).beat.take() {
            self.timers.clear(beat.until, Timer::Beat(id));
            self.out.push(Action::Forget(beat.reply));
        }
    }

    /// A running task is to stop: its worker hears it at once if its BEAT is parked.
    pub(crate) fn tell_stop(&mut self, task: TaskId) {
        if let Some(session) = self.running.get(&task).and_then(|running| running.session) {
            self.answer_beat(session);
        }
    }

    /// The row of a running task went another way by another hand: its lease is worth nothing any more. Nothing is
    /// written; its worker hears that it is stale.
    pub(crate) fn lose_lease(&mut self, id: TaskId) {
        if !self.running.contains_key(&id) {
            return;
        }
        let running = self.drop_running(id);
        if let Some(session) = running.session {
            self.answer_beat_with(session, vec![Held(id, running.lease)]);
        }
    }

    /// A task was handed out while its end, by a cancel or by the store's own hand, was on the way here from the table, which found it
    /// queued. The record of the hand-out comes behind that, and should the task have been queued again in between, it would be left
    /// running for nobody. So the run is given back behind its record, under its lease; where the row has ended that changes nothing.
    pub(crate) fn call_off(&mut self, id: TaskId, now: Now) {
        let Some(running) = self.running.get(&id) else { return };
        let (session, held) = (running.session, Held(id, running.lease));
        self.end_run(id, RunEnd::Unreceived, now);
        if let Some(session) = session {
            self.answer_beat_with(session, vec![held]);
        }
    }

    pub(crate) fn on_cancel_requested(&mut self, tasks: &[TaskId], now: Now) {
        for &id in tasks {
            let Some(task) = self.running.get_mut(&id).filter(|task| task.stop.is_none()) else { continue };
            task.stop = Some(Stop::Cancel);
            if task.session.is_some() {
                self.hasten(id, now.mono.after(self.settings.cancel_grace_ms));
                self.tell_stop(id);
            }
            // Whoever comes back for an orphan hears it then.
        }
    }

    /// A lease has run out: first the worker is told to stop, then, after a grace, the run has failed.
    pub(crate) fn on_lease_over(&mut self, id: TaskId, now: Now) {
        let Some(task) = self.running.get_mut(&id) else { return };
        if now.mono < self.grace.until && task.since <= self.grace.since {
            // The time ran while the broker did not; the worker may have said something that is still to be read.
            task.deadline = self.grace.until;
            return self.timers.set(task.deadline, Timer::Lease(id));
        }
        if task.stop.is_some() {
            return self.end_run(id, RunEnd::TimedOut, now);
        }
        task.stop = Some(Stop::Timeout);
        task.deadline = now.mono.after(self.settings.cancel_grace_ms);
        self.timers.set(task.deadline, Timer::Lease(id));
        self.tell_stop(id);
    }

    /// Ends a lease at `at`, unless it ends before.
    pub(crate) fn hasten(&mut self, id: TaskId, at: Millis) {
        let task = self.running.get_mut(&id).expect("only a running task has a deadline");
        self.timers.clear(task.deadline, Timer::Lease(id));
        task.deadline = task.deadline.min(at);
        self.timers.set(task.deadline, Timer::Lease(id));
    }

    /// Whether a session is asked to leave, and how: with all the others, or alone.
    pub(crate) fn drain_of(&self, id: SessionId) -> Option<Drain> {
        match (self.drain, self.workers.get(id).drain) {
            (Some(all), Some(own)) => Some(Drain { release: all.release || own.release }),
            (all, own) => all.or(own),
        }
    }

    pub(crate) fn on_drain(&mut self, from: Asker, drain: &DrainAsked) {
        if let Some(worker) = &drain.worker {
            return match self.session_named(worker) {
                Ok(id) => self.drain_worker(from, id, drain),
                Err(error) => self.refuse(from.reply, error),
            };
        }
        let wanted = if drain.off {
            None
        } else {
            Some(Drain { release: drain.release || self.drain.is_some_and(|before| before.release) })
        };
        if self.drain.map(|drain| drain.release) != wanted.map(|drain| drain.release) {
            self.drain = wanted;
            let sessions: Vec<SessionId> = self.workers.iter().map(|(id, _)| id).collect();
            if self.drain.is_some() {
                self.send_parked_away();
            }
            for id in sessions {
                self.workers.get_mut(id).told_drain = false;
                if self.drain.is_some() {
                    self.answer_beat(id);
                }
            }
        }
        let drained = Drained {
            draining: self.drain.is_some(),
            workers: self.workers.len() as u64,
            running: self.running.len() as u64,
        };
        self.answer(from.reply, Answer::Drain(drained));
    }

    fn drain_worker(&mut self, from: Asker, id: SessionId, drain: &DrainAsked) {
        let session = self.workers.get_mut(id);
        let before = session.drain;
        session.drain = (!drain.off).then(|| Drain { release: drain.release || before.is_some_and(|own| own.release) });
        if session.drain != before {
            session.told_drain = false;
            if session.drain.is_some() {
                self.send_away(id);
                self.answer_beat(id);
            }
        }
        let session = self.workers.get(id);
        let (draining, running) = (session.drain.is_some(), session.running.len() as u64);
        self.answer(from.reply, Answer::Drain(Drained { draining, workers: 1, running }));
    }

    /// The one session that people mean: by all of its name, by its worker's name in either form, or by how it begins.
    fn session_named(&self, word: &str) -> Result<SessionId, WireError> {
        let by = |fits: &dyn Fn(&Session) -> bool| -> Vec<SessionId> {
            self.workers.iter().filter(|(_, session)| fits(session)).map(|(id, _)| id).collect()
        };
        let ways: [&dyn Fn(&Session) -> bool; 3] = [
            &|session| session.name.as_str() == word,
            &|session| session.about.name == word || session.worker().label() == word,
            &|session| session.name.as_str().starts_with(word),
        ];
        let found = ways.into_iter().map(by).find(|found| !found.is_empty()).filter(|_| !word.is_empty());
        match found.as_deref() {
            Some([id]) => Ok(*id),
            None | Some([]) => {
                let text = format!("no worker '{}' is connected; WORKERS lists those that are", cut(word.to_owned()));
                Err(WireError::new(Code::NotFound, text).field("worker"))
            }
            Some(several) => {
                let sessions = several.iter().map(|id| self.workers.get(*id).name.as_str());
                let shown: Vec<&str> = sessions.take(WORKERS_TOLD_MAX).collect();
                let text = format!(
                    "{} workers are '{}': name one by its session ({})",
                    several.len(),
                    cut(word.to_owned()),
                    shown.join(", ")
                );
                Err(WireError::new(Code::BadBody, text).field("worker"))
            }
        }
    }

    pub(crate) fn is_running(&self, held: Held) -> bool {
        self.running.get(&held.0).is_some_and(|running| running.lease == held.1)
    }

    /// Whether a lease is the current one, or was until its worker said an outcome that is not on disk yet.
    fn is_current(&self, held: Held) -> bool {
        self.is_running(held) || self.settling.get(&held.0).is_some_and(|settling| settling.repeats(held.1))
    }
}
