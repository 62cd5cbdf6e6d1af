//! Promise 8: bad input gets a clear error and costs nothing else. In the table here, and on the socket; the config and
//! the command line have their own file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Broker, Place, RawPeer, Table, WorkerProcess, wait_until};
use laneway::Verdict;
use laneway_protocol::Code;
use laneway_protocol::codec::{self, message_type};
use laneway_protocol::message::{Answer, NewTask, Request, Submit};
use laneway_protocol::{Kind, Payload, RequestId, TaskId};
use rusqlite::types::Value;
use rusqlite::types::Value::{Blob, Integer, Null, Real, Text};

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

/// A column, a value that makes no sense in it, and what the reason must say.
fn nonsense() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let text = |text: &str| Text(text.into());
    vec![
        ("kind", text(""), &["kind", "empty"]),
        ("kind", text("a\nb"), &["kind", "control characters"]),
        ("kind", text(&"k".repeat(129)), &["129 bytes", "at most 128"]),
        ("kind", Blob(b"echo".to_vec()), &["kind is a BLOB", "insert TEXT"]),
        ("lane", text("hihg"), &["'hihg'", "high, normal, low"]),
        ("lane", text(""), &["lane", "empty", "high, normal, low"]),
        ("lane", Blob(b"high".to_vec()), &["lane is a BLOB", "TEXT"]),
        ("run_at", Integer(1_900_000_000), &["looks like seconds", "1900000000000"]),
        ("run_at", Integer(1_900_000_000_000_000), &["microseconds", "milliseconds"]),
        ("run_at", Integer(-5), &["negative", "milliseconds"]),
        ("run_at", text("tomorrow"), &["'tomorrow'", "milliseconds as INTEGER"]),
        ("run_at", Blob(vec![0; 8]), &["run_at is a BLOB", "INTEGER"]),
        ("expires_at", Integer(1_900_000_000), &["looks like seconds", "1900000000000"]),
        ("expires_at", text("never"), &["'never'", "INTEGER"]),
        ("max_attempts", Integer(0), &["max_attempts 0", "1 to 1000000"]),
        ("max_attempts", Integer(-3), &["max_attempts -3", "1 to 1000000"]),
        ("max_attempts", text("many"), &["'many'", "whole number"]),
        ("timeout_ms", Integer(0), &["timeout_ms 0", "1 to"]),
        ("timeout_ms", Real(0.5), &["0.5", "whole number"]),
        ("trace", Blob(b"trace".to_vec()), &["trace is a BLOB", "TEXT"]),
        ("payload", Integer(7), &["payload is a number", "TEXT"]),
        ("payload", Blob(vec![0; 1_048_577]), &["1048577 bytes", "at most 1048576"]),
    ]
}

/// Rows that make no sense end as dead with a reason that names value, bound and fix; those around them run.
#[test]
fn nonsense_in_a_row_is_explained_in_the_row() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let _worker = WorkerProcess::start(&place, "");
    let mut bad = Vec::new();
    let mut good = Vec::new();
    for (column, value, says) in nonsense() {
        let kind = if column == "kind" { value.clone() } else { Text("echo".into()) };
        if column == "kind" {
            table.execute("INSERT INTO tasks(kind) VALUES (?1)", [kind]);
        } else {
            table.execute(&format!("INSERT INTO tasks(kind, {column}) VALUES (?1, ?2)"), [kind, value.clone()]);
        }
        bad.push((table.0.last_insert_rowid(), column, value, says));
        good.push(table.insert("echo", "1"));
    }
    for (key, says) in
        [(Text("k".repeat(513)), "513 bytes, at most 512"), (Blob(b"key".to_vec()), "unique_key is a BLOB")]
    {
        table.execute("INSERT INTO tasks(kind, unique_key) VALUES ('echo', ?1)", [key]);
        let id = table.0.last_insert_rowid();
        table.wait_for_state(id, "dead");
        assert!(table.column::<String>(id, "error").contains(says));
    }
    check_all_dead(&table, &bad);
    for id in good {
        table.wait_for_state(id, "done");
    }
}

/// The same by UPDATE of a row that waits, and by an explicit id far from where new rows are read.
#[test]
fn nonsense_by_update_or_with_an_explicit_id_is_found_too() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let in_an_hour = i64::try_from(harness::now_us() / 1_000).unwrap() + 3_600_000;
    // Ids ahead of the next tests', so that new rows read with a watermark end above all of these.
    table.execute("INSERT INTO tasks(id, kind, payload) VALUES (1000000, 'echo', '1')", []);
    let mut bad = Vec::new();
    for (n, (column, value, says)) in nonsense().into_iter().enumerate() {
        // Updated while it waits for later, as wrong values of a due row may be too late.
        table.execute("INSERT INTO tasks(kind, run_at) VALUES ('echo', ?1)", [in_an_hour]);
        let id = table.0.last_insert_rowid();
        table.execute(
            &format!("UPDATE tasks SET {column} = ?2, run_at = iif('{column}' = 'run_at', ?2, NULL) WHERE id = ?1"),
            (id, &value),
        );
        bad.push((id, column, value.clone(), says));

        let id = 1_000 + i64::try_from(n).unwrap();
        table.execute("INSERT INTO tasks(id, kind) VALUES (?1, 'echo')", [id]);
        table.execute(&format!("UPDATE tasks SET {column} = ?2 WHERE id = ?1"), (id, &value));
        bad.push((id, column, value, says));
    }
    let _worker = WorkerProcess::start(&place, "");
    check_all_dead(&table, &bad);
    table.wait_for_state(1_000_000, "done");
}

/// The schema itself refuses what can never be meant, in the app's own statement.
#[test]
fn the_schema_refuses_what_no_task_can_be() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    for sql in [
        "INSERT INTO tasks(kind) VALUES (NULL)",
        "INSERT INTO tasks(payload) VALUES ('1')",
        "INSERT INTO tasks(kind, state) VALUES ('echo', 'started')",
        "INSERT INTO tasks(id, kind) VALUES (0, 'echo')",
        "INSERT INTO tasks(id, kind) VALUES (9007199254740992, 'echo')",
    ] {
        let error = table.0.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("constraint failed"), "{sql}: {error}");
    }
    assert_eq!(table.count("1"), 0);
}

/// A row that says it runs without a broker's lease is refused, and not believed.
#[test]
fn a_row_cannot_claim_to_run() {
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    table.execute("INSERT INTO tasks(kind, state) VALUES ('echo', 'running')", []);
    let id = table.0.last_insert_rowid();
    table.wait_for_state(id, "dead");
    assert!(table.column::<String>(id, "error").contains("lease"));
}

#[track_caller]
fn check_all_dead(table: &Table, bad: &[(i64, &str, Value, &[&str])]) {
    for (id, column, value, says) in bad {
        let shown = if let Null | Integer(_) | Real(_) = value { format!("{value:?}") } else { "its value".into() };
        wait_until(&format!("{column} with {shown} (task {id}) to be dead"), || table.state(*id) == "dead");
        let error = table.column::<String>(*id, "error");
        for word in *says {
            assert!(error.contains(word), "{column} with {shown}: '{word}' is not in: {error}");
        }
        assert_eq!(table.column::<i64>(*id, "runs"), 0, "{column} with {shown} was handed out");
        let cause: String = table.one("SELECT cause FROM failures WHERE task = ?1", [*id]);
        assert_eq!(cause, "rejected");
    }
}

// ------------------------------------------------------------------------------------------------------------- socket

/// Bad questions are answered with the code that names the fault, on the same socket the next good one works, and a worker
/// beside it notices nothing.
#[test]
fn a_bad_question_is_answered_with_its_code() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "");
    let table = Table::open(&place);
    let peer = RawPeer::req(broker.endpoint());
    let header = |message_type: u8| vec![0x4c, 0x57, 1, message_type];
    let packed = |value: serde_json::Value| rmp_serde::to_vec_named(&value).unwrap();
    let submit = |extra: usize| {
        let task = |_| serde_json::json!({"kind": "echo"});
        let tasks: Vec<_> = (0..extra).map(task).collect();
        packed(serde_json::json!({"request": vec![0; 16], "tasks": tasks}))
    };
    let map = vec![0x80];
    let cases = vec![
        ("empty header", vec![vec![]], Code::BadMagic, None),
        ("text", vec![b"hello".to_vec()], Code::BadMagic, None),
        ("other magic", vec![vec![0x4c, 0x58, 1, 0x7e]], Code::BadMagic, None),
        ("long header", vec![vec![0x4c, 0x57, 1, 0x7e, 0]], Code::BadMagic, None),
        ("version 2", vec![vec![0x4c, 0x57, 2, 0x7e]], Code::BadVersion, None),
        ("type 0", vec![header(0), map.clone()], Code::BadType, None),
        ("an answer's type", vec![header(message_type::TASKS), map.clone()], Code::BadType, None),
        ("no body", vec![header(message_type::READY)], Code::BadBody, None),
        ("body of garbage", vec![header(message_type::READY), vec![0xc1; 20]], Code::BadBody, None),
        ("body is an array", vec![header(message_type::READY), vec![0x90]], Code::BadBody, None),
        ("something behind the map", vec![header(message_type::PING), vec![0x80, 0x80]], Code::BadBody, None),
        ("missing field", vec![header(message_type::READY), map.clone()], Code::BadBody, Some("session")),
        (
            "wrong type in a field",
            vec![header(message_type::READY), packed(serde_json::json!({"session": "s", "wait_ms": "long"}))],
            Code::BadBody,
            Some("wait_ms"),
        ),
        (
            "a list too long",
            vec![header(message_type::CANCEL), packed(serde_json::json!({"tasks": vec![1; 513]}))],
            Code::TooMany,
            Some("tasks"),
        ),
        ("too many tasks", vec![header(message_type::SUBMIT), submit(513)], Code::TooMany, Some("tasks")),
        ("payloads that nobody named", vec![header(message_type::PING), map.clone(), vec![1]], Code::BadFrames, None),
        ("body too large", vec![header(message_type::PING), vec![0; 65_537]], Code::TooLarge, None),
        (
            "nested too deep",
            vec![header(message_type::PING), [vec![0x81, 0xa1, b'a'], vec![0x91; 40], vec![0xc0]].concat()],
            Code::BadBody,
            None,
        ),
        (
            "too many frames",
            [vec![header(message_type::PING), map.clone()], vec![vec![]; 1_100]].concat(),
            Code::TooMany,
            None,
        ),
    ];
    let n_cases = u64::try_from(cases.len()).unwrap();
    for (what, frames, code, field) in cases {
        peer.send_frames(frames);
        let answer = peer.receive();
        let Answer::Error(error) = answer else { panic!("{what}: {answer:?}") };
        assert_eq!(error.code, code, "{what}: {error}");
        assert!(!error.retry, "{what}: asking again cannot help");
        if field.is_some() {
            assert_eq!(error.field.as_deref(), field, "{what}: {error}");
        }
        assert!(!error.text.is_empty(), "{what}");
        assert!(matches!(peer.ask(Request::Ping), Answer::Pong(_)), "after {what} a good question is answered");
    }
    let id = table.insert("echo", "1");
    table.wait_for_state(id, "done");
    let stats = broker.client().stats().unwrap();
    assert_eq!(stats.bad_messages, n_cases);
}

/// What has no valid envelope, or is larger than a frame may be, has nobody to answer: it is dropped, and only it.
#[test]
fn what_cannot_be_answered_is_dropped() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let context = zmq::Context::new();
    let dealer = || {
        let dealer = context.socket(zmq::DEALER).unwrap();
        dealer.set_linger(0).unwrap();
        dealer.set_rcvtimeo(30_000).unwrap();
        dealer.connect(broker.endpoint()).unwrap();
        dealer
    };
    let ping = codec::encode_request(Request::Ping).unwrap();
    let bad = dealer();
    // No envelope at all; one of the wrong length; a header without the empty frame; nothing.
    bad.send_multipart(&ping, 0).unwrap();
    bad.send_multipart([b"five!".to_vec(), Vec::new(), ping[0].clone(), ping[1].clone()], 0).unwrap();
    bad.send_multipart([b"four".to_vec(), ping[0].clone(), ping[1].clone()], 0).unwrap();
    bad.send(&b"alone"[..], 0).unwrap();
    // A good one, with the envelope that only it has: the first answer that comes.
    bad.send_multipart([b"good".to_vec(), Vec::new(), ping[0].clone(), ping[1].clone()], 0).unwrap();
    let answer = bad.recv_multipart(0).unwrap();
    assert_eq!(answer[..2], [b"good".to_vec(), Vec::new()]);
    assert!(matches!(codec::decode_answer(answer[2..].to_vec()), Ok(Answer::Pong(_))));

    // A frame beyond every bound closes its own connection, which may come back.
    let huge = dealer();
    let frame = vec![0; 20 * 1024 * 1024];
    huge.send_multipart([Vec::new(), ping[0].clone(), frame], 0).unwrap();
    let other = RawPeer::req(broker.endpoint());
    assert!(matches!(other.ask(Request::Ping), Answer::Pong(_)));
    let again = RawPeer::dealer(broker.endpoint());
    assert!(matches!(again.ask(Request::Ping), Answer::Pong(_)));
    wait_until("the drops to be counted", || broker.client().stats().unwrap().bad_messages == 4);
}

/// A SUBMIT with one task that makes no sense stores none, and says which one.
#[test]
fn a_submit_is_stored_all_or_none() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::req(broker.endpoint());
    let ask = |change: fn(&mut NewTask)| {
        let good = NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json("1")));
        let mut bad = good.clone();
        change(&mut bad);
        let submit =
            Submit { request: RequestId([7; 16]), tasks: vec![good, bad], wait_ms: 0, abandon: false, group: None };
        let answer = peer.ask(Request::Submit(submit));
        let Answer::Error(error) = answer else { panic!("{answer:?}") };
        error
    };
    let error = ask(|task| task.lane = Some("hihg".parse().unwrap()));
    assert_eq!((error.code, error.field.as_deref()), (Code::UnknownLane, Some("tasks[1].lane")), "{error}");
    assert!(error.text.contains("high, normal, low"), "{error}");
    let error = ask(|task| task.run_at = Some(1_900_000_000));
    assert_eq!((error.code, error.field.as_deref()), (Code::BadTask, Some("tasks[1].run_at")), "{error}");
    assert!(error.text.contains("1900000000000"), "{error}");
    let error = ask(|task| task.max_attempts = Some(0));
    assert_eq!((error.code, error.field.as_deref()), (Code::BadTask, Some("tasks[1].max_attempts")), "{error}");
    let error = ask(|task| task.payload = Some(Payload::bin(vec![0; 1_048_577])));
    assert_eq!((error.code, error.field.as_deref()), (Code::BadTask, Some("tasks[1].payload")), "{error}");
    assert_eq!(table.count("1"), 0, "a part was stored");
}

/// A trigger that an app has put on the table refuses one submit, and the broker goes on.
#[test]
fn a_submit_that_a_trigger_of_the_app_refuses_costs_nothing_else() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let trigger = "CREATE TRIGGER guard BEFORE INSERT ON tasks WHEN NEW.kind = 'bad' \
                   BEGIN SELECT RAISE(ABORT, 'not in this shop'); END";
    table.0.execute_batch(trigger).unwrap();
    let client = broker.client();
    let good = || laneway::Task::new("good");
    let refused = client.submit_many([good(), laneway::Task::new("bad")]).unwrap_err();
    assert!(refused.to_string().contains("not in this shop"), "{refused}");
    assert_eq!(table.count("1"), 0, "all or none");
    client.submit(good()).unwrap();
    assert_eq!(table.count("kind = 'good'"), 1);

    // Of a long list the messages before its own are stored, of 512 tasks at most, and up to three behind that were on their way.
    let bad_at = 10 * 512 + 7;
    let kind = |n| if n == bad_at { "bad" } else { "listed" };
    let refused = client.submit_many((0..20 * 512).map(|n| laneway::Task::new(kind(n)))).unwrap_err();
    assert!(refused.to_string().contains("not in this shop"), "{refused}");
    let listed = table.count("kind = 'listed'");
    assert!((bad_at - 512..bad_at + 4 * 512).contains(&listed), "{listed} are stored");
}

/// Triggers that refuse what people ask the broker to do, to cancel, to queue again, to keep progress, cost those rows and nothing else.
#[test]
fn commands_that_a_trigger_of_the_app_refuses_leave_their_task_alone() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let triggers = "
        CREATE TRIGGER no_request BEFORE UPDATE OF cancel_requested ON tasks WHEN NEW.unique_key = 'kept' AND NEW.cancel_requested \
            BEGIN SELECT RAISE(ABORT, 'not to be asked'); END;
        CREATE TRIGGER no_end BEFORE UPDATE ON tasks WHEN NEW.unique_key = 'kept' AND NEW.state = 'cancelled' \
            BEGIN SELECT RAISE(ABORT, 'not to be cancelled'); END;
        CREATE TRIGGER no_return BEFORE UPDATE ON tasks WHEN NEW.unique_key = 'gone' AND NEW.state = 'queued' \
            BEGIN SELECT RAISE(ABORT, 'not to come back'); END;
        CREATE TRIGGER no_progress BEFORE UPDATE ON tasks WHEN NEW.kind = 'progress' AND NEW.progress_done IS NOT NULL \
            BEGIN SELECT RAISE(ABORT, 'not to be noted'); END;";
    let client = broker.client();
    let task = |kind: &str, key: &str| {
        let payload = serde_json::json!({ "ms": 60_000 });
        client.submit(laneway::Task::new(kind).unique_key(key).payload(&payload)).unwrap().task
    };
    let row = |id: TaskId| i64::try_from(id.value()).unwrap();
    let gone = task("nobody", "gone");
    assert_eq!(client.cancel(&[gone]).unwrap(), [Verdict::Cancelled]);
    table.0.execute_batch(triggers).unwrap();
    assert_eq!(client.requeue(&[gone]).unwrap(), [Verdict::Unchanged]);
    let queued = task("nobody", "kept");
    assert_eq!(client.cancel(&[queued]).unwrap(), [Verdict::Unchanged]);
    let _worker = WorkerProcess::start(&place, "slots=2");
    let running = task("sleep", "kept");
    table.wait_for_state(row(running), "running");
    assert_eq!(client.cancel(&[running]).unwrap(), [Verdict::Unchanged]);
    assert_eq!((table.state(row(queued)), table.state(row(running))), ("queued".into(), "running".into()));
    let noted = table.insert("progress", "{\"steps\": 3, \"ms\": 1}");
    table.wait_for_state(noted, "done");
    assert_eq!(table.column::<Option<i64>>(noted, "progress_done"), None);
    // Without the triggers all of it works, on the same broker.
    table.0.execute_batch("DROP TRIGGER no_request; DROP TRIGGER no_end; DROP TRIGGER no_return").unwrap();
    assert_eq!(client.requeue(&[gone]).unwrap(), [Verdict::Requeued]);
    assert_eq!(client.cancel(&[queued, running]).unwrap(), [Verdict::Cancelled, Verdict::Requested]);
    table.wait_for_state(row(running), "cancelled");
}

/// Triggers that refuse what the broker writes, a hand-out, an outcome or a rejection, cost those rows and nothing else.
#[test]
fn writes_that_a_trigger_of_the_app_refuses_end_their_task_and_nothing_else() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let triggers = "
        CREATE TRIGGER no_start BEFORE UPDATE ON tasks WHEN NEW.unique_key = 'start' AND NEW.state <> 'dead' \
            BEGIN SELECT RAISE(ABORT, 'not to be started'); END;
        CREATE TRIGGER no_done BEFORE UPDATE ON tasks WHEN NEW.unique_key = 'done' AND NEW.state = 'done' \
            BEGIN SELECT RAISE(ABORT, 'not to be done'); END;
        CREATE TRIGGER no_end BEFORE UPDATE ON tasks WHEN NEW.unique_key = 'end' AND NEW.state <> 'running' \
            BEGIN SELECT RAISE(ABORT, 'not to be ended'); END;";
    table.0.execute_batch(triggers).unwrap();
    let insert = |key: &str, max_attempts: i64| {
        let sql = "INSERT INTO tasks(kind, payload, unique_key, max_attempts) VALUES ('echo', '1', ?1, ?2)";
        table.execute(sql, (key, max_attempts));
        table.0.last_insert_rowid()
    };
    let [start, done, end] = ["start", "done", "end"].map(|key| insert(key, 3));
    // One that makes no sense, and may not become dead either, from one commit on: between two the broker might come first.
    let no_end = &triggers[triggers.find("CREATE TRIGGER no_end").unwrap()..];
    let change =
        format!("BEGIN; DROP TRIGGER no_end; UPDATE tasks SET max_attempts = 0 WHERE id = {end}; {no_end} COMMIT");
    table.0.execute_batch(&change).unwrap();
    let mut worker = WorkerProcess::start(&place, "slots=2");
    table.wait_for_state(start, "dead");
    assert!(table.column::<String>(start, "error").contains("not to be started"));
    table.wait_for_state(done, "dead");
    assert!(table.column::<String>(done, "error").contains("not to be done"));
    let good = table.insert("echo", "2");
    table.wait_for_state(good, "done");
    assert_eq!(table.state(end), "queued", "the app's word holds");
    assert!(worker.is_running());
    assert!(broker.client().stats().unwrap().overtaken > 0, "what was refused is counted");
    table.0.execute_batch("DROP TRIGGER no_end").unwrap();
    table.wait_for_state(end, "dead");
}
