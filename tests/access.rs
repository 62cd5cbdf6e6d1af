//! Who is let in and who may do what, where peers come with keys: each mistake is told at once, on both sides, and nobody waits
//! for an answer that cannot come. Real broker, real sockets, keys of `laneway keygen`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::tools::python_with_zmq;
use harness::zmtp::{Wire, frame, greeting, ready_with};
use harness::{Broker, Place, Program, Said, Table, WorkerProcess, output_of, wait_for, wait_until};
use laneway::{Barrier, Client, Curve, Error, Worker};
use laneway_protocol::message::Drain;
use laneway_protocol::{Answer, Code, Request, codec};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A refusal is there within a second. Ten times that, for a machine that does much else; still far from any timeout.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How long a client would try that nobody refuses.
const PATIENCE: Duration = Duration::from_mins(1);

/// A broker with a plain ipc endpoint and a CURVE one, and a folder of keys.
struct Keyed {
    place: Place,
    broker: Broker,
    curve: String,
}

impl Keyed {
    /// With a key for each of `keys`: name and roles.
    fn start(keys: &[(&str, &str)]) -> Self {
        Self::start_at("tcp://127.0.0.1:0", keys)
    }

    fn start_at(curve: &str, keys: &[(&str, &str)]) -> Self {
        let place = Place::new();
        std::fs::create_dir(place.path("keys")).unwrap();
        keygen(&place, &["broker"]);
        for (name, roles) in keys {
            let_in(&place, name, roles);
        }
        let broker = broker(&place, curve, &[]);
        let curve = match curve.split_once("://") {
            Some(("tcp", _)) => format!("tcp://127.0.0.1:{}", broker.tcp().port()),
            _ => curve.into(),
        };
        Self { place, broker, curve }
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.place.path(&format!("{name}.secret"))
    }

    fn keys(&self, name: &str) -> Curve {
        Curve::from_files(self.secret(name), self.place.path("broker.public")).unwrap()
    }

    fn client(&self, name: &str) -> Result<Client, Error> {
        Client::connect_curve(&self.curve, self.keys(name), PATIENCE)
    }

    fn worker(&self, name: &str) -> WorkerProcess {
        let (secret, public) = (self.secret(name), self.place.path("broker.public"));
        let options = format!("secret={} broker={}", secret.display(), public.display());
        WorkerProcess::start_at(&self.place, &self.curve, &options)
    }

    /// Waits for a line of the log of who is let in.
    fn wait_for_log(&self, says: &str) {
        wait_until(says, || self.broker.log().iter().any(|line| line.to_string().contains(says)));
    }

    fn reload(&self) {
        self.broker.signal("HUP");
    }

    fn laneway(&self, words: &[&str]) -> Said {
        Said::by(&self.place, &[], words)
    }
}

/// The broker of a place with keys.
fn broker(place: &Place, curve: &str, settings: &[&str]) -> Broker {
    let bind = format!("curve.bind={curve}");
    let key_file = format!("curve.key_file={}", place.path("broker.secret").display());
    let folder = format!("curve.keys_folder={}", place.path("keys").display());
    Broker::start_with(place, &[&[bind.as_str(), &key_file, &folder], settings].concat())
}

/// Makes a key, and puts it on the list when that is read the next time.
fn let_in(place: &Place, name: &str, roles: &str) {
    keygen(place, &[name, "--roles", roles]);
    std::fs::rename(place.path(&format!("{name}.public")), place.path(&format!("keys/{name}.public"))).unwrap();
}

fn keygen(place: &Place, words: &[&str]) {
    Said::by(place, &[], &[&["keygen"], words].concat()).is(0, "");
}

/// What comes back at once, or the test fails.
#[track_caller]
fn at_once<T>(act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = act();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    result
}

#[track_caller]
fn barrier<T>(result: Result<T, Error>) -> Barrier {
    match result {
        Err(Error::NotAdmitted { barrier, .. }) => barrier,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[track_caller]
fn denied<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Refused(error)) if error.code == Code::Denied => error.text,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// The same worker in this process, to its end.
fn run_worker(endpoint: &str, curve: Option<Curve>) -> Result<(), Error> {
    let mut builder = Worker::builder(endpoint)
        .handle("echo", |payload: serde_json::Value, _: &laneway::Context| Ok::<_, std::io::Error>(payload));
    if let Some(curve) = curve {
        builder = builder.curve(curve);
    }
    builder.build().unwrap().run().map(drop)
}

#[test]
fn peers_with_keys_work_submit_read_and_administer() {
    // Proves that the whole main job runs over CURVE, by SDK and command line, each key within its roles, and that a plain
    // peer of this machine still needs no key.
    let keyed = Keyed::start(&[
        ("hand", "work"),
        ("app", "submit"),
        ("eye", "read"),
        ("boss", "admin"),
        ("both", "work,submit"),
    ]);
    let _worker = keyed.worker("hand");
    let public = keyed.place.path("broker.public").display().to_string();
    let as_peer = |name: &str, words: &[&str]| {
        let secret = keyed.secret(name).display().to_string();
        keyed.laneway(&[&["--endpoint", &keyed.curve, "--key", &secret, "--broker-key", &public], words].concat())
    };
    let said = as_peer("app", &["submit", "echo", "[1]", "--wait"]);
    said.is(0, "task 1");
    assert_eq!(said.out.trim(), "[1]");
    as_peer("app", &["submit", "fail", "--max-attempts", "1", "--wait"]).is(1, "it always fails");
    as_peer("app", &["stats"]).is(5, "STATS needs the role read, and the key app has submit");
    as_peer("hand", &["submit", "echo"]).is(5, "SUBMIT needs the role submit, and the key hand has work");
    as_peer("eye", &["task", "list"]).is(0, "");
    as_peer("eye", &["lane", "list"]).is(0, "");
    as_peer("eye", &["lane", "pause", "low"]).is(5, "LANES with a change needs the role admin");
    as_peer("eye", &["task", "cancel", "1"]).is(5, "CANCEL needs the role admin");
    as_peer("boss", &["lane", "pause", "low"]).is(0, "");
    as_peer("boss", &["stats"]).is(0, "");
    as_peer("both", &["submit", "echo", "--wait"]).is(0, "");
    let text = at_once(|| denied(run_worker(&keyed.curve, Some(keyed.keys("app")))));
    assert!(text.contains("needs the role work"), "{text}");
    keyed.wait_for_log("needs the role");
    keyed.broker.client().stats().unwrap();

    let environment = [
        ("LANEWAY_ENDPOINT", keyed.curve.as_str()),
        ("LANEWAY_KEY", &keyed.secret("boss").display().to_string()),
        ("LANEWAY_BROKER_KEY", &public),
    ];
    Said::by(&keyed.place, &environment, &["stats"]).is(0, "");
    Said::by(&keyed.place, &environment[..2], &["stats"]).is(2, "LANEWAY_BROKER_KEY is not");
}

#[test]
fn an_unknown_key_is_told_at_once() {
    let keyed = Keyed::start(&[("app", "submit")]);
    keygen(&keyed.place, &["stranger"]);
    let keys = || Curve::from_files(keyed.secret("stranger"), keyed.place.path("broker.public")).unwrap();
    assert_eq!(
        at_once(|| barrier(Client::connect_curve(&keyed.curve, keys(), PATIENCE))),
        Barrier::UnknownKey,
        "an app is told"
    );
    assert_eq!(at_once(|| barrier(run_worker(&keyed.curve, Some(keys())))), Barrier::UnknownKey, "a worker is told");
    let (secret, public) = (keyed.secret("stranger"), keyed.place.path("broker.public"));
    let words = ["--key", secret.to_str().unwrap(), "--broker-key", public.to_str().unwrap(), "stats"];
    at_once(|| keyed.laneway(&[&["--endpoint", &keyed.curve], &words[..]].concat())).is(5, "does not know this key");
    let key = laneway::curve::PublicKey::read(keyed.place.path("stranger.public")).unwrap().to_string();
    keyed.wait_for_log("a key that is not on the list");
    // The operator can find whose it is: the line names the key.
    assert!(keyed.broker.log().iter().any(|line| line["key"] == key.as_str() && line["address"] == "127.0.0.1"));
}

#[test]
fn a_wrong_key_of_the_broker_is_told_at_once() {
    // Proves that a peer which takes another for its broker says nothing to it, and both sides hear why.
    let keyed = Keyed::start(&[("app", "submit,work")]);
    keygen(&keyed.place, &["other"]);
    let keys = || Curve::from_files(keyed.secret("app"), keyed.place.path("other.public")).unwrap();
    let error = at_once(|| Client::connect_curve(&keyed.curve, keys(), PATIENCE).err().unwrap());
    assert!(error.to_string().contains("public file"), "{error}");
    assert_eq!(at_once(|| barrier(run_worker(&keyed.curve, Some(keys())))), Barrier::BrokenOff);
    let (secret, public) = (keyed.secret("app"), keyed.place.path("other.public"));
    let words = ["--key", secret.to_str().unwrap(), "--broker-key", public.to_str().unwrap(), "stats"];
    at_once(|| keyed.laneway(&[&["--endpoint", &keyed.curve], &words[..]].concat())).is(5, "breaks the handshake off");
    keyed.wait_for_log("a wrong public key for this broker");
}

#[test]
fn a_peer_without_keys_on_a_curve_endpoint_is_told_at_once() {
    let keyed = Keyed::start(&[]);
    assert_eq!(at_once(|| barrier(Client::connect_with(&keyed.curve, PATIENCE))), Barrier::NeedsKeys);
    assert_eq!(at_once(|| barrier(run_worker(&keyed.curve, None))), Barrier::NeedsKeys);
    at_once(|| keyed.laneway(&["--endpoint", &keyed.curve, "stats"])).is(5, "peers with keys only");
    keyed.wait_for_log("came without a key where keys are needed");
}

#[test]
fn a_peer_with_keys_on_a_plain_endpoint_is_told_at_once() {
    let keyed = Keyed::start(&[("app", "submit,work")]);
    let plain = keyed.broker.endpoint();
    assert_eq!(at_once(|| barrier(Client::connect_curve(plain, keyed.keys("app"), PATIENCE))), Barrier::TakesNoKeys);
    assert_eq!(at_once(|| barrier(run_worker(plain, Some(keyed.keys("app"))))), Barrier::TakesNoKeys);
    keyed.wait_for_log("with one where none is taken");
}

#[test]
fn the_list_is_read_again_while_the_broker_runs() {
    // Proves that SIGHUP shuts a key out that was taken off, at once and although its peer only waits, lets a new one in, changes
    // the roles of one that stays, all of it beside files that are wrong; and that a stop is not lost behind many of them.
    let keyed = Keyed::start(&[("hand", "work"), ("app", "submit")]);
    let mut worker = keyed.worker("hand");
    let app = keyed.client("app").unwrap();
    wait_until("the worker to wait for work", || keyed.broker.client().stats().unwrap().ready == 1);
    std::fs::remove_file(keyed.place.path("keys/hand.public")).unwrap();
    let_in(&keyed.place, "eye", "read");
    std::fs::write(keyed.place.path("keys/broken.public"), "public_key = \"x\"").unwrap();
    output_of(Command::new("mkfifo").arg(keyed.place.path("keys/pipe.public")));
    assert_eq!(barrier(keyed.client("eye")), Barrier::UnknownKey, "not before it is told");
    keyed.reload();
    assert_ne!(worker.wait(), 0, "the worker cannot go on");
    wait_until("the broker to see it gone", || keyed.broker.client().workers().unwrap().is_empty());
    keyed.client("eye").unwrap().stats().unwrap();
    keyed.wait_for_log("broken.public");
    keyed.wait_for_log("pipe.public: is no regular file");

    denied(app.stats());
    let public = keyed.place.path("keys/app.public");
    let text = std::fs::read_to_string(&public).unwrap();
    std::fs::write(&public, text.replace("\"submit\"", "\"submit\", \"read\"")).unwrap();
    keyed.reload();
    wait_until("the role to be there", || app.stats().is_ok());

    // None of these is lost behind others.
    for _ in 0..50 {
        keyed.reload();
    }
    assert_eq!(keyed.broker.stop(), 0);
}

#[test]
fn a_worker_whose_role_is_taken_away_hands_back_and_ends() {
    // Proves that what runs goes to another worker, and that the one without the role does not ask on and on.
    let keyed = Keyed::start(&[("hand", "work"), ("other", "work")]);
    let mut worker = keyed.worker("hand");
    let table = Table::open(&keyed.place);
    let task = table.insert("sleep", r#"{"ms": 60000}"#);
    table.wait_for_state(task, "running");
    let public = keyed.place.path("keys/hand.public");
    let text = std::fs::read_to_string(&public).unwrap();
    std::fs::write(&public, text.replace("\"work\"", "\"submit\"")).unwrap();
    keyed.reload();
    assert_ne!(worker.wait(), 0);
    table.wait_for_state(task, "queued");
    let left_out: u64 = keyed.broker.log().iter().filter_map(|line| line["left_out"].as_u64()).sum();
    assert!(left_out < 100, "it was denied {left_out} times and more");
}

#[test]
fn a_worker_with_the_right_keys_outlives_whatever_stands_in_its_brokers_place() {
    // Proves that a worker which was let in once takes broken handshakes for a broker that is away: its task goes on and is
    // settled with the next broker, though a forwarder in front of nobody accepted and closed its connections meanwhile.
    let keyed = Keyed::start(&[("hand", "work")]);
    let mut worker = keyed.worker("hand");
    let table = Table::open(&keyed.place);
    let gate = keyed.place.path("gate");
    let task = table.insert("gate", &serde_json::json!({ "path": gate }).to_string());
    table.wait_for_state(task, "running");
    let Keyed { place, broker: first, curve } = keyed;
    let address = first.tcp();
    first.kill();
    let listener = wait_for("the port to be free", || std::net::TcpListener::bind(address).ok());
    for _ in 0..5 {
        drop(listener.accept().unwrap());
    }
    drop(listener);
    let second = broker(&place, &curve, &["restart_hold_ms=10000"]);
    std::fs::write(gate, "").unwrap();
    table.wait_for_state(task, "done");
    assert!(worker.is_running());
    assert_eq!(table.column::<String>(task, "runs || ' ' || losses"), "1 0");
    assert_eq!((worker.stop(), second.stop()), (0, 0));
}

#[test]
fn the_largest_payload_and_result_travel_encrypted() {
    // Proves that what CURVE adds to a frame is not counted against the bound of the payload, on either side.
    const LARGEST: usize = 16 * 1024 * 1024;
    let place = Place::new();
    std::fs::create_dir(place.path("keys")).unwrap();
    keygen(&place, &["broker"]);
    let_in(&place, "all", "admin");
    let broker = broker(&place, "tcp://127.0.0.1:0", &["payload_bytes_max=16777216"]);
    let curve = format!("tcp://{}", broker.tcp());
    let keyed = Keyed { place, broker, curve };
    let _worker = keyed.worker("all");
    let text = "x".repeat(LARGEST - 2);
    let client = keyed.client("all").unwrap();
    let stored = client.submit(laneway::Task::new("echo").payload(&text)).unwrap();
    let result = client.wait(stored.task).unwrap().payload.unwrap();
    assert_eq!(result.bytes.len(), LARGEST);
}

#[test]
fn curve_is_spoken_on_every_sort_of_endpoint() {
    // Proves an ipc one, and one that is open to the network, where it needs no more words than the keys.
    let place = Place::new();
    for curve in [format!("ipc://{}", place.path("curve.sock").display()), "tcp://0.0.0.0:0".into()] {
        let keyed = Keyed::start_at(&curve, &[("eye", "read")]);
        keyed.client("eye").unwrap().stats().unwrap();
        assert_eq!(at_once(|| barrier(Client::connect_with(&keyed.curve, PATIENCE))), Barrier::NeedsKeys);
    }
}

#[test]
fn a_key_that_nobody_can_read_keeps_the_broker_from_starting() {
    // Proves that a broker does not start half open: each wrong file is named, with the exit code of wrong settings, and
    // `--check-config` finds it too.
    let keyed = Keyed::start(&[("app", "submit")]);
    let secret = keyed.place.path("broker.secret");
    let key_file = format!("curve.key_file={}", secret.display());
    let start = |key_file: &str, folder: &str, more: &[&str]| {
        let folder = format!("curve.keys_folder={folder}");
        let words =
            ["broker", "--db", "other.db", "--bind", "ipc://other.sock", "--set", "curve.bind=tcp://127.0.0.1:0"];
        keyed.laneway(&[&words[..], &["--set", key_file, "--set", &folder], more].concat())
    };
    start(&key_file, "keys", &["--check-config"]).is(0, "");
    start(&key_file, "none", &["--check-config"]).is(7, "none");
    start(&key_file, "none", &[]).is(7, "the folder of keys none cannot be read");
    start(&key_file, "keys", &["--check-config", "--set", "bind="]).is(0, "");
    output_of(Command::new("mkfifo").arg(keyed.place.path("keys/pipe.public")));
    start(&key_file, "keys", &[]).is(7, "pipe.public: is no regular file");
    std::fs::remove_file(keyed.place.path("keys/pipe.public")).unwrap();
    start("curve.key_file=broker.public", "keys", &[]).is(7, "broker.public");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    start(&key_file, "keys", &[]).is(7, "chmod 600");
}

#[test]
fn sockets_are_for_their_owner_and_the_network_for_keys() {
    // Proves mode 0600 on ipc sockets of both sorts, and that an open address without keys needs plain words, with which it is
    // warned about.
    let place = Place::new();
    keygen(&place, &["broker"]);
    std::fs::create_dir(place.path("keys")).unwrap();
    let socket = place.path("curve.sock");
    let settings = [
        format!("curve.bind=ipc://{}", socket.display()),
        format!("curve.key_file={}", place.path("broker.secret").display()),
        format!("curve.keys_folder={}", place.path("keys").display()),
    ];
    let started = AtomicBool::new(false);
    let broker = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            // From the first moment on, and once more when all is there.
            loop {
                let last = started.load(Ordering::SeqCst);
                for path in [&socket, &place.path("broker.sock")] {
                    match std::fs::metadata(path) {
                        Ok(found) => assert_eq!(found.permissions().mode() & 0o777, 0o600, "{}", path.display()),
                        Err(_) => assert!(!last, "{} is not there", path.display()),
                    }
                }
                if last {
                    return;
                }
            }
        });
        let broker = Broker::start_with(&place, &settings.iter().map(String::as_str).collect::<Vec<_>>());
        started.store(true, Ordering::SeqCst);
        looks.join().unwrap();
        broker
    });
    assert_eq!(broker.stop(), 0);
    assert!(!socket.exists(), "a socket is removed at the end");

    let open = ["--bind", "tcp://0.0.0.0:0"];
    let said = Said::by(&place, &[], &[&["broker", "--db", "other.db"], &open[..]].concat());
    said.is(7, "open to other machines");
    assert!(
        said.err.contains("curve.bind") && said.err.contains("--anyone-on-the-network-may-do-anything"),
        "{}",
        said.err
    );
    let broker = Broker::start_as(&place, &[&open[..], &["--anyone-on-the-network-may-do-anything"]].concat());
    wait_until("the warning", || broker.log().iter().any(|line| line.to_string().contains("unencrypted")));
}

#[test]
fn a_user_id_cannot_be_forged() {
    // Proves that what the broker takes for a peer's key is what libzmq vouches for: a plain peer that claims one is still a
    // plain peer, and is answered as such.
    let keyed = Keyed::start(&[("eye", "read")]);
    let plain = keyed.place.path("broker.sock");
    let key = laneway::curve::PublicKey::read(keyed.place.path("keys/eye.public")).unwrap().to_string();
    let mut wire = Wire::connect_ipc(&plain);
    wire.say(&[greeting(), ready_with(b"", &[("User-Id", key.as_bytes())])].concat());
    wire.skip_handshake().unwrap();
    let drain = codec::encode_request(Request::Drain(Drain::default())).unwrap();
    let mut message = frame(b"", true);
    for (n, part) in drain.iter().enumerate() {
        message.extend(frame(part, n + 1 < drain.len()));
    }
    wire.say(&message);
    let frames = wire.hear_message();
    let answer = codec::decode_answer(frames[1..].to_vec()).unwrap();
    assert!(matches!(answer, Answer::Drain(_)), "{answer:?}");
}

#[test]
fn the_python_worker_speaks_with_keys() {
    // Proves that a worker on one page works over CURVE, and that it ends with the reason when it is not let in.
    let keyed = Keyed::start(&[("snake", "work"), ("app", "submit")]);
    keygen(&keyed.place, &["stranger"]);
    let public = keyed.place.path("broker.public");
    let python_at = |endpoint: &str, secret: &Path| {
        let mut command = Command::new(python_with_zmq());
        command.arg(example("python/worker.py")).arg(endpoint);
        command.envs([("LANEWAY_KEY", secret), ("LANEWAY_BROKER_KEY", &public)]);
        command
    };
    let python = |secret: &Path| python_at(&keyed.curve, secret);
    let table = Table::open(&keyed.place);
    let task = table.insert("echo", "[1]");
    let worker = Program::start_with(&mut python(&keyed.secret("snake")));
    table.wait_for_state(task, "done");
    assert_eq!(worker.stop(), 0);

    let ends_with = |mut command: Command, says: &str| {
        let said = command.output().unwrap();
        let (code, text) = (said.status.code(), String::from_utf8(said.stderr).unwrap());
        assert!(code == Some(1) && text.contains(says), "{code:?} {text}");
    };
    ends_with(python(&keyed.secret("stranger")), "does not know our key");
    ends_with(python(&keyed.secret("app")), "READY needs the role work");
    ends_with(python_at(keyed.broker.endpoint(), &keyed.secret("snake")), "without keys only");
    let mut without = Command::new(python_with_zmq());
    without.arg(example("python/worker.py")).arg(&keyed.curve);
    ends_with(without, "LANEWAY_KEY");
    std::fs::set_permissions(keyed.secret("snake"), std::fs::Permissions::from_mode(0o644)).unwrap();
    ends_with(python(&keyed.secret("snake")), "chmod 600");
    // This one may be about to come back, so it is told and waited for.
    keygen(&keyed.place, &["other"]);
    let mut wrong = python(&keyed.secret("app"));
    wrong.env("LANEWAY_BROKER_KEY", keyed.place.path("other.public")).stderr(Stdio::piped());
    let mut wrong = wrong.spawn().unwrap();
    let line = BufReader::new(wrong.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(line.contains("broker's key the right one?"), "{line}");
    wrong.kill().unwrap();
    wrong.wait().unwrap();
}

#[test]
fn keys_are_made_once_and_for_their_owner() {
    // Proves what the files look like, that nothing is written over, and that a name cannot leave its folder.
    let place = Place::new();
    let said = output_of(
        Command::new(env!("CARGO_BIN_EXE_laneway"))
            .args(["keygen", "app", "--roles", "work,read", "--dir"])
            .arg(place.dir()),
    );
    assert!(said.contains("app.secret") && said.contains("work, read"), "{said}");
    let mode = std::fs::metadata(place.path("app.secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (secret, public) = (
        std::fs::read_to_string(place.path("app.secret")).unwrap(),
        std::fs::read_to_string(place.path("app.public")).unwrap(),
    );
    assert!(public.ends_with("roles = [\"work\", \"read\"]\n") && !public.contains("secret"), "{public}");
    assert_eq!(secret.lines().next(), public.lines().next());
    Said::by(&place, &[], &["keygen", "app"]).is(2, "app.secret is there already");
    assert_eq!(std::fs::read_to_string(place.path("app.secret")).unwrap(), secret);
    Said::by(&place, &[], &["keygen", "../app"]).is(2, "letters, digits");
    Said::by(&place, &[], &["keygen", "b", "--roles", "boss"]).is(2, "possible values: work, submit, read, admin");
    Said::by(&place, &[], &["keygen", "b", "--dir", "none"]).is(1, "none");
}

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples").join(path)
}
