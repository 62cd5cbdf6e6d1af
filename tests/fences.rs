//! Promise 5 from outside: leases that nobody can guess, and the same fence in SQL, for a worker that ends its task in a
//! transaction of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;

use harness::{Broker, Place, RawPeer, Table, plain_ready};
use laneway::{Context, Failure, Task, Worker};
use laneway_protocol::TaskId;
use laneway_protocol::message::{Answer, End, HandOut, Outcome, OutcomeCode, Ready, Request};

fn hand_out(answer: Answer) -> HandOut {
    match answer {
        Answer::Tasks(tasks) => tasks,
        other => panic!("no tasks: {other:?}"),
    }
}

/// Says how a task ended and waits until it is on disk. The code of the outcome.
fn say(peer: &RawPeer, seq: &HandOut, outcome: Outcome) -> OutcomeCode {
    let last =
        Ready { max: 0, epoch: Some(seq.epoch), outcomes: vec![outcome], ..plain_ready("w", "echo", seq.seq, 0) };
    match peer.ask(Request::Ready(last)) {
        Answer::Wait(wait) => wait.outcomes[0],
        other => panic!("no answer to the outcome: {other:?}"),
    }
}

#[test]
fn leases_cannot_be_guessed_from_one_another() {
    // Proves that leases are spread over 64 bits without a rhythm, and that a run of the same number has another one under
    // the next broker.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    table.insert_many(100, "normal", "echo", "1");
    let peer = RawPeer::req(broker.endpoint());
    let ready = |max| Request::Ready(Ready { max, ..plain_ready("w", "echo", 0, 30_000) });
    let mut leases: Vec<i64> = Vec::new();
    while leases.len() < 100 {
        // Each READY says `ack` 0, so what it got before goes back and comes again under a new lease.
        let tasks = hand_out(peer.ask(ready(100))).tasks;
        leases.extend(tasks.iter().map(|task| task.lease.value()));
    }
    let distinct: BTreeSet<i64> = leases.iter().copied().collect();
    assert_eq!(distinct.len(), leases.len());
    let steps: BTreeSet<i64> = leases.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert_eq!(steps.len(), leases.len() - 1, "the next lease follows from the last two");
    // Each bit is a coin: of a hundred, fewer than ten or more than ninety alike would be a wonder.
    for bit in 0..64 {
        let ones = leases.iter().filter(|lease| *lease >> bit & 1 == 1).count() * 100 / leases.len();
        assert!((10..=90).contains(&ones), "bit {bit} is set in {ones} of 100 leases");
    }
}

/// A task that runs as one row of the app's own table says, ended in the same transaction.
fn end_by_sql(table: &Table, task: TaskId, lease: i64) -> bool {
    let task = task.value().cast_signed();
    table.0.execute_batch("BEGIN IMMEDIATE").unwrap();
    table.execute("INSERT INTO effects(task) VALUES (?1)", [task]);
    let sql = "UPDATE tasks SET state = 'done', attempts = attempts + 1, result = '\"by sql\"', finished_at = 1 \
               WHERE id = ?1 AND lease = ?2 AND state = 'running'";
    let ended = table.execute(sql, (task, lease)) == 1;
    table.0.execute_batch(if ended { "COMMIT" } else { "ROLLBACK" }).unwrap();
    ended
}

#[test]
fn a_worker_ends_its_task_in_its_own_transaction_and_a_stale_one_cannot() {
    // Proves the recipe of docs/sql.md: with `committed` the row shows the lease when the task arrives, the fenced UPDATE
    // takes effect once together with the app's own row, `already` is taken for it, and a lease that is over changes nothing.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    table.execute("CREATE TABLE effects (task INTEGER)", []);
    let peer = RawPeer::req(broker.endpoint());
    let committed = |ack| Ready { committed: true, ..plain_ready("w", "echo", ack, 30_000) };

    let id = table.insert("echo", "1");
    let first = hand_out(peer.ask(Request::Ready(committed(0))));
    let task = &first.tasks[0];
    assert_eq!((table.state(id), table.column::<i64>(id, "lease")), ("running".into(), task.lease.value()));
    assert!(!end_by_sql(&table, task.task, task.lease.value() ^ 1), "another lease ended it");
    assert!(end_by_sql(&table, task.task, task.lease.value()));
    assert!(!end_by_sql(&table, task.task, task.lease.value()), "it ended twice");
    let code = say(&peer, &first, Outcome::new(task.task, task.lease, End::Already));
    assert!(matches!(code, OutcomeCode::Ok | OutcomeCode::Recorded), "{code:?}");
    assert_eq!(table.column::<String>(id, "state || attempts || result"), "done1\"by sql\"");

    // Given back and handed out again, it belongs to the new lease, in SQL as on the wire.
    let id = table.insert("echo", "2");
    let old = hand_out(peer.ask(Request::Ready(committed(first.seq))));
    assert_eq!(say(&peer, &old, Outcome::new(old.tasks[0].task, old.tasks[0].lease, End::Release)), OutcomeCode::Ok);
    let new = hand_out(peer.ask(Request::Ready(committed(old.seq))));
    assert_eq!(new.tasks[0].task, old.tasks[0].task);
    assert!(!end_by_sql(&table, old.tasks[0].task, old.tasks[0].lease.value()));
    let stale = Outcome::new(old.tasks[0].task, old.tasks[0].lease, End::Already);
    assert_eq!(say(&peer, &new, stale), OutcomeCode::Stale);
    assert!(end_by_sql(&table, new.tasks[0].task, new.tasks[0].lease.value()));
    assert_eq!(table.one::<i64>("SELECT count(*) FROM effects", []), 2, "each task has its effect once");
    assert_eq!(table.state(id), "done");
}

/// A worker on the SDK whose handler ends its task by SQL, and what the task then is.
fn run_on_the_sdk(committed: bool) -> (String, i64) {
    let place = Place::new();
    let broker = Broker::start_with(&place, &["defaults.max_attempts=1"]);
    let table = Table::open(&place);
    table.execute("CREATE TABLE effects (task INTEGER)", []);
    let db = place.db();
    let handler = move |(): (), ctx: &Context| -> Result<(), Failure> {
        let own = Table(rusqlite::Connection::open(&db)?);
        own.0.busy_timeout(harness::DEADLINE)?;
        if committed {
            let (id, lease) = (ctx.id().value().cast_signed(), ctx.lease().value());
            let seen = (own.state(id), own.column::<i64>(id, "lease"));
            assert_eq!(seen, ("running".into(), lease), "the row as the task arrives");
            assert!(end_by_sql(&own, ctx.id(), lease));
        }
        Err(Failure::already())
    };
    let builder = Worker::builder(place.endpoint()).signals(false).committed(committed);
    let worker = builder.handle("echo", handler).build().unwrap();
    let stopper = worker.stopper();
    let thread = std::thread::spawn(|| worker.run());
    let client = broker.client();
    // Whoever waits hears what is in the row.
    for _ in 0..20 {
        let ended = client.submit_and_wait(Task::new("echo")).unwrap();
        let heard = (ended.state.as_str(), ended.result::<String>().ok(), ended.error.as_deref());
        if committed {
            assert_eq!(heard, ("done", Some("by sql".into()), None));
        } else {
            assert!(heard.0 == "dead" && heard.2.is_some_and(|error| error.contains("`already`")), "{heard:?}");
        }
    }
    stopper.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(broker.stop(), 0);
    let ends = "SELECT DISTINCT concat_ws(' ', state, attempts, result, error) FROM tasks";
    assert_eq!(table.one::<i64>(&format!("SELECT count(*) FROM ({ends})"), []), 1);
    (table.one(ends, []), table.one("SELECT count(DISTINCT task) * 1000 + count(*) FROM effects", []))
}

#[test]
fn a_handler_of_the_sdk_ends_its_task_in_its_own_transaction() {
    // Proves that a worker built with `committed` sees its lease in the row when a task arrives, that `already` is taken for its
    // UPDATE, and that those who wait for the task get the result from the row.
    assert_eq!(run_on_the_sdk(true), ("done 1 \"by sql\"".into(), 20_020));
}

#[test]
fn a_handler_that_says_already_unasked_is_told_what_it_lacks() {
    // Proves that a worker which is not built so has failed, with an error that names the setting.
    let (end, effects) = run_on_the_sdk(false);
    assert!(
        end.starts_with("dead 1 the handler says `already`, but") && end.contains("WorkerBuilder::committed"),
        "{end}"
    );
    assert_eq!(effects, 0);
}

#[test]
fn a_worker_that_says_already_and_did_not_do_it_has_failed() {
    // Proves that a word without its UPDATE is told apart: the row decides, and says what was wrong.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let peer = RawPeer::req(broker.endpoint());
    let id = table.insert("echo", "1");
    let tasks = hand_out(peer.ask(Request::Ready(Ready { committed: true, ..plain_ready("w", "echo", 0, 30_000) })));
    say(&peer, &tasks, Outcome::new(tasks.tasks[0].task, tasks.tasks[0].lease, End::Already));
    assert_eq!(table.state(id), "dead");
    assert!(table.column::<String>(id, "error").contains("finished the row by SQL"));
}
