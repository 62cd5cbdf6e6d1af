//! The life of one task: started, ended, cancelled, requeued, and what apps do to it meanwhile.

use laneway_core::{Cause, Count, Ended, EndedAs, Next, Noted, NotedAs, Op, OpResult};
use laneway_protocol::message::{Payload, Verdict};
use laneway_protocol::{Lease, TaskState};
use rusqlite::types::Value;

use super::subject::{Subject, World, ids, key, new_task, task, text};
use crate::store::Store;

const DONE: EndedAs = EndedAs::Written(TaskState::Done);

fn results(results: &[Option<OpResult>]) -> Vec<EndedAs> {
    let ends = results.iter().flatten().map(|result| match result {
        OpResult::Ended(end) => end.clone(),
        other => panic!("not an end: {other:?}"),
    });
    ends.collect()
}

pub(super) fn a_run_is_recorded_in_one_batch_or_two<T: Subject>(world: &mut World<T>) {
    // One write or two must leave the same row.
    let (one, two) = (world.plain(), world.plain());
    let run = world.hand_out(one);
    let ops = [Op::Started(run.started.clone()), Op::Ended(run.done())];
    assert_eq!(world.apply(&ops), [None, Some(OpResult::Ended(DONE))]);
    let run = world.started(two);
    assert_eq!(world.end(run.done()), DONE);

    assert_eq!(world.counters(one), [1, 1, 0, 0]);
    assert_eq!(world.cell(one, "result"), text("{\"ok\":true}"));
    let rows = world.subject.rows();
    let mut twin = rows[&two].clone();
    twin.insert("lease", rows[&one]["lease"].clone());
    assert_eq!(rows[&one], twin);
}

pub(super) fn each_end_counts_what_it_should<T: Subject>(world: &mut World<T>) {
    // runs, attempts, losses, releases; in a batch of its own and together with the start.
    let later = Some(world.now.wall.after(60_000));
    for together in [false, true] {
        let cases = [
            (Next::Dead, Count::Attempt, Some(Cause::Failed), [1, 1, 0, 0]),
            (Next::Queued { run_at: later }, Count::Attempt, Some(Cause::Timeout), [1, 1, 0, 0]),
            (Next::Queued { run_at: None }, Count::Loss, Some(Cause::Lost), [1, 0, 1, 0]),
            (Next::Queued { run_at: later }, Count::Release, None, [1, 0, 0, 1]),
            (Next::Queued { run_at: None }, Count::Nothing, None, [1, 0, 0, 0]),
            (Next::Cancelled, Count::Nothing, None, [1, 0, 0, 0]),
        ];
        for (next, count, cause, counters) in cases {
            let id = world.plain();
            let run = world.hand_out(id);
            let error = cause.map(|_| "why".to_owned());
            let ended = Ended { cause, error, ..run.ended(next.clone(), count) };
            let start = Op::Started(run.started.clone());
            if together {
                world.apply(&[start, Op::Ended(ended)]);
            } else {
                world.apply(&[start]);
                world.apply(&[Op::Ended(ended)]);
            }
            assert_eq!(world.counters(id), counters, "{next:?} {count:?}");
            let failures: Vec<_> = world.subject.failures().into_iter().filter(|failure| failure.task == id).collect();
            assert_eq!(failures.len(), usize::from(cause.is_some()));
            let back = matches!(next, Next::Queued { .. });
            assert_eq!(world.cell(id, "lease") == Value::Null, back, "only rows that go back lose their lease");
            assert_eq!(world.cell(id, "finished_at") == Value::Null, back);
            assert_eq!(world.cell(id, "worker"), text("w1"));
            if let Next::Queued { run_at } = next {
                assert_eq!(world.cell(id, "run_at"), run_at.map_or(Value::Null, |at| Value::Integer(at.0)));
            }
        }
    }
}

pub(super) fn a_stale_lease_changes_nothing<T: Subject>(world: &mut World<T>) {
    // The run went elsewhere: every word under its lease must bounce off.
    let (id, old) = world.running();
    world.end(old.ended(Next::Queued { run_at: None }, Count::Loss));
    let current = world.started(id);
    let before = world.subject.rows();
    for next in [Next::Done(None), Next::Dead, Next::Cancelled, Next::Queued { run_at: None }, Next::Already] {
        assert_eq!(world.end(old.ended(next, Count::Attempt)), EndedAs::Overtaken);
    }
    let noted =
        Noted { task: task(id), lease: old.started.lease, done: Some(1), total: None, note: None, checkpoint: None };
    world.apply(&[Op::Noted(noted)]);
    assert_eq!(world.subject.rows(), before);
    assert_eq!(world.end(current.done()), DONE);
    // Not even when the row has ended since.
    assert_eq!(world.end(old.done()), EndedAs::Overtaken);
    assert_eq!(world.subject.rows()[&id]["state"], text("done"));
    // Nor under a lease that nobody was given.
    let (_, run) = world.running();
    assert_eq!(world.end(run.with_lease(7).done()), EndedAs::Overtaken);
}

pub(super) fn the_same_end_said_twice_is_recorded_once<T: Subject>(world: &mut World<T>) {
    // A worker that heard no answer says it again, to this broker or the next.
    let (id, run) = world.running();
    assert_eq!(world.end(run.done()), DONE);
    let after = world.subject.rows();
    assert_eq!(world.end(run.done()), EndedAs::Recorded(TaskState::Done));
    // Whatever it says then, the first word stands.
    assert_eq!(world.end(run.failed(None)), EndedAs::Recorded(TaskState::Done));
    assert_eq!(world.subject.rows(), after);

    let (back, run) = world.running();
    let failed = run.failed(Some(world.now.wall.after(1000)));
    assert_eq!(world.end(failed.clone()), EndedAs::Written(TaskState::Queued));
    let after = world.subject.rows();
    assert_eq!(world.end(failed), EndedAs::Recorded(TaskState::Queued));
    // A success that comes after its run was taken away is too late.
    assert_eq!(world.end(run.done()), EndedAs::Overtaken);
    assert_eq!(world.subject.rows(), after);
    assert_eq!(world.counters(back), [1, 1, 0, 0]);
    assert_eq!(world.counters(id), [1, 1, 0, 0]);

    // A whole turn said again, its first commit having been in doubt.
    let id = world.plain();
    let run = world.hand_out(id);
    let ops = [Op::Started(run.started.clone()), Op::Ended(run.done())];
    assert_eq!(results(&world.apply(&ops)), [DONE]);
    assert_eq!(results(&world.apply(&ops)), [EndedAs::Recorded(TaskState::Done)]);
    let (_, run) = world.running();
    world.apply(&[Op::Started(run.started.clone())]);
    assert_eq!(world.end(run.done()), DONE);
}

pub(super) fn done_wins_over_a_cancel_and_every_other_end_does_not<T: Subject>(world: &mut World<T>) {
    // In one batch with the start and apart.
    for together in [false, true] {
        let ends = [
            (Next::Done(None), TaskState::Done),
            (Next::Dead, TaskState::Cancelled),
            (Next::Cancelled, TaskState::Cancelled),
            (Next::Queued { run_at: None }, TaskState::Cancelled),
        ];
        for (next, expected) in ends {
            let id = world.plain();
            let run = world.hand_out(id);
            let (start, end) = (Op::Started(run.started.clone()), Op::Ended(run.ended(next, Count::Attempt)));
            if !together {
                world.apply(std::slice::from_ref(&start));
            }
            world.subject.app_update(id, &[("cancel_requested", Value::Integer(1))]);
            let ops = if together { vec![start, end] } else { vec![end] };
            assert_eq!(results(&world.apply(&ops)), [EndedAs::Written(expected)]);
            assert_eq!(world.state(id), expected);
            assert_eq!(
                world.cell(id, "lease"),
                Value::Integer(run.started.lease.value()),
                "ended rows keep their lease"
            );
            assert_ne!(world.cell(id, "finished_at"), Value::Null);
        }
    }
}

pub(super) fn a_cancel_between_start_and_end_is_not_lost<T: Subject>(world: &mut World<T>) {
    // All three in one batch: the cancel must find the row running, as it was.
    let id = world.plain();
    let run = world.hand_out(id);
    let ops = [Op::Started(run.started.clone()), Op::Cancel(vec![task(id)]), Op::Ended(run.failed(None))];
    let results = world.apply(&ops);
    assert_eq!(results[1], Some(OpResult::Verdicts(vec![Verdict::Requested])));
    assert_eq!(results[2], Some(OpResult::Ended(EndedAs::Written(TaskState::Cancelled))));
    assert_eq!(world.counters(id), [1, 1, 0, 0]);
}

pub(super) fn progress_and_checkpoints_need_the_lease<T: Subject>(world: &mut World<T>) {
    // What is not said stays; a checkpoint outlives its run and comes with the next.
    let (id, run) = world.running();
    let note = |lease, done, note: Option<&str>, checkpoint| {
        Op::Noted(Noted { task: task(id), lease, done, total: Some(9), note: note.map(str::to_owned), checkpoint })
    };
    let lease = run.started.lease;
    world.apply(&[note(lease, Some(3), Some("a third"), Some(Payload::bin(vec![1, 2])))]);
    let noted = world.apply(&[note(lease, None, None, None), note(Lease::new(1), Some(8), None, None)]);
    assert_eq!(noted, [NotedAs::Written, NotedAs::Overtaken].map(|noted| Some(OpResult::Noted(noted))));
    assert_eq!(world.cell(id, "progress_done"), Value::Integer(3));
    assert_eq!(world.cell(id, "progress_total"), Value::Integer(9));
    assert_eq!(world.cell(id, "progress_note"), text("a third"));
    world.end(run.failed(None));
    let loaded = world.load(&key("normal", "k"), 1);
    assert_eq!(loaded.tasks[0].checkpoint, Some(Payload::bin(vec![1, 2])));
    assert_eq!((loaded.tasks[0].runs, loaded.tasks[0].attempts), (1, 1));

    // Within one batch too.
    let run = world.hand_out(id);
    let ops = [
        Op::Started(run.started.clone()),
        note(run.started.lease, Some(5), None, Some(Payload::json("[5]"))),
        Op::Ended(run.failed(None)),
    ];
    world.apply(&ops);
    assert_eq!(world.cell(id, "checkpoint"), text("[5]"));
}

pub(super) fn spawned_tasks_come_with_their_outcome<T: Subject>(world: &mut World<T>) {
    // In the commit of the outcome, and only when that is taken.
    let (_, run) = world.running();
    let ended = Ended { spawn: vec![new_task("child"), new_task("child")], ..run.done() };
    assert_eq!(world.end(ended.clone()), DONE);
    assert_eq!(world.load(&key("normal", "child"), 9).tasks.len(), 2);
    assert_eq!(world.end(ended), EndedAs::Recorded(TaskState::Done));
    assert_eq!(world.load(&key("normal", "child"), 9).tasks.len(), 2);

    let id = world.plain();
    let run = world.hand_out(id);
    let ended = Ended { spawn: vec![new_task("child")], ..run.done() };
    world.apply(&[Op::Started(run.started.clone()), Op::Ended(ended)]);
    assert_eq!(world.load(&key("normal", "child"), 9).tasks.len(), 3);
}

pub(super) fn a_bad_spawn_fails_its_run<T: Subject>(world: &mut World<T>) {
    // Nothing of the outcome stands but the failure, which names the task and why.
    let (id, run) = world.running();
    let mut bad = new_task("child");
    bad.run_at = Some(1_700_000_000);
    let ended = Ended { spawn: vec![new_task("child"), bad], ..run.done() };
    let reason = "spawned task 1 makes no sense: run_at 1700000000 looks like seconds: use milliseconds, 1700000000000";
    let refused = EndedAs::SpawnRefused { state: TaskState::Dead, reason: reason.into() };
    assert_eq!(world.end(ended), refused);
    assert_eq!(world.cell(id, "error"), text(reason));
    assert_eq!(world.cell(id, "result"), Value::Null);
    assert_eq!(world.counters(id), [1, 1, 0, 0]);
    assert_eq!(world.subject.failures()[0].cause, "failed");
    assert!(world.load(&key("normal", "child"), 9).tasks.is_empty());
}

pub(super) fn a_row_finished_by_sql_is_believed_and_one_that_was_not_is_dead<T: Subject>(world: &mut World<T>) {
    // `already`: the worker has ended the row in its own transaction, or says so wrongly.
    let (id, run) = world.running();
    world.subject.app_update(id, &[("state", text("done")), ("result", text("5"))]);
    let already = run.ended(Next::Already, Count::Nothing);
    assert_eq!(world.end(already), EndedAs::Recorded(TaskState::Done));
    assert_eq!(world.cell(id, "result"), text("5"));

    let id = world.plain();
    let run = world.hand_out(id);
    let ops = [Op::Started(run.started.clone()), Op::Ended(run.ended(Next::Already, Count::Nothing))];
    assert_eq!(results(&world.apply(&ops)), [EndedAs::Written(TaskState::Dead)]);
    assert_eq!(world.counters(id), [1, 1, 0, 0]);
    assert_eq!(world.subject.failures().len(), 1);
}

pub(super) fn rows_changed_under_the_broker_hurt_nobody<T: Subject>(world: &mut World<T>) {
    // Deleted, requeued, finished or given another lease by an app: counted, and nothing is written.
    let key = key("normal", "k");
    let changes: [&[(&'static str, Value)]; 4] = [
        &[],
        &[("state", text("queued")), ("lease", Value::Null), ("worker", Value::Null)],
        &[("state", text("done")), ("lease", Value::Null)],
        &[("lease", Value::Integer(5))],
    ];
    for change in changes {
        let (id, run) = world.running();
        if change.is_empty() {
            world.subject.app_delete(id);
        } else {
            world.subject.app_update(id, change);
        }
        let before = world.subject.rows();
        assert_eq!(world.end(run.done()), EndedAs::Overtaken, "{change:?}");
        assert_eq!(world.end(run.failed(None)), EndedAs::Overtaken, "{change:?}");
        assert_eq!(world.subject.rows(), before);
    }
    // Gone between being read ahead and being handed out.
    let id = world.plain();
    let run = world.hand_out(id);
    world.subject.app_delete(id);
    let ops = [Op::Started(run.started.clone()), Op::Ended(run.done())];
    assert_eq!(results(&world.apply(&ops)), [EndedAs::Overtaken]);
    let OpResult::Counts(counts) = world.ask(Op::Counts) else { panic!("no counts") };
    assert_eq!(counts.overtaken, 10);
    assert_eq!(world.load(&key, 9).tasks.len(), 1);
}

pub(super) fn a_hand_out_that_a_cancel_overtook_is_counted<T: Subject>(world: &mut World<T>) {
    // Cancelled between the hand-out and its record, then requeued: the next hand-out has another number, so that the first
    // worker's word is not taken for the second's.
    let id = world.plain();
    let run = world.hand_out(id);
    world.apply(&[Op::Cancel(vec![task(id)])]);
    let ops = [Op::Started(run.started.clone()), Op::Ended(run.done())];
    assert_eq!(results(&world.apply(&ops)), [EndedAs::Overtaken]);
    assert_eq!((world.state(id), world.counters(id)), (TaskState::Cancelled, [1, 0, 0, 0]));
    assert_eq!(world.ask(Op::Requeue(vec![task(id)])), OpResult::Verdicts(vec![Verdict::Requeued]));
    assert_eq!(world.load(&key("normal", "k"), 9).tasks[0].runs, 1);
    // Said again, as after a commit whose fate is unknown, it does not count twice.
    world.apply(&[Op::Cancel(vec![task(id)])]);
    world.apply(&[Op::Started(run.started.clone())]);
    assert_eq!(world.counters(id), [1, 0, 0, 0]);
}

pub(super) fn a_row_moved_while_it_ran_goes_where_its_row_says<T: Subject>(world: &mut World<T>) {
    // It comes back in the lane that the app gave it; one in a lane that does not exist is dead with a reason.
    let back = Next::Queued { run_at: None };
    let (id, run) = world.running();
    world.subject.app_update(id, &[("lane", text("low"))]);
    world.turn(|store, now| store.intake(9, now).unwrap());
    assert_eq!(world.end(run.ended(back.clone(), Count::Release)), EndedAs::Written(TaskState::Queued));
    let intake = world.turn(|store, now| store.intake(9, now).unwrap());
    assert_eq!(intake.due, [key("low", "k")]);
    let (id, run) = world.running();
    world.subject.app_update(id, &[("lane", text("nowhere"))]);
    assert_eq!(world.end(run.ended(back, Count::Release)), EndedAs::Written(TaskState::Dead));
    assert_eq!(world.cell(id, "state"), text("dead"));
    assert_eq!(world.subject.failures().last().map(|failure| failure.task), Some(id));
    // Queued again it is still where no worker can be: the next sweep says so again.
    let OpResult::Verdicts(verdicts) = world.ask(Op::Requeue(vec![task(id)])) else { panic!("no verdict") };
    assert_eq!(verdicts, [Verdict::Requeued]);
    let swept = world.turn(|store, now| store.sweep(9, now).unwrap());
    assert_eq!(swept.ended.len(), 1);
    assert_eq!(world.cell(id, "state"), text("dead"));
}

pub(super) fn requeue_starts_afresh_and_knows_twins<T: Subject>(world: &mut World<T>) {
    // Attempts and losses at zero, due at once; one whose key is live again is told with its twin.
    let mut keyed = new_task("k");
    keyed.unique_key = Some("one".into());
    let id = world.submit_one(keyed.clone());
    let run = world.started(id);
    let dead = Ended { error: Some("why".into()), cause: Some(Cause::Failed), ..run.ended(Next::Dead, Count::Attempt) };
    world.end(dead);
    let requeue = |world: &mut World<T>, id| match world.ask(Op::Requeue(vec![task(id)])) {
        OpResult::Verdicts(verdicts) => verdicts[0],
        other => panic!("no verdict: {other:?}"),
    };
    let twin = world.submit_one(keyed);
    assert_ne!(twin, id);
    assert_eq!(requeue(world, id), Verdict::Twin(task(twin)));
    assert_eq!(requeue(world, twin), Verdict::Unchanged);
    world.subject.app_delete(twin);
    assert_eq!(requeue(world, id), Verdict::Requeued);
    assert_eq!(world.counters(id), [1, 0, 0, 0], "hand-outs are never forgotten: leases are made of them");
    for column in ["error", "lease", "finished_at", "run_at"] {
        assert_eq!(world.cell(id, column), Value::Null, "{column}");
    }
    assert_eq!(ids(&world.load(&key("normal", "k"), 9).tasks), [id]);

    world.subject.app_update(id, &[("cancel_requested", Value::Integer(1)), ("expires_at", Value::Integer(1))]);
    world.turn(|store, now| store.sweep(9, now).unwrap());
    assert_eq!(world.state(id), TaskState::Cancelled);
    assert_eq!(requeue(world, id), Verdict::Requeued);
    assert_eq!(world.cell(id, "cancel_requested"), Value::Integer(0));
    assert_eq!(world.cell(id, "expires_at"), Value::Null);
    let run = world.started(id);
    world.end(run.done());
    assert_eq!(requeue(world, id), Verdict::Unchanged);
    assert_eq!(requeue(world, 999), Verdict::NotFound);
}

pub(super) fn cancel_tells_what_it_did<T: Subject>(world: &mut World<T>) {
    // Queued ones end at once; running ones are asked; ended ones stay.
    let queued = world.plain();
    let (running, _) = world.running();
    let (done, run) = world.running();
    world.end(run.done());
    let tasks = [queued, running, done, 999].map(task).to_vec();
    let verdicts = vec![Verdict::Cancelled, Verdict::Requested, Verdict::Unchanged, Verdict::NotFound];
    assert_eq!(world.ask(Op::Cancel(tasks.clone())), OpResult::Verdicts(verdicts));
    assert_eq!(world.state(queued), TaskState::Cancelled);
    assert_eq!(world.cell(running, "cancel_requested"), Value::Integer(1));
    let verdicts = vec![Verdict::Unchanged, Verdict::Requested, Verdict::Unchanged, Verdict::NotFound];
    assert_eq!(world.ask(Op::Cancel(tasks)), OpResult::Verdicts(verdicts));
    let swept = world.turn(|store, now| store.sweep(9, now).unwrap());
    assert_eq!(swept.cancel_requested, [task(running)]);
}

pub(super) fn failures_are_kept_newest_hundred<T: Subject>(world: &mut World<T>) {
    // One task that fails for ever must not fill the disk.
    let id = world.plain();
    for _ in 0..3 {
        let run = world.started(id);
        world.end(run.failed(None));
    }
    let runs: Vec<u32> = world.subject.failures().iter().map(|failure| failure.run).collect();
    assert_eq!(runs, [1, 2, 3]);
    world.subject.app_update(id, &[("runs", Value::Integer(102))]);
    let run = world.started(id);
    world.end(run.failed(None));
    let runs: Vec<u32> = world.subject.failures().iter().map(|failure| failure.run).collect();
    assert_eq!(runs, [103]);
}
