//! What the model tells about its rows.

use std::collections::BTreeMap;

use laneway_core::{Counts, Ending, Now};
use laneway_protocol::limits::{AHEAD_MAX, WAITS_FOR_MAX};
use laneway_protocol::message::{Filter, Final, StatusRows, TaskRow};
use laneway_protocol::{TaskId, TaskState};

use super::cells::{cell, int, payload, sql, state, task_id, task_row, text};
use super::{Cells, Step};

impl Step<'_> {
    pub(super) fn endings(&self, tasks: &[TaskId]) -> Vec<(TaskId, Ending)> {
        let ending = |task: &TaskId| match self.db.rows.get(&sql(*task)) {
            Some(row) if state(row).is_final() => Ending::Final(Final {
                task: *task,
                state: state(row),
                result: payload(&row["result"]),
                error: text(row, "error").map(str::to_owned),
            }),
            Some(row) => Ending::Live {
                done: int(row, "progress_done").map(i64::unsigned_abs),
                total: int(row, "progress_total").map(i64::unsigned_abs),
                note: text(row, "progress_note").map(str::to_owned),
            },
            None if sql(*task) <= self.db.newest_id => Ending::Pruned,
            None => Ending::NotFound,
        };
        tasks.iter().map(|task| (*task, ending(task))).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let mut queued: BTreeMap<(String, String), u64> = BTreeMap::new();
        let rows = self.db.rows.values();
        for row in rows.clone().filter(|row| state(row) == TaskState::Queued) {
            if let Ok(key) = self.judge.key(cell(row, "kind"), cell(row, "lane")) {
                *queued.entry((key.lane.as_str().into(), key.kind.as_str().into())).or_default() += 1;
            }
        }
        Counts {
            submitted: self.news.rows,
            queued: queued.into_iter().map(|((lane, kind), n)| (lane, kind, n)).collect(),
            dead: rows.filter(|row| state(row) == TaskState::Dead).count() as u64,
            overtaken: self.db.overtaken,
            ..Counts::default()
        }
    }

    pub(super) fn list(&self, filter: &Filter) -> StatusRows {
        let limit = if filter.limit == 0 { 50 } else { filter.limit as usize };
        let matches = |row: &TaskRow| {
            filter.state.is_none_or(|state| state == row.state)
                && filter.kind.as_ref().is_none_or(|kind| *kind == row.kind)
                && filter.lane.as_ref().is_none_or(|wanted| row.lane.as_ref() == Some(wanted))
                && filter.group.is_none_or(|group| row.group == Some(group))
        };
        let before = filter.before.map_or(i64::MAX, sql);
        let rows = self.db.rows.range(..before).rev().map(|(id, row)| task_row(*id, row, &self.judge.rules));
        let rows: Vec<TaskRow> = rows.filter(matches).take(limit).collect();
        let next = (rows.len() == limit).then(|| rows[limit - 1].id);
        StatusRows { rows, next, ..StatusRows::default() }
    }

    pub(super) fn show(&self, tasks: &[TaskId], detail: bool, now: Now) -> StatusRows {
        let (known, not_found): (Vec<TaskId>, Vec<TaskId>) =
            tasks.iter().partition(|task| self.db.rows.contains_key(&sql(**task)));
        let shown = |task: &TaskId| {
            let mut row = task_row(sql(*task), &self.db.rows[&sql(*task)], &self.judge.rules);
            if detail {
                let cells = &self.db.rows[&sql(*task)];
                (row.payload, row.result) = (payload(&cells["payload"]), payload(&cells["result"]));
                row.twin = self.twin(&row);
                if row.state == TaskState::Waiting {
                    let open = self.open_edges(sql(*task));
                    row.waits_for = open.iter().take(WAITS_FOR_MAX).map(|edge| task_id(edge.parent)).collect();
                    row.waits_for_n = u32::try_from(open.len()).unwrap_or(u32::MAX);
                }
                row.ahead = self.ahead(&row, now).filter(|_| tasks.len() == 1);
            }
            row
        };
        StatusRows { rows: known.iter().map(shown).collect(), not_found, ..StatusRows::default() }
    }

    fn twin(&self, row: &TaskRow) -> Option<TaskId> {
        let key = row.unique_key.as_deref().filter(|_| row.state.is_final())?;
        let is_twin = |other: &Cells| {
            !state(other).is_final()
                && text(other, "kind") == Some(row.kind.as_str())
                && text(other, "unique_key") == Some(key)
        };
        let twin = self.db.rows.iter().find(|(_, other)| is_twin(other));
        twin.and_then(|(id, _)| TaskId::new(id.unsigned_abs()))
    }

    fn ahead(&self, row: &TaskRow, now: Now) -> Option<u32> {
        let due = |row: &TaskRow| row.run_at.unwrap_or(row.created_at);
        if row.state != TaskState::Queued || row.run_at.is_some_and(|at| at > now.wall.0) {
            return None;
        }
        let rows = self.db.rows.iter().map(|(id, cells)| task_row(*id, cells, &self.judge.rules));
        let before = rows.filter(|other| {
            other.state == TaskState::Queued
                && other.lane == row.lane
                && other.fair_key == row.fair_key
                && other.run_at.is_none_or(|at| at <= now.wall.0)
                && (due(other), other.id) < (due(row), row.id)
        });
        Some(u32::try_from(before.count()).unwrap_or(u32::MAX).min(AHEAD_MAX + 1))
    }
}
