//! The state machine of the Laneway broker, without any I/O: no clock, no socket, no SQL, no thread.
//!
//! The shell drives it like this, once for each turn of its loop:
//!
//! 1. read both clocks into a [`Now`];
//! 2. turn whatever came in (messages, results of the store, lost connections, a deadline) into [`Event`]s and give each to
//!    [`Broker::handle`], which appends [`Action`]s;
//! 3. carry the actions out in order: answers to sockets, operations and demands to the store's thread;
//! 4. wait for the next input, at most until [`Broker::next_deadline`].
//!
//! Whatever was promised to be on disk is answered only after [`Event::Committed`] reported it. The same events and times
//! give the same actions, so every behaviour can be tested and simulated without a socket or a file.

mod abandon;
mod action;
mod admin;
mod backlog;
mod broker;
mod bulk;
mod check;
mod client;
mod dispatch;
mod due;
mod dump;
mod event;
mod fair;
mod fair_keys;
mod gate;
mod handout;
mod id_map;
mod kinds;
mod lease;
mod limits;
mod lost;
mod outcome;
mod page;
mod place;
mod progress;
mod queue;
mod ready;
mod resume;
mod retry;
mod session;
mod settings;
mod settle;
mod stop;
mod task;
#[cfg(test)]
mod tests;
mod time;
mod timer;
mod unique;
mod waiter;
mod words;
mod worker;
mod workflow;

pub use action::{
    Action, BulkSlice, BulkSliced, Cause, Count, Counts, Edit, Ended, EndedAs, Ending, FoundGroup, Next, Noted,
    NotedAs, Op, OpResult, Started, WorkerEvent, WorkerName,
};
pub use admin::span;
pub use broker::{Broker, Start};
pub use due::{due, expiry};
pub use dump::{Dump, DumpedLane, DumpedLease};
pub use event::{Asker, ConnId, Event, FoundTask, Loaded, OpId, QueueKey, QueuedTask, ReplyTo};
pub use fair::FairRules;
pub use id_map::{IdMap, IdSet};
pub use lease::{LeaseKey, MARK_MAX};
pub use settings::{KindSettings, Settings};
pub use time::{Millis, Now, UnixMillis};
pub use unique::derive_key;
pub use workflow::waits_for;
