//! Live tasks that were there already when a client submitted one with their unique key. They are others', who may not want them
//! given up: a client that abandons waits for them without that.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use laneway_protocol::TaskId;
use laneway_protocol::message::Stored;

use crate::lock;

/// As many as the broker marks.
const MET_MAX: usize = 65_536;

/// Shared by a client and its clones. A task is forgotten when its end was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Met(Arc<Mutex<Tasks>>);

#[derive(Debug, Default)]
struct Tasks {
    known: HashSet<TaskId>,
    /// There were more: any may be others'.
    more: bool,
}

impl Met {
    /// What came of a submit.
    pub(crate) fn note(&self, stored: &[Stored]) {
        let mut tasks = lock(&self.0);
        for stored in stored.iter().filter(|stored| !stored.new) {
            if tasks.known.len() < MET_MAX {
                tasks.known.insert(stored.task);
            } else {
                tasks.more |= !tasks.known.contains(&stored.task);
            }
        }
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        let tasks = lock(&self.0);
        tasks.more || tasks.known.contains(&task)
    }

    /// It has ended, or is gone.
    pub(crate) fn forget(&self, task: TaskId) {
        lock(&self.0).known.remove(&task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: usize, new: bool) -> Stored {
        Stored { new, ..Stored::new(TaskId::new(id as u64).unwrap()) }
    }

    #[test]
    fn what_was_met_is_known_until_its_end_and_beyond_the_bound_all_is() {
        let met = Met::default();
        let has = |id| met.contains(TaskId::new(id).unwrap());
        met.note(&[stored(1, true), stored(2, false)]);
        assert_eq!((has(1), has(2)), (false, true));
        met.forget(TaskId::new(2).unwrap());
        assert!(!has(2));
        met.note(&(3..MET_MAX + 3).map(|id| stored(id, false)).collect::<Vec<_>>());
        met.note(&[stored(3, false)]);
        assert!(!has(1));
        met.note(&[stored(MET_MAX + 3, false)]);
        assert!(has(1), "it may be one that found no room");
    }
}
