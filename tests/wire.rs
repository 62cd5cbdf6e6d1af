//! The wire, spoken by hand: every kind of peer is served, every well-formed question is answered once, and a lost answer
//! loses nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::{Broker, DEADLINE, Place, RawPeer, Table, plain_ready, wait_until};
use laneway_protocol::message::{
    Answer, Beat, Bye, End, HandOut, HandedTask, Held, Hello, NewTask, Outcome, OutcomeCode, Progress, Ready, Request,
    Status, Submit, Tasks, Verdict, Wait, WaitFor,
};
use laneway_protocol::{Code, Epoch, Kind, Payload, RequestId, SessionName, TaskId, TaskState, codec};

/// How much later than `wait_ms` an answer may come on a busy machine: ten times what the broker promises.
const SLACK: Duration = Duration::from_secs(10);

/// Strict REQ, correlated REQ and DEALER peers all get their tasks and bring their results.
#[test]
fn every_kind_of_peer_is_served() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peers = [RawPeer::req, RawPeer::correlated, RawPeer::dealer].map(|connect| connect(broker.endpoint()));
    for (n, peer) in peers.iter().enumerate() {
        let session = format!("plain-{n}");
        let mut last = (0, None);
        for round in 0..3 {
            let id = table.insert("echo", &round.to_string());
            let hand_out = tasks(peer.ask(ready(&session, last, Vec::new(), 30_000)));
            assert_eq!(hand_out.seq, last.0 + 1, "the slot's answers are counted");
            let task = &hand_out.tasks[0];
            assert_eq!(i64::try_from(task.task.value()).unwrap(), id);
            assert_eq!(task.payload, Some(Payload::json(round.to_string())));
            last = (hand_out.seq, Some(hand_out.epoch));
            let wait = wait(peer.ask(ready(&session, last, vec![done(task, "true")], 0)));
            assert_eq!(wait.outcomes, [OutcomeCode::Ok]);
            assert_eq!(table.state(id), "done", "a plain worker hears of its outcome after the commit");
        }
    }
}

/// A parked question is answered when its time is over, and at once when a task comes.
#[test]
fn ipv6_is_listened_on_and_connected_to() {
    // Proves that an address in brackets works on both sides, beside an IPv4 one.
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("this machine has no IPv6, so nothing is shown");
        return;
    }
    let place = Place::new();
    let broker = Broker::start_as(&place, &["--bind", "tcp://127.0.0.1:0", "--bind", "tcp://[::1]:0"]);
    let ready = broker.ready_lines().pop().unwrap();
    let endpoints: Vec<&str> = ready["endpoints"].as_str().unwrap().split(' ').collect();
    assert!(endpoints[2].starts_with("tcp://[::1]:"), "{endpoints:?}");
    for endpoint in endpoints {
        laneway::Client::connect(endpoint).unwrap().stats().unwrap();
    }
}

#[test]
fn a_parked_question_is_answered_in_time() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let peer = RawPeer::req(broker.endpoint());
    let asked = Instant::now();
    let answer = wait(peer.ask(ready("s", (0, None), Vec::new(), 300)));
    assert_eq!(answer.after_ms, 0, "ask again at once");
    assert!(asked.elapsed() >= Duration::from_millis(290), "answered after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_millis(300) + SLACK, "answered after {:?}", asked.elapsed());

    let table = Table::open(&place);
    peer.send(ready("s", (0, None), Vec::new(), 60_000));
    wait_until("the question to be parked", || broker.client().stats().unwrap().ready == 1);
    let asked = Instant::now();
    table.insert("echo", "1");
    tasks(peer.receive());
    assert!(asked.elapsed() < SLACK, "a parked question waited {:?} beside a task", asked.elapsed());
}

/// A new READY of a slot replaces the parked one, which gets no answer; other slots are not touched.
#[test]
fn a_new_question_of_a_slot_replaces_its_parked_one() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::dealer(broker.endpoint());
    let other = RawPeer::dealer(broker.endpoint());
    let slot = |slot, wait_ms| Request::Ready(Ready { slot, ..plain_ready("s", "echo", 0, wait_ms) });
    peer.send(slot(0, 60_000));
    other.send(slot(1, 60_000));
    let client = broker.client();
    wait_until("two parked questions", || client.stats().unwrap().ready == 2);
    peer.send(slot(0, 60_000));
    // The answer to a later question of the same connection: the broker has read the one above by then.
    assert!(matches!(peer.ask(Request::Ping), Answer::Pong(_)));
    assert_eq!(client.stats().unwrap().ready, 2, "a slot is ready once");

    table.insert_many(2, "normal", "echo", "1");
    let ids = [tasks(peer.receive()), tasks(other.receive())].map(|hand_out| hand_out.tasks[0].task);
    assert_ne!(ids[0], ids[1]);
    // Nobody answers the replaced question later.
    peer.socket.set_rcvtimeo(100).unwrap();
    assert_eq!(peer.socket.recv_multipart(0), Err(zmq::Error::EAGAIN));
}

/// HELLO, READY, PROGRESS, BEAT and BYE: the life of a session that introduces itself.
#[test]
fn a_session_says_hello_works_and_leaves() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::req(broker.endpoint());
    let session = SessionName::new("polite").unwrap();
    let unknown = Ready { epoch: Some(Epoch(1)), kinds: None, ..plain_ready("polite", "echo", 0, 0) };
    let error = error(peer.ask(Request::Ready(unknown.clone())));
    assert_eq!((error.code, error.retry), (Code::HelloFirst, true), "{error}");

    let hello = Hello {
        session: session.clone(),
        name: "tester".into(),
        host: "here".into(),
        pid: 7,
        sdk: "by hand".into(),
        kinds: vec![Kind::new("echo").unwrap()],
        lanes: None,
        slots: 1,
        resume: Vec::new(),
        more: false,
    };
    let Answer::Welcome(welcome) = peer.ask(Request::Hello(hello)) else { panic!("no welcome") };
    assert!(welcome.beat_ms > 0 && welcome.batch_max == 512 && welcome.lost.is_empty());
    assert_eq!(
        welcome.lanes.iter().map(laneway_protocol::LaneName::as_str).collect::<Vec<_>>(),
        ["high", "normal", "low"]
    );

    let ids = [table.insert("echo", "1"), table.insert("echo", "2")];
    let question = Ready { epoch: Some(welcome.epoch), wait_ms: 30_000, max: 2, ..unknown };
    table.wait_for_count("state = 'queued'", 2);
    wait_until("the broker to see both", || broker.client().stats().unwrap().queued == 2);
    let mut handed = tasks(peer.ask(Request::Ready(question.clone())));
    if handed.tasks.len() == 1 {
        let second = Ready { ack: Some(handed.seq), ..question };
        handed.tasks.extend(tasks(peer.ask(Request::Ready(second))).tasks);
    }
    let held: Vec<Held> = handed.tasks.iter().map(|task| Held(task.task, task.lease)).collect();

    let progress = Progress {
        session: session.clone(),
        task: held[0].0,
        lease: held[0].1,
        done: Some(3),
        total: Some(4),
        note: Some("nearly".into()),
        extend_ms: None,
        data: None,
        log: None,
        checkpoint: None,
        parents: None,
    };
    let Answer::Progress(noted) = peer.ask(Request::Progress(progress.clone())) else { panic!("no answer") };
    assert!(!noted.cancel);
    wait_until("progress to be in the row", || table.column::<Option<i64>>(ids[0], "progress_done") == Some(3));
    assert_eq!(table.column::<String>(ids[0], "progress_note"), "nearly");
    let wrong = laneway_protocol::Lease::new(held[0].1.value() ^ 1);
    let stale = Progress { lease: wrong, ..progress };
    let refused = error_of(peer.ask(Request::Progress(stale)));
    assert_eq!(refused, Code::Stale);

    table.execute("UPDATE tasks SET cancel_requested = 1 WHERE id = ?1", [ids[0]]);
    let running = vec![held[0], held[1], Held(held[1].0, wrong)];
    let beat = Beat { session: session.clone(), epoch: Some(welcome.epoch), running, wait_ms: 30_000 };
    let noted = loop {
        // What is stale is told at once, a cancel when it is seen.
        let Answer::Beat(noted) = peer.ask(Request::Beat(beat.clone())) else { panic!("no answer") };
        if !noted.cancel.is_empty() {
            break noted;
        }
    };
    assert_eq!((noted.cancel, noted.stale), (vec![held[0]], vec![Held(held[1].0, wrong)]));

    let cancelled = Outcome::new(held[0].0, held[0].1, End::Cancelled);
    let bye = Bye { session, release: vec![held[1]], outcomes: vec![cancelled], more: false };
    let Answer::Bye(noted) = peer.ask(Request::Bye(bye)) else { panic!("no answer") };
    assert_eq!(noted.outcomes, [OutcomeCode::Ok]);
    assert_eq!((table.state(ids[0]).as_str(), table.state(ids[1]).as_str()), ("cancelled", "queued"));
    assert_eq!((table.column::<i64>(ids[1], "releases"), table.column::<i64>(ids[1], "attempts")), (1, 0));
    wait_until("the session to be gone", || broker.client().workers().unwrap().is_empty());
}

/// SUBMIT is on disk when it is answered; said again with its request id it stores nothing new.
#[test]
fn a_repeated_submit_gets_the_same_ids() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::req(broker.endpoint());
    let task = |n: usize| NewTask::new(Kind::new("echo").unwrap(), Some(Payload::json(n.to_string())));
    let submit = Submit {
        request: RequestId([3; 16]),
        tasks: (0..200).map(task).collect(),
        wait_ms: 0,
        abandon: false,
        group: None,
    };
    let Answer::Submit(first) = peer.ask(Request::Submit(submit.clone())) else { panic!("not stored") };
    assert_eq!(table.count("state = 'queued'"), 200, "answered before the commit");
    assert!(first.tasks.iter().all(|stored| stored.new));
    // Also after a restart: the answer may have been lost with the broker.
    assert_eq!(broker.stop(), 0);
    let broker = Broker::start(&place);
    let peer = RawPeer::req(broker.endpoint());
    for _ in 0..2 {
        let Answer::Submit(again) = peer.ask(Request::Submit(submit.clone())) else { panic!("not answered") };
        let ids = |tasks: &[laneway_protocol::message::Stored]| tasks.iter().map(|one| one.task).collect::<Vec<_>>();
        assert_eq!(ids(&again.tasks), ids(&first.tasks));
        assert!(again.tasks.iter().all(|stored| stored.new), "the same answer as the first time");
    }
    assert_eq!(table.count("1"), 200);
}

/// Looking up, waiting and cancelling work by id and by key; and PING is answered.
#[test]
fn tasks_are_looked_up_waited_for_and_cancelled() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::req(broker.endpoint());
    table.execute("INSERT INTO tasks(kind, payload, unique_key) VALUES ('nobody', '[1]', 'k')", []);
    let id = task_id(table.0.last_insert_rowid());
    let missing = task_id(999);

    let question = Status { tasks: vec![id, missing], filter: None, detail: true };
    let Answer::Status(rows) = peer.ask(Request::Status(question)) else { panic!("no answer") };
    assert_eq!((rows.rows.len(), &rows.not_found), (1, &vec![missing]));
    assert_eq!((rows.rows[0].state, rows.rows[0].payload.clone()), (TaskState::Queued, Some(Payload::json("[1]"))));

    let wait_for = WaitFor {
        tasks: vec![id, missing],
        kind: None,
        unique_key: None,
        cursor: None,
        wait_ms: 0,
        abandon: false,
        group: None,
    };
    let Answer::WaitFor(waited) = peer.ask(Request::WaitFor(wait_for)) else { panic!("no answer") };
    assert_eq!((waited.pending, waited.not_found), (vec![id], vec![missing]));
    let by_key = WaitFor {
        tasks: Vec::new(),
        kind: Some(Kind::new("nobody").unwrap()),
        unique_key: Some("k".into()),
        cursor: None,
        wait_ms: 60_000,
        abandon: false,
        group: None,
    };
    let late = RawPeer::req(broker.endpoint());
    late.send(Request::WaitFor(by_key.clone()));

    let Answer::Cancel(verdicts) = peer.ask(Request::Cancel(Tasks { tasks: vec![id, missing] })) else { panic!() };
    assert_eq!(verdicts.verdicts, [Verdict::Cancelled, Verdict::NotFound]);
    assert_eq!(table.state(1), "cancelled", "answered before the commit");
    let Answer::WaitFor(ended) = late.receive() else { panic!("no answer") };
    assert_eq!((ended.finals[0].task, ended.finals[0].state), (id, TaskState::Cancelled));
    let Answer::Cancel(verdicts) = peer.ask(Request::Cancel(Tasks { tasks: vec![id] })) else { panic!() };
    assert_eq!(verdicts.verdicts, [Verdict::Unchanged]);
    let nobody = WaitFor { unique_key: Some("other".into()), ..by_key };
    assert_eq!(error_of(peer.ask(Request::WaitFor(nobody))), Code::NotFound);
    assert!(matches!(peer.ask(Request::Ping), Answer::Pong(_)));
}

/// A TASKS that got lost on the way is found by the `ack` of the slot's next word: the tasks go back at once, with a new
/// lease and nothing counted, whether a proxy dropped the answer or the peer had given up on it.
#[test]
fn tasks_lost_on_the_way_go_back_uncounted() {
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let id = table.insert("echo", "1");
    let peer = RawPeer::dealer(broker.endpoint());
    let lost = tasks(peer.ask(ready("s", (0, None), Vec::new(), 30_000)));
    // The same word again, as if the answer had never come.
    let found = tasks(peer.ask(ready("s", (0, None), Vec::new(), 30_000)));
    assert_eq!(found.tasks[0].task, lost.tasks[0].task);
    assert_ne!(found.tasks[0].lease, lost.tasks[0].lease, "each hand-out has its own lease");
    let received = (found.seq, Some(found.epoch));
    let noted = wait(peer.ask(ready("s", received, vec![done(&lost.tasks[0], "1"), done(&found.tasks[0], "2")], 0)));
    assert_eq!(noted.outcomes, [OutcomeCode::Stale, OutcomeCode::Ok]);
    assert_eq!(table.column::<String>(id, "result"), "2");
    assert_eq!((table.column::<i64>(id, "attempts"), table.column::<i64>(id, "losses")), (1, 0));
}

/// A correlated peer that abandons its wait just as tasks are sent, a thousand times, while a proxy drops every third
/// answer: no task is lost, none runs twice, nothing is counted against any.
#[test]
fn a_thousand_abandoned_waits_lose_nothing() {
    const ROUNDS: i64 = 1_000;
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::correlated(broker.endpoint());
    let mut last = (0, None);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut inserted, mut dropped, mut finished) = (0, 0, 0);
    let until = Instant::now() + 3 * DEADLINE;
    while finished < ROUNDS {
        assert!(Instant::now() < until, "{finished} of {inserted} tasks came through, {dropped} answers were dropped");
        peer.send(ready("s", last, outcomes.clone(), 200));
        if inserted < ROUNDS {
            inserted += 1;
            table.insert("echo", &inserted.to_string());
        }
        // Gives up at different moments around the hand-out: before, while and after the answer is on its way.
        let patience = Duration::from_micros(u64::try_from(inserted).unwrap() % 7 * 400);
        let answer = receive_within(&peer, if inserted < ROUNDS { patience } else { Duration::from_secs(1) });
        match answer {
            // The proxy: what came is thrown away, as if it had not.
            Some(_) if inserted % 3 == 0 && inserted < ROUNDS => dropped += 1,
            Some(Answer::Tasks(hand_out)) => {
                finished += count_done(&outcomes, &hand_out.outcomes);
                outcomes = hand_out.tasks.iter().map(|task| done(task, "0")).collect();
                last = (hand_out.seq, Some(hand_out.epoch));
            }
            Some(Answer::Wait(wait)) => {
                finished += count_done(&outcomes, &wait.outcomes);
                outcomes.clear();
            }
            Some(other) => panic!("{other:?}"),
            None => dropped += 1,
        }
    }
    assert!(dropped > ROUNDS / 4, "only {dropped} answers were dropped");
    assert_eq!(table.count("state = 'done' AND attempts = 1 AND losses = 0"), ROUNDS);
    assert_eq!(table.one::<i64>("SELECT count(*) FROM failures", []), 0);
    assert_eq!(table.count("releases > 0"), 0, "a hand-out that never arrived was counted");
}

/// A real proxy between worker and broker that drops a thousand answers with tasks: the worker gives each up, asks again, and
/// gets the task under a new lease; none is lost, none is done twice, nothing is counted.
#[test]
fn a_proxy_that_drops_a_thousand_tasks_answers_loses_nothing() {
    const TASKS: i64 = 400;
    const DROPS: u32 = 1_000;
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    table.insert_many(usize::try_from(TASKS).unwrap(), "normal", "echo", "1");
    let front = format!("ipc://{}", place.path("proxy").display());
    let proxy = DroppingProxy::start(&front, broker.endpoint(), DROPS);
    let peer = RawPeer::correlated(&front);
    let (mut last, mut outcomes, mut finished) = ((0, None), Vec::new(), 0);
    let until = Instant::now() + 3 * DEADLINE;
    while finished < TASKS {
        assert!(Instant::now() < until, "{finished} of {TASKS} tasks came through");
        peer.send(ready("s", last, outcomes.clone(), 5));
        // Longer than the question may be parked. What was dropped is given up; what is slow is asked for again, which is as good.
        match receive_within(&peer, Duration::from_millis(20)) {
            Some(Answer::Tasks(hand_out)) => {
                finished += count_done(&outcomes, &hand_out.outcomes);
                outcomes = hand_out.tasks.iter().map(|task| done(task, "0")).collect();
                last = (hand_out.seq, Some(hand_out.epoch));
            }
            Some(Answer::Wait(wait)) => {
                finished += count_done(&outcomes, &wait.outcomes);
                outcomes.clear();
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    assert_eq!(proxy.dropped(), DROPS);
    assert_eq!(table.count("state = 'done' AND attempts = 1 AND losses = 0 AND releases = 0"), TASKS);
    assert_eq!(table.one::<i64>("SELECT count(*) FROM failures", []), 0);
}

// ------------------------------------------------------------------------------------------------------------ private

/// Passes the messages of one peer on, both ways, but for three of four answers with tasks until it has dropped enough.
struct DroppingProxy {
    dropped: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl DroppingProxy {
    fn start(front: &str, back: &str, drops: u32) -> Self {
        let (dropped, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let context = zmq::Context::new();
        let (peer, broker) = (context.socket(zmq::ROUTER).unwrap(), context.socket(zmq::DEALER).unwrap());
        peer.bind(front).unwrap();
        broker.connect(back).unwrap();
        let (count, stopped) = (dropped.clone(), stop.clone());
        let run = move || {
            let (mut routing_id, mut n_tasks) = (Vec::new(), 0_u32);
            while !stopped.load(Ordering::Relaxed) {
                let mut items = [peer.as_poll_item(zmq::POLLIN), broker.as_poll_item(zmq::POLLIN)];
                zmq::poll(&mut items, 50).unwrap();
                while let Ok(mut frames) = peer.recv_multipart(zmq::DONTWAIT) {
                    routing_id = frames.remove(0);
                    broker.send_multipart(frames, 0).unwrap();
                }
                while let Ok(mut frames) = broker.recv_multipart(zmq::DONTWAIT) {
                    let header = frames.iter().position(Vec::is_empty).and_then(|delimiter| frames.get(delimiter + 1));
                    if header.is_some_and(|header| header[3] == codec::message_type::TASKS) {
                        n_tasks += 1;
                        if n_tasks % 4 != 0 && count.load(Ordering::Relaxed) < drops {
                            count.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                    }
                    frames.insert(0, routing_id.clone());
                    peer.send_multipart(frames, 0).unwrap();
                }
            }
        };
        Self { dropped, stop, thread: Some(std::thread::spawn(run)) }
    }

    fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for DroppingProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().ok();
    }
}

/// A plain worker's READY with the last `seq` and epoch that it received.
fn ready(session: &str, (ack, epoch): (u64, Option<Epoch>), outcomes: Vec<Outcome>, wait_ms: u64) -> Request {
    Request::Ready(Ready { epoch, outcomes, ..plain_ready(session, "echo", ack, wait_ms) })
}

fn done(task: &HandedTask, result: &str) -> Outcome {
    Outcome { result: Some(Payload::json(result)), ..Outcome::new(task.task, task.lease, End::Done) }
}

/// How many of the outcomes are on disk by these codes; each is either this time's or was recorded before.
fn count_done(outcomes: &[Outcome], codes: &[OutcomeCode]) -> i64 {
    assert_eq!(outcomes.len(), codes.len(), "a code for each outcome");
    assert!(codes.iter().all(|code| matches!(code, OutcomeCode::Ok | OutcomeCode::Recorded)), "{codes:?}");
    i64::try_from(codes.len()).unwrap()
}

fn receive_within(peer: &RawPeer, patience: Duration) -> Option<Answer> {
    let until = Instant::now() + patience;
    loop {
        match peer.socket.recv_multipart(zmq::DONTWAIT) {
            Ok(frames) => return Some(codec::decode_answer(frames).unwrap()),
            Err(zmq::Error::EAGAIN) if Instant::now() < until => std::thread::yield_now(),
            Err(zmq::Error::EAGAIN) => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

#[track_caller]
fn tasks(answer: Answer) -> HandOut {
    match answer {
        Answer::Tasks(hand_out) => hand_out,
        other => panic!("no tasks: {other:?}"),
    }
}

#[track_caller]
fn wait(answer: Answer) -> Wait {
    match answer {
        Answer::Wait(wait) => wait,
        other => panic!("no wait: {other:?}"),
    }
}

#[track_caller]
fn error(answer: Answer) -> laneway_protocol::WireError {
    match answer {
        Answer::Error(error) => error,
        other => panic!("no error: {other:?}"),
    }
}

#[track_caller]
fn error_of(answer: Answer) -> Code {
    error(answer).code
}

fn task_id(id: i64) -> TaskId {
    TaskId::new(u64::try_from(id).unwrap()).unwrap()
}
