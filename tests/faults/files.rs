//! The files under a broker: taken away, replaced, not to be written, made by a newer program, or another broker's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Broker, Place, Table, WorkerProcess, wait_until};

/// Starts a broker in the foreground that is expected to refuse; gives its exit code and what it told. File modes bind it,
/// also when the test runs as root.
fn refusal(place: &Place, db: &str, bind: &str) -> (Option<i32>, String) {
    let laneway = env!("CARGO_BIN_EXE_laneway");
    let is_root = Path::new("/proc/self").metadata().is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search", laneway]);
        command
    } else {
        Command::new(laneway)
    };
    command.args(["broker", "--db", db, "--bind", bind]).current_dir(place.dir());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let errors = tempfile::NamedTempFile::new().unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(errors.reopen().unwrap()).spawn().unwrap();
    wait_until("the broker to refuse", || child.try_wait().unwrap().is_some());
    (child.wait().unwrap().code(), fs::read_to_string(errors.path()).unwrap())
}

#[test]
fn a_second_broker_is_refused_until_the_first_is_gone_however_it_went() {
    // Proves that the second names the first, by process, machine and endpoint, and touches nothing; also by another name of
    // the file. And that what a kill -9 leaves keeps nobody out.
    let place = Place::new();
    let broker = Broker::start(&place);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    std::os::unix::fs::symlink(place.db(), place.path("link.db")).unwrap();
    for name in ["tasks.db", "link.db"] {
        let other = format!("ipc://{}", place.path("other.sock").display());
        let (code, told) = refusal(&place, name, &other);
        let first = format!("pid {} on {}, listening on {}", broker.pid(), host.trim(), broker.endpoint());
        assert!(code == Some(8) && told.contains(&first), "{code:?} {told}");
    }
    broker.client().stats().unwrap();
    assert_eq!(Table::open(&place).one::<i64>("SELECT count(*) FROM laneway_epochs", []), 1);
    broker.kill();
    assert!(place.path("tasks.db.lock").exists(), "the lock file of the killed broker is what this is about");
    assert_eq!(Broker::start(&place).stop(), 0);
}

/// Does something to the files of a running broker, which must end by itself and say so.
fn broken_under(what: &str, harm: impl FnOnce(&Path)) {
    let place = Place::new();
    let mut broker = Broker::start(&place);
    Table::open(&place).insert("nobody", "1");
    harm(&place.db());
    assert_eq!(broker.wait(), 8, "{what}");
    let log = fs::read_to_string(place.path("broker.log")).unwrap();
    assert!(log.contains("replaced under the running broker"), "{what}: {log}");
}

#[test]
fn a_database_that_is_taken_away_ends_the_broker() {
    // Proves that no broker goes on writing to a file that nobody will ever read: deleted, moved away, and the same for its
    // log.
    broken_under("deleted", |db| fs::remove_file(db).unwrap());
    broken_under("moved away", |db| fs::rename(db, db.with_extension("old")).unwrap());
    broken_under("log deleted", |db| fs::remove_file(db.with_extension("db-wal")).unwrap());
}

#[test]
fn a_database_that_is_replaced_ends_the_broker_and_is_left_alone() {
    // Proves that the broker touches neither the new file nor its log, which has the name of the old one's: what was
    // committed there and not moved yet is still there when the broker has gone.
    let place = Place::new();
    let mut broker = Broker::start(&place);
    let other = Place::new();
    assert_eq!(Broker::start(&other).stop(), 0);
    let app = Table::open(&other);
    app.insert("nobody", "1");
    for ending in ["db-wal", "db"] {
        // The new file's log first: it is the one that the broker might take for its own.
        fs::copy(other.db().with_extension(ending), place.path("new")).unwrap();
        fs::rename(place.path("new"), place.db().with_extension(ending)).unwrap();
    }
    assert_eq!(broker.wait(), 8);
    let log = fs::read_to_string(place.path("broker.log")).unwrap();
    assert!(log.contains("another file is in its place"), "{log}");
    for ending in ["db-wal", "db"] {
        let (new, now) = (other.db().with_extension(ending), place.db().with_extension(ending));
        assert!(fs::read(new).unwrap() == fs::read(now).unwrap(), "{ending} was written to");
    }
    drop(app);
}

#[test]
fn a_file_or_folder_that_cannot_be_written_is_refused_with_its_name() {
    // Proves that a broker does not half start where it cannot write: a read-only file, a read-only folder, a folder in the
    // file's place, a socket that cannot be. A file that becomes read-only under a running broker is open already: all
    // goes on.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&place.db(), 0o444);
    let _worker = WorkerProcess::start(&place, "");
    let id = table.insert("echo", "1");
    table.wait_for_state(id, "done");
    assert_eq!(broker.stop(), 0);
    drop(table);

    let refused = |exit: i32, db: &str, bind: &str, says: &str| {
        let (code, told) = refusal(&place, db, bind);
        assert!(code == Some(exit) && told.contains(says), "{code:?} {told}");
    };
    let before = fs::read(place.db()).unwrap();
    refused(8, "tasks.db", &place.endpoint(), "tasks.db");
    refused(8, "tasks.db", &place.endpoint(), "readonly");
    mode(&place.db(), 0o644);
    fs::remove_file(place.path("tasks.db.lock")).unwrap();
    mode(place.dir(), 0o555);
    refused(8, "tasks.db", &place.endpoint(), "its folder must be local and writable");
    mode(place.dir(), 0o755);
    assert!(fs::read(place.db()).unwrap() == before, "a start that failed wrote to the database");
    refused(1, "new.db", "ipc:///proc/laneway.sock", "/proc/laneway.sock");
    assert!(!place.path("new.db").exists(), "a start that failed made a database");
    fs::create_dir(place.path("folder.db")).unwrap();
    refused(8, "folder.db", &place.endpoint(), "folder.db");
}

#[test]
fn a_schema_newer_than_the_binary_is_refused_and_left_alone() {
    // Proves that an older program neither runs on nor changes what a newer one has made, and says which is which.
    let place = Place::new();
    assert_eq!(Broker::start(&place).stop(), 0);
    let table = Table::open(&place);
    table.execute("UPDATE laneway_schema_history SET version = 99 WHERE version = 1", []);
    // In one file, so that its bytes can be compared.
    table.one::<String>("PRAGMA journal_mode = DELETE", []);
    drop(table);
    let before = fs::read(place.db()).unwrap();
    let (code, told) = refusal(&place, "tasks.db", &place.endpoint());
    assert!(code == Some(8) && told.contains("schema 99") && told.contains("use a newer laneway"), "{code:?} {told}");
    assert!(fs::read(place.db()).unwrap() == before, "it was written to");
}
