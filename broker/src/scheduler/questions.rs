//! Questions while no turn goes through: an app that holds the write lock, or a disk that is full, keeps nobody from looking at the
//! table. They are answered from a look then, before the steps that wait, of which nobody has been told.

use laneway_core::{Event, Now, Op, OpId};

use super::Scheduler;
use super::outlet::Told;
use crate::store::{Store, StoreError};

impl<S: Store> Scheduler<S> {
    /// Called behind a turn that failed. Those that cannot be answered now wait for a turn, as the steps do.
    pub(super) fn answer_questions(&mut self, now: Now) -> Result<(), StoreError> {
        let taken = self.ops.take_questions();
        if taken.is_empty() {
            return Ok(());
        }
        let (ids, ops): (Vec<Option<OpId>>, Vec<Op>) = taken.iter().map(|(_, (id, op))| (*id, op.clone())).unzip();
        let answered = self.store.look().and_then(|()| {
            let results = self.store.apply(&ops, now)?;
            self.store.end_look()?;
            Ok(results)
        });
        match answered {
            Ok(results) => {
                let answers = ids.into_iter().zip(results).filter_map(|(id, result)| Some((id?, result?))).collect();
                self.send(Told { events: vec![Event::Committed(answers)], ..Told::default() }, true)
            }
            Err(error) => {
                self.store.rollback();
                self.ops.put_back_questions(taken);
                if error.retry() { Ok(()) } else { Err(error) }
            }
        }
    }
}
