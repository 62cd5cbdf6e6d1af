//! Commands that documents name within a sentence or a table, against the command line as it is. Blocks of code are run by
//! `tests/guides.rs`; what stands between two backticks nobody runs, for it has placeholders.

use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::Cli;

/// What is wrong with the words behind `laneway`, when something is. Values and placeholders are not looked at.
fn fault(line: &str) -> Option<String> {
    let mut command = &Cli::command();
    let root = command;
    let mut takes_value = false;
    for word in line.split_whitespace() {
        if word == "--" {
            break;
        }
        if std::mem::take(&mut takes_value) || word == "..." {
            continue;
        }
        if let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) {
            let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
            let is_it = |known: &&clap::Arg| match flag.strip_prefix('-') {
                Some(_) => known.get_long() == Some(name),
                None => known.get_short().is_some_and(|short| name.starts_with(short)),
            };
            let global = root.get_arguments().filter(|known| known.is_global_set());
            let built_in = matches!(name, "help" | "h" | "version" | "V");
            match command.get_arguments().chain(global).find(is_it) {
                Some(known) => takes_value = known.get_action().takes_values() && !flag.contains('='),
                None if built_in => {}
                None => return Some(format!("{} has no {word}", command.get_name())),
            }
        } else if command.has_subcommands() {
            match command.find_subcommand(word) {
                Some(inner) => command = inner,
                None => return Some(format!("{} has no command {word}", command.get_name())),
            }
        } else if command.get_positionals().next().is_none() {
            return Some(format!("{} takes no {word}", command.get_name()));
        }
    }
    None
}

/// What stands between single backticks, outside blocks of code.
fn inline(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).map(|code| code.replace('\n', " ")).collect()
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the broker is a folder of the workspace");
    let listed = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let others = ["README.md", "ARCHITECTURE.md", "protocol/PROTOCOL.md", "config/laneway.toml"];
    listed
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .chain(others.iter().map(|name| root.join(name)))
        .collect()
}

#[test]
fn commands_that_documents_name_are_there() {
    // Proves that no table sends a reader to a command or flag that was renamed.
    let (mut wrong, mut n) = (Vec::new(), 0);
    for path in documents() {
        for code in inline(&std::fs::read_to_string(&path).unwrap()) {
            let Some(line) = code.strip_prefix("laneway ") else { continue };
            n += 1;
            let fault = fault(line).map(|fault| format!("{}: `{code}`: {fault}", path.display()));
            wrong.extend(fault);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(n >= 80, "only {n} commands are found");
}

#[test]
fn a_command_that_is_not_there_is_found() {
    // Proves that the check looks at groups, flags of their own, those of all commands, and at words where none belongs.
    for good in
        ["task retry --kind ...", "check -o json", "work resize -- ./x --any", "log FILE -n 3", "--help", "task"]
    {
        assert_eq!(fault(good), None, "{good}");
    }
    for (bad, says) in [
        ("task undo 7", "task has no command undo"),
        ("task retry 7 --knd x", "retry has no --knd"),
        ("stats -Q", "stats has no -Q"),
        ("stats all", "stats takes no all"),
    ] {
        assert_eq!(fault(bad).as_deref(), Some(says));
    }
}
