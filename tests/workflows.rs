//! Workflows with the real binary: chains and groups by SQL, by socket and by command line, spawned tasks, results of parents,
//! a broker that dies in the middle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use harness::{Broker, Place, Program, Said, Table, wait_until};
use laneway::{Batch, Client, Context, Error, Failure, News, Stopper, Task, TaskId, TaskState, Worker};

/// A worker of this process, stopped when dropped.
struct Here(Stopper, Option<std::thread::JoinHandle<()>>);

impl Here {
    fn start(place: &Place) -> Self {
        let worker = Worker::builder(place.endpoint())
            .slots(4)
            .handle("add", |n: i64, ctx: &Context| {
                let before: i64 =
                    ctx.parents()?.iter().map(laneway::Ended::result::<i64>).sum::<Result<i64, Error>>()?;
                Ok::<_, Failure>(before + n)
            })
            .handle("fail", |_: i64, _: &Context| Err::<(), _>(Failure::dead("it broke")))
            .handle("states", |_: i64, ctx: &Context| {
                Ok::<_, Failure>(ctx.parents()?.iter().map(|end| end.state.as_str()).collect::<Vec<_>>())
            })
            .handle("launch", |n: i64, ctx: &Context| {
                let first = ctx.spawn(Task::new("add").payload(&1).join())?;
                for _ in 1..n {
                    ctx.spawn(Task::new("add").payload(&1).after_number(first).join())?;
                }
                let own: Result<i64, Error> = ctx.parent_result(ctx.id());
                assert!(matches!(own, Err(Error::NotFound(_))), "{own:?}");
                Ok::<_, Failure>(0)
            })
            .build()
            .unwrap();
        Self::run(worker)
    }

    /// Runs tasks that say what their test has them say, each by its number: so much is done, and with 0 it ends.
    fn start_speakers(place: &Place, n: i64) -> (Self, Vec<mpsc::Sender<u64>>) {
        let (say, hear): (Vec<_>, Vec<_>) = (0..n).map(|_| mpsc::channel()).unzip();
        let hear: HashMap<i64, _> = (0..n).zip(hear).collect();
        let hear = Arc::new(Mutex::new(hear));
        let worker = Worker::builder(place.endpoint())
            .slots(4)
            .handle("speak", move |n: i64, ctx: &Context| {
                let words = hear.lock().unwrap().remove(&n).unwrap();
                for done in words.iter().take_while(|done| *done > 0) {
                    ctx.log(format!("{n}: {done}"))?;
                    // The whole is said at once, however soon it comes.
                    ctx.progress(done, done, "");
                }
                Ok::<_, Failure>(n)
            })
            .handle("sum", |(): (), ctx: &Context| {
                let parents = ctx.parents()?;
                Ok::<_, Failure>(parents.iter().map(laneway::Ended::result::<i64>).sum::<Result<i64, Error>>()?)
            })
            .build()
            .unwrap();
        (Self::run(worker), say)
    }

    fn run(worker: Worker) -> Self {
        let stopper = worker.stopper();
        Self(stopper, Some(std::thread::spawn(move || _ = worker.run().unwrap())))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.stop();
        self.1.take().unwrap().join().unwrap();
    }
}

fn laneway(place: &Place, words: &[&str]) -> Said {
    Said::by(place, &[], &[&["--endpoint", &place.endpoint()], words].concat())
}

fn result(client: &Client, task: TaskId) -> i64 {
    client.wait(task).unwrap().result().unwrap()
}

#[test]
fn a_chain_by_sql_a_diamond_by_socket_and_a_task_by_command_line() {
    // Proves the three ways to say it, that each child reads its parents' results, and that open ones are named by explain.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let client = broker.client();
    table.0.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = table.insert("add", "1");
    table.execute("INSERT INTO tasks(kind, payload, state) VALUES ('add', '10', 'waiting')", []);
    let second = table.0.last_insert_rowid();
    table.execute("INSERT INTO task_dependencies(task, parent) VALUES (?1, ?2)", [second, first]);
    table.0.execute_batch("COMMIT").unwrap();
    let let_go = || {
        let lines = broker.log().into_iter().filter(|line| line["event"] == "let_go");
        lines.map(|line| line["task"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let after = |n: i64, numbers: &[usize]| {
        numbers.iter().fold(Task::new("add").payload(&n), |task, number| task.after_number(*number))
    };
    let stored = client
        .submit_together([after(100, &[]).after(id(second)), after(0, &[0]), after(0, &[0]), after(0, &[1, 2])])
        .unwrap();
    let last = stored[3].task;
    let said = laneway(&place, &["submit", "add", "1000", "--after", &last.to_string(), "-o", "json"]);
    let typed = said.json()[0]["task"].as_i64().unwrap();
    let why = laneway(&place, &["task", "explain", &typed.to_string()]);
    assert!(why.out.contains(&format!("is waiting: it waits for task {last}, which has not ended")), "{}", why.out);
    let why = laneway(&place, &["task", "explain", &last.to_string()]);
    let names = format!("it waits for 2 tasks that have not ended: {}, {}", stored[1].task, stored[2].task);
    assert!(why.out.contains(&names), "{}", why.out);
    let worker = Here::start(&place);
    assert_eq!(result(&client, last), 222);
    table.wait_for_state(typed, "done");
    assert_eq!(table.column::<String>(typed, "result"), "1222");
    // The log tells of each that it was let go, once, whoever had stored it.
    let id = |task: TaskId| i64::try_from(task.value()).unwrap();
    let mut children = vec![second, id(stored[0].task), id(stored[1].task), id(stored[2].task), id(last), typed];
    children.sort_unstable();
    wait_until("the log", || {
        let mut told = let_go();
        told.sort_unstable();
        told == children
    });
    laneway(&place, &["submit", "add", "1", "--after", "99999"])
        .is(5, "depends on task 99999, which is not in the table");
    drop(worker);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_failure_cancels_what_follows_unless_told_otherwise() {
    // Proves both rules over the socket, and that the cancelled one says by whom.
    let place = Place::new();
    let broker = Broker::start(&place);
    let client = broker.client();
    let _worker = Here::start(&place);
    let tasks = [
        Task::new("fail").payload(&0),
        Task::new("add").payload(&1).after_number(0),
        Task::new("add").payload(&1).after_number(1),
        Task::new("states").payload(&0).after_number_anyway(0).after_number_anyway(1),
    ];
    let stored = client.submit_together(tasks).unwrap();
    let ids: Vec<TaskId> = stored.iter().map(|stored| stored.task).collect();
    let ends = client.wait_all(&ids, Some(Duration::from_mins(1)), |_| ()).unwrap();
    let states: Vec<TaskState> = ends.iter().map(|end| end.state).collect();
    assert_eq!(states, [TaskState::Dead, TaskState::Cancelled, TaskState::Cancelled, TaskState::Done]);
    assert_eq!(ends[1].error.as_ref().unwrap(), &format!("task {}, which it depends on, is dead", ids[0]));
    assert_eq!(ends[3].result::<Vec<String>>().unwrap(), ["dead", "cancelled"]);
    let ring = [Task::new("add").after_number(1), Task::new("add").after_number(0)];
    let refused = client.submit_together(ring).unwrap_err().to_string();
    assert!(refused.contains("depends on itself: number 0 -> 1 -> 0"), "{refused}");
}

#[test]
fn a_task_that_launches_others_holds_no_worker_and_its_group_is_waited_for() {
    // Proves that spawned tasks join the group, wait for each other, and that the last one waits for all of them: with one
    // worker process, and from the command line.
    let place = Place::new();
    let broker = Broker::start(&place);
    let client = broker.client();
    let batch = Batch::new().name("ten").task(Task::new("launch").payload(&10)).last(Task::new("add").payload(&0));
    let stored = client.submit_batch(batch).unwrap();
    let group = stored.group.to_string();
    let said = laneway(&place, &["group", "show", &group, "-o", "json"]).json();
    assert_eq!((&said[0]["waiting"], &said[0]["queued"], &said[0]["name"]), (&1.into(), &1.into(), &"ten".into()));
    laneway(&place, &["group", "wait", &group, "--limit", "100ms"])
        .is(6, &format!("group {group} has not ended after 1"));
    let _worker = Here::start(&place);
    // Each of the nine adds the first one's 1 to its own: 1 + 9 * 2.
    assert_eq!(result(&client, stored.last.unwrap().task), 19);
    let row = client.wait_group(stored.group, Some(Duration::from_mins(1)), |_| ()).unwrap();
    assert_eq!((row.done, row.total()), (12, 12));
    laneway(&place, &["group", "wait", &group]).is(0, "12 of 12 done");
    laneway(&place, &["task", "purge", &stored.last.unwrap().task.to_string()]).is(0, "");
    laneway(&place, &["group", "wait", &group]).is(4, "is in the table no more");
    laneway(&place, &["group", "show", "999"]).is(4, "no task is in group 999");
}

#[test]
fn a_group_is_cancelled_as_one() {
    // Proves that what waits and what is queued ends, the last task too, and that nobody else does.
    let place = Place::new();
    let broker = Broker::start(&place);
    let client = broker.client();
    let tasks = (0..700).map(|n| Task::new("nobody").payload(&n));
    let (first, later): (Vec<Task>, Vec<Task>) = {
        let mut tasks: Vec<Task> = tasks.collect();
        let later = tasks.split_off(500);
        (tasks, later)
    };
    let stored = client.submit_batch(Batch::new().tasks(first).last(Task::new("nobody"))).unwrap();
    client.submit_many(later.into_iter().map(|task| task.group(stored.group))).unwrap();
    let other = client.submit(Task::new("nobody")).unwrap();
    assert_eq!(client.group(stored.group).unwrap().total(), 701);
    laneway(&place, &["group", "cancel", &stored.group.to_string()]).is(0, "");
    let row = client.wait_group(stored.group, Some(Duration::from_mins(1)), |_| ()).unwrap();
    assert_eq!((row.cancelled, row.total()), (701, 701));
    let said = laneway(&place, &["task", "list", "--group", &stored.group.to_string(), "--all", "-o", "json"]).json();
    // The last one may have gone with one of the others.
    let why = said.iter().filter(|row| row["error"] == "its group was cancelled").count();
    assert!(said.len() == 701 && why >= 700, "{} rows, {why} with their reason", said.len());
    assert_eq!(client.status(&[other.task], false).unwrap().rows[0].state, TaskState::Queued);
}

#[test]
fn a_workflow_outlives_kills_of_its_broker() {
    // Proves that every child is let go exactly once though the broker is killed again and again, and that what an app ended while
    // no broker ran is noticed at the next start.
    let place = Place::new();
    let broker = Broker::start(&place);
    let client = broker.client();
    let mut tasks = vec![Task::new("add").payload(&1)];
    tasks.extend((0..60).map(|n| Task::new("add").payload(&0).after_number(n)));
    let chain = client.submit_together(tasks).unwrap();
    let held = client.submit(Task::new("nobody")).unwrap();
    let child = client.submit(Task::new("states").payload(&5).after_anyway(held.task)).unwrap();
    let worker = Here::start(&place);
    let table = Table::open(&place);
    broker.kill();
    table.execute("UPDATE tasks SET state = 'cancelled' WHERE id = ?1", [held.task.value().cast_signed()]);
    for _ in 0..3 {
        let broker = Broker::start(&place);
        std::thread::sleep(Duration::from_millis(300));
        broker.kill();
    }
    let broker = Broker::start(&place);
    wait_until("both to be done", || table.count("state = 'done'") == 62);
    assert_eq!(table.column::<String>(i64::try_from(chain[60].task.value()).unwrap(), "result"), "1");
    assert_eq!(table.column::<String>(i64::try_from(child.task.value()).unwrap(), "result"), r#"["cancelled"]"#);
    assert_eq!(table.one::<i64>("SELECT count(*) FROM task_dependencies WHERE open = 1", []), 0);
    drop(worker);
    assert_eq!(broker.stop(), 0);
}

fn id(n: i64) -> TaskId {
    TaskId::new(n.unsigned_abs()).unwrap()
}

#[test]
fn a_group_is_made_on_the_command_line() {
    // Proves that tasks on lines become one group with its last task, waited for by its exit code; that a slip stores nothing; and
    // that without a broker the file takes them for the next one.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let lines = |text: &str| std::fs::write(place.path("parts.jsonl"), text).unwrap();
    let parts = place.path("parts.jsonl").display().to_string();
    lines("{\"kind\": \"add\", \"payload\": 1}\n\n{\"kind\": \"add\", \"payload\": 2, \"lane\": \"high\"}\n");
    let last = r#"{"kind": "add", "payload": 10}"#;
    let here = Here::start(&place);
    let said = laneway(&place, &["group", "submit", &parts, "--last", last, "--name", "sums", "--wait", "-o", "json"]);
    said.is(0, "\"done\":3");
    assert_eq!(
        table.one::<String>("SELECT name || result FROM task_groups JOIN tasks ON tasks.id = last_task", []),
        "sums13"
    );

    // The last one runs anyway, and the failure is told.
    lines("{\"kind\": \"fail\", \"payload\": 1}");
    let last = r#"{"kind": "states", "payload": 1}"#;
    laneway(&place, &["group", "submit", &parts, "--last-anyway", last, "--wait=1m"]).is(1, "1 dead");
    assert_eq!(table.count(r#"result = '["dead"]'"#), 1);
    let before = table.count("1");
    lines("{\"kind\": \"add\"}\n{\"kind\": \"add\", \"runat\": 1}");
    laneway(&place, &["group", "submit", &parts]).is(2, "line 2: 'runat' is no field of a task");
    lines("{\"kind\": \"add\"}\n{\"kind\": \"add\", \"lane\": \"nolane\"}");
    laneway(&place, &["group", "submit", &parts]).is(5, "unknown_lane");
    assert_eq!(table.count("1"), before);

    drop(here);
    assert_eq!(broker.stop(), 0);
    lines("{\"kind\": \"add\", \"payload\": 3}");
    let offline = |words: &[&str]| Said::by(&place, &[("LANEWAY_DB", place.db().to_str().unwrap())], words);
    offline(&["group", "submit", &parts, "--last", r#"{"kind": "add", "payload": 4}"#]).is(0, "using the file");
    let _broker = Broker::start(&place);
    let _here = Here::start(&place);
    table.wait_for_count("group_id = 3 AND state = 'done'", 2);
    assert_eq!(table.one::<i64>("SELECT CAST(result AS INTEGER) FROM tasks ORDER BY id DESC LIMIT 1", []), 7);
}

/// What was heard, in short: `N: DONE` for a line of a log, `DONE of task ID` for progress, and a word for the rest.
fn in_short(news: &News) -> Option<String> {
    match news {
        News::Missed => Some("missed".into()),
        News::Progress(word) => word.log.clone().or(word.done.map(|done| format!("{done} of task {}", word.task))),
        News::Ended(end) => Some(format!("task {} {}: {:?}", end.task, end.state, end.result::<i64>().ok())),
        _ => None,
    }
}

#[test]
fn whoever_waits_for_a_group_hears_what_its_tasks_say() {
    // Proves that the words of two tasks of a group come in order and once, across a broker that is killed with a gap and then how far
    // they are by their rows, and the result of the last task at the end; with the Rust client and on the command line.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let (worker, say) = Here::start_speakers(&place, 2);
    let batch = Batch::new().tasks([1, 2].map(|n| Task::new("speak").payload(&(n - 1)))).last(Task::new("sum"));
    let stored = broker.client().submit_batch(batch).unwrap();
    let (heard, told) = mpsc::channel();
    let endpoint = place.endpoint();
    let waiting = std::thread::spawn(move || {
        let on_news = |news: &News| in_short(news).into_iter().for_each(|word| heard.send(word).unwrap());
        Client::connect(endpoint).unwrap().wait_group_with(stored.group, Some(harness::DEADLINE), on_news).unwrap()
    });
    let said = place.path("said");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(["group", "wait", &stored.group.to_string(), "--endpoint", &place.endpoint()]);
    let mut typed = Program::start_saying(&mut command, &said);
    let lines = || std::fs::read_to_string(&said).unwrap();
    let next = || told.recv_timeout(harness::DEADLINE).unwrap();

    // One after the other, each heard before the next is said.
    for (n, done) in [(0, 3), (1, 5), (0, 4), (0, 7), (1, 6)] {
        say[n].send(done).unwrap();
        assert_eq!([next(), next()], [format!("{n}: {done}"), format!("{done} of task {}", n + 1)]);
        wait_until("the command line to have heard it", || {
            lines().contains(&format!("task {}: {done} of {done}", n + 1))
        });
    }
    for (id, done) in [(1, 7), (2, 6)] {
        wait_until("the row to have it", || table.column::<Option<i64>>(id, "progress_done") == Some(done));
    }
    broker.kill();
    let broker = Broker::start(&place);
    assert_eq!([next(), next(), next()], ["missed", "7 of task 1", "6 of task 2"]);
    wait_until("the command line to have heard of the gap", || lines().contains("some progress is missing"));

    // All at once: in the order of each, and none twice.
    (0..2).for_each(|n| (10..20).chain([0]).for_each(|done| say[n].send(done).unwrap()));
    let row = waiting.join().unwrap();
    assert_eq!((row.done, row.total()), (3, 3));
    let mut rest: Vec<String> = told.iter().collect();
    assert_eq!(rest.pop().unwrap(), "task 3 done: Some(1)");
    for n in 0..2 {
        let words = rest.iter().filter(|word| word.starts_with(&format!("{n}:")));
        assert!(words.eq(&(10..20).map(|done| format!("{n}: {done}")).collect::<Vec<_>>()), "{rest:?}");
        let last = rest.iter().rposition(|word| word.ends_with(&format!("of task {}", n + 1))).unwrap();
        assert_eq!(rest[last], format!("19 of task {}", n + 1));
    }
    assert_eq!(typed.wait(), 0);
    let of_first: Vec<String> = lines().lines().filter(|line| line.starts_with("task 1 | ")).map(Into::into).collect();
    let expected = [3, 4, 7].into_iter().chain(10..20).map(|done| format!("task 1 | 0: {done}"));
    assert_eq!(of_first, expected.collect::<Vec<_>>());
    let late = laneway(&place, &["group", "wait", &stored.group.to_string(), "-o", "json"]).json();
    assert_eq!((&late[0]["result"], &late[0]["done"]), (&1.into(), &3.into()));
    drop(worker);
    assert_eq!(broker.stop(), 0);
}

#[test]
fn a_limit_ends_the_wait_for_a_group_that_never_falls_silent() {
    // Proves that a client does not go on for as long as there is news.
    let place = Place::new();
    let broker = Broker::start(&place);
    let (worker, say) = Here::start_speakers(&place, 1);
    let stored = broker.client().submit_batch(Batch::new().task(Task::new("speak").payload(&0))).unwrap();
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let goes_on = Arc::clone(&is_over);
    let speaking = std::thread::spawn(move || {
        let words = (1..).take_while(|_| !goes_on.load(std::sync::atomic::Ordering::SeqCst));
        words.for_each(|done| {
            say[0].send(done).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        });
        say[0].send(0).unwrap();
    });
    let client = broker.client();
    let mut watch = client.watch_group(stored.group);
    // As long as it takes to hear the first word, and not for another moment.
    while !matches!(watch.next(Some(harness::DEADLINE)).unwrap(), Some(News::Progress(_))) {}
    let n_heard = (0..10_000).take_while(|_| watch.next(Some(Duration::ZERO)).is_ok()).count();
    assert!(n_heard < 10_000);
    is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    speaking.join().unwrap();
    drop(worker);
    assert_eq!(broker.stop(), 0);
}
