//! The broker's process: the core and the scheduler's desk, their inboxes, and what the router's thread does with both in
//! the real one. It can die between any two steps.

use std::collections::BTreeMap;

use laneway_broker::internals::{Desk, Orders, Report};
use laneway_core::{Action, Asker, Broker, ConnId, Event, ReplyTo};
use laneway_protocol::message::{Answer, Request};

use crate::plan::STALL_MS;
use crate::world::{Due, Tag, World};

#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Counts starts and ends.
    pub(crate) life: u64,
    parts: Option<Parts>,
    /// It stands still until then.
    pub(crate) frozen_until: u64,
    last_turn: u64,
}

#[derive(Debug)]
struct Parts {
    core: Broker,
    desk: Desk,
    inbox: Vec<(u64, Tag, Request)>,
    /// What a signal has asked for, until the router looks.
    quiet: Option<bool>,
    reports: Vec<Event>,
    gone: Vec<u64>,
    orders: Vec<Orders>,
    replies: BTreeMap<ReplyTo, (u64, Tag)>,
    next_reply: u64,
    actions: Vec<Action>,
    router_at: Option<u64>,
    scheduler_at: Option<u64>,
}

impl Host {
    pub(crate) fn is_up(&self) -> bool {
        self.parts.is_some()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| {
            parts.orders.is_empty()
                && parts.reports.is_empty()
                && !parts.desk.is_behind()
                && parts.core.n_unsettled() == 0
        })
    }
}

impl World {
    pub(crate) fn start_broker(&mut self) {
        if self.host.is_up() {
            return;
        }
        let (secret, seed, now) = (self.chance.bytes(), self.chance.next(), self.clocks());
        let opened = Desk::open(&self.table, self.store_faults.clone(), self.plan.desk(), secret, seed, now);
        let (desk, start) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.note(format_args!("broker does not start: {error}"));
                return self.due_in(100, Due::StartBroker);
            }
        };
        self.host.life += 1;
        (self.host.frozen_until, self.host.last_turn) = (0, self.now);
        self.note(format_args!("broker starts: {} unclean {}", start.epoch, start.unclean));
        self.durable = vec![self.table.copy()];
        self.auditor.on_start(self.now, start.epoch.0, &self.table);
        self.auditor.on_limits(&start.kinds, &start.lanes, &start.paused, &start.fair_keys);
        let (core, actions) = Broker::new(self.plan.settings(), start, now);
        self.host.parts = Some(Parts {
            core,
            desk,
            inbox: Vec::new(),
            quiet: None,
            reports: Vec::new(),
            gone: Vec::new(),
            orders: Vec::new(),
            replies: BTreeMap::new(),
            next_reply: 0,
            actions,
            router_at: None,
            scheduler_at: None,
        });
        self.router_soon(0);
        self.scheduler_soon(0);
    }

    /// The process is gone, with everything that only it knew.
    pub(crate) fn kill_broker(&mut self) {
        if self.host.parts.take().is_none() {
            return;
        }
        self.host.life += 1;
        self.note(format_args!("broker dies"));
        self.cut_all();
        let ms = self.faults_random.between(1, 400);
        self.due_in(ms, Due::StartBroker);
    }

    pub(crate) fn host_receives(&mut self, conn: u64, tag: Tag, request: Request) {
        if let Some(parts) = &mut self.host.parts {
            parts.inbox.push((conn, tag, request));
            self.router_soon(1);
        }
    }

    pub(crate) fn host_sees_end(&mut self, conn: u64) {
        if let Some(parts) = &mut self.host.parts {
            parts.gone.push(conn);
            self.router_soon(1);
        }
    }

    /// Told to be quiet, the broker is told to hand out again some time later, if it is still there.
    pub(crate) fn signal_quiet(&mut self, quiet: bool) {
        let quiet = quiet && !self.calm;
        if let Some(parts) = &mut self.host.parts {
            parts.quiet = Some(quiet);
            self.router_soon(1);
        }
        if quiet {
            let ms = self.quiet_random.between(50, 1_500);
            self.due_in(ms, Due::Quiet(false));
        } else if !self.calm {
            self.next_quiet();
        }
    }

    pub(crate) fn next_quiet(&mut self) {
        let ms = self.quiet_random.between(100, 2_500);
        self.due_in(ms, Due::Quiet(true));
    }

    fn router_soon(&mut self, ms: u64) {
        let at = self.now + self.net.below(ms + 1);
        self.router_at(at);
    }

    /// A thread has one next turn; the one before is dropped when it comes.
    fn router_at(&mut self, at: u64) {
        let life = self.host.life;
        let Some(parts) = &mut self.host.parts else { return };
        if parts.router_at.is_none_or(|before| before > at) {
            parts.router_at = Some(at);
            self.due_at(at, Due::RouterTurn(life));
        }
    }

    pub(crate) fn scheduler_soon(&mut self, ms: u64) {
        let at = self.now + self.net.below(ms + 1);
        self.scheduler_at(at);
    }

    pub(crate) fn router_turn(&mut self) {
        if self.host.frozen_until > self.now {
            let at = self.host.frozen_until;
            if let Some(parts) = &mut self.host.parts {
                parts.router_at = None;
            }
            return self.router_at(at);
        }
        if self.host.parts.as_ref().is_none_or(|parts| parts.router_at != Some(self.now)) {
            return;
        }
        let Some(mut parts) = self.host.parts.take() else { return };
        parts.router_at = None;
        let now = self.clocks();
        let frozen = std::mem::take(&mut self.host.frozen_until);
        let gap = if frozen > 0 { self.now - self.host.last_turn } else { 0 };
        self.host.last_turn = self.now;
        if gap > STALL_MS {
            self.auditor.on_stall(self.now);
            self.handle(&mut parts, Event::Stalled { ms: gap });
        }
        if let Some(quiet) = parts.quiet.take() {
            self.note(format_args!("the broker is told to be quiet: {quiet}"));
            self.auditor.on_quiet(quiet, self.now);
            self.handle(&mut parts, Event::Quiet(quiet));
        }
        for event in std::mem::take(&mut parts.reports) {
            self.handle(&mut parts, event);
        }
        self.auditor.turn_told();
        for (conn, tag, request) in std::mem::take(&mut parts.inbox) {
            parts.next_reply += 1;
            let reply = ReplyTo(parts.next_reply);
            parts.replies.insert(reply, (conn, tag));
            self.note(format_args!("conn {conn} asks {reply:?} {}", brief(&request)));
            self.auditor.on_asked(reply, conn, &request, self.now);
            let from = Asker { reply, conn: ConnId(conn) };
            self.handle(&mut parts, Event::Asked { from, request });
        }
        for conn in std::mem::take(&mut parts.gone) {
            self.note(format_args!("conn {conn} is gone"));
            self.auditor.on_gone(conn, self.now);
            self.handle(&mut parts, Event::Disconnected(ConnId(conn)));
        }
        if parts.core.next_deadline().is_some_and(|at| at <= now.mono) {
            self.handle(&mut parts, Event::Tick);
        }
        let orders = self.act(&mut parts);
        self.auditor.after_router_turn(now);
        let tick = parts.core.next_deadline();
        if !(orders.ops.is_empty() && orders.demands.is_empty() && orders.unload.is_empty() && orders.watch.is_empty())
        {
            parts.orders.push(orders);
        }
        let ordered = !parts.orders.is_empty();
        self.host.parts = Some(parts);
        if self.host.is_idle() {
            self.auditor.same_as_the_table();
        }
        if ordered {
            self.scheduler_soon(4);
        }
        if let Some(at) = tick {
            self.router_at(at.0.max(self.now));
        }
    }

    fn handle(&mut self, parts: &mut Parts, event: Event) {
        let before = parts.actions.len();
        self.auditor.ends_runs(&event);
        self.auditor.stakes_on_event(&event);
        self.auditor.batches_on_event(&event);
        self.auditor.turns_on_event(&event);
        self.auditor.reads_ahead(&event);
        parts.core.handle(event, self.clocks(), &mut parts.actions);
        parts.core.check();
        for action in &parts.actions[before..] {
            if let Action::Store { id, op } = action {
                self.trace.line(self.steps, self.now, format_args!("op {op:?}"));
                self.auditor.on_op(*id, op, self.now, &self.workers);
            }
        }
        self.auditor.on_ends();
        self.auditor.gives_back(&parts.actions[before..]);
        self.auditor.check_turns(&parts.actions[before..], self.clocks());
        for action in &parts.actions[before..] {
            match action {
                Action::Answer { to, answer } => self.auditor.on_answer(*to, answer, self.clocks()),
                Action::Forget(reply) => self.auditor.on_forget(*reply),
                _ => {}
            }
        }
    }

    /// Carries out what the core asked for, in order.
    fn act(&mut self, parts: &mut Parts) -> Orders {
        let mut orders = Orders::default();
        while !parts.actions.is_empty() {
            let mut undelivered = Vec::new();
            for action in std::mem::take(&mut parts.actions) {
                match action {
                    Action::Answer { to, answer } => self.answer(parts, to, answer, &mut undelivered),
                    Action::Forget(reply) => {
                        parts.replies.remove(&reply);
                    }
                    Action::Store { id, op } => orders.ops.push((id, op)),
                    Action::Demand { key, rows, fair } => orders.demands.push((key, rows, fair)),
                    Action::Unload(tasks) => orders.unload.extend(tasks),
                    Action::Watch(task) => orders.watch.push((task, true)),
                    Action::Unwatch(task) => orders.watch.push((task, false)),
                    Action::Tell(what) => self.note(format_args!("{what:?}")),
                    Action::TellAbandoned(tasks) => self.note(format_args!("nobody waits for {tasks:?}")),
                }
            }
            for reply in undelivered {
                self.handle(parts, Event::Undelivered(reply));
            }
        }
        orders
    }

    fn answer(&mut self, parts: &mut Parts, to: ReplyTo, answer: Answer, undelivered: &mut Vec<ReplyTo>) {
        self.note(format_args!("answer {to:?} {}", brief_answer(&answer)));
        let Some((conn, tag)) = parts.replies.remove(&to) else { return };
        if !self.conns.get(&conn).is_some_and(|conn| conn.open) {
            if matches!(answer, Answer::Tasks(_)) && self.net.chance(50) {
                undelivered.push(to);
            }
            return;
        }
        self.reply(conn, tag, answer);
    }

    pub(crate) fn scheduler_turn(&mut self) {
        if self.host.frozen_until > self.now {
            let at = self.host.frozen_until;
            if let Some(parts) = &mut self.host.parts {
                parts.scheduler_at = None;
            }
            return self.scheduler_at(at);
        }
        let now = self.clocks();
        let Some(parts) = self.host.parts.as_mut().filter(|parts| parts.scheduler_at == Some(self.now)) else { return };
        parts.scheduler_at = None;
        let orders = std::mem::take(&mut parts.orders);
        self.auditor.turn_begins(&self.table, now);
        let report = parts.desk.step(orders, now);
        let wait_ms = parts.desk.wait_ms().max(1);
        let behind = parts.desk.is_behind();
        match report {
            Report::Events(events) => {
                if let Some(synced) = self.store_faults.take_committed() {
                    if synced {
                        self.durable.clear();
                    }
                    if synced || !self.plan.sqlite {
                        self.durable.push(self.table.copy());
                    }
                    self.auditor.on_reports(&events);
                    self.auditor.on_commit(&self.table, synced);
                    self.note(format_args!("turn commits, synced {synced}, {} reports", events.len()));
                }
                if !behind {
                    self.auditor.turn_is_whole();
                    self.auditor.schedules_when_whole(&self.table);
                }
                let parts = self.host.parts.as_mut().expect("it was there a moment ago");
                let told = !events.is_empty();
                parts.reports.extend(events);
                if told {
                    self.router_soon(4);
                }
            }
            Report::Ended(error) => {
                self.auditor.fail(format!("the scheduler ended: {error}"));
            }
        }
        self.scheduler_at(self.now + wait_ms);
    }

    fn scheduler_at(&mut self, at: u64) {
        let life = self.host.life;
        let Some(parts) = &mut self.host.parts else { return };
        if parts.scheduler_at.is_none_or(|before| before > at) {
            parts.scheduler_at = Some(at);
            self.due_at(at, Due::SchedulerTurn(life));
        }
    }
}

/// One line, without what the clock of the machine could change.
fn brief(request: &Request) -> String {
    format!("{request:?}")
}

fn brief_answer(answer: &Answer) -> String {
    match answer {
        Answer::Stats(_) => "Stats".into(),
        other => format!("{other:?}"),
    }
}
