//! No file descriptors left.

use std::os::unix::net::UnixStream;

use crate::harness::{Broker, Place, Table, WorkerProcess, wait_until};
use crate::limit;

#[test]
fn out_of_descriptors_the_broker_serves_whom_it_has() {
    // Proves that a limit on descriptors that is reached under a running broker costs new peers their connection and nobody
    // else anything: tasks flow meanwhile, the log says so once, and new peers are served once there are descriptors
    // again. libzmq by itself ends the process at the first peer too many on an ipc endpoint.
    let place = Place::new();
    let mut broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    let before = table.insert("echo", "1");
    table.wait_for_state(before, "done");
    // A peer that has come and gone leaves nothing that the next one could use.
    broker.client().stats().unwrap();
    let used = std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count();
    limit(&broker, "nofile", &(used + 4).to_string());
    let path = place.path("broker.sock");
    let peers: Vec<_> = (0..20).map(|_| UnixStream::connect(&path)).collect();
    let refused = || broker.log().iter().filter(|line| line.to_string().contains("out of file descriptors")).count();
    wait_until("the log to tell it", || refused() == 1);
    for n in 0..50 {
        let id = table.insert("echo", &n.to_string());
        table.wait_for_state(id, "done");
    }
    assert_eq!(refused(), 1, "one line is enough");
    drop(peers);
    limit(&broker, "nofile", "1024");
    broker.client().stats().unwrap();
    assert!(broker.is_running());
    assert_eq!(table.one::<i64>("SELECT sum(losses) FROM tasks", []), 0);
    assert_eq!(broker.stop(), 0);
}
