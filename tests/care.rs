//! `laneway db check`, `backup` and `restore`: damage is told, a copy is whole or not there, and nothing is replaced under
//! a broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::process::{Command, Stdio};

use harness::{Broker, Place, Table, WorkerProcess, wait_until};
use serde_json::Value;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Runs `laneway db` on the place's database; gives exit code, standard output and standard error.
fn db(place: &Place, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.arg("db").args(words).args(["--db", "tasks.db"]).current_dir(place.dir()).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

/// What `db check -o json` tells, with its exit code.
fn check(place: &Place) -> (i32, Vec<String>) {
    let (code, out, err) = db(place, &["check", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let problems = told["problems"].as_array().unwrap();
    (code, problems.iter().map(|problem| problem.as_str().unwrap().to_owned()).collect())
}

fn left_overs(place: &Place) -> usize {
    let names = std::fs::read_dir(place.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".laneway-copy-")).count()
}

/// Overwrites everything behind the first page.
fn scribble(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[4096..].fill(0x5a);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_backup_of_a_busy_broker_is_whole_and_brings_everything_back() {
    // Proves the round trip: copied while rows come and go, verified, not replaced unasked; restored only without a broker,
    // and the old file kept. What was in the table at the backup is there again, and the next broker goes on with it.
    let place = Place::new();
    let broker = Broker::start(&place);
    let worker = WorkerProcess::start(&place, "slots=2");
    let table = Table::open(&place);
    table.insert_many(500, "normal", "nobody", "1");
    table.insert_many(500, "normal", "echo", "1");
    let (code, out, err) = db(&place, &["backup", "copy.db"]);
    assert_eq!(code, 0, "{out}{err}");
    table.wait_for_count("state = 'done'", 500);
    let (code, _, err) = db(&place, &["backup", "copy.db"]);
    assert!(code == 8 && err.contains("--overwrite"), "{code} {err}");
    assert_eq!(db(&place, &["backup", "copy.db", "--overwrite"]).0, 0);
    assert_eq!(check(&place), (0, Vec::new()));
    let (code, _, err) = db(&place, &["restore", "copy.db"]);
    assert!(code == 8 && err.contains(&format!("pid {}", broker.pid())), "{code} {err}");

    assert_eq!(worker.stop(), 0);
    assert_eq!(broker.stop(), 0);
    table.execute("DELETE FROM tasks", []);
    drop(table);
    let (code, out, err) = db(&place, &["restore", "copy.db"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("tasks.db.replaced-1") && place.path("tasks.db.replaced-1").exists(), "{out}");
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    assert_eq!((table.count("kind = 'nobody'"), table.count("state = 'done'")), (500, 500));
    let id = table.insert("echo", "2");
    let _worker = WorkerProcess::start(&place, "");
    table.wait_for_state(id, "done");
    assert_eq!(left_overs(&place), 0);
}

#[test]
fn damage_is_told_and_neither_backed_up_nor_restored() {
    // Proves that a copy is never trusted unseen: the check names the damage with exit code 8, a backup of it leaves no file,
    // and a damaged backup leaves the database alone.
    let place = Place::new();
    assert_eq!(db(&place, &["init"]).0, 0);
    Table::open(&place).insert_many(1_000, "normal", "echo", "1");
    assert_eq!(db(&place, &["backup", "good.db"]).0, 0);
    scribble(&place.db());
    let (code, problems) = check(&place);
    assert!(code == 8 && !problems.is_empty(), "{problems:?}");
    let (code, _, err) = db(&place, &["backup", "bad.db"]);
    assert!(code == 8 && err.contains("damaged"), "{code} {err}");
    assert!(!place.path("bad.db").exists());

    let before = std::fs::read(place.db()).unwrap();
    std::fs::copy(place.db(), place.path("bad.db")).unwrap();
    let (code, _, err) = db(&place, &["restore", "bad.db"]);
    assert!(code == 8 && err.contains("damaged"), "{code} {err}");
    assert!(std::fs::read(place.db()).unwrap() == before, "the database was touched");
    assert_eq!(db(&place, &["restore", "nowhere.db"]).0, 4);
    assert_eq!(db(&place, &["restore", "good.db"]).0, 0);
    assert_eq!((check(&place), Table::open(&place).count("1")), ((0, Vec::new()), 1_000));
    assert_eq!(left_overs(&place), 0);
}

#[test]
fn a_check_tells_what_the_rows_do_not_keep() {
    // Proves that more than SQLite's own view is looked at: references of an app's tables, counts, missing tables.
    let place = Place::new();
    assert_eq!(db(&place, &["init"]).0, 0);
    let table = Table::open(&place);
    table.insert("echo", "1");
    table.0.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    table.0.execute_batch("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a REFERENCES a)").unwrap();
    table.0.execute_batch("INSERT INTO b VALUES (7); UPDATE tasks SET runs = -1; DROP TABLE failures").unwrap();
    let (code, problems) = check(&place);
    assert_eq!(code, 8);
    for says in ["row 1 of b", "1 tasks with a negative", "failures is missing"] {
        assert!(problems.iter().any(|problem| problem.contains(says)), "'{says}' is not in {problems:?}");
    }
}

#[test]
fn a_damaged_database_stops_the_broker_with_advice() {
    // Proves that a broker neither starts on a truncated file or on one that is no database, nor goes on over damage that
    // it meets later: exit code 8, and the line names what to do.
    let place = Place::new();
    assert_eq!(db(&place, &["init"]).0, 0);
    Table::open(&place).insert_many(2_000, "normal", "echo", "1");
    let whole = std::fs::read(place.db()).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[b'x'; 8192][..]] {
        std::fs::write(place.db(), damaged).unwrap();
        refused(&place, "laneway db restore");
        assert!(std::fs::read(place.db()).unwrap() == damaged, "a refused database was written to");
    }

    std::fs::write(place.db(), &whole).unwrap();
    scribble(&place.db());
    // Damage behind the first page may show at the start or at the first read: it ends the broker either way.
    refused(&place, "laneway db check");
}

/// Starts a broker and waits for its end.
#[track_caller]
fn refused(place: &Place, says: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(["broker", "--db", "tasks.db", "--bind", &place.endpoint()]).current_dir(place.dir()).env_clear();
    let errors = place.path("errors");
    let mut child = command.stdout(Stdio::null()).stderr(std::fs::File::create(&errors).unwrap()).spawn().unwrap();
    wait_until("the broker to refuse", || child.try_wait().unwrap().is_some());
    let told = std::fs::read_to_string(errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(8), "{told}");
    assert!(told.contains(says), "'{says}' is not in: {told}");
}
