//! Lists of tasks that wait for each other, groups, and what a run spawns into them.

use laneway_core::{Count, EndedAs, Ending, Next, Op, OpResult};
use laneway_protocol::message::{After, Filter, NewGroup, NewTask, Payload, Stored};
use laneway_protocol::{RequestId, TaskState};
use rusqlite::types::Value;

use super::subject::{Subject, World, key, new_task, rules, task};
use crate::store::Store;
use crate::store::dependencies::JOINED_TOO_LATE;

use TaskState::{Cancelled, Dead, Done, Queued, Waiting};

fn after(numbers: &[u32]) -> NewTask {
    let after = numbers.iter().map(|number| After { number: Some(*number), ..After::default() });
    NewTask { after: after.collect(), ..new_task("k") }
}

fn behind(id: i64) -> NewTask {
    NewTask { after: vec![After { task: Some(task(id)), ..After::default() }], ..new_task("k") }
}

fn ids(stored: &[Stored]) -> Vec<i64> {
    stored.iter().map(|stored| i64::try_from(stored.task.value()).unwrap()).collect()
}

impl<T: Subject> World<T> {
    fn list(&mut self, tasks: Vec<NewTask>) -> Vec<i64> {
        match self.submit(tasks) {
            OpResult::Submitted(stored) => ids(&stored),
            other => panic!("not stored: {other:?}"),
        }
    }

    fn batch(&mut self, tasks: Vec<NewTask>, group: NewGroup) -> (Vec<i64>, u64) {
        let request = RequestId([77; 16]);
        match self.ask(Op::Submit { request, tasks, group: Some(Box::new(group)), secured: Vec::new() }) {
            OpResult::SubmittedGroup(stored, group) => (ids(&stored), group),
            other => panic!("not stored: {other:?}"),
        }
    }

    fn refusal(&mut self, tasks: Vec<NewTask>) -> (usize, &'static str, String) {
        match self.submit(tasks) {
            OpResult::Refused { index, field, reason } => (index, field, reason),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn intake(&mut self) {
        self.turn(|store, now| store.intake(99, now).unwrap());
    }

    /// waiting, queued, running, done, dead, cancelled; and those that have not ended.
    fn counts_of(&mut self, group: u64) -> ([u64; 6], usize) {
        match self.ask(Op::Group { group, live: 9 }) {
            OpResult::Group(Some(found)) => {
                let row = found.row;
                ([row.waiting, row.queued, row.running, row.done, row.dead, row.cancelled], found.live.len())
            }
            other => panic!("no group: {other:?}"),
        }
    }

    fn ended(&mut self, id: i64, next: Next) {
        let run = self.started(id);
        self.end(run.ended(next, Count::Attempt));
        self.intake();
    }

    fn all_states(&self, ids: &[i64]) -> Vec<TaskState> {
        ids.iter().map(|id| self.state(*id)).collect()
    }
}

pub(super) fn a_list_waits_for_itself_in_any_order<T: Subject>(world: &mut World<T>) {
    // By numbers, forwards and backwards, and for what is stored already; all of it in one turn.
    let old = world.plain();
    let mut first = after(&[2]);
    first.after.extend(behind(old).after);
    let list = world.list(vec![first, after(&[0]), new_task("k"), after(&[2])]);
    world.intake();
    assert_eq!(world.all_states(&list), [Waiting, Waiting, Queued, Waiting]);
    world.ended(list[2], Next::Done(None));
    assert_eq!(world.all_states(&list), [Waiting, Waiting, Done, Queued]);
    world.ended(old, Next::Done(None));
    assert_eq!(world.all_states(&list), [Queued, Waiting, Done, Queued]);
    world.ended(list[0], Next::Dead);
    assert_eq!(world.all_states(&list), [Dead, Cancelled, Done, Queued]);
    // One that comes after the end of its parent is judged in the turn that stores it.
    let late = world.list(vec![behind(old), behind(list[0])]);
    world.intake();
    assert_eq!(world.all_states(&late), [Queued, Cancelled]);
}

pub(super) fn what_a_list_may_not_say_is_refused_whole<T: Subject>(world: &mut World<T>) {
    // With the ids, or the numbers, and nothing stored.
    let parent = world.plain();
    let before = world.subject.rows().len();
    let missing = world.refusal(vec![new_task("k"), behind(4_000)]);
    assert_eq!((missing.0, missing.1), (1, "after"));
    assert!(missing.2.starts_with("depends on task 4000, which is not in the table"));
    let mut two = behind(5_000);
    two.after.extend(behind(4_000).after);
    assert!(world.refusal(vec![two]).2.starts_with("depends on tasks 4000, 5000, which are not in the table"));
    assert_eq!(world.refusal(vec![after(&[1]), after(&[0])]).2, "depends on itself: number 0 -> 1 -> 0");
    assert!(world.refusal(vec![after(&[3])]).2.contains("depends on number 3"));
    let mut both = behind(parent);
    both.after[0].number = Some(0);
    assert!(world.refusal(vec![both]).2.contains("not by both"));
    assert_eq!(world.refusal(vec![NewTask { group: Some(9), ..new_task("k") }]).1, "group");
    assert_eq!(world.refusal(vec![NewTask { join: true, ..new_task("k") }]).1, "join");
    assert_eq!(world.subject.rows().len(), before);
    assert!(world.subject.edges().is_empty());
}

pub(super) fn a_task_that_was_met_is_waited_for_and_waits_for_nothing_new<T: Subject>(world: &mut World<T>) {
    // It is somebody else's too.
    let keyed = |after: NewTask| NewTask { unique_key: Some("one".into()), ..after };
    let twin = world.submit_one(keyed(new_task("k")));
    let list = world.list(vec![new_task("k"), keyed(after(&[0])), after(&[1])]);
    world.intake();
    assert_eq!(list[1], twin);
    assert_eq!(world.all_states(&list), [Queued, Queued, Waiting]);
    world.ended(twin, Next::Done(None));
    assert_eq!(world.state(list[2]), Queued);
}

pub(super) fn a_ring_through_one_key_is_refused_whole<T: Subject>(world: &mut World<T>) {
    // Two tasks with one key are one: what waits for the second waits for the first. Nothing of it is stored.
    let keyed = |task: NewTask| NewTask { unique_key: Some("one".into()), ..task };
    let is = |world: &mut World<T>, tasks: Vec<NewTask>, at: usize, words: &str| {
        let refused = world.refusal(tasks);
        assert_eq!((refused.0, refused.1), (at, "after"), "{}", refused.2);
        assert!(refused.2.starts_with(&format!("depends on itself: number {words}: ")), "{}", refused.2);
        assert!(world.subject.rows().is_empty() && world.subject.edges().is_empty());
    };
    is(world, vec![keyed(after(&[1])), keyed(new_task("k"))], 0, "0 -> 1 (is number 0)");
    is(world, vec![keyed(after(&[1])), after(&[2]), keyed(new_task("k"))], 0, "0 -> 1 -> 2 (is number 0)");
    is(world, vec![new_task("k"), after(&[3]), keyed(after(&[1])), keyed(after(&[0]))], 1, "1 -> 3 (is number 2) -> 1");
    let group = Some(Box::new(NewGroup { last: Some(0), ..NewGroup::default() }));
    let tasks = vec![keyed(new_task("k")), new_task("k"), keyed(new_task("k"))];
    let refused = world.ask(Op::Submit { request: RequestId([5; 16]), tasks, group, secured: Vec::new() });
    let OpResult::Refused { index: 0, field: "after", reason } = refused else { panic!("{refused:?}") };
    assert!(reason.starts_with("depends on itself: number 0 -> 2 (is number 0): "), "{reason}");
    assert!(world.subject.rows().is_empty() && world.subject.edges().is_empty());
    // The second one waits for nothing of its own, so that it may say so of the first.
    let list = world.list(vec![keyed(new_task("k")), keyed(after(&[0])), after(&[1])]);
    world.intake();
    assert_eq!(list[0], list[1]);
    assert_eq!(world.all_states(&list), [Queued, Queued, Waiting]);
    // What a later one says makes no ring, nor what one says that a stored task stands for: it counts for nothing.
    let other = |task: NewTask| NewTask { unique_key: Some("two".into()), ..task };
    let later = world.list(vec![other(new_task("k")), after(&[0]), other(after(&[1]))]);
    let met = world.list(vec![after(&[1]), keyed(after(&[0]))]);
    world.intake();
    assert_eq!((later[2], met[1]), (later[0], list[0]));
    assert_eq!(world.all_states(&[later[0], later[1], met[0]]), [Queued, Waiting, Waiting]);
}

pub(super) fn a_ring_through_an_id_that_was_guessed_is_refused<T: Subject>(world: &mut World<T>) {
    // By the list itself, and by an app's row that has waited for the id before anybody had it.
    let first = world.plain();
    let guessed = world.refusal(vec![after(&[1]), behind(2)]);
    assert!(guessed.2.starts_with("depends on itself: number 0 -> 1 -> task 2 (is number 0): "), "{}", guessed.2);
    let cells = [("kind", Value::Text("k".into())), ("state", Value::Text("waiting".into()))];
    let keyed = [&cells[..], &[("unique_key", Value::Text("one".into()))]].concat();
    let foresees = world.subject.app_insert_waiting(&keyed, &[(first, false), (3, false)]).unwrap();
    assert_eq!(foresees, 2);
    let met = NewTask { unique_key: Some("one".into()), ..new_task("k") };
    let refused = world.refusal(vec![after(&[1]), met]);
    assert_eq!((refused.0, refused.2.as_str()), (0, "depends on itself: 3 -> 2 -> 3"));
    let refused = world.refusal(vec![behind(foresees)]);
    assert_eq!((refused.0, refused.2.as_str()), (0, "depends on itself: 3 -> 2 -> 3"));
    assert_eq!(world.subject.rows().len(), 2);
    world.intake();
    assert_eq!(world.all_states(&[first, foresees]), [Queued, Dead]);
}

pub(super) fn a_group_is_counted_and_its_last_task_waits_for_all<T: Subject>(world: &mut World<T>) {
    // Those that join later among them. Said again, the same request gives the same group.
    let group = NewGroup { name: Some("nightly".into()), last: Some(2), anyway: false };
    let tasks = vec![new_task("k"), new_task("k"), new_task("k")];
    let (list, number) = world.batch(tasks.clone(), group.clone());
    assert_eq!(world.batch(tasks, group), (list.clone(), number));
    world.intake();
    assert_eq!(world.counts_of(number), ([1, 2, 0, 0, 0, 0], 3));
    let late = world.list(vec![NewTask { group: Some(number), ..new_task("k") }]);
    world.ended(list[0], Next::Done(None));
    world.ended(list[1], Next::Done(None));
    assert_eq!(world.counts_of(number), ([1, 1, 0, 2, 0, 0], 2));
    world.ended(late[0], Next::Done(None));
    assert_eq!(world.counts_of(number), ([0, 1, 0, 3, 0, 0], 1));
    world.ended(list[2], Next::Done(None));
    assert_eq!(world.counts_of(number), ([0, 0, 0, 4, 0, 0], 0));
    assert_eq!(world.ask(Op::Group { group: 99, live: 9 }), OpResult::Group(None));
    // Whoever joins a group whose last task has gone is counted, and that is all.
    world.list(vec![NewTask { group: Some(number), ..new_task("k") }]);
    assert_eq!(world.counts_of(number).0, [0, 1, 0, 4, 0, 0]);
}

pub(super) fn those_of_a_group_that_run_are_shown_first_and_how_its_last_task_ended<T: Subject>(world: &mut World<T>) {
    // To those alone who ask for live tasks; then those that are queued, then those that wait. The end is shown when none is live.
    let group = NewGroup { name: None, last: Some(3), anyway: false };
    let (list, number) = world.batch(vec![new_task("k"); 4], group);
    world.intake();
    let run = world.started(list[1]);
    let shown = |world: &mut World<T>, live| match world.ask(Op::Group { group: number, live }) {
        OpResult::Group(Some(found)) => (found.live, found.last),
        other => panic!("no group: {other:?}"),
    };
    let order = [1, 0, 2, 3].map(|at| task(list[at]));
    assert_eq!(shown(world, 9), (order.to_vec(), None));
    for live in 0..=4 {
        assert_eq!(shown(world, live).0, order[..live]);
    }
    world.end(run.ended(Next::Done(None), Count::Attempt));
    world.ended(list[0], Next::Done(None));
    world.ended(list[2], Next::Done(None));
    world.ended(list[3], Next::Done(Some(Payload::json("[7]"))));
    let (live, end) = shown(world, 9);
    let end = end.expect("all have ended");
    assert_eq!((live.len(), end.task, end.state, end.result), (0, task(list[3]), Done, Some(Payload::json("[7]"))));
    assert_eq!(shown(world, 0), (Vec::new(), None), "nobody waits");
    // Without a last task there is nothing to show.
    let alone = world.insert(&[("kind", Value::Text("k".into())), ("group_id", 99.into())]);
    world.intake();
    world.ended(alone, Next::Dead);
    match world.ask(Op::Group { group: 99, live: 9 }) {
        OpResult::Group(Some(found)) => assert_eq!((found.row.dead, found.last), (1, None)),
        other => panic!("no group: {other:?}"),
    }
}

pub(super) fn the_group_is_read_with_the_row<T: Subject>(world: &mut World<T>) {
    // By load, by look-up and after a restart; what is no number of a group is none.
    let insert =
        |world: &mut World<T>, group: Value| world.insert(&[("kind", Value::Text("k".into())), ("group_id", group)]);
    let id = insert(world, 7.into());
    insert(world, (-7).into());
    insert(world, Value::Null);
    world.intake();
    let groups: Vec<_> = world.load(&key("normal", "k"), 9).tasks.iter().map(|task| task.group).collect();
    assert_eq!(groups, [Some(7), None, None]);
    world.started(id);
    match world.ask(Op::Find(vec![task(id)])) {
        OpResult::Found(found) => assert_eq!(found[0].group, Some(7)),
        other => panic!("not found: {other:?}"),
    }
    let now = world.now;
    let opened = world.subject.another(rules()).open_epoch([2; 16], now).unwrap();
    assert_eq!(opened.running[0].group, Some(7));
}

pub(super) fn a_last_task_is_cancelled_with_a_failure_or_runs_anyway<T: Subject>(world: &mut World<T>) {
    // As its group says. One that exists already cannot be the last.
    for (anyway, expected) in [(false, Cancelled), (true, Queued)] {
        let group = NewGroup { last: Some(1), anyway, ..NewGroup::default() };
        let request = RequestId([if anyway { 1 } else { 2 }; 16]);
        let tasks = vec![new_task("k"), new_task("k")];
        let result = world.ask(Op::Submit { request, tasks, group: Some(Box::new(group)), secured: Vec::new() });
        let OpResult::SubmittedGroup(stored, _) = result else { panic!("not stored: {result:?}") };
        let list = ids(&stored);
        world.ended(list[0], Next::Dead);
        assert_eq!(world.state(list[1]), expected);
    }
    let keyed = NewTask { unique_key: Some("one".into()), ..new_task("k") };
    world.submit_one(keyed.clone());
    let group = Some(Box::new(NewGroup { last: Some(0), ..NewGroup::default() }));
    let request = RequestId([3; 16]);
    let refused = world.ask(Op::Submit { request, tasks: vec![keyed, new_task("k")], group, secured: Vec::new() });
    assert!(matches!(refused, OpResult::Refused { index: 0, field: "unique_key", .. }), "{refused:?}");
}

pub(super) fn a_whole_group_is_cancelled_in_parts<T: Subject>(world: &mut World<T>) {
    // What runs is asked to stop; the last task goes too.
    let group = NewGroup { last: Some(3), ..NewGroup::default() };
    let (list, number) = world.batch(vec![new_task("k"); 4], group);
    let run = world.started(list[0]);
    let other = world.plain();
    let cancel = |world: &mut World<T>| match world.ask(Op::CancelGroup { group: number, rows: 3 }) {
        OpResult::GroupCancelled { more } => more,
        other => panic!("not cancelled: {other:?}"),
    };
    assert!(cancel(world));
    assert!(!cancel(world));
    let swept = world.turn(|store, now| store.sweep(99, now).unwrap());
    assert_eq!(swept.cancel_requested, [task(list[0])]);
    world.end(run.ended(Next::Cancelled, Count::Nothing));
    world.intake();
    assert_eq!(world.counts_of(number), ([0, 0, 0, 0, 0, 4], 0));
    let why = list.iter().map(|id| world.cell(*id, "error"));
    assert_eq!(why.collect::<Vec<_>>(), vec![Value::Text("its group was cancelled".into()); 4]);
    assert_eq!(world.state(other), Queued);
}

pub(super) fn the_tasks_of_a_group_are_listed<T: Subject>(world: &mut World<T>) {
    // Newest first over all states, or those of one; in pages, and beside the other conditions.
    world.plain();
    let (ids, number) = world.batch(vec![new_task("k"), new_task("alarm"), new_task("k")], NewGroup::default());
    world.plain();
    world.ended(ids[0], Next::Dead);
    let of = |filter: Filter| Filter { group: Some(number), ..filter };
    let list = |world: &mut World<T>, filter: Filter| match world.ask(Op::List(of(filter))) {
        OpResult::Rows(page) => {
            (page.rows.iter().map(|row| row.id.value().cast_signed()).collect::<Vec<_>>(), page.next)
        }
        other => panic!("no rows: {other:?}"),
    };
    assert_eq!(list(world, Filter::default()), (vec![ids[2], ids[1], ids[0]], None));
    assert_eq!(list(world, Filter { state: Some(Dead), ..Filter::default() }).0, [ids[0]]);
    assert_eq!(list(world, Filter { kind: Some("alarm".into()), ..Filter::default() }).0, [ids[1]]);
    let first = list(world, Filter { limit: 2, ..Filter::default() });
    assert_eq!(first, (vec![ids[2], ids[1]], Some(task(ids[1]))));
    assert_eq!(list(world, Filter { before: first.1, ..Filter::default() }).0, [ids[0]]);
    let none = Op::List(Filter { group: Some(number + 1), ..Filter::default() });
    assert!(matches!(world.ask(none), OpResult::Rows(page) if page.rows.is_empty() && page.next.is_none()));
}

pub(super) fn what_a_run_spawns_may_wait_and_join<T: Subject>(world: &mut World<T>) {
    // For each other, and for the run itself, in the commit of its outcome; the last task of its group waits for them.
    let group = NewGroup { last: Some(1), ..NewGroup::default() };
    let (list, number) = world.batch(vec![new_task("k"), new_task("k")], group);
    let run = world.started(list[0]);
    let join = |task: NewTask| NewTask { join: true, ..task };
    let mut ended = run.done();
    ended.spawn = vec![join(new_task("k")), join(after(&[0])), behind(list[0])];
    world.turn(|store, now| {
        store.apply(&[Op::Ended(ended)], now).unwrap();
        store.intake(99, now).unwrap();
    });
    let spawned = [3, 4, 5];
    assert_eq!(world.all_states(&spawned), [Queued, Waiting, Queued]);
    assert_eq!(world.state(list[1]), Waiting);
    assert_eq!(world.counts_of(number), ([2, 1, 0, 1, 0, 0], 3));
    world.ended(3, Next::Done(None));
    world.ended(4, Next::Done(None));
    assert_eq!(world.state(list[1]), Queued);
}

pub(super) fn what_joins_a_cancelled_group_is_cancelled_with_it<T: Subject>(world: &mut World<T>) {
    // A run that ends as done all the same brings nothing back to life: what it spawns into the group is cancelled, and so is
    // what waits for that; what it spawns for others runs.
    let group = NewGroup { last: Some(1), ..NewGroup::default() };
    let (list, number) = world.batch(vec![new_task("k"), new_task("k")], group);
    let run = world.started(list[0]);
    world.ask(Op::CancelGroup { group: number, rows: 9 });
    world.turn(|store, now| store.sweep(99, now).unwrap());
    let join = |task: NewTask| NewTask { join: true, ..task };
    let mut ended = run.done();
    ended.spawn = vec![join(new_task("k")), join(after(&[0])), after(&[0]), new_task("k")];
    assert_eq!(world.end(ended), EndedAs::Written(Done));
    world.intake();
    assert_eq!(world.all_states(&[3, 4, 5, 6]), [Cancelled, Cancelled, Cancelled, Queued]);
    assert_eq!(world.counts_of(number), ([0, 0, 0, 1, 0, 3], 0));
    assert_eq!(world.cell(3, "error"), Value::Text(JOINED_TOO_LATE.into()));
}

pub(super) fn nothing_joins_a_cancelled_group<T: Subject>(world: &mut World<T>) {
    // Not though all its tasks had ended before: a submit is refused whole, what is spawned into it ends as cancelled, joined or by number,
    // by a task of it that was not there to be cancelled too. A person who queues one of its tasks again opens it again.
    let (list, number) = world.batch(vec![new_task("k"); 2], NewGroup::default());
    world.ended(list[0], Next::Done(None));
    world.ended(list[1], Next::Dead);
    world.ask(Op::CancelGroup { group: number, rows: 9 });
    let late = NewTask { group: Some(number), ..new_task("k") };
    let refused = world.refusal(vec![new_task("k"), late.clone()]);
    assert_eq!((refused.0, refused.1), (1, "group"));
    assert!(refused.2.starts_with(&format!("group {number} was cancelled and takes no more tasks")), "{}", refused.2);
    let other = world.plain();
    let mut ended = world.started(other).done();
    ended.spawn = vec![late.clone(), after(&[0]), new_task("k")];
    let first = other + 1;
    assert_eq!(world.end(ended), EndedAs::Written(Done));
    world.intake();
    assert_eq!(world.all_states(&[first, first + 1, first + 2]), [Cancelled, Cancelled, Queued]);
    assert_eq!(world.cell(first, "error"), Value::Text(JOINED_TOO_LATE.into()));
    let by_sql = world.insert(&[("kind", Value::Text("k".into())), ("group_id", Value::Integer(number.cast_signed()))]);
    let mut ended = world.started(by_sql).done();
    ended.spawn = vec![NewTask { join: true, ..new_task("k") }];
    assert_eq!(world.end(ended), EndedAs::Written(Done));
    assert_eq!(world.state(by_sql + 1), Cancelled);
    world.ask(Op::Requeue(vec![task(list[1])]));
    let joined = world.list(vec![late]);
    world.intake();
    assert_eq!(world.all_states(&[list[1], joined[0]]), [Queued, Queued]);
}

pub(super) fn a_spawn_that_would_wait_for_itself_fails_its_run<T: Subject>(world: &mut World<T>) {
    // A task of the group that waits for the group's last one, which waits for it; nothing of it is stored.
    let group = NewGroup { last: Some(1), ..NewGroup::default() };
    let (list, _) = world.batch(vec![new_task("k"), new_task("k")], group);
    let run = world.started(list[0]);
    let mut ended = run.done();
    ended.spawn = vec![new_task("k"), NewTask { join: true, ..behind(list[1]) }];
    let EndedAs::SpawnRefused { state, reason } = world.end(ended) else { panic!("taken") };
    assert_eq!(state, Dead);
    assert!(reason.starts_with("spawned task 1 makes no sense: depends on itself: 4 -> 2 -> 4"), "{reason}");
    world.intake();
    assert_eq!(world.subject.rows().len(), 2);
    assert_eq!(world.state(list[1]), Cancelled);
}

pub(super) fn a_spawn_that_is_a_ring_through_one_key_fails_its_run<T: Subject>(world: &mut World<T>) {
    // As a list is refused; nothing of it is stored. A key of the run itself closes none, for that waits no more.
    let keyed = |task: NewTask| NewTask { unique_key: Some("one".into()), ..task };
    let own = world.submit_one(keyed(new_task("k")));
    let mut ended = world.started(own).done();
    ended.spawn = vec![keyed(new_task("k")), NewTask { after: after(&[0]).after, ..behind(own) }];
    assert_eq!(world.end(ended), EndedAs::Written(Done));
    world.intake();
    assert_eq!(world.state(2), Queued);
    let mut ended = world.started(2).done();
    ended.spawn = vec![keyed(after(&[1])), after(&[2]), keyed(new_task("k"))];
    let EndedAs::SpawnRefused { state, reason } = world.end(ended) else { panic!("taken") };
    assert_eq!(state, Dead);
    assert!(
        reason.starts_with("spawned task 0 makes no sense: depends on itself: number 0 -> 1 -> 2 (is number 0)"),
        "{reason}"
    );
    world.intake();
    assert_eq!(world.subject.rows().len(), 2);
    assert!(world.subject.edges().iter().all(|edge| !edge.open));
}

pub(super) fn parents_are_told_in_pages<T: Subject>(world: &mut World<T>) {
    // By id, with their results, whatever became of them.
    let list = world.list(vec![new_task("k"), new_task("k"), new_task("k")]);
    let child = world.list(vec![NewTask {
        after: list.iter().map(|id| After { task: Some(task(*id)), anyway: true, ..After::default() }).collect(),
        ..new_task("k")
    }]);
    world.ended(list[0], Next::Done(Some(Payload::json("7"))));
    world.ended(list[1], Next::Dead);
    let ask = |world: &mut World<T>, after, rows| match world.ask(Op::Parents {
        task: task(child[0]),
        after,
        rows,
        bytes: 1_000,
    }) {
        OpResult::Parents { endings, more } => (endings, more),
        other => panic!("no parents: {other:?}"),
    };
    let (endings, more) = ask(world, 0, 2);
    assert!(more);
    let told: Vec<_> = endings
        .iter()
        .map(|(id, ending)| match ending {
            Ending::Final(ended) => (*id, Some(ended.state), ended.result.clone()),
            _ => (*id, None, None),
        })
        .collect();
    assert_eq!(told, [(task(list[0]), Some(Done), Some(Payload::json("7"))), (task(list[1]), Some(Dead), None)]);
    let (endings, more) = ask(world, task(list[1]).value(), 2);
    assert!(matches!(endings[..], [(id, Ending::Live { .. })] if id == task(list[2])) && !more);
}

pub(super) fn a_waiting_row_names_for_whom_it_waits<T: Subject>(world: &mut World<T>) {
    // The first sixteen, and how many there are.
    let list = world.list(vec![new_task("k"); 20]);
    let child = world.list(vec![NewTask {
        after: list.iter().map(|id| After { task: Some(task(*id)), ..After::default() }).collect(),
        ..new_task("k")
    }]);
    world.ended(list[0], Next::Done(None));
    let OpResult::Rows(rows) = world.ask(Op::Show { tasks: vec![task(child[0])], detail: true }) else { panic!() };
    let row = &rows.rows[0];
    assert_eq!((row.waits_for.len(), row.waits_for_n, row.waits_for[0]), (16, 19, task(list[1])));
}

pub(super) fn a_group_is_kept_whole_as_long_as_it_lives<T: Subject>(world: &mut World<T>) {
    // So that its counts do not shrink; it is forgotten with its last row.
    let (list, number) = world.batch(vec![new_task("k"); 2], NewGroup::default());
    world.ended(list[0], Next::Done(None));
    world.later(1_000);
    let prune = |world: &mut World<T>| world.prune(10);
    assert_eq!(prune(world), 0);
    world.ended(list[1], Next::Done(None));
    world.later(1_000);
    assert_eq!(prune(world), 2);
    assert_eq!(world.ask(Op::Group { group: number, live: 9 }), OpResult::Group(None));
}

pub(super) fn an_undone_list_leaves_nothing<T: Subject>(world: &mut World<T>) {
    // Neither rows nor edges, nor a word of them in memory.
    let now = world.now;
    let store = world.subject.store();
    store.begin(crate::store::Sync::Power).unwrap();
    let submit = Op::Submit {
        request: RequestId([8; 16]),
        tasks: vec![new_task("k"), after(&[0])],
        group: None,
        secured: Vec::new(),
    };
    store.apply(std::slice::from_ref(&submit), now).unwrap();
    store.rollback();
    assert!(!world.subject.store().is_behind());
    assert!(world.subject.rows().is_empty() && world.subject.edges().is_empty());
    world.ask(submit);
    world.intake();
    assert_eq!(world.all_states(&[1, 2]), [Queued, Waiting]);
    assert_eq!(super::subject::ids(&world.load(&key("normal", "k"), 9).tasks), [1]);
}
