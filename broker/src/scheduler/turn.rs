//! One turn: what the router asked for and what the table brought out, in one transaction, and what is told of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use laneway_core::{Ended, Event, Loaded, Next, Now, Op, OpId, OpResult, QueueKey};
use laneway_protocol::message::{Final, Held, Verdict};
use laneway_protocol::{FairKey, TaskId};

use super::lines::{is_routine, let_go_event, task_event, tell_ended, tell_fired};
use super::outlet::Told;
use super::promise::{brings_back, needs_sync};
use super::{SCHEDULES_LOOK_MS, Scheduler};
use crate::store::{Fired, Store, StoreError, Sync, Unstarted};
use crate::telemetry::TaskEvent;

/// Tasks that somebody waits for, looked at in one turn after an app's commit.
const WATCHED_PER_TURN: usize = 512;
/// Rows looked at by a sweep and a counting step.
const SWEEP_ROWS: usize = 512;
const RECOUNT_ROWS: usize = 20_000;
/// Slots of schedules that one turn fires.
const SLOTS_PER_TURN: usize = 256;
const RECHECK_EDGES: usize = 2_048;
/// Between two steps of pruning while there is something to delete.
const PRUNE_PAUSE_MS: u64 = 20;
/// Between two steps of counting while there is something to count.
const RECOUNT_INTERVAL_MS: u64 = 100;
/// After a turn the write lock is left alone for a part of the time that the turn took: SQLite's own busy handler sleeps
/// up to 100 ms between two tries, so an app only gets in when a good part of all moments is free. A third while no app
/// commits, as long as the turn itself while one does.
const BREATH_SHARE: u32 = 3;
const BREATH_MAX: Duration = Duration::from_millis(5);
const FOREIGN_MS: u64 = 2_000;
/// A turn of so many operations that leaves nothing else to do is synced by the scheduler itself.
const FEW_OPS: usize = 8;
/// So many rows such a turn reads ahead itself: a look of its own would cost more than they do.
const FEW_ROWS: usize = 32;

/// What a turn does besides its operations and what the table brings.
#[derive(Debug, Clone, Copy)]
struct Due {
    prune: bool,
    recount: bool,
    /// Rows for queues that had run dry.
    few_rows: bool,
}

/// What a turn found, to be told after its commit.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) loaded: Vec<Loaded>,
    /// Ended by the store's own hand: cancelled, expired, rejected.
    pub(super) ended: Vec<Unstarted>,
    /// Watched tasks that have ended or vanished.
    pub(super) watched: Vec<(TaskId, Option<Final>)>,
    pub(super) cancel_requested: Vec<TaskId>,
    /// Rows of queues that are read by turns.
    pub(super) appeared: BTreeSet<(QueueKey, Option<FairKey>)>,
    pub(super) fired: Fired,
    /// Queued because all that they waited for has ended.
    pub(super) let_go: Vec<(TaskId, QueueKey)>,
}

impl<S: Store> Scheduler<S> {
    pub(super) fn turn(&mut self, now: Now, prune: bool, recount: bool) -> Result<(), StoreError> {
        self.leave_room();
        let begun = Instant::now();
        let (ids, ops): (Vec<Option<OpId>>, Vec<Op>) = self.ops.take(self.pace.turn_rows, now.mono).into_iter().unzip();
        let promises = self.pace.full_durability && ops.iter().any(needs_sync);
        // A slot is fired once for ever, and its task may run before the next sync.
        let synced = self.pace.full_durability && self.is_slot_due(now) || promises && !self.outlet.syncs_apart();
        // At leisure new work goes out before this very thread waits for the sync; else the sync is made meanwhile.
        let at_leisure = ops.len() <= FEW_OPS && self.ops.is_empty() && self.inbox.is_empty();
        let due = Due { prune, recount, few_rows: at_leisure && self.agenda.is_dry() };
        let begun_turn = self.store.begin(if synced { Sync::Power } else { Sync::Process });
        match begun_turn.and_then(|()| self.steps(&ops, now, due)) {
            Ok((results, mut found)) => {
                self.note_breath(begun, now);
                let lines = self.lines(&ops, &results, std::mem::take(&mut found.let_go));
                let (mut work, events) = self.told(&ids, &ops, results, found);
                let (promises, only_new) = (promises && !synced, !ops.iter().any(brings_back));
                let looked = if at_leisure { self.look_ahead(&mut work, now) } else { Ok(()) };
                self.send(Told { work, events, promises, only_new }, at_leisure)?;
                // To wake the log's thread takes a while, and people read it later than workers wait.
                self.log.push(lines);
                if at_leisure { looked } else { self.look_and_tell(now) }
            }
            Err(error) => {
                self.ops.put_back(ids.into_iter().zip(ops).collect());
                // What the undone turn had found is to be found again.
                self.on_change();
                Err(error)
            }
        }
    }

    /// Waits until the apps have had their part of the time since the last turn.
    fn leave_room(&mut self) {
        if let Some((since, breath)) = self.breath.take() {
            std::thread::sleep(breath.saturating_sub(since.elapsed()));
        }
    }

    fn note_breath(&mut self, begun: Instant, now: Now) {
        let took = begun.elapsed();
        let shared = self.foreign_at.is_some_and(|at| now.mono.since(at) < FOREIGN_MS);
        let breath = if shared { took } else { took / BREATH_SHARE };
        self.breath = Some((Instant::now(), breath.min(BREATH_MAX)));
    }

    /// The steps of one turn, commit included.
    fn steps(
        &mut self,
        ops: &[Op],
        now: Now,
        Due { prune, recount, few_rows }: Due,
    ) -> Result<(Vec<Option<OpResult>>, Found), StoreError> {
        let mut found = Found::default();
        let results = if ops.is_empty() { Vec::new() } else { self.store.apply(ops, now)? };
        for (op, result) in ops.iter().zip(results.iter().chain(std::iter::repeat(&None))) {
            self.note_effects(op, result.as_ref());
        }
        // A commit that landed between the last look and the begin is part of this turn already.
        if self.store.changed()? {
            self.on_change();
        }
        self.fire(&mut found, now)?;
        if self.chores.intake || self.store.is_behind() {
            self.take_in(&mut found, now)?;
        }
        if self.chores.sweep {
            let swept = self.store.sweep(SWEEP_ROWS, now)?;
            self.chores.sweep = swept.more;
            self.chores.sweep_at = swept.next_at;
            found.ended.extend(swept.ended);
            found.cancel_requested = swept.cancel_requested;
        }
        self.look_at_watched(&mut found)?;
        self.load_unfit(&mut found, now)?;
        if prune {
            let spared = self.spared.rows(now.mono);
            let pruned = self.store.prune(self.pace.keeping.retention(), spared, self.pace.prune_rows, now)?;
            let pause = if pruned.over { self.pace.prune_interval_ms } else { PRUNE_PAUSE_MS };
            self.chores.prune_at = now.mono.after(pause);
        }
        let mut let_go = false;
        if recount && self.chores.rechecks > 0 {
            let (ended, complete) = self.store.recheck(RECHECK_EDGES, now)?;
            found.ended.extend(ended);
            self.chores.rechecks -= usize::from(complete);
            // Whoever it let go is news.
            let_go = true;
            self.chores.recount_at = now.mono.after(RECOUNT_INTERVAL_MS);
        }
        // What the last steps have ended lets its children go in the same transaction.
        if let_go || self.store.is_behind() {
            self.take_in(&mut found, now)?;
        }
        // Rows that the intake has yet to see would be counted twice, here and there.
        if recount && self.chores.recount && !self.chores.intake {
            self.chores.recount = !self.store.recount(RECOUNT_ROWS)?;
            // A complete pass has met every queue, those of lanes that never were among them.
            self.chores.sweep |= !self.chores.recount;
            self.chores.recount_at = now.mono.after(RECOUNT_INTERVAL_MS);
        }
        if few_rows {
            self.load_due(&mut found, FEW_ROWS, now)?;
        }
        self.store.commit()?;
        Ok((results, found))
    }

    fn take_in(&mut self, found: &mut Found, now: Now) -> Result<(), StoreError> {
        let intake = self.store.intake(self.pace.turn_rows, now)?;
        self.chores.intake = intake.rows >= self.pace.turn_rows || self.store.is_behind();
        intake.due.into_iter().for_each(|key| self.agenda.mark(key));
        found.appeared.extend(intake.turns);
        self.agenda.appear_at(intake.turns_later);
        for (key, at) in intake.later {
            self.agenda.mark_at(key, at);
        }
        found.ended.extend(intake.rejected);
        found.let_go.extend(intake.let_go);
        Ok(())
    }

    /// What an operation of our own does to the queues: our commits do not show as changes.
    fn note_effects(&mut self, op: &Op, result: Option<&OpResult>) {
        match op {
            Op::Started(started) => {
                self.out.remove(&started.task);
            }
            // The store knows the queue that a task goes back to: an app may have moved its row meanwhile.
            Op::Ended(Ended { next, spawn, .. }) => {
                self.chores.intake |= matches!(next, Next::Queued { .. }) || !spawn.is_empty();
            }
            Op::Submit { secured, .. } => {
                (self.chores.intake, self.chores.sweep) = (true, true);
                if !secured.is_empty() {
                    self.give_back(secured, result);
                }
            }
            Op::Schedules(schedules) => self.chores.schedules.look |= schedules.is_change(),
            // What it brought into a queue the store tells with the next intake, and what must not be there the sweep finds.
            Op::Edit { .. } => (self.chores.intake, self.chores.sweep) = (true, true),
            Op::Cancel(_) | Op::CancelGroup { .. } => self.chores.sweep = true,
            Op::Bulk(slice) if !slice.dry_run => (self.chores.intake, self.chores.sweep) = (true, true),
            Op::Requeue(_) => {
                self.agenda.mark_all();
                self.chores.sweep = true;
            }
            // Its tasks without a lane may stand in another queue now.
            Op::SetKind { .. } => {
                self.agenda.mark_all();
                self.chores.recount = true;
            }
            _ => {}
        }
    }

    /// Looks at the schedules, and fires what was known to be due when the turn began: then it is synced.
    fn fire(&mut self, found: &mut Found, now: Now) -> Result<(), StoreError> {
        let due = self.is_slot_due(now);
        if !self.chores.schedules.look && !due {
            return Ok(());
        }
        found.fired = self.store.fire(if due { SLOTS_PER_TURN } else { 0 }, now)?;
        self.chores.schedules.look = found.fired.more;
        self.chores.schedules.next_at = found.fired.next_at;
        self.chores.schedules.look_at = now.mono.after(SCHEDULES_LOOK_MS);
        self.chores.intake |= !found.fired.slots.is_empty();
        Ok(())
    }

    /// Tasks that a submit was free to replace are to be read ahead again. The store has told the queues of those that it
    /// replaced; the others are few, and anywhere.
    fn give_back(&mut self, secured: &[Held], result: Option<&OpResult>) {
        let replaced = |Held(task, _): &Held| {
            let Some(OpResult::Submitted(stored) | OpResult::SubmittedGroup(stored, _)) = result else { return false };
            stored.iter().any(|stored| stored.replaced && stored.task == *task)
        };
        for Held(task, _) in secured {
            self.out.remove(task);
        }
        if !secured.iter().all(replaced) {
            self.agenda.mark_all();
        }
    }

    fn look_at_watched(&mut self, found: &mut Found) -> Result<(), StoreError> {
        let n = self.chores.looks.min(WATCHED_PER_TURN);
        if n == 0 {
            return Ok(());
        }
        let after = self.watched_from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut tasks: Vec<TaskId> = self.watched.range((after, std::ops::Bound::Unbounded)).copied().take(n).collect();
        let rest = n - tasks.len();
        tasks.extend(self.watched.iter().copied().take(rest));
        self.watched_from = tasks.last().copied();
        self.chores.looks -= n;
        found.watched.extend(self.store.endings(&tasks)?);
        Ok(())
    }

    /// What the log is to say of a turn.
    fn lines(&mut self, ops: &[Op], results: &[Option<OpResult>], let_go: Vec<(TaskId, QueueKey)>) -> Vec<TaskEvent> {
        // A saturated log is spared the building of what it would drop.
        let wanted = self.log.is_wanted();
        self.names.learn(ops);
        let told = ops.iter().zip(results).filter(|(op, _)| wanted || !is_routine(op));
        let told = told.filter_map(|(op, result)| task_event(op, result.as_ref(), &self.names));
        let lines = told.chain(let_go.into_iter().filter(|_| wanted).map(let_go_event)).collect();
        self.names.forget(ops);
        lines
    }

    /// The turn is written: gives the work for the router, and what else it is to be told.
    fn told(
        &mut self,
        ids: &[Option<OpId>],
        ops: &[Op],
        results: Vec<Option<OpResult>>,
        found: Found,
    ) -> (Vec<Event>, Vec<Event>) {
        for (op, result) in ops.iter().zip(&results) {
            if let (Op::Cancel(tasks) | Op::Edit { tasks, .. }, Some(OpResult::Verdicts(verdicts))) = (op, result) {
                self.note_verdicts(tasks.iter().copied().zip(verdicts.iter().copied()));
            }
            if let (Op::Bulk(slice), Some(OpResult::Bulk(sliced))) = (op, result)
                && !slice.dry_run
            {
                self.note_verdicts(sliced.verdicts.iter().copied());
            }
        }
        for op in ops {
            if let Op::SetKind { kind, values, .. } = op
                && self.pace.keeping.set(kind, values)
            {
                self.chores.prune_at = self.clock.now().mono;
            }
        }
        let mut events = Vec::new();
        let committed: Vec<(OpId, OpResult)> =
            ids.iter().zip(results).filter_map(|(id, result)| Some(((*id)?, result?))).collect();
        if !committed.is_empty() {
            events.push(Event::Committed(committed));
        }
        found.ended.iter().for_each(tell_ended);
        tell_fired(&found.fired);
        let ended: Vec<Final> = found.ended.into_iter().map(|ended| ended.end).collect();
        for task in ended.iter().map(|ended| &ended.task).chain(found.watched.iter().map(|(task, _)| task)) {
            self.out.remove(task);
        }
        if !ended.is_empty() {
            events.push(Event::EndedByStore(ended));
        }
        if !found.watched.is_empty() {
            events.push(Event::Overtaken(found.watched));
        }
        if !found.cancel_requested.is_empty() {
            events.push(Event::CancelRequested(found.cancel_requested));
        }
        (self.work(found.loaded, found.appeared), events)
    }

    /// What was read ahead is that no more: queued again, or in another lane, it is to be read again.
    fn note_verdicts(&mut self, verdicts: impl Iterator<Item = (TaskId, Verdict)>) {
        for (task, verdict) in verdicts {
            match verdict {
                Verdict::Cancelled | Verdict::Purged => drop(self.out.remove(&task)),
                // Its queue was told of it while it was passed over.
                Verdict::Moved if self.out.remove(&task).is_some() => self.agenda.mark_all(),
                _ => {}
            }
        }
    }
}
