//! No room left, and files that grow no more.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use laneway_protocol::message::{Answer, NewTask, Request, Submit};
use laneway_protocol::{Code, Kind, Payload, RequestId};

use crate::harness::{Broker, Place, RawPeer, Table, WorkerProcess, wait_until};
use crate::limit;

/// A running task whose handler ends when told to, a disk that takes nothing more, and what must come of it. `fill` and
/// `free` take and give the room; the broker is started already, and another process has written before.
fn survives(place: &Place, broker: Broker, fill: impl FnOnce(&Broker), free: impl FnOnce(&Broker)) {
    let worker = WorkerProcess::start(place, "slots=2");
    let table = Table::open(place);
    let gate = place.path("gate");
    let id = table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    table.wait_for_state(id, "running");
    place.journal().wait_for_begin(id, 1);
    // An empty file needs no room later, when it is renamed.
    std::fs::write(place.path("key"), "").unwrap();
    fill(&broker);
    std::fs::rename(place.path("key"), &gate).unwrap();
    wait_until("the handler to end", || place.journal().ended(id).len() == 1);
    let client = RawPeer::req(broker.endpoint());
    let submit = Submit {
        request: RequestId([7; 16]),
        tasks: vec![NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json("1")))],
        wait_ms: 0,
        abandon: false,
        group: None,
    };
    let Answer::Error(error) = client.ask(Request::Submit(submit.clone())) else { panic!("nothing can be stored") };
    assert_eq!((error.code, error.retry), (Code::Storage, true), "{error}");
    assert!(broker.client().stats().unwrap().storage_error.is_some(), "counts say why nothing moves");
    assert_eq!(table.state(id), "running");
    free(&broker);
    table.wait_for_state(id, "done");
    assert_eq!(table.column::<String>(id, "runs || ' ' || attempts || ' ' || losses"), "1 1 0");
    wait_until("the submit to be taken", || matches!(client.ask(Request::Submit(submit.clone())), Answer::Submit(_)));
    table.wait_for_count("kind = 'echo' AND state = 'done'", 1);
    assert_eq!(table.count("kind = 'echo'"), 1, "a refused submit was stored beside the one that was taken");
    assert_eq!(table.one::<String>("PRAGMA integrity_check", []), "ok");
    assert_eq!((worker.stop(), broker.stop()), (0, 0));
}

/// What the log says of it: that nothing can be written, with the cause, and that it is over.
fn told(place: &Place, cause: &str) {
    let log = std::fs::read_to_string(place.path("broker.log")).unwrap();
    for says in ["new work is refused", cause, "the database takes writes again"] {
        assert!(log.contains(says), "'{says}' is not in the log: {log}");
    }
}

/// A small disk in memory at a place; gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(place: &Place, bytes: u64) -> Option<Self> {
        let options = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(place.dir()).stderr(Stdio::null());
        mount.status().unwrap().success().then(|| Self(place.dir().to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that a failing test has left may hold a file.
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[test]
fn a_full_disk_refuses_submits_and_everything_goes_on_when_there_is_room() {
    // Proves that running tasks live while the disk is full, that a submit is refused with `storage` instead of being
    // acknowledged, that the kept outcome is stored when there is room again, and that the broker outlives its log's want
    // of room on the same disk. Where nothing may be mounted the next test alone stands for it.
    let place = Place::new();
    let Some(_disk) = SmallDisk::mount(&place, 4 * 1024 * 1024) else {
        eprintln!("no small disk: mounting one needs root with CAP_SYS_ADMIN");
        return;
    };
    let filler = place.path("filler");
    let broker = Broker::start(&place);
    let fill = |_: &Broker| {
        use std::io::Write;
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        // The log on disk has room up to the end of its last page: it must grow over that.
        let table = Table::open(&place);
        let insert = || table.0.execute("INSERT INTO tasks(kind, payload) VALUES ('nobody', zeroblob(4096))", []);
        wait_until(
            "an app to meet the full disk",
            || matches!(insert(), Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)),
        );
    };
    survives(&place, broker, fill, |_| std::fs::remove_file(&filler).unwrap());
    told(&place, "database or disk is full");
}

#[test]
fn a_file_that_cannot_grow_is_no_different_from_a_full_disk() {
    // Proves the same of an error of input and output at the write into the log: a limit on the size of files, which can be
    // set and lifted from outside without any right, fails it and leaves reads alone.
    let place = Place::new();
    let broker = Broker::start(&place);
    let fill = |broker: &Broker| {
        let size = std::fs::metadata(place.path("tasks.db-wal")).unwrap().len();
        limit(broker, "fsize", &size.to_string());
    };
    survives(&place, broker, fill, |broker| limit(broker, "fsize", "unlimited"));
    told(&place, "disk I/O error");
}
