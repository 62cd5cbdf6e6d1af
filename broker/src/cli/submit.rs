//! `laneway submit`: one task, and with `--wait` its result, as if the program had run here.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Zoned;
use laneway_protocol::message::{After, NewTask, OnConflict, Stored};
use laneway_protocol::{FairKey, Kind, LaneName, Payload, TaskId, TraceContext};

use super::remote::{self, Remote};
use super::{Common, Output, offline, output, wait, when};
use crate::error::Error;

/// Submit a task
///
/// Prints the task's id; with --wait its result. Works on the database file when no broker answers: the task then waits
/// there for the next broker.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway submit resize '{\"file\": \"a.png\"}'
  laneway submit resize '{\"file\": \"b.png\"}' --fair-key acme
  laneway submit report --lane low --run-at +1h --unique report-2030-01
  laneway submit import - --wait=60
  laneway submit search '{\"q\": \"cats\"}' --wait --abandon
  laneway submit search '{\"q\": \"cats\"}' --unique-payload --unique-for 10m --wait
  laneway submit sync '{\"page\": 7}' --unique feed --on-conflict replace --run-at +1m
  laneway submit publish --after 41 --after 42 --after-anyway 43
  laneway submit mail '{\"to\": \"x@example.org\"}' --max-attempts 5 --expires-at 2030-01-31T18:00")]
pub(super) struct SubmitArgs {
    /// The name that picks the handler
    #[arg(value_parser = kind)]
    kind: Kind,

    /// JSON, or - to read it from standard input; left out, the task has none
    payload: Option<String>,

    /// Take the payload as bytes, not as JSON
    #[arg(long, requires = "payload")]
    bin: bool,

    /// The lane to wait in [default: the kind's]
    #[arg(long, value_parser = lane)]
    lane: Option<LaneName>,

    /// Not before this: +5m, 2030-01-31T18:00, or Unix milliseconds
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    run_at: Option<i64>,

    /// Not to be started after this, written like --run-at
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    expires_at: Option<i64>,

    /// At most one live task of the kind has this key; a second submit gets the id of the first
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,

    /// Make the key out of the payload: of the same kind and payload there is one live task
    #[arg(long, conflicts_with = "unique")]
    unique_payload: bool,

    /// Keep the key taken for so long after the task is done (30, 500ms, 5m): a later submit gets its result
    #[arg(long, value_name = "TIME", value_parser = when::duration)]
    unique_for: Option<Duration>,

    /// What to do when the key is taken
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Conflict::Keep, hide_default_value = true)]
    on_conflict: Conflict,

    /// For whom it is: tasks of its lane with other keys take turns with it
    #[arg(long, value_name = "KEY", value_parser = super::fair_key::fair_key)]
    fair_key: Option<FairKey>,

    /// Attempts before it is dead, at least 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,

    /// The longest run, in milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,

    /// The trace it belongs to: a W3C traceparent, and behind a space its tracestate [default: TRACEPARENT and TRACESTATE of the
    /// environment, where they are valid]
    #[arg(long, value_name = "TRACEPARENT", value_parser = trace)]
    trace: Option<TraceContext>,

    /// Not before this task has ended; cancelled if that is dead or cancelled. As often as needed
    #[arg(long, value_name = "ID")]
    after: Vec<TaskId>,

    /// Not before this task has ended, however it ends
    #[arg(long, value_name = "ID")]
    after_anyway: Vec<TaskId>,

    /// Join this group
    #[arg(long, value_name = "ID")]
    group: Option<u64>,

    /// Wait for the result and print it, showing progress; with =TIME no longer than that (30, 500ms, 5m)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = when::duration)]
    #[expect(clippy::option_option, reason = "absent, for ever, or for this long")]
    wait: Option<Option<Duration>>,

    /// Cancel the task when nobody waits for it any more: this command was ended, or waited for long enough, and nobody comes
    /// back within the broker's abandon_grace_ms (5 s). A task that was there already, with the same unique key, is others' and goes on
    #[arg(long, requires = "wait")]
    abandon: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Conflict {
    /// The task that has it stands for this one [default]
    Keep,
    /// The same; while it is queued it gets this payload and --run-at
    Replace,
    /// Refuse this one
    Reject,
}

impl From<Conflict> for OnConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Keep => Self::Keep,
            Conflict::Replace => Self::Replace,
            Conflict::Reject => Self::Reject,
        }
    }
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    Kind::new(text).map_err(|error| error.to_string())
}

pub(super) fn lane(text: &str) -> Result<LaneName, String> {
    LaneName::new(text).map_err(|error| error.to_string())
}

fn moment(text: &str) -> Result<i64, String> {
    when::parse(text, &Zoned::now())
}

fn trace(text: &str) -> Result<TraceContext, String> {
    let wanted =
        "must be a traceparent, as in 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, all in small letters";
    TraceContext::parse(text).ok_or_else(|| wanted.into())
}

/// What a program that traces has left for those it starts. What is not valid is none, as the standard has it.
pub(super) fn surrounding_trace() -> Option<TraceContext> {
    let state = std::env::var("TRACESTATE").unwrap_or_default();
    TraceContext::from_headers(&std::env::var("TRACEPARENT").ok()?, &state)
}

pub(super) fn run(common: &Common, mut args: SubmitArgs) -> Result<(), Error> {
    let (wait, abandon, output) = (args.wait, args.abandon, common.output);
    args.trace = args.trace.or_else(surrounding_trace);
    let task = new_task(args)?;
    let Some(remote) = Remote::reach(common)? else {
        let stored = offline::open(common)?.submit(&task)?;
        print_id(stored, output)?;
        return match wait {
            None => Ok(()),
            Some(_) => Err(Error::TimedOut("no broker runs the task now, so its result is not waited for".into())),
        };
    };
    if let Some(endpoint) = remote::fallback(common) {
        let text = format!("submitting to the broker at {endpoint}; name a database or --endpoint for another");
        output::remark(output, &text);
    }
    let Some(limit) = wait else { return print_id(remote.submit(task)?, output) };
    let remote = remote.abandon(abandon);
    let stored = remote.submit_awaited(task)?;
    let others = if abandon && !stored.new { ", and goes on without this command" } else { "" };
    output::aside(output, &format!("task {}{}{others}", stored.task, existing(stored)), &stored);
    wait::one(&remote, stored.task, limit, &output::to_object(&stored), output)
}

fn new_task(args: SubmitArgs) -> Result<NewTask, Error> {
    let payload = args.payload.map(|payload| read_payload(payload, args.bin)).transpose()?;
    let mut task = NewTask::new(args.kind, payload);
    task.lane = args.lane;
    task.run_at = args.run_at;
    task.unique_key = args.unique;
    task.fair_key = args.fair_key;
    task.unique_by_payload = args.unique_payload;
    task.unique_for_ms = args.unique_for.map(|window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    task.on_conflict = args.on_conflict.into();
    task.max_attempts = args.max_attempts;
    task.timeout_ms = args.timeout_ms;
    task.expires_at = args.expires_at;
    task.trace = args.trace.map(|trace| trace.to_string());
    let after = |anyway| move |task| After { task: Some(task), anyway, ..After::default() };
    task.after = args.after.into_iter().map(after(false)).collect();
    task.after.extend(args.after_anyway.into_iter().map(after(true)));
    task.group = args.group;
    Ok(task)
}

pub(super) fn read_payload(payload: String, bin: bool) -> Result<Payload, Error> {
    let bytes = if payload == "-" { standard_input("payload")? } else { payload.into_bytes() };
    if bin {
        return Ok(Payload::bin(bytes));
    }
    // A trailing line end from a pipe is no part of the payload.
    let text = String::from_utf8(bytes).map_err(|_| Error::Usage("the payload is not UTF-8; use --bin".into()))?;
    let text = text.trim();
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(Payload::json(text)),
        Err(error) => {
            let shown = output::cut(&output::clean(text), 60);
            Err(Error::Usage(format!(
                "the payload {shown} is not JSON: {error}; quote a text as '\"{shown}\"', or use --bin"
            )))
        }
    }
}

/// All of it; `what` it is to be tells somebody who sits at the terminal.
pub(super) fn standard_input(what: &str) -> Result<Vec<u8>, Error> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        output::note(&format!("reading the {what} from the terminal; end it with Ctrl-D"));
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map_err(|error| Error::other("read standard input", error))?;
    Ok(bytes)
}

fn existing(stored: Stored) -> &'static str {
    match stored {
        Stored { new: true, .. } => "",
        Stored { replaced: true, .. } => " was replaced",
        Stored { .. } => " existed already",
    }
}

pub(super) fn print_id(stored: Stored, output: Output) -> Result<(), Error> {
    if output == Output::Json {
        return output::json(&stored);
    }
    if stored.replaced {
        output::note("a queued task had this key; it has the new payload now");
    } else if !stored.new {
        output::note("a task has this key already");
    }
    output::line(&stored.task.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_payload_is_json_unless_told_otherwise() {
        // Proves that a slip in quoting is caught before a task is made of it.
        assert_eq!(read_payload(" {\"a\": 1}\n".into(), false).unwrap(), Payload::json("{\"a\": 1}"));
        assert_eq!(read_payload("hello".into(), true).unwrap(), Payload::bin(*b"hello"));
        let error = read_payload("hello".into(), false).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("'\"hello\"'"), "{error}");
    }

    #[test]
    fn a_trace_that_is_none_is_refused_with_an_example() {
        // Proves that a slip in a traceparent is caught before a task carries it for nothing.
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace(&format!("{parent} rojo=1")).unwrap().tracestate(), "rojo=1");
        assert!(trace(&parent.to_uppercase()).unwrap_err().contains("all in small letters"));
    }
}
