//! The worker's side of the protocol as a state machine: no socket, no clock, no thread, no randomness.
//!
//! Times are milliseconds from a start that the caller chooses, random numbers are arguments, questions come out as
//! [`Request`] and answers go in as [`Answer`](laneway_protocol::Answer). `worker.rs` drives it with sockets and threads; tests and a simulation
//! drive it with queues. It keeps these promises whatever happens to messages on the way:
//!
//! - an outcome is said again until the broker has it on disk, or has called it stale;
//! - a task is started at most once under one lease;
//! - nothing is taken that the broker could have taken back: tasks of an older epoch, of an abandoned question, or that
//!   arrive while the session introduces itself anew are dropped and never acknowledged.
//!
//! A process has one [`Session`], which introduces it (HELLO), shows that it lives (BEAT) and says goodbye (BYE), and a
//! [`Slot`] for each task that it can run at a time (READY). They share no memory: the session is handed the slots when
//! it needs them, behind whatever lock the caller keeps them.
//!
//! This module is public for the simulation and may change with any release.

mod backoff;
pub(crate) mod outbox;
mod session;
mod slot;
#[cfg(test)]
mod tests;

use laneway_protocol::message::Held;
use laneway_protocol::{Request, WireError};

pub use session::Session;
pub use slot::{Received, Slot, SlotSettings};

/// Something to ask the broker. Whatever comes of it is told to whoever gave it, with its token.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Names the question in `answer` and `unanswered`; later ones are higher.
    pub token: u64,
    /// What to send.
    pub request: Request,
    /// How long the broker may park it; no answer for much longer means that there will be none.
    pub wait_ms: u64,
}

/// What a slot or a session wants to do now.
#[expect(clippy::large_enum_variant, reason = "most of them are questions, and none is kept")]
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Ask this. Only the newest question of a slot or session counts.
    Ask(Question),
    /// Start the next received task ([`Slot::start`]). Slots only.
    Run,
    /// Nothing before this time, unless another call changes that; `u64::MAX` waits for such a call.
    Pause {
        /// When to ask `next` again.
        until_ms: u64,
    },
    /// Nothing ever again: the slot is out of work after a stop, or the session has said goodbye.
    Leave,
}

/// What an answer meant for the rest of the process.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// The session has to introduce itself (again): ask [`Session::next`] now.
    Hello,
    /// The session is welcome: slots may ask, and tasks may have been lost or cancelled.
    Welcome,
    /// Tasks were cancelled or lost: look at [`Slot::is_cancelled`].
    News,
    /// The broker wants the process to leave; with `release`, without finishing what runs.
    Drain {
        /// Hand back what runs.
        release: bool,
    },
    /// The broker does not want this worker, and asking again would not help.
    Refused(WireError),
    /// An outcome was refused for its content and, replaced by a failure, refused again: it is given up.
    GivenUp(Held),
}
