//! `laneway work`: any program as a worker. Looks at what was typed, finds the program, and hands over to [`crate::work`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::unistd::{AccessFlags, access};

use super::{Common, remote, when};
use crate::config::Config;
use crate::error::Error;
use crate::telemetry::{Rotator, Telemetry};
use crate::work::{self, Job, Program, ResultFormat};

/// Run a program for each task of a kind
///
/// One process for each task. It gets the payload on standard input; what it writes to standard output is the result. It ends
/// with 0 when the task is done, with 65 when it can never be done (dead at once), with anything else when this attempt has
/// failed; the last lines of standard error are the reason. Lines on descriptor 3 (LANEWAY_PROGRESS_FD) tell progress: `3 10 resized`,
/// `30%`, or any words, which leave the count as it is. LANEWAY_TASK, LANEWAY_KIND, LANEWAY_LANE, LANEWAY_ATTEMPT and LANEWAY_MAX_ATTEMPTS say which task it is, TRACEPARENT and
/// TRACESTATE which trace it belongs to. On a cancel or a timeout it gets SIGTERM, then SIGKILL, with everything that it has started
/// and that has not moved into a session of its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway work thumbnail -- ./thumbnail.sh
  laneway work mail,sms --slots 8 --reserve high:2 -- python3 send.py
  laneway work count --result json -- jq '{words: (.text | split(\" \") | length)}'")]
pub(super) struct WorkArgs {
    /// The kinds of tasks to run it for
    #[arg(value_name = "KIND,...", value_delimiter = ',', required = true)]
    kinds: Vec<String>,

    /// Processes at the same time, 1 to 1,000
    #[arg(long, default_value_t = 1, value_name = "N")]
    slots: u32,

    /// Keep so many of the slots for the tasks of a lane; may be repeated
    #[arg(long, value_name = "LANE:N", value_parser = reserved)]
    reserve: Vec<(String, u32)>,

    /// Take tasks of these lanes only [default: all]
    #[arg(long, value_name = "LANE,...", value_delimiter = ',')]
    lanes: Vec<String>,

    /// The worker's name in lists and logs [default: the program's]
    #[arg(long)]
    name: Option<String>,

    /// What standard output is: auto takes it as JSON where it is, else as text, else as bytes
    #[arg(long, value_enum, default_value_t = ResultFormat::Auto, value_name = "FORMAT")]
    result: ResultFormat,

    /// Between SIGTERM and SIGKILL; the broker waits for cancel_grace_ms, 5 s by default
    #[arg(long, default_value = "3s", value_parser = when::duration, value_name = "TIME")]
    grace: Duration,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn reserved(text: &str) -> Result<(String, u32), String> {
    let split = text.rsplit_once(':').and_then(|(lane, n)| Some((lane.to_owned(), n.parse().ok()?)));
    split.ok_or_else(|| "must be LANE:N, as in high:2".into())
}

pub(super) fn run(common: &Common, args: WorkArgs) -> Result<(), Error> {
    let (endpoint, curve) = remote::address(common)?;
    let mut words = args.command.into_iter();
    let name = words.next().expect("clap asks for one word at least");
    let path = find(Path::new(&name))?;
    let _telemetry =
        Telemetry::start(&Config::default(), Rotator::This).map_err(|error| Error::other("write a log", error))?;
    let program = Program { path, args: words.collect(), result: args.result, grace: args.grace };
    let WorkArgs { kinds, slots, reserve, lanes, name, .. } = args;
    work::run(&endpoint, curve, &Job { kinds, lanes, reserve, slots, name, program })
}

/// As a shell finds it: by its path, or in the folders of PATH.
fn find(name: &Path) -> Result<PathBuf, Error> {
    let is_program = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = if name.components().count() > 1 {
        Some(name.to_owned())
    } else {
        std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| is_program(path))
    };
    let found = found.filter(|path| is_program(path)).ok_or_else(|| {
        Error::Usage(format!("{} is no program that may be run; a script needs `chmod +x`", name.display()))
    })?;
    std::path::absolute(&found).map_err(|error| Error::other(format!("look at {}", found.display()), error))
}
