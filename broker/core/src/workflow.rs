//! Groups and dependencies as far as the core has to do with them: it passes questions on and waits with those who wait for a
//! group. Tasks that wait for others are the store's; the core first sees them when they are queued.

use laneway_protocol::codec::Room;
use laneway_protocol::limits::{ANSWER_SLACK_MS, WAITS_FOR_MAX};
use laneway_protocol::message::{AboutGroup, Answer, Cursor, Final, ProgressNoted, TaskRow, WaitFor, Waited};
use laneway_protocol::{Code, TaskId, TaskState, WireError};

use crate::action::{Ending, FoundGroup, Op};
use crate::broker::Broker;
use crate::event::{Asker, ConnId, ReplyTo};
use crate::limits::{ANSWER_LIST_BYTES, FINALS_BYTES_MAX, GROUP_CANCELLED_MAX, GROUP_WATCHED_MAX, PARENTS_TOLD_MAX};
use crate::outcome::cut;
use crate::settle::Pending;
use crate::time::{Millis, Now};
use crate::waiter::{Asked, Waiter};

/// What a question about a group is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GroupAsk {
    Show,
    Wait { conn: ConnId, until: Millis },
}

impl Broker {
    pub(crate) fn on_group(&mut self, from: Asker, about: &AboutGroup, now: Now) {
        let AboutGroup { group, cancel } = *about;
        if !cancel {
            let pending = Pending::Group { reply: from.reply, ask: GroupAsk::Show };
            return self.ask_store(from.reply, Op::Group { group, live: 0 }, pending, now);
        }
        if let Some(error) = self.intake_refusal() {
            return self.refuse(from.reply, error);
        }
        let pending = Pending::CancelGroup { reply: from.reply, group };
        self.ask_store(from.reply, Op::CancelGroup { group, rows: GROUP_CANCELLED_MAX }, pending, now);
    }

    /// A part of the group was asked to end. Goes on to the last, whether or not its asker is still there.
    pub(crate) fn on_group_cancelled(&mut self, reply: ReplyTo, group: u64, more: bool) {
        if more {
            let op = Op::CancelGroup { group, rows: GROUP_CANCELLED_MAX };
            self.store_for(op, Pending::CancelGroup { reply, group });
        } else {
            self.store_for(Op::Group { group, live: 0 }, Pending::Group { reply, ask: GroupAsk::Show });
        }
    }

    pub(crate) fn wait_for_group(&mut self, from: Asker, group: u64, wait: &WaitFor, until: Millis) {
        if !wait.tasks.is_empty() || wait.kind.is_some() || wait.unique_key.is_some() {
            let text = "a group is waited for alone: leave tasks, kind and unique_key out";
            return self.refuse(from.reply, WireError::new(Code::BadBody, text).field("group"));
        }
        self.ask_group_again(from.reply, from.conn, group, until);
    }

    pub(crate) fn ask_group_again(&mut self, reply: ReplyTo, conn: ConnId, group: u64, until: Millis) {
        self.hold_question(reply, until.after(ANSWER_SLACK_MS));
        let pending = Pending::Group { reply, ask: GroupAsk::Wait { conn, until } };
        self.store_for(Op::Group { group, live: GROUP_WATCHED_MAX }, pending);
    }

    pub(crate) fn on_group_found(&mut self, reply: ReplyTo, ask: GroupAsk, found: Option<FoundGroup>, now: Now) {
        if !self.close_question(reply) {
            return;
        }
        let Some(FoundGroup { row, live }) = found else {
            let text = "no task is in this group, and no row of task_groups tells of it";
            return self.refuse(reply, WireError::new(Code::NotFound, text).field("group"));
        };
        let (conn, until) = match ask {
            GroupAsk::Show => return self.answer(reply, Answer::Group(row)),
            GroupAsk::Wait { conn, until } => (conn, until),
        };
        if live.is_empty() || until <= now.mono {
            return self.answer(
                reply,
                Answer::WaitFor(Waited {
                    cursor: Cursor { epoch: self.epoch, n: self.event_n },
                    gap: false,
                    events: Vec::new(),
                    finals: Vec::new(),
                    pending: live,
                    not_found: Vec::new(),
                    pruned: Vec::new(),
                    group: Some(row),
                }),
            );
        }
        // First on the list, then the look, as for single tasks; then the group is asked about anew, for others may have joined.
        let asked = Asked::Group { group: row.group, checked: false };
        let pending = live.iter().copied().collect();
        let alarm = until.after(ANSWER_SLACK_MS);
        self.add_waiter(reply, Waiter { conn, pending, finals: Vec::new(), until, alarm, asked });
        self.store_for(Op::Endings(live), Pending::Check { reply });
    }

    pub(crate) fn ask_parents(&mut self, reply: ReplyTo, task: TaskId, cancel: bool, after: u64, now: Now) {
        let op = Op::Parents { task, after, rows: PARENTS_TOLD_MAX, bytes: FINALS_BYTES_MAX };
        self.ask_store(reply, op, Pending::Parents { reply, cancel }, now);
    }

    pub(crate) fn on_parents_found(
        &mut self,
        reply: ReplyTo,
        cancel: bool,
        endings: Vec<(TaskId, Ending)>,
        more: bool,
    ) {
        if !self.close_question(reply) {
            return;
        }
        let mut noted = ProgressNoted { cancel, parents: Vec::with_capacity(endings.len()), more };
        let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
        for (task, ending) in endings {
            let mut parent = match ending {
                Ending::Final(ended) => ended,
                // A person has requeued it since.
                Ending::Live { .. } => Final { task, state: TaskState::Queued, result: None, error: None },
                Ending::Pruned | Ending::NotFound => continue,
            };
            parent.error = parent.error.map(cut);
            if !room.take_final(&mut parent) && !noted.parents.is_empty() {
                noted.more = true;
                break;
            }
            noted.parents.push(parent);
        }
        self.answer(reply, Answer::Progress(noted));
    }
}

/// For whom a task waits, in a sentence.
pub fn waits_for(row: &TaskRow) -> String {
    let names: Vec<String> = row.waits_for.iter().take(WAITS_FOR_MAX).map(TaskId::to_string).collect();
    let n = usize::try_from(row.waits_for_n).unwrap_or(usize::MAX).max(names.len());
    match (n, n - names.len()) {
        (0, _) => "it waits for the tasks that it depends on".into(),
        (1, 0) => format!("it waits for task {}, which has not ended", names[0]),
        (n, 0) => format!("it waits for {n} tasks that have not ended: {}", names.join(", ")),
        (n, more) => format!("it waits for {n} tasks that have not ended: {} and {more} more", names.join(", ")),
    }
}
