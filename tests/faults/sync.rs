//! A disk that takes writes and refuses to sync them.

use std::path::Path;
use std::process::Command;

use laneway_protocol::message::{Answer, NewTask, Request, Submit};
use laneway_protocol::{Kind, Payload, RequestId};

use crate::harness::{Broker, Place, RawPeer, Table, WorkerProcess};

#[test]
fn a_disk_that_refuses_a_sync_ends_the_broker_and_nothing_is_confirmed() {
    // Proves that the answer to a submit waits for its sync and not only for its commit, that the broker says why it ends, and
    // that the next one does what was asked for exactly once.
    let place = Place::new();
    let library = place.path("sync.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/faults/sync.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let words = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"];
    let status = Command::new(compiler).args(words).args([&library, &source]).arg("-ldl").status().unwrap();
    assert!(status.success(), "the shim does not compile");
    let refused = place.path("refused");
    let env = [("LD_PRELOAD", library.into()), ("REFUSED_SYNC", refused.clone().into())];

    let mut broker = Broker::start_under(&place, &[], &env);
    let table = Table::open(&place);
    let submit = Submit {
        request: RequestId([7; 16]),
        tasks: vec![NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json("1")))],
        wait_ms: 0,
        abandon: false,
        group: None,
    };
    std::fs::write(&refused, "").unwrap();
    let client = RawPeer::req(broker.endpoint());
    client.send(Request::Submit(submit.clone()));
    assert_eq!(broker.wait(), 8);
    let is_answered = client.socket.poll(zmq::POLLIN, 0).unwrap() > 0;
    assert!(!is_answered || matches!(client.receive(), Answer::Error(_)), "confirmed without a sync");
    let log = std::fs::read_to_string(place.path("broker.log")).unwrap();
    assert!(log.contains("the disk did not sync"), "{log}");

    std::fs::remove_file(&refused).unwrap();
    let broker = Broker::start(&place);
    let Answer::Submit(_) = RawPeer::req(broker.endpoint()).ask(Request::Submit(submit)) else { panic!("refused") };
    let _worker = WorkerProcess::start(&place, "slots=1");
    table.wait_for_count("state = 'done'", 1);
    assert_eq!((table.count("1"), broker.stop()), (1, 0));
}
