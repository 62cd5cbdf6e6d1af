//! What a store does with a schedule, worked out from its row alone, in one place for both stores: it is wrong, has its first
//! slot before it, or has slots that are due. Changes nothing.

use laneway_core::{Now, QueueKey, UnixMillis};
use laneway_protocol::limits::SCHEDULE_NAME_CHARS_MAX;
use laneway_protocol::message::{NewSchedule, NewTask, Payload};
use laneway_protocol::{Kind, LaneName, TaskId};

use super::Bad;
use super::validate::Judge;
use crate::schedule::{self, CatchUp, Rhythm};

/// Schedules looked at in one turn.
pub(super) const ROWS_PER_TURN: usize = 64;
/// Of these, such as make no sense: to find that no time will ever match takes milliseconds.
pub(super) const WRONG_PER_TURN: usize = 8;
/// Fired slots remembered for each schedule.
pub(super) const SLOTS_KEPT: usize = 1_000;
/// How often slots that a wrong clock has fired in the far future are looked for.
pub(super) const MEND_INTERVAL_MS: u64 = 60_000;

/// What a look at the schedules came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) slots: Vec<FiredSlot>,
    /// Schedules that were found to make no sense, by name, and why.
    pub(crate) wrong: Vec<(String, String)>,
    /// Some were not looked at.
    pub(crate) more: bool,
    /// When the next slot is due, now perhaps; `None` when there is no schedule that fires.
    pub(crate) next_at: Option<UnixMillis>,
}

/// A slot and the task that it made, or that it met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FiredSlot {
    pub(crate) schedule: String,
    pub(crate) slot: UnixMillis,
    pub(crate) task: TaskId,
    pub(crate) new: bool,
}

/// A row of `schedules`, as far as it decides something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) cron: String,
    pub(super) time_zone: Option<String>,
    pub(super) kind: String,
    pub(super) lane: Option<String>,
    pub(super) unique_key: Option<String>,
    pub(super) max_attempts: Option<i64>,
    pub(super) timeout_ms: Option<i64>,
    pub(super) catch_up: Option<String>,
    pub(super) catch_up_max: Option<i64>,
    pub(super) payload: Option<Payload>,
    pub(super) next_at: Option<UnixMillis>,
    pub(super) last_at: Option<UnixMillis>,
}

/// What is to be done with it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Its first slot.
    Planned(UnixMillis),
    Due(Box<Due>),
}

#[derive(Debug)]
pub(super) struct Due {
    /// In order; none when all that have passed were too late.
    pub(super) slots: Vec<UnixMillis>,
    /// The first slot that is not due yet.
    pub(super) next_at: Option<UnixMillis>,
    pub(super) task: NewTask,
    pub(super) key: QueueKey,
}

/// Schedules that the wire adds; rows that apps insert beyond it work as well.
pub(super) const SCHEDULES_MAX: usize = 10_000;
/// Rows of a page.
pub(super) const PAGE_ROWS: usize = 512;

/// Whether a schedule that the wire brings makes sense.
pub(super) fn judge_new(new: &NewSchedule, judge: &Judge, now: Now) -> Result<(), Bad> {
    let chars = new.name.chars().count();
    if !(1..=SCHEDULE_NAME_CHARS_MAX).contains(&chars) || new.name.chars().any(char::is_control) {
        let text = format!(
            "name has {chars} characters: use 1 to {SCHEDULE_NAME_CHARS_MAX}, none of them a control character"
        );
        return Err(Bad::new("name", text));
    }
    if let Some(max) = new.catch_up_max.filter(|max| !(1..=schedule::CATCH_UP_MAX).contains(max)) {
        let text = format!("catch_up_max {max} is not 1 to {}", schedule::CATCH_UP_MAX);
        return Err(Bad::new("catch_up_max", text));
    }
    let schedule = Schedule {
        id: 0,
        name: new.name.clone(),
        cron: new.cron.clone(),
        time_zone: new.time_zone.clone(),
        kind: new.kind.as_str().into(),
        lane: new.lane.as_ref().map(|lane| lane.as_str().into()),
        unique_key: new.unique_key.clone(),
        max_attempts: new.max_attempts.map(i64::from),
        timeout_ms: new.timeout_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        catch_up: None,
        catch_up_max: None,
        payload: new.payload.clone(),
        next_at: None,
        last_at: None,
    };
    schedule.verdict(judge, now).map(|_| ())
}

/// Told where one more would be too many.
pub(super) fn too_many() -> Bad {
    let text =
        format!("there are {SCHEDULES_MAX} schedules, as many as may be added: remove some, or insert rows by SQL");
    Bad::new("name", text)
}

impl Schedule {
    pub(super) fn verdict(&self, judge: &Judge, now: Now) -> Result<Verdict, Bad> {
        let (rhythm, task) = (self.rhythm()?, self.task()?);
        let key = judge.task(&task)?;
        let Some(next_at) = self.next_at else {
            let first = schedule::first(&rhythm, self.last_at, now.wall).ok_or_else(|| self.over())?;
            return Ok(Verdict::Planned(first));
        };
        let slots = schedule::due(&rhythm, self.catch_up()?, next_at, now.wall);
        let next_at = rhythm.next_after(now.wall);
        Ok(Verdict::Due(Box::new(Due { slots, next_at, task, key })))
    }

    fn rhythm(&self) -> Result<Rhythm, Bad> {
        Rhythm::parse(&self.cron, self.time_zone.as_deref()).map_err(|(field, reason)| Bad::new(field, reason))
    }

    fn catch_up(&self) -> Result<CatchUp, Bad> {
        let word = self.catch_up.as_deref().unwrap_or("one");
        let max = self.catch_up_max.and_then(|max| u32::try_from(max).ok());
        let known = CatchUp::parse(word, max.map(|max| max.clamp(1, schedule::CATCH_UP_MAX)));
        known.ok_or_else(|| Bad::new("catch_up", format!("catch_up '{word}' is not skip, one or all")))
    }

    /// The task that each slot makes.
    fn task(&self) -> Result<NewTask, Bad> {
        let kind = Kind::new(&self.kind).map_err(|error| Bad::new("kind", format!("{error}: choose another name")))?;
        let lane = self.lane.as_deref().map(LaneName::new).transpose();
        Ok(NewTask {
            lane: lane.map_err(|error| Bad::new("lane", error.to_string()))?,
            payload: self.payload.clone(),
            unique_key: self.unique_key.clone(),
            max_attempts: self.max_attempts.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            timeout_ms: self.timeout_ms.map(i64::unsigned_abs),
            ..NewTask::new(kind, None)
        })
    }

    /// It fires no more.
    pub(super) fn over(&self) -> Bad {
        Bad::new("cron", format!("cron '{}' names no time to come: change it, or delete the schedule", self.cron))
    }
}
