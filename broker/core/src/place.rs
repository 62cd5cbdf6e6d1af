//! How far somebody who waits has been told: the meaning of the cursor that `WAIT_FOR` carries, to everybody else two numbers.
//!
//! First comes the progress that the rows show, for whoever has heard nothing of this broker, in the order of ids; then the
//! events, in the order of their numbers. An answer without room for all ends anywhere in that, and the cursor says where. A
//! cursor of an earlier broker is comparable with neither: whoever brings it begins anew, with a gap.

use laneway_protocol::message::{Cursor, ProgressEvent};
use laneway_protocol::{Epoch, TaskId};

/// Marks the epoch of a cursor whose `n` is an id. Far above the starts of any broker, and still a whole number to peers that count in
/// floating point.
const ROWS_MARK: u64 = 1 << 52;

/// What comes next for one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The progress in the rows of tasks with an id above this one, then every event.
    Rows(u64),
    /// The events behind this number.
    Events(u64),
}

impl Place {
    /// The place that a cursor names, and whether its bearer has heard another broker, whose later events are gone with it.
    pub(crate) fn of(cursor: Option<Cursor>, epoch: Epoch) -> (Self, bool) {
        match cursor {
            None => (Self::Rows(0), false),
            Some(cursor) if cursor.epoch == epoch => (Self::Events(cursor.n), false),
            Some(cursor) if cursor.epoch == rows_of(epoch) => (Self::Rows(cursor.n), false),
            Some(_) => (Self::Rows(0), true),
        }
    }

    pub(crate) fn cursor(self, epoch: Epoch) -> Cursor {
        match self {
            Self::Rows(n) => Cursor { epoch: rows_of(epoch), n },
            Self::Events(n) => Cursor { epoch, n },
        }
    }

    /// Whether the progress in this row is still to be told.
    pub(crate) fn wants_row(self, task: TaskId) -> bool {
        matches!(self, Self::Rows(after) if task.value() > after)
    }

    /// The place behind an answer that tells `told`, of which up to `n_rows` are the progress of rows; all there was, unless it is
    /// `cut_short`. The newest event of this broker is `newest`.
    pub(crate) fn behind(self, told: &[ProgressEvent], n_rows: usize, cut_short: bool, newest: u64) -> Self {
        match told.last() {
            _ if !cut_short => Self::Events(newest),
            None => self,
            Some(last) if told.len() < n_rows => Self::Rows(last.n),
            Some(_) if told.len() == n_rows => Self::Events(0),
            Some(last) => Self::Events(last.n),
        }
    }

    /// The events with a number above this one are still to be told.
    pub(crate) fn events_after(self) -> u64 {
        match self {
            Self::Rows(_) => 0,
            Self::Events(after) => after,
        }
    }
}

fn rows_of(epoch: Epoch) -> Epoch {
    Epoch(epoch.0 | ROWS_MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_in_its_own_epoch_alone() {
        // Every place survives the way to a peer and back; after a restart none of them is taken for a place of the new broker.
        for place in [Place::Rows(0), Place::Rows(7), Place::Events(0), Place::Events(7)] {
            let cursor = place.cursor(Epoch(3));
            assert_eq!(Place::of(Some(cursor), Epoch(3)), (place, false));
            assert_eq!(Place::of(Some(cursor), Epoch(4)), (Place::Rows(0), true), "{place:?}");
        }
        assert_eq!(Place::of(None, Epoch(3)), (Place::Rows(0), false), "a newcomer has missed nothing");
    }
}
