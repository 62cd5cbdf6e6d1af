//! Every message as a type: what a peer may ask, what the broker answers.
//!
//! A struct here is the `MessagePack` map of the same keys. A [`Payload`] shows up in the map as its format only; its bytes
//! travel in a frame of their own, in the order in which the payloads stand in the message.

mod bulk;
mod fair_keys;
mod group;
mod kinds;
mod lanes;
mod payload;
mod schedules;
mod stats;
mod submit;
mod task;
mod wait;
mod worker;
mod workers;

use crate::error::WireError;

pub use self::bulk::{Batch, Bulk, BulkFilter, Bulked, Change, error_line};
pub use self::fair_keys::{FairKeyRow, FairKeyRows, FairKeyValues, FairKeys, SetFairKey};
pub use self::group::{AboutGroup, GroupRow};
pub use self::kinds::{KindRows, KindState, KindValues, Kinds, SetKind};
pub use self::lanes::{LaneRow, LaneRows, LaneValues, Lanes, SetLane};
pub use self::payload::{Format, Payload};
pub use self::schedules::{CatchUp, NewSchedule, ScheduleRow, ScheduleRows, Schedules};
pub use self::stats::{KindRow, LostWorker, Pong, StatsReport};
pub use self::submit::{After, NewGroup, NewTask, OnConflict, Stored, Submit, Submitted};
pub use self::task::{FailureRow, Filter, Status, StatusRows, TaskRow, TaskState, Tasks, Verdict, Verdicts};
pub use self::wait::{Cursor, Final, ProgressEvent, WaitFor, Waited};
pub use self::worker::{
    Beat, BeatNoted, Bye, ByeNoted, End, HandOut, HandedTask, Held, Hello, Outcome, OutcomeCode, Progress,
    ProgressNoted, Ready, Settled, Wait, WaitReason, Welcome,
};
pub use self::workers::{Drain, Drained, ListWorkers, WorkerRow, WorkerRows};

/// Asked by a client or a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Hello(Hello),
    Ready(Ready),
    Progress(Progress),
    Beat(Beat),
    Bye(Bye),
    Submit(Submit),
    WaitFor(WaitFor),
    Status(Status),
    Cancel(Tasks),
    Requeue(Tasks),
    Lanes(Lanes),
    Workers(ListWorkers),
    Stats,
    Drain(Drain),
    Schedules(Schedules),
    Bulk(Bulk),
    Kinds(Kinds),
    FairKeys(FairKeys),
    Group(AboutGroup),
    Ping,
}

/// Said by the broker, once for each well-formed question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Welcome(Welcome),
    Tasks(HandOut),
    Wait(Wait),
    Progress(ProgressNoted),
    Beat(BeatNoted),
    Bye(ByeNoted),
    Submit(Submitted),
    WaitFor(Waited),
    Status(StatusRows),
    Cancel(Verdicts),
    Requeue(Verdicts),
    Lanes(LaneRows),
    Workers(WorkerRows),
    Stats(StatsReport),
    Drain(Drained),
    Schedules(ScheduleRows),
    Bulk(Bulked),
    Kinds(KindRows),
    FairKeys(FairKeyRows),
    Group(GroupRow),
    Pong(Pong),
    Error(WireError),
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
