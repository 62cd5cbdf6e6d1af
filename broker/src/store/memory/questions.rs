//! What the model tells about its rows.

use std::collections::BTreeMap;

use laneway_core::{Counts, Ending};
use laneway_protocol::message::{Filter, Final, StatusRows, TaskRow};
use laneway_protocol::{TaskId, TaskState};

use super::Step;
use super::cells::{cell, int, payload, sql, state, task_row, text};

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
        };
        let before = filter.before.map_or(i64::MAX, sql);
        let rows = self.db.rows.range(..before).rev().map(|(id, row)| task_row(*id, row, &self.judge.rules));
        let rows: Vec<TaskRow> = rows.filter(matches).take(limit).collect();
        let next = (rows.len() == limit).then(|| rows[limit - 1].id);
        StatusRows { rows, next, ..StatusRows::default() }
    }

    pub(super) fn show(&self, tasks: &[TaskId]) -> StatusRows {
        let (known, not_found): (Vec<TaskId>, Vec<TaskId>) =
            tasks.iter().partition(|task| self.db.rows.contains_key(&sql(**task)));
        let rows =
            known.iter().map(|task| task_row(sql(*task), &self.db.rows[&sql(*task)], &self.judge.rules)).collect();
        StatusRows { rows, not_found, ..StatusRows::default() }
    }
}
