//! What those who wait hear: every word, of progress, of a result or of a log, once, whole and in order, or a gap; after a restart a gap and what the row says; and
//! an end for each task, behind all its words. Of those who wait for a group the rules are in `group_news`.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::message::{Cursor, Final, Progress, ProgressEvent, Request, WaitFor, Waited};
use laneway_protocol::{TaskId, TaskState};

use super::{Auditor, Open, id};

/// The progress that the broker which runs now has taken in.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// In order, as they are to be told. The first has number 1.
    pub(super) log: Vec<ProgressEvent>,
    /// When each was said, and the group of its task.
    pub(super) said: Vec<(u64, Option<i64>)>,
    /// The epoch of this broker, and those of the cursors that it gave.
    pub(super) epoch: u64,
    given: BTreeSet<u64>,
    /// What it found when it started, which a start brings to the disk.
    found: BTreeMap<i64, TaskState>,
}

impl Auditor {
    pub(super) fn news_on_start(&mut self, epoch: u64) {
        let found = self.rows.iter().map(|(task, row)| (*task, row.state)).collect();
        self.heard = Heard { epoch, found, ..Heard::default() };
    }

    pub(super) fn on_progress_taken(&mut self, progress: &Progress) {
        let Progress { task, done, total, note, data, log, .. } = progress.clone();
        let n = self.heard.log.len() as u64 + 1;
        let event = ProgressEvent { n, task, done, total, note: note.map(cut), data, log: log.map(cut) };
        let is_silent = !tells_standing(&event) && event.data.is_none() && event.log.is_none();
        self.tally.pieces += u64::from(event.data.is_some() || event.log.is_some());
        if !is_silent {
            let group = self.rows.get(&id(task)).and_then(|row| row.group);
            self.heard.said.push((self.now, group));
            self.heard.log.push(event);
        }
    }

    pub(super) fn check_news(&mut self, question: &WaitFor, asked_at: u64, waited: &Waited) {
        let wrong = match &waited.group {
            None => self.wrong_news(question, waited),
            Some(row) => self.wrong_news_of_group(question, asked_at, waited, row),
        };
        self.heard.given.insert(waited.cursor.epoch.0);
        self.tally.words += waited.events.len() as u64;
        self.tally.gaps += u64::from(waited.gap);
        self.tally.cut_short += u64::from(self.told_to(waited) < self.heard.log.len());
        if let Some(wrong) = wrong {
            self.fail(format!("{wrong}: {question:?} is answered with {waited:?}"));
        }
    }

    /// So many of the words that this broker has taken in are told or passed over: none while it still tells of rows.
    pub(super) fn told_to(&self, waited: &Waited) -> usize {
        let n = if waited.cursor.epoch.0 == self.heard.epoch { waited.cursor.n } else { 0 };
        usize::try_from(n).expect("there are not so many")
    }

    /// The cursor of a question, if this broker has given it.
    pub(super) fn own_cursor(&self, question: &WaitFor) -> Option<Cursor> {
        question.cursor.filter(|cursor| self.heard.given.contains(&cursor.epoch.0))
    }

    /// So many words had been heard by whoever asks.
    pub(super) fn heard_before(&self, question: &WaitFor) -> usize {
        let own = self.own_cursor(question).filter(|cursor| cursor.epoch.0 == self.heard.epoch);
        usize::try_from(own.map_or(0, |cursor| cursor.n)).expect("there are not so many")
    }

    /// Whether it is a word that this broker has taken in, as it was; else it tells what a row says.
    pub(super) fn is_word(&self, event: &ProgressEvent) -> bool {
        let at = usize::try_from(event.n).ok().and_then(|n| n.checked_sub(1));
        at.and_then(|at| self.heard.log.get(at)) == Some(event)
    }

    /// Whether the row of a task says how far it is, which no word of this broker does, and the answer leaves it out.
    pub(super) fn leaves_row_out(&self, task: TaskId, waited: &Waited) -> bool {
        let shows = self.rows.get(&id(task)).is_some_and(|row| row.progress.is_some());
        let spoke = self.heard.log.iter().any(|word| word.task == task && tells_standing(word));
        let is_told = waited.events.iter().any(|event| event.task == task);
        // What a word has brought into the row is told with the answer to that word.
        let is_answered = |open: &Open| !matches!(&open.request, Request::Progress(word) if word.task == task);
        shows && !spoke && !is_told && !self.touched.contains(&id(task)) && self.open.values().all(is_answered)
    }

    /// Whether a task is told to be done, and that is not on disk.
    pub(super) fn is_wrong_end(&self, end: &Final) -> bool {
        let task = id(end.task);
        let odd = self.touched.contains(&task) || self.requeued.contains(&task);
        let on_disk = [self.synced.get(&task).map(|row| row.state), self.heard.found.get(&task).copied()];
        // A cancel or an expiry that a power cut takes back comes again by itself; a result would not.
        end.state == TaskState::Done && !odd && !self.is_gone(task) && !on_disk.contains(&Some(end.state))
    }

    /// From which word on, and up to which, an answer is to tell.
    pub(super) fn stretch(&self, question: &WaitFor, waited: &Waited) -> Result<(usize, usize), &'static str> {
        if question.cursor.is_some() && self.own_cursor(question).is_none() && !waited.gap {
            return Err("a cursor of another broker is no gap");
        }
        let (after, to) = (self.heard_before(question), self.told_to(waited));
        if to < after { Err("the cursor goes back") } else { Ok((after, to)) }
    }

    fn wrong_news(&self, question: &WaitFor, waited: &Waited) -> Option<String> {
        let own = self.own_cursor(question);
        let (after, to) = match self.stretch(question, waited) {
            Ok(stretch) => stretch,
            Err(wrong) => return Some(wrong.into()),
        };
        let finals: Vec<TaskId> = waited.finals.iter().map(|end| end.task).collect();
        let lists = [&finals, &waited.pending, &waited.not_found, &waited.pruned];
        let mut named: Vec<TaskId> = lists.into_iter().flatten().copied().collect();
        named.sort_unstable();
        let asked: BTreeSet<TaskId> = question.tasks.iter().copied().collect();
        if question.kind.is_none() && !named.iter().eq(asked.iter()) {
            return Some("not every task is answered once".into());
        }
        for task in finals.iter().chain(&waited.pending).copied() {
            let of = |words: &[ProgressEvent]| -> Vec<u64> {
                words.iter().filter(|word| word.task == task).map(|word| word.n).collect()
            };
            let said = of(&self.heard.log[after..to]);
            let events: Vec<&ProgressEvent> = waited.events.iter().filter(|event| event.task == task).collect();
            let (told, rows): (Vec<&ProgressEvent>, Vec<_>) = events.iter().partition(|event| self.is_word(event));
            let told: Vec<u64> = told.iter().map(|event| event.n).collect();
            let may_miss = waited.gap || question.cursor.is_none();
            if told != said && !(may_miss && said.ends_with(&told)) {
                return Some(format!("of task {task} {said:?} was said, and {told:?} is told"));
            }
            let goes_on = own.is_some_and(|cursor| cursor.epoch.0 == self.heard.epoch);
            if rows.len() > usize::from(!goes_on) || rows.first().is_some_and(|row| events[0] != *row) {
                return Some(format!("of task {task} a row tells {rows:?}"));
            }
            let odd = self.touched.contains(&id(task)) || self.requeued.contains(&id(task));
            if finals.contains(&task) && !odd && !of(&self.heard.log[to..]).is_empty() {
                return Some(format!("the end of task {task} comes before its last words"));
            }
        }
        // Who begins anew with another broker hears what the rows say.
        let is_whole = waited.cursor.epoch.0 == self.heard.epoch;
        let anew = own.is_none() && is_whole;
        let silent = waited.pending.iter().find(|task| self.leaves_row_out(**task, waited)).filter(|_| anew);
        if let Some(task) = silent {
            return Some(format!("what the row of task {task} says is not told"));
        }
        let wrong_end = waited.finals.iter().find(|end| self.is_wrong_end(end));
        wrong_end.map(|end| format!("the end of task {} is not what is on disk", end.task))
    }
}

/// As its row does.
fn tells_standing(word: &ProgressEvent) -> bool {
    word.done.is_some() || word.total.is_some() || word.note.is_some()
}

/// Longer texts are told up to the last whole character within 8 KiB.
fn cut(mut text: String) -> String {
    let end = (0..=text.len().min(8_192)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
