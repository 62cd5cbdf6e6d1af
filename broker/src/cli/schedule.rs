//! `laneway schedule`: tasks that come again and again. All need a broker that answers; without one, SQL does the same
//! (`docs/schedules.md`).

use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use laneway_core::UnixMillis;
use laneway_protocol::message::{CatchUp, NewSchedule, ScheduleRow, ScheduleRows};
use laneway_protocol::{Kind, LaneName};
use serde_json::{Value, json};

use super::output::{Table, or_dash};
use super::remote::Remote;
use super::{Common, Output, output, submit, when};
use crate::error::Error;
use crate::schedule::Rhythm;

/// How long a new schedule is looked at until the broker has planned it.
const PLANNED_WITHIN: Duration = Duration::from_secs(5);
/// Times to come that `show` tells.
const SHOWN_SLOTS: usize = 5;

/// Make tasks again and again, by a cron expression
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  laneway schedule add nightly '0 3 * * *' cleanup --tz Europe/Berlin
  laneway schedule list")]
pub(super) enum ScheduleCommand {
    /// List the schedules by name, with the next and the last time
    #[command(after_help = "Example:\n  laneway schedule list -o json | jq 'select(.error)'")]
    List,
    /// Add a schedule, or change the one that has its name
    #[command(after_help = "\
Examples:
  laneway schedule add nightly '0 3 * * *' cleanup
  laneway schedule add report '30 7 * * MON-FRI' report '{\"to\": \"ann\"}' --tz Europe/Berlin --unique-key report
  laneway schedule add tick '*/10 * * * * *' tick --catch-up all --catch-up-max 6")]
    Add(AddArgs),
    /// Show one schedule with the next five times
    #[command(after_help = "Example:\n  laneway schedule show nightly")]
    Show(NameArgs),
    /// Make no more tasks of these schedules until they are resumed
    #[command(after_help = "Example:\n  laneway schedule pause nightly")]
    Pause(NamesArgs),
    /// Go on from now; what was paused is not made up for
    #[command(after_help = "Example:\n  laneway schedule resume nightly")]
    Resume(NamesArgs),
    /// Delete schedules; their tasks stay
    #[command(after_help = "Example:\n  laneway schedule remove nightly")]
    Remove(NamesArgs),
    /// Submit the task of a schedule now, beside its times
    #[command(after_help = "Example:\n  laneway schedule run nightly")]
    Run(NameArgs),
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct NamesArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// 1 to 128 characters
    name: String,

    /// Minute, hour, day of the month, month, day of the week; the second may stand before them
    cron: String,

    /// The name that picks the handler
    #[arg(value_parser = submit::kind)]
    kind: Kind,

    /// JSON, or - to read it from standard input; left out, the tasks have none
    payload: Option<String>,

    /// Take the payload as bytes, not as JSON
    #[arg(long, requires = "payload")]
    bin: bool,

    /// The time zone of the expression, such as Europe/Berlin [default: UTC]
    #[arg(long = "tz", value_name = "ZONE")]
    time_zone: Option<String>,

    /// The lane to wait in [default: the kind's]
    #[arg(long, value_parser = submit::lane)]
    lane: Option<LaneName>,

    /// Make no task while one of the kind with this key is live
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,

    /// Attempts before a task is dead, at least 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,

    /// The longest run, in milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,

    /// What becomes of times that pass while no broker runs [default: one]
    #[arg(long, value_name = "POLICY", value_enum)]
    catch_up: Option<Policy>,

    /// With --catch-up all: at most so many [default: 100]
    #[arg(long, value_name = "N")]
    catch_up_max: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// Nothing, but for one of the last minute
    Skip,
    /// However many there were, one task
    One,
    /// A task for each of the newest
    All,
}

pub(super) fn run(common: &Common, command: ScheduleCommand) -> Result<(), Error> {
    let none = Vec::new;
    match command {
        ScheduleCommand::List => list(&Remote::expect(common)?.schedules()?, common.output),
        ScheduleCommand::Add(args) => {
            let (schedule, remote) = (new_schedule(args)?, Remote::expect(common)?);
            let row = remote.put_schedule(schedule)?;
            list(&[planned(&remote, row)?], common.output)
        }
        ScheduleCommand::Show(args) => show(&Remote::expect(common)?.schedule(&args.name)?, common.output),
        ScheduleCommand::Pause(args) => {
            changed(&Remote::expect(common)?.change_schedules(args.names, none(), none())?, common.output)
        }
        ScheduleCommand::Resume(args) => {
            changed(&Remote::expect(common)?.change_schedules(none(), args.names, none())?, common.output)
        }
        ScheduleCommand::Remove(args) => {
            changed(&Remote::expect(common)?.change_schedules(none(), none(), args.names)?, common.output)
        }
        ScheduleCommand::Run(args) => {
            submit::print_id(Remote::expect(common)?.run_schedule(&args.name)?, common.output)
        }
    }
}

/// A schedule that was just stored, with its next slot: the broker plans it at once, in a transaction of its own.
fn planned(remote: &Remote, mut row: ScheduleRow) -> Result<ScheduleRow, Error> {
    let started = Instant::now();
    while row.next_at.is_none() && row.error.is_none() && !row.paused && started.elapsed() < PLANNED_WITHIN {
        std::thread::sleep(Duration::from_millis(10));
        let now = remote.schedule(&row.name)?;
        (row.next_at, row.error) = (now.next_at, now.error);
    }
    Ok(row)
}

fn new_schedule(args: AddArgs) -> Result<NewSchedule, Error> {
    let payload = args.payload.map(|payload| submit::read_payload(payload, args.bin)).transpose()?;
    Ok(NewSchedule {
        time_zone: args.time_zone,
        lane: args.lane,
        unique_key: args.unique_key,
        max_attempts: args.max_attempts,
        timeout_ms: args.timeout_ms,
        catch_up: args.catch_up.map(|policy| match policy {
            Policy::Skip => CatchUp::Skip,
            Policy::One => CatchUp::One,
            Policy::All => CatchUp::All,
        }),
        catch_up_max: args.catch_up_max,
        ..NewSchedule::new(args.name, args.cron, args.kind, payload)
    })
}

/// Those that are there, and an error for those that are not.
fn changed(rows: &ScheduleRows, output: Output) -> Result<(), Error> {
    if !rows.schedules.is_empty() {
        list(&rows.schedules, output)?;
    }
    match rows.not_found.as_slice() {
        [] => Ok(()),
        names => Err(Error::NotFound(format!("no schedule '{}'", names.join("', '")))),
    }
}

fn list(rows: &[ScheduleRow], output: Output) -> Result<(), Error> {
    if output == Output::Json {
        return rows.iter().try_for_each(output::json);
    }
    let mut table = Table::new(&["NAME", "CRON", "ZONE", "KIND", "STATE", "NEXT", "LAST", "LAST TASK"]);
    for row in rows {
        let (next, last) = (row.next_at.filter(|_| !row.paused), row.last_at);
        table.row([
            row.name.clone(),
            row.cron.clone(),
            row.time_zone.clone(),
            row.kind.clone(),
            state(row),
            or_dash(next.map(|at| in_zone(at, &row.time_zone))),
            or_dash(last.map(|at| in_zone(at, &row.time_zone))),
            or_dash(row.last_task),
        ]);
    }
    table.print()
}

fn show(row: &ScheduleRow, output: Output) -> Result<(), Error> {
    let slots = slots(row);
    if output == Output::Json {
        let mut object = output::to_object(row);
        output::put_payload(&mut object, "payload", row.payload.as_ref());
        object.insert("slots".into(), json!(slots));
        return output::json(&Value::Object(object));
    }
    let mut table = Table::pairs();
    table.pair("name", &row.name);
    table.pair("cron", &row.cron);
    table.pair("time zone", &row.time_zone);
    table.pair("state", &state(row));
    table.pair("kind", &row.kind);
    table.pair("lane", &row.lane.as_deref().unwrap_or("the kind's"));
    table.pair("unique key", &or_dash(row.unique_key.as_ref()));
    table.pair(
        "catch up",
        &match (row.catch_up.as_str(), row.catch_up_max) {
            ("all", max) => format!("all, at most {}", max.unwrap_or(crate::schedule::CATCH_UP_DEFAULT)),
            (word, _) => word.to_owned(),
        },
    );
    table.pair("payload", &or_dash(row.payload.as_ref().map(output::payload_text)));
    table.pair("created", &when::show(row.created_at));
    table.pair("last", &or_dash(row.last_at.map(|at| in_zone(at, &row.time_zone))));
    table.pair("last task", &or_dash(row.last_task));
    for (n, slot) in slots.iter().enumerate() {
        table.pair(if n == 0 { "next" } else { "" }, &in_zone(*slot, &row.time_zone));
    }
    table.print()
}

fn state(row: &ScheduleRow) -> String {
    match &row.error {
        Some(error) => format!("error: {error}"),
        None if row.paused => "paused".into(),
        None => "live".into(),
    }
}

/// The times to come, the broker's own first; of one that is paused or wrong, none.
fn slots(row: &ScheduleRow) -> Vec<i64> {
    let Some(first) = row.next_at.filter(|_| !row.paused && row.error.is_none()) else { return Vec::new() };
    let Ok(rhythm) = Rhythm::parse(&row.cron, Some(&row.time_zone)) else { return vec![first] };
    let next = |slot: &i64| rhythm.next_after(UnixMillis(*slot)).map(|next| next.0);
    std::iter::successors(Some(first), next).take(SHOWN_SLOTS).collect()
}

/// As the clocks there show it, with the offset: on two days of the year an hour alone says too little.
fn in_zone(millis: i64, zone: &str) -> String {
    match (Timestamp::from_millisecond(millis), TimeZone::get(zone)) {
        (Ok(at), Ok(zone)) => at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        _ => when::show(millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cron: &str, zone: &str, next_at: i64) -> ScheduleRow {
        ScheduleRow {
            name: "s".into(),
            cron: cron.into(),
            time_zone: zone.into(),
            kind: "k".into(),
            lane: None,
            unique_key: None,
            max_attempts: None,
            timeout_ms: None,
            catch_up: "one".into(),
            catch_up_max: None,
            paused: false,
            created_at: 0,
            next_at: Some(next_at),
            last_at: None,
            last_task: None,
            error: None,
            payload: None,
        }
    }

    #[test]
    fn the_times_to_come_are_those_of_the_zone() {
        // Over the spring's change in Berlin: the broker's next one and four behind it, each with its offset.
        let nightly = row("30 2 * * *", "Europe/Berlin", 1_806_111_000_000);
        let shown: Vec<String> = slots(&nightly).iter().map(|slot| in_zone(*slot, "Europe/Berlin")).collect();
        assert_eq!(shown.len(), 5);
        assert_eq!(
            shown[..3],
            ["2027-03-27 02:30:00 +01:00", "2027-03-28 03:00:00 +02:00", "2027-03-29 02:30:00 +02:00"]
        );
        assert!(slots(&ScheduleRow { paused: true, ..nightly }).is_empty());
    }
}
