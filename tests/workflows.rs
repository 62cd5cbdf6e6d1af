//! Workflows with the real binary: chains and groups by SQL, by socket and by command line, spawned tasks, results of parents,
//! a broker that dies in the middle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Broker, Place, Said, Table, wait_until};
use laneway::{Batch, Client, Context, Error, Failure, Stopper, Task, TaskId, TaskState, Worker};

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
    laneway(&place, &["group", "wait", &group, "--limit", "100ms"]).is(6, "");
    let _worker = Here::start(&place);
    // Each of the nine adds the first one's 1 to its own: 1 + 9 * 2.
    assert_eq!(result(&client, stored.last.unwrap().task), 19);
    let row = client.wait_group(stored.group, Some(Duration::from_mins(1)), |_| ()).unwrap();
    assert_eq!((row.done, row.total()), (12, 12));
    laneway(&place, &["group", "wait", &group]).is(0, "12 of 12 done");
    laneway(&place, &["group", "show", "999"]).is(4, "no task is in this group");
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
    said.is(0, "3 of 3 done");
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
