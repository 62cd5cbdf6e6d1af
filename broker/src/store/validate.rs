//! Tells a good row from a bad one, in one place for submit, spawn, intake and load. A bad one is described with its
//! value, the bound and the fix, so that whoever inserted it needs to read nothing else. Changes nothing.

use std::collections::{HashMap, HashSet};

use laneway_core::{QueueKey, UnixMillis};
use laneway_protocol::limits::{TRACE_BYTES_MAX, UNIQUE_KEY_BYTES_MAX};
use laneway_protocol::message::{Format, NewTask, OnConflict};
use laneway_protocol::{FairKey, Kind, LaneName, TaskId};
use rusqlite::types::{Type, ValueRef};

use super::Rules;

/// More is surely a mistake, and counts as one.
pub(super) const ATTEMPTS_MAX: i64 = 1_000_000;
/// Ten years.
pub(super) const TIMEOUT_MS_MAX: i64 = 315_576_000_000;
/// Below it a time is in seconds: as milliseconds it would be early in 1973.
const SECONDS_MAX: f64 = 1e11;
/// From it on a time is in microseconds or worse: as milliseconds it would be the year 5138.
const MICROS_MIN: f64 = 1e14;

/// Why a row makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) field: &'static str,
    pub(crate) reason: String,
}

impl Bad {
    pub(super) fn new(field: &'static str, reason: String) -> Self {
        Self { field, reason }
    }

    /// A unique key that somebody has, where the task asked to be refused then.
    pub(super) fn taken(task: &NewTask, by: &str) -> Self {
        let key = clipped(task.unique_key.as_deref().unwrap_or_default(), 64);
        let reason = format!("the unique key '{key}' of kind '{}' is taken by {by}", task.kind);
        Self::new("on_conflict", reason)
    }

    /// A task that wants to replace one which the same message brings.
    pub(super) fn replacing_own(task: &NewTask, number: usize) -> Self {
        let key = clipped(task.unique_key.as_deref().unwrap_or_default(), 64);
        let reason = format!(
            "it would replace task number {number} of the same message, which has the key '{key}' too: leave that one out, or say \
             them in two messages"
        );
        Self::new("unique_key", reason)
    }

    /// A task that wants to replace another while no broker tells whether a worker has that one already.
    pub(super) fn replacing_offline(twin: TaskId) -> Self {
        let reason = format!(
            "task {twin} has the key, and only a broker knows whether a worker has that task already: start one, or leave \
             on_conflict out to keep it"
        );
        Self::new("on_conflict", reason)
    }

    /// A spawned task that wants to replace another: nobody keeps that one from starting meanwhile.
    pub(super) fn replacing(spawn: &[NewTask]) -> Option<(usize, Self)> {
        let index = spawn.iter().position(|task| task.on_conflict == OnConflict::Replace)?;
        let reason = "a spawned task cannot replace another: use on_conflict keep or reject, or submit it";
        Some((index, Self::new("on_conflict", reason.into())))
    }
}

/// The values of a row that can be wrong, as the table holds them; kind and lane apart, see [`Judge::key`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) run_at: ValueRef<'a>,
    pub(super) created_at: ValueRef<'a>,
    pub(super) runs: ValueRef<'a>,
    pub(super) attempts: ValueRef<'a>,
    pub(super) losses: ValueRef<'a>,
    pub(super) max_attempts: ValueRef<'a>,
    pub(super) timeout_ms: ValueRef<'a>,
    pub(super) expires_at: ValueRef<'a>,
    pub(super) unique_key: ValueRef<'a>,
    pub(super) trace: ValueRef<'a>,
    pub(super) fair_key: ValueRef<'a>,
    pub(super) payload_type: Type,
    pub(super) payload_bytes: usize,
}

impl<'a> Values<'a> {
    /// A task to be, as its row would hold it.
    pub(super) fn of(task: &'a NewTask) -> Self {
        let int = |value: Option<i64>| value.map_or(ValueRef::Null, ValueRef::Integer);
        let text =
            |value: &'a Option<String>| value.as_ref().map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()));
        let timeout_ms = task.timeout_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let payload_type = task.payload.as_ref().map_or(Type::Null, |payload| match payload.format {
            Format::Json => Type::Text,
            Format::Bin => Type::Blob,
        });
        Self {
            run_at: int(task.run_at),
            created_at: ValueRef::Integer(0),
            runs: ValueRef::Integer(0),
            attempts: ValueRef::Integer(0),
            losses: ValueRef::Integer(0),
            max_attempts: int(task.max_attempts.map(i64::from)),
            timeout_ms: int(timeout_ms),
            expires_at: int(task.expires_at),
            unique_key: text(&task.unique_key),
            trace: text(&task.trace),
            fair_key: task.fair_key.as_ref().map_or(ValueRef::Null, |key| ValueRef::Text(key.as_str().as_bytes())),
            payload_type,
            payload_bytes: task.payload.as_ref().map_or(0, |payload| payload.bytes.len()),
        }
    }
}

/// The same values once they are known to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    pub(super) run_at: Option<UnixMillis>,
    pub(super) created_at: UnixMillis,
    pub(super) runs: u32,
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) expires_at: Option<UnixMillis>,
}

/// The rules, and the lanes that were ever configured. Rules without lanes, those of a file that no broker has opened, let
/// every lane pass.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) rules: Rules,
    known_lanes: HashSet<String>,
    /// `rules.kind_lanes` as the settings have it, when something else was set.
    lanes_of_settings: HashMap<Kind, Option<LaneName>>,
}

impl Judge {
    pub(super) fn new(rules: Rules) -> Self {
        let known_lanes = rules.lanes.iter().map(|lane| lane.as_str().to_owned()).collect();
        Self { rules, known_lanes, lanes_of_settings: HashMap::new() }
    }

    /// Rows of this kind without a lane belong to this one from now on; `None` is what the settings say. A lane that is not
    /// in the settings any more is passed over.
    pub(super) fn set_lane(&mut self, kind: &Kind, lane: Option<&LaneName>) {
        let lane = lane.filter(|lane| self.rules.lanes.contains(lane)).cloned();
        let lane = match lane {
            Some(lane) => {
                let own = self.rules.kind_lanes.get(kind).cloned();
                self.lanes_of_settings.entry(kind.clone()).or_insert(own);
                Some(lane)
            }
            None => match self.lanes_of_settings.remove(kind) {
                Some(own) => own,
                None => return,
            },
        };
        match lane {
            Some(lane) => drop(self.rules.kind_lanes.insert(kind.clone(), lane)),
            None => drop(self.rules.kind_lanes.remove(kind)),
        }
    }

    /// Rows of this lane are kept, though it is not in the settings any more.
    pub(super) fn know(&mut self, lane: String) {
        self.known_lanes.insert(lane);
    }

    /// Judges a task that is not a row yet.
    pub(super) fn task(&self, task: &NewTask) -> Result<QueueKey, Bad> {
        let lane = match &task.lane {
            Some(lane) if self.rules.lanes.is_empty() || self.rules.lanes.contains(lane) => lane.clone(),
            Some(lane) => return Err(self.unknown_lane(lane.as_str())),
            None => self.rules.lane_of(&task.kind).clone(),
        };
        if let Some(payload) = &task.payload
            && payload.format == Format::Json
            && std::str::from_utf8(&payload.bytes).is_err()
        {
            return Err(Bad::new("payload", "payload says it is JSON and is not UTF-8: send it as bin".into()));
        }
        self.values(&Values::of(task))?;
        unique(task)?;
        Ok(QueueKey { lane, kind: task.kind.clone() })
    }

    /// The queue that a row belongs to.
    pub(super) fn key(&self, kind: ValueRef<'_>, lane: ValueRef<'_>) -> Result<QueueKey, Bad> {
        let kind = match kind {
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => {
                    Kind::new(text).map_err(|error| Bad::new("kind", format!("{error}: choose another name")))?
                }
                Err(_) => return Err(Bad::new("kind", "kind is not UTF-8: insert it as UTF-8 text".into())),
            },
            other => return Err(wrong_type("kind", other, "TEXT")),
        };
        let lane = match lane {
            ValueRef::Null => self.rules.lane_of(&kind).clone(),
            ValueRef::Text(bytes) => self.lane(bytes)?,
            other => return Err(wrong_type("lane", other, "TEXT or NULL")),
        };
        Ok(QueueKey { lane, kind })
    }

    /// Everything of a row but its kind and lane.
    pub(super) fn values(&self, values: &Values<'_>) -> Result<Good, Bad> {
        let good = Good {
            run_at: time("run_at", values.run_at)?,
            created_at: time("created_at", values.created_at)?.unwrap_or_default(),
            runs: count("runs", values.runs)?,
            attempts: count("attempts", values.attempts)?,
            losses: count("losses", values.losses)?,
            max_attempts: bounded("max_attempts", values.max_attempts, ATTEMPTS_MAX)?
                .map(|n| u32::try_from(n).expect("the bound is below it")),
            timeout_ms: bounded("timeout_ms", values.timeout_ms, TIMEOUT_MS_MAX)?.map(i64::unsigned_abs),
            expires_at: time("expires_at", values.expires_at)?,
        };
        short_text("unique_key", values.unique_key, UNIQUE_KEY_BYTES_MAX)?;
        short_text("trace", values.trace, TRACE_BYTES_MAX)?;
        fair_key(values.fair_key)?;
        if matches!(values.payload_type, Type::Integer | Type::Real) {
            let reason = "payload is a number: insert it as TEXT, which is JSON, or as BLOB";
            return Err(Bad::new("payload", reason.into()));
        }
        let bytes_max = self.rules.payload_bytes_max;
        if values.payload_bytes > bytes_max {
            let reason = format!(
                "payload has {} bytes, at most {bytes_max} are allowed: store it elsewhere and insert its place",
                values.payload_bytes
            );
            return Err(Bad::new("payload", reason));
        }
        Ok(good)
    }

    fn lane(&self, bytes: &[u8]) -> Result<LaneName, Bad> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(Bad::new("lane", "lane is not UTF-8: insert it as UTF-8 text".into()));
        };
        // Names of the settings are shared, not made again for each row.
        if let Some(lane) = self.rules.lanes.iter().find(|lane| lane.as_str() == text) {
            return Ok(lane.clone());
        }
        let lane =
            LaneName::new(text).map_err(|error| Bad::new("lane", format!("{error}: {}", self.lanes_to_use())))?;
        if self.rules.lanes.is_empty() || self.known_lanes.contains(text) {
            Ok(lane)
        } else {
            Err(self.unknown_lane(text))
        }
    }

    fn unknown_lane(&self, lane: &str) -> Bad {
        Bad::new("lane", format!("lane '{lane}' is not configured: {}, or add it to the settings", self.lanes_to_use()))
    }

    fn lanes_to_use(&self) -> String {
        let names: Vec<&str> = self.rules.lanes.iter().map(LaneName::as_str).collect();
        format!("use one of {}", names.join(", "))
    }
}

/// What a task asks of its unique key.
fn unique(task: &NewTask) -> Result<(), Bad> {
    if task.unique_by_payload {
        let reason = "unique_by_payload beside a unique_key: leave one of them out";
        return Err(Bad::new("unique_by_payload", reason.into()));
    }
    if task.unique_key.is_none() && (task.on_conflict != OnConflict::Keep || task.unique_for_ms.is_some()) {
        let reason =
            "on_conflict and unique_for_ms mean nothing without a unique key: give unique_key or unique_by_payload";
        return Err(Bad::new("unique_key", reason.into()));
    }
    let unique_for_ms = task.unique_for_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    bounded("unique_for_ms", unique_for_ms.map_or(ValueRef::Null, ValueRef::Integer), TIMEOUT_MS_MAX)?;
    Ok(())
}

fn fair_key(value: ValueRef<'_>) -> Result<(), Bad> {
    let bytes = match value {
        ValueRef::Null => return Ok(()),
        ValueRef::Text(bytes) => bytes,
        other => return Err(wrong_type("fair_key", other, "TEXT or NULL")),
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Bad::new("fair_key", "fair_key is not UTF-8: insert it as UTF-8 text".into()));
    };
    match FairKey::new(text) {
        Ok(key) if key.is_every() => {
            Err(Bad::new("fair_key", "fair_key '*' stands for every key: choose another name".into()))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Bad::new("fair_key", format!("{error}: choose another name, or NULL"))),
    }
}

fn wrong_type(field: &'static str, value: ValueRef<'_>, fix: &str) -> Bad {
    Bad::new(field, format!("{field} is {}: insert {fix}", shown(value)))
}

/// A value as a person would recognise it.
fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(n) => n.to_string(),
        ValueRef::Text(bytes) => format!("the text '{}'", clipped(&String::from_utf8_lossy(bytes), 64)),
        ValueRef::Blob(bytes) => format!("a BLOB of {} bytes", bytes.len()),
    }
}

/// Unix milliseconds. Apps multiply clocks in floating point: a fraction counts as the next whole one, for the row is not
/// due before.
#[expect(clippy::cast_precision_loss, reason = "compared with bounds far below 2^53")]
#[expect(clippy::cast_possible_truncation, reason = "within bounds that an i64 holds")]
fn time(field: &'static str, value: ValueRef<'_>) -> Result<Option<UnixMillis>, Bad> {
    let (rough, exact) = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Integer(n) => (n as f64, n),
        ValueRef::Real(n) => (n, n.ceil() as i64),
        other => return Err(wrong_type(field, other, "Unix milliseconds as INTEGER")),
    };
    if field == "created_at" {
        return Ok(Some(UnixMillis(exact)));
    }
    if rough < 0.0 {
        return Err(Bad::new(field, format!("{field} {} is negative: use Unix milliseconds", shown(value))));
    }
    if rough > 0.0 && rough < SECONDS_MAX {
        let fixed = exact.saturating_mul(1000);
        return Err(Bad::new(field, format!("{field} {exact} looks like seconds: use milliseconds, {fixed}")));
    }
    if rough >= MICROS_MIN {
        let text = format!("{field} {exact} is after the year 5138, microseconds perhaps: use milliseconds");
        return Err(Bad::new(field, text));
    }
    Ok(Some(UnixMillis(exact)))
}

fn count(field: &'static str, value: ValueRef<'_>) -> Result<u32, Bad> {
    match value {
        ValueRef::Integer(n) => u32::try_from(n)
            .map_err(|_| Bad::new(field, format!("{field} {n} is not 0 to {}: leave it to the broker", u32::MAX))),
        other => Err(wrong_type(field, other, "nothing, the broker counts it")),
    }
}

fn bounded(field: &'static str, value: ValueRef<'_>, max: i64) -> Result<Option<i64>, Bad> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(n) if (1..=max).contains(&n) => Ok(Some(n)),
        ValueRef::Integer(n) => Err(Bad::new(field, format!("{field} {n} is not 1 to {max}"))),
        other => Err(wrong_type(field, other, "a whole number or NULL")),
    }
}

fn short_text(field: &'static str, value: ValueRef<'_>, bytes_max: usize) -> Result<(), Bad> {
    match value {
        ValueRef::Null => Ok(()),
        ValueRef::Text(bytes) if bytes.len() <= bytes_max => Ok(()),
        ValueRef::Text(bytes) => {
            Err(Bad::new(field, format!("{field} has {} bytes, at most {bytes_max} are allowed", bytes.len())))
        }
        other => Err(wrong_type(field, other, "TEXT or NULL")),
    }
}

/// `text` cut to at most `bytes_max` bytes, at a character's end.
pub(super) fn clipped(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use laneway_protocol::Payload;

    fn judge() -> Judge {
        let lane = |name| LaneName::new(name).unwrap();
        Judge::new(Rules {
            lanes: vec![lane("high"), lane("normal")],
            default_lane: lane("normal"),
            kind_lanes: std::iter::once((Kind::new("alarm").unwrap(), lane("high"))).collect(),
            payload_bytes_max: 100,
            full_durability: true,
        })
    }

    fn task(change: impl FnOnce(&mut NewTask)) -> Result<QueueKey, Bad> {
        let mut task = NewTask::new(Kind::new("k").unwrap(), None);
        change(&mut task);
        judge().task(&task)
    }

    #[test]
    fn a_null_lane_is_the_default_of_the_kind() {
        // NULL is resolved by the kind's own default first, then by the broker's.
        assert_eq!(task(|_| ()).unwrap().lane.as_str(), "normal");
        assert_eq!(task(|t| t.kind = Kind::new("alarm").unwrap()).unwrap().lane.as_str(), "high");
    }

    #[test]
    fn a_bad_value_is_named_with_its_bound_and_the_fix() {
        // Each text alone must be enough to mend the insert.
        let reason = |change: fn(&mut NewTask)| task(change).unwrap_err().reason;
        assert_eq!(
            reason(|t| t.run_at = Some(1_700_000_000)),
            "run_at 1700000000 looks like seconds: use milliseconds, 1700000000000"
        );
        assert!(reason(|t| t.run_at = Some(1_700_000_000_000_000)).contains("microseconds"));
        assert_eq!(reason(|t| t.run_at = Some(-5)), "run_at -5 is negative: use Unix milliseconds");
        assert_eq!(reason(|t| t.max_attempts = Some(0)), "max_attempts 0 is not 1 to 1000000");
        assert_eq!(
            reason(|t| t.lane = Some(LaneName::new("hihg").unwrap())),
            "lane 'hihg' is not configured: use one of high, normal, or add it to the settings"
        );
        assert!(reason(|t| t.payload = Some(Payload::bin(vec![0; 101]))).contains("101 bytes, at most 100"));
        assert!(reason(|t| t.payload = Some(Payload { format: Format::Json, bytes: vec![0xff] })).contains("UTF-8"));
        assert!(reason(|t| t.unique_key = Some("k".repeat(513))).contains("513 bytes, at most 512"));
    }

    #[test]
    fn cells_of_a_wrong_type_are_told_apart() {
        // What SQLite lets an app put into any column.
        let kind = ValueRef::Text(b"k");
        let reason = |kind, lane| judge().key(kind, lane).unwrap_err().reason;
        assert_eq!(reason(ValueRef::Blob(b"k"), ValueRef::Null), "kind is a BLOB of 1 bytes: insert TEXT");
        assert_eq!(reason(kind, ValueRef::Blob(b"")), "lane is a BLOB of 0 bytes: insert TEXT or NULL");
        assert!(reason(ValueRef::Text(b""), ValueRef::Null).contains("kind is empty"));
        assert_eq!(
            time("run_at", ValueRef::Text(b"tomorrow")).unwrap_err().reason,
            "run_at is the text 'tomorrow': insert Unix milliseconds as INTEGER"
        );
        assert_eq!(time("run_at", ValueRef::Real(1.7e12 + 0.5)).unwrap(), Some(UnixMillis(1_700_000_000_001)));
        assert!(time("run_at", ValueRef::Real(f64::INFINITY)).is_err());
    }

    #[test]
    fn a_lane_of_earlier_settings_keeps_its_rows_and_takes_no_submits() {
        // Its backlog must survive, while a client that still names it hears so.
        let mut judge = judge();
        judge.know("low".into());
        assert!(judge.key(ValueRef::Text(b"k"), ValueRef::Text(b"low")).is_ok());
        let mut task = NewTask::new(Kind::new("k").unwrap(), None);
        task.lane = Some(LaneName::new("low").unwrap());
        assert_eq!(judge.task(&task).unwrap_err().field, "lane");
    }
}
