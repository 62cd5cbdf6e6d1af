//! Promise 8 on the command line, and the table of exit codes: the real program against a real broker, and against nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, Said, Table, WorkerProcess, wait_until};
use serde_json::{Value, json};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// Runs `laneway` in the place's folder and with nothing in its environment.
fn bare(place: &Place, words: &[&str]) -> Said {
    with(place, &[], words)
}

/// The same with something in it.
fn with(place: &Place, environment: &[(&str, &str)], words: &[&str]) -> Said {
    Said::by(place, environment, words)
}

/// With the place's broker as the one to ask.
fn laneway(place: &Place, words: &[&str]) -> Said {
    let endpoint = place.endpoint();
    bare(place, &[&["--endpoint", &endpoint], words].concat())
}

/// With the place's database file, whose broker is not there.
fn on_file(place: &Place, words: &[&str]) -> Said {
    bare(place, &[&["--db", "tasks.db"], words].concat())
}

#[test]
fn a_task_can_be_run_as_if_it_were_a_program() {
    // Proves `submit --wait`: the result alone on standard output, progress beside it, the end as the exit code.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let said = laneway(&place, &["submit", "echo", r#"{"a": 1}"#, "--wait"]);
    said.is(0, "task 1");
    assert_eq!(said.json(), [json!({"a": 1})]);

    let said = laneway(&place, &["submit", "progress", r#"{"steps": 3, "ms": 50}"#, "--wait=60", "-o", "json"]);
    said.is(0, r#""note":"step 3""#);
    assert_eq!(said.json(), [json!({"task": 2, "new": true, "state": "done", "result": {"steps": 3}})]);

    laneway(&place, &["submit", "fail", "--max-attempts", "1", "--wait"]).is(1, "task 3 is dead: it always fails");
    laneway(&place, &["submit", "nobody", "--wait=200ms"]).is(6, "task 4");
    let shown = laneway(&place, &["task", "show", "3"]).out;
    assert!(shown.contains("1 of 1 (1 run, 0 losses, 0 releases)"), "{shown}");
}

#[test]
fn what_is_refused_is_told_by_text_and_exit_code() {
    // Proves that each sort of mistake has its own exit code and names what was wrong.
    let place = Place::new();
    let _broker = Broker::start(&place);
    laneway(&place, &["submit", "echo", "{a: 1}"]).is(2, "is not JSON");
    laneway(&place, &["submit", "echo", "--lane", "medium"]).is(5, "high, normal, low");
    laneway(&place, &["submit", "echo", "--run-at", "1700000000"]).is(2, "1700000000000");
    laneway(&place, &["task", "show", "77"]).is(4, "no task 77");
    laneway(&place, &["task", "cancel", "77"]).is(4, "no task 77");
    laneway(&place, &["lane", "pause", "medium"]).is(5, "medium");
    laneway(&place, &["stats", "--endpoint", "what://x"]).is(2, "what://x");
    bare(&place, &["stats", "--endpoint", "tcp://127.0.0.1:1"]).is(3, "no broker answers at tcp://127.0.0.1:1");
    bare(&place, &["broker", "--db", "tasks.db", "--bind", "ipc://other.sock"]).is(8, "another broker");
    bare(&place, &["broker", "--db", "other.db", "--bind", &place.endpoint()]).is(1, "another broker listens there");
    bare(&place, &["broker", "--set", "beat_ms=1"]).is(7, "beat_ms is 1 (flag --set), must be 100 to 60000");
    bare(&place, &["broker", "--bind", "tcp://0.0.0.0:7733"]).is(7, "open to other machines");
    bare(&place, &["broker", "--config", "none.toml"]).is(7, "none.toml");
    bare(&place, &["broker", "--db", "no/such/folder/t.db"]).is(8, "no/such/folder");
    let error = laneway(&place, &["task", "show", "77"]).err;
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn tasks_are_listed_shown_cancelled_and_retried() {
    // Proves the life of a task from the command line, in JSON that a script can rely on.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let submit = |words: &[&str]| laneway(&place, &[&["submit"], words].concat());
    assert_eq!(submit(&["echo", "[1, 2]", "--unique", "k", "--run-at", "+1h"]).out, "1\n");
    submit(&["echo", "--unique", "k"]).is(0, "has this key already");
    assert_eq!(submit(&["echo", "--unique", "k", "-o", "json"]).json(), [json!({"task": 1, "new": false})]);

    let show = laneway(&place, &["task", "show", "1", "-o", "json"]).json();
    assert_eq!((&show[0]["payload"], &show[0]["state"]), (&json!([1, 2]), &json!("queued")));
    assert!(show[0]["explain"].is_string());
    // Its row names no lane, and it waits in one all the same.
    assert_eq!(show[0]["lane"], "normal");
    let shown = laneway(&place, &["task", "show", "1"]).out;
    assert!(shown.contains("unique key  k") && shown.contains("0 (0 runs, 0 losses, 0 releases)"), "{shown}");

    let cancel = laneway(&place, &["task", "cancel", "1", "-o", "json"]).json();
    assert_eq!(cancel, [json!({"task": 1, "verdict": "cancelled"})]);
    let retry = laneway(&place, &["task", "retry", "1", "-o", "json"]).json();
    assert_eq!(retry, [json!({"task": 1, "verdict": "requeued"})]);
    laneway(&place, &["task", "cancel", "1"]).is(0, "");

    for _ in 0..5 {
        submit(&["nobody"]).is(0, "");
    }
    let ids = |words: &[&str]| -> Vec<i64> {
        let list = laneway(&place, &[&["task", "list", "-o", "json"], words].concat()).json();
        list.iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    let all = ids(&["--all"]);
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted_by(|newer, older| newer > older), "{all:?}");
    assert_eq!(ids(&["--state", "cancelled"]), [1]);
    assert_eq!(ids(&["--kind", "nobody", "--limit", "2"]), all[..2]);
    let table = laneway(&place, &["task", "list", "--limit", "2"]);
    table.is(0, &format!("--before {}", all[1]));
    assert_eq!(table.out.lines().count(), 3, "{}", table.out);
}

#[test]
fn lanes_workers_and_numbers_are_shown_and_a_drain_ends_the_workers() {
    // Proves the commands about the broker itself; a drained worker leaves by itself and its task is still there.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let mut worker = WorkerProcess::start(&place, "name=w1 slots=2");
    let one = |words: &[&str]| laneway(&place, &[words, &["-o", "json"]].concat()).json();
    wait_until("the worker to be listed", || one(&["worker", "list"]).iter().any(|row| row["ready"] == 2));
    assert_eq!(one(&["worker", "list"])[0]["name"], "w1");

    let paused = |rows: &[Value]| -> Vec<bool> { rows.iter().map(|row| row["paused"] == true).collect() };
    assert_eq!(paused(&one(&["lane", "pause", "low", "high"])), [true, false, true]);
    assert_eq!(paused(&one(&["lane", "resume", "high"])), [false, false, true]);
    assert!(laneway(&place, &["lane", "list"]).out.contains("paused"));

    let id = table.insert("gate", &json!({ "path": place.path("gate") }).to_string());
    table.wait_for_state(id, "running");
    assert_eq!(one(&["stats"])[0]["running"], 1);
    laneway(&place, &["drain", "--wait", "0"]).is(6, "left: 1 worker, 1 task running");
    laneway(&place, &["drain", "--release", "--wait", "60"]).is(0, "");
    assert_eq!(worker.wait(), 0);
    table.wait_for_state(id, "queued");
    assert_eq!(table.column::<i64>(id, "releases"), 1);
    assert_eq!(one(&["drain", "--off"])[0]["draining"], false);
}

#[test]
fn without_a_broker_the_file_is_used_and_the_next_broker_takes_over() {
    // Proves that submit, list and show go on without a broker and say so, and that what they wrote is run later.
    let place = Place::new();
    on_file(&place, &["submit", "echo"]).is(3, "there is no database");
    on_file(&place, &["db", "status"]).is(4, "laneway db init");
    on_file(&place, &["db", "init"]).is(0, "");
    let said = on_file(&place, &["submit", "echo", r#"{"a": 1}"#]);
    said.is(0, "using the file tasks.db");
    assert_eq!(said.out, "1\n");
    let listed = on_file(&place, &["task", "list", "-o", "json"]).json();
    assert_eq!((&listed[0]["kind"], &listed[0]["lane"]), (&json!("echo"), &json!("normal")));
    assert_eq!(on_file(&place, &["task", "show", "1", "-o", "json"]).json()[0]["payload"], json!({"a": 1}));
    let why = on_file(&place, &["task", "show", "1", "-o", "json"]).json()[0]["explain"].to_string();
    assert!(why.contains("no broker runs"), "{why}");
    on_file(&place, &["submit", "echo", "--run-at", "+1h", "--wait", "-o", "json"]).is(6, "is not waited for");
    on_file(&place, &["task", "show", "3"]).is(4, "no task 3");
    on_file(&place, &["task", "cancel", "1"]).is(3, "no broker answers");
    // No broker has written down which lanes there are.
    bare(&place, &["db", "init", "--db", "new.db"]).is(0, "");
    bare(&place, &["submit", "echo", "--lane", "later", "--db", "new.db"])
        .is(0, "nothing tells whether there is a lane later");
    // A worker that outlived its broker may have the task, so nobody can promise that it does not run as it was.
    let keyed = ["submit", "echo", "1", "--unique", "one", "--db", "new.db"];
    bare(&place, &keyed).is(0, "");
    bare(&place, &[&keyed[..], &["--on-conflict", "replace"]].concat())
        .is(5, "only a broker knows whether a worker has");
    // Whoever names a broker does not mean the file.
    std::fs::copy(place.db(), place.path("laneway.db")).unwrap();
    bare(&place, &["task", "list", "--endpoint", "ipc://none.sock"]).is(3, "ipc://none.sock");
    bare(&place, &["task", "list", "--db", "tasks.db", "--endpoint", "ipc://none.sock"]).is(2, "give one of them");

    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    Table::open(&place).wait_for_state(1, "done");
    // What the broker has written down tells which lanes there are.
    on_file(&place, &["submit", "echo", "--lane", "medium"])
        .is(5, "unknown_lane: lane 'medium' is not configured: use one of high, normal, low");
    assert_eq!(Table::open(&place).count("1"), 2);
    // A killed broker leaves its socket behind; that is no broker.
    broker.kill();
    bare(&place, &["stats", "--endpoint", &place.endpoint()]).is(3, "no broker answers");
}

#[test]
fn each_task_leaves_lines_that_answer_questions() {
    // Proves the log of a default broker: started, done, failed and dead with kind, lane, run, attempt and times.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let done = table.insert("echo", "1");
    let dead = table.one("INSERT INTO tasks(kind, max_attempts) VALUES ('fail', 1) RETURNING id", []);
    table.wait_for_state(done, "done");
    table.wait_for_state(dead, "dead");
    let events = |task: i64| -> Vec<Value> {
        let mut lines = broker.log();
        lines.retain(|line| line["target"] == "laneway::task" && line["task"] == task);
        lines
    };
    let names =
        |task| -> Vec<String> { events(task).iter().map(|line| line["event"].as_str().unwrap().into()).collect() };
    wait_until("the lines of the done task", || names(done) == ["started", "done"]);
    wait_until("the lines of the dead task", || names(dead).contains(&"dead".into()));
    for line in events(done) {
        assert_eq!(
            (&line["kind"], &line["lane"], &line["run"]),
            (&json!("echo"), &json!("normal"), &json!(1)),
            "{line}"
        );
        assert_eq!((&line["attempt"], &line["level"]), (&json!(1), &json!("INFO")), "{line}");
        assert!(line["worker"].is_string(), "{line}");
    }
    assert!(events(done)[0]["wait_ms"].is_u64());
    assert!(events(done)[1]["run_ms"].is_u64());
    assert!(events(dead).iter().any(|line| line["error"] == "it always fails"));
}

#[test]
fn lists_longer_than_a_message_are_printed_whole_and_a_long_wait_is_explained() {
    // Proves that rows with long errors are listed in pages, that one with many long failures can be shown, and that who
    // waits for a kind without workers is told.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let text = "é".repeat(4_000);
    table.0.execute_batch("BEGIN").unwrap();
    for _ in 0..200 {
        let sql = "INSERT INTO tasks(kind, state, error, finished_at) VALUES ('old', 'cancelled', ?1, 1)";
        table.execute(sql, [&text]);
    }
    for run in 1..=20 {
        let sql = "INSERT INTO failures(task, run, cause, failed_at, error) VALUES (7, ?1, 'failed', 1, ?2)";
        table.execute(sql, (run, &text));
    }
    table.0.execute_batch("COMMIT").unwrap();
    let ids = |said: &Said| said.json().iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<i64>>();
    let listed = laneway(&place, &["task", "list", "--limit", "200", "-o", "json"]);
    assert_eq!(ids(&listed), (1..=200).rev().collect::<Vec<i64>>(), "{}", listed.err);
    let all: Vec<String> = (1..=16).map(|id| id.to_string()).collect();
    let words: Vec<&str> =
        ["task", "show"].into_iter().chain(all.iter().map(String::as_str)).chain(["-o", "json"]).collect();
    let shown = laneway(&place, &words);
    assert_eq!(ids(&shown), (1..=16).collect::<Vec<i64>>(), "{}", shown.err);
    let failures = shown.json()[6]["failures"].as_array().unwrap().clone();
    assert_eq!(failures.last().unwrap()["run"], 20, "the newest is there");
    let said = laneway(&place, &["submit", "nobody", "--wait=3", "-o", "json"]);
    said.is(6, "no connected worker can run kind 'nobody'");
    assert_eq!(said.json(), [json!({"task": 201, "new": true, "state": "queued"})]);
}

#[test]
fn what_is_told_beside_a_json_answer_is_json_and_an_error_is_a_line() {
    // Proves that a program can read standard error too: of a wait, of a group, of a list with more behind it, and without a broker.
    let place = Place::new();
    let broker = Broker::start(&place);
    // What is told beside the answer, and the error behind it.
    let aside = |said: &Said| {
        let (errors, told): (Vec<&str>, Vec<&str>) = said.err.lines().partition(|line| line.starts_with("laneway: "));
        assert_eq!(errors.len(), usize::from(said.code != 0), "{}", said.err);
        let json = |line: &&str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        (told.iter().map(json).collect::<Vec<Value>>(), errors.concat())
    };
    let (told, error) = aside(&laneway(&place, &["submit", "nobody", "--wait=3", "-o", "json"]));
    assert_eq!(told[0], json!({"task": 1, "new": true}));
    assert!(told[1]["waits"].as_str().unwrap().contains("no connected worker") && told[1]["task"] == 1, "{told:?}");
    assert!(error.contains("task 1"), "{error}");
    std::fs::write(place.path("parts.jsonl"), "{\"kind\": \"nobody\"}\n").unwrap();
    let submit = ["group", "submit", "parts.jsonl", "--wait=300ms", "-o", "json"];
    let (told, error) = aside(&laneway(&place, &submit));
    assert_eq!((&told[0]["group"], &told[0]["queued"]), (&json!(1), &json!(1)));
    assert!(error.contains("group 1 has not ended after "), "{error}");
    let (told, _) = aside(&laneway(&place, &["task", "list", "--limit", "1", "-o", "json"]));
    assert_eq!(told, [json!({"next": 2})]);
    assert_eq!(broker.stop(), 0);
    let (told, _) = aside(&on_file(&place, &["task", "list", "--group", "1", "--all", "-o", "json"]));
    assert!(told[0]["note"].as_str().unwrap().starts_with("no broker answers at "), "{told:?}");
}

#[test]
fn a_start_that_cannot_be_is_told_with_the_next_step() {
    // Proves that an address in use leaves no database behind, and that a check looks at the places of the files as well.
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("tcp://{}", taken.local_addr().unwrap());
    let said = bare(&place, &["broker", "--db", "new.db", "--bind", &bind]);
    said.is(1, "choose another with --bind");
    assert!(!place.path("new.db").exists(), "a start that failed made a database");
    for (flags, setting) in
        [(["--db", "nowhere/a.db"], "db is nowhere/a.db"), (["--log-file", "nowhere/l"], "log_file is nowhere/l")]
    {
        bare(&place, &[&["broker", "--check-config"][..], &flags[..]].concat()).is(7, setting);
    }
    bare(&place, &["broker", "--check-config"]).is(0, "");
}

#[test]
fn a_refusal_of_the_one_task_that_was_submitted_counts_no_tasks() {
    // Proves that people read about their task, and not about number 0 of a message.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let said = laneway(&place, &["submit", "echo", "1", "--lane", "nosuch"]);
    said.is(5, "lane 'nosuch'");
    assert!(!said.err.contains("number 0") && !said.err.contains("tasks[0]"), "{}", said.err);
}

#[test]
fn a_database_whose_app_has_a_table_of_our_name_is_left_alone() {
    // Proves one clear line and exit code 8, from every command that would make or read the tables, and no change.
    let place = Place::new();
    let app = rusqlite::Connection::open(place.db()).unwrap();
    app.execute_batch("CREATE TABLE tasks (x)").unwrap();
    // Not at the port that a broker has by default: another one may have it.
    let broker = ["broker", "--bind", &place.endpoint()];
    for words in [&["db", "init"][..], &["db", "status"], &["task", "list"], &broker] {
        let said = on_file(&place, words);
        said.is(8, "already has a table named 'tasks' that is not Laneway's");
        assert_eq!(said.err.lines().filter(|line| line.starts_with("laneway: cannot")).count(), 1, "{}", said.err);
        assert!(said.err.lines().count() <= 2, "{}", said.err);
    }
    assert_eq!(app.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn a_task_goes_into_the_database_that_is_meant() {
    // Proves that neither a broker elsewhere nor a socket that a killed one left gets a task meant for this folder's file.
    let (place, other) = (Place::new(), Place::new());
    let _broker = Broker::start(&other);
    let environment = [("LANEWAY_ENDPOINT", other.endpoint())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    for db in ["a.db", "laneway.db"] {
        bare(&place, &["db", "init", "--db", db]).is(0, "");
    }
    // A flag wins over the environment.
    with(&place, &environment, &["submit", "echo", "--db", "a.db"]).is(0, "using the file a.db");
    assert_eq!(Table::open(&other).count("1"), 0);
    with(&place, &environment, &["submit", "echo"]).is(0, "");
    assert_eq!(Table::open(&other).count("1"), 1);
    // The default file lies here, so its own broker is meant, which does not run; the default port is never asked.
    bare(&place, &["submit", "echo"]).is(0, "no broker answers at ipc://laneway.db.sock; using the file laneway.db");
    // The environment names a database, and beside the default one is a socket of a broker that was killed.
    drop(std::os::unix::net::UnixListener::bind(place.path("laneway.db.sock")).unwrap());
    with(&place, &[("LANEWAY_DB", "a.db")], &["submit", "echo"]).is(0, "using the file a.db");
    bare(&place, &["submit", "echo", "--db", "a.db", "--endpoint", &other.endpoint()]).is(2, "give one of them");
    assert_eq!(Table::open(&other).count("1"), 1);
}

#[test]
fn what_is_not_there_has_the_exit_code_of_the_table() {
    // Proves how the table tells a missing broker, a missing thing to work on and missing settings apart.
    let place = Place::new();
    std::fs::write(place.path("file"), "").unwrap();
    bare(&place, &["task", "list", "--db", "none.db"]).is(3, "there is no database none.db");
    bare(&place, &["stats", "--db", "none.db"]).is(3, "no broker answers");
    bare(&place, &["db", "status", "--db", "none.db"]).is(4, "there is no database none.db");
    bare(&place, &["demo", "none"]).is(4, "name a folder");
    bare(&place, &["bench", "--dir", "none"]).is(4, "there is no folder none");
    bare(&place, &["demo", "file"]).is(2, "name a folder");
    bare(&place, &["bench", "--dir", "file"]).is(2, "is not a folder");
    bare(&place, &["broker", "--config", "none.toml"]).is(7, "none.toml");
}
