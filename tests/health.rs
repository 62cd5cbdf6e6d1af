//! What a monitoring system and whoever sets a broker up are told: `laneway check` and `laneway doctor`, against a real broker, a
//! database without one, and set-ups that are wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use harness::{Broker, Http, Place, Program, Said, Table, WorkerProcess, wait_until};
use serde_json::Value;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// `laneway check` on the place's database, which finds its broker by the socket beside it.
fn check(place: &Place, words: &[&str]) -> Said {
    let db = place.db().display().to_string();
    Said::by(place, &[], &[&["check", "--db", &db], words].concat())
}

fn doctor(place: &Place, words: &[&str]) -> (i32, Vec<Value>) {
    doctor_of(place, &place.db().display().to_string(), words)
}

fn doctor_of(place: &Place, db: &str, words: &[&str]) -> (i32, Vec<Value>) {
    let said = Said::by(place, &[], &[&["doctor", "-o", "json", "--db", db], words].concat());
    (said.code, said.json())
}

/// What is said of one subject, as "health: what".
fn about(findings: &[Value], subject: &str) -> Vec<String> {
    let found = findings.iter().filter(|finding| finding["about"] == subject);
    found
        .map(|finding| format!("{}: {}", finding["health"].as_str().unwrap(), finding["what"].as_str().unwrap()))
        .collect()
}

#[test]
fn each_state_has_its_exit_code_and_one_line() {
    let place = Place::new();
    let unknown = check(&place, &[]);
    assert_eq!(unknown.code, 3, "there is no database: {}", unknown.out);
    assert!(unknown.out.starts_with("LANEWAY UNKNOWN - "), "{}", unknown.out);
    check(&place, &["--due", "abc"]).is(3, "abc");
    // Not passed over: only the database tells.
    for flag in [&["--age", "1s:1s"][..], &["--database-only"]] {
        let said = Said::by(&place, &[], &[&["check", "--endpoint", &place.endpoint()][..], flag].concat());
        said.is(3, &format!("{} needs the database, which --endpoint does not name", flag[0]));
    }

    let broker = Broker::start_with(&place, &["defaults.max_attempts=1"]);
    let table = Table::open(&place);
    let said = Said::by(&place, &[], &["check", "--endpoint", &place.endpoint()]);
    assert_eq!((said.code, said.out.lines().count()), (0, 1), "{}", said.out);
    assert!(said.out.starts_with("LANEWAY OK - ") && said.out.contains(" | queued=0 dead=0 wal="), "{}", said.out);
    let said = Said::by(&place, &[], &["check", "--endpoint", &place.endpoint(), "--workers", "1"]);
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(said.out.starts_with("LANEWAY CRITICAL - 0 of 1 workers are connected | "), "{}", said.out);

    // Nobody works for these; one of them is old, one is for later and counts for nothing.
    table.execute(
        "INSERT INTO tasks(kind, created_at) VALUES ('x', ?1)",
        [i64::try_from(harness::now_us() / 1_000).unwrap() - 3_600_000],
    );
    table.insert("x", "1");
    table.execute("INSERT INTO tasks(kind, run_at) VALUES ('x', 4000000000000)", []);
    for (words, code, begin) in [
        (&["--due", "3"][..], 0, "LANEWAY OK - "),
        (&["--due", "2"], 1, "LANEWAY WARNING - 2 tasks are due | due=2;2; age="),
        (&["--due", "1:2"], 2, "LANEWAY CRITICAL - 2 tasks are due | due=2;1;2 age="),
        (&["--age", "2h"], 0, "LANEWAY OK - "),
        (&["--age", "5m:2h"], 1, "LANEWAY WARNING - the oldest has waited 1h00m | "),
        (&["--age", "5m:10m", "--due", "2"], 2, "LANEWAY CRITICAL - the oldest has waited 1h00m, 2 tasks are due | "),
    ] {
        let said = check(&place, &[&["--database-only"], words].concat());
        assert_eq!(said.code, code, "{words:?}: {}", said.out);
        assert!(said.out.starts_with(begin), "{words:?}: {}", said.out);
    }

    let _worker = WorkerProcess::start(&place, "kinds=fail");
    let dead = table.insert("fail", "1");
    table.wait_for_state(dead, "dead");
    let said = check(&place, &["--database-only", "--dead", "1", "-o", "json"]);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &told["level"], &told["figures"]["dead"]), (1, &"WARNING".into(), &1.into()), "{told}");

    let client = broker.client();
    client.drain(laneway_protocol::message::Drain { release: false, off: false, worker: None }).unwrap();
    let said = Said::by(&place, &[], &["check", "--endpoint", &place.endpoint()]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.out.starts_with("LANEWAY WARNING - the broker drains"), "{}", said.out);

    assert_eq!(broker.stop(), 0);
    let said = check(&place, &[]);
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(said.out.starts_with("LANEWAY CRITICAL - no broker answers at "), "{}", said.out);
    assert_eq!(check(&place, &["--due", "9:5"]).code, 3, "a bound that makes no sense is no verdict");
}

#[test]
fn an_endpoint_of_the_environment_names_the_broker_that_is_checked() {
    // Proves that no database is looked for then, which may be on another machine, unless one is named or it is all that is asked for.
    let (place, elsewhere) = (Place::new(), Place::new());
    let broker = Broker::start_with(&place, &[]);
    Table::open(&place).insert("nobody", "1");
    let (db, endpoint) = (place.db().display().to_string(), place.endpoint());
    let by_endpoint = ("LANEWAY_ENDPOINT", endpoint.as_str());
    let check =
        |variables: &[(&str, &str)], words: &[&str]| Said::by(&elsewhere, variables, &[&["check"][..], words].concat());
    wait_until("the task to be counted", || check(&[by_endpoint], &[]).out.contains(" | queued=1 dead=0 wal="));
    let said = check(&[by_endpoint], &[]);
    assert!(said.code == 0 && said.out.starts_with("LANEWAY OK - "), "{}", said.out);
    check(&[by_endpoint], &["--age", "1s"]).is(3, "--age needs the database, which LANEWAY_ENDPOINT does not name");
    for (variables, words) in [
        (&[by_endpoint, ("LANEWAY_DB", &db)][..], &["--age", "1h"][..]),
        (&[by_endpoint], &["--db", &db, "--age", "1h"]),
    ] {
        let said = check(variables, words);
        assert!(said.code == 0 && said.out.contains(" | due=1 age="), "{words:?}: {}", said.out);
    }
    let said = check(&[by_endpoint], &["--database-only"]);
    assert!(said.code == 3 && said.out.contains("laneway.db"), "{}", said.out);
    assert_eq!(broker.stop(), 0);
    let said = check(&[by_endpoint], &[]);
    assert_eq!((said.code, said.out.trim_end()), (2, &*format!("LANEWAY CRITICAL - no broker answers at {endpoint}")));
}

#[test]
fn a_database_too_deep_for_a_socket_has_its_own_broker_still() {
    // Proves that commands go by the lock of the database, neither to the default port nor to a socket of the same short name where they
    // are started, and that the path, the bound and the next step are told by a start, by doctor and by who finds nobody.
    let place = Place::new();
    let folder = place.path(&"d".repeat(100));
    std::fs::create_dir(&folder).unwrap();
    let db = folder.join("deep.db").display().to_string();
    let bytes = db.len() + ".sock".len();
    let (path, over) = (format!("{db}.sock"), format!("has {bytes} bytes, over the 107 that a socket may have"));
    let nobody = format!("no broker answers at ipc://{path}, whose path {over}");
    for words in [&["stats", "--db", &db][..], &["work", "--db", &db, "echo", "--", "cat"], &["web", "--db", &db]] {
        Said::by(&place, &[], words).is(3, &nobody);
    }
    Said::by(&place, &[], &["stats", "--endpoint", &format!("ipc://{path}")]).is(3, &nobody);
    let checked = Said::by(&place, &[], &["broker", "--db", &db, "--check-config"]);
    let fix = "name a shorter path in bind";
    for says in
        [format!("ipc://{path} has a path of {bytes} bytes, at most 107 are allowed; {fix}"), "only tcp://".into()]
    {
        checked.is(0, &says);
    }
    let found = doctor_of(&place, &db, &[]).1;
    let odd = found.iter().find(|finding| finding["about"] == "settings" && finding["health"] == "odd").unwrap();
    assert!(odd["what"].as_str().unwrap().ends_with("at most 107 are allowed"), "{odd}");
    assert!(odd["fix"].as_str().unwrap().starts_with(fix), "{odd}");

    let start = |db: &str, folder: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.args(["broker", "--db", db, "--bind", "ipc://b.sock", "--bind", "tcp://127.0.0.1:0"]);
        Program::start(command.current_dir(folder))
    };
    let [_mine, _other] = [start(&db, &folder), start("other.db", place.dir())];
    for db in [&*db, "other.db"] {
        wait_until("the broker to answer", || Said::by(&place, &[], &["stats", "--db", db]).code == 0);
    }
    let submitted = Said::by(&place, &[], &["submit", "nobody", "--db", &db]);
    assert!(submitted.code == 0 && submitted.err.is_empty(), "{}", submitted.err);
    let queued = |db: &str| Said::by(&place, &[], &["stats", "-o", "json", "--db", db]).json()[0]["queued"].clone();
    wait_until("the task to be counted", || queued(&db) == 1);
    assert_eq!(queued("other.db"), 0);
}

#[test]
fn a_good_set_up_has_nothing_bad() {
    // Before the first start, beside a running broker, and after it.
    let place = Place::new();
    let bind = format!("LANEWAY_BIND={}", place.endpoint());
    let (name, value) = bind.split_once('=').unwrap();
    let look = |place: &Place| {
        let db = place.db().display().to_string();
        let said = Said::by(place, &[(name, value)], &["doctor", "--db", &db]);
        assert_eq!(said.code, 0, "{}", said.out);
        assert!(!said.out.contains("\nbad"), "{}", said.out);
        said.out
    };
    assert!(look(&place).contains("is not there yet"));
    let broker = Broker::start(&place);
    assert!(look(&place).contains("one runs on this database and answers at "));
    assert_eq!(broker.stop(), 0);
    let said = look(&place);
    assert!(said.contains("none runs on this database") && said.contains("has schema "), "{said}");
}

#[test]
fn the_broker_of_a_database_is_found_wherever_it_listens() {
    // Proves that check, doctor and a submit ask the broker that has the database, and no other one that has got its old address.
    let place = Place::new();
    let (mine, other) = (place.path("mine.db").display().to_string(), place.path("other.db").display().to_string());
    let bind = format!("ipc://{}", place.path("elsewhere").display());
    let start = |db: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        let broker = Program::start(command.args(["broker", "--db", db, "--bind", &bind]));
        wait_until("the broker to answer", || Said::by(&place, &[], &["stats", "--endpoint", &bind]).code == 0);
        broker
    };
    let checked = || Said::by(&place, &[], &["check", "--db", &mine]);
    let broker = start(&mine);
    assert_eq!(checked().code, 0, "{}", checked().out);
    assert!(about(&doctor_of(&place, &mine, &[]).1, "broker")[0].ends_with(&bind));
    let submitted = Said::by(&place, &[], &["submit", "nobody", "--db", &mine]);
    assert!(submitted.code == 0 && !submitted.err.contains("using the file"), "{}", submitted.err);
    drop(broker);
    let broker = start(&other);
    assert_eq!(checked().code, 2, "{}", checked().out);
    assert!(about(&doctor_of(&place, &mine, &[]).1, "broker")[0].contains("none runs"));
    drop(broker);
}

#[test]
fn each_fault_of_a_set_up_is_found_with_its_fix() {
    let place = Place::new();
    let (taken, keys) = (TcpListener::bind("127.0.0.1:0").unwrap(), place.path("keys"));
    let port = taken.local_addr().unwrap().port();
    let file = place.path("laneway.toml");
    let write = |text: String| std::fs::write(&file, text).unwrap();
    let config = file.display().to_string();

    write(format!("bind = [\"tcp://127.0.0.1:{port}\"]\n"));
    let (code, found) = doctor(&place, &["--config", &config]);
    let ports = about(&found, "port");
    assert_eq!((code, ports.len()), (1, 1), "{found:?}");
    assert!(ports[0].starts_with(&format!("bad: 127.0.0.1:{port}: ")), "{ports:?}");
    assert!(found.iter().all(|finding| (finding["health"] == "ok") == finding["fix"].is_null()), "{found:?}");

    // A secret that everybody may read.
    assert_eq!(Said::by(&place, &[], &["keygen", "broker"]).code, 0);
    std::fs::create_dir(&keys).unwrap();
    let secret = place.path("broker.secret");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    write(format!(
        "[curve]\nbind = [\"tcp://127.0.0.1:0\"]\nkey_file = {:?}\nkeys_folder = {:?}\n",
        secret.display().to_string(),
        keys.display().to_string()
    ));
    let (code, found) = doctor(&place, &["--config", &config]);
    assert_eq!(code, 1, "{found:?}");
    let told = about(&found, "keys");
    assert!(told.len() == 1 && told[0].starts_with("bad: "), "{told:?}");

    write("poll_us = 0\n".into());
    let (code, found) = doctor(&place, &["--config", &config]);
    assert_eq!((code, found.len()), (1, 1), "without settings there is nothing to look at: {found:?}");
    assert!(found[0]["what"].as_str().unwrap().contains("poll_us"), "{found:?}");

    let (code, found) = doctor_of(&place, "/nowhere/at/all.db", &[]);
    assert_eq!((code, about(&found, "folder")), (1, vec!["bad: /nowhere/at is not there".to_owned()]), "{found:?}");

    // A clock behind the newest row, and a schema that another program made.
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    table.execute("INSERT INTO tasks(kind, created_at) VALUES ('x', 4000000000000)", []);
    assert_eq!(broker.stop(), 0);
    let clock = about(&doctor(&place, &[]).1, "clock");
    assert!(clock[0].starts_with("odd: it says ") && clock[0].contains("the newest task is of 2096"), "{clock:?}");
    std::fs::write(place.db(), "no database").unwrap();
    let (code, found) = doctor(&place, &[]);
    let database = about(&found, "database");
    assert!(code == 1 && database[0].starts_with("bad: "), "{found:?}");
}

/// The one finding about a subject that is not well.
fn trouble(findings: &[Value], subject: &str) -> String {
    let mut found: Vec<String> =
        about(findings, subject).into_iter().filter(|what| !what.starts_with("ok: ")).collect();
    assert_eq!(found.len(), 1, "{subject}: {findings:?}");
    found.remove(0)
}

#[test]
fn each_fault_of_folder_and_files_is_found() {
    // Proves the findings about where the database lies, who may write there, whose the files are, and how long the log has grown;
    // and that the look changes none of it.
    let place = Place::new();
    let (code, found) = doctor_of(&place, "/proc/a.db", &[]);
    assert_eq!(code, 1, "{found:?}");
    assert!(trouble(&found, "folder").starts_with("bad: /proc cannot be written: "), "{found:?}");

    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let found = doctor_of(&place, memory.path().join("a.db").to_str().unwrap(), &[]).1;
    assert!(trouble(&found, "file system").ends_with("is in memory: a power loss takes all of it"), "{found:?}");

    std::fs::set_permissions(place.dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let found = doctor(&place, &[]).1;
    assert!(trouble(&found, "folder").starts_with("odd: every user may write to "), "{found:?}");
    std::fs::set_permissions(place.dir(), std::fs::Permissions::from_mode(0o700)).unwrap();

    assert_eq!(Broker::start(&place).stop(), 0);
    let beside = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", place.db().display()));
    let (log, lock) = (beside("-wal"), beside(".lock"));
    // As far as SQLite can tell such a log holds nothing, but it is there.
    let bytes = 300_000_000;
    std::fs::File::create(&log).unwrap().set_len(bytes).unwrap();
    let found = doctor(&place, &[]).1;
    assert_eq!(trouble(&found, "log"), "odd: the write-ahead log has 300000 kB");
    assert_eq!(std::fs::metadata(&log).unwrap().len(), bytes, "doctor has moved the log");
    std::fs::remove_file(&log).unwrap();

    // Only root may give a file away; anybody has one of root's.
    std::fs::remove_file(&lock).ok();
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        std::fs::write(&lock, "").unwrap();
        std::os::unix::fs::chown(&lock, Some(1), Some(1)).unwrap();
    } else {
        std::os::unix::fs::symlink("/etc/passwd", &lock).unwrap();
    }
    let found = doctor(&place, &[]).1;
    let told = trouble(&found, "owners");
    assert!(told.contains("tasks.db.lock belong to somebody else than the database"), "{told}");
}

#[test]
fn each_fault_of_a_database_is_found() {
    // Proves the findings about a schema of another program and about an app's table where ours should be.
    let place = Place::new();
    assert_eq!(Broker::start(&place).stop(), 0);
    let open = || rusqlite::Connection::open(place.db()).unwrap();
    open().execute("DELETE FROM laneway_schema_history WHERE version >= 10", []).unwrap();
    let (code, found) = doctor(&place, &[]);
    let told = trouble(&found, "database");
    assert!(
        code == 0 && told.starts_with("odd: ") && told.contains(" has schema 9, this program brings "),
        "{found:?}"
    );
    open().execute("UPDATE laneway_schema_history SET version = 99 WHERE version = 9", []).unwrap();
    let (code, found) = doctor(&place, &[]);
    let told = trouble(&found, "database");
    assert!(
        code == 1 && told.starts_with("bad: ") && told.contains(" has schema 99, this program knows "),
        "{found:?}"
    );

    let place = Place::new();
    rusqlite::Connection::open(place.db()).unwrap().execute_batch("CREATE TABLE tasks (x)").unwrap();
    let (code, found) = doctor(&place, &[]);
    let told = trouble(&found, "database");
    assert!(code == 1 && told.contains("a table named 'tasks' that is not Laneway's"), "{found:?}");
}

#[test]
fn a_clock_that_was_never_set_is_found() {
    // Proves that a machine without a battery is told so before its tasks get times of the last century.
    let place = Place::new();
    let library = harness::tools::libfaketime().display().to_string();
    let clock = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "1999-12-31 12:00:00"), ("TZ", "UTC")];
    let said = Said::by(&place, &clock, &["doctor", "-o", "json", "--db", place.db().to_str().unwrap()]);
    let told = trouble(&said.json(), "clock");
    assert!(said.code == 1 && told.starts_with("bad: it says 1999-12-31"), "{told}");
}

#[test]
fn each_fault_of_sockets_keys_and_limits_is_found() {
    // Proves the findings about a socket that cannot be made, keys that are not there or open to all, and too few open files.
    let place = Place::new();
    let file = place.path("laneway.toml");
    let found_with = |settings: &str| {
        std::fs::write(&file, settings).unwrap();
        doctor(&place, &["--config", file.to_str().unwrap()])
    };
    let (code, found) = found_with("bind = [\"ipc:///nowhere/at/all.sock\"]\n");
    let told = trouble(&found, "socket");
    assert!(code == 1 && told.starts_with("bad: /nowhere/at/all.sock cannot be made: "), "{found:?}");

    let curve = |key: &str, folder: &str| {
        format!("[curve]\nbind = [\"tcp://127.0.0.1:0\"]\nkey_file = {key:?}\nkeys_folder = {folder:?}\n")
    };
    let (code, found) = found_with(&curve("none.secret", "."));
    let told = trouble(&found, "keys");
    assert!(code == 1 && told.contains("none.secret"), "{found:?}");
    assert_eq!(Said::by(&place, &[], &["keygen", "broker"]).code, 0);
    let (key, folder) = (place.path("broker.secret").display().to_string(), place.path("keys"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, found) = found_with(&curve(&key, folder.to_str().unwrap()));
    assert!(code == 1 && trouble(&found, "keys").contains("may be written by anybody"), "{found:?}");

    let few = Command::new("sh")
        .args(["-c", "ulimit -n 512; exec \"$0\" doctor -o json --db \"$1\"", env!("CARGO_BIN_EXE_laneway")])
        .arg(place.db())
        .env_clear()
        .output()
        .unwrap();
    let found: Vec<Value> =
        String::from_utf8(few.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = trouble(&found, "limits");
    assert!(told.starts_with("odd: 512 open files are allowed, connections_max and the broker need "), "{told}");
}

/// A dashboard's set-up that is wrong in one way, and what is said of it.
fn dashboard_fault(place: &Place, settings: &str, says: &str) {
    let file = place.path("web.toml");
    std::fs::write(&file, format!("bind = [{:?}]\n[web]\n{settings}\n", place.endpoint())).unwrap();
    let config = file.display().to_string();
    let (code, found) = doctor(place, &["--config", &config]);
    let bad: Vec<&Value> = found.iter().filter(|finding| finding["health"] == "bad").collect();
    assert_eq!((code, bad.len()), (1, 1), "{settings}: {found:?}");
    assert!(bad[0]["what"].as_str().unwrap().contains(says) && bad[0]["fix"].is_string(), "{settings}: {bad:?}");
    // The same rules, in the same words.
    let db = place.db().display().to_string();
    let checked = Said::by(place, &[], &["broker", "--db", &db, "--config", &config, "--check-config"]);
    checked.is(7, says);
}

#[test]
fn each_fault_of_a_dashboard_is_found_before_its_start() {
    // Proves that doctor and --check-config tell each of what a start would refuse, and find nothing where all is well.
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("bind = \"{}\"", taken.local_addr().unwrap());
    let write = |name: &str, mode: u32, text: &str| {
        let path = place.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let (visitors, key) = ("admin ann correct-horse-battery\n", "correct-horse-battery-staple-0123456789\n");
    let [good, wide, odd, empty, key, short] = [
        write("good", 0o600, visitors),
        write("wide", 0o644, visitors),
        write("odd", 0o600, "boss ann correct-horse-battery\n"),
        write("empty", 0o600, "# nobody\n"),
        write("key", 0o600, key),
        write("short", 0o600, "too-short\n"),
    ];
    let (any, here) = ("bind = \"0.0.0.0:0\"", "bind = \"127.0.0.1:0\"");
    for (settings, says) in [
        (taken, "in use"),
        // For documents (RFC 5737): no machine has it.
        (format!("bind = \"192.0.2.1:0\"\naccess_file = \"{good}\""), "cannot listen on 192.0.2.1:0"),
        (any.into(), "name web.access_file"),
        (format!("{any}\naccess_file = \"/nowhere/access\""), "/nowhere/access"),
        (format!("{here}\naccess_file = \"{wide}\""), "other users of this machine may read it (mode 644)"),
        (format!("{here}\naccess_file = \"{odd}\""), "role 'boss'"),
        (format!("{here}\naccess_file = \"{empty}\""), "must let in 1 to"),
        (format!("{here}\nlink_key_file = \"/nowhere/keys\""), "web.link_key_file /nowhere/keys"),
        (format!("{here}\nlink_key_file = \"{short}\""), "a key must have 32"),
        (format!("{here}\nlink_key_file = \"{wide}\""), "is open to other users (mode 644)"),
        (format!("{here}\nbase_path = \"/a b\""), "must be a plain path"),
        (format!("{here}\nbase_path = \"noslash/\""), "must begin with a slash: say /noslash"),
        (format!("{here}\nhosts = [\"tasks example\"]"), "web.hosts is 'tasks example'"),
    ] {
        dashboard_fault(&place, &settings, says);
    }

    // Nothing is good about what is not there.
    let (code, found) = doctor_of(&place, "/nowhere/laneway.db", &[]);
    assert!(code == 1 && about(&found, "log").is_empty() && about(&found, "folder")[0].starts_with("bad"), "{found:?}");

    // Of several --check-config tells all.
    let db = place.path("no/such/folder/laneway.db").display().to_string();
    let flags = ["--web", "127.0.0.1:0", "--set", &format!("web.access_file={wide}")];
    let checked = Said::by(&place, &[], &[&["broker", "--db", &db, "--check-config"][..], &flags].concat());
    checked.is(7, "is not a folder");
    let folder = place.dir().display().to_string();
    let check = |words: &[&str]| Said::by(&place, &[], &[&["broker", "--check-config"][..], words].concat());
    check(&["--log-file", &folder]).is(7, &format!("log_file is {folder} (flag --log-file): is a folder"));
    // A start and doctor look at it in the same way. In /proc not even root makes a file.
    let fresh = place.path("fresh.log").display().to_string();
    for (file, fault) in
        [("/nofolder/x.log", "/nofolder is not a folder"), ("/proc/x.log", "/proc cannot be written: ")]
    {
        let says = format!("log_file is {file} (flag --log-file): {fault}");
        for words in [&[][..], &["--check-config"], &["--supervise"]] {
            let words = [&["broker", "--db", "x.db", "--log-file", file], words].concat();
            Said::by(&place, &[], &words).is(7, &says);
        }
        let looked = Said::by(&place, &[("LANEWAY_LOG_FILE", file)], &["doctor", "-o", "json"]);
        let told = about(&looked.json(), "log file");
        assert!(looked.code == 1 && told.len() == 1 && told[0].contains(fault), "{told:?}");
    }
    check(&["--log-file", &fresh]).is(0, "");
    assert!(!std::path::Path::new(&fresh).exists());
    check(&["--log-file", "/dev/null"]).is(0, "");
    check(&["--set", "lane_limits.urgent.cap=1"]).is(7, "lane_limits is 'urgent' (flag --set): must be one of lanes");
    let odd = Said::by(&place, &[("LANEWAY_NOSUCH", "1")], &["broker", "--check-config"]);
    odd.is(0, "the environment variable LANEWAY_NOSUCH is no setting and is not used");
    checked.is(7, "other users of this machine may read it");

    let words = format!("{any}\nbase_path = \"/laneway/\"\naccess_file = \"{good}\"\nlink_key_file = \"{key}\"\n");
    let file = place.path("web.toml");
    std::fs::write(&file, format!("bind = [{:?}]\n[web]\n{words}", place.endpoint())).unwrap();
    let config = file.display().to_string();
    let (code, found) = doctor(&place, &["--config", &config]);
    let told = about(&found, "dashboard");
    assert!(code == 0 && told.len() == 1 && told[0].starts_with("ok: 0.0.0.0:0 can be listened at"), "{found:?}");
}

#[test]
fn a_running_dashboard_is_no_fault_of_its_own_settings() {
    // Proves that the address which the running broker has is not taken for somebody else's, by both commands.
    let place = Place::new();
    let broker = Broker::start_as(&place, &["--web", "127.0.0.1:0"]);
    let (web, db) = (Http::of(&broker).address().to_owned(), place.db().display().to_string());
    let file = place.path("web.toml");
    std::fs::write(&file, format!("bind = [{:?}]\n[web]\nbind = \"{web}\"\n", place.endpoint())).unwrap();
    let config = file.display().to_string();
    let (code, found) = doctor(&place, &["--config", &config]);
    assert_eq!((code, about(&found, "dashboard").len()), (0, 1), "{found:?}");
    let check = ["broker", "--db", &db, "--config", &config, "--check-config"];
    Said::by(&place, &[], &check).is(0, "");
    drop(broker);
    Said::by(&place, &[], &check).is(0, "");
}

#[test]
fn the_container_runs_as_nobody_in_particular_and_tells_its_health() {
    // Proves, without an engine, that the recipe has no lint, keeps what it writes in a volume, is not root, and asks `laneway check`.
    let recipe = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("config/Dockerfile");
    let linted = Command::new(harness::tools::hadolint()).arg(&recipe).output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    let text = std::fs::read_to_string(recipe).unwrap();
    for line in ["USER 7733", "VOLUME /var/lib/laneway", "CMD [\"laneway\", \"check\"]", "ENTRYPOINT [\"laneway\"]"] {
        assert!(text.lines().any(|found| found.ends_with(line)), "{line} is not there");
    }
}
