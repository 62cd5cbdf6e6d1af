//! `laneway group`: submit tasks that belong together, look at them, wait for them, cancel them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use laneway::{Ended, News};
use laneway_protocol::message::{GroupRow, NewGroup, NewTask, Stored};
use serde_json::{Value, json};

use super::output::{Table, or_dash};
use super::remote::Remote;
use super::submit::{standard_input, surrounding_trace};
use super::{Common, Output, offline, output, task_lines, wait, when};
use crate::error::Error;

/// Submit groups of tasks, look at them, wait for them, cancel them
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  laneway group submit parts.jsonl --last report --name nightly --wait
  laneway group show 7
  laneway group wait 7 --limit 5m
  laneway group cancel 7")]
pub(super) enum GroupCommand {
    Submit(Box<SubmitArgs>),
    /// Show where a group stands: its tasks by state
    #[command(after_help = "Example:\n  laneway group show 7 -o json | jq .done")]
    Show(OneGroup),
    Wait(WaitArgs),
    /// Cancel what of a group has not ended, its last task too
    #[command(after_help = "Example:\n  laneway group cancel 7")]
    Cancel(OneGroup),
}

/// Submit tasks as a group: all of them or none, in one commit
///
/// Reads one task from each line, a JSON object with its kind, its payload and whatever else it needs (lane, run_at, unique_key,
/// fair_key, max_attempts, timeout_ms, expires_at, after ...). Prints the group's number. Works on the database file when no broker
/// answers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway group submit parts.jsonl --last report --name nightly
  laneway group submit parts.jsonl --last '{\"kind\": \"sum\", \"lane\": \"high\"}' --wait=5m
  jq -c '.[] | {kind: \"resize\", payload: .}' photos.json | laneway group submit -")]
pub(super) struct SubmitArgs {
    /// The file with a task on each line, or - for standard input; at most 512 tasks
    file: PathBuf,

    /// What people see in lists
    #[arg(long)]
    name: Option<String>,

    /// A task that waits for all others, those that join later among them: its kind, or a JSON object as in a line. It is cancelled
    /// with the first of them that is dead or cancelled
    #[arg(long, value_name = "TASK", value_parser = task_lines::typed)]
    last: Option<NewTask>,

    /// The same, and it runs once all have ended, however they did
    #[arg(long, value_name = "TASK", value_parser = task_lines::typed, conflicts_with = "last")]
    last_anyway: Option<NewTask>,

    /// Wait until every task has ended, as `group wait` does; with =TIME no longer than that (30, 500ms, 5m)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = when::duration)]
    #[expect(clippy::option_option, reason = "absent, for ever, or for this long")]
    wait: Option<Option<Duration>>,
}

#[derive(Debug, Args)]
pub(super) struct OneGroup {
    /// The number of the group
    #[arg(value_name = "GROUP")]
    group: u64,
}

/// Wait until every task of a group has ended, telling how far it is and what its tasks say
///
/// Prints where the group stands then, with the result of its last task, if it has one. Fails when some tasks are dead or cancelled,
/// and when the last one has been deleted since; tasks that have ended and were deleted are counted no more.
/// Where words are missing, because the broker was restarted or more was said than it keeps, that is told.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway group wait 7 --limit 5m")]
pub(super) struct WaitArgs {
    /// The number of the group
    #[arg(value_name = "GROUP")]
    group: u64,

    /// No longer than this: 30, 500ms, 5m
    #[arg(long, value_name = "TIME", value_parser = when::duration)]
    limit: Option<Duration>,
}

pub(super) fn run(common: &Common, command: GroupCommand) -> Result<(), Error> {
    match command {
        GroupCommand::Submit(args) => submit(common, &args),
        GroupCommand::Show(OneGroup { group }) => print(&Remote::expect(common)?.group(group)?, None, common.output),
        GroupCommand::Cancel(OneGroup { group }) => {
            print(&Remote::expect(common)?.cancel_group(group)?, None, common.output)
        }
        GroupCommand::Wait(WaitArgs { group, limit }) => follow(&Remote::expect(common)?, group, limit, common.output),
    }
}

fn submit(common: &Common, args: &SubmitArgs) -> Result<(), Error> {
    let (tasks, group) = new_group(args)?;
    let Some(remote) = Remote::reach(common)? else {
        let (stored, number) = offline::open(common)?.submit_group(&tasks, &group)?;
        print_stored(number, &stored, &group, common.output)?;
        return match args.wait {
            None => Ok(()),
            Some(_) => Err(Error::TimedOut("no broker runs the tasks now, so their ends are not waited for".into())),
        };
    };
    let (stored, number) = remote.submit_group(tasks, group.clone())?;
    print_stored(number, &stored, &group, common.output)?;
    args.wait.map_or(Ok(()), |limit| follow(&remote, number, limit, common.output))
}

/// The tasks of the file, and the last one behind them.
fn new_group(args: &SubmitArgs) -> Result<(Vec<NewTask>, NewGroup), Error> {
    let bytes = if args.file == Path::new("-") {
        standard_input("tasks")?
    } else {
        std::fs::read(&args.file).map_err(|error| Error::other(format!("read {}", args.file.display()), error))?
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::Usage("the tasks are not UTF-8".into()))?;
    let mut tasks = task_lines::read(&text)?;
    let last = args.last.as_ref().or(args.last_anyway.as_ref());
    tasks.extend(last.cloned());
    task_lines::fit_one_message(tasks.len())?;
    let trace = surrounding_trace().map(|trace| trace.to_string());
    for task in &mut tasks {
        task.trace = task.trace.take().or_else(|| trace.clone());
    }
    let last = last.and_then(|_| u32::try_from(tasks.len() - 1).ok());
    Ok((tasks, NewGroup { name: args.name.clone(), last, anyway: args.last_anyway.is_some() }))
}

fn print_stored(number: u64, stored: &[Stored], group: &NewGroup, output: Output) -> Result<(), Error> {
    if output == Output::Json {
        let last = group.last.and_then(|at| stored.get(at as usize)).map(|stored| stored.task);
        return output::json(&json!({ "group": number, "tasks": stored, "last": last }));
    }
    output::line(&number.to_string())
}

/// Shows what is heard of a group until it has ended, and then where it stands.
fn follow(remote: &Remote, group: u64, limit: Option<Duration>, output: Output) -> Result<(), Error> {
    let mut last = None;
    let row = remote.wait_group(group, limit, |news| match news {
        News::Group(row) => output::aside(output, &progress(row), row),
        News::Ended(end) => last = Some(end.clone()),
        news => wait::show(news, output),
    })?;
    print(&row, last.as_ref(), output)?;
    ended_well(&row)?;
    match row.last.filter(|_| last.is_none()) {
        Some(task) => Err(Error::NotFound(format!(
            "task {task}, the last of group {group}, is in the table no more: retention or an app has deleted it, and how it ended is not known"
        ))),
        None => Ok(()),
    }
}

fn progress(row: &GroupRow) -> String {
    let failed = row.dead + row.cancelled;
    let failed = if failed > 0 { format!(", {failed} dead or cancelled") } else { String::new() };
    format!("group {}: {} of {} done{failed}", row.group, row.done, row.total())
}

/// With the end of the last task, where that is known.
fn print(row: &GroupRow, last: Option<&Ended>, output: Output) -> Result<(), Error> {
    let (result, error) = last.map_or((None, None), |end| (end.payload.as_ref(), end.error.as_ref()));
    if output == Output::Json {
        let mut object = output::to_object(row);
        output::put_payload(&mut object, "result", result);
        object.extend(error.map(|error| ("error".to_owned(), json!(error))));
        return output::json(&Value::Object(object));
    }
    let mut table = Table::pairs();
    table.pair("group", &row.group);
    if let Some(name) = &row.name {
        table.pair("name", name);
    }
    table.pair("last task", &or_dash(row.last.map(|last| last.to_string())));
    table.pair("tasks", &row.total());
    let states = [
        ("waiting", row.waiting),
        ("queued", row.queued),
        ("running", row.running),
        ("done", row.done),
        ("dead", row.dead),
        ("cancelled", row.cancelled),
    ];
    for (state, n) in states {
        table.pair(state, &n);
    }
    if let Some(result) = result {
        table.pair("result", &output::payload_text(result));
    }
    if let Some(error) = error {
        table.pair("error", error);
    }
    table.print()
}

fn ended_well(row: &GroupRow) -> Result<(), Error> {
    if row.dead + row.cancelled == 0 {
        return Ok(());
    }
    let group = row.group;
    Err(Error::TaskFailed(format!(
        "group {group} has ended with {} dead and {} cancelled of {}; `laneway task list --group {group}` names them",
        row.dead,
        row.cancelled,
        row.total()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_group_with_failures_has_not_ended_well() {
        // Proves that a script which waits learns of it by the exit code, and that progress counts them apart.
        let row = GroupRow { group: 7, done: 3, dead: 1, ..GroupRow::default() };
        assert_eq!(ended_well(&row).unwrap_err().exit(), Exit::Failure);
        assert_eq!(progress(&row), "group 7: 3 of 4 done, 1 dead or cancelled");
        assert!(ended_well(&GroupRow { dead: 0, ..row }).is_ok());
    }
}
