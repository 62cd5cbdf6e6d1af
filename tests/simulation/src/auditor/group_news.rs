//! What those who wait for a group hear: every word of all its tasks as `news` has it, in one order and soon; and at its end, behind all of
//! them, how its last task ended.

use std::collections::BTreeSet;

use laneway_protocol::TaskId;
use laneway_protocol::message::{GroupRow, ProgressEvent, WaitFor, Waited};

use super::{Auditor, id};

/// A word may take this long on top of whatever goes wrong: turns and latencies, for nothing is retried.
const WORD_LATE_MS: u64 = 100;

impl Auditor {
    pub(super) fn wrong_news_of_group(
        &mut self,
        question: &WaitFor,
        asked_at: u64,
        waited: &Waited,
        row: &GroupRow,
    ) -> Option<String> {
        let own = self.own_cursor(question);
        let (after, to) = match self.stretch(question, waited) {
            Ok(stretch) => stretch,
            Err(wrong) => return Some(wrong.into()),
        };
        let n_rows = waited.events.iter().take_while(|event| !self.is_word(event)).count();
        let (rows, told) = waited.events.split_at(n_rows);
        if !told.is_sorted_by_key(|event| event.n) || told.iter().any(|event| !self.is_word(event)) {
            return Some("the words are not told in the order in which they were said".into());
        }
        let goes_on = own.is_some_and(|cursor| cursor.epoch.0 == self.heard.epoch);
        let of_rows: BTreeSet<TaskId> = rows.iter().map(|row| row.task).collect();
        if of_rows.len() < rows.len() || (goes_on && n_rows > 0) {
            return Some(format!("rows tell {rows:?}"));
        }
        if let Some(task) = of_rows.into_iter().find(|task| !self.is_of_group(*task, row.group)) {
            return Some(format!("the row of task {task}, which is of another group, is told"));
        }
        self.tally.group_words += told.len() as u64;
        self.wrong_words_of_group(question, waited, row, (after, to), told)
            .or_else(|| self.late_word(asked_at, told))
            .or_else(|| self.wrong_end_of_group(waited, row, to))
            .or_else(|| {
                let anew = own.is_none() && waited.cursor.epoch.0 == self.heard.epoch && row.live() > 0;
                let silent = waited.pending.iter().find(|task| self.leaves_row_out(**task, waited)).filter(|_| anew);
                silent.map(|task| format!("what the row of task {task} says is not told"))
            })
    }

    /// All words of the group that were said between two places, or of each task the last ones.
    fn wrong_words_of_group(
        &self,
        question: &WaitFor,
        waited: &Waited,
        row: &GroupRow,
        (after, to): (usize, usize),
        told: &[ProgressEvent],
    ) -> Option<String> {
        let said: Vec<&ProgressEvent> =
            (after..to).filter(|at| self.is_said_in(*at, row.group)).map(|at| &self.heard.log[at]).collect();
        // Of a task whose row an app has changed or deleted nobody here knows the group.
        let told: Vec<&ProgressEvent> = told.iter().filter(|word| !self.touched.contains(&id(word.task))).collect();
        if let Some(word) = told.iter().find(|word| !said.contains(word)) {
            return Some(format!("word {} of task {} was not said in the group behind the cursor", word.n, word.task));
        }
        let may_miss = waited.gap || question.cursor.is_none();
        let missed = |task: TaskId| {
            let of = |words: &[&ProgressEvent]| -> Vec<u64> {
                words.iter().filter(|word| word.task == task).map(|word| word.n).collect()
            };
            let (said, told) = (of(&said), of(&told));
            (told != said && !(may_miss && said.ends_with(&told))).then_some((said, told))
        };
        let tasks: BTreeSet<TaskId> = said.iter().map(|word| word.task).collect();
        let missed = tasks.into_iter().find_map(|task| Some((task, missed(task)?)));
        missed.map(|(task, (said, told))| format!("of task {task} of a group {said:?} was said, and {told:?} is told"))
    }

    /// Whoever was waiting when a word was said hears it soon.
    fn late_word(&self, asked_at: u64, told: &[ProgressEvent]) -> Option<String> {
        let word = told.first()?;
        let said_at = self.heard.said[usize::try_from(word.n).expect("it was found") - 1].0;
        let since = said_at.max(asked_at).max(self.disturbed);
        let late = self.now.saturating_sub(since) > WORD_LATE_MS;
        late.then(|| format!("word {} was said at {said_at} and is told at {}", word.n, self.now))
    }

    /// While nothing of the group is live and something is to be told, something is pending; then the end of the last task comes.
    fn wrong_end_of_group(&self, waited: &Waited, row: &GroupRow, to: usize) -> Option<String> {
        if !waited.pending.is_empty() {
            return (!waited.finals.is_empty()).then(|| "the end of a group is told before it has ended".into());
        }
        let odd = |task: TaskId| self.touched.contains(&id(task)) || self.requeued.contains(&id(task));
        let later = (to..self.heard.log.len()).filter(|at| self.is_said_in(*at, row.group));
        if let Some(at) = later.into_iter().find(|at| !odd(self.heard.log[*at].task)) {
            return Some(format!("the end of a group comes before word {} of it", at + 1));
        }
        if let Some(end) = waited.finals.iter().find(|end| Some(end.task) != row.last || self.is_wrong_end(end)) {
            return Some(format!("the end of task {} is not that of the last task", end.task));
        }
        let last = row.last.filter(|last| !odd(*last) && waited.finals.is_empty())?;
        let ended = self.rows.get(&id(last)).is_some_and(|row| row.state.is_final());
        ended.then(|| format!("the end of task {last}, the last of its group, is not told"))
    }

    fn is_said_in(&self, at: usize, group: u64) -> bool {
        let of_group = self.heard.said[at].1 == i64::try_from(group).ok();
        of_group && !self.touched.contains(&id(self.heard.log[at].task))
    }

    fn is_of_group(&self, task: TaskId, group: u64) -> bool {
        let is_odd = self.touched.contains(&id(task)) || self.is_gone(id(task));
        is_odd || self.rows.get(&id(task)).is_some_and(|row| row.group == i64::try_from(group).ok())
    }
}
