//! Unique keys beyond the plain rule that the table itself keeps: keys made out of payloads, and live tasks that a submit
//! replaces, which nobody may start with their old payload meanwhile.

use std::fmt::Write as _;

use laneway_protocol::message::{Held, NewTask, OnConflict, Submit};
use laneway_protocol::{Format, Kind, TaskId, TaskState};
use sha2::{Digest, Sha256};

use crate::abandon::promised_marks;
use crate::broker::Broker;
use crate::event::{ConnId, FoundTask, ReplyTo};
use crate::id_map::IdMap;
use crate::time::Millis;

/// Gives a task that asks for it the key of its payload: `json:` or `bin:` and the SHA-256 in hexadecimal, or `none`; anybody
/// can work out the same. One that has a key as well is left as it is, for the store to refuse.
pub fn derive_key(task: &mut NewTask) {
    if !task.unique_by_payload || task.unique_key.is_some() {
        return;
    }
    task.unique_key = Some(match &task.payload {
        None => "none".into(),
        Some(payload) => {
            let mut key = String::from(if payload.format == Format::Json { "json:" } else { "bin:" });
            for byte in Sha256::digest(&payload.bytes) {
                write!(key, "{byte:02x}").expect("a string takes every write");
            }
            key
        }
    });
    task.unique_by_payload = false;
}

/// Tasks that a submit on its way to the disk may replace, each with how many there are: they stay in the table until then.
#[derive(Debug, Default)]
pub(crate) struct Secured(IdMap<TaskId, usize>);

impl Secured {
    pub(crate) fn contains(&self, task: TaskId) -> bool {
        !self.0.is_empty() && self.0.contains_key(&task)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().sum()
    }

    fn add(&mut self, task: TaskId) {
        *self.0.entry(task).or_default() += 1;
    }

    fn remove(&mut self, task: TaskId) {
        if let Some(n) = self.0.get_mut(&task) {
            *n -= 1;
            if *n == 0 {
                self.0.remove(&task);
            }
        }
    }
}

/// The keys whose live tasks a submit wants to replace.
pub(crate) fn replaces(tasks: &[NewTask]) -> Vec<(Kind, String)> {
    let replacing = tasks.iter().filter(|task| task.on_conflict == OnConflict::Replace);
    replacing.filter_map(|task| Some((task.kind.clone(), task.unique_key.clone()?))).collect()
}

impl Broker {
    /// The live tasks that a submit may replace are known: those that no worker has are kept from starting until it is on disk.
    /// A worker that has one already runs what it was given.
    pub(crate) fn on_twins_found(
        &mut self,
        (reply, conn, until): (ReplyTo, ConnId, Millis),
        submit: Submit,
        found: &[FoundTask],
    ) {
        if !self.questions.contains_key(&reply) {
            // Answered late or gone: nothing is stored, and the same is asked again.
            self.waiters.unexpect(conn, reply);
            return self.release_marks(promised_marks(&submit));
        }
        let mut secured = Vec::new();
        for row in found.iter().filter(|row| row.state == TaskState::Queued) {
            if self.running.contains_key(&row.id) || self.settling.contains_key(&row.id) {
                continue;
            }
            self.secured.add(row.id);
            secured.push(Held(row.id, self.key.mark(row.id, row.created_at)));
            self.take_out(row.id);
        }
        self.submit((reply, conn, until), submit, secured);
    }

    /// The submit has come to its end. The store reads these tasks ahead again by itself.
    pub(crate) fn release_secured(&mut self, secured: &[Held]) {
        for &Held(task, _) in secured {
            self.secured.remove(task);
        }
    }
}

#[cfg(test)]
mod tests {
    use laneway_protocol::Payload;

    use super::*;

    fn key(payload: Option<Payload>) -> Option<String> {
        let mut task = NewTask { unique_by_payload: true, ..NewTask::new(Kind::new("k").unwrap(), payload) };
        derive_key(&mut task);
        assert!(!task.unique_by_payload);
        task.unique_key
    }

    #[test]
    fn a_task_is_secured_until_the_last_submit_lets_it_go() {
        let [one, other] = [1, 2].map(|id| TaskId::new(id).unwrap());
        let mut secured = Secured::default();
        secured.add(one);
        secured.add(one);
        secured.remove(one);
        assert!(secured.contains(one) && !secured.contains(other));
        assert_eq!(secured.len(), 1);
        secured.remove(one);
        assert!(!secured.contains(one));
    }

    #[test]
    fn the_key_of_a_payload_is_what_anybody_works_out() {
        // `printf hi | sha256sum`. JSON and bytes of the same content are different payloads.
        let hi = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4";
        assert_eq!(key(Some(Payload::json("hi"))).unwrap(), format!("json:{hi}"));
        assert_eq!(key(Some(Payload::bin(*b"hi"))).unwrap(), format!("bin:{hi}"));
        assert_eq!(key(None).unwrap(), "none");
    }

    #[test]
    fn a_task_that_asks_for_nothing_or_too_much_is_left_as_it_is() {
        // Without the wish there is no key; with a key of its own the store has to say that both make no sense.
        let plain = NewTask::new(Kind::new("k").unwrap(), None);
        let both = NewTask { unique_by_payload: true, unique_key: Some("x".into()), ..plain.clone() };
        for task in [plain, both] {
            let mut derived = task.clone();
            derive_key(&mut derived);
            assert_eq!(derived, task);
        }
    }
}
