//! The model and SQLite side by side: random steps of a broker and of apps, told to both; every result and, after each
//! step, every cell of every row must be the same.

use laneway_core::{BulkSlice, Cause, Count, Edit, Ended, FairRules, IdSet, Next, Noted, Op, OpResult, UnixMillis};
use laneway_protocol::message::{After, BulkFilter, Held, NewTask, OnConflict, Payload};
use laneway_protocol::{FairKey, Lease, RequestId, SessionName, TaskId, TaskState};
use proptest::prelude::*;
use rusqlite::types::Value;

use super::subject::{MemorySubject, START, SqliteSubject, Subject, World, key, kind, lane, new_task, task, text};
use crate::store::memory::{Edge, Failure};
use crate::store::{Limit, Limits, Load, Retention, Store, Sync};

/// Ids that steps talk about: low, so that they meet.
const IDS: std::ops::Range<i64> = 1..12;

#[derive(Debug, Clone)]
enum Act {
    Turn {
        steps: Vec<Step>,
        commit: bool,
    },
    /// Loads outside of a turn.
    Look(Vec<Step>),
    AppInsert(Vec<(&'static str, Value)>),
    /// A row that waits for these, each `anyway` or not.
    AppInsertWaiting(Vec<(&'static str, Value)>, Vec<(i64, bool)>),
    AppDepend(i64, i64, bool),
    AppUpdate(i64, &'static str, Value),
    AppDelete(i64),
    Later(i64),
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<RandomOp>),
    Intake(usize),
    Load {
        lane: &'static str,
        kind: &'static str,
        rows: usize,
        bytes: usize,
        skip: Vec<i64>,
        /// The weight of `x`, and whether `y` is closed.
        fair: (u32, bool),
    },
    Sweep,
    Endings(Vec<i64>),
    Prune {
        limits: Limits,
        rows: usize,
    },
    Recount,
    /// With an intake before it, which tells SQLite that there is something to look at.
    Recheck,
}

/// An operation about a row; lease and run come from its counter, so that most of them fit.
#[derive(Debug, Clone)]
enum RandomOp {
    Started {
        id: i64,
        run: u32,
    },
    Ended {
        id: i64,
        run: u32,
        next: Next,
        count: Count,
        cause: Option<Cause>,
        spawn: Option<Box<NewTask>>,
    },
    Noted {
        id: i64,
        run: u32,
        done: Option<u64>,
    },
    Submit {
        request: u8,
        tasks: Vec<NewTask>,
        secured: Vec<i64>,
    },
    FindTwins(Vec<(&'static str, &'static str)>),
    Cancel(Vec<i64>),
    Requeue(Vec<i64>),
    Edit(Edit, Vec<i64>),
    Bulk {
        edit: Edit,
        after: Option<i64>,
        rows: usize,
        state: Option<TaskState>,
        line: Option<&'static str>,
        dry_run: bool,
    },
    Endings(Vec<i64>),
    Find(Vec<i64>),
}

impl RandomOp {
    fn op(&self, now: UnixMillis) -> Op {
        let tasks = |ids: &[i64]| ids.iter().map(|id| task(*id)).collect::<Vec<_>>();
        let lease = |id: i64, run: u32| Lease::new(id * 1000 + i64::from(run));
        let worker = SessionName::new("w").unwrap();
        match self {
            Self::Started { id, run } => Op::Started(laneway_core::Started {
                task: task(*id),
                lease: lease(*id, *run),
                run: *run,
                worker,
                at: now,
                kind: kind("k"),
                lane: lane("normal"),
                attempt: 1,
                wait_ms: 0,
            }),
            Self::Ended { id, run, next, count, cause, spawn } => Op::Ended(Ended {
                task: task(*id),
                lease: lease(*id, *run),
                run: *run,
                next: next.clone(),
                count: *count,
                error: cause.map(|cause| cause.as_str().into()),
                cause: *cause,
                spawn: spawn.iter().map(|task| NewTask::clone(task)).collect(),
                worker,
                at: now,
                kind: kind("k"),
                lane: lane("normal"),
                attempt: 1,
                run_ms: 0,
            }),
            Self::Noted { id, run, done } => Op::Noted(Noted {
                task: task(*id),
                lease: lease(*id, *run),
                done: *done,
                total: None,
                note: done.map(|done| format!("at {done}")),
                checkpoint: done.map(|done| Payload::json(done.to_string())),
            }),
            Self::Submit { request, tasks: new, secured } => {
                let secured = secured.iter().map(|id| Held(task(*id), Lease::new(7))).collect();
                let (request, tasks) = (RequestId([*request; 16]), new.clone());
                Op::Submit { request, tasks, group: None, secured }
            }
            Self::FindTwins(keys) => {
                Op::FindTwins(keys.iter().map(|(name, key)| (kind(name), (*key).to_owned())).collect())
            }
            Self::Cancel(ids) => Op::Cancel(tasks(ids)),
            Self::Requeue(ids) => Op::Requeue(tasks(ids)),
            Self::Bulk { edit, after, rows, state, line, dry_run } => Op::Bulk(Box::new(BulkSlice {
                edit: edit.clone(),
                filter: BulkFilter { state: *state, error_line: line.map(Into::into), ..BulkFilter::default() },
                before: None,
                after: after.map(task),
                until: None,
                rows: *rows,
                dry_run: *dry_run,
            })),
            Self::Edit(edit, ids) => Op::Edit { edit: edit.clone(), tasks: tasks(ids) },
            Self::Endings(ids) => Op::Endings(tasks(ids)),
            Self::Find(ids) => Op::Find(tasks(ids)),
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ strategies

fn some_task() -> impl Strategy<Value = NewTask> {
    let lanes = prop::sample::select(vec![None, Some("high"), Some("normal"), Some("hihg")]);
    let keys = prop::sample::select(vec![None, None, Some("one"), Some("two")]);
    let times = prop::sample::select(vec![None, None, Some(START + 50), Some(START + 500), Some(12)]);
    let expiries = prop::sample::select(vec![None, None, None, Some(START + 300)]);
    let after = prop::collection::vec((IDS, prop::bool::ANY), 0..2);
    let after = prop_oneof![4 => Just(Vec::new()), 1 => after];
    let conflicts = prop::sample::select(vec![OnConflict::Keep, OnConflict::Replace, OnConflict::Reject]);
    let windows = prop::sample::select(vec![None, None, Some(0), Some(60), Some(400)]);
    let names = prop::sample::select(vec!["k", "alarm"]);
    let fair_keys = prop::sample::select(vec![None, None, Some("x"), Some("y"), Some("*")]);
    (names, lanes, (keys, fair_keys), times, expiries, after, conflicts, windows).prop_map(
        |(name, lane_name, (unique_key, fair_key), run_at, expires_at, after, on_conflict, unique_for_ms)| NewTask {
            fair_key: fair_key.map(|key| FairKey::new(key).unwrap()),
            on_conflict: if unique_key.is_some() { on_conflict } else { OnConflict::Keep },
            unique_for_ms: unique_for_ms.filter(|_| unique_key.is_some()),
            after: after.into_iter().map(|(id, anyway)| After { task: Some(task(id)), number: None, anyway }).collect(),
            lane: lane_name.map(lane),
            unique_key: unique_key.map(str::to_owned),
            run_at,
            expires_at,
            ..new_task(name)
        },
    )
}

fn some_edit() -> impl Strategy<Value = Edit> {
    let moves = || prop::sample::select(vec!["high", "normal", "low"]).prop_map(|name| Edit::Move(lane(name)));
    prop_oneof![
        2 => moves(),
        1 => prop::sample::select(vec![Edit::Requeue, Edit::Cancel, Edit::Abandon, Edit::Purge, Edit::RunNow]),
    ]
}

fn some_op() -> impl Strategy<Value = RandomOp> {
    let nexts = prop_oneof![
        4 => Just(Next::Done(Some(Payload::bin(vec![1])))),
        1 => Just(Next::Dead),
        1 => Just(Next::Cancelled),
        2 => Just(Next::Queued { run_at: None }),
        1 => Just(Next::Queued { run_at: Some(UnixMillis(START + 200)) }),
        1 => Just(Next::Already),
    ];
    let counts = prop::sample::select(vec![Count::Attempt, Count::Loss, Count::Release, Count::Nothing]);
    let causes = prop::sample::select(vec![None, None, Some(Cause::Failed), Some(Cause::Lost)]);
    let spawns = prop_oneof![6 => Just(None), 1 => some_task().prop_map(|task| Some(Box::new(task)))];
    let ids = || prop::collection::vec(IDS, 1..3);
    let states =
        prop::sample::select(vec![None, Some(TaskState::Queued), Some(TaskState::Running), Some(TaskState::Dead)]);
    let lines = prop::sample::select(vec![None, None, None, Some("failed"), Some("")]);
    prop_oneof![
        6 => (IDS, 1..4_u32).prop_map(|(id, run)| RandomOp::Started { id, run }),
        6 => (IDS, 1..4_u32, nexts, counts, causes, spawns)
            .prop_map(|(id, run, next, count, cause, spawn)| RandomOp::Ended { id, run, next, count, cause, spawn }),
        1 => (IDS, 1..4_u32, prop::option::of(0..9_u64)).prop_map(|(id, run, done)| RandomOp::Noted { id, run, done }),
        3 => (0..6_u8, prop::collection::vec(some_task(), 0..3), prop::collection::vec(IDS, 0..6))
            .prop_map(|(request, tasks, secured)| RandomOp::Submit { request, tasks, secured }),
        1 => prop::sample::subsequence(vec![("k", "one"), ("k", "two"), ("alarm", "one")], 1..3)
            .prop_map(RandomOp::FindTwins),
        1 => ids().prop_map(RandomOp::Cancel),
        2 => ids().prop_map(RandomOp::Requeue),
        2 => (some_edit(), ids()).prop_map(|(edit, ids)| RandomOp::Edit(edit, ids)),
        1 => (some_edit(), prop::option::of(IDS), 1..9_usize, states, lines, prop::bool::ANY).prop_map(
            |(edit, after, rows, state, line, dry_run)| RandomOp::Bulk { edit, after, rows, state, line, dry_run }
        ),
        1 => ids().prop_map(RandomOp::Endings),
        1 => ids().prop_map(RandomOp::Find),
    ]
}

/// A run from start to end in one slice, which SQLite writes in one go.
fn some_ops() -> impl Strategy<Value = Vec<RandomOp>> {
    let run = (IDS, 1..4_u32, some_op(), prop::bool::ANY).prop_map(|(id, run, between, also)| {
        let end = RandomOp::Ended {
            id,
            run,
            next: Next::Done(Some(Payload::json("1"))),
            count: Count::Attempt,
            cause: None,
            spawn: None,
        };
        let start = RandomOp::Started { id, run };
        if also { vec![start, between, end] } else { vec![start, end] }
    });
    prop_oneof![2 => prop::collection::vec(some_op(), 1..6), 2 => run, 2 => some_series()]
}

/// Runs of neighbours that one worker brings back together, most of them as their rows are, perhaps with something between: all of
/// it one write to SQLite, or as many as it takes.
fn some_series() -> impl Strategy<Value = Vec<RandomOp>> {
    let result = prop::option::of(prop::sample::select(vec![Payload::json("1"), Payload::bin(vec![9])]));
    let run = (prop::bool::weighted(0.9), result, prop::bool::weighted(0.9));
    let between = prop::option::weighted(0.2, (0..6_usize, some_op()));
    (IDS, prop::collection::vec(run, 3..8), 1..3_u32, prop::bool::ANY, between).prop_map(
        |(first, runs, number, paired, between)| {
            let (mut starts, mut ends) = (Vec::new(), Vec::new());
            for (id, (is_there, result, ends_well)) in (first..).zip(runs) {
                if is_there {
                    starts.push(RandomOp::Started { id, run: number });
                    let next = if ends_well { Next::Done(result) } else { Next::Queued { run_at: None } };
                    let (count, cause, spawn) = (Count::Attempt, None, None);
                    ends.push(RandomOp::Ended { id, run: number, next, count, cause, spawn });
                }
            }
            let mut ops: Vec<RandomOp> = if paired {
                starts.into_iter().zip(ends).flat_map(|(start, end)| [start, end]).collect()
            } else {
                starts.into_iter().chain(ends).collect()
            };
            if let Some((at, op)) = between {
                ops.insert(at.min(ops.len()), op);
            }
            ops
        },
    )
}

fn some_load() -> impl Strategy<Value = Step> {
    let load = (
        prop::sample::select(vec!["normal", "high"]),
        prop::sample::select(vec!["k", "alarm"]),
        1..5_usize,
        prop::sample::select(vec![1, 5, 1000]),
        prop::collection::vec(IDS, 0..3),
        (1..4_u32, prop::bool::ANY),
    );
    load.prop_map(|(lane, kind, rows, bytes, skip, fair)| Step::Load { lane, kind, rows, bytes, skip, fair })
}

fn some_step() -> impl Strategy<Value = Step> {
    let limit = || {
        let limit = (prop::option::of(0..2_u64), prop::option::of(0..9_u64));
        limit.prop_map(|(age, count_max)| Limit { age_ms: age.map(|age| age * 200), count_max })
    };
    let prune = (limit(), limit(), limit(), 1..9_usize);
    prop_oneof![
        6 => some_ops().prop_map(Step::Apply),
        2 => (1..5_usize).prop_map(Step::Intake),
        4 => some_load(),
        2 => Just(Step::Sweep),
        1 => prop::collection::vec(IDS, 1..3).prop_map(Step::Endings),
        1 => prune.prop_map(|(done, cancelled, dead, rows)| Step::Prune { limits: Limits { done, cancelled, dead }, rows }),
        1 => Just(Step::Recount),
        2 => Just(Step::Recheck),
    ]
}

fn some_cell() -> impl Strategy<Value = (&'static str, Value)> {
    let cell = |column, value| (column, value);
    prop::sample::select(vec![
        cell("lane", Value::Null),
        cell("lane", text("high")),
        cell("lane", text("hihg")),
        cell("lane", Value::Blob(vec![1])),
        cell("run_at", Value::Null),
        cell("run_at", Value::Integer(START + 100)),
        cell("run_at", text("soon")),
        cell("run_at", Value::Integer(99)),
        cell("expires_at", Value::Integer(START + 200)),
        cell("fair_key", Value::Null),
        cell("fair_key", text("x")),
        cell("fair_key", text("y")),
        cell("fair_key", text("z")),
        cell("fair_key", text("")),
        cell("fair_key", Value::Blob(vec![1])),
        cell("max_attempts", Value::Integer(0)),
        cell("max_attempts", Value::Integer(5)),
        cell("payload", Value::Blob(vec![2; 10])),
        cell("payload", Value::Integer(5)),
        cell("cancel_requested", Value::Integer(1)),
        cell("state", text("done")),
        cell("state", text("running")),
        cell("state", text("waiting")),
        cell("lease", Value::Integer(3)),
        cell("lease", Value::Null),
    ])
}

fn some_act() -> impl Strategy<Value = Act> {
    let keys = prop::sample::select(vec![Value::Null, Value::Null, Value::Null, text("one"), text("two")]);
    let insert = (prop::sample::select(vec!["k", "alarm"]), keys, prop::option::weighted(0.4, some_cell()));
    let insert = insert.prop_map(|(kind, key, cell)| {
        let mut cells = vec![("kind", text(kind)), ("unique_key", key)];
        cells.extend(cell);
        Act::AppInsert(cells)
    });
    let parents = prop::collection::btree_map(IDS, prop::bool::ANY, 0..4);
    let waiting = (prop::sample::select(vec!["k", "alarm"]), prop::option::weighted(0.2, some_cell()), parents);
    let waiting = waiting.prop_filter_map("waits", |(kind, cell, parents)| {
        let mut cells = vec![("kind", text(kind)), ("state", text("waiting"))];
        let waits = cell.as_ref().is_none_or(|cell| cell.0 != "state");
        cells.extend(cell);
        waits.then(|| Act::AppInsertWaiting(cells, parents.into_iter().collect()))
    });
    prop_oneof![
        3 => waiting,
        1 => (IDS, IDS, prop::bool::ANY).prop_map(|(task, parent, anyway)| Act::AppDepend(task, parent, anyway)),
        8 => (prop::collection::vec(some_step(), 1..4), prop::bool::weighted(0.9))
            .prop_map(|(steps, commit)| Act::Turn { steps, commit }),
        3 => prop::collection::vec(some_load(), 1..3).prop_map(Act::Look),
        4 => insert,
        // Of the states only those that cannot run into a live key.
        2 => (IDS, some_cell()).prop_filter_map("keeps keys unique", |(id, (column, value))| {
            let live = column == "state" && value != text("done");
            (!live).then_some(Act::AppUpdate(id, column, value))
        }),
        1 => IDS.prop_map(Act::AppDelete),
        2 => (1..150_i64).prop_map(Act::Later),
    ]
}

// ------------------------------------------------------------------------------------------------------------ comparison

/// What an act showed, in words that can be compared.
fn act<T: Subject>(world: &mut World<T>, act: &Act) -> Vec<String> {
    match act {
        Act::Turn { steps, commit } => {
            let now = world.now;
            world.subject.store().begin(Sync::Process).unwrap();
            let shown = steps.iter().map(|step| take(world, step)).collect();
            if *commit {
                world.subject.store().commit().unwrap();
            } else {
                world.subject.store().rollback();
            }
            assert_eq!(world.now, now);
            shown
        }
        Act::Look(loads) => {
            world.subject.store().look().unwrap();
            let shown = loads.iter().map(|load| take(world, load)).collect();
            world.subject.store().end_look().unwrap();
            shown
        }
        Act::AppInsert(cells) => {
            let mut all = vec![("created_at", Value::Integer(world.now.wall.0))];
            all.extend(cells.iter().cloned());
            vec![format!("{:?}", world.subject.app_insert(&all))]
        }
        Act::AppInsertWaiting(cells, parents) => {
            let mut all = vec![("created_at", Value::Integer(world.now.wall.0))];
            all.extend(cells.iter().cloned());
            vec![format!("{:?}", world.subject.app_insert_waiting(&all, parents))]
        }
        Act::AppDepend(task, parent, anyway) => {
            // Of another row it means nothing, and when it is cleared away is nobody's business.
            if world.subject.rows().get(task).is_some_and(|row| row["state"] == text("waiting")) {
                world.subject.app_depend(*task, *parent, *anyway);
            }
            Vec::new()
        }
        Act::AppUpdate(id, column, value) => {
            world.subject.app_update(*id, &[(*column, value.clone())]);
            Vec::new()
        }
        Act::AppDelete(id) => {
            world.subject.app_delete(*id);
            Vec::new()
        }
        Act::Later(ms) => {
            world.later(*ms);
            Vec::new()
        }
    }
}

fn take<T: Subject>(world: &mut World<T>, step: &Step) -> String {
    let now = world.now;
    let store = world.subject.store();
    match step {
        Step::Apply(ops) => {
            let mut ops: Vec<Op> = ops.iter().map(|op| op.op(now.wall)).collect();
            // No broker can hand a row out before the commit that made it.
            ops.sort_by_key(|op| {
                !matches!(op, Op::Submit { .. }) && !matches!(op, Op::Ended(ended) if !ended.spawn.is_empty())
            });
            let mut results = store.apply(&ops, now).unwrap();
            for result in results.iter_mut().flatten() {
                if let OpResult::Found(found) = result {
                    found.sort_by_key(|task| task.id);
                }
            }
            format!("{results:?}")
        }
        Step::Intake(rows) => {
            let mut intake = store.intake(*rows, now).unwrap();
            intake.due.sort();
            intake.later.sort();
            intake.let_go.sort();
            intake.rejected.sort_by_key(|ended| ended.end.task);
            format!("{intake:?}")
        }
        Step::Load { lane: lane_name, kind: kind_name, rows, bytes, skip, fair: (weight, closed) } => {
            let skip: IdSet<TaskId> = skip.iter().map(|id| task(*id)).collect();
            let fair = FairRules {
                weight: 1,
                weights: [(FairKey::new("x").unwrap(), *weight)].into(),
                closed: FairKey::new("y").into_iter().filter(|_| *closed).collect(),
            };
            let load = Load {
                key: &key(lane_name, kind_name),
                skip: &|task| skip.contains(&task),
                rows: *rows,
                bytes: *bytes,
                fair: &fair,
            };
            let mut loaded = store.load(load, now).unwrap();
            loaded.rejected.sort_by_key(|ended| ended.end.task);
            format!("{loaded:?}")
        }
        Step::Sweep => {
            let mut swept = store.sweep(999, now).unwrap();
            swept.ended.sort_by_key(|ended| ended.end.task);
            swept.cancel_requested.sort();
            format!("{swept:?}")
        }
        Step::Endings(ids) => {
            format!("{:?}", store.endings(&ids.iter().map(|id| task(*id)).collect::<Vec<_>>()).unwrap())
        }
        Step::Prune { limits, rows } => {
            let retention = Retention::new(
                *limits,
                std::iter::once((&kind("alarm"), Limits { done: limits.dead, ..Limits::default() })),
            );
            let watched = std::iter::once(task(3)).collect();
            format!("{:?}", store.prune(&retention, &watched, *rows, now).unwrap())
        }
        Step::Recount => {
            while !store.recount(7).unwrap() {}
            String::new()
        }
        Step::Recheck => {
            let mut gone = store.intake(999, now).unwrap().rejected;
            loop {
                let (more, complete) = store.recheck(3, now).unwrap();
                gone.extend(more);
                if complete {
                    break;
                }
            }
            gone.sort_by_key(|ended| ended.end.task);
            format!("{gone:?}")
        }
    }
}

/// Each task's in order; between tasks of one sweep there is none.
fn failures<T: Subject>(world: &World<T>) -> Vec<Failure> {
    let mut failures = world.subject.failures();
    failures.sort_by_key(|failure| failure.task);
    failures
}

/// Of rows that wait. What others waited for is closed when somebody comes by.
fn edges<T: Subject>(world: &World<T>) -> Vec<Edge> {
    let rows = world.subject.rows();
    let waits = |edge: &Edge| rows.get(&edge.task).is_some_and(|row| row["state"] == text("waiting"));
    world.subject.edges().into_iter().filter(waits).collect()
}

/// Queued rows by the counts, once a pass has mended them.
fn counted<T: Subject>(world: &mut World<T>) -> String {
    world.turn(|store, _| while !store.recount(3).unwrap() {});
    match world.ask(Op::Counts) {
        OpResult::Counts(counts) => format!("{:?} {} {}", counts.queued, counts.dead, counts.overtaken),
        other => panic!("no counts: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_model_and_sqlite_agree(acts in prop::collection::vec(some_act(), 1..40)) {
        // Whatever a broker and its apps do, in whatever order.
        let mut model = World::new(MemorySubject::new());
        let mut sqlite = World::new(SqliteSubject::new());
        for next in &acts {
            let (expected, got) = (act(&mut model, next), act(&mut sqlite, next));
            prop_assert_eq!(expected, got, "after {:?}", next);
            prop_assert_eq!(model.subject.rows(), sqlite.subject.rows(), "after {:?}", next);
            prop_assert_eq!(failures(&model), failures(&sqlite), "after {:?}", next);
            prop_assert_eq!(edges(&model), edges(&sqlite), "after {:?}", next);
        }
        prop_assert_eq!(counted(&mut model), counted(&mut sqlite));
    }
}
