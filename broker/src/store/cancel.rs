//! Who asked for a task to end. The row says it as the number in `cancel_requested`: 1, or any other that an app writes, is a person or an
//! app, who know why; what the broker asks for itself has a number of its own, so that the end has a reason whenever it comes.

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CancelCause {
    Asked,
    /// Nobody waits for it any more.
    Abandoned,
    /// With all live tasks of its group.
    Group,
}

impl CancelCause {
    /// `None`: nobody has asked.
    pub(super) fn of(requested: i64) -> Option<Self> {
        match requested {
            0 => None,
            2 => Some(Self::Abandoned),
            3 => Some(Self::Group),
            _ => Some(Self::Asked),
        }
    }

    pub(super) fn requested(self) -> i64 {
        match self {
            Self::Asked => 1,
            Self::Abandoned => 2,
            Self::Group => 3,
        }
    }

    /// What the row keeps as its error.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Asked => None,
            Self::Abandoned => Some("its last waiter left"),
            Self::Group => Some("its group was cancelled"),
        }
    }

    /// The error of a task that was asked to end while it ran; `failed` when its run has one of its own.
    pub(super) fn error_of_run(self, error: Option<&str>, failed: bool) -> Option<Cow<'_, str>> {
        match (self.reason(), error) {
            (Some(reason), Some(error)) if failed => Some(format!("{reason}; {error}").into()),
            (Some(reason), _) => Some(reason.into()),
            (None, error) => error.map(Cow::from),
        }
    }
}
