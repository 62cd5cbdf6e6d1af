//! Operations that the store has not reported yet, and the memory that they hold. Whoever takes in new ones asks this for the
//! room that is left; while the disk stands, no peer can fill the memory.

use std::collections::HashMap;

use laneway_protocol::Payload;
use laneway_protocol::message::NewTask;

use crate::action::{Next, Op};
use crate::event::OpId;
use crate::settle::{FindFor, Pending};

/// What an operation or a task costs besides its texts and payloads.
const BASE_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    ops: HashMap<OpId, (Pending, usize)>,
    bytes: usize,
    questions: usize,
}

impl Backlog {
    pub(crate) fn insert(&mut self, id: OpId, op: &Op, pending: Pending) {
        let bytes = BASE_BYTES + of_op(op) + of_pending(&pending);
        self.bytes += bytes;
        self.questions += usize::from(is_question(&pending));
        self.ops.insert(id, (pending, bytes));
    }

    pub(crate) fn remove(&mut self, id: OpId) -> Option<Pending> {
        let (pending, bytes) = self.ops.remove(&id)?;
        self.bytes -= bytes;
        self.questions -= usize::from(is_question(&pending));
        Some(pending)
    }

    pub(crate) fn get_mut(&mut self, id: OpId) -> Option<&mut Pending> {
        self.ops.get_mut(&id).map(|(pending, _)| pending)
    }

    pub(crate) fn get(&self, id: OpId) -> Option<&Pending> {
        self.ops.get(&id).map(|(pending, _)| pending)
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Lists, rows and counts that people ask for.
    pub(crate) fn n_questions(&self) -> usize {
        self.questions
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn is_question(pending: &Pending) -> bool {
    matches!(pending, Pending::Rows { .. } | Pending::Lanes { .. } | Pending::Stats { .. })
}

fn of_op(op: &Op) -> usize {
    match op {
        Op::Submit { tasks, .. } => tasks.iter().map(of_task).sum(),
        Op::Ended(ended) => {
            let result = if let Next::Done(result) = &ended.next { of_payload(result.as_ref()) } else { 0 };
            result + of_text(ended.error.as_deref()) + ended.spawn.iter().map(of_task).sum::<usize>()
        }
        Op::Cancel(tasks) | Op::Requeue(tasks) | Op::Find(tasks) | Op::Endings(tasks) | Op::Show { tasks, .. } => {
            tasks.len() * size_of::<u64>()
        }
        Op::Noted(noted) => of_text(noted.note.as_deref()) + of_payload(noted.checkpoint.as_ref()),
        Op::Started(_)
        | Op::FindKey { .. }
        | Op::List(_)
        | Op::Counts
        | Op::SessionUp { .. }
        | Op::SessionGone { .. }
        | Op::PauseLane { .. } => 0,
    }
}

/// What is kept beside the operation: words that are only believed once the store has told what it knows.
fn of_pending(pending: &Pending) -> usize {
    match pending {
        Pending::Find { find: FindFor::Outcomes { unknown, .. }, .. } => {
            let said = unknown.iter().map(|(_, outcome)| {
                let spawn: usize = outcome.spawn.iter().map(of_task).sum();
                BASE_BYTES + of_payload(outcome.result.as_ref()) + of_text(outcome.error.as_deref()) + spawn
            });
            said.sum()
        }
        Pending::Find { find: FindFor::Committed { answer, .. }, .. } => {
            answer.tasks.iter().map(|task| BASE_BYTES + of_payload(task.payload.as_ref())).sum()
        }
        Pending::End(end) => of_payload(end.result.as_ref()) + of_text(end.error.as_deref()),
        _ => 0,
    }
}

fn of_task(task: &NewTask) -> usize {
    BASE_BYTES
        + of_payload(task.payload.as_ref())
        + of_text(task.unique_key.as_deref())
        + of_text(task.trace.as_deref())
}

fn of_payload(payload: Option<&Payload>) -> usize {
    payload.map_or(0, |payload| payload.bytes.len())
}

fn of_text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}
