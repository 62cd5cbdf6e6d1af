//! `laneway work`: any program is a worker, and what happens to its process happens to one task alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use harness::{Broker, Place, Program, Said, Table, wait_until};

/// `laneway work` with a shell script in the place's folder.
fn work(place: &Place, options: &[&str], script: &str) -> Program {
    let path = place.path("handler.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(["work", "job", "--endpoint", &place.endpoint()]).args(options).arg("--").arg(&path).arg("first");
    command.current_dir(place.dir());
    Program::start(&mut command)
}

#[test]
fn a_script_takes_payloads_and_gives_results_and_reasons() {
    // Proves standard input and output, arguments and variables, progress on descriptor 3, and every exit code of the table.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let script = r#"
        read -r what rest
        case "$what" in
            echo) echo "3 4 nearly" >&3; echo "{\"said\": \"$rest\", \"task\": $LANEWAY_TASK, \"kind\": \"$LANEWAY_KIND\"}";;
            words) echo "30 100 reading" >&3; sleep 0.2; echo "now something else" >&3;;
            hasty) echo "1 3 one" >&3; echo "2 3" >&3; echo "then silence" >&3; while [ ! -e "$rest" ]; do sleep 0.02; done;;
            counts) i=0; while [ $i -lt 300 ]; do echo "$i 400 n$i" >&3; i=$((i+1)); done;;
            text) echo "$1 $LANEWAY_LANE $LANEWAY_ATTEMPT of $LANEWAY_MAX_ATTEMPTS";;
            nothing) ;;
            dead) echo noise; echo "it is no picture" >&2; exit 65;;
            fail) echo "attempt $LANEWAY_ATTEMPT" >&2; exit 3;;
            killed) kill -9 $$;;
        esac"#;
    let worker = work(&place, &["--slots", "2"], script);
    let echo = table.insert("job", "echo hello");
    table.wait_for_state(echo, "done");
    assert_eq!(
        table.column::<String>(echo, "result"),
        format!(r#"{{"said": "hello", "task": {echo}, "kind": "job"}}"#)
    );
    assert_eq!(
        table.column::<String>(echo, "progress_done || ' ' || progress_total || ' ' || progress_note"),
        "3 4 nearly"
    );
    let words = table.insert("job", "words");
    table.wait_for_state(words, "done");
    assert_eq!(
        table.column::<String>(words, "progress_done || ' ' || progress_total || ' ' || progress_note"),
        "30 100 now something else"
    );
    // What comes a moment behind other progress is held back for a moment, and then told: while the program is silent, and at its end.
    let shown = |task| table.column::<String>(task, "progress_done || ' ' || progress_total || ' ' || progress_note");
    let hasty = table.insert("job", &format!("hasty {}", place.path("go").display()));
    table.wait_for_count(&format!("id = {hasty} AND progress_note IS NOT NULL"), 1);
    wait_until("the last words", || shown(hasty) == "2 3 then silence");
    std::fs::write(place.path("go"), "").unwrap();
    let counts = table.insert("job", "counts");
    table.wait_for_state(counts, "done");
    assert_eq!(shown(counts), "299 400 n299");
    let text = table.insert_in("high", "job", "text");
    table.wait_for_state(text, "done");
    assert_eq!(table.column::<String>(text, "result"), r#""first high 1 of 3""#);
    let nothing = table.insert("job", "nothing");
    table.wait_for_state(nothing, "done");
    assert_eq!(table.column::<Option<String>>(nothing, "result"), None);
    let dead = table.insert("job", "dead");
    table.wait_for_state(dead, "dead");
    assert_eq!(table.column::<String>(dead, "attempts || ' ' || error"), "1 exit code 65: it is no picture");
    table.execute("INSERT INTO tasks(kind, payload, max_attempts) VALUES ('job', 'fail', 1)", []);
    let fail = table.0.last_insert_rowid();
    table.wait_for_state(fail, "dead");
    assert_eq!(table.column::<String>(fail, "error"), "exit code 3: attempt 1");
    table.execute("INSERT INTO tasks(kind, payload, max_attempts) VALUES ('job', 'killed', 1)", []);
    let killed = table.0.last_insert_rowid();
    table.wait_for_state(killed, "dead");
    assert_eq!(
        table.column::<String>(killed, "losses || ' ' || error"),
        "0 killed by signal 9, perhaps for want of memory"
    );
    assert_eq!(worker.stop(), 0);
}

#[test]
fn when_memory_runs_out_a_task_ends_before_its_worker() {
    // Proves what the system goes by when it has to kill somebody: a program, and what it starts, stand out by the score that they
    // carry and their worker does not; and that the kill is the failure of that task alone, in a run of many.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let script = r#"
        read -r what
        case "$what" in
            own) cat /proc/self/oom_score_adj;;
            worker) cat "/proc/$PPID/oom_score_adj";;
            greedy) kill -9 $$;;
            *) sleep 0.3; echo 1;;
        esac"#;
    let worker = work(&place, &["--slots", "3"], script);
    let ours: i64 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let [own, of_worker] = ["own", "worker"].map(|what| {
        let task = table.insert("job", what);
        table.wait_for_state(task, "done");
        table.column::<String>(task, "result").trim_matches('"').parse::<i64>().unwrap()
    });
    assert_eq!((own, of_worker), (500, ours), "the score of a program, and that of its worker");

    let beside: Vec<i64> = (0..4).map(|_| table.insert("job", "calm")).collect();
    table.execute("INSERT INTO tasks(kind, payload, max_attempts) VALUES ('job', 'greedy', 1)", []);
    let greedy = table.0.last_insert_rowid();
    table.wait_for_state(greedy, "dead");
    assert_eq!(
        table.column::<String>(greedy, "losses || ' ' || error"),
        "0 killed by signal 9, perhaps for want of memory"
    );
    for task in beside {
        table.wait_for_state(task, "done");
        assert_eq!(table.column::<String>(task, "runs || ' ' || losses"), "1 0");
    }
    assert_eq!(worker.stop(), 0);
}

#[test]
fn a_lane_that_is_not_there_is_refused_where_slots_are_kept_for_it_too() {
    // Proves that a slip in --reserve ends the worker as one in --lanes does, with the lane in the error.
    let place = Place::new();
    let _broker = Broker::start(&place);
    for words in [&["--reserve", "nolane:1", "--slots", "2"][..], &["--lanes", "nolane"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.args(["work", "job", "--endpoint", &place.endpoint()]).args(words).args(["--", "/bin/true"]);
        let said = place.path("said");
        assert_eq!(Program::start_saying(&mut command, &said).wait(), 5, "{words:?}");
        let said = std::fs::read_to_string(said).unwrap();
        assert!(said.contains("unknown_lane: lane 'nolane' is not one of high, normal, low"), "{said}");
    }
}

#[test]
fn a_cancel_and_a_timeout_end_the_process_with_all_that_it_started() {
    // Proves that a program which does not listen, and a child of it, are gone soon after, by a cancel and by a timeout; and that
    // what a program leaves behind ends with it, although it holds the pipes.
    let place = Place::new();
    let broker = Broker::start_with(&place, &["cancel_grace_ms=2000"]);
    let table = Table::open(&place);
    let script = r#"
        read -r what
        sleep 1000 &
        echo "$!" >> pids; echo $$ >> pids
        case "$what" in
            leave) echo done; exit 0;;
            deaf) trap '' TERM; while :; do sleep 1; done;;
        esac"#;
    let _worker = work(&place, &["--grace", "200ms"], script);
    let pids = || -> Vec<String> {
        let text = std::fs::read_to_string(place.path("pids")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let all_gone = || pids().iter().all(|pid| is_gone(pid));

    let left = table.insert("job", "leave");
    table.wait_for_state(left, "done");
    assert_eq!(table.column::<String>(left, "result"), r#""done""#);
    wait_until("what was left behind to end", all_gone);

    let cancelled = table.insert("job", "deaf");
    wait_until("it to run", || pids().len() == 4);
    broker.client().cancel(&[laneway::TaskId::new(cancelled.try_into().unwrap()).unwrap()]).unwrap();
    table.wait_for_state(cancelled, "cancelled");
    wait_until("the cancelled one to be gone", all_gone);

    table.execute("INSERT INTO tasks(kind, payload, max_attempts, timeout_ms) VALUES ('job', 'deaf', 1, 2000)", []);
    let late = table.0.last_insert_rowid();
    table.wait_for_state(late, "dead");
    wait_until("the late one to be gone", || pids().len() == 6 && all_gone());
}

#[test]
fn a_stop_lets_the_program_finish_and_a_second_one_does_not() {
    // Proves that SIGTERM of the worker does not reach its task, and that a second one hands it back.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let script = "touch running.$LANEWAY_TASK; while [ ! -e go ]; do sleep 0.02; done; echo 1";
    let mut worker = work(&place, &[], script);
    let first = table.insert("job", "{}");
    wait_until("it to run", || place.path(&format!("running.{first}")).exists());
    worker.signal("TERM");
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(worker.wait(), 0);
    assert_eq!(table.column::<String>(first, "state || ' ' || runs"), "done 1");

    std::fs::remove_file(place.path("go")).unwrap();
    let mut worker = work(&place, &["--grace", "100ms"], script);
    let second = table.insert("job", "{}");
    wait_until("it to run", || place.path(&format!("running.{second}")).exists());
    worker.signal("TERM");
    // Two that come at once may be taken as one.
    while worker.is_running() {
        worker.signal("TERM");
        std::thread::sleep(Duration::from_millis(50));
    }
    table.wait_for_state(second, "queued");
    assert_eq!(table.column::<String>(second, "attempts || ' ' || losses"), "0 0");
}

#[test]
fn large_payloads_and_results_pass_and_larger_ones_are_refused() {
    // Proves that a program which writes before it reads hangs nobody, and that a result without end ends.
    let place = Place::new();
    let _broker = Broker::start_with(&place, &["payload_bytes_max=16777216"]);
    let table = Table::open(&place);
    let worker = work(&place, &["--result", "bytes"], r#"if [ "$LANEWAY_LANE" = low ]; then yes; else cat; fi"#);
    let payload = "x".repeat(2_000_000);
    let echoed = table.insert("job", &payload);
    table.wait_for_state(echoed, "done");
    assert_eq!(table.column::<i64>(echoed, "length(result)"), 2_000_000);
    let endless = table.insert_in("low", "job", "{}");
    table.wait_for_state(endless, "dead");
    assert_eq!(table.column::<String>(endless, "error"), "it wrote a result of over 16777216 bytes");
    assert_eq!(worker.stop(), 0);
}

#[test]
fn what_makes_no_sense_is_told_before_any_task_is_taken() {
    // Proves that a slip in the program's name, which would make every task fail, ends the worker instead.
    let place = Place::new();
    std::fs::write(place.path("no-program"), "").unwrap();
    Said::by(&place, &[], &["work", "job", "--", "no-such-program"]).is(2, "no-such-program is no program");
    Said::by(&place, &[], &["work", "job", "--", "./no-program"]).is(2, "chmod +x");
    Said::by(&place, &[], &["work", "job"]).is(2, "COMMAND");
    Said::by(&place, &[], &["work", "job", "--reserve", "high", "--", "/bin/cat"]).is(2, "LANE:N");
    Said::by(&place, &[], &["work", "job", "--slots", "0", "--", "/bin/cat"]).is(2, "slots: 0 is not 1 to 1000");
    Said::by(&place, &[], &["work", "job", "-o", "json", "--", "/bin/cat"]).is(2, "nothing to print as JSON");
}

fn is_gone(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}
