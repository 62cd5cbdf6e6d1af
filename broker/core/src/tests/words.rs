//! Actions in words, so that a test reads as a list of lines.

use std::fmt::Write as _;

use laneway_protocol::TaskId;
use laneway_protocol::message::{Answer, Bulked, Final, Held, OutcomeCode, Settled, Stored};

use crate::action::{Action, Edit, Next, Op, WorkerEvent};

pub(super) fn line(action: &Action) -> String {
    match action {
        Action::Answer { to, answer } => format!("#{} {}", to.0, answer_line(answer)),
        Action::Forget(to) => format!("#{} forgotten", to.0),
        Action::Store { op, .. } => op_line(op),
        Action::Demand { key, rows, .. } => format!("demand {}/{} {rows}", key.lane, key.kind),
        Action::Unload(tasks) => format!("unload {}", join(tasks)),
        Action::Watch(task) => format!("watch {task}"),
        Action::Unwatch(task) => format!("unwatch {task}"),
        Action::TellAbandoned(tasks) => format!("tell abandoned {}", join(tasks)),
        Action::Tell(WorkerEvent::Connected { worker, kinds, .. }) => {
            let kinds: Vec<&str> = kinds.iter().map(laneway_protocol::Kind::as_str).collect();
            format!("tell {} connected [{}]", worker.label(), kinds.join(" "))
        }
        Action::Tell(WorkerEvent::Left { worker }) => format!("tell {} left", worker.label()),
        Action::Tell(WorkerEvent::Lost { worker, running }) => format!("tell {} lost with {running}", worker.label()),
    }
}

fn answer_line(answer: &Answer) -> String {
    match answer {
        Answer::Welcome(welcome) => format!("WELCOME lost [{}]", helds(&welcome.lost)),
        Answer::Tasks(tasks) => {
            let ids: Vec<TaskId> = tasks.tasks.iter().map(|task| task.task).collect();
            format!("TASKS seq {} [{}]{}", tasks.seq, join(&ids), codes(&tasks.outcomes, tasks.settled))
        }
        Answer::Wait(wait) => format!("WAIT {:?}{}", wait.reason, codes(&wait.outcomes, wait.settled)),
        Answer::Progress(noted) => format!("OK cancel {}", noted.cancel),
        Answer::Beat(noted) => {
            let drain = if noted.release {
                " release"
            } else if noted.drain {
                " drain"
            } else {
                ""
            };
            let settled = noted.settled.iter().map(|Settled(slot, batch)| format!(" settled {slot}:{batch}"));
            let settled: String = settled.collect();
            format!("BEAT cancel [{}] stale [{}]{settled}{drain}", helds(&noted.cancel), helds(&noted.stale))
        }
        Answer::Bye(noted) => format!("BYE{}", codes(&noted.outcomes, 0)),
        Answer::Submit(submitted) => {
            let stored: Vec<String> = submitted
                .tasks
                .iter()
                .map(|stored| {
                    format!(
                        "{}{}",
                        stored.task,
                        match stored {
                            Stored { new: true, .. } => "",
                            Stored { replaced: true, .. } => " replaced",
                            Stored { .. } => " known",
                        }
                    )
                })
                .collect();
            format!("SUBMITTED [{}] finals [{}]", stored.join(", "), finals(&submitted.finals))
        }
        Answer::WaitFor(waited) => format!(
            "WAITED {} {} gap {} events {:?} finals [{}] pending [{}] not found [{}] pruned [{}]",
            if waited.cursor.epoch.0 < 1 << 52 { "n" } else { "row" },
            waited.cursor.n,
            waited.gap,
            waited.events.iter().map(|event| (event.n, event.done)).collect::<Vec<_>>(),
            finals(&waited.finals),
            join(&waited.pending),
            join(&waited.not_found),
            join(&waited.pruned),
        ),
        Answer::Cancel(verdicts) | Answer::Requeue(verdicts) => format!("VERDICTS {:?}", verdicts.verdicts),
        Answer::Bulk(Bulked { batch: Some(batch), .. }) => {
            let words = [(batch.over, " over"), (batch.stopped, " stopped")];
            let end: String = words.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
            format!("BATCH {} changed {} of {}{end}", batch.number, batch.changed, batch.seen)
        }
        Answer::Bulk(bulked) => format!("BULK {:?}", bulked.verdicts),
        Answer::Drain(drained) => {
            format!("DRAINED {} workers {} running {}", drained.draining, drained.workers, drained.running)
        }
        Answer::Error(error) => format!("ERR {}", error.code),
        Answer::Status(rows) => format!("STATUS {:?}", rows.rows.iter().map(|row| &row.explain).collect::<Vec<_>>()),
        Answer::Kinds(_) => "KINDS".into(),
        Answer::FairKeys(_) => "FAIR_KEYS".into(),
        Answer::Lanes(_) => "LANES".into(),
        Answer::Schedules(rows) => format!("SCHEDULES {}", rows.schedules.len()),
        Answer::Workers(rows) => format!("WORKERS {}", rows.workers.len()),
        Answer::Stats(_) => "STATS".into(),
        Answer::Group(row) => format!("GROUP {}", row.group),
        Answer::Pong(_) => "PONG".into(),
    }
}

fn op_line(op: &Op) -> String {
    match op {
        Op::Started(started) => format!("started {} run {} by {}", started.task, started.run, started.worker),
        Op::Ended(ended) => {
            let next = match &ended.next {
                Next::Done(_) => "done".into(),
                Next::Queued { run_at: None } => "queued".into(),
                Next::Queued { run_at: Some(at) } => format!("queued +{}", at.since(ended.at)),
                other => format!("{other:?}").to_lowercase(),
            };
            let cause = ended.cause.map_or(String::new(), |cause| format!(" {}", cause.as_str()));
            format!("ended {} {next}, {}{cause}", ended.task, format!("{:?}", ended.count).to_lowercase())
        }
        Op::Noted(noted) => format!("noted {} {:?}", noted.task, noted.done),
        Op::Submit { tasks, secured, .. } if secured.is_empty() => format!("submit {}", tasks.len()),
        Op::Submit { tasks, secured, .. } => {
            format!("submit {} replacing {}", tasks.len(), join(&secured.iter().map(|held| held.0).collect::<Vec<_>>()))
        }
        Op::Cancel(tasks) => format!("cancel {}", join(tasks)),
        Op::Requeue(tasks) => format!("requeue {}", join(tasks)),
        Op::Edit { edit: Edit::Abandon, tasks } => format!("abandon {}", join(tasks)),
        Op::Edit { edit, tasks } => format!("edit {edit:?} {}", join(tasks)),
        Op::Bulk(slice) => format!("slice {:?} behind {:?}", slice.edit, slice.after.map(TaskId::value)),
        Op::Find(tasks) => format!("find {}", join(tasks)),
        Op::FindKey { unique_key, .. } => format!("find key {unique_key}"),
        Op::FindTwins(keys) => {
            format!("find twins {}", keys.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(" "))
        }
        Op::Endings(tasks) => format!("endings {}", join(tasks)),
        Op::List(_) => "list".into(),
        Op::Show { tasks, .. } => format!("show {}", join(tasks)),
        Op::Counts => "counts".into(),
        Op::Group { group, .. } => format!("group {group}"),
        Op::CancelGroup { group, .. } => format!("cancel group {group}"),
        Op::Parents { task, after, .. } => format!("parents {task} after {after}"),
        Op::SessionUp { session, plain, .. } => format!("session {session} up{}", if *plain { " plain" } else { "" }),
        Op::SessionGone { session } => format!("session {session} gone"),
        Op::PauseLane { lane, paused } => format!("pause {lane} {paused}"),
        Op::SetFairKey { fair_key, .. } => format!("set fair key {fair_key}"),
        Op::SetKind { kind, paused, .. } => format!("set kind {kind} paused {paused}"),
        Op::SetLane { lane, .. } => format!("set lane {lane}"),
        Op::Schedules(schedules) => format!("schedules change {}", schedules.is_change()),
    }
}

fn codes(outcomes: &[OutcomeCode], settled: u64) -> String {
    let mut words = String::new();
    for code in outcomes {
        write!(words, " {}", format!("{code:?}").to_lowercase()).unwrap();
    }
    if settled > 0 {
        write!(words, " settled {settled}").unwrap();
    }
    words
}

fn finals(finals: &[Final]) -> String {
    let words: Vec<String> = finals
        .iter()
        .map(|ended| {
            let result = ended.result.as_ref().map(|result| String::from_utf8_lossy(&result.bytes).into_owned());
            format!("{} {}{}", ended.task, ended.state, result.map_or(String::new(), |result| format!(" {result}")))
        })
        .collect();
    words.join(", ")
}

fn helds(held: &[Held]) -> String {
    join(&held.iter().map(|held| held.0).collect::<Vec<_>>())
}

fn join(tasks: &[TaskId]) -> String {
    tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
