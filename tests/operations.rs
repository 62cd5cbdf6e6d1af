//! What whoever runs a broker does to it while it works: asks it what it knows, lets it read its settings anew, lets its log be moved.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::process::Command;

use harness::{Broker, Http, Place, Program, Said, Table, WorkerProcess, wait_for, wait_until};
use serde_json::{Value, json};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// The lines of a broker's log that meet a condition.
fn lines(broker: &Broker, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    broker.log().into_iter().filter(fits).collect()
}

#[test]
fn a_signal_has_lanes_leases_and_threads_written_into_the_log() {
    // Proves SIGTTIN: each lane, each lease with who has it, each thread of the table in ARCHITECTURE.md by its name; and that the
    // work goes on.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "name=keeper slots=2");
    let gate = place.path("open");
    let task = table.insert("gate", &json!({ "path": gate }).to_string());
    place.journal().wait_for_begin(task, 1);
    table.insert("nobody", "1");
    broker.signal("TTIN");
    let told = |event: &str| lines(&broker, |line| line["target"] == "laneway::dump" && line["event"] == event);
    // They are written last.
    let mut names =
        vec!["main", "router", "scheduler", "sync", "checkpoint", "task-log", "log-writer", "memory", "signals"];
    wait_until("each thread", || {
        let threads = told("thread");
        names.retain(|name| !threads.iter().any(|line| line["name"] == *name && line["cpu_ms"].is_u64()));
        names.is_empty()
    });
    let broker_line = wait_for("the broker's line", || told("broker").pop());
    assert_eq!((&broker_line["running"], &broker_line["workers"]), (&json!(1), &json!(1)), "{broker_line}");
    let lanes: Vec<Value> = told("lane").iter().map(|line| line["lane"].clone()).collect();
    assert_eq!(lanes, ["high", "normal", "low"]);
    let leases = told("lease");
    assert_eq!((leases.len(), &leases[0]["task"], &leases[0]["kind"]), (1, &json!(task), &json!("gate")));
    assert!(leases[0]["worker"].as_str().unwrap().starts_with("keeper@"), "{}", leases[0]);
    assert!(leases[0]["since_ms"].is_u64() && leases[0]["left_ms"].as_u64().unwrap() > 3_000_000, "{}", leases[0]);
    assert!(leases[0].get("lease").is_none(), "whoever reads the log could end the run");
    std::fs::write(&gate, "").unwrap();
    table.wait_for_state(task, "done");
    assert_eq!(broker.stop(), 0);
}

#[test]
fn settings_are_read_anew_and_a_file_with_an_error_changes_nothing() {
    // Proves SIGHUP for the level of the log, the retention and the stop timeout, each told as old and new with its origin; that what
    // holds until the next start is named; and that a broken file is told as at a start while the broker goes on with the old.
    let place = Place::new();
    let file = place.path("laneway.toml");
    std::fs::write(&file, "stall_ms = 2000\n").unwrap();
    let broker = Broker::start_as(&place, &["--config", file.to_str().unwrap()]);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let reloads = || lines(&broker, |line| line["message"] == "the settings are read again").len();
    let rejected =
        |level: &str| lines(&broker, |line| line["message"] == "rejected a row" && line["level"] == level).len();
    let reject = || {
        let id = table.one::<i64>("INSERT INTO tasks(kind, max_attempts) VALUES ('x', -1) RETURNING id", []);
        table.wait_for_state(id, "dead");
    };
    reject();
    let kept = table.insert("echo", "1");
    table.wait_for_state(kept, "done");
    assert_eq!(rejected("DEBUG"), 0, "nobody has asked for that yet");

    let text =
        "stall_ms = 3000\nlog = \"debug\"\nstop_timeout_ms = 7\n[retention]\ndone_age_ms = 0\n[kinds.mail]\ncap = 1\n";
    std::fs::write(&file, text).unwrap();
    broker.signal("HUP");
    wait_until("the settings to be read again", || reloads() == 1);
    let change = |name: &str| {
        let told = lines(&broker, |line| line["setting"] == name);
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        let field = |field: &str| told[0][field].as_str().unwrap().to_owned();
        assert!(field("origin").starts_with("file "), "{told:?}");
        (field("level"), field("old"), field("new"), field("message"))
    };
    let changed = |level: &str, old: &str, new: &str, text: &str| (level.into(), old.into(), new.into(), text.into());
    assert_eq!(change("log"), changed("INFO", "\"info\"", "\"debug\"", "a setting is changed"));
    assert_eq!(change("retention.done_age_ms"), changed("INFO", "604800000", "0", "a setting is changed"));
    assert_eq!(change("stall_ms"), changed("WARN", "2000", "3000", "takes effect at the next start"));
    assert!(change("kinds.mail.cap").3.contains("`laneway kind set`"));
    wait_until("the done task to be deleted", || table.count("kind = 'echo'") == 0);
    reject();
    wait_until("a line for those who look for faults", || rejected("DEBUG") == 1);

    std::fs::write(&file, "stop_timeout_ms = 1\nlog = \"loud\"\n").unwrap();
    broker.signal("HUP");
    let errors = || lines(&broker, |line| line["message"] == "the settings stay as they were before");
    wait_until("the error to be told", || errors().len() == 1);
    let error = errors()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("log is 'loud' (file ") && error.contains("is not a level"), "{error}");
    reject();
    wait_until("the old level to go on", || rejected("DEBUG") == 2);
    broker.signal("TERM");
    wait_until("the stop", || !lines(&broker, |line| line["timeout_ms"] == 7).is_empty());
}

#[test]
fn the_dashboard_shows_the_settings_that_hold_now() {
    // Proves that its page about the broker is no picture of the start.
    let place = Place::new();
    let file = place.path("laneway.toml");
    std::fs::write(&file, "stop_timeout_ms = 4001\n").unwrap();
    let broker = Broker::start_as(&place, &["--config", file.to_str().unwrap(), "--web", "127.0.0.1:0"]);
    let http = Http::of(&broker);
    assert!(http.get("/about").is(200).body.contains("<code>4001</code>"));
    std::fs::write(&file, "stop_timeout_ms = 4002\n").unwrap();
    broker.signal("HUP");
    wait_until("the page to say so", || http.get("/about").body.contains("<code>4002</code>"));
    assert!(!http.get("/about").body.contains("<code>4001</code>"));
}

#[test]
fn the_broker_rotates_its_log_and_a_reader_follows() {
    // Proves that under load no line is lost between the files, that no file is over the bound and no more are kept than may be, that
    // `laneway log -f` shows each line once across all rotations, and that more are kept when a SIGHUP says so.
    let place = Place::new();
    let file = place.path("laneway.toml");
    let settings = |files: u32| format!("log_file_bytes_max = 8192\nlog_files_max = {files}\n");
    std::fs::write(&file, settings(1_000)).unwrap();
    let log = place.path("rotated.log");
    let words = ["--config", file.to_str().unwrap(), "--log-file", log.to_str().unwrap()];
    // The harness reads the log by its own name; here it is another file.
    let mut broker = Command::new(env!("CARGO_BIN_EXE_laneway"));
    broker.args(["broker", "--bind", &place.endpoint(), "--log-format", "json", "--db"]).arg(place.db()).args(words);
    let broker = Program::start(&mut broker);
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap_or_default();
    wait_until("the broker to be ready", || read("rotated.log").contains("\"ready\""));
    let mut reader = Command::new(env!("CARGO_BIN_EXE_laneway"));
    reader.args(["log", log.to_str().unwrap(), "-f", "-n", "0", "--event", "done", "-o", "json"]).env_clear();
    let shown = std::fs::File::create(place.path("shown")).unwrap();
    let mut reader = reader.stdout(shown).spawn().unwrap();

    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "slots=4 batch=8");
    table.insert_many(300, "normal", "echo", "1");
    table.wait_for_count("state = 'done'", 300);
    let done = |text: &str| -> Vec<i64> {
        // The last one may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ids: Vec<i64> =
            lines.filter(|line| line["event"] == "done").map(|line| line["task"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    let all: Vec<i64> = (1..=300).collect();
    let names = || -> Vec<String> {
        let numbered = (1..).map(|n| format!("rotated.log.{n}")).take_while(|name| place.path(name).exists());
        numbered.chain(["rotated.log".to_owned()]).collect()
    };
    wait_until("the last line to be written", || {
        done(&names().iter().map(|name| read(name)).collect::<String>()) == all
    });
    wait_until("the reader to have shown each once", || done(&read("shown")) == all);
    assert!(names().len() > 5, "{:?}", names());
    for name in names() {
        let bytes = std::fs::metadata(place.path(&name)).unwrap().len();
        assert!(bytes <= 8_192, "{name} has {bytes} bytes");
    }
    let rotated =
        Said::by(&place, &[], &["log", "rotated.log", "--rotated", "-n", "0", "--event", "done", "-o", "json"]);
    assert_eq!(done(&rotated.out), all);

    std::fs::write(&file, settings(2)).unwrap();
    broker.signal("HUP");
    wait_until("only two to be kept", || {
        table.insert("echo", "1");
        names().len() == 3
    });
    assert_eq!(broker.stop(), 0);
    reader.kill().unwrap();
    reader.wait().unwrap();
}
