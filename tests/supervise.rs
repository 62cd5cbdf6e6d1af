//! What libzmq cannot bound, and whatever else ends a broker, costs a restart within two seconds, and nothing is lost: shown
//! with the two ways in which any peer can end libzmq, and with kill -9, under a normal load.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::zmtp::{Wire, frame};
use harness::{Broker, Load, Place, Table, output_of, signal, wait_until};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// From the end of one broker to the next that is ready: the promise. It takes about 100 ms.
const RESTART_MAX: Duration = Duration::from_secs(2);
const ON_TCP: [&str; 3] = ["--supervise", "--bind", "tcp://127.0.0.1:0"];

#[test]
fn a_killed_broker_is_back_in_time_and_nothing_is_lost() {
    // Proves for kill -9, three times in a row, that the supervisor's next broker is ready within two seconds, that the workers
    // go on, and that every task that came in meanwhile is done in one attempt.
    let place = Place::new();
    let broker = Broker::start_as(&place, &ON_TCP);
    let mut load = Load::start(&place);
    for n in 1..=3 {
        let killed = Instant::now();
        signal(current(&broker), "KILL");
        wait_until("the next broker", || broker.ready_lines().len() > n);
        assert!(killed.elapsed() < RESTART_MAX, "start {} took {:?}", n + 1, killed.elapsed());
        load.catch_up();
    }
    assert_all_done(&place, &mut load);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn frames_without_end_cost_a_restart() {
    // Proves that a peer which never ends its message, which libzmq keeps until there is no memory, ends the broker at the bound
    // and not the machine, and that the next one is there within two seconds with nothing lost.
    const MEMORY: u64 = 256 * 1024 * 1024;
    let place = Place::new();
    let limit = format!("memory_bytes_max={MEMORY}");
    let broker = Broker::start_as(&place, &[&ON_TCP[..], &["--set", &limit]].concat());
    let mut load = Load::start(&place);
    let mut wire = Wire::dealer(broker.tcp(), b"");
    let piece = frame(&vec![0; 60_000], true).repeat(16);
    let mut sent = 0;
    while wire.say(&piece) {
        sent += piece.len() as u64;
        assert!(sent < 16 * MEMORY, "{sent} bytes of one message are taken by a broker that may have {MEMORY}");
    }
    wait_until("the next broker", || broker.ready_lines().len() >= 2);
    let restart = restart_time(&broker);
    assert!(restart < RESTART_MAX, "the restart took {restart:?}");
    assert!(broker.log().iter().any(|line| line["memory_bytes_max"] == MEMORY), "the log does not say why");
    assert_all_done(&place, &mut load);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_claimed_identity_costs_a_restart() {
    // Proves the same for the identity that libzmq was about to give to the next peer: it aborts. Numbers begin at a random one
    // of 2^32, so an attacker needs some hundred thousand connections; here they begin at 0, by a C library's `rand` that
    // always says so.
    let place = Place::new();
    let (source, library) = (place.path("rand.c"), place.path("rand.so"));
    std::fs::write(&source, "int rand(void) { return 0; }\n").unwrap();
    output_of(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source));
    let broker = Broker::start_as_under(&place, &ON_TCP, &[("LD_PRELOAD", library.into())]);
    let mut load = Load::start(&place);
    let address = broker.tcp();
    let claimed: Vec<Wire> =
        (0..100_u32).map(|n| Wire::dealer(address, &[&[0][..], &n.to_be_bytes()].concat())).collect();
    wait_until("the abort", || {
        if let Ok(mut wire) = Wire::try_connect(address) {
            wire.say(&[harness::zmtp::greeting(), harness::zmtp::ready(b"")].concat());
        }
        broker.log().iter().any(|line| line["target"] == "laneway::supervisor" && line["status"].is_string())
    });
    drop(claimed);
    wait_until("the next broker", || broker.ready_lines().len() >= 2);
    let restart = restart_time(&broker);
    assert!(restart < RESTART_MAX, "the restart took {restart:?}");
    assert_all_done(&place, &mut load);
    let aborts = broker.log().iter().filter_map(|line| line["status"].as_str().map(String::from)).collect::<Vec<_>>();
    assert!(aborts.iter().all(|status| status.contains("SIGABRT")), "{aborts:?}");
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_supervisor_ends_with_its_broker_and_the_broker_with_it() {
    // Proves the edges: SIGTERM stops both with 0 and in one life; a broker whose supervisor is killed stops by itself; and one
    // that cannot start is not started again, but tells its exit code.
    let place = Place::new();
    let broker = Broker::start_as(&place, &ON_TCP);
    let second = Command::new(env!("CARGO_BIN_EXE_laneway"))
        .args(["broker", "--supervise", "--bind", "ipc:///nowhere/to/be/found", "--db"])
        .arg(place.path("second.db"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", String::from_utf8_lossy(&second.stderr));
    let starts = String::from_utf8_lossy(&second.stderr).matches("the broker is started").count();
    assert_eq!(starts, 1, "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(broker.stop(), 0);

    let broker = Broker::start_as(&place, &ON_TCP);
    assert_eq!(broker.ready_lines().len(), 1);
    let (child, address) = (current(&broker), broker.tcp());
    assert!(TcpStream::connect(address).is_ok());
    broker.kill();
    wait_until("the broker to follow its supervisor", || !std::path::Path::new(&format!("/proc/{child}")).exists());
    assert!(TcpStream::connect(address).is_err());
    // Its end was a clean one, and the database is free for the next.
    assert_eq!(Broker::start(&place).stop(), 0);
    let unclean = "SELECT count(*) FROM laneway_epochs WHERE stopped_at IS NULL";
    assert_eq!(Table::open(&place).one::<i64>(unclean, []), 0);
}

// ------------------------------------------------------------------------------------------------------------ private

/// The broker that the supervisor started last.
fn current(supervisor: &Broker) -> u32 {
    let log = supervisor.log();
    let pid =
        log.iter().rev().find_map(|line| line["pid"].as_u64().filter(|_| line["target"] == "laneway::supervisor"));
    u32::try_from(pid.unwrap()).unwrap()
}

/// From the last end of a broker to the next ready one, by the log.
fn restart_time(supervisor: &Broker) -> Duration {
    let at = |line: &serde_json::Value| line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let log = supervisor.log();
    let ended =
        log.iter().position(|line| line["target"] == "laneway::supervisor" && line["status"].is_string()).unwrap();
    let ready = log[ended..].iter().find(|line| line["message"] == "ready").unwrap();
    at(ready).duration_since(at(&log[ended])).unsigned_abs()
}

#[track_caller]
fn assert_all_done(place: &Place, load: &mut Load) {
    let n = load.finish();
    let table = Table::open(place);
    assert_eq!(table.count("state = 'done'"), n);
    assert_eq!(table.count("attempts <> 1 OR losses > 0"), 0, "a restart of the broker was blamed on a task");
}
