//! What people ask of a broker: lanes, kinds, fair keys, workers, schedules, and how it goes.

use std::time::Duration;

use laneway_protocol::message::{
    Drain, Drained, FairKeyRow, FairKeys, KindState, Kinds, LaneRow, Lanes, ListWorkers, NewSchedule, NewTask, Pong,
    ScheduleRow, ScheduleRows, Schedules, StatsReport, Stored, WorkerRow,
};
use laneway_protocol::{Answer, Code, Kind, LaneName, Request, WireError};

use super::{Client, unexpected};
use crate::error::Error;

impl Client {
    /// The lanes, most urgent first.
    pub fn lanes(&self) -> Result<Vec<LaneRow>, Error> {
        self.set_lanes(Vec::new(), Vec::new())
    }

    /// Pauses and resumes lanes, then returns all. A paused lane keeps its tasks and hands none out.
    pub fn set_lanes(&self, pause: Vec<LaneName>, resume: Vec<LaneName>) -> Result<Vec<LaneRow>, Error> {
        self.change_lanes(Lanes { pause, resume, ..Lanes::default() })
    }

    /// Pauses, resumes and sets caps, rates and shares of lanes, then returns all.
    pub fn change_lanes(&self, lanes: Lanes) -> Result<Vec<LaneRow>, Error> {
        match self.ask(&Request::Lanes(lanes), Duration::ZERO)? {
            Answer::Lanes(rows) => Ok(rows.lanes),
            other => Err(unexpected(&other)),
        }
    }

    /// The kinds that have tasks, workers or settings of their own, by name.
    pub fn kinds(&self) -> Result<Vec<KindState>, Error> {
        self.change_kinds(Kinds::default())
    }

    /// Pauses, resumes and sets kinds, then returns all. A paused kind keeps its tasks and hands none out.
    pub fn change_kinds(&self, mut kinds: Kinds) -> Result<Vec<KindState>, Error> {
        let mut all = Vec::new();
        loop {
            match self.ask(&Request::Kinds(kinds), Duration::ZERO)? {
                Answer::Kinds(rows) => {
                    all.extend(rows.kinds);
                    kinds = Kinds { after: rows.next, ..Kinds::default() };
                }
                other => return Err(unexpected(&other)),
            }
            if kinds.after.is_none() {
                return Ok(all);
            }
        }
    }

    /// The fair keys that have values of their own or running tasks, by name.
    pub fn fair_keys(&self) -> Result<Vec<FairKeyRow>, Error> {
        self.change_fair_keys(FairKeys::default())
    }

    /// Sets weights, caps and rates of fair keys, then returns those that have any, or running tasks.
    pub fn change_fair_keys(&self, mut keys: FairKeys) -> Result<Vec<FairKeyRow>, Error> {
        let mut all = Vec::new();
        loop {
            match self.ask(&Request::FairKeys(keys), Duration::ZERO)? {
                Answer::FairKeys(rows) => {
                    all.extend(rows.fair_keys);
                    keys = FairKeys { after: rows.next, ..FairKeys::default() };
                }
                other => return Err(unexpected(&other)),
            }
            if keys.after.is_none() {
                return Ok(all);
            }
        }
    }

    /// The connected worker processes.
    pub fn workers(&self) -> Result<Vec<WorkerRow>, Error> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            match self.ask(&Request::Workers(ListWorkers { after }), Duration::ZERO)? {
                Answer::Workers(rows) => {
                    all.extend(rows.workers);
                    after = rows.next;
                }
                other => return Err(unexpected(&other)),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Numbers about the whole broker.
    pub fn stats(&self) -> Result<StatsReport, Error> {
        match self.ask(&Request::Stats, Duration::ZERO)? {
            Answer::Stats(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops handing out and asks the workers to leave, or takes that back; ask again until nothing is left running.
    pub fn drain(&self, drain: Drain) -> Result<Drained, Error> {
        match self.ask(&Request::Drain(drain), Duration::ZERO)? {
            Answer::Drain(drained) => Ok(drained),
            other => Err(unexpected(&other)),
        }
    }

    /// All schedules, by name, without their payloads.
    pub fn schedules(&self) -> Result<Vec<ScheduleRow>, Error> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let rows = self.ask_schedules(Schedules { after, ..Schedules::default() })?;
            all.extend(rows.schedules);
            after = rows.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// One schedule, with its payload; `None` when there is none of this name.
    pub fn schedule(&self, name: &str) -> Result<Option<ScheduleRow>, Error> {
        let question = Schedules { name: Some(name.into()), ..Schedules::default() };
        Ok(self.ask_schedules(question)?.schedules.pop())
    }

    /// Adds a schedule, or changes the one that has its name. On disk when it returns. Another rhythm begins from now.
    pub fn put_schedule(&self, schedule: NewSchedule) -> Result<ScheduleRow, Error> {
        let mut rows = self.ask_schedules(Schedules { put: Some(Box::new(schedule)), ..Schedules::default() })?;
        let row = rows.schedules.pop();
        row.ok_or_else(|| unexpected(&Answer::Schedules(rows)))
    }

    /// Pauses, resumes and removes schedules by name, in this order and all in one commit. Gives those that are there; names
    /// that are not stand in `not_found`.
    pub fn change_schedules(
        &self,
        pause: Vec<String>,
        resume: Vec<String>,
        remove: Vec<String>,
    ) -> Result<ScheduleRows, Error> {
        self.ask_schedules(Schedules { pause, resume, remove, ..Schedules::default() })
    }

    /// Submits the task that a slot of this schedule would make now, beside its slots, paused or not. `None` when there is no
    /// schedule of this name.
    pub fn run_schedule(&self, name: &str) -> Result<Option<Stored>, Error> {
        let Some(row) = self.schedule(name)? else { return Ok(None) };
        let makes_no_sense = |text: String| Error::Refused(WireError::new(Code::BadTask, text));
        let kind = Kind::new(row.kind).map_err(|error| makes_no_sense(error.to_string()))?;
        let lane = row.lane.map(LaneName::new).transpose().map_err(|error| makes_no_sense(error.to_string()))?;
        let task = NewTask {
            lane,
            unique_key: row.unique_key,
            max_attempts: row.max_attempts,
            timeout_ms: row.timeout_ms,
            ..NewTask::new(kind, row.payload)
        };
        Ok(Some(self.submit_list(vec![task], Duration::ZERO, false, None)?.tasks[0]))
    }

    fn ask_schedules(&self, question: Schedules) -> Result<ScheduleRows, Error> {
        match self.ask(&Request::Schedules(question), Duration::ZERO)? {
            Answer::Schedules(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the broker answers, with its version and epoch.
    pub fn ping(&self) -> Result<Pong, Error> {
        match self.ask(&Request::Ping, Duration::ZERO)? {
            Answer::Pong(pong) => Ok(pong),
            other => Err(unexpected(&other)),
        }
    }
}
