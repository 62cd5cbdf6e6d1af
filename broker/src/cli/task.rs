//! `laneway task`: look at tasks, wait for them, cancel them, put dead ones back, move and delete them.

use std::time::Duration;

use clap::{Args, Subcommand};
use laneway_protocol::message::{Change, FailureRow, Filter, StatusRows, TaskRow};
use laneway_protocol::{Kind, LaneName, TaskId, TaskState};
use serde_json::json;

use super::change::{self, BatchArgs, WhichArgs};
use super::output::{Table, cut, or_dash};
use super::remote::Remote;
use super::{Common, Output, offline, output, submit, wait, when};
use crate::error::Error;

/// Rows that one question asks for, at most.
const LIST_ROWS_MAX: u32 = 512;

/// Look at tasks, wait for them, retry, cancel, move or delete them
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  laneway task list --state dead\n  laneway task show 12")]
pub(super) enum TaskCommand {
    List(ListArgs),
    Show(ShowArgs),
    Explain(ExplainArgs),
    Wait(WaitArgs),
    /// Queue dead or cancelled tasks again, their attempts and losses at zero
    ///
    /// By filter only dead ones are, unless --state says otherwise.
    #[command(
        after_help = "Examples:\n  laneway task retry 12 13\n  laneway task retry --kind resize --error 'no route' --dry-run"
    )]
    Retry(WhichArgs),
    /// Cancel tasks: queued ones end at once, running ones are asked to stop
    #[command(
        after_help = "Examples:\n  laneway task cancel 12 13\n  laneway task cancel --kind report --state queued"
    )]
    Cancel(WhichArgs),
    /// Delete ended tasks: their rows and what is known of their failures
    #[command(after_help = "Examples:\n  laneway task purge 12 13\n  laneway task purge --state dead --older-than 7d")]
    Purge(WhichArgs),
    /// Put tasks that do not run into another lane; they keep their place by time, their attempts and losses
    #[command(
        after_help = "Examples:\n  laneway task move 12 13 --to low\n  laneway task move --lane high --kind report --to low"
    )]
    Move(MoveArgs),
    /// Let queued tasks run at once that wait for a later time, a retry or a snooze among them
    #[command(
        after_help = "Examples:\n  laneway task run-now 12 13\n  laneway task run-now --kind mail --error timeout"
    )]
    RunNow(WhichArgs),
    /// Show how far a batch is that one of the commands above has begun, or stop it
    #[command(after_help = "Example:\n  laneway task batch 9000001 --stop")]
    Batch(BatchArgs),
}

/// List tasks, newest first
///
/// Works on the database file when no broker answers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway task list --state dead --limit 20
  laneway task list --group 7 --state dead
  laneway task list --kind resize --all -o json | jq -r .error")]
pub(super) struct ListArgs {
    /// Only in this state: waiting, queued, running, done, dead or cancelled
    #[arg(long, value_parser = state)]
    state: Option<TaskState>,

    /// Only of this kind
    #[arg(long)]
    kind: Option<String>,

    /// Only in this lane
    #[arg(long, value_parser = submit::lane)]
    lane: Option<LaneName>,

    /// Only of this group, by its number
    #[arg(long, value_name = "GROUP")]
    group: Option<u64>,

    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Only ids below this one
    #[arg(long, value_name = "ID")]
    before: Option<TaskId>,

    /// All of them, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Say why tasks are not running, or who runs them
///
/// How many of its lane are due before it (counted up to 10,000, those that are kept back among them), what is paused, when it is due
/// or tried again after which failure, when it expires, that no connected worker offers its kind and what they offer, who runs it since
/// when and for how long it may, which live task has its key, or for which tasks it waits.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway task explain 12")]
pub(super) struct ExplainArgs {
    /// Ids of tasks
    #[arg(required = true, value_name = "ID")]
    tasks: Vec<TaskId>,
}

/// Show all there is to know about tasks: payload, result, failures, and why they are where they are
///
/// Works on the database file when no broker answers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway task show 12 -o json")]
pub(super) struct ShowArgs {
    #[arg(required = true, num_args = 1..=16, value_name = "ID")]
    tasks: Vec<TaskId>,
}

/// Wait until tasks have ended and print their results as they come, showing progress
///
/// Of one task the result alone is printed, of several a line for each. Fails when one of them is dead or cancelled. Where progress is
/// missing, because the broker was restarted or more was said than it keeps, that is told. Several may wait for the same task.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway task wait 12
  laneway task wait 12 13 14 -o json
  laneway task wait --kind report --unique report-2030-01
  laneway task wait 12 --limit 5m --abandon")]
pub(super) struct WaitArgs {
    /// Ids of tasks; instead of them, --kind and --unique
    #[arg(num_args = 1..=512, value_name = "ID", required_unless_present = "kind")]
    tasks: Vec<TaskId>,

    /// The newest task of this kind that has the key of --unique
    #[arg(long, value_parser = submit::kind, requires = "unique", conflicts_with = "tasks")]
    kind: Option<Kind>,

    /// The unique key of the task, beside --kind
    #[arg(long, visible_alias = "unique-key", value_name = "KEY", requires = "kind")]
    unique: Option<String>,

    /// No longer than this: 30, 500ms, 5m
    #[arg(long, value_name = "TIME", value_parser = when::duration)]
    limit: Option<Duration>,

    /// Cancel the tasks when nobody waits for them any more: this command was ended, or waited for long enough, and nobody comes
    /// back within the broker's abandon_grace_ms (5 s)
    #[arg(long)]
    abandon: bool,
}

#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// The lane to put them into, one of the broker's
    #[arg(long, value_name = "LANE", value_parser = submit::lane)]
    to: LaneName,
}

pub(super) fn state(word: &str) -> Result<TaskState, String> {
    let words: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
    TaskState::parse(word).ok_or_else(|| format!("must be one of {}", words.join(", ")))
}

pub(super) fn run(common: &Common, command: TaskCommand) -> Result<(), Error> {
    match command {
        TaskCommand::List(args) => list(common, args),
        TaskCommand::Show(args) => show(common, &args.tasks),
        TaskCommand::Explain(args) => explain(common, &args.tasks),
        TaskCommand::Wait(args) => wait(common, &args),
        TaskCommand::Retry(args) => change::run(common, Change::Requeue, None, args),
        TaskCommand::Cancel(args) => change::run(common, Change::Cancel, None, args),
        TaskCommand::Purge(args) => change::run(common, Change::Purge, None, args),
        TaskCommand::Move(MoveArgs { which, to }) => change::run(common, Change::Move, Some(&to), which),
        TaskCommand::RunNow(args) => change::run(common, Change::RunNow, None, args),
        TaskCommand::Batch(args) => change::batch(common, &args),
    }
}

fn list(common: &Common, args: ListArgs) -> Result<(), Error> {
    let mut pages = pages(common)?;
    let lane = args.lane.map(|lane| lane.to_string());
    let ListArgs { state, kind, group, before, limit, .. } = args;
    let mut filter = Filter { state, kind, lane, group, before, limit };
    let mut left = if args.all { u32::MAX } else { limit };
    let mut is_first = true;
    loop {
        filter.limit = left.min(LIST_ROWS_MAX);
        let page = pages(&filter)?;
        // A page at a time, so that a million rows need no memory.
        match common.output {
            Output::Json => page.rows.iter().try_for_each(|row| output::json(&output::task_json(row)))?,
            Output::Table => print_list(&page.rows, is_first)?,
        }
        is_first = false;
        // A page can end early: rows are wide, or a filter passed over many.
        left = left.saturating_sub(u32::try_from(page.rows.len()).unwrap_or(u32::MAX));
        match page.next {
            Some(next) if left > 0 => filter.before = Some(next),
            next => {
                if let Some(next) = next {
                    output::aside(
                        common.output,
                        &format!("more with --before {next}, or --all"),
                        &json!({ "next": next }),
                    );
                }
                return Ok(());
            }
        }
    }
}

type Pages = Box<dyn FnMut(&Filter) -> Result<StatusRows, Error>>;

/// Asks the broker, or the file when nobody answers.
fn pages(common: &Common) -> Result<Pages, Error> {
    if let Some(remote) = Remote::reach(common)? {
        return Ok(Box::new(move |filter| remote.list(filter)));
    }
    let file = offline::open(common)?;
    Ok(Box::new(move |filter| file.list(filter)))
}

fn print_list(rows: &[TaskRow], is_first: bool) -> Result<(), Error> {
    let header = ["ID", "KIND", "LANE", "STATE", "ATTEMPTS", "CREATED", "PROGRESS", "WORKER", "ERROR"];
    let mut table = if is_first { Table::new(&header) } else { Table::pairs() };
    for row in rows {
        table.row([
            row.id.to_string(),
            row.kind.clone(),
            or_dash(row.lane.as_deref()),
            row.state.to_string(),
            row.attempts.to_string(),
            when::show(row.created_at),
            progress(row),
            or_dash(row.worker.as_deref().map(|worker| cut(worker, 20))),
            or_dash(row.error.as_deref().map(|error| cut(error, 60))),
        ]);
    }
    table.print()
}

fn progress(row: &TaskRow) -> String {
    match (row.progress_done, row.progress_total) {
        (Some(done), Some(total)) if total > 0 => format!("{}%", done.saturating_mul(100) / total),
        (Some(done), _) => done.to_string(),
        _ => "-".into(),
    }
}

fn show(common: &Common, tasks: &[TaskId]) -> Result<(), Error> {
    let found = match Remote::reach(common)? {
        Some(remote) => remote.show(tasks)?,
        None => offline::open(common)?.show(tasks)?,
    };
    for (n, row) in found.rows.iter().enumerate() {
        match common.output {
            Output::Json => output::json(&output::task_json(row))?,
            Output::Table => {
                if n > 0 {
                    output::line("")?;
                }
                print_one(row)?;
            }
        }
    }
    missing(&found.not_found)
}

fn explain(common: &Common, tasks: &[TaskId]) -> Result<(), Error> {
    let remote = Remote::reach(common)?;
    let file = if remote.is_none() { Some(offline::open(common)?) } else { None };
    let mut not_found = Vec::new();
    // One by one: the place in its lane is counted for a task that is asked about alone.
    for task in tasks {
        let found = match (&remote, &file) {
            (Some(remote), _) => remote.show(&[*task])?,
            (None, Some(file)) => file.show(&[*task])?,
            (None, None) => unreachable!("one of them was opened"),
        };
        not_found.extend(found.not_found);
        for row in found.rows {
            let why = row.explain.unwrap_or_default();
            match common.output {
                Output::Json => {
                    output::json(&json!({
                        "task": row.id, "state": row.state, "explain": why, "ahead": row.ahead, "twin": row.twin,
                        "waits_for": row.waits_for, "waits_for_n": row.waits_for_n, "run_at": row.run_at,
                        "expires_at": row.expires_at, "attempts": row.attempts, "error": row.error,
                    }))?;
                }
                Output::Table => output::line(&format!("task {} is {}: {why}", row.id, row.state))?,
            }
        }
    }
    missing(&not_found)
}

fn wait(common: &Common, args: &WaitArgs) -> Result<(), Error> {
    let remote = Remote::expect(common)?.abandon(args.abandon);
    let found = match (&args.kind, &args.unique) {
        (Some(kind), Some(key)) => vec![remote.find(kind, key)?],
        _ => args.tasks.clone(),
    };
    match found[..] {
        [task] => wait::one(&remote, task, args.limit, &wait::named(task), common.output),
        _ => wait::many(&remote, &found, args.limit, common.output),
    }
}

pub(super) fn missing(tasks: &[TaskId]) -> Result<(), Error> {
    if tasks.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = tasks.iter().map(TaskId::to_string).collect();
    Err(Error::NotFound(format!("no task {}", ids.join(", "))))
}

fn print_one(row: &TaskRow) -> Result<(), Error> {
    let mut table = Table::pairs();
    table.pair("id", &row.id);
    table.pair("kind", &row.kind);
    table.pair("state", &row.state);
    if let Some(explain) = &row.explain {
        table.pair("why", &explain);
    }
    table.pair("lane", &or_dash(row.lane.as_deref()));
    let counts = [(row.runs, "run", "runs"), (row.losses, "loss", "losses"), (row.releases, "release", "releases")]
        .map(|(n, one, many)| output::count(n.into(), one, many))
        .join(", ");
    let max = row.max_attempts.map_or_else(String::new, |max| format!(" of {max}"));
    table.pair("attempts", &format!("{}{max} ({counts})", row.attempts));
    let times = [
        ("created", Some(row.created_at)),
        ("run at", row.run_at),
        ("expires", row.expires_at),
        ("started", row.started_at),
        ("finished", row.finished_at),
    ];
    for (name, at) in times {
        if let Some(at) = at {
            table.pair(name, &when::show(at));
        }
    }
    let texts = [
        ("timeout", row.timeout_ms.map(when::span)),
        ("unique key", row.unique_key.clone()),
        ("fair key", row.fair_key.clone()),
        ("trace", row.trace.clone()),
        ("group", row.group.map(|group| group.to_string())),
        ("worker", row.worker.clone()),
        ("progress", (progress(row) != "-").then(|| progress(row))),
        ("note", row.progress_note.clone()),
        ("cancel", row.cancel_requested.then(|| "requested".into())),
        ("payload", row.payload.as_ref().map(output::payload_text)),
        ("result", row.result.as_ref().map(output::payload_text)),
        ("error", row.error.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            table.pair(name, &text);
        }
    }
    table.print()?;
    print_failures(&row.failures)
}

fn print_failures(failures: &[FailureRow]) -> Result<(), Error> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["RUN", "CAUSE", "AT", "WORKER", "ERROR"]);
    for failure in failures {
        table.row([
            failure.run.to_string(),
            failure.cause.clone(),
            when::show(failure.failed_at),
            or_dash(failure.worker.as_deref()),
            failure.error.clone(),
        ]);
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_words_of_the_table() {
        // Proves that a wrong state is told with the right ones.
        assert_eq!(state("dead"), Ok(TaskState::Dead));
        assert!(state("failed").unwrap_err().contains("waiting, queued, running, done, dead, cancelled"));
    }
}
