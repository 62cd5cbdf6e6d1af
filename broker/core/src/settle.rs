//! What hangs on the store: questions that wait for a commit, and what to do when its result is in.

use std::collections::BTreeSet;

use laneway_protocol::message::{
    Answer, Bulked, Final, HandOut, Held, Outcome, OutcomeCode, ProgressEvent, Submit, Verdicts, WaitFor,
};
use laneway_protocol::{Code, FairKey, Kind, Lease, Payload, TaskId, TaskState, WireError};

use crate::action::{EndedAs, Ending, Op, OpResult};
use crate::broker::Broker;
use crate::event::{ConnId, FoundTask, OpId, ReplyTo};
use crate::limits::OPS_MAX;
use crate::time::{Millis, Now};
use crate::timer::Timer;
use crate::worker::{SessionId, SlotId};
use crate::workflow::GroupAsk;

/// A question that is answered when the store has reported.
#[derive(Debug)]
pub(crate) enum Question {
    Ready(ReadyQuestion),
    Hello(HelloQuestion),
    Bye(ByeQuestion),
    /// One operation, one answer.
    Simple {
        late_at: Millis,
    },
}

impl Question {
    pub(crate) fn late_at(&self) -> Millis {
        match self {
            Self::Ready(ReadyQuestion { late_at, .. })
            | Self::Hello(HelloQuestion { late_at, .. })
            | Self::Bye(ByeQuestion { late_at, .. })
            | Self::Simple { late_at } => *late_at,
        }
    }
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
    Find {
        reply: ReplyTo,
        find: FindFor,
    },
    Submit {
        reply: ReplyTo,
        conn: ConnId,
        until: Millis,
        /// What it may replace.
        secured: Vec<Held>,
        /// So many tasks may be marked; 0 when none is to be.
        promised: usize,
    },
    /// The live tasks that a submit wants to replace.
    Twins {
        reply: ReplyTo,
        conn: ConnId,
        until: Millis,
        submit: Box<Submit>,
    },
    Cancel {
        reply: ReplyTo,
        tasks: Vec<TaskId>,
    },
    /// Of tasks that nobody waits for any more.
    Abandon {
        tasks: Vec<TaskId>,
    },
    Requeue {
        reply: ReplyTo,
    },
    /// Changes by id.
    Edit {
        reply: ReplyTo,
        tasks: Vec<TaskId>,
    },
    /// A piece of a batch.
    Slice {
        batch: u64,
    },
    Rows {
        reply: ReplyTo,
        asked: RowsAsked,
    },
    Lanes {
        reply: ReplyTo,
    },
    Kinds {
        reply: ReplyTo,
        after: Option<Kind>,
        /// Told whatever is left of them.
        named: BTreeSet<Kind>,
    },
    FairKeys {
        reply: ReplyTo,
        after: Option<FairKey>,
    },
    Stats {
        reply: ReplyTo,
    },
    Schedules {
        reply: ReplyTo,
    },
    /// Which of a waiter's tasks have ended already.
    Check {
        reply: ReplyTo,
    },
    /// The task that a (kind, key) stands for.
    Key {
        reply: ReplyTo,
        wait: Box<WaitFor>,
        conn: ConnId,
        until: Millis,
    },
    /// For all who ask the same of one group at the same moment.
    Group {
        group: u64,
        asks: Vec<(ReplyTo, GroupAsk)>,
    },
    CancelGroup {
        reply: ReplyTo,
        group: u64,
    },
    /// A checkpoint, or a question for parents.
    Word(Box<Word>),
    /// How a watched task ended, where the core does not know enough to tell.
    Look,
    /// Nobody waits for it.
    Nothing,
}

impl Pending {
    /// Whether somebody hears of the result as soon as it is there. A worker that numbers its batches does not wait.
    pub(crate) fn is_awaited(&self) -> bool {
        match self {
            Pending::End(end) => end.watched || end.hooks.iter().any(|hook| hook.question.is_some()),
            // Its next piece is in no hurry.
            Pending::Slice { .. } | Pending::Abandon { .. } | Pending::Nothing => false,
            Pending::Find { .. }
            | Pending::Submit { .. }
            | Pending::Twins { .. }
            | Pending::Cancel { .. }
            | Pending::Requeue { .. }
            | Pending::Edit { .. }
            | Pending::Rows { .. }
            | Pending::Lanes { .. }
            | Pending::Kinds { .. }
            | Pending::FairKeys { .. }
            | Pending::Stats { .. }
            | Pending::Schedules { .. }
            | Pending::Check { .. }
            | Pending::Key { .. }
            | Pending::Group { .. }
            | Pending::CancelGroup { .. }
            | Pending::Word(_)
            | Pending::Look => true,
        }
    }
}

/// A PROGRESS that is answered when the store has reported. What it tells is told with the answer: said again after an error, it is
/// heard once.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) reply: ReplyTo,
    pub(crate) lease: Lease,
    /// Not yet numbered.
    pub(crate) event: ProgressEvent,
    /// It asks for parents, those behind this id.
    pub(crate) parents: Option<u64>,
}

/// How rows were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsAsked {
    /// A page by filter, not rows by id.
    pub(crate) listed: bool,
    pub(crate) detail: bool,
}

/// Why rows are looked up by id.
#[derive(Debug)]
pub(crate) enum FindFor {
    Resume(Vec<Held>),
    Outcomes {
        unknown: Vec<(usize, Outcome)>,
        settle: Option<(SlotId, u64)>,
        session: SessionId,
    },
    /// Hand-outs that are told only once they are recorded.
    Committed {
        answer: Box<HandOut>,
        slot: SlotId,
    },
}

/// A run on its way to the disk.
#[derive(Debug)]
pub(crate) struct PendingEnd {
    pub(crate) task: TaskId,
    pub(crate) hooks: Vec<EndHook>,
    /// Somebody waited when the run ended, so its result is kept for them.
    pub(crate) watched: bool,
    pub(crate) result: Option<Payload>,
    pub(crate) error: Option<String>,
    /// The worker has ended the row by SQL: result and error are there alone.
    pub(crate) by_sql: bool,
}

/// What is known of a run on its way to the disk while its task is named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settling {
    pub(crate) lease: Lease,
    pub(crate) op: OpId,
    /// It ended by an outcome that its worker said, not without one.
    pub(crate) said: bool,
}

impl Settling {
    /// Whether an outcome under `lease` is the one that is on its way, said again.
    pub(crate) fn repeats(&self, lease: Lease) -> bool {
        self.said && self.lease == lease
    }
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
            let pending = self.pending.remove(op).expect("an operation is reported once");
            self.on_result(op, pending, result, now);
        }
        for session in std::mem::take(&mut self.settled_idle) {
            self.tell_settled(session);
        }
        if self.blocked && self.pending.len() < OPS_MAX / 2 {
            self.blocked = false;
            self.feed_all(now);
        }
    }

    fn on_result(&mut self, op: OpId, pending: Pending, result: OpResult, now: Now) {
        match (pending, result) {
            (Pending::End(end), OpResult::Ended(ended)) => self.on_ended(op, end, ended, now),
            (Pending::Find { reply, find }, OpResult::Found(found)) => self.on_found(reply, find, found, now),
            (Pending::Submit { reply, conn, until, secured, promised }, OpResult::Submitted(stored)) => {
                self.waiters.unexpect(conn, reply);
                self.release_secured(&secured);
                self.release_marks(promised);
                if promised > 0 {
                    self.mark_new(&stored);
                }
                self.on_submitted(reply, conn, until, stored, None, now);
            }
            // A group is not abandoned.
            (Pending::Submit { reply, conn, until, secured, .. }, OpResult::SubmittedGroup(stored, group)) => {
                self.waiters.unexpect(conn, reply);
                self.release_secured(&secured);
                self.on_submitted(reply, conn, until, stored, Some(group), now);
            }
            (Pending::Twins { reply, conn, until, submit }, OpResult::Found(found)) => {
                self.on_twins_found((reply, conn, until), *submit, &found);
            }
            (Pending::Submit { reply, conn, secured, promised, .. }, OpResult::Refused { index, field, reason }) => {
                self.waiters.unexpect(conn, reply);
                self.release_secured(&secured);
                self.release_marks(promised);
                if self.close_question(reply) {
                    let code = match field {
                        "lane" => Code::UnknownLane,
                        "on_conflict" => Code::Conflict,
                        _ => Code::BadTask,
                    };
                    let error = WireError::new(code, format!("task number {index}: {reason}"));
                    self.refuse(reply, error.field(format!("tasks[{index}].{field}")));
                }
            }
            (Pending::Cancel { reply, tasks }, OpResult::Verdicts(verdicts)) => {
                self.on_edited(tasks.iter().copied().zip(verdicts.iter().copied()), now);
                if self.close_question(reply) {
                    self.answer(reply, Answer::Cancel(Verdicts { verdicts }));
                }
            }
            (Pending::Abandon { tasks }, OpResult::Verdicts(verdicts)) => {
                self.on_abandoned_cancelled(tasks, &verdicts, now);
            }
            (Pending::Requeue { reply }, OpResult::Verdicts(verdicts)) => {
                if self.close_question(reply) {
                    self.answer(reply, Answer::Requeue(Verdicts { verdicts }));
                }
            }
            (Pending::Edit { reply, tasks }, OpResult::Verdicts(verdicts)) => {
                self.on_edited(tasks.iter().copied().zip(verdicts.iter().copied()), now);
                if self.close_question(reply) {
                    self.answer(reply, Answer::Bulk(Bulked { verdicts, batch: None }));
                }
            }
            (Pending::Slice { batch }, OpResult::Bulk(sliced)) => self.on_sliced(batch, sliced, now),
            (Pending::Rows { reply, asked }, OpResult::Rows(rows)) => self.on_rows(reply, rows, asked, now),
            (Pending::Lanes { reply }, OpResult::Counts(counts)) => self.on_lane_counts(reply, &counts),
            (Pending::Kinds { reply, after, named }, OpResult::Counts(counts)) => {
                self.on_kind_counts(reply, after.as_ref(), named, &counts);
            }
            (Pending::FairKeys { reply, after }, OpResult::Counts(_)) => self.on_fair_keys_set(reply, after.as_ref()),
            (Pending::Stats { reply }, OpResult::Counts(counts)) => self.on_stats_counts(reply, &counts, now),
            (Pending::Group { group, asks }, OpResult::Group(found)) => {
                self.on_group_found(group, asks, found.as_ref(), now);
            }
            (Pending::CancelGroup { reply, group }, OpResult::GroupCancelled { more }) => {
                self.on_group_cancelled(reply, group, more);
            }
            (Pending::Word(word), OpResult::Noted(noted)) => self.on_word_noted(word, noted),
            (Pending::Word(word), OpResult::Parents { endings, more }) => self.on_parents_found(*word, endings, more),
            (Pending::Schedules { reply }, OpResult::Schedules(rows)) => self.on_schedule_rows(reply, rows),
            (Pending::Schedules { reply }, OpResult::Refused { field, reason, .. }) => {
                if self.close_question(reply) {
                    let code = if field == "lane" { Code::UnknownLane } else { Code::BadTask };
                    self.refuse(reply, WireError::new(code, reason).field(format!("put.{field}")));
                }
            }
            (Pending::Check { reply }, OpResult::Endings(endings)) => self.on_checked(reply, endings, now),
            (Pending::Key { reply, wait, conn, until }, OpResult::Found(found)) => {
                self.waiters.unexpect(conn, reply);
                self.on_key_found(reply, conn, *wait, until, &found);
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
        if self.settling.get(&end.task).is_some_and(|settling| settling.op == op) {
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
        if code == OutcomeCode::Ok && state == Some(TaskState::Cancelled) {
            self.stats.cancelled += 1;
        }
        for hook in end.hooks {
            self.run_hook(hook, code, now);
        }
        if state.is_some_and(TaskState::is_final) {
            self.unmark(end.task);
        }
        if !self.waiters.is_watched(end.task) {
            return;
        }
        match state {
            Some(_) if end.by_sql => self.look(end.task),
            Some(TaskState::Done) if end.watched => {
                self.tell_ended(&Final { task: end.task, state: TaskState::Done, result: end.result, error: None });
            }
            Some(TaskState::Dead) => {
                self.tell_ended(&Final { task: end.task, state: TaskState::Dead, result: None, error });
            }
            Some(TaskState::Waiting | TaskState::Queued | TaskState::Running) => {}
            // Why it was cancelled the row knows. Otherwise overtaken, or the wait began after the run had ended and the result was not kept.
            Some(TaskState::Cancelled | TaskState::Done) | None => self.look(end.task),
        }
    }

    /// Asks the store how a watched task ended.
    pub(crate) fn look(&mut self, task: TaskId) {
        self.store_for(Op::Endings(vec![task]), Pending::Look);
    }

    pub(crate) fn run_hook(&mut self, hook: EndHook, code: OutcomeCode, now: Now) {
        if let Some((id, batch)) = hook.settle
            && let Some(slot) = self.workers.slot_mut(id)
        {
            slot.settle.close(batch);
            if slot.parked.is_some() {
                // A busy slot hears it with its next task; an idle one would not for as long as it waits.
                self.settled_idle.insert(id.session);
            }
        }
        if let Some((reply, index)) = hook.question {
            self.count_down(reply, index, code, now);
        }
    }

    /// One outcome of a waiting question is clear; answers it when it was the last.
    fn count_down(&mut self, reply: ReplyTo, index: usize, code: OutcomeCode, now: Now) {
        let left = match self.questions.get_mut(&reply) {
            Some(
                Question::Ready(ReadyQuestion { codes, left, .. }) | Question::Bye(ByeQuestion { codes, left, .. }),
            ) => {
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
            FindFor::Committed { answer, slot } => self.on_recorded(reply, *answer, slot, &found, now),
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

    /// Takes a question that hangs on the store off the list. False when it was answered or replaced meanwhile.
    pub(crate) fn drop_question(&mut self, reply: ReplyTo) -> bool {
        let Some(question) = self.questions.remove(&reply) else { return false };
        self.timers.clear(question.late_at(), Timer::Question(reply));
        true
    }

    /// The store has not reported in time: says so; what was asked may still be committed.
    pub(crate) fn on_question_late(&mut self, reply: ReplyTo) {
        if self.drop_question(reply) {
            self.refuse(reply, self.late());
        }
    }

    pub(crate) fn late(&self) -> WireError {
        let cause = self.store_error.as_deref().unwrap_or("the commit takes long");
        WireError::new(Code::Storage, format!("{cause}; it may still be committed, so say the same again"))
            .after_ms(500)
    }
}
