//! Tasks that wait for others: whom an end lets go, whom it cancels, and what is refused.

use laneway_core::{Count, Next, Op, OpResult};
use laneway_protocol::TaskState;
use laneway_protocol::message::Verdict;
use rusqlite::types::Value;

use super::subject::{Subject, World, ids, key, task, text};
use crate::store::{Store, Sync};

impl<T: Subject> World<T> {
    /// A row that an app inserts to wait for these.
    fn waiting(&mut self, parents: &[i64]) -> i64 {
        let parents: Vec<(i64, bool)> = parents.iter().map(|parent| (*parent, false)).collect();
        self.waiting_with(&parents)
    }

    fn waiting_with(&mut self, parents: &[(i64, bool)]) -> i64 {
        let cells = [("kind", text("k")), ("state", text("waiting")), ("created_at", Value::Integer(self.now.wall.0))];
        self.subject.app_insert_waiting(&cells, parents).expect("it has no key")
    }

    /// What a turn without operations does. Gives how many tasks it ended.
    fn look(&mut self) -> usize {
        self.turn(|store, now| {
            let mut ended = 0;
            while {
                ended += store.intake(99, now).unwrap().rejected.len();
                store.is_behind()
            } {}
            ended
        })
    }

    /// The same, with the walk over all open dependencies.
    fn look_everywhere(&mut self) -> usize {
        let mut ended = self.look();
        ended += self.turn(|store, now| {
            let mut ended = 0;
            loop {
                let (gone, complete) = store.recheck(2, now).unwrap();
                ended += gone.len();
                if complete {
                    return ended;
                }
            }
        });
        ended + self.look()
    }

    /// Runs a queued row to this end, and looks in the same turn.
    fn run_to(&mut self, id: i64, next: Next) {
        let run = self.started(id);
        let ended = Op::Ended(run.ended(next, Count::Attempt));
        self.turn(|store, now| {
            store.apply(&[ended], now).unwrap();
            store.intake(99, now).unwrap();
        });
    }

    fn states(&self, ids: &[i64]) -> Vec<TaskState> {
        ids.iter().map(|id| self.state(*id)).collect()
    }

    fn reason(&self, id: i64) -> String {
        match self.cell(id, "error") {
            Value::Text(error) => error,
            other => panic!("task {id} has the error {other:?}"),
        }
    }
}

use TaskState::{Cancelled, Dead, Done, Queued, Waiting};

pub(super) fn a_child_is_queued_when_the_last_parent_has_ended<T: Subject>(world: &mut World<T>) {
    // A diamond behind a chain: each is let go in the very turn that ends its last parent, and is then read ahead.
    let (first, second) = (world.plain(), world.waiting(&[1]));
    let (left, right) = (world.waiting(&[second]), world.waiting(&[second]));
    let last = world.waiting(&[left, right]);
    world.look();
    let all = [first, second, left, right, last];
    assert_eq!(world.states(&all), [Queued, Waiting, Waiting, Waiting, Waiting]);
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [first]);
    for (id, after) in [
        (first, [Done, Queued, Waiting, Waiting, Waiting]),
        (second, [Done, Done, Queued, Queued, Waiting]),
        (right, [Done, Done, Queued, Done, Waiting]),
        (left, [Done, Done, Done, Done, Queued]),
        (last, [Done; 5]),
    ] {
        assert!(world.load(&key("normal", "k"), 9).tasks.iter().any(|row| row.id == task(id)));
        world.run_to(id, Next::Done(None));
        assert_eq!(world.states(&all), after, "after {id}");
    }
}

pub(super) fn who_is_let_go_is_told_once<T: Subject>(world: &mut World<T>) {
    // By the intake that follows, also when the walk over open edges has found them; not those that are cancelled, and nothing of an
    // undone turn.
    let told = |world: &mut World<T>| {
        world.turn(|store, now| {
            store.recheck(99, now).unwrap();
            store.intake(99, now).unwrap().let_go
        })
    };
    let (first, bad) = (world.plain(), world.plain());
    let (child, failed) = (world.waiting(&[first]), world.waiting(&[bad]));
    assert_eq!(told(world), []);
    let ends = [(first, Next::Done(None)), (bad, Next::Dead)];
    let ended = ends.map(|(id, next)| Op::Ended(world.started(id).ended(next, Count::Attempt)));
    let now = world.now;
    let store = world.subject.store();
    store.begin(Sync::Process).unwrap();
    store.apply(&ended, now).unwrap();
    assert_eq!(store.intake(99, now).unwrap().let_go, [(task(child), key("normal", "k"))]);
    store.rollback();
    assert_eq!(told(world), []);
    world.apply(&ended);
    assert_eq!(told(world), [(task(child), key("normal", "k"))]);
    assert_eq!(told(world), []);
    assert_eq!(world.states(&[child, failed]), [Queued, Cancelled]);
    let seen_late = world.waiting(&[child]);
    world.look();
    world.subject.app_update(child, &[("state", text("done"))]);
    assert_eq!(told(world), [(task(seen_late), key("normal", "k"))]);
}

pub(super) fn a_child_that_comes_late_is_judged_at_once<T: Subject>(world: &mut World<T>) {
    // Its parents have ended before it was inserted: well, badly, and badly where that does not matter.
    let (done, cancelled) = (world.plain(), world.plain());
    world.run_to(done, Next::Done(None));
    world.ask(Op::Cancel(vec![task(cancelled)]));
    let children = [
        world.waiting(&[done]),
        world.waiting(&[done, cancelled]),
        world.waiting_with(&[(done, false), (cancelled, true)]),
    ];
    assert_eq!(world.look(), 1);
    assert_eq!(world.states(&children), [Queued, Cancelled, Queued]);
    assert_eq!(world.reason(children[1]), "task 2, which it depends on, is cancelled");
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [children[0], children[2]]);
}

pub(super) fn a_failure_runs_down_the_line_but_where_it_does_not_matter<T: Subject>(world: &mut World<T>) {
    // Each names the parent that it failed by; `anyway` ends the line, and is heard only once all others have ended.
    let (bad, slow) = (world.plain(), world.plain());
    let child = world.waiting(&[bad]);
    let grandchild = world.waiting(&[child]);
    let cleanup = world.waiting_with(&[(bad, true), (slow, false)]);
    world.look();
    world.run_to(bad, Next::Dead);
    while world.look() > 0 {}
    assert_eq!(world.states(&[child, grandchild, cleanup]), [Cancelled, Cancelled, Waiting]);
    assert_eq!(world.reason(child), format!("task {bad}, which it depends on, is dead"));
    assert_eq!(world.reason(grandchild), format!("task {child}, which it depends on, is cancelled"));
    world.run_to(slow, Next::Done(None));
    assert_eq!(world.state(cleanup), Queued);
    // To run the parent again does not bring back who was cancelled by it; a person may do that.
    assert_eq!(world.ask(Op::Requeue(vec![task(bad), task(child)])), OpResult::Verdicts(vec![Verdict::Requeued; 2]));
    world.look_everywhere();
    assert_eq!(world.states(&[child, grandchild]), [Queued, Cancelled]);
}

pub(super) fn every_hand_that_ends_a_parent_lets_its_children_go<T: Subject>(world: &mut World<T>) {
    // A cancel, an expiry, a rejection, a worker that finished by SQL, and an app that told nobody.
    let soon = world.now.wall.0 + 10;
    let parents = [
        world.plain(),
        world.insert(&[("kind", text("k")), ("expires_at", Value::Integer(soon))]),
        world.insert(&[("kind", text("k")), ("run_at", text("soon"))]),
        world.plain(),
        world.plain(),
    ];
    let children: Vec<i64> = parents.iter().map(|parent| world.waiting_with(&[(*parent, true)])).collect();
    let strict: Vec<i64> = parents.iter().map(|parent| world.waiting(&[*parent])).collect();
    world.look();
    assert_eq!(world.states(&children), [Waiting, Waiting, Queued, Waiting, Waiting]);
    world.ask(Op::Cancel(vec![task(parents[0])]));
    world.later(20);
    world.turn(|store, now| store.sweep(99, now).unwrap());
    let run = world.started(parents[3]);
    world.subject.app_update(parents[3], &[("state", text("done"))]);
    world.end(run.ended(Next::Already, Count::Attempt));
    world.look();
    assert_eq!(world.states(&children), [Queued, Queued, Queued, Queued, Waiting]);
    assert_eq!(world.states(&strict), [Cancelled, Cancelled, Cancelled, Queued, Waiting]);
    world.subject.app_update(parents[4], &[("state", text("dead"))]);
    assert_eq!(world.look_everywhere(), 1);
    assert_eq!((world.state(children[4]), world.state(strict[4])), (Queued, Cancelled));
}

pub(super) fn rows_that_could_wait_for_ever_are_refused_with_the_ids<T: Subject>(world: &mut World<T>) {
    // No parents, one that is not there, one that an app deletes, itself, and a ring through others.
    let parent = world.plain();
    let alone = world.waiting(&[]);
    let lost = world.waiting(&[parent, 4_000, 5_000]);
    let own = world.waiting(&[4]);
    let ring = [world.waiting(&[6]), world.waiting(&[7]), world.waiting(&[5])];
    let left = world.waiting(&[parent]);
    world.look();
    assert_eq!(world.states(&[alone, lost, own, ring[0]]), [Dead; 4]);
    assert!(world.reason(alone).contains("without dependencies"));
    assert!(world.reason(lost).starts_with("depends on tasks 4000, 5000, which are not in the table"));
    assert_eq!(world.reason(own), "depends on itself: 4 -> 4");
    assert_eq!(world.reason(ring[0]), "depends on itself: 5 -> 6 -> 7 -> 5");
    assert_eq!(world.states(&[ring[1], ring[2], left]), [Cancelled, Cancelled, Waiting]);
    world.subject.app_delete(parent);
    assert_eq!(world.look_everywhere(), 1);
    assert!(world.reason(left).starts_with("depends on task 1, which is not in the table"));
}

pub(super) fn what_is_added_later_counts_and_may_close_a_ring<T: Subject>(world: &mut World<T>) {
    // To a row that waits already, by an app in a transaction of its own.
    let (first, second) = (world.plain(), world.plain());
    let (child, grandchild) = (world.waiting(&[first]), world.waiting(&[3]));
    world.look();
    world.subject.app_depend(child, second, false);
    world.run_to(first, Next::Done(None));
    assert_eq!(world.state(child), Waiting);
    world.subject.app_depend(child, grandchild, false);
    assert_eq!(world.look_everywhere(), 2);
    assert_eq!(world.reason(child), "depends on itself: 3 -> 4 -> 3");
    assert_eq!(world.state(grandchild), Cancelled);
    // One among rows of which only some wait is none: a queued row waits for nobody, whatever is added to it.
    let queued = world.plain();
    let waits = world.waiting(&[queued]);
    world.subject.app_depend(queued, waits, false);
    world.look_everywhere();
    world.run_to(queued, Next::Done(None));
    assert_eq!(world.state(waits), Queued);
}

pub(super) fn bad_values_of_a_waiting_row_are_told_at_once<T: Subject>(world: &mut World<T>) {
    // And not when its turn comes.
    let parent = world.plain();
    let cells = [("kind", text("k")), ("state", text("waiting")), ("lane", text("hihg"))];
    let bad = world.subject.app_insert_waiting(&cells, &[(parent, false)]).unwrap();
    world.look();
    assert!(world.reason(bad).contains("lane 'hihg' is not configured"));
}

pub(super) fn a_waiting_row_can_be_cancelled_and_expires<T: Subject>(world: &mut World<T>) {
    // By either hand; its own children hear of it.
    let parent = world.plain();
    let rows = [world.waiting(&[parent]), world.waiting(&[parent]), world.waiting(&[parent])];
    let child = world.waiting_with(&rows.map(|row| (row, true)));
    world.look();
    world.subject.app_update(rows[0], &[("cancel_requested", Value::Integer(1))]);
    world.subject.app_update(rows[1], &[("expires_at", Value::Integer(world.now.wall.0))]);
    world.turn(|store, now| store.sweep(99, now).unwrap());
    assert_eq!(world.ask(Op::Cancel(vec![task(rows[2])])), OpResult::Verdicts(vec![Verdict::Cancelled]));
    world.look();
    assert_eq!(world.states(&rows), [Cancelled; 3]);
    assert_eq!(world.state(child), Queued);
}

pub(super) fn an_undone_turn_lets_nobody_go<T: Subject>(world: &mut World<T>) {
    // Neither in the table nor in memory: the next one does it again.
    let parent = world.plain();
    let child = world.waiting(&[parent]);
    world.look();
    let run = world.started(parent);
    let ended = [Op::Ended(run.done())];
    let now = world.now;
    for commit in [false, true] {
        let store = world.subject.store();
        store.begin(Sync::Power).unwrap();
        store.apply(&ended, now).unwrap();
        assert!(store.is_behind());
        assert_eq!(store.intake(9, now).unwrap().due, [key("normal", "k")]);
        if commit {
            store.commit().unwrap();
        } else {
            store.rollback();
        }
        assert!(!world.subject.store().is_behind());
        assert_eq!(world.state(child), if commit { Queued } else { Waiting });
    }
}

pub(super) fn what_happened_while_no_broker_ran_is_found<T: Subject>(world: &mut World<T>) {
    // Parents that ended, and rows that came with their parents gone or in a ring.
    let (parent, other) = (world.plain(), world.plain());
    let child = world.waiting(&[parent]);
    let bad = world.waiting(&[other]);
    world.look();
    world.subject.app_update(parent, &[("state", text("done"))]);
    world.subject.app_update(other, &[("state", text("dead"))]);
    let (late, own) = (world.waiting(&[child]), world.waiting(&[6]));
    let now = world.now;
    let mut next = world.subject.another(super::subject::rules());
    next.open_epoch([2; 16], now).unwrap();
    next.begin(Sync::Power).unwrap();
    while !next.recheck(1, now).unwrap().1 {}
    assert!(next.intake(9, now).unwrap().due.contains(&key("normal", "k")));
    next.commit().unwrap();
    assert_eq!(world.states(&[child, bad, late, own]), [Queued, Cancelled, Waiting, Dead]);
}

pub(super) fn a_row_that_an_app_made_wait_is_found_in_the_end<T: Subject>(world: &mut World<T>) {
    // No watermark sees an UPDATE, but the pruner looks at every row.
    let (alone, parent, fine) = (world.plain(), world.plain(), world.plain());
    world.look();
    world.subject.app_update(alone, &[("state", text("waiting"))]);
    world.subject.app_update(fine, &[("state", text("waiting"))]);
    world.subject.app_depend(fine, parent, false);
    world.prune(u64::MAX);
    assert!(world.subject.store().is_behind());
    assert_eq!(world.look(), 1);
    assert_eq!(world.states(&[alone, fine]), [Dead, Waiting]);
    world.run_to(parent, Next::Done(None));
    assert_eq!(world.state(fine), Queued);
}

pub(super) fn parents_are_kept_as_long_as_their_results_may_be_asked_for<T: Subject>(world: &mut World<T>) {
    // Until every child has ended; then both go.
    let parent = world.plain();
    let child = world.waiting(&[parent]);
    world.look();
    world.run_to(parent, Next::Done(None));
    world.later(1_000);
    let prune = |world: &mut World<T>| world.prune(10);
    assert_eq!(prune(world), 0);
    world.run_to(child, Next::Done(None));
    world.later(1_000);
    assert_eq!(prune(world), 2);
    assert!(world.subject.edges().is_empty());
}

pub(super) fn a_wide_fan_is_let_go_in_parts<T: Subject>(world: &mut World<T>) {
    // More children than one turn follows, and as many parents of one child.
    let parent = world.plain();
    let children: Vec<i64> = (0..5_000).map(|_| world.waiting(&[parent])).collect();
    let last = world.waiting(&children);
    for _ in 0..60 {
        world.turn(|store, now| store.intake(99, now).unwrap());
    }
    world.run_to(parent, Next::Done(None));
    world.look();
    let rows = world.subject.rows();
    assert!(children.iter().all(|child| rows[child]["state"] == text("queued")));
    let (second, rest) = children.split_at(2);
    world.run_to(second[0], Next::Done(None));
    assert_eq!(world.state(last), Waiting);
    world.ask(Op::Cancel(rest[..10].iter().map(|child| task(*child)).collect()));
    world.look();
    assert_eq!(world.reason(last), format!("task {}, which it depends on, is cancelled", rest[0]));
}
