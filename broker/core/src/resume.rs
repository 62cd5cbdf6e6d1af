//! What outlives a broker: rows that were running, sessions that come back for them, hand-outs that no row shows. And the
//! grace in which nobody is blamed for the broker's own absence.

use std::collections::{BTreeMap, HashSet};

use laneway_protocol::message::Held;
use laneway_protocol::{Lease, SessionName, TaskId, TaskState};

use crate::action::{Op, Started};
use crate::broker::Broker;
use crate::event::{FoundTask, ReplyTo};
use crate::id_map::IdMap;
use crate::lease::LeaseKey;
use crate::settle::Question;
use crate::task::{RunEnd, Running, Stop, left_ms, timeout_ms};
use crate::time::{Millis, Now};
use crate::timer::Timer;
use crate::worker::SessionId;

/// Hand-outs wait until these sessions have resumed: one of them may run a task whose hand-out no row shows.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) until: Millis,
    pub(crate) expected: HashSet<SessionName>,
}

/// Nobody is declared dead before `until`, and no lease granted up to `since` ends: the broker itself was away.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Grace {
    pub(crate) since: Millis,
    pub(crate) until: Millis,
}

/// What a row says about a lease that the core did not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the current one; the task runs now.
    Current,
    /// The same run has ended, on disk or on its way there.
    Ended,
    Stale,
}

impl Broker {
    /// At start: who may come back, and how long hand-outs wait for them.
    pub(crate) fn expect_back(&mut self, sessions: Vec<(SessionName, bool)>, unclean: bool, now: Now) {
        if self.running.is_empty() && sessions.is_empty() {
            return;
        }
        self.grace = Grace { since: now.mono, until: now.mono.after(self.settings.resume_grace_ms) };
        self.timers.set(self.grace.until, Timer::Orphans);
        // A plain worker says no HELLO, so there is nothing to wait for.
        let expected: HashSet<SessionName> =
            sessions.iter().filter(|(_, plain)| !plain).map(|(name, _)| name.clone()).collect();
        self.before = sessions.into_iter().collect();
        if unclean && !expected.is_empty() && self.settings.restart_hold_ms > 0 {
            let until = now.mono.after(self.settings.restart_hold_ms);
            self.timers.set(until, Timer::Hold);
            self.hold = Some(Hold { until, expected });
        }
    }

    /// The shell itself was away: whatever happened meanwhile is nobody's fault.
    pub(crate) fn on_stalled(&mut self, now: Now) {
        self.grace =
            Grace { since: now.mono, until: self.grace.until.max(now.mono.after(self.settings.resume_grace_ms)) };
        if let Some(hold) = &mut self.hold {
            // Those who are expected may have spoken; their words are still to be read.
            self.timers.clear(hold.until, Timer::Hold);
            hold.until = hold.until.max(now.mono.after(self.settings.restart_hold_ms));
            self.timers.set(hold.until, Timer::Hold);
        }
    }

    /// A session has said its HELLO to the end: what it did not name, it no longer holds.
    pub(crate) fn on_resumed(&mut self, name: &SessionName, now: Now) {
        for task in self.orphans(|worker| worker == name) {
            self.end_run(task, RunEnd::Released, now);
        }
        if let Some(hold) = &mut self.hold {
            hold.expected.remove(name);
            if hold.expected.is_empty() {
                self.end_hold(now);
            }
        }
    }

    pub(crate) fn end_hold(&mut self, now: Now) {
        if let Some(hold) = self.hold.take() {
            self.timers.clear(hold.until, Timer::Hold);
            self.feed_all(now);
        }
    }

    /// Rows of an earlier epoch that nobody has resumed go back; those of plain workers keep their leases.
    pub(crate) fn on_orphans_over(&mut self, now: Now) {
        if now.mono < self.grace.until {
            return self.timers.set(self.grace.until, Timer::Orphans);
        }
        for task in self.orphans(|worker| self.before.get(worker) != Some(&true)) {
            self.end_run(task, RunEnd::Released, now);
        }
        let kept: HashSet<SessionName> =
            self.running.values().filter(|task| task.session.is_none()).map(|task| task.worker.clone()).collect();
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.before).into_iter().partition(|(name, _)| kept.contains(name));
        self.before = stay;
        for (session, _) in gone {
            self.store(Op::SessionGone { session });
        }
    }

    /// Running tasks that no session of this epoch holds, by the worker that their row names; in order of their ids.
    pub(crate) fn orphans(&self, of: impl Fn(&SessionName) -> bool) -> Vec<TaskId> {
        let orphans = self.running.values().filter(|task| task.session.is_none() && of(&task.worker));
        let mut ids: Vec<TaskId> = orphans.map(|task| task.id).collect();
        ids.sort_unstable();
        ids
    }

    /// A row that was running when the broker started: its worker may come back for it.
    pub(crate) fn add_orphan(&mut self, found: FoundTask, now: Now) {
        let Some(lease) = found.lease else { return };
        let timeout = timeout_ms(found.timeout_ms, &found.kind, &self.settings);
        let left = left_ms(timeout, found.started_at, now.wall).max(self.settings.resume_grace_ms);
        let stop = found.cancel_requested.then_some(Stop::Cancel);
        let worker = found.worker.and_then(|name| SessionName::new(name).ok());
        let task = Running {
            id: found.id,
            max_attempts: found.max_attempts.unwrap_or(self.settings.kind(&found.kind).max_attempts),
            kind: found.kind,
            lane: found.lane,
            fair_key: found.fair_key,
            group: found.group,
            lease,
            run: found.runs,
            attempts: found.attempts,
            losses: found.losses,
            worker: worker.unwrap_or_else(|| SessionName::new("unknown").expect("a plain word is a name")),
            session: None,
            slot: None,
            since: now.mono,
            deadline: now.mono.after(left),
            stop,
            events: self.last_words.take(found.id, found.runs),
            noted: None,
            unwritten: None,
        };
        self.timers.set(task.deadline, Timer::Lease(task.id));
        let id = task.id;
        self.running.insert(id, task);
        self.join_gates(id, now);
    }

    /// The rows of what a HELLO named and the core did not know.
    pub(crate) fn on_resume_found(&mut self, reply: ReplyTo, held: Vec<Held>, found: Vec<FoundTask>, now: Now) {
        let Some(Question::Hello(mut question)) = self.questions.remove(&reply) else { return };
        self.timers.clear(question.late_at, Timer::Question(reply));
        if self.workers.find_mut(question.session).is_some() {
            let mut rows: IdMap<TaskId, FoundTask> = found.into_iter().map(|row| (row.id, row)).collect();
            for held in held {
                let claim =
                    rows.remove(&held.0).map_or(Claim::Stale, |row| self.claim(row, held.1, question.session, now));
                if claim == Claim::Stale {
                    question.lost.push(held);
                }
            }
        }
        self.welcome(reply, question, now);
    }

    /// The row of a lease that the core did not know: adopts the hand-out when it is the current one.
    pub(crate) fn claim(&mut self, found: FoundTask, lease: Lease, session: SessionId, now: Now) -> Claim {
        let id = found.id;
        if let Some(running) = self.running.get(&id) {
            if running.lease != lease {
                return Claim::Stale;
            }
            self.reassign(id, session, now);
            return Claim::Current;
        }
        if let Some(settling) = self.settling.get(&id) {
            return if settling.repeats(lease) { Claim::Ended } else { Claim::Stale };
        }
        if found.state.is_final() {
            return if found.lease == Some(lease) { Claim::Ended } else { Claim::Stale };
        }
        let recorded = found.state == TaskState::Running && found.lease == Some(lease);
        let unrecorded = self.is_unrecorded(&found, lease);
        if !(recorded || unrecorded) {
            return Claim::Stale;
        }
        self.take_out(id);
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
        self.reassign(id, session, now);
        if unrecorded {
            self.store(Op::Started(started));
        }
        Claim::Current
    }

    /// Whether this is the one hand-out of a queued row that an earlier epoch made and could not record. Not once the row was
    /// replaced, or is about to be: what its worker has is the payload from before.
    fn is_unrecorded(&self, found: &FoundTask, lease: Lease) -> bool {
        if found.state != TaskState::Queued || self.secured.contains(found.id) {
            return false;
        }
        let marks = |key: &LeaseKey| found.lease == Some(key.mark(found.id, found.created_at));
        let n_since = match found.lease {
            None => self.past_keys.len(),
            // In the epoch of the mark the row may have been handed out behind it.
            Some(_) => self.past_keys.iter().position(marks).map_or(0, |place| place + 1),
        };
        let made = |key: &LeaseKey| key.lease(found.id, found.created_at, found.runs + 1) == lease;
        self.past_keys[..n_since].iter().any(made)
    }

    /// A running task belongs to this session, which says that it has received it.
    pub(crate) fn reassign(&mut self, id: TaskId, session: SessionId, now: Now) {
        let before = self.running[&id].session;
        if let Some(before) = before {
            self.detach(id, before);
        }
        let running = self.running.get_mut(&id).expect("only a running task is reassigned");
        running.session = Some(session);
        running.worker.clone_from(&self.workers.get(session).name);
        let owner = self.workers.get_mut(session);
        owner.running.insert(id);
        if running.losses > 0 && owner.suspect.is_none() {
            owner.suspect = Some(id);
        }
        if before.is_none() && running.stop.is_some() {
            // The cancel came while its worker was not there.
            self.hasten(id, now.mono.after(self.settings.cancel_grace_ms));
            self.tell_stop(id);
        }
    }
}
