//! The command line of `laneway`: what can be typed, and which file does it. One file for each group of commands.
//!
//! Commands for people talk to the running broker, through the same library that apps use. Results go to standard output
//! (`-o table` for eyes, `-o json` for programs), everything else to standard error. The exit codes are the table of
//! [`Exit`](crate::error::Exit). Called by `main` only.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are their help, which is plain text")]

mod admin;
mod broker;
mod change;
mod check;
mod db;
mod doctor;
mod fair_key;
mod group;
mod keygen;
mod kind;
mod link;
mod log;
mod offline;
pub(crate) mod output;
mod remote;
mod schedule;
mod submit;
mod task;
mod task_lines;
mod top;
mod wait;
mod web;
mod when;
mod work;
#[cfg(test)]
mod written;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Exit};

/// A load-balancing task broker: insert a row, an idle worker runs it.
#[derive(Debug, Parser)]
#[command(name = "laneway", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  laneway broker                                  run a broker on ./laneway.db
  laneway submit resize '{\"file\": \"a.png\"}' --wait
  laneway task list --state dead
  laneway top                                     watch lanes, workers and tasks, and act on them
  laneway demo ~/Documents                        see it all work on your own files

Exit codes:
  0 done as asked       3 no broker answers   6 the time to wait was over
  1 the task failed,    4 not found           7 the settings are wrong
    or another error    5 refused             8 database error
  2 bad usage";

/// What every command takes.
#[derive(Debug, Args)]
struct Common {
    /// The database file [default: laneway.db, or LANEWAY_DB]
    #[arg(long, global = true, value_name = "PATH")]
    db: Option<PathBuf>,

    /// Where the broker listens [default: LANEWAY_ENDPOINT, the socket beside the database, or tcp://127.0.0.1:7733 where no
    /// database lies]
    #[arg(long, global = true, value_name = "ENDPOINT")]
    endpoint: Option<String>,

    /// Our secret file, for a CURVE endpoint; of `laneway keygen` [default: LANEWAY_KEY where the endpoint is named]
    #[arg(long, global = true, value_name = "FILE", requires = "broker_key")]
    key: Option<PathBuf>,

    /// The broker's public file, for a CURVE endpoint [default: LANEWAY_BROKER_KEY where the endpoint is named]
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    broker_key: Option<PathBuf>,

    /// How to print results: a table for people, or one JSON object a line, what is told beside them on standard error too
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Common {
    /// Refuses what would be ignored: two ways to name one broker, and options that mean nothing to a command.
    fn check(&self, command: &Command) -> Result<(), Error> {
        let (db, endpoint, json) = (self.db.is_some(), self.endpoint.is_some(), self.output == Output::Json);
        let keys = self.key.is_some();
        let reason = match command {
            Command::Broker(_) if endpoint => "a broker has no --endpoint; --bind says where it listens",
            Command::Top(_) if json => {
                "a picture has no JSON: `laneway stats`, `lane list`, `kind list`, `worker list` and `task list` have"
            }
            Command::Broker(_)
            | Command::Work(_)
            | Command::Web(_)
            | Command::Completions { .. }
            | Command::Man { .. }
                if json =>
            {
                "there is nothing to print as JSON here"
            }
            Command::Db(_)
            | Command::Doctor(_)
            | Command::Log(_)
            | Command::Completions { .. }
            | Command::Man { .. }
                if endpoint =>
            {
                "no broker is asked here, so --endpoint means nothing"
            }
            Command::Keygen(_) if db || endpoint || json => {
                "it writes two files and asks nobody, so --db, --endpoint and --output mean nothing"
            }
            Command::Link(_) if db || endpoint || keys => {
                "a link is made of its keys alone and asks nobody, so --db, --endpoint and --key mean nothing"
            }
            Command::Broker(_) if keys => "a broker's own key is a setting: --set curve.key_file=FILE",
            Command::Db(_)
            | Command::Doctor(_)
            | Command::Log(_)
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Keygen(_)
                if keys =>
            {
                "no broker is asked here, so --key and --broker-key mean nothing"
            }
            Command::Demo(_) | Command::Bench(_) | Command::Drill(_) if db || endpoint || keys => {
                "it starts brokers of its own, so --db, --endpoint and --key mean nothing"
            }
            // The dashboard asks the one and reads the other.
            Command::Web(_) => return Ok(()),
            _ if db && endpoint => "--db and --endpoint both name a broker: give one of them",
            _ => return Ok(()),
        };
        Err(Error::Usage(reason.into()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Broker(broker::BrokerArgs),
    Submit(submit::SubmitArgs),
    #[command(subcommand)]
    Task(task::TaskCommand),
    #[command(subcommand)]
    Group(group::GroupCommand),
    #[command(subcommand)]
    Lane(admin::LaneCommand),
    #[command(subcommand)]
    Kind(kind::KindCommand),
    #[command(subcommand)]
    FairKey(fair_key::FairKeyCommand),
    #[command(subcommand)]
    Worker(admin::WorkerCommand),
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Show the broker's numbers
    #[command(after_help = "Example:\n  laneway stats -o json | jq .queued")]
    Stats,
    Top(top::TopArgs),
    Drain(admin::DrainArgs),
    Check(check::CheckArgs),
    Doctor(doctor::DoctorArgs),
    Log(log::LogArgs),
    Work(work::WorkArgs),
    Web(web::WebArgs),
    #[command(subcommand)]
    Db(db::DbCommand),
    Keygen(keygen::KeygenArgs),
    Link(link::LinkArgs),
    Demo(crate::demo::DemoArgs),
    #[command(hide = true)]
    DemoWorker(crate::demo::DemoWorkerArgs),
    Bench(crate::bench::BenchArgs),
    #[command(hide = true)]
    BenchWorker(crate::bench::BenchWorkerArgs),
    Drill(crate::drill::DrillArgs),
    #[command(hide = true)]
    DrillWorker(crate::drill::DrillWorkerArgs),
    /// Write the manual pages of all commands into a folder
    #[command(after_help = "Example:\n  laneway man /usr/local/share/man/man1")]
    Man {
        folder: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  laneway completions bash > ~/.local/share/bash-completion/completions/laneway")]
    Completions {
        shell: clap_complete::Shell,
    },
}

/// Options of every command that mean nothing to some: [`Common::check`] refuses them there, so their help does not offer them.
const WITHOUT: [(&str, &[&str]); 14] = [
    ("broker", &["endpoint", "key", "broker_key", "output"]),
    ("top", &["output"]),
    ("doctor", &["endpoint", "key", "broker_key"]),
    ("log", &["endpoint", "key", "broker_key"]),
    ("work", &["output"]),
    ("web", &["output"]),
    ("db", &["endpoint", "key", "broker_key"]),
    ("keygen", &["db", "endpoint", "key", "broker_key", "output"]),
    ("link", &["db", "endpoint", "key", "broker_key"]),
    ("demo", &["db", "endpoint", "key", "broker_key"]),
    ("bench", &["db", "endpoint", "key", "broker_key"]),
    ("drill", &["db", "endpoint", "key", "broker_key"]),
    ("man", &["db", "endpoint", "key", "broker_key", "output"]),
    ("completions", &["db", "endpoint", "key", "broker_key", "output"]),
];

/// The command line with the help that each command has.
fn definition() -> clap::Command {
    with_own_options(Cli::command())
}

fn with_own_options(mut all: clap::Command) -> clap::Command {
    // Now each command has a copy of the options that all have.
    all.build();
    WITHOUT.iter().fold(all, |all, (name, options)| all.mut_subcommand(name, |command| without(command, options)))
}

fn without(command: clap::Command, options: &[&str]) -> clap::Command {
    let command = command.mut_args(|option| {
        let is_without = options.contains(&option.get_id().as_str());
        if is_without { option.hide(true) } else { option }
    });
    let inner: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    inner
        .iter()
        .filter(|name| *name != "help")
        .fold(command, |command, name| command.mut_subcommand(name, |inner| without(inner, options)))
}

/// The whole program: runs one command line, the program's name first. Prints what went wrong, as one line, on standard
/// error.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    run(words).into()
}

fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    let words: Vec<OsString> = words.into_iter().collect();
    let command = words.iter().skip(1).find(|word| !word.to_string_lossy().starts_with('-'));
    // Of `check` whoever watches takes 2 for critical, and 3 for what cannot be told.
    let usage = if command.is_some_and(|word| word == "check") { Exit::Unreachable } else { Exit::Usage };
    let parsed = definition().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, and go to standard output. A closed pipe there is nobody's problem.
            error.print().ok();
            return if error.use_stderr() { usage } else { Exit::Success };
        }
    };
    match dispatch(cli) {
        Ok(()) => Exit::Success,
        // The reader went away (`laneway task list | head -1`): there is nobody to tell and nothing failed.
        Err(error) if error.is_closed_pipe() => Exit::Success,
        Err(Error::Judged(exit)) => exit,
        Err(error) => {
            output::note(&format!("laneway: {}", error.chain()));
            if error.exit() == Exit::Usage { usage } else { error.exit() }
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Error> {
    let Cli { common, command } = cli;
    common.check(&command)?;
    match command {
        Command::Broker(args) => broker::run(&common, &args),
        Command::Submit(args) => submit::run(&common, args),
        Command::Task(command) => task::run(&common, command),
        Command::Group(command) => group::run(&common, command),
        Command::Lane(command) => admin::lane(&common, command),
        Command::Kind(command) => kind::run(&common, command),
        Command::FairKey(command) => fair_key::run(&common, command),
        Command::Worker(command) => admin::worker(&common, &command),
        Command::Schedule(command) => schedule::run(&common, command),
        Command::Stats => admin::stats(&common),
        Command::Top(args) => top::run(&common, &args),
        Command::Drain(args) => admin::drain(&common, &args),
        Command::Check(args) => check::run(&common, &args),
        Command::Doctor(args) => doctor::run(&common, &args),
        Command::Log(args) => log::run(&common, &args),
        Command::Work(args) => work::run(&common, args),
        Command::Web(args) => web::run(&common, &args),
        Command::Db(command) => db::run(&common, &command),
        Command::Keygen(args) => keygen::run(&args),
        Command::Link(args) => link::run(&args, common.output),
        Command::Demo(args) => crate::demo::run(&args),
        Command::DemoWorker(args) => crate::demo::work(&args),
        Command::Bench(args) => crate::bench::run(&args, common.output == Output::Json),
        Command::BenchWorker(args) => crate::bench::run_worker(&args),
        Command::Drill(args) => crate::drill::run(&args, common.output == Output::Json),
        Command::DrillWorker(args) => crate::drill::work(&args),
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => man(&folder),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "laneway", &mut script);
    output::bytes(&script)
}

/// One page for each command, from the same definitions as its help.
fn man(folder: &Path) -> Result<(), Error> {
    // Left to do it later, the generator would come too late, and write a page for the help of each command as well.
    let all = with_own_options(Cli::command().disable_help_subcommand(true));
    clap_mangen::generate_to(all, folder)
        .map_err(|error| Error::other(format!("write manual pages into {}", folder.display()), error))
}

/// An environment variable of the command line itself; empty counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its path, groups included.
    fn commands(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        found.push((path.into(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            commands(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }

    #[test]
    fn the_definitions_hold_together() {
        // Proves what clap checks only at run time: no flag twice, no default that does not parse.
        definition().debug_assert();
    }

    #[test]
    fn no_command_takes_a_name_that_all_of_them_have() {
        // Proves what clap finds only when both are given: two options of one name and different types.
        let all = Cli::command();
        let mut found = Vec::new();
        commands(&all, "laneway", &mut found);
        for global in all.get_arguments().filter(|argument| argument.is_global_set()) {
            for (path, command) in &found[1..] {
                let own = command.get_arguments().any(|argument| argument.get_id() == global.get_id());
                assert!(!own, "{path} has an option {} of its own", global.get_id());
            }
        }
    }

    #[test]
    fn each_command_has_help_with_an_example() {
        // Proves that nobody who asks a command for help is left without a line to copy.
        let mut found = Vec::new();
        commands(&Cli::command(), "laneway", &mut found);
        assert!(found.len() >= 15, "{}", found.len());
        for (path, mut command) in found {
            assert!(command.get_about().is_some(), "{path} has no description");
            let help = command.render_long_help().to_string();
            assert!(help.contains(&format!("  {path}")), "{path} has no example in its help");
        }
    }

    #[test]
    fn the_readme_has_every_command() {
        // Proves that nobody has to guess that a command is there.
        let readme = include_str!("../../../README.md");
        let table =
            readme.split("## The command line").nth(1).and_then(|rest| rest.split("| exit code").next()).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let has = |end: char| table.contains(&format!("`{name}{end}"));
            assert!(name == "help" || has('`') || has(' '), "no `{name}` in README.md");
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_parses() {
        // Proves that the examples stay true when flags change.
        let mut found = Vec::new();
        commands(&Cli::command(), "laneway", &mut found);
        let mut tried = 0;
        for (_, mut command) in found {
            for line in command.render_long_help().to_string().lines() {
                let Some(line) = line.strip_prefix("  laneway ") else { continue };
                let words = words(line.split([';', '|', '>']).next().unwrap().split("   ").next().unwrap());
                Cli::try_parse_from(std::iter::once("laneway".into()).chain(words))
                    .unwrap_or_else(|error| panic!("laneway {line}: {error}"));
                tried += 1;
            }
        }
        assert!(tried >= 20, "{tried}");
    }

    /// Splits as a shell does, as far as the examples need it.
    fn words(line: &str) -> Vec<String> {
        line.trim()
            .split('\'')
            .enumerate()
            .flat_map(|(n, part)| match n % 2 {
                1 => vec![part.to_owned()],
                _ => part.split_whitespace().map(str::to_owned).collect(),
            })
            .collect()
    }

    #[test]
    fn usage_errors_and_help_have_their_exit_codes() {
        // Proves that scripts can tell a wrong command line (2) from help (0).
        assert_eq!(run(["laneway", "--version"].map(OsString::from)), Exit::Success);
        assert_eq!(run(["laneway", "submitt"].map(OsString::from)), Exit::Usage);
        assert_eq!(run(["laneway", "task", "show", "0"].map(OsString::from)), Exit::Usage);
    }

    #[test]
    fn help_offers_no_option_that_is_refused() {
        // Proves, for each command that parses without more words or with one, that its help leaves out what it refuses and has the
        // other options of all commands.
        let values = [("db", "--db a.db"), ("endpoint", "--endpoint ipc://b"), ("output", "-o json")];
        let (mut hidden, mut found) = (0, Vec::new());
        commands(&definition(), "laneway", &mut found);
        for (path, command) in &found[1..] {
            for (id, words) in values {
                let line = ["", " 12", " x", " bash"].map(|more| format!("{path}{more} {words}"));
                let Some(cli) = line.iter().find_map(|line| Cli::try_parse_from(line.split(' ')).ok()) else {
                    continue;
                };
                let is_refused = cli.common.check(&cli.command).is_err();
                let option = command.get_arguments().find(|option| option.get_id() == id).unwrap();
                let is_ignored = matches!(cli.command, Command::Man { .. } | Command::Completions { .. });
                assert_eq!(option.is_hide_set(), is_refused || is_ignored, "{path} {words}");
                hidden += usize::from(is_refused);
            }
        }
        assert!(hidden >= 15, "{hidden}");
    }

    #[test]
    fn options_that_would_be_ignored_are_refused() {
        // Proves that nobody believes to have named a database or a broker where another one is used.
        for words in [
            "--db a.db --endpoint ipc://b submit echo",
            "task list --endpoint ipc://b --db a.db",
            "broker --endpoint ipc://b",
            "broker -o json",
            "top -o json",
            "db status --endpoint ipc://b",
            "demo --db a.db",
            "bench --endpoint ipc://b",
            "drill --db a.db",
            "completions bash -o json",
            "keygen app --db a.db",
            "link 12 --db a.db",
            "link 12 --group 7",
            "link",
            "link --new-key link.keys --url https://a.example",
            "stats --endpoint ipc://b --key a.secret",
            "broker --key a.secret --broker-key b.public",
            "demo --key a.secret --broker-key b.public",
        ] {
            let words = std::iter::once("laneway").chain(words.split(' ')).map(OsString::from);
            assert_eq!(run(words.clone()), Exit::Usage, "{:?}", words.collect::<Vec<_>>());
        }
    }
}
