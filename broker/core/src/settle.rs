//! What hangs on the store: questions that wait for a commit, and what to do when its result is in.

use laneway_protocol::message::{Answer, Final, HandOut, Held, Outcome, OutcomeCode, Verdicts};
use laneway_protocol::{Code, Payload, TaskId, WireError};

use crate::action::{EndedAs, Ending, OpResult};
use crate::broker::Broker;
use crate::event::{ConnId, FoundTask, OpId, ReplyTo};
use crate::session::Claim;
use crate::time::{Millis, Now};
use crate::timer::Timer;
use crate::worker::{SessionId, SlotId};

/// A question that is answered when the store has reported.
#[derive(Debug)]
pub(crate) enum Question {
    Ready(ReadyQuestion),
    Hello(HelloQuestion),
    Bye(ByeQuestion),
    /// One operation, one answer.
    Simple { late_at: Millis },
}

#[derive(Debug)]
pub(crate) struct ReadyQuestion {
    pub(crate) slot: SlotId,
    pub(crate) conn: ConnId,
    pub(crate) max: usize,
    pub(crate) until: Millis,
    /// When it must be answered although the store has not reported.
    pub(crate) late_at: Millis,
    pub(crate) committed: bool,
    pub(crate) codes: Vec<OutcomeCode>,
    /// Outcomes that hang on the store.
    pub(crate) left: usize,
}

#[derive(Debug)]
pub(crate) struct HelloQuestion {
    pub(crate) session: SessionId,
    pub(crate) lost: Vec<Held>,
    pub(crate) more: bool,
    pub(crate) late_at: Millis,
}

#[derive(Debug)]
pub(crate) struct ByeQuestion {
    pub(crate) session: SessionId,
    pub(crate) more: bool,
    pub(crate) codes: Vec<OutcomeCode>,
    pub(crate) left: usize,
    pub(crate) late_at: Millis,
}

/// What to do with the result of an operation.
#[derive(Debug)]
pub(crate) enum Pending {
    End(PendingEnd),
    Find { reply: ReplyTo, find: FindFor },
    Submit { reply: ReplyTo, conn: ConnId, until: Millis },
    Verdicts { reply: ReplyTo, requeue: bool },
    Rows { reply: ReplyTo, detail: bool },
    Lanes { reply: ReplyTo },
    Stats { reply: ReplyTo },
    /// Which of a waiter's tasks have ended already.
    Check { reply: ReplyTo },
    /// The task that a (kind, key) stands for.
    Key { reply: ReplyTo, wait: Box<laneway_protocol::message::WaitFor>, conn: ConnId, until: Millis },
    /// How a watched task ended that an app changed under the broker.
    Look,
    /// Nobody waits for it.
    Nothing,
}

/// Why rows are looked up by id.
#[derive(Debug)]
pub(crate) enum FindFor {
    Resume(Vec<Held>),
    Outcomes { unknown: Vec<(usize, Outcome)>, settle: Option<(SlotId, u64)>, session: SessionId },
    /// Hand-outs that are told only once they are recorded.
    Committed { answer: Box<HandOut>, slot: SlotId },
}

/// A run on its way to the disk.
#[derive(Debug)]
pub(crate) struct PendingEnd {
    pub(crate) task: TaskId,
    pub(crate) hooks: Vec<EndHook>,
    /// For those who wait, if anybody did when the run ended.
    pub(crate) result: Option<Payload>,
    pub(crate) error: Option<String>,
}

/// Who hears when an end is on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndHook {
    /// A question, and which of its outcomes this is.
    pub(crate) question: Option<(ReplyTo, usize)>,
    /// A slot's batch of outcomes.
    pub(crate) settle: Option<(SlotId, u64)>,
}

impl Broker {
    pub(crate) fn on_committed(&mut self, results: Vec<(OpId, OpResult)>, now: Now) {
        for (op, result) in results {
            let pending = self.pending.remove(&op).expect("an operation is reported once");
            self.on_result(op, pending, result, now);
        }
        if self.blocked && self.pending.len() < crate::limits::OPS_MAX / 2 {
            self.blocked = false;
            self.feed_all(now);
        }
    }

    fn on_result(&mut self, op: OpId, pending: Pending, result: OpResult, now: Now) {
        match (pending, result) {
            (Pending::End(end), OpResult::Ended(ended)) => self.on_ended(op, end, ended, now),
            (Pending::Find { reply, find }, OpResult::Found(found)) => self.on_found(reply, find, found, now),
            (Pending::Submit { reply, conn, until }, OpResult::Submitted(stored)) => {
                self.on_submitted(reply, conn, until, stored, now);
            }
            (Pending::Submit { reply, .. }, OpResult::Refused { index, field, reason }) => {
                if self.close_question(reply) {
                    let error = WireError::new(Code::BadTask, format!("task number {index}: {reason}"));
                    self.refuse(reply, error.field(format!("tasks[{index}].{field}")));
                }
            }
            (Pending::Verdicts { reply, requeue }, OpResult::Verdicts(verdicts)) => {
                if self.close_question(reply) {
                    let verdicts = Verdicts { verdicts };
                    self.answer(reply, if requeue { Answer::Requeue(verdicts) } else { Answer::Cancel(verdicts) });
                }
            }
            (Pending::Rows { reply, detail }, OpResult::Rows(rows)) => self.on_rows(reply, rows, detail, now),
            (Pending::Lanes { reply }, OpResult::Counts(counts)) => self.on_lane_counts(reply, &counts),
            (Pending::Stats { reply }, OpResult::Counts(counts)) => self.on_stats_counts(reply, counts, now),
            (Pending::Check { reply }, OpResult::Endings(endings)) => self.on_checked(reply, endings),
            (Pending::Key { reply, wait, conn, until }, OpResult::Found(found)) => {
                self.on_key_found(reply, conn, *wait, until, &found, now);
            }
            (Pending::Look, OpResult::Endings(endings)) => {
                for (task, ending) in endings {
                    if let Ending::Final(ended) = ending {
                        self.tell_ended(&ended);
                    } else if matches!(ending, Ending::Pruned | Ending::NotFound) {
                        self.tell_vanished(task);
                    }
                }
            }
            (Pending::Nothing, _) => {}
            (pending, result) => panic!("operation {op:?} of {pending:?} came back with {result:?}"),
        }
    }

    fn on_ended(&mut self, op: OpId, end: PendingEnd, ended: EndedAs, now: Now) {
        if self.settling.get(&end.task).is_some_and(|&(_, of)| of == op) {
            self.settling.remove(&end.task);
        }
        let (code, state, error) = match ended {
            EndedAs::Written(state) => (OutcomeCode::Ok, Some(state), end.error),
            EndedAs::Recorded(state) => (OutcomeCode::Recorded, Some(state), end.error),
            EndedAs::Overtaken => {
                self.stats.stale += 1;
                (OutcomeCode::Stale, None, None)
            }
            EndedAs::SpawnRefused { state, reason } => (OutcomeCode::Refused, Some(state), Some(reason)),
        };
        for hook in end.hooks {
            self.run_hook(hook, code, now);
        }
        match state {
            Some(state) if state.is_final() && self.waiters.is_watched(end.task) => {
                self.tell_ended(&Final { task: end.task, state, result: end.result, error });
            }
            None if self.waiters.is_watched(end.task) => {
                self.store_for(crate::action::Op::Endings(vec![end.task]), Pending::Look);
            }
            _ => {}
        }
    }

    fn run_hook(&mut self, hook: EndHook, code: OutcomeCode, now: Now) {
        if let Some((slot, batch)) = hook.settle {
            if let Some(slot) = self.workers.slot_mut(slot) {
                slot.settle.close(batch);
            }
        }
        if let Some((reply, index)) = hook.question {
            self.count_down(reply, index, code, now);
        }
    }

    /// One outcome of a waiting question is clear; answers it when it was the last.
    fn count_down(&mut self, reply: ReplyTo, index: usize, code: OutcomeCode, now: Now) {
        let left = match self.questions.get_mut(&reply) {
            Some(Question::Ready(ReadyQuestion { codes, left, .. }) | Question::Bye(ByeQuestion { codes, left, .. })) => {
                if let Some(place) = codes.get_mut(index) {
                    *place = code;
                }
                *left -= 1;
                *left
            }
            _ => return,
        };
        if left > 0 {
            return;
        }
        match self.questions.remove(&reply) {
            Some(Question::Ready(question)) => {
                self.timers.clear(question.late_at, Timer::Question(reply));
                if let Some(slot) = self.workers.slot_mut(question.slot) {
                    slot.question = None;
                }
                self.serve_question(reply, question, now);
            }
            Some(Question::Bye(question)) => {
                self.timers.clear(question.late_at, Timer::Question(reply));
                self.finish_bye(reply, question, now);
            }
            other => panic!("question {reply:?} changed while it was counted down: {other:?}"),
        }
    }

    fn on_found(&mut self, reply: ReplyTo, find: FindFor, found: Vec<FoundTask>, now: Now) {
        match find {
            FindFor::Resume(held) => self.on_resume_found(reply, held, found, now),
            FindFor::Outcomes { unknown, settle, session } => {
                self.on_outcomes_found(reply, unknown, settle, session, found, now);
            }
            FindFor::Committed { answer, slot } => self.on_recorded(reply, *answer, slot, &found),
        }
    }

    fn on_resume_found(&mut self, reply: ReplyTo, held: Vec<Held>, found: Vec<FoundTask>, now: Now) {
        let Some(Question::Hello(mut question)) = self.questions.remove(&reply) else { return };
        self.timers.clear(question.late_at, Timer::Question(reply));
        if self.workers.find_mut(question.session).is_some() {
            let mut rows: std::collections::HashMap<TaskId, FoundTask> =
                found.into_iter().map(|row| (row.id, row)).collect();
            for Held(task, lease) in held {
                let claim = rows.remove(&task).map_or(Claim::Stale, |row| self.claim(row, lease, question.session, now));
                if matches!(claim, Claim::Stale) {
                    question.lost.push(Held(task, lease));
                }
            }
        }
        self.welcome(reply, question, now);
    }

    fn on_outcomes_found(
        &mut self,
        reply: ReplyTo,
        unknown: Vec<(usize, Outcome)>,
        settle: Option<(SlotId, u64)>,
        session: SessionId,
        found: Vec<FoundTask>,
        now: Now,
    ) {
        let mut rows: std::collections::HashMap<TaskId, FoundTask> = found.into_iter().map(|row| (row.id, row)).collect();
        for (index, outcome) in unknown {
            let known = self.workers.find_mut(session).is_some();
            let claim = match rows.remove(&outcome.task) {
                Some(row) if known => self.claim(row, outcome.lease, session, now),
                _ => Claim::Stale,
            };
            let hook = EndHook { question: Some((reply, index)), settle };
            match claim {
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

    /// Hand-outs were recorded: tells the worker about those whose row took it.
    fn on_recorded(&mut self, reply: ReplyTo, mut answer: HandOut, slot: SlotId, found: &[FoundTask]) {
        answer.tasks.retain(|task| {
            let taken = found.iter().any(|row| row.id == task.task && row.lease == Some(task.lease));
            taken && self.running.contains_key(&task.task)
        });
        if self.close_question(reply) {
            self.remember_hand_out(reply, slot, answer.seq);
            self.answer(reply, Answer::Tasks(answer));
        }
    }

    /// Ends a question that waits for one result. False when it was answered or replaced meanwhile.
    pub(crate) fn close_question(&mut self, reply: ReplyTo) -> bool {
        match self.questions.remove(&reply) {
            Some(Question::Simple { late_at }) => {
                self.timers.clear(late_at, Timer::Question(reply));
                true
            }
            Some(other) => panic!("question {reply:?} is not simple: {other:?}"),
            None => false,
        }
    }

    /// The store has not reported in time: says so; what was asked may still be committed.
    pub(crate) fn on_question_late(&mut self, reply: ReplyTo) {
        let Some(question) = self.questions.remove(&reply) else { return };
        if let Question::Ready(question) = &question {
            if let Some(slot) = self.workers.slot_mut(question.slot) {
                slot.question = None;
            }
        }
        let cause = self.store_error.clone().unwrap_or_else(|| "the commit takes long".into());
        let text = format!("{cause}; it may still be committed, so say the same again");
        self.refuse(reply, WireError::new(Code::Storage, text).after_ms(500));
    }
}
