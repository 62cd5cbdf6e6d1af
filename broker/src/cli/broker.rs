//! `laneway broker`: resolves the settings, sets up logs and signals, and runs the broker until it is told to stop.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, output, remote, variable};
use crate::config::{Config, ConfigError, Flag, Origin, Resolved, Sources};
use crate::error::Error;
use crate::process;
use crate::run::check_web;
use crate::signals::{self, Signals};
use crate::telemetry::{Rotator, Telemetry};

/// Run a broker
///
/// Creates the database when there is none. Every setting of config/laneway.toml can also come from the environment
/// (LANEWAY_STOP_TIMEOUT_MS) or from --set; flags win over the environment, the environment over the file. The broker ends
/// on SIGTERM or Ctrl-C; running tasks go on in their workers and are settled with the next broker.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway broker --db /srv/app/app.db
  laneway broker --web 127.0.0.1:9730
  laneway broker --config /etc/laneway/laneway.toml --check-config
  laneway broker --supervise --log-file /var/log/laneway.log
  laneway broker --lanes urgent,normal,bulk --set retention.done_age_ms=3600000")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct BrokerArgs {
    /// A TOML file with settings [default: none, or LANEWAY_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to listen, ipc://PATH or tcp://127.0.0.1:PORT; may be repeated [default: a socket beside the database and
    /// tcp://127.0.0.1:7733]
    #[arg(long, value_name = "ENDPOINT")]
    bind: Vec<String>,

    /// Take addresses that other machines reach in --bind, without keys and without encryption
    #[arg(long)]
    anyone_on_the_network_may_do_anything: bool,

    /// The lanes, most urgent first [default: high,normal,low]
    #[arg(long, value_name = "LANE,...")]
    lanes: Option<String>,

    /// What acknowledged work survives: full (power loss) or normal (kill -9) [default: full]
    #[arg(long, value_name = "full|normal")]
    durability: Option<String>,

    /// Append log lines to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,

    /// How log lines look: human, json, or auto (human on a terminal) [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// Which log lines: a level, or levels by target, as in info,laneway::task=off [default: info]
    #[arg(long, value_name = "LEVELS")]
    log: Option<String>,

    /// Show the dashboard at this address, and the JSON API and metrics with it
    #[arg(long, value_name = "ADDR:PORT")]
    web: Option<String>,

    /// Any setting by its name in the file; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,

    /// Start the broker as a child process, and another one whenever it ends by itself; where systemd does the same, do not
    #[arg(long)]
    supervise: bool,

    /// Stop when standard input ends: what a supervisor's broker does when the supervisor is gone
    #[arg(long, hide = true)]
    stop_with_input: bool,

    /// Check the settings, and the files and the address of the dashboard, and exit: 0 when all is well, 7 when not
    #[arg(long)]
    check_config: bool,

    /// Print the settings as a TOML file that says where each value came from, defaults too, and exit
    #[arg(long)]
    print_config: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE, as in stall_ms=2000")?;
    Ok((name.trim().into(), value.trim().into()))
}

pub(super) fn run(common: &Common, args: &BrokerArgs) -> Result<(), Error> {
    let mut resolved = Config::resolve(&sources(common, args))?;
    if args.print_config {
        return output::bytes(resolved.print().as_bytes());
    }
    if args.check_config {
        resolved.warnings.iter().for_each(|warning| output::note(&format!("laneway: {warning}")));
        let mut faults = faults_outside(&resolved);
        // The last is told as every error is, with its exit code.
        let last = faults.pop();
        for fault in &faults {
            output::note(&format!("laneway: {}", fault.chain()));
        }
        return last.map_or_else(|| output::line("the settings are fine"), Err);
    }
    start(common, args, resolved)
}

/// What is wrong with the files and addresses that the settings name.
fn faults_outside(resolved: &Resolved) -> Vec<Error> {
    let Resolved { config, .. } = resolved;
    let files = [check_folder(resolved, "db", &config.db), check_log_file(resolved)];
    let mut faults: Vec<Error> = files.into_iter().filter_map(Result::err).map(Error::from).collect();
    faults.extend(crate::access::check(&config.curve).err());
    faults.extend(check_web(config, remote::running(&config.db).is_some()).into_iter().map(Error::Dashboard));
    faults
}

/// As a start opens it. Nothing is left behind, and no file is made that was not there.
pub(super) fn check_log_file(resolved: &Resolved) -> Result<(), ConfigError> {
    let Some(file) = resolved.config.log_file.as_deref() else { return Ok(()) };
    check_folder(resolved, "log_file", file)?;
    let folder = folder_of(file);
    let tried = match fs::metadata(file) {
        Ok(meta) if meta.is_file() => fs::OpenOptions::new().append(true).open(file).map_err(|error| (file, error)),
        // A terminal, or a pipe, which an open may wait for.
        Ok(_) => return Ok(()),
        Err(_) => tempfile::tempfile_in(folder).map_err(|error| (folder, error)),
    };
    let Err((place, error)) = tried else { return Ok(()) };
    let reason = format!("{} cannot be written: {error}: give it to this user, or choose another", place.display());
    Err(invalid(resolved, "log_file", file, reason))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a file is to be made must be a folder, and no folder of its name.
fn check_folder(resolved: &Resolved, name: &str, file: &Path) -> Result<(), ConfigError> {
    let folder = folder_of(file);
    let reason = if file.is_dir() {
        "is a folder: name a file, which may be one in it".into()
    } else if folder.is_dir() {
        return Ok(());
    } else {
        format!("{} is not a folder: make it, or choose another", folder.display())
    };
    Err(invalid(resolved, name, file, reason))
}

fn invalid(resolved: &Resolved, name: &str, file: &Path, reason: String) -> ConfigError {
    let origin = resolved.origins.get(name).cloned().unwrap_or(Origin::Default);
    ConfigError::Invalid { origin, name: name.into(), value: file.display().to_string(), reason }
}

fn start(common: &Common, args: &BrokerArgs, resolved: Resolved) -> Result<(), Error> {
    let Resolved { config, warnings, .. } = &resolved;
    check_log_file(&resolved)?;
    // Signals first: they are taken from every thread that starts after this.
    let signals = Signals::install(signals::ALL).map_err(|error| Error::other("take signals", error))?;
    // The supervised broker has the same log file, and is the one that has much to say.
    let rotator = if args.supervise { Rotator::Another } else { Rotator::This };
    let telemetry = Telemetry::start(config, rotator).map_err(|error| {
        let file = config.log_file.as_deref().unwrap_or("standard error".as_ref());
        Error::other(format!("open the log {}", file.display()), error)
    })?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let read = || Config::resolve(&sources(common, args));
    if args.supervise {
        let reload = || {
            telemetry.reopen();
            // What is wrong with the settings the broker tells, which gets the signal too.
            if let Ok(new) = read() {
                telemetry.reload(&new.config);
            }
        };
        return crate::supervise::run(supervised, &reload, &signals);
    }
    if args.stop_with_input {
        process::on_end_of_input(|| {
            signals::raise(nix::sys::signal::SIGTERM);
        })?;
    }
    crate::run::run(resolved, &read, &telemetry, &signals)
}

/// The command line of this very process, for a broker that is supervised.
fn supervised() -> std::process::Command {
    use std::os::unix::process::CommandExt as _;
    // By its inode: the file may have been replaced by a newer version, which the next start of the supervisor brings.
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .arg0("laneway")
        .args(std::env::args_os().skip(1).filter(|word| word != "--supervise"))
        .arg("--stop-with-input");
    command
}

/// The settings that a broker would have which is started with this file and nothing else on its command line.
pub(super) fn settings(common: &Common, config: Option<PathBuf>) -> Result<Resolved, ConfigError> {
    let db = common.db.as_ref().map(|path| path.display().to_string());
    let flags = db.map(|db| Flag { written: "--db", name: "db".into(), values: vec![db] });
    Config::resolve(&all_sources(config, flags.into_iter().collect()))
}

fn sources(common: &Common, args: &BrokerArgs) -> Sources {
    let one = |written, name: &str, value: &Option<String>| {
        value.clone().map(|value| Flag { written, name: name.into(), values: vec![value] })
    };
    let db = common.db.as_ref().map(|path| path.display().to_string());
    let mut flags: Vec<Flag> = [
        one("--db", "db", &db),
        one("--lanes", "lanes", &args.lanes),
        one("--durability", "durability", &args.durability),
        one("--log-file", "log_file", &args.log_file),
        one("--log-format", "log_format", &args.log_format),
        one("--log", "log", &args.log),
        one("--web", "web.bind", &args.web),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !args.bind.is_empty() {
        flags.push(Flag { written: "--bind", name: "bind".into(), values: args.bind.clone() });
    }
    if args.anyone_on_the_network_may_do_anything {
        let (written, name) = ("--anyone-on-the-network-may-do-anything", "anyone_on_the_network_may_do_anything");
        flags.push(Flag { written, name: name.into(), values: vec!["true".into()] });
    }
    let set =
        |(name, value): &(String, String)| Flag { written: "--set", name: name.clone(), values: vec![value.clone()] };
    flags.extend(args.set.iter().map(set));
    all_sources(args.config.clone(), flags)
}

fn all_sources(config: Option<PathBuf>, flags: Vec<Flag>) -> Sources {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()));
    Sources {
        file: config.or_else(|| variable("LANEWAY_CONFIG").map(PathBuf::from)),
        environment: std::env::vars_os().filter_map(text).collect(),
        flags,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn resolve(words: &[&str]) -> Result<Resolved, String> {
        let cli = Cli::try_parse_from(["laneway", "broker"].iter().chain(words)).map_err(|error| error.to_string())?;
        let Command::Broker(args) = cli.command else { unreachable!("the words say broker") };
        let mut sources = sources(&cli.common, &args);
        // The environment of whoever runs the tests is not theirs.
        sources.environment.clear();
        Config::resolve(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn each_flag_reaches_its_setting() {
        // Proves that no flag is parsed and forgotten.
        let words = "--db d.db --bind ipc://a --bind tcp://0.0.0.0:0 --anyone-on-the-network-may-do-anything --lanes a,normal --durability normal --log-file l \
                     --log-format json --log debug --web 127.0.0.1:0 --set stall_ms=77 --set kinds.x.max_attempts=9";
        let resolved = resolve(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
        let names: Vec<&str> = resolved.origins.keys().map(String::as_str).collect();
        let wanted = [
            "anyone_on_the_network_may_do_anything",
            "bind",
            "db",
            "durability",
            "kinds.x.max_attempts",
            "lanes",
            "log",
            "log_file",
            "log_format",
            "stall_ms",
            "web.bind",
        ];
        assert_eq!(names, wanted);
        assert_eq!(resolved.config.bind, ["ipc://a", "tcp://0.0.0.0:0"]);
        assert_eq!(resolved.config.stall_ms, 77);
    }

    #[test]
    fn a_wrong_flag_names_itself() {
        // Proves that an error about a flag says which one it was.
        assert!(resolve(&["--durability", "maybe"]).unwrap_err().contains("(flag --durability)"));
        assert!(resolve(&["--set", "stall=7"]).unwrap_err().contains("(flag --set)"));
        assert!(resolve(&["--set", "stall"]).unwrap_err().contains("NAME=VALUE"));
    }
}
