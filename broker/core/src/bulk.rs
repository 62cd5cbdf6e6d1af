//! BULK: changes that people make to tasks. The store decides by the row what may be done with it; here is what follows for what
//! was read ahead, for who runs, and for who waits.

use laneway_protocol::message::{Bulk, Change, Verdict};
use laneway_protocol::{Code, LaneName, TaskId, WireError};

use crate::action::{Edit, Op};
use crate::broker::Broker;
use crate::event::Asker;
use crate::settle::Pending;
use crate::time::Now;

impl Broker {
    pub(crate) fn on_bulk(&mut self, from: Asker, bulk: Bulk, now: Now) {
        if let Some(error) = self.intake_refusal() {
            return self.refuse(from.reply, error);
        }
        let Bulk { change, lane, tasks } = bulk;
        let edit = match self.edit(change, lane) {
            Ok(edit) => edit,
            Err(error) => return self.refuse(from.reply, error),
        };
        if tasks.is_empty() {
            return self.refuse(from.reply, WireError::new(Code::BadBody, "name at least one task").field("tasks"));
        }
        let pending = Pending::Edit { reply: from.reply, tasks: tasks.clone() };
        self.ask_store(from.reply, Op::Edit { edit, tasks }, pending, now);
    }

    /// The change with what it needs to be done.
    fn edit(&self, change: Change, lane: Option<LaneName>) -> Result<Edit, WireError> {
        Ok(match (change, lane) {
            (Change::Move, Some(lane)) => {
                self.known_lane(&lane, "lane")?;
                Edit::Move(lane)
            }
            (Change::Move, None) => {
                return Err(WireError::new(Code::BadBody, "a move needs the lane to move to").field("lane"));
            }
            (_, Some(_)) => {
                return Err(WireError::new(Code::BadBody, "only a move has a lane").field("lane"));
            }
            (Change::Requeue, None) => Edit::Requeue,
            (Change::Cancel, None) => Edit::Cancel,
            (Change::Purge, None) => Edit::Purge,
            (Change::RunNow, None) => Edit::RunNow,
        })
    }

    /// Changes are on disk: what had not started will not start any more, or elsewhere; what runs is told to stop; who waits for
    /// a row that is gone hears it.
    pub(crate) fn on_edited(&mut self, verdicts: impl Iterator<Item = (TaskId, Verdict)>, now: Now) {
        for (task, verdict) in verdicts {
            match verdict {
                Verdict::Cancelled => {
                    self.stats.cancelled += 1;
                    self.withdraw(task);
                    if self.waiters.is_watched(task) {
                        self.look(task);
                    }
                }
                Verdict::Requested => self.on_cancel_requested(&[task], now),
                // Handed out meanwhile, it runs on: its row says where it goes if it comes back.
                Verdict::Moved => self.take_out(task),
                Verdict::Purged => {
                    self.withdraw(task);
                    self.tell_vanished(task);
                }
                Verdict::Requeued
                | Verdict::Due
                | Verdict::Needed
                | Verdict::Twin(_)
                | Verdict::Unchanged
                | Verdict::NotFound
                | Verdict::Unknown => {}
            }
        }
    }
}
