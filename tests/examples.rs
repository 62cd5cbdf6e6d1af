//! The Rust examples, built and run as their heads say, against the real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Broker, Built, Place, Program, Table, output_of};

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
fn a_log_is_counted_in_pieces_as_one_pass_of_awk_counts_it() {
    // Proves that lines at the edges of pieces are counted once, with more pieces than lines and with fewer, and that a sum may be
    // more than 31 bits hold.
    let programs = build();
    let place = Place::new();
    let broker = Broker::start(&place);
    let worker = Program::start(Command::new(&programs["logs"]).arg("worker").arg(place.endpoint()));
    let log = place.path("access.log");
    let line = |n: usize| {
        let (status, bytes) = (["200", "304", "404", "500"][n * 7 % 4], n * 137 % 9_000 + 40_000_000);
        let bytes = if status == "304" { "-".to_owned() } else { bytes.to_string() };
        let page = "x".repeat(n * 31 % 90);
        format!(
            "10.0.0.{} - - [17/May/2015:10:05:03 +0000] \"GET /{page} HTTP/1.1\" {status} {bytes} \"-\" \"-\"\n",
            n % 250
        )
    };
    std::fs::write(&log, (0..150).map(line).collect::<String>()).unwrap();
    // As the head of the example has it.
    let source = std::fs::read_to_string(root().join("examples/logs.rs")).unwrap();
    let awk = source.lines().find_map(|line| line.strip_prefix("//!     awk '")?.strip_suffix("' FILE")).unwrap();
    let expected = output_of(Command::new("awk").arg(awk).arg(&log));
    assert!(expected.split(' ').nth(1).unwrap().parse::<u64>().unwrap() > 1 << 31, "{expected}");
    for pieces in ["1", "7", "200"] {
        let said = output_of(Command::new(&programs["logs"]).arg(&log).arg(pieces).arg(place.endpoint()));
        assert_eq!(said, expected, "in {pieces} pieces");
    }
    assert_eq!(worker.stop(), 0);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn photos_are_resized_before_three_others_read_them() {
    // Proves that the pipeline works on real files, and that what follows a file that is no image is cancelled.
    let programs = build();
    let place = Place::new();
    let broker = Broker::start(&place);
    let worker = Program::start(Command::new(&programs["images"]).arg("worker").arg(place.endpoint()));
    let folder = place.path("photos");
    std::fs::create_dir(&folder).unwrap();
    let mut photo = b"P6\n200 100\n255\n".to_vec();
    photo.extend([10, 20, 30].repeat(200 * 100));
    for name in ["a.ppm", "b.ppm"] {
        std::fs::write(folder.join(name), &photo).unwrap();
    }
    std::fs::write(folder.join("c.ppm"), "no image").unwrap();
    let said = output_of(Command::new(&programs["images"]).arg(&folder).arg(place.endpoint()));
    let good = r#"4 of 4 done {"height":32,"mean":[10,20,30],"width":64}"#;
    assert_eq!(said.matches(good).count(), 2, "{said}");
    assert!(said.contains("c.ppm: 0 of 4 done null"), "{said}");
    assert_eq!(std::fs::read(folder.join("a.small.ppm")).unwrap().len(), "P6\n64 32\n255\n".len() + 64 * 32 * 3);
    for name in ["stream.jsonl", "outbox.jsonl"] {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap().lines().count(), 2);
    }
    let table = Table::open(&place);
    assert_eq!(table.count("state = 'cancelled' AND error LIKE '%which it depends on, is dead'"), 3);
    assert_eq!(worker.stop(), 0);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn the_traces_of_a_submit_and_of_a_retry_are_shown() {
    // Proves that the example prints the five spans that its head promises: the first try in the trace of its submit, the second
    // outside of it and with a link.
    let programs = build();
    let place = Place::new();
    let broker = Broker::start(&place);
    let said = output_of(Command::new(&programs["traces"]).arg(place.endpoint()));
    assert!(said.contains("welcome, ann"), "{said}");
    // The first line with a name is the span's; those of its links come behind.
    let value = |span: &str, name: &str| {
        let line =
            span.lines().filter(|line| line.starts_with(&format!("\t{name} "))).find_map(|line| line.split_once(": "));
        line.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let spans: Vec<&str> = said.split("\nSpan #").skip(1).collect();
    let traces = |name: &str| -> Vec<String> {
        spans.iter().filter(|span| value(span, "Name") == name).map(|span| value(span, "TraceId")).collect()
    };
    let (request, sent, runs) = (traces("GET /welcome"), traces("send welcome"), traces("process welcome"));
    assert_eq!((spans.len(), request.len(), sent.len(), runs.len()), (5, 1, 1, 2), "{said}");
    assert_eq!((&sent[0], &runs[0]), (&request[0], &request[0]), "{said}");
    assert_eq!(vec![&runs[1]], traces("print").iter().collect::<Vec<_>>(), "{said}");
    assert!(runs[1] != request[0] && said.contains(&format!("\tTraceId: {}", request[0])), "{said}");
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

fn build() -> HashMap<String, PathBuf> {
    Built::examples().programs
}
