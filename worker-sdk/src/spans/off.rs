//! What stands for the spans when the feature `opentelemetry` is off: the same names, and nothing in them.

#![expect(clippy::unused_self, reason = "with the feature on there is something in them")]

use laneway_protocol::message::{HandedTask, Hello, NewTask, Outcome, Stored};

use crate::error::Error;

pub(crate) struct Runs;

impl Runs {
    pub(crate) fn new(_: &Hello, _: &str) -> Self {
        Self
    }

    pub(crate) fn begin(&self, _: &HandedTask) -> Run {
        Run
    }
}

#[derive(Clone)]
pub(crate) struct Run;

pub(crate) struct Entered;

impl Run {
    pub(crate) fn enter(&self) -> Entered {
        Entered
    }

    pub(crate) fn carried(&self) -> Option<String> {
        None
    }

    pub(crate) fn tell(&self, _: &Outcome) {}

    pub(crate) fn end(&self, _is_taken: bool) {}
}

pub(crate) struct Sending;

impl Sending {
    pub(crate) fn begin(_: &str, _: &mut [NewTask]) -> Self {
        Self
    }

    pub(crate) fn end(self, _: Result<&[Stored], &Error>) {}
}
