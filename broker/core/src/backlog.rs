//! Operations that the store has not reported yet, and the memory that they hold. Whoever takes in new ones asks this for the
//! room that is left; while the disk stands, no peer can fill the memory.

use laneway_protocol::message::{HandedTask, NewTask};
use laneway_protocol::{FairKey, Payload};

use crate::action::{Next, Op};
use crate::event::OpId;
use crate::id_map::IdMap;
use crate::progress::event_bytes;
use crate::settle::{FindFor, Pending};

/// What an operation or a task costs besides its texts and payloads.
const BASE_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    ops: IdMap<OpId, (Pending, usize)>,
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

    /// All of it, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.ops.values().map(|(pending, _)| pending)
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
    matches!(
        pending,
        Pending::Rows { .. }
            | Pending::Lanes { .. }
            | Pending::Kinds { .. }
            | Pending::FairKeys { .. }
            | Pending::Stats { .. }
            | Pending::Group { .. }
            | Pending::Schedules { .. }
    )
}

fn of_op(op: &Op) -> usize {
    match op {
        Op::Submit { tasks, .. } => tasks.iter().map(of_task).sum(),
        Op::Ended(ended) => {
            let result = if let Next::Done(result) = &ended.next { of_payload(result.as_ref()) } else { 0 };
            result + of_text(ended.error.as_deref()) + ended.spawn.iter().map(of_task).sum::<usize>()
        }
        Op::Cancel(tasks)
        | Op::Requeue(tasks)
        | Op::Edit { tasks, .. }
        | Op::Find(tasks)
        | Op::Endings(tasks)
        | Op::Show { tasks, .. } => tasks.len() * size_of::<u64>(),
        Op::FindTwins(keys) => keys.iter().map(|(_, key)| of_text(Some(key))).sum(),
        Op::Schedules(schedules) => {
            let names = schedules.pause.iter().chain(&schedules.resume).chain(&schedules.remove);
            names.map(String::len).sum::<usize>()
                + schedules.put.as_ref().map_or(0, |put| BASE_BYTES + of_payload(put.payload.as_ref()))
        }
        Op::Noted(noted) => of_text(noted.note.as_deref()) + of_payload(noted.checkpoint.as_ref()),
        Op::Bulk(_)
        | Op::Started(_)
        | Op::FindKey { .. }
        | Op::List(_)
        | Op::Counts
        | Op::Group { .. }
        | Op::CancelGroup { .. }
        | Op::Parents { .. }
        | Op::SessionUp { .. }
        | Op::SessionGone { .. }
        | Op::PauseLane { .. }
        | Op::SetKind { .. }
        | Op::SetLane { .. }
        | Op::SetFairKey { .. } => 0,
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
            let bytes_of = |task: &HandedTask| {
                let payloads = of_payload(task.payload.as_ref()) + of_payload(task.checkpoint.as_ref());
                BASE_BYTES + payloads + of_text(task.trace.as_deref())
            };
            answer.tasks.iter().map(bytes_of).sum()
        }
        Pending::Word(word) => event_bytes(&word.event),
        Pending::Twins { submit, .. } => submit.tasks.iter().map(of_task).sum(),
        Pending::End(end) => of_payload(end.result.as_ref()) + of_text(end.error.as_deref()),
        _ => 0,
    }
}

fn of_task(task: &NewTask) -> usize {
    BASE_BYTES
        + of_payload(task.payload.as_ref())
        + of_text(task.unique_key.as_deref())
        + of_text(task.trace.as_deref())
        + of_text(task.fair_key.as_ref().map(FairKey::as_str))
        + size_of_val(task.after.as_slice())
}

fn of_payload(payload: Option<&Payload>) -> usize {
    payload.map_or(0, |payload| payload.bytes.len())
}

fn of_text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use laneway_protocol::message::{End, HandOut, Outcome};
    use laneway_protocol::{Epoch, Kind, LaneName, Lease, RequestId, SessionName, TaskId};

    use super::*;
    use crate::action::{Count, Ended, Noted};
    use crate::event::ReplyTo;
    use crate::settle::{PendingEnd, RowsAsked};
    use crate::time::UnixMillis;
    use crate::worker::SessionId;

    /// An operation holds so many bytes beside its own 256, until it is reported.
    fn check(op: &Op, pending: Pending, bytes: usize) {
        let mut backlog = Backlog::default();
        backlog.insert(OpId(1), &Op::Counts, Pending::Nothing);
        backlog.insert(OpId(2), op, pending);
        assert_eq!(backlog.bytes(), 2 * 256 + bytes, "{op:?}");
        backlog.remove(OpId(2)).unwrap();
        assert_eq!((backlog.bytes(), backlog.len()), (256, 1), "{op:?}");
    }

    fn payload(bytes: usize) -> Payload {
        Payload::bin(vec![0; bytes])
    }

    fn text(bytes: usize) -> String {
        "x".repeat(bytes)
    }

    fn id() -> TaskId {
        TaskId::new(7).unwrap()
    }

    /// A task of 256 + 111 bytes.
    fn task() -> NewTask {
        NewTask {
            unique_key: Some(text(10)),
            trace: Some(text(1)),
            ..NewTask::new(Kind::new("a").unwrap(), Some(payload(100)))
        }
    }

    fn ended(next: Next, spawn: Vec<NewTask>) -> Op {
        Op::Ended(Ended {
            task: id(),
            lease: Lease::new(1),
            run: 1,
            next,
            count: Count::Attempt,
            error: Some(text(30)),
            cause: None,
            spawn,
            worker: SessionName::new("w").unwrap(),
            at: UnixMillis(1),
            kind: Kind::new("a").unwrap(),
            lane: LaneName::new("low").unwrap(),
            attempt: 1,
            run_ms: 1,
        })
    }

    #[test]
    fn operations_are_counted_with_their_texts_and_payloads() {
        // A list of ids counts 8 bytes for each; what has no text of its own costs nothing more.
        let submit =
            Op::Submit { request: RequestId([1; 16]), tasks: vec![task(), task()], group: None, secured: Vec::new() };
        check(&submit, Pending::Nothing, 2 * (256 + 111));
        check(&ended(Next::Done(Some(payload(2_000))), vec![task()]), Pending::Nothing, 2_030 + 256 + 111);
        check(&ended(Next::Dead, Vec::new()), Pending::Nothing, 30);
        check(&Op::Find(vec![id(); 3]), Pending::Nothing, 24);
        let noted =
            Noted { task: id(), lease: Lease::new(1), done: None, total: None, note: Some(text(40)), checkpoint: None };
        check(&Op::Noted(noted.clone()), Pending::Nothing, 40);
        check(&Op::Noted(Noted { checkpoint: Some(payload(500)), ..noted }), Pending::Nothing, 540);
    }

    #[test]
    fn what_is_kept_beside_an_operation_is_counted_as_well() {
        // Outcomes of unknown tasks, hand-outs that are told later, and the result for those who wait.
        let reply = ReplyTo(1);
        let outcome = Outcome {
            result: Some(payload(1_000)),
            error: Some(text(20)),
            spawn: vec![task()],
            ..Outcome::new(id(), Lease::new(1), End::Done)
        };
        let unknown = vec![(0, outcome.clone()), (1, Outcome { spawn: Vec::new(), ..outcome })];
        let find = FindFor::Outcomes { unknown, settle: None, session: SessionId(1) };
        check(&Op::Counts, Pending::Find { reply, find }, 2 * (256 + 1_020) + 256 + 111);
        let handed = HandedTask {
            task: id(),
            lease: Lease::new(1),
            kind: Kind::new("a").unwrap(),
            lane: LaneName::new("low").unwrap(),
            run: 1,
            attempt: 1,
            max_attempts: 1,
            timeout_ms: 1,
            payload: Some(payload(600)),
            trace: Some(text(30)),
            checkpoint: Some(payload(4)),
        };
        let tasks = vec![handed.clone(), handed];
        let answer = Box::new(HandOut { epoch: Epoch(1), seq: 1, tasks, outcomes: Vec::new(), settled: 0 });
        let find = FindFor::Committed { answer, slot: crate::worker::SlotId { session: SessionId(1), slot: 0 } };
        check(&Op::Counts, Pending::Find { reply, find }, 2 * (256 + 600 + 30 + 4));
        let end = PendingEnd {
            task: id(),
            hooks: Vec::new(),
            watched: true,
            result: Some(payload(700)),
            error: Some(text(8)),
            by_sql: false,
        };
        check(&Op::Counts, Pending::End(end), 708);
    }

    #[test]
    fn questions_are_counted_until_they_are_reported() {
        // Lists, rows and counts that people ask for, and nothing else.
        let reply = ReplyTo(1);
        let mut backlog = Backlog::default();
        let questions = [
            Pending::Rows { reply, asked: RowsAsked { listed: true, detail: false } },
            Pending::Nothing,
            Pending::Lanes { reply },
            Pending::Check { reply },
            Pending::Stats { reply },
        ];
        for (n, pending) in (1..).zip(questions) {
            backlog.insert(OpId(n), &Op::Counts, pending);
        }
        assert_eq!(backlog.n_questions(), 3);
        for (n, left) in (1..).zip([2, 2, 1, 1, 0]) {
            backlog.remove(OpId(n)).unwrap();
            assert_eq!(backlog.n_questions(), left, "after {n}");
        }
        assert!(backlog.remove(OpId(1)).is_none());
    }
}
