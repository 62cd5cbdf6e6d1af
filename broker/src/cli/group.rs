//! `laneway group`: look at tasks that belong together, wait for them, cancel them.

use std::time::Duration;

use clap::{Args, Subcommand};
use laneway_protocol::message::GroupRow;

use super::output::{Table, or_dash};
use super::remote::Remote;
use super::{Common, Output, output, when};
use crate::error::Error;

/// Look at groups of tasks, wait for them, cancel them
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  laneway group show 7\n  laneway group wait 7 --limit 5m\n  laneway group cancel 7"
)]
pub(super) enum GroupCommand {
    /// Show where a group stands: its tasks by state
    #[command(after_help = "Example:\n  laneway group show 7 -o json | jq .done")]
    Show(OneGroup),
    Wait(WaitArgs),
    /// Cancel what of a group has not ended, its last task too
    #[command(after_help = "Example:\n  laneway group cancel 7")]
    Cancel(OneGroup),
}

#[derive(Debug, Args)]
pub(super) struct OneGroup {
    /// The number of the group
    #[arg(value_name = "GROUP")]
    group: u64,
}

/// Wait until every task of a group has ended, telling how far it is
///
/// Fails when some of them are dead or cancelled then.
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

pub(super) fn run(common: &Common, command: &GroupCommand) -> Result<(), Error> {
    let remote = Remote::expect(common)?;
    match *command {
        GroupCommand::Show(OneGroup { group }) => print(&remote.group(group)?, common.output),
        GroupCommand::Cancel(OneGroup { group }) => print(&remote.cancel_group(group)?, common.output),
        GroupCommand::Wait(WaitArgs { group, limit }) => {
            let row = remote.wait_group(group, limit, |row| output::note(&progress(row)))?;
            print(&row, common.output)?;
            ended_well(&row)
        }
    }
}

fn progress(row: &GroupRow) -> String {
    let failed = row.dead + row.cancelled;
    let failed = if failed > 0 { format!(", {failed} dead or cancelled") } else { String::new() };
    format!("group {}: {} of {} done{failed}", row.group, row.done, row.total())
}

fn print(row: &GroupRow, output: Output) -> Result<(), Error> {
    if output == Output::Json {
        return output::json(row);
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
    table.print()
}

fn ended_well(row: &GroupRow) -> Result<(), Error> {
    if row.dead + row.cancelled == 0 {
        return Ok(());
    }
    Err(Error::TaskFailed(format!(
        "group {} has ended with {} dead and {} cancelled of {}; `laneway task list --state dead` names the dead ones",
        row.group,
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
