//! How often what happened: a run that met nothing proves nothing.

use std::ops::AddAssign;

/// Counts over a run, or over many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of the broker.
    pub starts: u64,
    pub power_cuts: u64,
    pub hand_outs: u64,
    /// Runs that ended so.
    pub done: u64,
    pub dead: u64,
    pub cancelled: u64,
    pub losses: u64,
    /// Runs whose failure was followed to the retry or the end that it must have.
    pub failures: u64,
    /// Words of a lease that was not the current one any more.
    pub stale: u64,
    /// Rows that people have deleted, and put into other lanes.
    pub purged: u64,
    pub moved: u64,
    /// Of schedules, that were fired.
    pub slots: u64,
    /// Changes of schedules over the wire that were answered.
    pub schedules_told: u64,
    /// Schedules that were run beside their slots.
    pub run_now: u64,
    /// Tasks that were queued, or cancelled, because of their parents.
    pub let_go: u64,
    pub failed_with_parent: u64,
    /// Answers that a batch of theirs is over.
    pub batches: u64,
    /// Rows that batches have matched by their filters, and those that a dry run would have changed.
    pub matched: u64,
    pub tried: u64,
    /// Rows that STATUS has shown of which every column was known.
    pub shown: u64,
    /// Groups whose counts were known when they were told, and those with live tasks that were cancelled.
    pub counted: u64,
    pub groups_cancelled: u64,
    /// Tasks spawned into a cancelled group, and submits that were not let into one.
    pub joined_late: u64,
    pub joins_refused: u64,
    /// Rows past the time that they are kept, deleted.
    pub pruned: u64,
    /// Rows beyond as many as are kept of their kind, deleted.
    pub surplus: u64,
    /// Workers that were told to leave alone.
    pub drained: u64,
    /// Tasks that nobody waited for any more.
    pub abandoned: u64,
    /// Times that a broker was told to hand nothing out.
    pub quiet: u64,
    /// Hand-outs beside which a lane with a share had something at hand for sure.
    pub owed: u64,
    /// Hand-outs to one of two fair keys that take turns for sure.
    pub turns: u64,
    /// Words of progress that were told, answers with a gap, and answers without room for every word.
    pub words: u64,
    pub gaps: u64,
    pub cut_short: u64,
    /// Words that were told to those who wait for a group.
    pub group_words: u64,
    /// Words with a piece of a result or of a log.
    pub pieces: u64,
    /// Checkpoints that a run was told to be kept, and hand-outs with what an earlier run had saved.
    pub saved: u64,
    pub checkpoints: u64,
    /// Ends of parents that children were told.
    pub parents: u64,
    /// Tasks for which a live one with their key stands, or one done within their window, and submits refused for a key.
    pub met: u64,
    pub met_done: u64,
    pub rejected: u64,
    /// Tasks that got another payload.
    pub replaced: u64,
    /// Waits that named a key.
    pub found_by_key: u64,
    /// Rows that were deleted after their window.
    pub windows_over: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.starts += other.starts;
        self.power_cuts += other.power_cuts;
        self.hand_outs += other.hand_outs;
        self.done += other.done;
        self.dead += other.dead;
        self.cancelled += other.cancelled;
        self.losses += other.losses;
        self.failures += other.failures;
        self.stale += other.stale;
        self.purged += other.purged;
        self.moved += other.moved;
        self.slots += other.slots;
        self.schedules_told += other.schedules_told;
        self.run_now += other.run_now;
        self.let_go += other.let_go;
        self.failed_with_parent += other.failed_with_parent;
        self.batches += other.batches;
        self.matched += other.matched;
        self.tried += other.tried;
        self.shown += other.shown;
        self.counted += other.counted;
        self.groups_cancelled += other.groups_cancelled;
        self.joined_late += other.joined_late;
        self.joins_refused += other.joins_refused;
        self.pruned += other.pruned;
        self.surplus += other.surplus;
        self.drained += other.drained;
        self.abandoned += other.abandoned;
        self.quiet += other.quiet;
        self.owed += other.owed;
        self.turns += other.turns;
        self.words += other.words;
        self.gaps += other.gaps;
        self.group_words += other.group_words;
        self.cut_short += other.cut_short;
        self.pieces += other.pieces;
        self.saved += other.saved;
        self.checkpoints += other.checkpoints;
        self.parents += other.parents;
        self.met += other.met;
        self.met_done += other.met_done;
        self.rejected += other.rejected;
        self.replaced += other.replaced;
        self.found_by_key += other.found_by_key;
        self.windows_over += other.windows_over;
    }
}
