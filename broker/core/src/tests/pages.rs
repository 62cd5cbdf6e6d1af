//! Lists longer than a message: every page fits, nothing is left out and nothing comes twice.

use laneway_protocol::message::{
    Cursor, FailureRow, Filter, Final, ListWorkers, Progress, Request, ScheduleRow, ScheduleRows, Schedules, Status,
    StatusRows, TaskRow, WaitFor,
};
use laneway_protocol::{Answer, Payload, SessionName, TaskId, TaskState, codec};

use super::world::{World, done, hello, id, plain, session, settings, wait_for};
use crate::Settings;
use crate::action::{Ending, OpResult};
use crate::event::{Event, OpId, ReplyTo};

/// The answer, as it came and as the codec took it.
fn answer(world: &World, reply: ReplyTo) -> &Answer {
    let answer = &world.answers[&reply];
    codec::encode_answer(answer.clone()).unwrap();
    answer
}

#[test]
fn any_number_of_workers_is_listed_in_pages() {
    // Each page is a message that the codec takes; together they name every session once, in order.
    let mut world = World::with(Settings { sessions_max: 1_000, ..settings() });
    for n in 0..900 {
        assert!(!world.broker_only(n + 1, hello(&format!("w{n:03}"), &["a", "b"], &[])));
    }
    let (mut listed, mut after, mut n_pages): (Vec<SessionName>, _, _) = (Vec::new(), None, 0);
    loop {
        let reply = world.ask(9, Request::Workers(ListWorkers { after }));
        let Answer::Workers(page) = answer(&world, reply) else { panic!("no list of workers") };
        listed.extend(page.workers.iter().map(|row| row.session.clone()));
        n_pages += 1;
        after = page.next.clone();
        if after.is_none() {
            break;
        }
    }
    let all: Vec<SessionName> = (0..900).map(|n| session(&format!("w{n:03}"))).collect();
    assert_eq!(listed, all);
    assert!(n_pages > 2, "{n_pages} pages");
}

/// Rows as a store would find them, with texts as an app may write them.
fn found(world: &World, ids: impl Iterator<Item = u64>) -> StatusRows {
    let row = |n: u64| TaskRow {
        error: Some("é".repeat(20_000)),
        kind: "k".repeat(3_000),
        payload: Some(Payload::bin(vec![0; 1_000_000])),
        ..world.table.show(&[id(1)]).rows[0].clone().with_id(n)
    };
    StatusRows { rows: ids.map(row).collect(), ..StatusRows::default() }
}

trait WithId {
    fn with_id(self, n: u64) -> Self;
}

impl WithId for TaskRow {
    fn with_id(self, n: u64) -> Self {
        Self { id: id(n), ..self }
    }
}

#[test]
fn rows_without_room_are_left_for_the_next_question() {
    // By id they are named in `left`; of a page the rest comes with the next one.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let mut left: Vec<TaskId> = (1..=60).map(id).collect();
    let mut op = 0;
    while !left.is_empty() {
        let asked = left.clone();
        let reply = world.ask(9, Request::Status(Status { tasks: asked.clone(), filter: None, detail: false }));
        world.take();
        op += 1;
        let rows = found(&world, asked.iter().map(|id| id.value()));
        world.event(Event::Committed(vec![(OpId(op), OpResult::Rows(rows))]));
        let Answer::Status(rows) = answer(&world, reply) else { panic!("no rows") };
        let told: Vec<TaskId> = rows.rows.iter().map(|row| row.id).collect();
        assert_eq!(told.len(), 5, "as many as fit");
        left.clone_from(&rows.left);
        assert_eq!([told, left.clone()].concat(), asked);
    }
    let reply = world.ask(9, Request::Status(Status { filter: Some(Filter::default()), ..Status::default() }));
    world.take();
    let rows = found(&world, (1..=60).rev());
    world.event(Event::Committed(vec![(OpId(op + 1), OpResult::Rows(rows))]));
    let Answer::Status(rows) = answer(&world, reply) else { panic!("no rows") };
    assert_eq!((rows.next, rows.left.len()), (rows.rows.last().map(|row| row.id), 0));
    assert!(rows.next > Some(id(1)));
}

#[test]
fn a_row_with_more_failures_than_a_message_takes_keeps_the_newest() {
    // Each error is cut to 8 KiB; of 20 as long as that, five fit beside the rest of the row.
    let mut world = World::new();
    world.insert("low", "a", 1);
    let reply = world.ask(9, Request::Status(Status { tasks: vec![id(1)], filter: None, detail: true }));
    let failure = |run| FailureRow {
        run,
        cause: "failed".into(),
        worker: None,
        started_at: None,
        failed_at: 1,
        error: "x".repeat(10_000),
    };
    let row = TaskRow { failures: (1..=20).map(failure).collect(), ..world.table.show(&[id(1)]).rows[0].clone() };
    let rows = StatusRows { rows: vec![row], ..StatusRows::default() };
    world.event(Event::Committed(vec![(OpId(1), OpResult::Rows(rows))]));
    let Answer::Status(rows) = answer(&world, reply) else { panic!("no rows") };
    let told: Vec<(u32, usize)> =
        rows.rows[0].failures.iter().map(|failure| (failure.run, failure.error.len())).collect();
    assert_eq!(told, [(16, 8_192), (17, 8_192), (18, 8_192), (19, 8_192), (20, 8_192)]);
}

#[test]
fn ends_without_room_are_pending_again() {
    // By the bytes of their results, 16 MiB together, or by those of their errors, which are cut to 8 KiB.
    for (mib, error_bytes, n_told) in [(6, 0, 2), (8, 0, 2), (9, 0, 1), (0, 10_000, 5), (0, 0, 9)] {
        let mut world = World::new();
        let ids: Vec<u64> = (1..=9).collect();
        let reply = world.ask(9, Request::WaitFor(wait_for(&ids, 5_000)));
        let ended = |n: &u64| Final {
            task: id(*n),
            state: TaskState::Dead,
            result: Some(Payload::bin(vec![0; mib << 20])),
            error: Some("x".repeat(error_bytes)),
        };
        let endings = ids.iter().map(|n| (id(*n), Ending::Final(ended(n)))).collect();
        world.event(Event::Committed(vec![(OpId(1), OpResult::Endings(endings))]));
        let Answer::WaitFor(waited) = answer(&world, reply) else { panic!("no ends") };
        let told: Vec<TaskId> = waited.finals.iter().map(|ended| ended.task).collect();
        assert_eq!(told.len(), n_told, "results of {mib} MiB, errors of {error_bytes} bytes");
        assert_eq!([told, waited.pending.clone()].concat(), ids.iter().map(|n| id(*n)).collect::<Vec<_>>());
        assert!(waited.finals.iter().all(|ended| ended.error.as_ref().unwrap().len() == error_bytes.min(8_192)));
    }
}

#[test]
fn words_of_progress_without_room_follow_behind_the_cursor() {
    // A waiter that comes late to many long words gets all of them, in order and once, and the end last.
    for is_over in [false, true] {
        hear_all_words(is_over);
    }
}

fn hear_all_words(is_over: bool) {
    let mut world = World::new();
    world.insert("low", "a", 1);
    let reply = world.ask(1, Request::Ready(plain("w", &["a"])));
    world.commit();
    let lease = world.lease(reply);
    for n in 1..=25 {
        let (task, note) = (id(1), Some("x".repeat(8_000)));
        let progress = Progress {
            session: session("w"),
            task,
            lease,
            done: Some(n),
            total: None,
            note,
            extend_ms: None,
            data: None,
            log: None,
            checkpoint: None,
            parents: None,
        };
        world.ask(1, Request::Progress(progress));
    }
    world.commit();
    let end = |world: &mut World| {
        let outcomes = vec![done(1, lease)];
        world.ask(1, Request::Ready(laneway_protocol::message::Ready { outcomes, ..plain("w", &["a"]) }));
        world.commit();
    };
    if is_over {
        end(&mut world);
    }
    let (mut heard, mut cursor): (_, Option<Cursor>) = (Vec::new(), None);
    while heard.len() < 25 {
        let reply = world.ask(9, Request::WaitFor(WaitFor { cursor, ..wait_for(&[1], 5_000) }));
        world.commit();
        let Answer::WaitFor(waited) = answer(&world, reply) else { panic!("nothing was heard") };
        assert!(!waited.events.is_empty());
        heard.extend(waited.events.iter().filter_map(|event| event.done));
        assert_eq!(waited.finals.len(), usize::from(is_over && heard.len() == 25), "after {heard:?}");
        assert_eq!(waited.pending.len(), 1 - waited.finals.len());
        cursor = Some(waited.cursor);
    }
    assert_eq!(heard, (1..=25).collect::<Vec<u64>>());
    assert_eq!(cursor.unwrap().n, 25);
    if !is_over {
        end(&mut world);
    }
}

#[test]
fn any_number_of_schedules_is_listed_in_pages() {
    // What finds no room comes with the next page; texts of any length are cut, so that one row always fits.
    let mut world = World::new();
    let row = |n: usize| ScheduleRow {
        name: format!("s{n:03}"),
        cron: "*".repeat(3_000),
        time_zone: "UTC".into(),
        kind: "k".into(),
        lane: None,
        unique_key: None,
        max_attempts: None,
        timeout_ms: None,
        catch_up: "one".into(),
        catch_up_max: None,
        paused: false,
        created_at: 0,
        next_at: None,
        last_at: None,
        last_task: None,
        error: Some("é".repeat(20_000)),
        payload: None,
    };
    let (mut listed, mut next) = (0, 0);
    while next < 20 {
        world.table.schedules = ScheduleRows { schedules: (next..20).map(row).collect(), ..ScheduleRows::default() };
        let reply = world.ask(9, Request::Schedules(Schedules::default()));
        world.commit();
        let Answer::Schedules(page) = answer(&world, reply) else { panic!("no schedules") };
        assert!(!page.schedules.is_empty());
        assert!(page.schedules.iter().enumerate().all(|(n, row)| row.name == format!("s{:03}", next + n)));
        listed += page.schedules.len();
        next += page.schedules.len();
        assert_eq!(page.next.is_some(), next < 20);
    }
    assert_eq!(listed, 20);
}
