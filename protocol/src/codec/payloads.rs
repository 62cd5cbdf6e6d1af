//! The order in which payloads leave a message and come back: one frame each, as they stand in the message.
//!
//! The one place that knows this order. Encoding and decoding both walk a message by [`Carries::payloads`], so that a
//! frame cannot end up at another task.

use crate::error::WireError;
use crate::message::{
    AboutGroup, Beat, BeatNoted, Bulk, Bulked, Bye, ByeNoted, Drain, Drained, FairKeyRow, FairKeyRows, FairKeys, Final,
    GroupRow, HandOut, HandedTask, Hello, KindRows, KindState, Kinds, LaneRows, Lanes, ListWorkers, NewSchedule,
    NewTask, Outcome, Payload, Pong, Progress, ProgressEvent, ProgressNoted, Ready, ScheduleRow, ScheduleRows,
    Schedules, StatsReport, Status, StatusRows, Submit, Submitted, TaskRow, Tasks, Verdicts, Wait, WaitFor, Waited,
    Welcome, WorkerRow, WorkerRows,
};

/// A message, or a part of one, that may carry payloads.
pub(super) trait Carries {
    /// Visits each payload that is present: fields in order of declaration, depth first.
    fn payloads(&mut self, _visit: &mut dyn FnMut(&mut Payload)) {}
}

impl<T: Carries> Carries for Option<T> {
    fn payloads(&mut self, visit: &mut dyn FnMut(&mut Payload)) {
        if let Some(part) = self {
            part.payloads(visit);
        }
    }
}

impl<T: Carries> Carries for Box<T> {
    fn payloads(&mut self, visit: &mut dyn FnMut(&mut Payload)) {
        (**self).payloads(visit);
    }
}

impl<T: Carries> Carries for Vec<T> {
    fn payloads(&mut self, visit: &mut dyn FnMut(&mut Payload)) {
        for part in self {
            part.payloads(visit);
        }
    }
}

impl Carries for Payload {
    fn payloads(&mut self, visit: &mut dyn FnMut(&mut Payload)) {
        visit(self);
    }
}

/// One implementation for each message: the fields that lead to payloads, in order; none for most.
macro_rules! carries {
    ($($message:ident: [$($field:ident),*];)*) => {
        $(impl Carries for $message {
            fn payloads(&mut self, visit: &mut dyn FnMut(&mut Payload)) {
                $(self.$field.payloads(visit);)*
            }
        })*
    };
}

carries! {
    Ready: [outcomes];
    Bye: [outcomes];
    Outcome: [result, spawn];
    NewTask: [payload];
    HandOut: [tasks];
    HandedTask: [payload, checkpoint];
    Progress: [data, checkpoint];
    ProgressNoted: [parents];
    Submit: [tasks];
    Submitted: [finals];
    Waited: [events, finals];
    ProgressEvent: [data];
    Final: [result];
    StatusRows: [rows];
    TaskRow: [payload, result];
    Schedules: [put];
    NewSchedule: [payload];
    ScheduleRows: [schedules];
    ScheduleRow: [payload];
}

/// Messages without payloads.
macro_rules! carries_none {
    ($($message:ty),* $(,)?) => {
        $(impl Carries for $message {})*
    };
}

carries_none! {
    Hello, Welcome, Wait, Beat, BeatNoted, ByeNoted, WaitFor, Status, Tasks, Verdicts, Lanes,
    LaneRows, Bulk, Bulked, Drain, Drained, KindRows, KindState, Kinds, ListWorkers, Pong, StatsReport, WireError,
    WorkerRow, WorkerRows, AboutGroup, GroupRow, FairKeys, FairKeyRow, FairKeyRows,
}
