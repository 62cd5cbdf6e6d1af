//! How things end: the broker by signals, a second broker on one database, the workers by a drain or a signal of their own;
//! and the log that tells what happened to each task.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Broker, Place, Table, WorkerProcess, wait_until};
use serde_json::Value;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

#[test]
fn a_stopping_broker_settles_what_arrives_and_the_next_one_resumes_the_rest() {
    // Proves for both signals: nothing more is handed out, an outcome that comes in time is settled, what still runs stays
    // its worker's row, the exit code is 0, and the next broker takes up the same runs.
    let place = Place::new();
    let table_of = || Table::open(&place);
    let mut worker = None;
    for (round, signal) in ["TERM", "INT"].into_iter().enumerate() {
        let mut broker = Broker::start_with(&place, &["stop_timeout_ms=4000"]);
        let table = table_of();
        worker.get_or_insert_with(|| WorkerProcess::start(&place, "slots=4"));
        let gates = [place.path(&format!("soon-{round}")), place.path(&format!("late-{round}"))];
        let [soon, late] = gates.each_ref().map(|gate| table.insert("gate", &gate_payload(gate)));
        for task in [soon, late] {
            place.journal().wait_for_begin(task, 1);
        }
        broker.signal(signal);
        wait_until("the broker to stop", || says(&broker, "stopping"));
        let waiting = table.insert("echo", "1");
        std::fs::write(&gates[0], "").unwrap();
        table.wait_for_state(soon, "done");
        assert!(broker.is_running(), "it did not wait for what still runs");
        assert_eq!(broker.wait(), 0);
        assert_eq!(table.column::<String>(late, "state || ' ' || runs"), "running 1");
        assert_eq!(table.column::<String>(waiting, "state || ' ' || runs"), "queued 0", "handed out while it stopped");

        let broker = Broker::start_with(&place, &["stop_timeout_ms=100"]);
        table.wait_for_state(waiting, "done");
        assert_eq!(table.state(late), "running");
        std::fs::write(&gates[1], "").unwrap();
        for task in [soon, late] {
            table.wait_for_state(task, "done");
            let counts = "runs || ' ' || attempts || ' ' || losses || ' ' || releases";
            assert_eq!(table.column::<String>(task, counts), "1 1 0 0", "runs, attempts, losses, releases");
        }
        assert_eq!(broker.stop(), 0);
    }
}

#[test]
fn a_service_manager_hears_of_the_start_the_loop_and_the_stop() {
    // Proves what systemd counts on with Type=notify and WatchdogSec: each word in its time, and QUIT ends it like a second TERM.
    let place = Place::new();
    let path = place.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(harness::DEADLINE)).unwrap();
    let hear = || {
        let mut word = [0; 64];
        let n = manager.recv(&mut word).unwrap();
        String::from_utf8_lossy(&word[..n]).trim().to_owned()
    };
    let env = [("NOTIFY_SOCKET", path.into_os_string()), ("WATCHDOG_USEC", "2000000".into())];
    for signal in ["TERM", "QUIT"] {
        let mut broker = Broker::start_as_under(&place, &[], &env);
        assert_eq!(hear(), "READY=1");
        assert_eq!(hear(), "WATCHDOG=1");
        assert_eq!(hear(), "WATCHDOG=1");
        broker.signal(signal);
        assert_eq!(broker.wait(), 0);
        manager.set_nonblocking(true).unwrap();
        let mut last = String::new();
        let mut word = [0; 64];
        while let Ok(n) = manager.recv(&mut word) {
            last = String::from_utf8_lossy(&word[..n]).trim().to_owned();
        }
        manager.set_nonblocking(false).unwrap();
        assert_eq!(last == "STOPPING=1", signal == "TERM", "{last}");
    }
}

#[test]
fn a_quiet_broker_hands_nothing_out_until_it_is_told_to() {
    // Proves SIGTSTP and SIGCONT: the process goes on, what runs ends and is on disk, submits are taken, workers stay, nothing
    // starts, and everybody is told; then what has waited is run. Under a supervisor the signals go through to the broker.
    for words in [&[][..], &["--supervise"]] {
        let place = Place::new();
        let broker = Broker::start_as(&place, words);
        let table = Table::open(&place);
        let mut worker = WorkerProcess::start(&place, "slots=2");
        let gate = place.path("open");
        let running = table.insert("gate", &gate_payload(&gate));
        place.journal().wait_for_begin(running, 1);
        broker.signal("TSTP");
        wait_until("the broker to be quiet", || broker.client().stats().unwrap().quiet);
        wait_until("the next step to be told", || says(&broker, "quiet: nothing is handed out"));
        let inserted = table.insert("echo", "1");
        let submitted = laneway(&["--endpoint", broker.endpoint(), "submit", "echo", "2"]);
        assert_eq!(submitted.status.code(), Some(0), "{submitted:?}");
        std::fs::write(&gate, "").unwrap();
        table.wait_for_state(running, "done");
        let checked = laneway(&["--endpoint", broker.endpoint(), "check"]);
        assert!(String::from_utf8_lossy(&checked.stdout).contains("is quiet"), "{checked:?}");
        assert_eq!(checked.status.code(), Some(1));
        let explained = laneway(&["--endpoint", broker.endpoint(), "task", "explain", &inserted.to_string()]);
        assert!(String::from_utf8_lossy(&explained.stdout).contains("SIGCONT"), "{explained:?}");
        assert!(worker.is_running() && broker.client().stats().unwrap().running == 0);
        assert_eq!(table.count("runs = 0 AND state = 'queued'"), 2, "something was started");
        broker.signal("CONT");
        table.wait_for_count("state = 'done'", 3);
        assert!(!broker.client().stats().unwrap().quiet);
        assert_eq!(broker.stop(), 0);
    }
}

#[test]
fn an_idle_broker_stops_at_once_and_a_second_signal_stops_any() {
    // Proves that the stop timeout is waited for only while something runs, and not at all when asked twice.
    let place = Place::new();
    let patient = ["stop_timeout_ms=3600000"];
    let broker = Broker::start_with(&place, &patient);
    assert_eq!(broker.stop(), 0);

    let mut broker = Broker::start_with(&place, &patient);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let gate = place.path("open");
    let task = table.insert("gate", &gate_payload(&gate));
    place.journal().wait_for_begin(task, 1);
    table.wait_for_state(task, "running");
    broker.signal("TERM");
    wait_until("the broker to stop", || says(&broker, "stopping"));
    broker.signal("INT");
    assert_eq!(broker.wait(), 0);
    // What runs in workers goes on in this case too.
    let _broker = Broker::start(&place);
    std::fs::write(&gate, "").unwrap();
    table.wait_for_state(task, "done");
    assert_eq!(table.column::<i64>(task, "runs"), 1);
}

#[test]
fn a_second_broker_on_one_database_is_refused_and_told_of_the_first() {
    // Proves that the second one ends with the exit code for the database, names the first, and takes nothing from it: its
    // clients and workers go on.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let first = table.insert("echo", "1");
    table.wait_for_state(first, "done");
    // By the same socket, and by another.
    for endpoint in [place.endpoint(), format!("ipc://{}", place.path("other.sock").display())] {
        let db = place.db();
        let second = laneway(&["broker", "--db", db.to_str().unwrap(), "--bind", &endpoint]);
        assert_eq!(second.status.code(), Some(8), "{second:?}");
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(said.contains(&format!("pid {} on ", broker.pid())), "{said}");
    }
    let again = table.insert("echo", "1");
    table.wait_for_state(again, "done");
    assert!(broker.client().ping().is_ok());
    assert_eq!(table.one::<i64>("SELECT count(*) FROM laneway_epochs", []), 1);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_drain_lets_workers_finish_and_leave() {
    // Proves that a drain hands nothing more out, that what runs is finished and settled before its worker leaves, and that
    // `--off` ends it.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let mut workers = [WorkerProcess::start(&place, "slots=2"), WorkerProcess::start(&place, "slots=2")];
    wait_until("the workers to be connected", || broker.client().workers().unwrap().len() == 2);
    let gate = place.path("open");
    let running = table.insert("gate", &gate_payload(&gate));
    place.journal().wait_for_begin(running, 1);

    let drain = laneway(&["--endpoint", broker.endpoint(), "drain"]);
    assert_eq!(drain.status.code(), Some(0), "{drain:?}");
    let waiting = table.insert("echo", "1");
    std::fs::write(&gate, "").unwrap();
    let drained = laneway(&["--endpoint", broker.endpoint(), "drain", "--wait", "60"]);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    for worker in &mut workers {
        assert_eq!(worker.wait(), 0);
    }
    assert_eq!(table.column::<String>(running, "state || ' ' || runs || attempts || losses"), "done 110");
    assert_eq!(table.column::<String>(waiting, "state || ' ' || runs"), "queued 0");

    let off = laneway(&["--endpoint", broker.endpoint(), "drain", "--off"]);
    assert_eq!(off.status.code(), Some(0), "{off:?}");
    let _worker = WorkerProcess::start(&place, "");
    table.wait_for_state(waiting, "done");
    assert_eq!(broker.client().stats().unwrap().lost, 0);
}

#[test]
fn a_drain_with_release_ends_workers_first_and_blames_no_task() {
    // Proves `laneway drain --release`, then a stop: what ran goes back with nothing but a release counted, its worker ends
    // by itself, and the broker has nothing to wait for.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["stop_timeout_ms=3600000"]);
    let table = Table::open(&place);
    let mut worker = WorkerProcess::start(&place, "slots=2");
    let tasks: Vec<i64> = (0..2).map(|_| table.insert("sleep", r#"{"ms":3600000}"#)).collect();
    for &task in &tasks {
        place.journal().wait_for_begin(task, 1);
    }
    let drained = laneway(&["--endpoint", broker.endpoint(), "drain", "--release", "--wait", "60"]);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    assert_eq!(worker.wait(), 0);
    for &task in &tasks {
        let columns = "state || ' ' || runs || ' ' || attempts || ' ' || losses || ' ' || releases";
        assert_eq!(table.column::<String>(task, columns), "queued 1 0 0 1");
    }
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_worker_that_is_told_to_end_finishes_what_it_runs_or_hands_it_back() {
    // Proves that SIGTERM of a worker costs no loss: a task that ends in time is settled before the process exits, one that
    // does not is released, and the broker has heard the good-bye by then.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["disconnect_grace_ms=60000"]);
    let table = Table::open(&place);
    let mut finisher = WorkerProcess::start(&place, "slots=2");
    let gate = place.path("open");
    let task = table.insert("gate", &gate_payload(&gate));
    place.journal().wait_for_begin(task, 1);
    finisher.signal("TERM");
    // It takes no more: the next one waits.
    wait_until("the worker to take no more", || broker.client().stats().unwrap().ready == 0);
    let waiting = table.insert("echo", "1");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(finisher.wait(), 0);
    assert_eq!(table.column::<String>(task, "state || ' ' || runs || attempts || losses || releases"), "done 1100");
    assert_eq!(broker.client().workers().unwrap(), [], "the good-bye was not answered before the exit");
    assert_eq!(table.column::<String>(waiting, "state || ' ' || runs"), "queued 0");

    let releaser = WorkerProcess::start(&place, "stop_ms=100");
    table.wait_for_state(waiting, "done");
    let task = table.insert("sleep", r#"{"ms":3600000}"#);
    place.journal().wait_for_begin(task, 1);
    assert_eq!(releaser.stop(), 0);
    assert_eq!(table.column::<String>(task, "state || ' ' || runs || attempts || losses || releases"), "queued 1001");
    assert_eq!(broker.client().workers().unwrap(), []);
    let stats = broker.client().stats().unwrap();
    assert_eq!((stats.lost, stats.released), (0, 1));
    assert_eq!(broker.stop(), 0);
}

#[test]
fn the_log_has_a_line_for_each_event_of_a_task() {
    // Proves that started, done, failed, lost and dead are told as JSON lines with everything that a question about a task
    // needs, each once.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["defaults.losses_max=2", "defaults.backoff_base_ms=1"]);
    let table = Table::open(&place);
    let die = table.insert("die", "{}");
    for losses in 1..=2 {
        let mut worker = WorkerProcess::start(&place, "kinds=die");
        wait_until("the worker to die", || !worker.is_running());
        table.wait_for_count(&format!("losses = {losses}"), 1);
    }
    let _worker = WorkerProcess::start(&place, "name=steady");
    let done = table.insert_in("high", "sleep", r#"{"ms":30}"#);
    let failed = table.insert("fail_once", "{}");
    table.execute("INSERT INTO tasks(kind, lane, max_attempts) VALUES ('fail', 'low', 2)", []);
    let dead = table.0.last_insert_rowid();
    for (task, state) in [(die, "dead"), (done, "done"), (failed, "done"), (dead, "dead")] {
        table.wait_for_state(task, state);
    }
    assert_eq!(broker.client().stats().unwrap().log_lines_dropped, 0);
    let lines = |task: i64| -> Vec<Value> {
        broker.log().into_iter().filter(|line| line["target"] == "laneway::task" && line["task"] == task).collect()
    };
    let events = |task: i64| -> Vec<String> {
        lines(task)
            .iter()
            .map(|line| format!("{} {} {}", line["event"].as_str().unwrap(), line["run"], line["attempt"]))
            .collect()
    };
    // Lines are written behind the commit.
    let expected: [(i64, &[&str]); 4] = [
        (die, &["started 1 1", "lost 1 1", "started 2 1", "dead 2 1"]),
        (done, &["started 1 1", "done 1 1"]),
        (failed, &["started 1 1", "failed 1 1", "started 2 2", "done 2 2"]),
        (dead, &["started 1 1", "failed 1 1", "started 2 2", "dead 2 2"]),
    ];
    for (task, expected) in expected {
        wait_until("the lines to be written", || events(task) == expected);
        for line in lines(task) {
            assert_eq!(line["kind"], table.column::<String>(task, "kind"), "{line}");
            assert_eq!(line["lane"], table.column::<Option<String>>(task, "lane").unwrap_or("normal".into()), "{line}");
            assert!(line["worker"].as_str().is_some_and(|worker| !worker.is_empty()), "{line}");
            let time = if line["event"] == "started" { "wait_ms" } else { "run_ms" };
            assert!(line[time].is_u64(), "{line} has no {time}");
            let error = matches!(line["event"].as_str().unwrap(), "failed" | "lost" | "dead");
            assert_eq!(line["error"].is_string(), error, "{line}");
        }
    }
    let run_ms = lines(done)[1]["run_ms"].as_u64().unwrap();
    assert!((30..10_000).contains(&run_ms), "run_ms is {run_ms}");
}

fn laneway(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(words).env_clear().stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output().unwrap();
    assert!(started.elapsed() < harness::DEADLINE, "{words:?} took {:?}", started.elapsed());
    output
}

/// Whether the broker's log has a line that begins so.
fn says(broker: &Broker, what: &str) -> bool {
    broker.log().iter().any(|line| line["message"].as_str().is_some_and(|text| text.starts_with(what)))
}

fn gate_payload(path: &std::path::Path) -> String {
    serde_json::json!({ "path": path }).to_string()
}

#[test]
fn an_idle_worker_leaves_with_success_though_its_broker_was_killed() {
    // Proves that a worker without tasks soon knows that its last outcome is on disk, long before the question it waits with
    // is answered: it has nothing to say to a broker that is gone, waits for none, and ends with 0.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let worker = WorkerProcess::start(&place, "slots=3");
    let ids: Vec<i64> = (0..7).map(|n| table.insert("echo", &n.to_string())).collect();
    for id in ids {
        table.wait_for_state(id, "done");
    }
    // Much longer than word of it takes, much shorter than the question waits.
    std::thread::sleep(Duration::from_secs(2));
    broker.kill();
    let asked = Instant::now();
    assert_eq!(worker.stop(), 0);
    assert!(asked.elapsed() < Duration::from_secs(4), "it waited {:?} for a broker", asked.elapsed());
}

#[test]
fn a_stop_before_the_broker_is_ready_ends_it() {
    // Proves that a broker which waits for its database is not deaf meanwhile, and that the next one starts as ever.
    let place = Place::new();
    assert_eq!(Broker::start(&place).stop(), 0);
    let table = Table::open(&place);
    table.execute("BEGIN IMMEDIATE", []);
    let mut broker = Broker::spawn(&place, &[]);
    // It listens before it opens the database.
    wait_until("the broker to wait for the database", || place.path("broker.sock").exists());
    broker.signal("TERM");
    assert_eq!(broker.wait(), 0);
    assert!(broker.ready_lines().is_empty());
    table.execute("COMMIT", []);
    assert_eq!(Broker::start(&place).stop(), 0);
}
