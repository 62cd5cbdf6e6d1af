//! How many ended rows of a kind are kept where that was said: the oldest beyond so many go, and soon, and none of the others.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::Op;
use laneway_protocol::message::{KindValues, Request};
use laneway_protocol::{Kind, TaskState};

use super::{Auditor, LATE_MS, id};
use crate::row::Row;

const OUTCOMES: [TaskState; 3] = [TaskState::Done, TaskState::Cancelled, TaskState::Dead];
/// Two walks over the table, a broker that stands still between them included. A turn that fails begins anew.
const WALKS_MS: u64 = 5_000;
/// A change is committed within this when nothing is in its way.
const TURNS_MS: u64 = 500;
/// As long as two walks take when nothing is in their way.
const LONG_MS: u64 = 2_000;

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// What was said of a kind, and when; the newest last.
    said: BTreeMap<String, Vec<(u64, KindValues)>>,
    /// Since when a row has ended, and nobody needs it.
    free: BTreeMap<i64, u64>,
    /// The oldest such row of a kind that has too many, and since when.
    surplus: BTreeMap<(String, &'static str), (i64, u64)>,
    /// Tasks that somebody has waited for: they are kept a while.
    waited: BTreeSet<i64>,
}

/// Cancelled rows are kept as done ones are.
fn count_of(values: &KindValues, state: TaskState) -> Option<u64> {
    match state {
        TaskState::Done => values.done_count_max,
        TaskState::Cancelled => values.cancelled_count_max.or(values.done_count_max),
        _ => values.dead_count_max,
    }
}

impl Auditor {
    pub(super) fn counts_on_start(&mut self, kinds: &[(Kind, bool, KindValues)]) {
        let said = kinds.iter().map(|(kind, _, values)| (kind.to_string(), vec![(self.now, values.clone())]));
        let waited = std::mem::take(&mut self.counts.waited);
        self.counts = Counts { said: said.collect(), waited, ..Counts::default() };
    }

    pub(super) fn counts_on_asked(&mut self, request: &Request) {
        if let Request::WaitFor(wait) = request {
            self.counts.waited.extend(wait.tasks.iter().map(|task| id(*task)));
        }
    }

    pub(super) fn counts_on_op(&mut self, op: &Op) {
        if let Op::SetKind { kind, values, .. } = op {
            let nothing = || vec![(0, KindValues::default())];
            self.counts.said.entry(kind.to_string()).or_insert_with(nothing).push((self.now, values.clone()));
        }
    }

    /// Whether rows of this kind may be too many.
    pub(super) fn is_counted(&self, row: &Row) -> bool {
        OUTCOMES.iter().any(|state| self.counts_said(&row.kind, *state).next().is_some())
    }

    /// Whether a row that left was one too many: without it as many are there as are to be kept.
    fn was_surplus(&self, row: &Row) -> bool {
        let states = if row.state.is_final() { vec![row.state] } else { OUTCOMES.to_vec() };
        states.into_iter().any(|state| {
            let there = self.rows.values().filter(|other| other.kind == row.kind && other.state == state).count();
            self.counts_said(&row.kind, state).any(|max| there as u64 >= max)
        })
    }

    /// What may hold now: the last word, and those that it has followed a moment ago, for a word holds once it is committed.
    fn counts_said(&self, kind: &str, state: TaskState) -> impl Iterator<Item = u64> {
        let words = self.counts.said.get(kind).map_or(&[][..], Vec::as_slice);
        let is_calm = self.disturbed + 2 * TURNS_MS < self.now;
        let recently = self.now.saturating_sub(if is_calm { TURNS_MS } else { WALKS_MS });
        let old = words.iter().skip(1).take_while(|(at, _)| *at < recently).count();
        words[old..].iter().filter_map(move |(_, values)| count_of(values, state)).collect::<Vec<_>>().into_iter()
    }

    /// A turn is committed.
    pub(super) fn check_counts(&mut self, before: &BTreeMap<i64, Row>) {
        let counted = std::mem::take(&mut self.edits.counted);
        let rows = &self.rows;
        let is_free = |task: &i64, row: &Row| {
            let alone = row.group.is_none() && row.unique_key.is_none();
            let told = self.promises.stored.contains(task) || self.counts.waited.contains(task);
            let parent = || self.edges.keys().any(|(_, parent)| parent == task);
            row.state.is_final() && alone && !told && !self.touched.contains(task) && !parent()
        };
        let free = rows.iter().filter(|(task, row)| is_free(task, row));
        let free: BTreeMap<i64, u64> =
            free.map(|(task, _)| (*task, self.counts.free.get(task).copied().unwrap_or(self.now))).collect();
        self.counts.free = free;
        for task in counted {
            let gone = &before[&task];
            if !self.was_surplus(gone) {
                self.found.get_or_insert(format!("task {task} was not one too many: {gone:?}"));
            }
            let older = self.counts.free.range(..task).find(|(other, since)| {
                let row = &rows[*other];
                (&row.kind, row.state) == (&gone.kind, gone.state) && self.now.saturating_sub(**since) > LONG_MS
            });
            if let Some((other, _)) = older.filter(|_| self.disturbed + LONG_MS < self.now) {
                self.found.get_or_insert(format!("task {task} is one too many, and the older {other} stays"));
            }
        }
        self.check_surplus();
    }

    /// A row that is one too many for longer than any walk takes.
    fn check_surplus(&mut self) {
        let mut surplus = BTreeMap::new();
        for (kind, words) in &self.counts.said {
            for state in OUTCOMES {
                let Some(max) = words.last().and_then(|(_, values)| count_of(values, state)) else { continue };
                let of = |row: &&Row| row.kind == *kind && row.state == state;
                let n_rows = self.rows.values().filter(of).count() as u64;
                let oldest = self.counts.free.keys().find(|task| self.rows.get(*task).is_some_and(|row| of(&row)));
                let Some(oldest) = oldest.filter(|_| n_rows > max) else { continue };
                let place = (kind.clone(), state.as_str());
                let before = self.counts.surplus.get(&place).filter(|(task, _)| task == oldest);
                let since = before.map_or(self.now, |(_, since)| *since);
                if self.now.saturating_sub(since.max(self.disturbed)) > LATE_MS {
                    self.found.get_or_insert(format!("of {n_rows} {state} rows of {kind} {max} are kept: {oldest}"));
                }
                surplus.insert(place, (*oldest, since));
            }
        }
        self.counts.surplus = surplus;
    }
}
