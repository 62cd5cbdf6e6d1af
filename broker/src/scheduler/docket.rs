//! Operations that wait for a turn: the steps of tasks' lives in the order in which they were asked for, and behind them what
//! only people ask, lists and counts. A turn takes so many that its rows are bounded; a flood of questions delays questions and
//! no task. A question never goes before a step that was asked before it: what is counted behind a change confirms the change. Only
//! while no turn goes through does it pass those that it cannot confirm.
//!
//! A hand-out waits a moment for its end, for the two together are one write. Nobody waits for its record, and should the broker
//! die meanwhile, the lease itself tells the next one. It never comes behind anything that could tell the difference.

use std::collections::VecDeque;

use laneway_core::{IdMap, Millis, Op, OpId};
use laneway_protocol::TaskId;
use laneway_protocol::message::NewTask;

type Ordered = (Option<OpId>, Op);

/// Rows that the questions of one turn may read, which holds the write lock meanwhile. At least one is taken.
const READ_ROWS: usize = 1_024;
/// What the counts of all queues cost, in rows; and a row with its payload, result and checkpoint.
const COUNTS_ROWS: usize = 256;
const DETAIL_ROWS: usize = 64;

/// How long a hand-out waits for its end: long enough for the outcomes of some thousand workers to be brought, short for whoever
/// looks at the table. A task that an app cancels by SQL meanwhile ends as one that had not begun.
const START_HELD_MS: u64 = 25;
/// While more of them wait, workers have so much in hand that it takes longer to come back, and two writes for each would make that longer still.
const FEW_HELD: usize = 1_024;
const MANY_HELD_MS: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Docket {
    /// Hand-outs whose end has not come: older than all `steps`. Since when, in order; those that were taken with their end
    /// are still there.
    held: VecDeque<(Millis, TaskId)>,
    starts: IdMap<TaskId, Ordered>,
    /// The first of them is no hand-out.
    steps: VecDeque<Ordered>,
    /// How many have left the front of `steps`, less those that came back to it.
    n_left: u64,
    /// Each with how many must have left before it.
    questions: VecDeque<(u64, Ordered)>,
}

impl Docket {
    pub(super) fn extend(&mut self, ops: Vec<Ordered>, now: Millis) {
        for op in ops {
            if is_question(&op.1) { self.questions.push_back((self.n_asked(), op)) } else { self.steps.push_back(op) }
        }
        self.hold(now);
    }

    /// Steps that were asked so far.
    fn n_asked(&self) -> u64 {
        self.n_left + self.steps.len() as u64
    }

    /// Takes the operations of one turn: steps of about `rows` rows, and questions behind them.
    pub(super) fn take(&mut self, rows: usize, now: Millis) -> Vec<Ordered> {
        let n_steps = fitting(self.steps.iter(), rows);
        let steps: Vec<Ordered> = self.steps.drain(..n_steps).collect();
        self.n_left += n_steps as u64;
        let n_left = self.n_left;
        let ripe = self.questions.iter().take_while(|(after, _)| *after <= n_left).map(|(_, question)| question);
        let n_questions = fitting(ripe, READ_ROWS);
        let questions: Vec<Ordered> = self.questions.drain(..n_questions).map(|(_, question)| question).collect();
        let mut taken = Vec::with_capacity(steps.len() + questions.len());
        let seen = !questions.is_empty() || steps.iter().any(|(_, op)| sees_starts(op));
        if seen {
            taken.extend(self.take_held(|_| true));
        }
        for step in steps {
            match &step.1 {
                Op::Started(started) if !seen => {
                    self.held.push_back((now, started.task));
                    self.starts.insert(started.task, step);
                    continue;
                }
                Op::Ended(ended) => taken.extend(self.starts.remove(&ended.task)),
                _ => {}
            }
            taken.push(step);
        }
        taken.extend(questions);
        let held_ms = self.held_ms();
        taken.extend(self.take_held(|since| now.since(since) >= held_ms));
        self.hold(now);
        taken
    }

    /// Puts back what a turn that was undone had taken.
    pub(super) fn put_back(&mut self, taken: Vec<Ordered>) {
        // What was held since then comes behind it.
        self.let_go();
        let (questions, steps): (Vec<Ordered>, Vec<Ordered>) = taken.into_iter().partition(|(_, op)| is_question(op));
        for step in steps.into_iter().rev() {
            self.push_front(step);
        }
        let n_asked = self.n_asked();
        for question in questions.into_iter().rev() {
            self.questions.push_front((n_asked, question));
        }
    }

    fn push_front(&mut self, step: Ordered) {
        self.steps.push_front(step);
        self.n_left -= 1;
    }

    /// Takes the questions of one look, each with its place: those of people whose answer confirms none of the steps before them. What
    /// a step has brought about nobody was told before it is written, so its row is seen as it was, that of a hand-out among them.
    pub(super) fn take_questions(&mut self) -> Vec<(u64, Ordered)> {
        if self.questions.is_empty() {
            return Vec::new();
        }
        let n_passed = self.steps.iter().take_while(|(_, op)| !is_confirmed(op)).count() as u64;
        let until = self.n_left + n_passed;
        let (mut taken, mut rows_left) = (Vec::new(), READ_ROWS);
        for asked in std::mem::take(&mut self.questions) {
            let (after, (_, op)) = &asked;
            let (is_free, rows) = (*after <= until && is_for_people(op), weight(op));
            if is_free && (taken.is_empty() || rows <= rows_left) {
                rows_left = rows_left.saturating_sub(rows);
                taken.push(asked);
            } else {
                if is_free {
                    // None behind it goes before it.
                    rows_left = 0;
                }
                self.questions.push_back(asked);
            }
        }
        taken
    }

    pub(super) fn put_back_questions(&mut self, taken: Vec<(u64, Ordered)>) {
        for question in taken.into_iter().rev() {
            self.questions.push_front(question);
        }
    }

    /// Holds no hand-out any longer: nothing more will come.
    pub(super) fn let_go(&mut self) {
        for start in self.take_held(|_| true).into_iter().rev() {
            self.push_front(start);
        }
    }

    /// Whether a turn would take something now.
    pub(super) fn is_due(&self, now: Millis) -> bool {
        !self.steps.is_empty() || !self.questions.is_empty() || self.next_at().is_some_and(|at| at <= now)
    }

    /// When the first hand-out that is held is to be written all the same, or earlier.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.held.front().map(|(since, _)| since.after(self.held_ms()))
    }

    fn held_ms(&self) -> u64 {
        if self.starts.len() > FEW_HELD { MANY_HELD_MS } else { START_HELD_MS }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len() + self.steps.len() + self.questions.len()
    }

    /// Hand-outs at the front of the steps begin their wait.
    fn hold(&mut self, now: Millis) {
        while let Some((_, Op::Started(started))) = self.steps.front() {
            let task = started.task;
            self.held.push_back((now, task));
            self.starts.extend(self.steps.pop_front().map(|start| (task, start)));
            self.n_left += 1;
        }
    }

    fn take_held(&mut self, is_over: impl Fn(Millis) -> bool) -> Vec<Ordered> {
        let mut taken = Vec::new();
        while let Some(&(since, task)) = self.held.front()
            && (is_over(since) || !self.starts.contains_key(&task))
        {
            self.held.pop_front();
            taken.extend(self.starts.remove(&task));
        }
        taken
    }
}

/// Whether it could tell that a hand-out is not written yet: all but hand-outs, ends of runs, and what is new.
fn sees_starts(op: &Op) -> bool {
    match op {
        Op::Started(_) | Op::Ended(_) | Op::SessionUp { .. } | Op::SessionGone { .. } => false,
        Op::Submit { secured, .. } => !secured.is_empty(),
        _ => true,
    }
}

/// Whether a question behind it may be there to confirm it: what people change. Steps that are told by their own results, or by none,
/// need no such thing.
fn is_confirmed(op: &Op) -> bool {
    match op {
        Op::Started(_)
        | Op::Ended(_)
        | Op::Noted(_)
        | Op::Submit { .. }
        | Op::Find(_)
        | Op::FindKey { .. }
        | Op::FindTwins(_)
        | Op::Endings(_)
        | Op::Parents { .. }
        | Op::SessionUp { .. }
        | Op::SessionGone { .. } => false,
        op => !is_question(op),
    }
}

/// How many of them, from the first on, have about so many rows; at least one.
fn fitting<'o>(ops: impl Iterator<Item = &'o Ordered>, rows: usize) -> usize {
    let (mut left, mut n) = (rows, 0);
    for (_, op) in ops {
        let weight = weight(op);
        if n > 0 && weight > left {
            break;
        }
        left = left.saturating_sub(weight);
        n += 1;
    }
    n
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

/// Of questions: whether its answer is for somebody who looks. A look at a group on behalf of those who wait for it tells them what has
/// happened since, in the order of the turns.
fn is_for_people(op: &Op) -> bool {
    !matches!(op, Op::Group { live: 1.., .. })
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
    use laneway_core::{Count, Ended, Next, Started, UnixMillis};
    use laneway_protocol::message::Filter;
    use laneway_protocol::{Kind, LaneName, Lease, SessionName};

    use super::*;

    const NOW: Millis = Millis(1_000);

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
        docket.extend((0..100).map(|_| list(512)).collect(), NOW);
        docket.extend(vec![find(1)], NOW);
        assert_eq!(docket.take(4_096, NOW), [find(1), list(512), list(512)]);
        assert_eq!(docket.take(4_096, NOW), [list(512), list(512)]);
        assert_eq!(docket.len(), 96);
    }

    #[test]
    fn a_question_passes_steps_that_wait_but_no_change_of_people() {
        // Proves that what a look may answer does not confirm a pause that is not written, and keeps its place where it cannot.
        let pause = || (None, Op::PauseLane { lane: LaneName::new("low").unwrap(), paused: true });
        let waiters = (None, Op::Group { group: 1, live: 1 });
        let mut docket = Docket::default();
        docket.extend(vec![find(1), waiters.clone(), list(512), list(513), find(2), list(512), pause(), list(2)], NOW);
        let taken = docket.take_questions();
        assert_eq!(taken.len(), 1, "no more than a look has room for");
        docket.put_back_questions(taken);
        for expected in [list(512), list(513), list(512)] {
            let [(_, question)] = &docket.take_questions()[..] else { panic!("one at a time") };
            assert_eq!(*question, expected);
        }
        assert_eq!(docket.take_questions(), [], "behind the pause");
        assert_eq!(docket.take(4_096, NOW), [find(1), find(2), pause(), waiters, list(2)]);
    }

    #[test]
    fn what_is_asked_behind_a_change_is_answered_behind_it() {
        // Proves that a question which confirms a step waits for that step's turn, also when one of the two turns is undone, and
        // that steps which came later do not hold it up.
        let change = || (None, Op::PauseLane { lane: LaneName::new("low").unwrap(), paused: true });
        let mut docket = Docket::default();
        docket.extend(vec![find(4), change(), list(1)], NOW);
        let taken = docket.take(4, NOW);
        assert_eq!(taken, [find(4)]);
        docket.extend(vec![find(4)], NOW);
        docket.put_back(taken);
        assert_eq!(docket.take(4, NOW), [find(4)]);
        let taken = docket.take(4, NOW);
        assert_eq!(taken, [change(), list(1)]);
        docket.put_back(taken);
        assert_eq!(docket.take(1, NOW), [change()]);
        assert_eq!(
            docket.take(4, NOW),
            [find(4), list(1)],
            "what was undone comes back behind all that was asked by then"
        );
        assert!(docket.is_empty());
    }

    fn started(n: u64) -> Ordered {
        let (kind, lane) = (Kind::new("k").unwrap(), LaneName::new("normal").unwrap());
        let worker = SessionName::new("w").unwrap();
        let task = TaskId::new(n).unwrap();
        let (at, lease) = (UnixMillis(1), Lease::new(1));
        (None, Op::Started(Started { task, lease, run: 1, worker, at, kind, lane, attempt: 1, wait_ms: 0 }))
    }

    fn ended(n: u64) -> Ordered {
        let (_, Op::Started(Started { task, lease, run, worker, at, kind, lane, attempt, .. })) = started(n) else {
            unreachable!("it is one")
        };
        let (next, count) = (Next::Done(None), Count::Attempt);
        let (error, cause, spawn) = (None, None, Vec::new());
        let ended =
            Ended { task, lease, run, next, count, error, cause, spawn, worker, at, kind, lane, attempt, run_ms: 1 };
        (Some(OpId(n)), Op::Ended(ended))
    }

    #[test]
    fn a_hand_out_waits_for_its_end_and_not_for_ever() {
        // Proves that the two come together, that one without its end is taken in time and says when, and that a docket which
        // holds only such ones has nothing due.
        let mut docket = Docket::default();
        docket.extend(vec![started(1), started(2)], NOW);
        assert!(!docket.is_due(NOW) && !docket.is_empty());
        docket.extend(vec![ended(1), started(3)], NOW.after(1));
        assert!(docket.is_due(NOW.after(1)));
        assert_eq!(docket.take(100, NOW.after(1)), [started(1), ended(1)]);
        assert_eq!((docket.len(), docket.is_due(NOW.after(1))), (2, false));
        let at = NOW.after(START_HELD_MS);
        assert!(docket.next_at().unwrap() <= at && docket.is_due(at));
        assert_eq!(docket.take(100, at), [started(2)]);
        assert_eq!(docket.take(100, at.after(1)), [started(3)]);
        assert!(docket.is_empty());
    }

    #[test]
    fn a_crowd_of_hand_outs_waits_longer_for_its_ends() {
        // Proves that workers with thousands of tasks in hand cost one write for each, that none waits for ever, and that what is
        // left of a crowd goes by the shorter time again.
        let mut docket = Docket::default();
        let n = FEW_HELD as u64 + 1;
        docket.extend((1..=n).map(started).collect(), NOW);
        assert!(!docket.is_due(NOW.after(MANY_HELD_MS - 1)) && docket.is_due(NOW.after(MANY_HELD_MS)));
        docket.extend(vec![ended(7)], NOW.after(START_HELD_MS));
        let taken = docket.take(1, NOW.after(START_HELD_MS));
        assert_eq!((&taken[..2], taken.len()), (&[started(7), ended(7)][..], 2 + FEW_HELD), "no crowd any more");
        docket.extend((1..=n).map(started).collect(), NOW);
        assert_eq!(docket.take(1, NOW.after(MANY_HELD_MS)).len(), FEW_HELD + 1);
        assert!(docket.is_empty());
    }

    #[test]
    fn a_hand_out_is_written_before_whatever_could_tell() {
        // Proves that a question, a search and a cancel see every hand-out that came before them, and those after them stay behind.
        for sees in [list(1), find(9), (None, Op::Cancel(vec![TaskId::new(1).unwrap()]))] {
            let mut docket = Docket::default();
            docket.extend(vec![started(1), ended(7), started(2), sees.clone()], NOW);
            let mut taken = docket.take(100, NOW);
            assert_eq!(taken.pop(), Some(sees));
            assert_eq!(taken, [started(1), ended(7), started(2)]);
        }
    }

    #[test]
    fn an_undone_turn_and_the_end_lose_no_hand_out() {
        // Proves that what was taken comes again in its order, and that at the end nothing is held back.
        let mut docket = Docket::default();
        docket.extend(vec![started(1), started(2), ended(1)], NOW);
        let taken = docket.take(100, NOW);
        assert_eq!(taken, [started(1), ended(1)]);
        docket.put_back(taken);
        docket.let_go();
        assert_eq!(docket.len(), 3);
        let mut taken = docket.take(100, NOW);
        taken.extend(docket.take(100, NOW.after(START_HELD_MS)));
        assert_eq!(taken, [started(1), ended(1), started(2)]);
    }

    #[test]
    fn a_turn_takes_rows_and_not_operations() {
        // Proves that long lists of ids fill a turn as many short ones do, that one over the bound is taken alone, and that an
        // undone turn changes nothing.
        let mut docket = Docket::default();
        docket.extend(vec![find(60), find(50), find(500), find(1)], NOW);
        let first = docket.take(100, NOW);
        assert_eq!(first, [find(60)]);
        docket.put_back(first);
        assert_eq!(docket.take(110, NOW), [find(60), find(50)]);
        assert_eq!(docket.take(100, NOW), [find(500)]);
        assert_eq!(docket.take(100, NOW), [find(1)]);
        assert!(docket.is_empty());
    }
}
