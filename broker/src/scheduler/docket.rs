//! Operations that wait for a turn: the steps of tasks' lives in the order in which they were asked for, and behind them what
//! only people ask, lists and counts. A turn takes so many that its rows are bounded; a flood of questions delays questions and
//! no task.

use std::collections::VecDeque;

use laneway_core::{Op, OpId};
use laneway_protocol::message::NewTask;

type Ordered = (Option<OpId>, Op);

/// Rows that the questions of one turn may read, which holds the write lock meanwhile. At least one is taken.
const READ_ROWS: usize = 1_024;
/// What the counts of all queues cost, in rows; and a row with its payload, result and checkpoint.
const COUNTS_ROWS: usize = 256;
const DETAIL_ROWS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Docket {
    steps: VecDeque<Ordered>,
    questions: VecDeque<Ordered>,
}

impl Docket {
    pub(super) fn extend(&mut self, ops: Vec<Ordered>) {
        for op in ops {
            if is_question(&op.1) { self.questions.push_back(op) } else { self.steps.push_back(op) }
        }
    }

    /// Takes the operations of one turn: steps of about `rows` rows, and questions behind them.
    pub(super) fn take(&mut self, rows: usize) -> Vec<Ordered> {
        let mut taken = take(&mut self.steps, rows);
        taken.extend(take(&mut self.questions, READ_ROWS));
        taken
    }

    /// Puts back what a turn that was undone had taken.
    pub(super) fn put_back(&mut self, taken: Vec<Ordered>) {
        for op in taken.into_iter().rev() {
            if is_question(&op.1) { self.questions.push_front(op) } else { self.steps.push_front(op) }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.questions.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len() + self.questions.len()
    }
}

fn take(from: &mut VecDeque<Ordered>, rows: usize) -> Vec<Ordered> {
    let (mut left, mut n) = (rows, 0);
    for (_, op) in from.iter() {
        let weight = weight(op);
        if n > 0 && weight > left {
            break;
        }
        left = left.saturating_sub(weight);
        n += 1;
    }
    from.drain(..n).collect()
}

/// Whether nothing but an answer depends on it.
fn is_question(op: &Op) -> bool {
    match op {
        Op::List(_) | Op::Show { .. } | Op::Counts | Op::Group { .. } => true,
        Op::Schedules(schedules) => !schedules.is_change(),
        Op::Bulk(slice) => slice.dry_run,
        _ => false,
    }
}

/// About how many rows it reads or writes.
fn weight(op: &Op) -> usize {
    match op {
        Op::Cancel(tasks) | Op::Requeue(tasks) | Op::Edit { tasks, .. } | Op::Find(tasks) | Op::Endings(tasks) => {
            tasks.len()
        }
        Op::Submit { tasks, .. } => tasks.iter().map(of_new).sum(),
        Op::Ended(ended) => 1 + ended.spawn.iter().map(of_new).sum::<usize>(),
        Op::FindTwins(keys) => keys.len(),
        Op::CancelGroup { rows, .. } | Op::Parents { rows, .. } => *rows,
        Op::Show { tasks, detail } => tasks.len() * if *detail { DETAIL_ROWS } else { 1 },
        Op::List(filter) => filter.limit as usize,
        Op::Bulk(slice) => slice.rows,
        Op::Schedules(schedules) if schedules.is_change() => {
            1 + schedules.pause.len() + schedules.resume.len() + schedules.remove.len()
        }
        Op::Counts | Op::Group { .. } | Op::Schedules(_) => COUNTS_ROWS,
        Op::Started(_)
        | Op::Noted(_)
        | Op::FindKey { .. }
        | Op::SessionUp { .. }
        | Op::SessionGone { .. }
        | Op::PauseLane { .. }
        | Op::SetKind { .. }
        | Op::SetLane { .. }
        | Op::SetFairKey { .. } => 1,
    }
}

/// A task to be, and its dependencies.
fn of_new(task: &NewTask) -> usize {
    1 + task.after.len()
}

#[cfg(test)]
mod tests {
    use laneway_protocol::TaskId;
    use laneway_protocol::message::Filter;

    use super::*;

    fn list(limit: u32) -> Ordered {
        (None, Op::List(Filter { limit, ..Filter::default() }))
    }

    fn find(n: u64) -> Ordered {
        (None, Op::Find((1..=n).filter_map(TaskId::new).collect()))
    }

    #[test]
    fn a_flood_of_lists_comes_behind_every_step_and_in_parts() {
        // Proves that a step that was asked for last is in the next turn, with no more questions than the turn has room for.
        let mut docket = Docket::default();
        docket.extend((0..100).map(|_| list(512)).collect());
        docket.extend(vec![find(1)]);
        assert_eq!(docket.take(4_096), [find(1), list(512), list(512)]);
        assert_eq!(docket.take(4_096), [list(512), list(512)]);
        assert_eq!(docket.len(), 96);
    }

    #[test]
    fn a_turn_takes_rows_and_not_operations() {
        // Proves that long lists of ids fill a turn as many short ones do, that one over the bound is taken alone, and that an
        // undone turn changes nothing.
        let mut docket = Docket::default();
        docket.extend(vec![find(60), find(50), find(500), find(1)]);
        let first = docket.take(100);
        assert_eq!(first, [find(60)]);
        docket.put_back(first);
        assert_eq!(docket.take(110), [find(60), find(50)]);
        assert_eq!(docket.take(100), [find(500)]);
        assert_eq!(docket.take(100), [find(1)]);
        assert!(docket.is_empty());
    }
}
