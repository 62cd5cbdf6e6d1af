//! The settings of a worker, with their defaults and bounds, resolved once by `build`.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use laneway_protocol::limits::{BATCH_MAX, KINDS_PER_WORKER_MAX, WAIT_MS_MAX};
use laneway_protocol::message::Hello;
use laneway_protocol::{Kind, LaneName, Payload, SessionName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::curve::Curve;
use crate::error::Error;
use crate::handler::{Failure, Handler, Raw, Typed};
use crate::link::SlotSettings;
use crate::worker::Worker;

/// Slots in one process; each is a thread and a socket.
/// A ZeroMQ context has 1,023 sockets; some are for the process as a whole.
const SLOTS_MAX: u32 = 1_000;
const NAME_BYTES_MAX: usize = 128;

/// Sets a [`Worker`] up. Made by [`Worker::builder`]; mistakes are reported by [`WorkerBuilder::build`].
#[must_use = "a builder does nothing until `build`"]
pub struct WorkerBuilder {
    pub(crate) endpoint: String,
    pub(crate) curve: Option<Curve>,
    name: Option<String>,
    lanes: Option<Vec<String>>,
    slots: u32,
    reserved: Vec<(String, u32)>,
    pub(crate) batch: u32,
    pub(crate) committed: bool,
    handlers: Vec<(String, Box<dyn Handler>)>,
    wait: Duration,
    unsettled_max: usize,
    unsettled_bytes_max: usize,
    pub(crate) signals: bool,
    pub(crate) stop_timeout: Duration,
    pub(crate) release_timeout: Duration,
    pub(crate) farewell_timeout: Duration,
}

/// What `build` makes of the settings.
pub(crate) struct Resolved {
    pub(crate) identity: Hello,
    pub(crate) slots: Vec<SlotSettings>,
    pub(crate) handlers: HashMap<Kind, Box<dyn Handler>>,
}

impl WorkerBuilder {
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            curve: None,
            name: None,
            lanes: None,
            slots: 1,
            reserved: Vec::new(),
            batch: 1,
            committed: false,
            handlers: Vec::new(),
            wait: Duration::from_secs(10),
            unsettled_max: 16_384,
            unsettled_bytes_max: 64 * 1024 * 1024,
            signals: true,
            stop_timeout: Duration::from_secs(30),
            release_timeout: Duration::from_secs(2),
            farewell_timeout: Duration::from_secs(5),
        }
    }

    /// Runs `handler` for each task of `kind`. The payload is read as a `T`, from JSON or MessagePack whichever it is, and
    /// the result is written in the same format (JSON when there is no payload; nothing for `()`).
    ///
    /// A payload that is not a `T` makes the task dead with an error that says why. Any error that can be displayed is a
    /// failed attempt; [`Failure`] has the other ends. Called from as many threads at once as there are slots.
    pub fn handle<T, R, E, F>(self, kind: impl Into<String>, handler: F) -> Self
    where
        F: Fn(T, &Context) -> Result<R, E> + Send + Sync + 'static,
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Into<Failure> + 'static,
    {
        self.handler(kind, Typed::new(handler))
    }

    /// Like [`WorkerBuilder::handle`], with the payload's bytes and format as they are, and the result too. `None` is NULL.
    pub fn handle_raw<E, F>(self, kind: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Option<Payload>, &Context) -> Result<Option<Payload>, E> + Send + Sync + 'static,
        E: Into<Failure> + 'static,
    {
        self.handler(kind, Raw(handler))
    }

    /// Runs a [`Handler`] for each task of `kind`, 1 to 128 bytes without control characters. At most 256 kinds.
    pub fn handler(mut self, kind: impl Into<String>, handler: impl Handler) -> Self {
        self.handlers.push((kind.into(), Box::new(handler)));
        self
    }

    /// Speaks CURVE, with these keys; the broker's allow-list must have this worker's, with the role `work`.
    pub fn curve(mut self, curve: Curve) -> Self {
        self.curve = Some(curve);
        self
    }

    /// What people see in lists and logs, at most 128 bytes. Default: the name of the program.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The lanes to take tasks from; their order is the broker's. Default: every lane.
    pub fn lanes<L: AsRef<str>>(mut self, lanes: impl IntoIterator<Item = L>) -> Self {
        self.lanes = Some(lanes.into_iter().map(|lane| lane.as_ref().to_owned()).collect());
        self
    }

    /// Tasks that run at the same time, 1 to 1,000; each slot is one thread with one socket. Default 1.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Keeps `slots` of all slots for tasks of this lane, so that long tasks of other lanes can never occupy them. May be
    /// called for several lanes.
    pub fn reserve(mut self, lane: impl Into<String>, slots: u32) -> Self {
        self.reserved.push((lane.into(), slots));
        self
    }

    /// Tasks that a slot asks for at once, 1 to 512. Default 1: an idle worker never waits for what another holds. More
    /// make thousands of tiny tasks cheaper; they run one after the other.
    pub fn batch(mut self, batch: u32) -> Self {
        self.batch = batch;
        self
    }

    /// Whether a task is handed out only once its row shows its lease, for handlers that end the row themselves, in one
    /// transaction with what they do on the same database, and return [`Failure::already`]. Default false: tasks come a few
    /// milliseconds sooner, and the row may still be `queued` when they do.
    pub fn committed(mut self, committed: bool) -> Self {
        self.committed = committed;
        self
    }

    /// Whether SIGTERM and SIGINT stop the worker: the first one like [`Stopper::stop`](crate::Stopper::stop), the next
    /// one like [`Stopper::release`](crate::Stopper::release). Default true.
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals;
        self
    }

    /// How long running tasks may go on after a stop before they are told to end and handed back. Default 30 s.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// How long handlers have to return once [`Context::cancelled`] has turned true for a stop; later ones are left
    /// behind and their tasks handed back all the same. Default 2 s.
    pub fn release_timeout(mut self, timeout: Duration) -> Self {
        self.release_timeout = timeout;
        self
    }

    /// How long the goodbye may take, which brings the last outcomes. Default 5 s.
    pub fn farewell_timeout(mut self, timeout: Duration) -> Self {
        self.farewell_timeout = timeout;
        self
    }

    /// How long an idle slot lets the broker park its question, 1 ms to 60 s. Default 10 s. Tasks come at once whatever
    /// this is.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How many outcomes the process keeps that the broker has not yet put on disk, and how many bytes of results. With
    /// more it takes no tasks. Default 16,384 and 64 MiB.
    pub fn unsettled_max(mut self, outcomes: usize, bytes: usize) -> Self {
        self.unsettled_max = outcomes;
        self.unsettled_bytes_max = bytes;
        self
    }

    /// Checks the settings. Needs no broker: [`Worker::run`] looks for it.
    ///
    /// Fails with [`Error::BadSetting`], [`Error::BadEndpoint`] or [`Error::System`].
    pub fn build(self) -> Result<Worker, Error> {
        Worker::new(self)
    }

    /// Everything that can be checked without the system.
    pub(crate) fn resolve(&mut self, session: SessionName) -> Result<Resolved, Error> {
        bounded("slots", self.slots.into(), SLOTS_MAX.into())?;
        bounded("batch", self.batch.into(), BATCH_MAX as u64)?;
        bounded("unsettled_max", self.unsettled_max as u64, u64::MAX)?;
        let wait_ms = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        bounded("wait", wait_ms, WAIT_MS_MAX)?;
        let handlers = self.resolve_handlers()?;
        let mut kinds: Vec<Kind> = handlers.keys().cloned().collect();
        kinds.sort();
        let lanes = self.resolve_lanes()?;
        let slots = self.resolve_slots(&session, lanes.as_deref(), wait_ms)?;
        let identity = Hello {
            session,
            name: self.resolve_name()?,
            host: host(),
            pid: std::process::id(),
            sdk: concat!("laneway-rust ", env!("CARGO_PKG_VERSION")).into(),
            kinds,
            lanes: all_lanes(&slots, lanes),
            slots: self.slots,
            resume: Vec::new(),
            more: false,
        };
        Ok(Resolved { identity, slots, handlers })
    }

    fn resolve_handlers(&mut self) -> Result<HashMap<Kind, Box<dyn Handler>>, Error> {
        let mut handlers = HashMap::new();
        for (kind, handler) in std::mem::take(&mut self.handlers) {
            let kind = Kind::new(kind).map_err(|error| Error::setting("handle", error.to_string()))?;
            if handlers.contains_key(&kind) {
                return Err(Error::setting("handle", format!("kind '{kind}' has two handlers")));
            }
            handlers.insert(kind, handler);
        }
        match handlers.len() {
            0 => Err(Error::setting("handle", "there is no handler; add one for each kind the worker runs")),
            n if n > KINDS_PER_WORKER_MAX => {
                Err(Error::setting("handle", format!("{n} kinds, at most {KINDS_PER_WORKER_MAX} are allowed")))
            }
            _ => Ok(handlers),
        }
    }

    fn resolve_lanes(&self) -> Result<Option<Vec<LaneName>>, Error> {
        let Some(lanes) = &self.lanes else { return Ok(None) };
        if lanes.is_empty() {
            return Err(Error::setting("lanes", "the list is empty; leave it out to take tasks from every lane"));
        }
        lanes.iter().map(|lane| lane_name("lanes", lane)).collect::<Result<_, _>>().map(Some)
    }

    fn resolve_name(&self) -> Result<String, Error> {
        match &self.name {
            Some(name) if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) => Err(Error::setting(
                "name",
                format!("{name:?} is over {NAME_BYTES_MAX} bytes or has control characters"),
            )),
            Some(name) => Ok(name.clone()),
            None => Ok(program()),
        }
    }

    /// The reserved slots first.
    fn resolve_slots(
        &self,
        session: &SessionName,
        lanes: Option<&[LaneName]>,
        wait_ms: u64,
    ) -> Result<Vec<SlotSettings>, Error> {
        let mut serves = Vec::new();
        for (lane, slots) in &self.reserved {
            let lane = lane_name("reserve", lane)?;
            serves.extend((0..(*slots).min(SLOTS_MAX)).map(|_| Some(vec![lane.clone()])));
        }
        let (reserved, slots) = (serves.len(), self.slots as usize);
        if reserved > slots {
            let text = format!("{reserved} slots are reserved, but there are only {slots}; raise `slots`");
            return Err(Error::setting("reserve", text));
        }
        // Only when slots serve different lanes does each have to say which.
        let plain = if reserved > 0 { lanes.map(<[LaneName]>::to_vec) } else { None };
        serves.resize(slots, plain);
        let settings = serves.into_iter().zip(0..).map(|(lanes, slot)| SlotSettings {
            session: session.clone(),
            slot,
            lanes,
            committed: self.committed,
            max: self.batch,
            wait_ms,
            unsettled_max: self.unsettled_max.div_ceil(slots),
            unsettled_bytes_max: self.unsettled_bytes_max.div_ceil(slots),
        });
        Ok(settings.collect())
    }
}

/// What the process as a whole serves; `None` is every lane.
fn all_lanes(slots: &[SlotSettings], lanes: Option<Vec<LaneName>>) -> Option<Vec<LaneName>> {
    if slots.iter().all(|slot| slot.lanes.is_none()) {
        return lanes;
    }
    let mut all = slots.iter().map(|slot| slot.lanes.clone()).collect::<Option<Vec<_>>>()?.concat();
    all.sort();
    all.dedup();
    Some(all)
}

fn lane_name(setting: &'static str, lane: &str) -> Result<LaneName, Error> {
    LaneName::new(lane).map_err(|error| Error::setting(setting, error.to_string()))
}

fn bounded(setting: &'static str, value: u64, max: u64) -> Result<(), Error> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(setting, format!("{value} is not 1 to {max}")))
}

fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "worker".into())
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().into())
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("endpoint", &self.endpoint)
            .field("lanes", &self.lanes)
            .field("slots", &self.slots)
            .field("reserved", &self.reserved)
            .field("kinds", &self.handlers.iter().map(|(kind, _)| kind).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> WorkerBuilder {
        WorkerBuilder::new("tcp://127.0.0.1:1".into()).handle("k", |(): (), _| Ok::<_, Failure>(()))
    }

    fn resolve(mut builder: WorkerBuilder) -> Result<Resolved, Error> {
        builder.resolve(SessionName::new("s").unwrap())
    }

    fn names(lanes: Option<&Vec<LaneName>>) -> Option<Vec<&str>> {
        lanes.map(|lanes| lanes.iter().map(LaneName::as_str).collect())
    }

    #[test]
    fn reserved_slots_say_their_lane_and_the_others_theirs() {
        // (lanes, reserved, what each of two slots says, what HELLO says)
        type Case = (Option<&'static [&'static str]>, u32, [Option<&'static str>; 2], Option<&'static [&'static str]>);
        let cases: [Case; 4] = [
            (None, 0, [None, None], None),
            (None, 1, [Some("high"), None], None),
            (Some(&["low"]), 1, [Some("high"), Some("low")], Some(&["high", "low"])),
            (None, 2, [Some("high"), Some("high")], Some(&["high"])),
        ];
        for (lanes, reserved, slots, hello) in cases {
            let mut builder = builder().slots(2).reserve("high", reserved);
            if let Some(lanes) = lanes {
                builder = builder.lanes(lanes);
            }
            let resolved = resolve(builder).unwrap();
            let said = resolved.slots.iter().map(|slot| names(slot.lanes.as_ref()).map(|lanes| lanes[0]));
            assert_eq!(said.collect::<Vec<_>>(), slots);
            assert_eq!(names(resolved.identity.lanes.as_ref()).as_deref(), hello);
        }
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_named_with_its_bound() {
        // Each mistake is reported under the method that made it.
        let cases = [
            (builder().slots(0), "slots: 0 is not 1 to 1000"),
            (builder().batch(513), "batch: 513 is not 1 to 512"),
            (
                builder().slots(1).reserve("high", 2),
                "reserve: 2 slots are reserved, but there are only 1; raise `slots`",
            ),
            (builder().lanes(["a\nb"]), "lanes: lane \"a\\nb\" has control characters"),
            (builder().handle("k", |(): (), _| Ok::<_, Failure>(())), "handle: kind 'k' has two handlers"),
        ];
        for (builder, text) in cases {
            assert_eq!(resolve(builder).err().unwrap().to_string(), text);
        }
    }
}
