//! Those who look and steer: STATUS, CANCEL, REQUEUE, WORKERS, STATS, SCHEDULES. LANES and KINDS are in `kinds.rs`.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::codec::Room;
use laneway_protocol::limits::{AHEAD_MAX, ANSWER_SLACK_MS, RUNNING_LISTED_MAX};
use laneway_protocol::message::{
    Answer, KindRow, ListWorkers, ScheduleRows, Schedules, StatsReport, Status, StatusRows, TaskRow, WorkerRow,
    WorkerRows,
};
use laneway_protocol::{Code, FairKey, Kind, LaneName, TaskId, TaskState, WireError};

use crate::action::{Counts, Op};
use crate::broker::Broker;
use crate::due::{due, expiry};
use crate::event::{Asker, ReplyTo};
use crate::limits::{ANSWER_LIST_BYTES, DETAIL_MAX, KINDS_TOLD_MAX};
use crate::page;
use crate::settle::{Pending, RowsAsked};
use crate::task::Running;
use crate::time::Now;
use crate::worker::{Session, SessionId};
use crate::workflow::waits_for;

impl Broker {
    pub(crate) fn on_status(&mut self, from: Asker, status: Status, now: Now) {
        let op = match (status.filter, status.tasks) {
            (Some(filter), tasks) if tasks.is_empty() => Op::List(filter),
            (None, tasks) if !tasks.is_empty() => {
                if status.detail && tasks.len() > DETAIL_MAX {
                    let text = format!("{} ids with detail, at most {DETAIL_MAX} are allowed", tasks.len());
                    return self.refuse(from.reply, WireError::new(Code::TooMany, text).field("tasks"));
                }
                Op::Show { tasks, detail: status.detail }
            }
            _ => {
                let error = WireError::new(Code::BadBody, "name either tasks or a filter").field("tasks");
                return self.refuse(from.reply, error);
            }
        };
        let asked = RowsAsked { listed: matches!(op, Op::List(_)), detail: status.detail };
        self.ask_store(from.reply, op, Pending::Rows { reply: from.reply, asked }, now);
    }

    pub(crate) fn on_cancel(&mut self, from: Asker, tasks: Vec<TaskId>, now: Now) {
        if let Some(error) = self.intake_refusal() {
            return self.refuse(from.reply, error);
        }
        let pending = Pending::Cancel { reply: from.reply, tasks: tasks.clone() };
        self.ask_store(from.reply, Op::Cancel(tasks), pending, now);
    }

    pub(crate) fn on_requeue(&mut self, from: Asker, tasks: Vec<TaskId>, now: Now) {
        if let Some(error) = self.intake_refusal() {
            return self.refuse(from.reply, error);
        }
        let pending = Pending::Requeue { reply: from.reply };
        self.ask_store(from.reply, Op::Requeue(tasks), pending, now);
    }

    pub(crate) fn on_schedules(&mut self, from: Asker, schedules: Schedules, now: Now) {
        if schedules.is_change()
            && let Some(error) = self.intake_refusal()
        {
            return self.refuse(from.reply, error);
        }
        self.ask_store(from.reply, Op::Schedules(Box::new(schedules)), Pending::Schedules { reply: from.reply }, now);
    }

    pub(crate) fn on_schedule_rows(&mut self, reply: ReplyTo, rows: ScheduleRows) {
        if self.close_question(reply) {
            self.answer(reply, Answer::Schedules(page::schedules(rows)));
        }
    }

    pub(crate) fn on_stats(&mut self, from: Asker, now: Now) {
        self.ask_store(from.reply, Op::Counts, Pending::Stats { reply: from.reply }, now);
    }

    pub(crate) fn on_workers(&mut self, from: Asker, question: &ListWorkers, now: Now) {
        let mut sessions: Vec<(SessionId, &Session)> = self.workers.iter().collect();
        sessions.retain(|(_, session)| question.after.as_ref().is_none_or(|after| session.name > *after));
        sessions.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
        let mut rows = WorkerRows::default();
        for (id, _) in sessions {
            let mut row = self.worker_row(id, now);
            if !room.take_worker(&mut row) {
                rows.next = rows.workers.last().map(|row: &WorkerRow| row.session.clone());
                break;
            }
            rows.workers.push(row);
        }
        self.answer(from.reply, Answer::Workers(rows));
    }

    fn worker_row(&self, id: SessionId, now: Now) -> WorkerRow {
        let (session, drain) = (self.workers.get(id), self.drain_of(id));
        let ready = session.slots.values().filter(|slot| slot.parked.is_some()).count();
        let n_slots = u32::try_from(session.slots.len()).unwrap_or(u32::MAX);
        WorkerRow {
            session: session.name.clone(),
            name: session.about.name.clone(),
            host: session.about.host.clone(),
            pid: session.about.pid,
            sdk: session.about.sdk.clone(),
            kinds: self.kinds_of(session),
            lanes: session.lanes.clone().unwrap_or_else(|| self.settings.lanes.clone()),
            slots: session.about.slots.max(n_slots),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            running: session.running.iter().copied().take(RUNNING_LISTED_MAX).collect(),
            connected_ms: now.mono.since(session.since),
            away: session.away.is_some(),
            draining: drain.is_some(),
        }
    }

    pub(crate) fn on_rows(&mut self, reply: ReplyTo, mut rows: StatusRows, asked: RowsAsked, now: Now) {
        if !self.close_question(reply) {
            return;
        }
        if asked.detail {
            for row in &mut rows.rows {
                row.explain = Some(self.explain(row.id, row, now));
            }
        }
        self.answer(reply, Answer::Status(page::rows(rows, asked.listed)));
    }

    pub(crate) fn on_stats_counts(&mut self, reply: ReplyTo, counts: &Counts, now: Now) {
        if !self.close_question(reply) {
            return;
        }
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let mut queued = 0;
        for (_, kind, n) in &counts.queued {
            *kinds.entry(kind.clone()).or_default() += n;
            queued += n;
        }
        for (_, session) in self.workers.iter() {
            for kind in self.kinds_of(session) {
                kinds.entry(kind.to_string()).or_default();
            }
        }
        let kinds = kinds
            .into_iter()
            .map(|(kind, queued)| KindRow { workers: self.workers_of(&kind), kind, queued })
            .filter(|row| row.queued > 0 || row.workers > 0)
            .take(256)
            .collect();
        let stats = &self.stats;
        let report = StatsReport {
            epoch: self.epoch.0,
            version: self.version.clone(),
            uptime_ms: now.mono.since(self.started),
            draining: self.drain.is_some() || self.stopping,
            quiet: self.quiet,
            queued,
            running: self.running.len() as u64,
            dead: counts.dead,
            workers: self.workers.len() as u64,
            workers_lost: self.lost_workers.total(),
            lost_workers: self.lost_workers.recent(now.mono),
            ready: self.dispatch.ready() as u64,
            submitted: counts.submitted,
            handed_out: stats.handed_out,
            done: stats.done,
            failed: stats.failed,
            lost: stats.lost,
            released: stats.released,
            cancelled: stats.cancelled,
            stale: stats.stale,
            bad_messages: stats.bad_messages,
            overtaken: counts.overtaken,
            log_lines_dropped: 0,
            wal_bytes: counts.wal_bytes,
            wal_pinned_bytes: counts.wal_pinned_bytes,
            commit_p50_us: counts.commit_p50_us,
            commit_p99_us: counts.commit_p99_us,
            storage_error: self.store_error.clone(),
            kinds,
        };
        self.answer(reply, Answer::Stats(report));
    }

    pub(crate) fn ask_store(&mut self, reply: ReplyTo, op: Op, pending: Pending, now: Now) {
        self.hold_question(reply, now.mono.after(ANSWER_SLACK_MS));
        self.store_for(op, pending);
    }

    /// Why a task is where it is, in a sentence.
    fn explain(&self, id: TaskId, row: &TaskRow, now: Now) -> String {
        match row.state {
            TaskState::Waiting => waits_for(row) + &expiry(row, now),
            TaskState::Running => self.explain_running(id, row, now),
            TaskState::Queued => self.explain_queued(id, row, now) + &expiry(row, now),
            TaskState::Done => format!("it is done{}", twin(row)),
            TaskState::Dead => {
                let why = row.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                format!("it failed for good{why}{}", self.way_back(row))
            }
            TaskState::Cancelled => {
                let why = row.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                format!("it was cancelled{why}{}", twin(row))
            }
        }
    }

    /// Of a dead task: what somebody can do about it.
    fn way_back(&self, row: &TaskRow) -> String {
        let has_lane = |lane: &String| LaneName::new(lane).is_ok_and(|lane| self.dispatch.lane(&lane).is_some());
        if row.twin.is_some() {
            return twin(row);
        }
        if row.lane.as_ref().is_some_and(|lane| !has_lane(lane)) {
            return "; its lane is not in the settings: once it is, `laneway task retry` queues the task again".into();
        }
        if row.runs == 0 {
            // It was rejected as it came, and would be again.
            return "; it never ran: once its row is mended by SQL, `laneway task retry` queues it again".into();
        }
        "; `laneway task retry` queues it again".into()
    }

    fn explain_running(&self, id: TaskId, row: &TaskRow, now: Now) -> String {
        let connected = |session| self.workers.get(session).worker();
        // A run that began under an earlier broker is older than this one knows.
        let since = |task: &Running| {
            let known = now.mono.since(task.since);
            span(row.started_at.map_or(known, |at| known.max(now.wall.0.saturating_sub(at).max(0).unsigned_abs())))
        };
        match self.running.get(&id).map(|task| (task, task.session.map(connected))) {
            Some((task, None)) => {
                let (worker, since) = (&task.worker, since(task));
                let lease = span(task.deadline.since(now.mono));
                // A worker that says no HELLO keeps its tasks until their leases end.
                let next = if self.before.get(worker) == Some(&true) {
                    format!("its lease ends in {lease}")
                } else {
                    let back = span(self.grace.until.min(task.deadline).since(now.mono));
                    format!("its lease ends in {lease}, and unless it comes back the task does in {back}")
                };
                format!(
                    "its worker {worker} has not come back since the broker was started; it runs since {since}, {next}"
                )
            }
            Some((task, Some(worker))) => {
                let (since, left) = (since(task), span(task.deadline.since(now.mono)));
                let stop = if task.stop.is_some() { ", was told to stop" } else { "" };
                format!("worker {worker} runs it since {since}{stop}, and may for {left} more")
            }
            None => format!(
                "worker {} has just ended it, or the row was changed by SQL",
                row.worker.as_deref().unwrap_or("?")
            ),
        }
    }

    fn explain_queued(&self, id: TaskId, row: &TaskRow, now: Now) -> String {
        let Ok(kind) = Kind::new(&row.kind) else { return "its kind makes no sense; it will be rejected".into() };
        let max_attempts = row.max_attempts.unwrap_or_else(|| self.settings.kind(&kind).max_attempts);
        if let Some(text) = due(row, Some(max_attempts), now) {
            return text;
        }
        let lane = row.lane.clone().and_then(|lane| LaneName::new(lane).ok());
        let lane = lane.unwrap_or_else(|| self.settings.kind(&kind).lane.clone());
        let Some(rank) = self.dispatch.lane(&lane) else {
            return format!("lane '{lane}' is not in the settings; its backlog is kept until it is");
        };
        if let Some(cause) = &self.store_error {
            return format!("nothing is handed out: {cause}");
        }
        if self.hold.is_some() {
            return "the broker was just restarted and waits for its workers".into();
        }
        if self.drain.is_some() || self.stopping {
            return "the broker hands out nothing: it is draining".into();
        }
        if self.quiet {
            return "the broker hands out nothing: it was told to be quiet (SIGTSTP); SIGCONT ends that".into();
        }
        if self.dispatch.is_paused(rank) {
            return format!("lane '{lane}' is paused; `laneway lane resume {lane}` resumes it");
        }
        if let Some(text) = self.explain_pause(&kind) {
            return text;
        }
        if self.workers_of(kind.as_str()) == 0 {
            return format!("no connected worker can run kind '{kind}'; {}", self.offered());
        }
        if self.all_leave(kind.as_str()) {
            return format!("every connected worker that can run kind '{kind}' is draining");
        }
        if !self.dispatch.is_served(&lane, &kind) {
            return format!("workers for kind '{kind}' are connected, but none serves lane '{lane}'");
        }
        let key = row.fair_key.as_ref().and_then(|key| FairKey::new(key).ok());
        if let Some(text) = self.explain_gates(&kind, &lane, key.as_ref(), now) {
            return text;
        }
        // Where keys take turns only those of its own stand before it for sure.
        let whose = match &key {
            Some(key) => format!("of fair key '{key}' in lane '{lane}', whose keys take turns"),
            None if self.dispatch.takes_turns(rank) => {
                format!("without a fair key in lane '{lane}', whose keys take turns")
            }
            None => format!("of lane '{lane}'"),
        };
        let behind = match row.ahead {
            None => String::new(),
            Some(0) => format!(", the first {whose}"),
            Some(1) => format!(", behind one {whose}"),
            Some(n @ ..=AHEAD_MAX) => format!(", behind {n} {whose}"),
            Some(_) => format!(", behind more than {AHEAD_MAX} {whose}"),
        };
        if row.losses > 0 && !self.takes_suspects(kind.as_str()) {
            return format!(
                "a worker died while it ran, so it goes to one that runs no other such task, and each that can run it has one{behind}"
            );
        }
        if self.dispatch.is_read_ahead(id) {
            return format!("it is among the next{behind}; every worker that can run it is busy");
        }
        format!("it waits behind earlier tasks, or those of higher lanes{behind}")
    }

    /// Which kinds the connected workers can run, for a sentence.
    fn offered(&self) -> String {
        let kinds: BTreeSet<Kind> = self.connected().flat_map(|session| self.kinds_of(session)).collect();
        let names: Vec<&str> = kinds.iter().map(Kind::as_str).take(KINDS_TOLD_MAX).collect();
        match kinds.len() - names.len() {
            _ if kinds.is_empty() => "none is connected".into(),
            0 => format!("those that are offer {}", names.join(", ")),
            more => format!("those that are offer {} and {more} more", names.join(", ")),
        }
    }

    /// What a session can run, by its HELLO or what its slots have said.
    pub(crate) fn kinds_of(&self, session: &Session) -> Vec<Kind> {
        if !session.kinds.is_empty() {
            return session.kinds.clone();
        }
        let mut kinds: Vec<Kind> = session
            .slots
            .values()
            .flat_map(|slot| {
                self.dispatch.ability(slot.class).kinds.iter().map(|&kind| self.dispatch.kind_name(kind).clone())
            })
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// Whether everybody who can run a kind takes no more tasks.
    fn all_leave(&self, kind: &str) -> bool {
        let can = |session: &Session| self.kinds_of(session).iter().any(|own| own.as_str() == kind);
        self.workers.iter().filter(|(_, session)| can(session)).all(|(id, _)| self.drain_of(id).is_some())
    }

    /// Whether some process that can run a kind could take a suspect of it now.
    fn takes_suspects(&self, kind: &str) -> bool {
        let can = |session: &Session| self.kinds_of(session).iter().any(|own| own.as_str() == kind);
        self.workers.iter().any(|(_, session)| session.suspect.is_none() && can(session))
    }

    /// Connected workers that can run a kind.
    pub(crate) fn workers_of(&self, kind: &str) -> u64 {
        let can = |session: &&Session| self.kinds_of(session).iter().any(|own| own.as_str() == kind);
        self.connected().filter(can).count() as u64
    }

    /// Sessions with a connection. One that has lost its last offers nothing, though it may come back.
    fn connected(&self) -> impl Iterator<Item = &Session> {
        self.workers.iter().map(|(_, session)| session).filter(|session| session.away.is_none())
    }
}

/// Of a task that has ended.
fn twin(row: &TaskRow) -> String {
    row.twin.map_or_else(String::new, |twin| format!("; its key is live again in task {twin}"))
}

/// A length of time for a sentence.
pub fn span(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{millis} ms"),
        10_000..600_000 => format!("{} s", millis / 1_000),
        600_000..36_000_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}
