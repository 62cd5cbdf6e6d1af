//! BULK: changes that people make to tasks. The store decides by the row what may be done with it; here is what follows for what
//! was read ahead, for who runs, and for who waits.
//!
//! A batch by filter is walked by the store in slices, one operation each, the next asked for when the last is on disk: so
//! whatever else is to be written comes between, and what is counted is done. It lives in memory alone. After a restart the same
//! question goes on with what is left, for what was changed does not meet it any more, or is left alone.

use std::collections::BTreeMap;

use laneway_protocol::message::{Answer, Batch, Bulk, BulkFilter, Bulked, Change, Verdict};
use laneway_protocol::{Code, LaneName, TaskId, WireError};

use crate::action::{BulkSlice, BulkSliced, Edit, Op};
use crate::broker::Broker;
use crate::event::Asker;
use crate::limits::{BATCHES_KEPT_MAX, BATCHES_OPEN_MAX, EPOCH_BATCHES, FILTER_TEXT_BYTES_MAX, FILTER_WORKERS_MAX};
use crate::settle::Pending;
use crate::time::{Now, UnixMillis};

/// Batches that run, and the last ones that did.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    last: u64,
    all: BTreeMap<u64, Walk>,
}

/// A batch on its way.
#[derive(Debug)]
struct Walk {
    edit: Edit,
    filter: BulkFilter,
    before: Option<UnixMillis>,
    after: Option<TaskId>,
    until: Option<TaskId>,
    /// No further slice is to be asked for.
    stop: bool,
    stand: Batch,
}

impl Batches {
    pub(crate) fn check(&self) {
        assert!(self.n_open() <= BATCHES_OPEN_MAX && self.all.len() <= BATCHES_KEPT_MAX + BATCHES_OPEN_MAX);
        for Walk { stand, .. } in self.all.values() {
            let Batch { seen, changed, unchanged, twins, needed, .. } = *stand;
            assert_eq!(seen, changed + unchanged + twins + needed, "a batch adds up: {stand:?}");
        }
    }

    fn n_open(&self) -> usize {
        self.all.values().filter(|walk| !walk.stand.over).count()
    }
}

impl Broker {
    pub(crate) fn on_bulk(&mut self, from: Asker, bulk: Bulk, now: Now) {
        match self.bulk(from, bulk, now) {
            Ok(Some(stand)) => {
                self.answer(from.reply, Answer::Bulk(Bulked { verdicts: Vec::new(), batch: Some(stand) }));
            }
            // Once it is on disk.
            Ok(None) => {}
            Err(error) => self.refuse(from.reply, error),
        }
    }

    fn bulk(&mut self, from: Asker, bulk: Bulk, now: Now) -> Result<Option<Batch>, WireError> {
        let Bulk { change, lane, tasks, filter, dry_run, batch, stop } = bulk;
        let bad = |text: &str, field: &str| WireError::new(Code::BadBody, text).field(field);
        let change = match (change, batch) {
            (None, Some(number)) => return self.look_at_batch(number, stop).map(Some),
            (None, None) => return Err(bad("name a change, or a batch to look at", "change")),
            (Some(_), Some(_)) => return Err(bad("a batch that runs does what it began with", "batch")),
            (Some(change), None) => change,
        };
        if let Some(error) = self.intake_refusal() {
            return Err(error);
        }
        let edit = self.edit(change, lane)?;
        match filter {
            Some(_) if !tasks.is_empty() => Err(bad("name either tasks or a filter", "tasks")),
            None if tasks.is_empty() => Err(bad("name at least one task, or a filter", "tasks")),
            None if dry_run => Err(bad("tasks that are named are not tried: look at them by STATUS", "dry_run")),
            Some(filter) => self.start_batch(change, edit, *filter, dry_run, now).map(Some),
            None => {
                let pending = Pending::Edit { reply: from.reply, tasks: tasks.clone() };
                self.ask_store(from.reply, Op::Edit { edit, tasks }, pending, now);
                Ok(None)
            }
        }
    }

    /// The change with what it needs to be done.
    fn edit(&self, change: Change, lane: Option<LaneName>) -> Result<Edit, WireError> {
        Ok(match (change, lane) {
            (Change::Move, Some(lane)) => {
                self.known_lane(&lane, "lane")?;
                Edit::Move(lane)
            }
            (Change::Move, None) => {
                return Err(WireError::new(Code::BadBody, "a move needs the lane to move to").field("lane"));
            }
            (_, Some(_)) => {
                return Err(WireError::new(Code::BadBody, "only a move has a lane").field("lane"));
            }
            (Change::Requeue, None) => Edit::Requeue,
            (Change::Cancel, None) => Edit::Cancel,
            (Change::Purge, None) => Edit::Purge,
            (Change::RunNow, None) => Edit::RunNow,
        })
    }

    // ------------------------------------------------------------------------------------------------------ batches

    fn start_batch(
        &mut self,
        change: Change,
        edit: Edit,
        filter: BulkFilter,
        dry_run: bool,
        now: Now,
    ) -> Result<Batch, WireError> {
        if filter.is_open() && !filter.all {
            let text = "the filter has no condition: give it one, or say `all` if every task is meant";
            return Err(WireError::new(Code::BadBody, text).field("filter"));
        }
        check_filter(&filter)?;
        // Said again, because the answer was lost, it is the batch that was started.
        let same = |walk: &&Walk| {
            let runs = !walk.stand.over && !walk.stop;
            runs && walk.edit == edit && walk.filter == filter && walk.stand.dry_run == dry_run
        };
        if let Some(walk) = self.batches.all.values().find(same) {
            return Ok(walk.stand.clone());
        }
        if self.batches.n_open() >= BATCHES_OPEN_MAX {
            let text = format!("{BATCHES_OPEN_MAX} batches run, as many as may: wait for one to end, or stop it");
            return Err(WireError::new(Code::Full, text).after_ms(500));
        }
        self.batches.last += 1;
        let number = self.epoch.0.saturating_mul(EPOCH_BATCHES).saturating_add(self.batches.last);
        let older_ms = filter.older_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let before = older_ms.map(|ms| UnixMillis(now.wall.0.saturating_sub(ms)));
        let stand = Batch {
            number,
            change,
            dry_run,
            seen: 0,
            changed: 0,
            unchanged: 0,
            twins: 0,
            needed: 0,
            at: 0,
            until: 0,
            over: false,
            stopped: false,
        };
        let walk = Walk { edit, filter, before, after: None, until: None, stop: false, stand: stand.clone() };
        self.batches.all.insert(number, walk);
        self.next_slice(number);
        Ok(stand)
    }

    fn look_at_batch(&mut self, number: u64, stop: bool) -> Result<Batch, WireError> {
        let Some(walk) = self.batches.all.get_mut(&number) else {
            let text = format!(
                "batch {number} is not known: it ended long ago, or the broker was restarted; start the same again, it goes on \
                 with what is left"
            );
            return Err(WireError::new(Code::NotFound, text).field("batch"));
        };
        walk.stop |= stop && !walk.stand.over;
        Ok(walk.stand.clone())
    }

    fn next_slice(&mut self, number: u64) {
        let walk = &self.batches.all[&number];
        let slice = BulkSlice {
            edit: walk.edit.clone(),
            filter: walk.filter.clone(),
            before: walk.before,
            after: walk.after,
            until: walk.until,
            rows: self.settings.bulk_rows,
            dry_run: walk.stand.dry_run,
        };
        self.store_for(Op::Bulk(Box::new(slice)), Pending::Slice { batch: number });
    }

    /// A slice is on disk.
    pub(crate) fn on_sliced(&mut self, number: u64, sliced: BulkSliced, now: Now) {
        let walk = self.batches.all.get_mut(&number).expect("a batch is kept while it runs");
        let stand = &mut walk.stand;
        for (_, verdict) in &sliced.verdicts {
            stand.seen += 1;
            *match verdict {
                Verdict::Cancelled
                | Verdict::Requested
                | Verdict::Requeued
                | Verdict::Moved
                | Verdict::Due
                | Verdict::Purged => &mut stand.changed,
                Verdict::Twin(_) => &mut stand.twins,
                Verdict::Needed => &mut stand.needed,
                Verdict::Unchanged | Verdict::NotFound | Verdict::Unknown => &mut stand.unchanged,
            } += 1;
        }
        (walk.after, walk.until) = (sliced.at, sliced.until);
        stand.until = sliced.until.map_or(0, TaskId::value);
        stand.at = if sliced.over { stand.until } else { sliced.at.map_or(0, TaskId::value) };
        stand.stopped = walk.stop && !sliced.over;
        stand.over = sliced.over || walk.stop;
        let (over, dry_run) = (stand.over, stand.dry_run);
        if !dry_run {
            self.on_edited(sliced.verdicts.into_iter(), now);
        }
        if over { self.forget_batches() } else { self.next_slice(number) }
    }

    /// Of those that are over the last ones are kept.
    fn forget_batches(&mut self) {
        let over = self.batches.all.iter().filter(|(_, walk)| walk.stand.over).map(|(&number, _)| number);
        let over: Vec<u64> = over.collect();
        for number in &over[..over.len().saturating_sub(BATCHES_KEPT_MAX)] {
            self.batches.all.remove(number);
        }
    }

    /// Changes are on disk: what had not started will not start any more, or elsewhere; what runs is told to stop; who waits for
    /// a row that is gone hears it.
    pub(crate) fn on_edited(&mut self, verdicts: impl Iterator<Item = (TaskId, Verdict)>, now: Now) {
        for (task, verdict) in verdicts {
            match verdict {
                Verdict::Cancelled => {
                    self.stats.cancelled += 1;
                    self.take_out(task);
                    self.call_off(task, now);
                    self.unmark(task);
                    if self.waiters.is_watched(task) {
                        self.look(task);
                    }
                }
                Verdict::Requested => self.on_cancel_requested(&[task], now),
                // Handed out meanwhile, it runs on: its row says where it goes if it comes back.
                Verdict::Moved => self.take_out(task),
                Verdict::Purged => {
                    self.withdraw(task);
                    self.tell_vanished(task);
                }
                Verdict::Requeued
                | Verdict::Due
                | Verdict::Needed
                | Verdict::Twin(_)
                | Verdict::Unchanged
                | Verdict::NotFound
                | Verdict::Unknown => {}
            }
        }
    }
}

/// Whether a filter can be kept and makes sense; one without a condition is the caller's to refuse.
fn check_filter(filter: &BulkFilter) -> Result<(), WireError> {
    let wrong = |field: &str, text: String| Err(WireError::new(Code::BadBody, text).field(format!("filter.{field}")));
    let BulkFilter { kind, lane, error, error_line, unique_key, fair_key, workers, .. } = filter;
    let named = [
        ("kind", kind),
        ("lane", lane),
        ("error", error),
        ("error_line", error_line),
        ("unique_key", unique_key),
        ("fair_key", fair_key),
    ];
    let named = named.into_iter().filter_map(|(field, text)| Some((field, text.as_ref()?)));
    for (field, text) in named.chain(workers.iter().map(|worker| ("workers", worker))) {
        if text.len() > FILTER_TEXT_BYTES_MAX {
            return wrong(field, format!("{} bytes, at most {FILTER_TEXT_BYTES_MAX} are allowed", text.len()));
        }
    }
    if workers.len() > FILTER_WORKERS_MAX {
        return wrong("workers", format!("{} of them, at most {FILTER_WORKERS_MAX} are allowed", workers.len()));
    }
    match (filter.attempts_min, filter.attempts_max) {
        (Some(min), Some(max)) if min > max => {
            wrong("attempts_min", format!("{min} is above attempts_max, {max}: no task has that"))
        }
        _ => Ok(()),
    }
}
