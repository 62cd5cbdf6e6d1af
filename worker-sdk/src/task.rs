//! A task to be submitted, built up setting by setting. Mistakes are kept and reported by the call that submits it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use laneway_protocol::limits::{TRACE_BYTES_MAX, UNIQUE_KEY_BYTES_MAX};
use laneway_protocol::message::{After, NewTask, OnConflict};
use laneway_protocol::{FairKey, Format, Kind, LaneName, Payload, TaskId};
use serde::Serialize;

use crate::error::Error;
use crate::payload::encode;

/// A task to be. Everything but the kind is optional and has the broker's default for the kind.
///
/// ```
/// use std::time::Duration;
/// use laneway::Task;
///
/// let task = Task::new("thumbnail")
///     .payload(&("cat.png", 320))
///     .lane("high")
///     .unique_key("cat.png")
///     .timeout(Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct Task(Result<NewTask, Error>);

impl Task {
    /// A task of this kind, 1 to 128 bytes without control characters.
    pub fn new(kind: impl AsRef<str>) -> Self {
        let kind = Kind::new(kind).map_err(|error| Error::setting("kind", error.to_string()));
        Self(kind.map(|kind| NewTask::new(kind, None)))
    }

    /// What the handler gets, written as JSON: TEXT in the table, to be read by anyone.
    #[must_use]
    pub fn payload<T: Serialize + ?Sized>(self, payload: &T) -> Self {
        self.set(|task| encode(payload, Format::Json).map(|payload| task.payload = Some(payload)))
    }

    /// What the handler gets, written as MessagePack: BLOB in the table.
    #[must_use]
    pub fn payload_msgpack<T: Serialize + ?Sized>(self, payload: &T) -> Self {
        self.set(|task| encode(payload, Format::Bin).map(|payload| task.payload = Some(payload)))
    }

    /// Bytes that are passed on as they are.
    #[must_use]
    pub fn payload_raw(self, payload: Payload) -> Self {
        self.set(|task| {
            task.payload = Some(payload);
            Ok(())
        })
    }

    /// The lane to wait in, one of those in the broker's settings. Default: the one configured for the kind, else `normal`.
    #[must_use]
    pub fn lane(self, lane: impl AsRef<str>) -> Self {
        self.set(|task| {
            let lane = LaneName::new(lane).map_err(|error| Error::setting("lane", error.to_string()))?;
            task.lane = Some(lane);
            Ok(())
        })
    }

    /// Not before this time, by the broker's clock, to the millisecond.
    #[must_use]
    pub fn run_at(self, at: SystemTime) -> Self {
        self.run_at_ms(unix_ms(at))
    }

    /// Not before this time in Unix milliseconds, by the broker's clock.
    #[must_use]
    pub fn run_at_ms(self, at_ms: i64) -> Self {
        self.set(|task| {
            task.run_at = Some(at_ms);
            Ok(())
        })
    }

    /// While a task of the same kind and key has not ended, a submit stores nothing and is answered with that one's id.
    #[must_use]
    pub fn unique_key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.set(|task| {
            if key.is_empty() || key.len() > UNIQUE_KEY_BYTES_MAX {
                let text = format!("the key has {} bytes, 1 to {UNIQUE_KEY_BYTES_MAX} are allowed", key.len());
                return Err(Error::setting("unique_key", text));
            }
            task.unique_key = Some(key);
            Ok(())
        })
    }

    /// The key is made out of the payload: of the same kind and payload there is one live task. Not beside
    /// [`Task::unique_key`].
    #[must_use]
    pub fn unique_by_payload(self) -> Self {
        self.set(|task| {
            task.unique_by_payload = true;
            Ok(())
        })
    }

    /// The key stays taken for so long after its task is done: a submit is then answered with that task's id, and its result
    /// is there at once. 1 ms to 10 years; needs a key. Rows that apps insert by SQL only see tasks that have not ended.
    #[must_use]
    pub fn unique_for(self, window: Duration) -> Self {
        self.set(|task| {
            let unique_for_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
            if unique_for_ms == 0 {
                return Err(Error::setting("unique_for", "it is below 1 ms, the least"));
            }
            task.unique_for_ms = Some(unique_for_ms);
            Ok(())
        })
    }

    /// What happens when the key is taken. Default [`OnConflict::Keep`].
    #[must_use]
    pub fn on_conflict(self, on_conflict: OnConflict) -> Self {
        self.set(|task| {
            task.on_conflict = on_conflict;
            Ok(())
        })
    }

    /// How often the handler may fail, at least 1; then the task is dead. Default 3.
    #[must_use]
    pub fn max_attempts(self, max_attempts: u32) -> Self {
        self.set(|task| {
            if max_attempts == 0 {
                return Err(Error::setting("max_attempts", "0 is below 1, the least"));
            }
            task.max_attempts = Some(max_attempts);
            Ok(())
        })
    }

    /// How long one run may take, at least 1 ms. Default 1 h.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|task| {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            if timeout_ms == 0 {
                return Err(Error::setting("timeout", "it is below 1 ms, the least"));
            }
            task.timeout_ms = Some(timeout_ms);
            Ok(())
        })
    }

    /// Cancelled instead of started when it has not started by then, by the broker's clock.
    #[must_use]
    pub fn expires_at(self, at: SystemTime) -> Self {
        self.expires_at_ms(unix_ms(at))
    }

    /// Like [`Task::expires_at`], in Unix milliseconds.
    #[must_use]
    pub fn expires_at_ms(self, at_ms: i64) -> Self {
        self.set(|task| {
            task.expires_at = Some(at_ms);
            Ok(())
        })
    }

    /// For whom it is, 1 to 255 bytes: tasks of its lane with other keys take turns with it, so that nobody's backlog holds up
    /// another's tasks. `*` is no key.
    #[must_use]
    pub fn fair_key(self, key: impl AsRef<str>) -> Self {
        self.set(|task| {
            let key = FairKey::new(key).map_err(|error| Error::setting("fair_key", error.to_string()))?;
            if key.is_every() {
                return Err(Error::setting("fair_key", "'*' stands for every key"));
            }
            task.fair_key = Some(key);
            Ok(())
        })
    }

    /// A trace context that travels with the task, at most 512 bytes: a W3C `traceparent`, and behind a space its `tracestate`.
    /// Default with the feature `opentelemetry`: that of the submit's own span, a child of the current one.
    #[must_use]
    pub fn trace(self, trace: impl Into<String>) -> Self {
        let trace = trace.into();
        self.set(|task| {
            if trace.len() > TRACE_BYTES_MAX {
                let text = format!("the trace has {} bytes, at most {TRACE_BYTES_MAX} are allowed", trace.len());
                return Err(Error::setting("trace", text));
            }
            task.trace = Some(trace);
            Ok(())
        })
    }

    /// Waits for the end of a stored task before it starts. When that one is dead or cancelled, this one is cancelled with it.
    #[must_use]
    pub fn after(self, task: TaskId) -> Self {
        self.wait_for(After { task: Some(task), ..After::default() })
    }

    /// Like [`Task::after`], and runs though that one is dead or cancelled.
    #[must_use]
    pub fn after_anyway(self, task: TaskId) -> Self {
        self.wait_for(After { task: Some(task), anyway: true, ..After::default() })
    }

    /// Waits for the end of a task of the same list, by its place there from 0: of those given to
    /// [`Client::submit_together`](crate::Client::submit_together), of a [`Batch`](crate::Batch), or spawned by the same run
    /// ([`Context::spawn`](crate::Context::spawn) gives their places).
    #[must_use]
    pub fn after_number(self, number: usize) -> Self {
        self.wait_for(After { number: u32::try_from(number).ok(), ..After::default() })
    }

    /// Like [`Task::after_number`], and runs though that one is dead or cancelled.
    #[must_use]
    pub fn after_number_anyway(self, number: usize) -> Self {
        self.wait_for(After { number: u32::try_from(number).ok(), anyway: true, ..After::default() })
    }

    /// Joins a group that is there already. The group's last task waits for it as well, while that has not started.
    #[must_use]
    pub fn group(self, group: u64) -> Self {
        self.set(|task| {
            task.group = Some(group);
            Ok(())
        })
    }

    /// Of a task that is spawned: joins the group of the task that spawns it, if that has one.
    #[must_use]
    pub fn join(self) -> Self {
        self.set(|task| {
            task.join = true;
            Ok(())
        })
    }

    fn wait_for(self, after: After) -> Self {
        self.set(|task| {
            task.after.push(after);
            Ok(())
        })
    }

    pub(crate) fn into_new_task(self) -> Result<NewTask, Error> {
        self.0
    }

    /// Applies a setting; the first mistake stays.
    fn set(self, apply: impl FnOnce(&mut NewTask) -> Result<(), Error>) -> Self {
        Self(self.0.and_then(|mut task| apply(&mut task).map(|()| task)))
    }
}

/// A task as it travels; its settings are checked by the broker.
impl From<NewTask> for Task {
    fn from(task: NewTask) -> Self {
        Self(Ok(task))
    }
}

/// Times before 1970 are long ago all the same, so they count as 0.
fn unix_ms(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_land_in_the_task_and_the_first_mistake_is_reported() {
        // What was set is what travels; a wrong value is told with its bound.
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let task = Task::new("k").payload(&7).lane("high").run_at(at).timeout(Duration::from_secs(1));
        let task = task.into_new_task().unwrap();
        assert_eq!(task.payload, Some(Payload::json("7")));
        assert_eq!((task.run_at, task.timeout_ms), (Some(1_700_000_000_123), Some(1_000)));
        let error = Task::new("k").max_attempts(0).lane("").into_new_task().unwrap_err();
        assert_eq!(error.to_string(), "max_attempts: 0 is below 1, the least");
        assert!(Task::new("").into_new_task().is_err());
    }
}
