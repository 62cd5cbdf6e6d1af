//! Outcomes: how a run ends, by its worker's word or without one.

use laneway_protocol::TaskId;
use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::message::{End, Held, NewTask, Outcome, OutcomeCode};

use crate::action::{Next, Op};
use crate::broker::Broker;
use crate::event::{FoundTask, ReplyTo};
use crate::id_map::IdMap;
use crate::ready::hello_first;
use crate::resume::Claim;
use crate::settle::{EndHook, FindFor, Pending, PendingEnd, Settling};
use crate::task::{RunEnd, Running};
use crate::time::Now;
use crate::timer::Timer;
use crate::unique::derive_key;
use crate::worker::{SessionId, SlotId};

/// Where outcomes came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) reply: ReplyTo,
    pub(crate) session: SessionId,
    /// The slot's batch that they are, when the answer need not wait for their commit.
    pub(crate) settle: Option<(SlotId, u64)>,
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
    /// Deals with each outcome as far as that can be done at once. Gives how many keep the question waiting for the store.
    pub(crate) fn take_outcomes(
        &mut self,
        said: Said,
        outcomes: Vec<Outcome>,
        codes: &mut [OutcomeCode],
        now: Now,
    ) -> usize {
        let Said { reply, session, settle } = said;
        let (mut recording, mut unknown) = (0, Vec::new());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            // With a batch number the answer does not wait for the commit of what is known to be good.
            let hook = EndHook { question: settle.is_none().then_some((reply, index)), settle };
            match self.take_outcome(outcome, hook, now) {
                Taken::Recording => recording += 1,
                Taken::Known(code) => codes[index] = code,
                Taken::Unknown(outcome) => unknown.push((index, outcome)),
            }
        }
        if let Some((slot, batch)) = settle {
            self.slot(slot).settle.open(batch, recording + unknown.len());
        }
        let waiting = if settle.is_none() { recording } else { 0 } + unknown.len();
        if !unknown.is_empty() {
            let ids = unknown.iter().map(|(_, outcome)| outcome.task).collect();
            let find = FindFor::Outcomes { unknown, settle, session };
            self.store_for(Op::Find(ids), Pending::Find { reply, find });
        }
        waiting
    }

    fn take_outcome(&mut self, outcome: Outcome, hook: EndHook, now: Now) -> Taken {
        let held = Held(outcome.task, outcome.lease);
        if self.is_running(held) {
            self.record_outcome(outcome, hook, now);
            return Taken::Recording;
        }
        match self.settling.get(&held.0) {
            Some(settling) if settling.repeats(held.1) => {
                self.join_settling(held, hook);
                Taken::Recording
            }
            None if !self.running.contains_key(&held.0) => Taken::Unknown(outcome),
            _ => {
                self.stats.stale += 1;
                Taken::Known(OutcomeCode::Stale)
            }
        }
    }

    /// The rows of outcomes that the core knew nothing about.
    pub(crate) fn on_outcomes_found(
        &mut self,
        reply: ReplyTo,
        unknown: Vec<(usize, Outcome)>,
        settle: Option<(SlotId, u64)>,
        session: SessionId,
        found: Vec<FoundTask>,
        now: Now,
    ) {
        if self.workers.find_mut(session).is_none() {
            // Nothing was done with these: whoever asks says them again, after a HELLO.
            if self.drop_question(reply) {
                self.refuse(reply, hello_first("the session has ended"));
            }
            return;
        }
        let rows: IdMap<TaskId, FoundTask> = found.into_iter().map(|row| (row.id, row)).collect();
        for (index, outcome) in unknown {
            let hook = EndHook { question: Some((reply, index)), settle };
            match self.take_outcome(outcome, hook, now) {
                Taken::Recording => {}
                Taken::Known(code) => self.run_hook(hook, code, now),
                Taken::Unknown(outcome) => {
                    let row = rows.get(&outcome.task).cloned();
                    match row.map_or(Claim::Stale, |row| self.claim(row, outcome.lease, session, now)) {
                        // Its code follows when it is on disk.
                        Claim::Current => self.record_outcome(outcome, hook, now),
                        Claim::Ended => self.run_hook(hook, OutcomeCode::Recorded, now),
                        Claim::Stale => {
                            self.stats.stale += 1;
                            self.run_hook(hook, OutcomeCode::Stale, now);
                        }
                    }
                }
            }
        }
    }

    /// Ends the run that an outcome is about; its lease was found good.
    fn record_outcome(&mut self, outcome: Outcome, hook: EndHook, now: Now) {
        let Outcome { task, end, result, error, after_ms, dead, mut spawn, .. } = outcome;
        spawn.iter_mut().for_each(derive_key);
        let bytes_max = self.settings.result_bytes_max;
        let end = match end {
            End::Done => match result {
                Some(result) if result.bytes.len() > bytes_max => RunEnd::Failed {
                    error: format!(
                        "result of {} bytes is over the limit of {bytes_max} (result_bytes_max): keep it elsewhere and return its place",
                        result.bytes.len()
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
        self.settling.get_mut(&task).expect("it has just ended").said = true;
    }

    pub(crate) fn end_run(&mut self, id: TaskId, end: RunEnd, now: Now) {
        self.end_run_with(id, end, Vec::new(), None, now);
    }

    /// Takes a task off its worker and sends its record to the store.
    pub(crate) fn end_run_with(
        &mut self,
        id: TaskId,
        end: RunEnd,
        spawn: Vec<NewTask>,
        hook: Option<EndHook>,
        now: Now,
    ) {
        let running = self.drop_running(id);
        match &end {
            RunEnd::Done(_) | RunEnd::Already => self.stats.done += 1,
            RunEnd::Failed { .. } | RunEnd::TimedOut => self.stats.failed += 1,
            RunEnd::Lost { charged: true, .. } => self.stats.lost += 1,
            // Counted when the row says so, whatever the run ended with.
            RunEnd::Cancelled => {}
            RunEnd::Snoozed { .. } | RunEnd::Released | RunEnd::Unreceived | RunEnd::Lost { charged: false, .. } => {
                self.stats.released += 1;
            }
        }
        let mut ended = running.end(end, &self.settings, &mut self.random, now);
        ended.spawn = spawn;
        let watched = self.waiters.is_watched(id);
        let result = match &ended.next {
            Next::Done(result) if watched => result.clone(),
            _ => None,
        };
        let hooks = hook.into_iter().collect();
        let by_sql = ended.next == Next::Already;
        let end = PendingEnd { task: id, hooks, watched, result, error: ended.error.clone(), by_sql };
        let op = self.store_for(Op::Ended(ended), Pending::End(end));
        self.settling.insert(id, Settling { lease: running.lease, op, said: false });
    }

    /// Adds one who hears when a run that has ended is on disk. False when no run under this lease is on its way there.
    pub(crate) fn join_settling(&mut self, held: Held, hook: EndHook) -> bool {
        let Some(settling) = self.settling.get(&held.0).filter(|settling| settling.lease == held.1) else {
            return false;
        };
        let Some(Pending::End(end)) = self.pending.get_mut(settling.op) else { return false };
        self.awaited |= hook.question.is_some();
        end.hooks.push(hook);
        true
    }

    /// Forgets that a task runs; nothing is recorded but progress that was not written yet.
    pub(crate) fn drop_running(&mut self, id: TaskId) -> Running {
        if let Some(session) = self.running.get(&id).and_then(|running| running.session) {
            self.detach(id, session);
        }
        let mut running = self.running.remove(&id).expect("only a running task ends");
        self.timers.clear(running.deadline, Timer::Lease(id));
        self.leave_gates(&running);
        self.last_words.keep(id, running.group, std::mem::take(&mut running.events));
        if let Some(at) = running.note_at() {
            self.timers.clear(at, Timer::Note(id));
            // The last word of a run stays in its row, however it ends.
            self.store(Op::Noted(running.unwritten.take().expect("it has a time to be written at")));
        }
        running
    }

    /// Takes a running task off the lists of the session and the slot that hold it.
    pub(crate) fn detach(&mut self, id: TaskId, session_id: SessionId) {
        let slot = self.running.get_mut(&id).and_then(|running| running.slot.take());
        let session = self.workers.get_mut(session_id);
        session.running.remove(&id);
        session.told.remove(&id);
        if session.suspect == Some(id) {
            let suspect = |task: &TaskId| self.running[task].losses > 0;
            session.suspect = session.running.iter().copied().find(suspect);
            if session.suspect.is_none() {
                self.cleared.push(session_id);
            }
        }
        if let Some(slot) = slot.and_then(|slot| session.slots.get_mut(&slot)) {
            slot.running.remove(&id);
        }
    }
}

/// Cuts a text to the wire's bound.
pub(crate) fn cut(mut text: String) -> String {
    cut_to(&mut text, TEXT_BYTES_MAX);
    text
}

/// Cuts a text at a character boundary.
pub(crate) fn cut_to(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}
