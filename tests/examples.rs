//! The Rust examples, built and run as their heads say, against the real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Broker, Place, Program, Table, output_of};

#[test]
fn the_examples_do_what_they_show() {
    // Proves that worker, app and submit work together: rows with the app's own data, tasks over the socket, results.
    let programs = build();
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let worker = Program::start(Command::new(&programs["worker"]).arg(place.endpoint()));
    let root = root();

    let mut app = Command::new(&programs["app"]);
    let said = output_of(app.arg(place.db()).arg(place.endpoint()).current_dir(&root));
    let words = std::fs::read_to_string(root.join("Cargo.toml")).unwrap().split_ascii_whitespace().count();
    assert!(said.contains(&format!(r#"{{"words":{words}}}"#)), "{said}");
    assert_eq!(table.one::<i64>("SELECT task FROM example_texts", []), 1);

    let text = place.path("text");
    std::fs::write(&text, "four words are here").unwrap();
    let mut submit = Command::new(&programs["submit"]);
    let said = output_of(submit.arg(&text).arg(place.endpoint()));
    assert!(said.contains("100 tasks are stored") && said.contains('4'), "{said}");
    table.wait_for_count("state = 'done'", table.count("1"));
    assert_eq!(table.count("kind = 'echo' AND lane = 'low' AND result = payload"), 100);
    assert_eq!(worker.stop(), 0);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_program_that_ends_with_an_error_of_the_library_says_it_in_words() {
    // Proves that `fn main() -> Result<...>`, as the README has it, prints a sentence and not the variant's fields.
    let mut submit = Command::new(&build()["submit"]);
    let output = submit.arg(root().join("README.md")).arg("what://x").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Error: endpoint 'what://x' cannot be used"), "{said}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Builds the examples into the target folder of this very test, if that has not been done, and says where they are.
fn build() -> HashMap<String, PathBuf> {
    let profile = Path::new(env!("CARGO_BIN_EXE_laneway")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--package", "laneway-examples", "--examples", "--message-format", "json"]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(root());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the examples do not build");
    let text = String::from_utf8(output.stdout).unwrap();
    let messages = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let program = |message: serde_json::Value| {
        let (name, path) = (message["target"]["name"].as_str()?, message["executable"].as_str()?);
        Some((name.to_owned(), path.into()))
    };
    messages.filter_map(program).collect()
}
