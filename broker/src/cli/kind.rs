//! `laneway kind`, and `laneway lane set`: how much of a kind or a lane may run, and what its tasks get by default. All of it
//! is asked of the running broker, which keeps it.

use std::str::FromStr;

use clap::{Args, Subcommand};
use laneway_protocol::limits::{KEPT_AGE_MS_MAX, KEPT_COUNT_MAX};
use laneway_protocol::message::{KindState, KindValues, Kinds, LaneValues, SetKind, SetLane};
use laneway_protocol::{Kind, LaneName};

use super::output::{Table, or_dash};
use super::remote::Remote;
use super::{Common, Output, output, submit};
use crate::error::Error;

/// List kinds, pause them, and set their caps, rates and defaults
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  laneway kind list\n  laneway kind set mail rate=10/s cap=4\n  laneway kind pause mail"
)]
pub(super) enum KindCommand {
    /// List the kinds with what waits and runs, their bounds and defaults, and where each value comes from
    #[command(after_help = "Examples:\n  laneway kind list\n  laneway kind list -o json | jq 'select(.paused).kind'")]
    List,
    /// Stop handing out tasks of these kinds; what runs goes on
    #[command(after_help = "Example:\n  laneway kind pause mail")]
    Pause(KindArgs),
    /// Hand out tasks of these kinds again
    #[command(after_help = "Example:\n  laneway kind resume mail")]
    Resume(KindArgs),
    /// Set bounds and defaults of a kind, over those of the settings; kept until a reset, also over restarts
    ///
    /// cap: tasks that run at a time. rate: starts in a second, minute, hour or day (10/s, 90/m, 1/h, 5/d). rate_burst: starts
    /// at once after a quiet time. lane, max_attempts, timeout_ms, backoff_base_ms, backoff_max_ms: what its tasks get where
    /// their rows do not say, from their next run on. done_age_ms, done_count_max, and the same of cancelled_ and dead_: how long
    /// after their end, and how many, of its ended tasks are kept. `none` takes any of these bounds away.
    #[command(after_help = "\
Examples:
  laneway kind set mail cap=4
  laneway kind set mail rate=10/s rate_burst=20 timeout_ms=60000
  laneway kind set mail done_age_ms=3600000 dead_count_max=1000
  laneway kind set mail cap=none rate=none dead_age_ms=none")]
    Set(SetKindArgs),
    /// Go back to what the settings say of these kinds; a pause stays
    #[command(after_help = "Example:\n  laneway kind reset mail")]
    Reset(KindArgs),
}

#[derive(Debug, Args)]
pub(super) struct KindArgs {
    #[arg(required = true, value_name = "KIND", value_parser = submit::kind)]
    kinds: Vec<Kind>,
}

#[derive(Debug, Args)]
pub(super) struct SetKindArgs {
    #[arg(value_name = "KIND", value_parser = submit::kind)]
    kind: Kind,
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct SetLaneArgs {
    #[arg(value_name = "LANE", value_parser = submit::lane)]
    lane: LaneName,
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
}

pub(super) fn run(common: &Common, command: KindCommand) -> Result<(), Error> {
    let kinds = match command {
        KindCommand::List => Kinds::default(),
        KindCommand::Pause(args) => Kinds { pause: args.kinds, ..Kinds::default() },
        KindCommand::Resume(args) => Kinds { resume: args.kinds, ..Kinds::default() },
        KindCommand::Reset(args) => Kinds { reset: args.kinds, ..Kinds::default() },
        KindCommand::Set(args) => {
            let values = kind_values(&args.values)?;
            Kinds { set: vec![SetKind { kind: args.kind, values }], ..Kinds::default() }
        }
    };
    print(common, &Remote::expect(common)?.kinds(kinds)?)
}

fn print(common: &Common, rows: &[KindState]) -> Result<(), Error> {
    if common.output == Output::Json {
        return rows.iter().try_for_each(output::json);
    }
    let mut table = Table::new(&[
        "KIND",
        "STATE",
        "QUEUED",
        "RUNNING",
        "CAP",
        "RATE",
        "WORKERS",
        "LANE",
        "ATTEMPTS",
        "TIMEOUT MS",
        "SET",
    ]);
    for row in rows {
        table.row([
            row.kind.to_string(),
            if row.paused { "paused" } else { "open" }.into(),
            row.queued.to_string(),
            row.running.to_string(),
            or_dash(row.cap),
            rate(row.rate, row.rate_burst),
            row.workers.to_string(),
            row.lane.to_string(),
            row.max_attempts.to_string(),
            row.timeout_ms.to_string(),
            origins(&row.set, &row.settings),
        ]);
    }
    table.print()
}

/// `10/s`, `10/s burst 20`, or a dash.
pub(super) fn rate(rate: Option<laneway_protocol::Rate>, burst: Option<u32>) -> String {
    match (rate, burst) {
        (Some(rate), Some(burst)) => format!("{rate} burst {burst}"),
        (rate, _) => or_dash(rate),
    }
}

/// Where values come from that are not the defaults of all.
pub(super) fn origins(set: &[String], settings: &[String]) -> String {
    match (set, settings) {
        ([], []) => "-".into(),
        (set, []) => set.join(","),
        ([], settings) => format!("settings: {}", settings.join(",")),
        (set, settings) => format!("{}; settings: {}", set.join(","), settings.join(",")),
    }
}

pub(super) fn set_lane(args: SetLaneArgs) -> Result<SetLane, Error> {
    let mut values = LaneValues::default();
    for (name, value) in &args.values {
        match name.as_str() {
            "cap" => values.cap = Some(bound(name, value)?),
            "rate" => values.rate = Some(read(name, value)?),
            "rate_burst" => values.rate_burst = Some(read(name, value)?),
            "share" => values.share = Some(bound(name, value.trim_end_matches('%'))?),
            _ => return Err(unknown(name, "cap, rate, rate_burst or share")),
        }
    }
    Ok(SetLane { lane: args.lane, values })
}

fn kind_values(pairs: &[(String, String)]) -> Result<KindValues, Error> {
    let mut values = KindValues::default();
    for (name, value) in pairs {
        match name.as_str() {
            "cap" => values.cap = Some(bound(name, value)?),
            "rate" => values.rate = Some(read(name, value)?),
            "rate_burst" => values.rate_burst = Some(read(name, value)?),
            "lane" => values.lane = Some(read(name, value)?),
            "max_attempts" => values.max_attempts = Some(read(name, value)?),
            "timeout_ms" => values.timeout_ms = Some(read(name, value)?),
            "backoff_base_ms" => values.backoff_base_ms = Some(read(name, value)?),
            "backoff_max_ms" => values.backoff_max_ms = Some(read(name, value)?),
            "done_age_ms" => values.done_age_ms = Some(kept(name, value, KEPT_AGE_MS_MAX)?),
            "done_count_max" => values.done_count_max = Some(kept(name, value, KEPT_COUNT_MAX)?),
            "cancelled_age_ms" => values.cancelled_age_ms = Some(kept(name, value, KEPT_AGE_MS_MAX)?),
            "cancelled_count_max" => values.cancelled_count_max = Some(kept(name, value, KEPT_COUNT_MAX)?),
            "dead_age_ms" => values.dead_age_ms = Some(kept(name, value, KEPT_AGE_MS_MAX)?),
            "dead_count_max" => values.dead_count_max = Some(kept(name, value, KEPT_COUNT_MAX)?),
            _ => {
                let known = "cap, rate, rate_burst, lane, max_attempts, timeout_ms, backoff_base_ms, backoff_max_ms, or \
                             done_age_ms, done_count_max and the same of cancelled_ and dead_";
                return Err(unknown(name, known));
            }
        }
    }
    Ok(values)
}

pub(super) fn unknown(name: &str, known: &str) -> Error {
    Error::Usage(format!("'{name}' cannot be set: name {known}"))
}

/// On the wire 0 is no bound.
pub(super) fn bound(name: &str, value: &str) -> Result<u32, Error> {
    if value == "none" { Ok(0) } else { read(name, value) }
}

/// On the wire the most is as good as no bound.
fn kept(name: &str, value: &str, max: u64) -> Result<u64, Error> {
    if value == "none" { Ok(max) } else { read(name, value) }
}

pub(super) fn read<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|error: T::Err| Error::Usage(format!("{name}={value}: {error}")))
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write it as NAME=VALUE, such as cap=4".into()),
    }
}
