//! `laneway link`: a link by which anybody may watch one task or one group, and the keys that sign such links.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use laneway::{LinkKeys, Observed, ObserverLink, TaskId};
use serde_json::json;

use super::{Output, keygen, output, variable, when};
use crate::error::Error;

/// The setting of the dashboard that opens the links, so that one variable does for both.
const KEY_VARIABLE: &str = "LANEWAY_WEB_LINK_KEY_FILE";

/// Make a link by which anybody may watch one task or one group
///
/// Whoever has the link sees where the task stands, live, until it expires: its state, its progress with the note, and times; no
/// payload, no result, nothing of other tasks, and it changes nothing. The element laneway-task shows it in any page. No broker is
/// asked: the key file of its dashboard (web.link_key_file) signs the link. --new-key makes such a file, or puts a new key before
/// those that it has: the first one signs, all of them open.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["task", "group", "new_key"])), after_help = "\
Examples:
  laneway link --new-key link.keys
  laneway link 12 --key-file link.keys --url https://tasks.example.com
  laneway link --group 7 --expires 7d --key-file link.keys -o json")]
pub(super) struct LinkArgs {
    /// The task to be watched
    #[arg(value_name = "TASK")]
    task: Option<TaskId>,

    /// The group to be watched, by its number
    #[arg(long, value_name = "GROUP")]
    group: Option<u64>,

    /// Make a key file, or put a new key first into the one that is there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["expires", "key_file", "url", "show_error"])]
    new_key: Option<PathBuf>,

    /// How long it is good: 1s to 365d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = when::duration)]
    expires: Duration,

    /// The key file [default: LANEWAY_WEB_LINK_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// The address of the dashboard as visitors know it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9730")]
    url: String,

    /// Show the error of a task that failed, too: such a text may tell of paths, hosts and users
    #[arg(long)]
    show_error: bool,
}

pub(super) fn run(args: &LinkArgs, output: Output) -> Result<(), Error> {
    if let Some(path) = &args.new_key {
        return new_key(path, output);
    }
    let path = args.key_file.clone().or_else(|| variable(KEY_VARIABLE).map(PathBuf::from)).ok_or_else(|| {
        let text = format!(
            "a link needs the key file that web.link_key_file of the dashboard names: say --key-file FILE or set \
             {KEY_VARIABLE}; `laneway link --new-key FILE` makes one"
        );
        Error::Usage(text)
    })?;
    let keys = LinkKeys::read(path).map_err(usage)?;
    let observed = match (args.task, args.group) {
        (Some(task), _) => Observed::Task(task),
        (None, group) => Observed::Group(group.unwrap_or_default()),
    };
    let mut link = ObserverLink::new(observed, args.expires).map_err(usage)?;
    if args.show_error {
        link = link.with_error();
    }
    let url = link.url(&args.url, &keys).map_err(usage)?;
    if output == Output::Table {
        return output::line(&url);
    }
    let expires_at = link.expires_at_s().saturating_mul(1_000);
    output::json(&json!({ "url": url, "task": args.task, "group": args.group, "expires_at": expires_at }))
}

/// What the library says of a setting is about an argument here.
fn usage(error: laneway::Error) -> Error {
    let text = match error {
        laneway::Error::BadSetting { setting: "lifetime", text } => format!("--expires {text}"),
        laneway::Error::BadSetting { setting: "base", text } => format!("--url {text}"),
        laneway::Error::BadSetting { setting: "group", text } => format!("--group {text}"),
        error => error.to_string(),
    };
    Error::Usage(text)
}

/// The file is whole at each moment: a dashboard may be told to read it at any.
fn new_key(path: &Path, output: Output) -> Result<(), Error> {
    let fail = |error: std::io::Error| Error::other(format!("write {}", path.display()), error);
    let there = match path.symlink_metadata() {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(fail(error)),
    };
    // The name would be another file's afterwards, and who reads the old one would never see the new key.
    if there.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return Err(Error::Usage(format!("{} is no regular file: name the file itself", path.display())));
    }
    let mut text = format!("{}\n", LinkKeys::generate()?);
    if there.is_some() {
        LinkKeys::read(path).map_err(usage)?;
        text.push_str(&std::fs::read_to_string(path).map_err(fail)?);
    }
    let keys = LinkKeys::parse(&text).map_err(|text| Error::Usage(format!("{}: {text}", path.display())))?;
    let file = keygen::write(path, 0o600, &text)?;
    if let Some(metadata) = &there {
        // The dashboard may run as another user than the one who changes its key.
        chown(file.path(), Some(metadata.uid()), Some(metadata.gid())).map_err(fail)?;
        file.persist(path).map_err(|error| fail(error.error))?;
    } else {
        file.persist_noclobber(path).map_err(|error| fail(error.error))?;
    }
    if output == Output::Json {
        return output::json(&json!({ "key_file": path, "keys": keys.count() }));
    }
    let is = match keys.count() {
        1 => "signs observer links: name it in web.link_key_file, and keep it from everybody else".to_owned(),
        n => format!(
            "has a new first key; {n} keys open links. Send the broker SIGHUP, and take the last line away when \
                      its links have expired"
        ),
    };
    output::line(&format!("{}  {is}", path.display()))
}
