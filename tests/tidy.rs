//! What the project promises about its own files and no compiler checks: headers, lints, the sample settings, the codes in
//! the protocol's text, links. Reads the source tree only; one test for each rule, which lists every offender at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use laneway_protocol::Code;

/// The workspace's folder.
fn root() -> PathBuf {
    let broker = Path::new(env!("CARGO_MANIFEST_DIR"));
    broker.parent().expect("the broker is a folder of the workspace").to_owned()
}

/// Every file of the project with one of these endings, relative to the root.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let is_ours = name == ".ci" || (!name.starts_with('.') && name != "target" && name != "__pycache__");
                folders.extend(is_ours.then_some(path));
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file ends with one of {endings:?}");
    found
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn none(offenders: &[String], rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn every_source_file_says_what_it_owns() {
    // Proves that each Rust file opens with its purpose.
    let bare = |path: &PathBuf| (!read(path).starts_with("//! ")).then(|| path.display().to_string());
    none(&files(&[".rs"]).iter().filter_map(bare).collect::<Vec<_>>(), "these files do not open with `//! `");
}

#[test]
fn every_member_has_the_workspace_lints() {
    // Proves that no crate opts out of the shared lints.
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut offenders = Vec::new();
    for member in members.iter().map(|member| member.as_str().unwrap()) {
        let manifest: toml::Table = read(Path::new(member).join("Cargo.toml")).parse().unwrap();
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            offenders.push(member.to_owned());
        }
    }
    none(&offenders, "these members lack `[lints] workspace = true`");
}

#[test]
fn every_dependency_has_its_reason() {
    // Proves that each shared dependency says in its line why it is there.
    let manifest = read("Cargo.toml");
    let section = manifest.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let bare = |line: &&str| line.contains('=') && !line.contains("path =") && !line.contains(" # ");
    let offenders: Vec<String> = section.lines().filter(bare).map(String::from).collect();
    none(&offenders, "these dependencies have no reason");
}

/// The settings that the program itself resolves, as TOML.
fn settings(words: &[&str]) -> toml::Table {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    let command = command.args(["broker", "--print-config"]).args(words);
    // Settings of whoever runs the tests are not the defaults.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LANEWAY_")) {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

#[test]
fn the_sample_settings_are_the_defaults() {
    // Proves that a broker started with config/laneway.toml is the broker started without it.
    let sample = root().join("config/laneway.toml");
    assert_eq!(settings(&["--config", sample.to_str().unwrap()]), settings(&[]));
}

#[test]
fn every_code_is_explained_in_the_protocol() {
    // Proves that whoever writes a peer from PROTOCOL.md finds each error it can meet.
    let text = read("protocol/PROTOCOL.md");
    let missing = |code: &Code| (!text.contains(&format!("`{code}`"))).then(|| code.to_string());
    none(&Code::ALL.iter().filter_map(missing).collect::<Vec<_>>(), "PROTOCOL.md lacks these codes");
}

#[test]
fn every_exit_code_is_in_the_readme() {
    // Proves that scripts can rely on a written table, the one that `laneway --help` tells.
    let output = Command::new(env!("CARGO_BIN_EXE_laneway")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (readme, mut missing) = (read("README.md"), Vec::new());
    for code in 0..=8 {
        if !help.contains(&format!("{code} ")) || !readme.contains(&format!("| {code} |")) {
            missing.push(code.to_string());
        }
    }
    none(&missing, "these exit codes are not in README.md as `| code |`, or not in the help");
}

#[test]
fn every_fault_in_the_guide_has_its_test() {
    // Proves that each row of docs/faults.md names a test, or the one above it, and that every test it names exists.
    let tests: String = files(&[".rs"]).iter().filter(|path| path.starts_with("tests")).map(read).collect();
    let guide = read("docs/faults.md");
    let mut offenders = Vec::new();
    let rows = guide.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"));
    for cell in rows.filter_map(|row| row.trim_end_matches(" |").rsplit("| ").next()) {
        if cell != "the same" && !cell.starts_with('`') {
            offenders.push(format!("no test: {cell}"));
        }
    }
    let is_name = |word: &&str| word.matches('_').count() > 4 && !word.contains(' ');
    for name in guide.split('`').filter(is_name) {
        if !tests.contains(&format!("fn {name}()")) {
            offenders.push(format!("no such test: {name}"));
        }
    }
    none(&offenders, "docs/faults.md promises what no test holds");
}

#[test]
fn links_between_documents_lead_somewhere() {
    // Proves that no document points at a file that is not there.
    let mut offenders = Vec::new();
    for path in files(&[".md"]) {
        let text = read(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split(['#', ' ']).next().unwrap();
            let is_file = !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            if is_file && !root().join(path.parent().unwrap()).join(target).exists() {
                offenders.push(format!("{}: {link}", path.display()));
            }
        }
    }
    none(&offenders, "these links lead nowhere");
}

#[test]
fn nothing_tells_where_it_was_built() {
    // Proves that no path of a developer's machine and no left-over mark went into the project.
    let words =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut offenders = Vec::new();
    for path in files(&[".rs", ".toml", ".md", ".sql", ".py", ".sh", ".service", "run"]) {
        for (n, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                offenders.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    none(&offenders, "these lines hold a word that does not belong here");
}

#[test]
fn cargo_run_means_the_broker() {
    // Proves that the README's `cargo run -- demo` has one program to run: cargo refuses to choose among several.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).current_dir(root());
    let workspace: serde_json::Value = serde_json::from_slice(&cargo.output().unwrap().stdout).unwrap();
    let is_default = |package: &&serde_json::Value| {
        workspace["workspace_default_members"].as_array().unwrap().contains(&package["id"])
    };
    let packages = workspace["packages"].as_array().unwrap().iter().filter(is_default);
    let targets = packages.flat_map(|package| package["targets"].as_array().unwrap());
    let programs = targets.filter(|target| target["kind"] == serde_json::json!(["bin"]));
    assert_eq!(programs.map(|program| program["name"].as_str().unwrap()).collect::<Vec<_>>(), ["laneway"]);
}
