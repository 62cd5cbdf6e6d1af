//! Who is served: the higher lane first, no slot idle beside work, and everybody answered in time.

use laneway_core::{Now, derive_key};
use laneway_protocol::message::{NewTask, OnConflict, Ready, Request};
use laneway_protocol::{Kind, LaneName, TaskState};

use super::{Auditor, LATE_MS};
use crate::plan::LANES;
use crate::row::Row;

impl Auditor {
    /// A task of a higher lane than `rank` that waits for a slot such as this.
    pub(super) fn goes_first(&self, ready: &Ready, rank: usize, now: Now) -> Option<String> {
        let (kinds, lanes) = self.ability(ready)?;
        let above = |row: &Row| {
            row.rank.is_some_and(|own| own < rank && lanes.contains(&own))
                && kinds.iter().any(|kind| kind.as_str() == row.kind)
        };
        let mut waiting = self.waiting.told.1.iter();
        let (task, row) =
            waiting.find(|(task, row)| above(row) && self.waits(**task, row, now) && !self.is_held(row))?;
        Some(format!("task {task}, which waits in lane {}", LANES[row.rank.unwrap_or(0)]))
    }

    /// Whether a row of the last whole look is there for any slot that can run it.
    pub(super) fn waits(&self, task: i64, row: &Row, now: Now) -> bool {
        let now_row = self.rows.get(&task);
        row.state == TaskState::Queued
            && row.due <= self.waiting.told.0
            && row.due <= now.wall.0
            && row.expires_at.is_none()
            && row.losses == 0
            && !row.cancel_requested
            && now_row
                .is_some_and(|new| new.state == TaskState::Queued && new.rank == row.rank && new.due <= now.wall.0)
            && !self.leases.of.contains_key(&task)
            && row.runs >= self.leases.newest_run.get(&task).copied().unwrap_or(0)
            && !self.touched.contains(&task)
            && !self.waiting.cancelling.contains(&task)
            && self.follows(row)
            && !self.is_being_replaced(row)
            && self.is_in_reach(row)
    }

    /// Nobody may start it while a submit that wants to replace it is on its way.
    fn is_being_replaced(&self, row: &Row) -> bool {
        let replaces = |task: &NewTask| {
            let mut task = task.clone();
            derive_key(&mut task);
            task.on_conflict == OnConflict::Replace
                && task.kind.as_str() == row.kind
                && task.unique_key == row.unique_key
        };
        row.unique_key.is_some()
            && self.open.values().any(|open| match &open.request {
                Request::Submit(submit) => submit.tasks.iter().any(replaces),
                _ => false,
            })
    }

    /// Lower lanes do not wait for what stands behind a whole window of suspects.
    fn is_in_reach(&self, row: &Row) -> bool {
        let beside = |other: &&Row| {
            (other.rank, &other.kind) == (row.rank, &row.kind) && other.losses > 0 && other.state == TaskState::Queued
        };
        self.rows.values().filter(beside).count() < self.window_rows_max
    }

    pub(crate) fn on_quiet(&mut self, quiet: bool, now: u64) {
        self.now = now;
        if self.quiet && !quiet {
            // What has waited meanwhile is late from here on.
            self.disturbed(now);
        }
        self.tally.quiet += u64::from(quiet);
        self.quiet = quiet;
    }

    pub(super) fn check_quiet(&mut self, task: i64) {
        if self.quiet {
            self.fail(format!("task {task} is handed out by a broker that was told to be quiet"));
        }
    }

    /// A slot that has been parked beside a task for longer than anything takes.
    fn idle_beside(&self, now: Now) -> Option<String> {
        if self.quiet {
            return None;
        }
        let long = |since: u64, ms: u64| now.mono.0.saturating_sub(since.max(self.disturbed)) > ms;
        let parked = self.open.values().filter(|open| !open.gone && long(open.at, 100));
        for open in parked {
            let Request::Ready(ready) = &open.request else { continue };
            let Some((kinds, lanes)) = self.ability(ready).filter(|_| ready.max > 0) else { continue };
            let fits = |row: &Row| {
                row.rank.is_some_and(|own| lanes.contains(&own)) && kinds.iter().any(|kind| kind.as_str() == row.kind)
            };
            let waiting = self.waiting.told.1.iter().filter(|(task, row)| fits(row) && self.waits(**task, row, now));
            for (task, row) in waiting {
                let held = self.held_until(row);
                if self.waiting.since.get(task).is_some_and(|(since, _)| long(held.max(*since), LATE_MS)) {
                    return Some(format!("{} waits in slot {} beside task {task}", ready.session, ready.slot));
                }
            }
        }
        None
    }

    /// The kinds and lanes that a slot can run.
    pub(super) fn ability(&self, ready: &Ready) -> Option<(Vec<Kind>, Vec<usize>)> {
        let hello = self.peers.hello.get(ready.session.as_str())?;
        let kinds = ready.kinds.clone().unwrap_or_else(|| hello.kinds.clone());
        let lanes = ready.lanes.clone().or_else(|| hello.lanes.clone());
        let of = |lane: &LaneName| LANES.iter().position(|name| *name == lane.as_str());
        Some((kinds, lanes.map_or_else(|| (0..LANES.len()).collect(), |lanes| lanes.iter().filter_map(of).collect())))
    }

    pub(crate) fn after_router_turn(&mut self, clocks: Now) {
        let now = clocks.mono.0;
        self.now = now;
        self.note_held();
        self.check_stakes();
        if let Some(found) = self.waits_in_vain() {
            self.fail(found);
        }
        if let Some(found) = self.runs_too_long() {
            self.fail(found);
        }
        if let Some(found) = self.runs_in_spite() {
            self.fail(found);
        }
        if let Some(found) = self.idle_beside(clocks) {
            self.fail(found);
        }
        let calm_since = now.saturating_sub(self.disturbed.min(now));
        let mut found = None;
        for (reply, open) in self.open.iter().filter(|(_, open)| !open.gone) {
            let since = (now - open.at).min(calm_since);
            if since > open.wait_ms + LATE_MS {
                found = Some(format!("{reply:?} is not answered: {:?}", open.request));
            }
        }
        if let Some(found) = found {
            self.fail(found);
        }
    }
}
