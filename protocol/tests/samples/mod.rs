//! At least one message of every type: all fields set, and where that differs much, hardly any. The golden vectors are
//! these as bytes, and the mutation tests start from them. A changed sample is a changed contract.

use laneway_protocol::message::{
    AboutGroup, After, Batch, Beat, BeatNoted, Bulk, BulkFilter, Bulked, Bye, ByeNoted, CatchUp, Change, Cursor, Drain,
    Drained, End, FailureRow, FairKeyRow, FairKeyRows, FairKeyValues, FairKeys, Filter, Final, GroupRow, HandOut,
    HandedTask, Held, Hello, KindRow, KindRows, KindState, KindValues, Kinds, LaneRow, LaneRows, LaneValues, Lanes,
    ListWorkers, LostWorker, NewGroup, NewSchedule, NewTask, OnConflict, Outcome, OutcomeCode, Pong, Progress,
    ProgressEvent, ProgressNoted, Ready, ScheduleRow, ScheduleRows, Schedules, SetFairKey, SetKind, SetLane, Settled,
    StatsReport, Status, StatusRows, Stored, Submit, Submitted, TaskRow, Tasks, Verdict, Verdicts, Wait, WaitFor,
    WaitReason, Waited, Welcome, WorkerRow, WorkerRows,
};
use laneway_protocol::{
    Answer, Code, Epoch, FairKey, Kind, LaneName, Lease, Payload, Rate, Request, RequestId, SessionName, TaskId,
    TaskState, WireError,
};

/// The type's name in PROTOCOL.md in lower case, what is special about this one, and the message.
pub(crate) type Sample<M> = (&'static str, &'static str, M);

pub(crate) fn task(id: u64) -> TaskId {
    TaskId::new(id).unwrap()
}

pub(crate) fn kind(name: &str) -> Kind {
    Kind::new(name).unwrap()
}

pub(crate) fn lane(name: &str) -> LaneName {
    LaneName::new(name).unwrap()
}

pub(crate) fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// All that can be set of a kind.
fn fair_key(name: &str) -> FairKey {
    FairKey::new(name).unwrap()
}

fn fair_key_values() -> FairKeyValues {
    FairKeyValues { weight: Some(3), cap: Some(4), rate: Some(rate("10/s")), rate_burst: Some(0) }
}

fn kind_values() -> KindValues {
    KindValues {
        cap: Some(4),
        rate: Some(rate("10/s")),
        rate_burst: Some(2),
        lane: Some(lane("low")),
        max_attempts: Some(5),
        timeout_ms: Some(60_000),
        backoff_base_ms: Some(100),
        backoff_max_ms: Some(10_000),
        done_age_ms: Some(3_600_000),
        done_count_max: Some(1_000),
        cancelled_age_ms: Some(60_000),
        cancelled_count_max: Some(0),
        dead_age_ms: Some(2_592_000_000),
        dead_count_max: Some(100),
    }
}

pub(crate) fn session() -> SessionName {
    SessionName::new("5f0c9a1e").unwrap()
}

pub(crate) fn held(id: u64, lease: i64) -> Held {
    Held(task(id), Lease::new(lease))
}

/// A READY as a one-page worker says it.
pub(crate) fn plain_ready() -> Ready {
    Ready {
        session: session(),
        slot: 0,
        epoch: None,
        ack: None,
        n: None,
        max: 1,
        wait_ms: 10_000,
        outcomes: Vec::new(),
        batch: None,
        committed: false,
        kinds: Some(vec![kind("wordcount"), kind("echo")]),
        lanes: None,
    }
}

fn outcomes() -> Vec<Outcome> {
    let outcome = |id, end| Outcome::new(task(id), Lease::new(-7_000_000_000_000_000_001), end);
    vec![
        Outcome {
            result: Some(Payload::json(r#"{"words":12}"#)),
            spawn: vec![NewTask::new(kind("echo"), Some(Payload::bin([0xc0])))],
            ..outcome(41, End::Done)
        },
        Outcome { error: Some("no such file".into()), after_ms: Some(5_000), ..outcome(42, End::Fail) },
        Outcome { error: Some("not a number".into()), dead: true, ..outcome(43, End::Fail) },
        Outcome { after_ms: Some(60_000), ..outcome(44, End::Snooze) },
        outcome(45, End::Release),
        outcome(46, End::Cancelled),
        outcome(47, End::Already),
    ]
}

pub(crate) fn requests() -> Vec<Sample<Request>> {
    let mut samples = worker_requests();
    samples.extend(client_requests());
    samples.extend([
        (
            "lanes",
            "pause and resume",
            Request::Lanes(Lanes { pause: vec![lane("low")], resume: vec![lane("normal")], ..Lanes::default() }),
        ),
        (
            "lanes",
            "reset and set",
            Request::Lanes(Lanes {
                reset: vec![lane("normal")],
                set: vec![SetLane {
                    lane: lane("low"),
                    values: LaneValues { cap: Some(8), rate: Some(rate("90/m")), rate_burst: Some(5), share: Some(10) },
                }],
                ..Lanes::default()
            }),
        ),
        (
            "kinds",
            "all fields",
            Request::Kinds(Kinds {
                pause: vec![kind("echo")],
                resume: vec![kind("wordcount")],
                reset: vec![kind("mail")],
                set: vec![SetKind { kind: kind("mail"), values: kind_values() }],
                after: Some(kind("echo")),
            }),
        ),
        (
            "fair_keys",
            "all fields",
            Request::FairKeys(FairKeys {
                reset: vec![fair_key("other")],
                set: vec![SetFairKey { fair_key: fair_key("*"), values: fair_key_values() }],
                after: Some(fair_key("abc")),
            }),
        ),
        ("workers", "no fields", Request::Workers(ListWorkers::default())),
        ("workers", "the next page", Request::Workers(ListWorkers { after: Some(session()) })),
        ("stats", "no fields", Request::Stats),
        ("group", "cancel it", Request::Group(AboutGroup { group: 7, cancel: true })),
        ("drain", "all fields", Request::Drain(Drain { release: true, off: false, worker: Some("thumbs-1".into()) })),
        (
            "bulk",
            "two tasks by id",
            Request::Bulk(Bulk {
                change: Some(Change::Move),
                lane: Some(lane("low")),
                tasks: vec![task(41), task(42)],
                ..Bulk::default()
            }),
        ),
        ("bulk", "a batch that is only tried", Request::Bulk(bulk_by_filter())),
        (
            "bulk",
            "a batch is looked at and stopped",
            Request::Bulk(Bulk { batch: Some(9_000_001), stop: true, ..Bulk::default() }),
        ),
        ("schedules", "no fields", Request::Schedules(Schedules::default())),
        (
            "schedules",
            "one by its name",
            Request::Schedules(Schedules { name: Some("report".into()), ..Schedules::default() }),
        ),
        (
            "schedules",
            "the next page",
            Request::Schedules(Schedules { after: Some("report".into()), ..Schedules::default() }),
        ),
        (
            "schedules",
            "a new one",
            Request::Schedules(Schedules { put: Some(Box::new(new_schedule())), ..Schedules::default() }),
        ),
        (
            "schedules",
            "each change",
            Request::Schedules(Schedules {
                pause: vec!["report".into()],
                resume: vec!["cleanup".into()],
                remove: vec!["old".into()],
                ..Schedules::default()
            }),
        ),
        ("ping", "no fields", Request::Ping),
    ]);
    samples
}

fn new_schedule() -> NewSchedule {
    NewSchedule {
        time_zone: Some("Europe/Berlin".into()),
        lane: Some(lane("low")),
        unique_key: Some("report".into()),
        max_attempts: Some(5),
        timeout_ms: Some(60_000),
        catch_up: Some(CatchUp::All),
        catch_up_max: Some(7),
        ..NewSchedule::new("report", "30 7 * * MON-FRI", kind("report"), Some(Payload::json("{}")))
    }
}

fn schedule_row() -> ScheduleRow {
    ScheduleRow {
        name: "report".into(),
        cron: "30 7 * * MON-FRI".into(),
        time_zone: "Europe/Berlin".into(),
        kind: "report".into(),
        lane: Some("low".into()),
        unique_key: Some("report".into()),
        max_attempts: Some(5),
        timeout_ms: Some(60_000),
        catch_up: "all".into(),
        catch_up_max: Some(7),
        paused: false,
        created_at: 1_820_000_000_000,
        next_at: Some(1_820_036_600_000),
        last_at: Some(1_819_950_200_000),
        last_task: Some(task(41)),
        error: Some("cron '61 * * * *' makes no sense".into()),
        payload: Some(Payload::json("{}")),
    }
}

fn worker_requests() -> Vec<Sample<Request>> {
    let hello = Hello {
        session: session(),
        name: "thumbs-1".into(),
        host: "alder".into(),
        pid: 4711,
        sdk: "laneway-rust 0.1.0".into(),
        kinds: vec![kind("wordcount"), kind("echo")],
        lanes: Some(vec![lane("high"), lane("normal")]),
        slots: 4,
        resume: vec![held(41, 17), held(42, -18)],
        more: true,
    };
    let ready = Ready {
        slot: 3,
        epoch: Some(Epoch(9)),
        ack: Some(120),
        n: Some(504),
        max: 16,
        outcomes: outcomes(),
        batch: Some(77),
        committed: true,
        lanes: Some(vec![lane("high")]),
        ..plain_ready()
    };
    let progress = Progress {
        session: session(),
        task: task(41),
        lease: Lease::new(17),
        done: Some(30),
        total: Some(100),
        note: Some("page 30".into()),
        extend_ms: Some(600_000),
        data: Some(Payload::json("[30]")),
        log: Some("read page 30\n".into()),
        checkpoint: Some(Payload::bin(*b"\x01\x02")),
        parents: Some(40),
    };
    let running = vec![held(41, 17), held(42, -18)];
    vec![
        ("hello", "all fields", Request::Hello(hello)),
        ("ready", "plain worker, first word", Request::Ready(plain_ready())),
        ("ready", "every outcome", Request::Ready(ready)),
        ("progress", "all fields", Request::Progress(progress)),
        (
            "beat",
            "all fields",
            Request::Beat(Beat { session: session(), epoch: Some(Epoch(9)), running, wait_ms: 5_000 }),
        ),
        (
            "bye",
            "all fields",
            Request::Bye(Bye {
                session: session(),
                release: vec![held(44, 20)],
                outcomes: outcomes()[..1].to_vec(),
                more: true,
            }),
        ),
    ]
}

fn client_requests() -> Vec<Sample<Request>> {
    let new_task = NewTask {
        kind: kind("wordcount"),
        lane: Some(lane("high")),
        payload: Some(Payload::json(r#"{"path":"README.md"}"#)),
        run_at: Some(1_790_000_000_000),
        unique_key: Some("README.md".into()),
        max_attempts: Some(5),
        timeout_ms: Some(30_000),
        expires_at: Some(1_790_000_060_000),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        fair_key: Some(fair_key("acme")),
        on_conflict: OnConflict::Replace,
        unique_for_ms: Some(600_000),
        unique_by_payload: true,
        after: vec![
            After { task: Some(task(41)), number: None, anyway: true },
            After { task: None, number: Some(1), anyway: false },
        ],
        group: Some(7),
        join: true,
    };
    let submit = Submit {
        request: RequestId(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"),
        tasks: vec![new_task, NewTask::new(kind("echo"), None)],
        wait_ms: 2_000,
        abandon: false,
        group: Some(NewGroup { name: Some("nightly".into()), last: Some(1), anyway: true }),
    };
    let wait_for = WaitFor {
        tasks: vec![task(41), task(TaskId::MAX)],
        kind: Some(kind("wordcount")),
        unique_key: Some("README.md".into()),
        cursor: Some(Cursor { epoch: Epoch(9), n: 500 }),
        wait_ms: 30_000,
        abandon: false,
        group: Some(7),
    };
    let submit_abandoning = Submit {
        tasks: vec![NewTask::new(kind("search"), Some(Payload::json(r#"{"q":"cats"}"#)))],
        wait_ms: 10_000,
        abandon: true,
        group: None,
        ..submit.clone()
    };
    let wait_abandoning = WaitFor {
        tasks: vec![task(41)],
        kind: None,
        unique_key: None,
        cursor: None,
        wait_ms: 10_000,
        abandon: true,
        group: None,
    };
    let filter = Filter {
        state: Some(TaskState::Dead),
        kind: Some("wordcount".into()),
        lane: Some("low".into()),
        group: Some(7),
        before: Some(task(1_000)),
        limit: 20,
    };
    vec![
        ("submit", "all fields, and a task of defaults", Request::Submit(submit)),
        ("submit", "its task is given up with its last waiter", Request::Submit(submit_abandoning)),
        ("wait_for", "all fields", Request::WaitFor(wait_for)),
        ("wait_for", "the task is given up with its last waiter", Request::WaitFor(wait_abandoning)),
        ("status", "by id, in detail", Request::Status(Status { tasks: vec![task(41)], filter: None, detail: true })),
        ("status", "by filter", Request::Status(Status { tasks: Vec::new(), filter: Some(filter), detail: false })),
        ("cancel", "two tasks", Request::Cancel(Tasks { tasks: vec![task(41), task(42)] })),
        ("requeue", "one task", Request::Requeue(Tasks { tasks: vec![task(43)] })),
    ]
}

pub(crate) fn answers() -> Vec<Sample<Answer>> {
    let mut samples = worker_answers();
    samples.extend(client_answers());
    samples.extend(admin_answers());
    samples
}

fn worker_answers() -> Vec<Sample<Answer>> {
    let codes = vec![OutcomeCode::Ok, OutcomeCode::Recorded, OutcomeCode::Stale, OutcomeCode::Refused];
    let handed = HandedTask {
        task: task(51),
        lease: Lease::new(0x0102_0304_0506_0708),
        kind: kind("wordcount"),
        lane: lane("high"),
        run: 3,
        attempt: 2,
        max_attempts: 5,
        timeout_ms: 3_600_000,
        payload: Some(Payload::json(r#"{"path":"README.md"}"#)),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        checkpoint: Some(Payload::bin(*b"\x01\x02")),
    };
    let bare = HandedTask {
        task: task(52),
        kind: kind("echo"),
        payload: None,
        trace: None,
        checkpoint: None,
        ..handed.clone()
    };
    let welcome = Welcome {
        epoch: Epoch(9),
        beat_ms: 5_000,
        wait_ms_max: 60_000,
        payload_bytes_max: 16 * 1024 * 1024,
        batch_max: 512,
        lanes: vec![lane("high"), lane("normal"), lane("low")],
        lost: vec![held(42, -18)],
    };
    let hand_out =
        HandOut { epoch: Epoch(9), seq: 121, tasks: vec![handed, bare], outcomes: codes.clone(), settled: 77 };
    let wait = |after_ms, reason| Wait { epoch: Epoch(9), after_ms, reason, outcomes: Vec::new(), settled: 0 };
    let beat = BeatNoted {
        epoch: Epoch(9),
        cancel: vec![held(41, 17)],
        stale: vec![held(42, -18)],
        settled: vec![Settled(0, 77), Settled(3, 5)],
        drain: true,
        release: false,
    };
    let parent =
        Final { task: task(41), state: TaskState::Done, result: Some(Payload::json(r#"{"words":12}"#)), error: None };
    vec![
        ("welcome", "all fields", Answer::Welcome(welcome)),
        ("tasks", "two tasks and what became of four outcomes", Answer::Tasks(hand_out)),
        ("wait", "idle, ask again at once", Answer::Wait(wait(0, WaitReason::Idle))),
        (
            "wait",
            "draining, outcomes settled",
            Answer::Wait(Wait { outcomes: codes.clone(), settled: 77, ..wait(1_000, WaitReason::Draining) }),
        ),
        ("wait", "stopping", Answer::Wait(wait(500, WaitReason::Stopping))),
        (
            "progress_ok",
            "cancel requested",
            Answer::Progress(ProgressNoted { cancel: true, ..ProgressNoted::default() }),
        ),
        (
            "progress_ok",
            "parents",
            Answer::Progress(ProgressNoted { cancel: false, parents: vec![parent], more: true }),
        ),
        ("beat_ok", "all fields", Answer::Beat(beat)),
        ("bye_ok", "four outcomes", Answer::Bye(ByeNoted { outcomes: codes })),
    ]
}

fn client_answers() -> Vec<Sample<Answer>> {
    let ended = |id, state| Final { task: task(id), state, result: None, error: None };
    let finals = vec![
        Final { result: Some(Payload::json(r#"{"words":12}"#)), ..ended(41, TaskState::Done) },
        Final { error: Some("no such file".into()), ..ended(42, TaskState::Dead) },
    ];
    let event = ProgressEvent {
        n: 501,
        task: task(44),
        done: Some(1),
        total: Some(2),
        note: Some("half".into()),
        data: Some(Payload::bin([1])),
        log: Some("read page 1\n".into()),
    };
    let waited = Waited {
        cursor: Cursor { epoch: Epoch(9), n: 501 },
        gap: true,
        events: vec![event],
        finals: finals.clone(),
        pending: vec![task(44)],
        not_found: vec![task(45)],
        pruned: vec![task(1)],
        group: Some(group_row()),
    };
    let stored = vec![Stored::new(task(61)), Stored::met(task(41)), Stored { replaced: true, ..Stored::met(task(42)) }];
    let rows =
        StatusRows { rows: vec![task_row()], not_found: vec![task(45)], next: Some(task(41)), left: vec![task(46)] };
    let cancelled = vec![Verdict::Cancelled, Verdict::Requested, Verdict::Unchanged, Verdict::NotFound];
    let requeued = vec![Verdict::Requeued, Verdict::Twin(task(99)), Verdict::NotFound];
    vec![
        (
            "submit_ok",
            "one new, one known, results in time",
            Answer::Submit(Submitted { tasks: stored, finals, group: Some(7) }),
        ),
        ("wait_for_ok", "all fields", Answer::WaitFor(waited)),
        ("status_ok", "all fields", Answer::Status(rows)),
        ("cancel_ok", "every verdict", Answer::Cancel(Verdicts { verdicts: cancelled })),
        ("requeue_ok", "every verdict", Answer::Requeue(Verdicts { verdicts: requeued })),
    ]
}

fn task_row() -> TaskRow {
    TaskRow {
        id: task(41),
        kind: "wordcount".into(),
        lane: Some("high".into()),
        state: TaskState::Done,
        run_at: Some(1_790_000_000_000),
        unique_key: Some("README.md".into()),
        max_attempts: Some(5),
        timeout_ms: Some(30_000),
        expires_at: Some(1_790_000_060_000),
        fair_key: Some("acme".into()),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        runs: 2,
        attempts: 2,
        losses: 0,
        releases: 0,
        worker: Some("thumbs-1".into()),
        created_at: 1_789_999_999_000,
        started_at: Some(1_790_000_000_001),
        finished_at: Some(1_790_000_000_009),
        progress_done: Some(30),
        progress_total: Some(100),
        progress_note: Some("page 30".into()),
        cancel_requested: false,
        error: Some("no such file".into()),
        payload: Some(Payload::json(r#"{"path":"README.md"}"#)),
        result: Some(Payload::json(r#"{"words":12}"#)),
        failures: vec![FailureRow {
            run: 1,
            cause: "failed".into(),
            worker: Some("thumbs-1".into()),
            started_at: Some(1_789_999_999_500),
            failed_at: 1_789_999_999_600,
            error: "no such file".into(),
        }],
        explain: Some("done by thumbs-1 in its 2nd attempt".into()),
        ahead: Some(3),
        twin: Some(task(42)),
        group: Some(7),
        waits_for: vec![task(40)],
        waits_for_n: 1,
    }
}

fn group_row() -> GroupRow {
    GroupRow {
        group: 7,
        name: Some("nightly".into()),
        last: Some(task(62)),
        created_at: 1_789_999_999_000,
        waiting: 1,
        queued: 2,
        running: 3,
        done: 4,
        dead: 5,
        cancelled: 6,
    }
}

fn bulk_by_filter() -> Bulk {
    let filter = BulkFilter {
        all: true,
        state: Some(TaskState::Dead),
        kind: Some("wordcount".into()),
        lane: Some("low".into()),
        older_ms: Some(3_600_000),
        error: Some("no such file".into()),
        error_line: Some("no such file: a".into()),
        unique_key: Some("one".into()),
        fair_key: Some("acme".into()),
        group: Some(12),
        workers: vec!["0011".into()],
        attempts_min: Some(1),
        attempts_max: Some(3),
    };
    Bulk { change: Some(Change::Purge), filter: Some(Box::new(filter)), dry_run: true, ..Bulk::default() }
}

fn batch() -> Batch {
    Batch {
        number: 9_000_001,
        change: Change::Requeue,
        dry_run: false,
        seen: 10,
        changed: 4,
        unchanged: 3,
        twins: 2,
        needed: 1,
        at: 500,
        until: 1_000,
        over: true,
        stopped: true,
    }
}

fn bulk_verdicts() -> Vec<Verdict> {
    vec![Verdict::Moved, Verdict::Due, Verdict::Purged, Verdict::Needed, Verdict::Unchanged, Verdict::NotFound]
}

fn stats() -> StatsReport {
    StatsReport {
        epoch: 9,
        version: "0.1.0".into(),
        uptime_ms: 86_400_000,
        queued: 9,
        workers_lost: 3,
        lost_workers: vec![LostWorker { name: "thumbs-1".into(), host: "alder".into(), running: 2, ago_ms: 90_000 }],
        storage_error: Some("database or disk is full".into()),
        kinds: vec![KindRow { kind: "wordcount".into(), queued: 9, workers: 1 }],
        ..StatsReport::default()
    }
}

fn admin_answers() -> Vec<Sample<Answer>> {
    let lane_row = LaneRow {
        lane: "low".into(),
        paused: true,
        configured: true,
        queued: 9,
        running: 2,
        ready: 1,
        handed_out: 40,
        cap: Some(8),
        rate: Some(rate("90/m")),
        rate_burst: Some(5),
        share: Some(10),
        one_of: Some(20),
        set: vec!["cap".into()],
    };
    let kind_state = KindState {
        kind: kind("mail"),
        paused: true,
        queued: 9,
        running: 2,
        workers: 1,
        cap: Some(4),
        rate: Some(rate("10/s")),
        rate_burst: Some(2),
        lane: lane("low"),
        max_attempts: 5,
        timeout_ms: 60_000,
        backoff_base_ms: 100,
        backoff_max_ms: 10_000,
        done_age_ms: Some(3_600_000),
        done_count_max: Some(1_000),
        cancelled_age_ms: Some(60_000),
        cancelled_count_max: Some(0),
        dead_age_ms: Some(2_592_000_000),
        dead_count_max: Some(100),
        set: vec!["cap".into(), "rate".into()],
        settings: vec!["lane".into()],
    };
    let fair_row = FairKeyRow {
        fair_key: fair_key("acme"),
        running: 2,
        weight: 3,
        cap: Some(4),
        rate: Some(rate("90/m")),
        rate_burst: Some(2),
        set: vec!["weight".into()],
        settings: vec!["cap".into()],
    };
    let worker_row = WorkerRow {
        session: session(),
        name: "thumbs-1".into(),
        host: "alder".into(),
        pid: 4711,
        sdk: "laneway-rust 0.1.0".into(),
        kinds: vec![kind("wordcount")],
        lanes: vec![lane("high")],
        slots: 4,
        ready: 3,
        running: vec![task(41)],
        connected_ms: 86_400_000,
        away: false,
        draining: true,
    };
    let refused = WireError::new(Code::Full, "32 questions of this session are waiting").field("wait_ms").after_ms(250);
    vec![
        ("lanes_ok", "one lane", Answer::Lanes(LaneRows { lanes: vec![lane_row] })),
        ("workers_ok", "one worker", Answer::Workers(WorkerRows { workers: vec![worker_row], next: Some(session()) })),
        ("stats_ok", "all fields", Answer::Stats(stats())),
        ("kinds_ok", "one kind", Answer::Kinds(KindRows { kinds: vec![kind_state], next: Some(kind("mail")) })),
        (
            "fair_keys_ok",
            "one key",
            Answer::FairKeys(FairKeyRows { fair_keys: vec![fair_row], next: Some(fair_key("acme")) }),
        ),
        ("group_ok", "all fields", Answer::Group(group_row())),
        ("drain_ok", "all fields", Answer::Drain(Drained { draining: true, workers: 1, running: 2 })),
        ("bulk_ok", "every verdict", Answer::Bulk(Bulked { verdicts: bulk_verdicts(), batch: None })),
        ("bulk_ok", "a batch", Answer::Bulk(Bulked { verdicts: Vec::new(), batch: Some(batch()) })),
        (
            "schedules_ok",
            "all fields",
            Answer::Schedules(ScheduleRows {
                schedules: vec![schedule_row()],
                next: Some("report".into()),
                not_found: vec!["old".into()],
            }),
        ),
        ("pong", "all fields", Answer::Pong(Pong { epoch: Epoch(9), version: "0.1.0".into() })),
        ("err", "all fields", Answer::Error(refused)),
        ("err", "no more than must be", Answer::Error(WireError::new(Code::Stale, "task 41 went elsewhere"))),
    ]
}
