//! What `laneway task retry`, `cancel`, `purge`, `move` and `run-now` do: with ids a verdict for each; with a filter a batch in the
//! broker, whose progress is shown until it is over.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use laneway_protocol::message::{Batch, BulkFilter, Change, Verdict};
use laneway_protocol::{LaneName, TaskId, TaskState};
use serde_json::json;

use super::remote::Remote;
use super::task::{missing, state};
use super::{Common, Output, output, when};
use crate::error::Error;

/// How often a batch is asked after.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Which tasks: by id, or all that meet every condition.
#[derive(Debug, Args)]
pub(super) struct WhichArgs {
    /// Ids of tasks; instead of them, the conditions below
    #[arg(num_args = 1..=512, value_name = "ID")]
    tasks: Vec<TaskId>,

    /// Those in this state: waiting, queued, running, done, dead or cancelled
    #[arg(long, value_parser = state, conflicts_with = "tasks")]
    state: Option<TaskState>,

    /// Those of this kind
    #[arg(long, conflicts_with = "tasks")]
    kind: Option<String>,

    /// Those that are in this lane
    #[arg(long, conflicts_with = "tasks")]
    lane: Option<String>,

    /// Those that ended this long ago or earlier (30m, 12h, 7d); of those that have not ended, were created
    #[arg(long, value_name = "TIME", value_parser = when::duration, conflicts_with = "tasks")]
    older_than: Option<Duration>,

    /// Those whose error has this text in it, letter for letter
    #[arg(long, value_name = "TEXT", conflicts_with = "tasks")]
    error: Option<String>,

    /// Those whose error has this first line, from its beginning to its end; '' for those without an error
    #[arg(long, value_name = "LINE", conflicts_with = "tasks")]
    error_line: Option<String>,

    /// Those with this unique key
    #[arg(long, value_name = "KEY", conflicts_with = "tasks")]
    unique_key: Option<String>,

    /// Those with this fair key
    #[arg(long, value_name = "KEY", conflicts_with = "tasks")]
    fair_key: Option<String>,

    /// Those of this group, by its number
    #[arg(long, value_name = "NUMBER", conflicts_with = "tasks")]
    group: Option<u64>,

    /// Those that a worker runs, or ran last, whose session begins with this; may be repeated
    #[arg(long, value_name = "SESSION", conflicts_with = "tasks")]
    worker: Vec<String>,

    /// Those with at least so many attempts
    #[arg(long, value_name = "N", conflicts_with = "tasks")]
    attempts_min: Option<u32>,

    /// Those with at most so many attempts
    #[arg(long, value_name = "N", conflicts_with = "tasks")]
    attempts_max: Option<u32>,

    /// Every task; needed when no condition is given
    #[arg(long, conflicts_with = "tasks")]
    all: bool,

    /// Count what would be done, and change nothing
    #[arg(long, conflicts_with = "tasks")]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct BatchArgs {
    /// As it was told when the batch began, on standard error
    #[arg(value_name = "NUMBER")]
    number: u64,

    /// End it where it stands; what it has done stays done
    #[arg(long)]
    stop: bool,
}

impl WhichArgs {
    fn filter(&self, change: Change) -> Result<BulkFilter, Error> {
        let mut filter = BulkFilter {
            all: self.all,
            state: self.state,
            kind: self.kind.clone(),
            lane: self.lane.clone(),
            older_ms: self.older_than.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            error: self.error.clone(),
            error_line: self.error_line.clone(),
            unique_key: self.unique_key.clone(),
            fair_key: self.fair_key.clone(),
            group: self.group,
            workers: self.worker.clone(),
            attempts_min: self.attempts_min,
            attempts_max: self.attempts_max,
        };
        if filter.is_open() && !filter.all {
            let text = "name tasks by id or give a condition such as --state or --kind; --all means every task";
            return Err(Error::Usage(text.into()));
        }
        // Who retries means what has failed, and not what somebody has cancelled.
        if change == Change::Requeue && filter.state.is_none() {
            filter.state = Some(TaskState::Dead);
        }
        Ok(filter)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as it was typed, for the one use that it has")]
pub(super) fn run(common: &Common, change: Change, to: Option<&LaneName>, which: WhichArgs) -> Result<(), Error> {
    if !which.tasks.is_empty() {
        let found = Remote::expect(common)?.change(change, to, &which.tasks)?;
        return verdicts(&which.tasks, &found, common.output);
    }
    let filter = which.filter(change)?;
    let remote = Remote::expect(common)?;
    let begun = remote.change_all(change, to, filter, which.dry_run)?;
    follow(&remote, begun, common.output)
}

pub(super) fn batch(common: &Common, args: &BatchArgs) -> Result<(), Error> {
    let remote = Remote::expect(common)?;
    let stand = remote.batch(args.number, args.stop)?;
    if args.stop && !stand.over {
        return follow(&remote, stand, common.output);
    }
    print(&stand, common.output)
}

/// Shows how far it is until it is over. Its number is told first: whoever is ended meanwhile finds it by that.
fn follow(remote: &Remote, mut stand: Batch, output: Output) -> Result<(), Error> {
    let text = format!("batch {}; `laneway task batch {} --stop` stops it", stand.number, stand.number);
    output::aside(output, &text, &json!({ "batch": stand.number }));
    let bar =
        if output == Output::Table && std::io::stderr().is_terminal() { bar(&stand) } else { ProgressBar::hidden() };
    // Most are over within the time of a commit.
    let mut pause = Duration::from_millis(10);
    while !stand.over {
        std::thread::sleep(pause);
        pause = (pause * 2).min(ASK_EVERY);
        stand = match remote.batch(stand.number, false) {
            Err(Error::NotFound(_)) => {
                let changed = output::count(stand.changed, "task", "tasks");
                let text = format!(
                    "the broker was restarted; at least {changed} changed before; say the same again for the rest"
                );
                return Err(Error::NotFound(text));
            }
            stand => stand?,
        };
        bar.set_length(stand.until);
        bar.set_position(stand.at);
        bar.set_message(tally(&stand));
    }
    bar.finish_and_clear();
    print(&stand, output)
}

fn bar(stand: &Batch) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").expect("the template is valid");
    let bar = ProgressBar::new(0).with_style(style);
    bar.set_message(tally(stand));
    bar
}

fn print(stand: &Batch, output: Output) -> Result<(), Error> {
    match output {
        Output::Json => output::json(stand),
        Output::Table => output::line(&format!("{}{}", tally(stand), end(stand))),
    }
}

fn end(stand: &Batch) -> String {
    match (stand.over, stand.stopped) {
        (true, false) => String::new(),
        (true, true) => format!("; stopped at id {} of {}", stand.at, stand.until),
        (false, _) => format!("; at id {} of {}", stand.at, stand.until),
    }
}

fn tally(stand: &Batch) -> String {
    let done = match stand.change {
        Change::Requeue => "queued again",
        Change::Cancel => "cancelled or asked to stop",
        Change::Purge => "deleted",
        Change::Move => "moved",
        Change::RunNow => "due now",
    };
    let would = if stand.dry_run { "would be " } else { "" };
    let mut text = format!("{} {would}{done}", output::count(stand.changed, "task", "tasks"));
    let left = [
        (stand.unchanged, "in no state for it"),
        (stand.twins, "whose key is live again"),
        (stand.needed, "that something still needs"),
    ];
    for (n, why) in left {
        if n > 0 {
            write!(text, ", {n} left alone {why}").expect("a string takes every write");
        }
    }
    text
}

/// One line for each task; exit code 4 when one of them does not exist.
fn verdicts(tasks: &[TaskId], verdicts: &[Verdict], output: Output) -> Result<(), Error> {
    for (task, verdict) in tasks.iter().zip(verdicts) {
        match output {
            Output::Json => output::json(&json!({ "task": task, "verdict": verdict }))?,
            Output::Table => output::line(&format!("task {task}: {}", words(*verdict)))?,
        }
    }
    let lost = |(task, verdict): (&TaskId, &Verdict)| (*verdict == Verdict::NotFound).then_some(*task);
    missing(&tasks.iter().zip(verdicts).filter_map(lost).collect::<Vec<_>>())
}

/// What a verdict says, behind the name of its task.
pub(super) fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Cancelled => "cancelled".into(),
        Verdict::Requested => "runs; its worker was asked to stop".into(),
        Verdict::Requeued => "queued again".into(),
        Verdict::Moved => "is in that lane now".into(),
        Verdict::Due => "is due now".into(),
        Verdict::Purged => "deleted".into(),
        Verdict::Needed => "left alone: something still needs it".into(),
        Verdict::Twin(twin) => format!("left alone: its key is live again in task {twin}"),
        Verdict::Unchanged => "left alone: it is not in a state for this".into(),
        Verdict::NotFound => "not found".into(),
        Verdict::Unknown => "answered with a word of a newer broker".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_missing_task_is_told_by_the_exit_code() {
        // Proves that the others are still done, and that the missing one is named.
        let tasks = [TaskId::new(1).unwrap(), TaskId::new(2).unwrap()];
        let error = verdicts(&tasks, &[Verdict::Cancelled, Verdict::NotFound], Output::Table).unwrap_err();
        assert_eq!((error.exit(), error.to_string().as_str()), (Exit::NotFound, "no task 2"));
        assert!(verdicts(&tasks, &[Verdict::Unchanged, Verdict::Twin(tasks[0])], Output::Json).is_ok());
    }

    #[test]
    fn a_batch_is_told_in_one_line() {
        // Proves that a person sees what was done, what was left alone and why, and where it stopped.
        let stand = Batch {
            number: 9,
            change: Change::Purge,
            dry_run: true,
            seen: 6,
            changed: 1,
            unchanged: 2,
            twins: 0,
            needed: 3,
            at: 7,
            until: 10,
            over: true,
            stopped: true,
        };
        let text = "1 task would be deleted, 2 left alone in no state for it, 3 left alone that something still needs";
        assert_eq!(tally(&stand), text);
        assert_eq!(end(&stand), "; stopped at id 7 of 10");
    }
}
