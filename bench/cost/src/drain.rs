//! A broker and its workers in one thread: what the router, the scheduler and the sockets between the workers and them would
//! do, one after the other. Orders gather as in the router: they go when one is urgent, or when no worker has more to say.

use std::collections::VecDeque;
use std::path::Path;

use laneway_broker::internals::{Desk, Faults, Orders, Report, Table};
use laneway_core::{Action, Asker, Broker, ConnId, EndedAs, Event, IdMap, Millis, Now, OpResult, ReplyTo, UnixMillis};
use laneway_protocol::limits::KINDS_PER_WORKER_MAX;
use laneway_protocol::message::{Answer, End, HandOut, Hello, Outcome, Payload, Ready, Request};
use laneway_protocol::{Kind, SessionName, TaskState};

use crate::Load;
use crate::settings;

/// Operations that the scheduler is told of at once, as in the router.
const GATHERED_MAX: usize = 1_024;

pub(crate) struct Drain {
    core: Broker,
    desk: Desk,
    now: Now,
    actions: Vec<Action>,
    orders: Orders,
    workers: Vec<Worker>,
    batch: u32,
    /// Those who have been answered and hold tasks.
    busy: VecDeque<usize>,
    /// Who asked what has not been answered.
    asked: IdMap<ReplyTo, usize>,
    next_reply: u64,
    n_done: u64,
    n_loaded: u64,
}

/// As the SDK is: it takes the next tasks while the outcomes of the last are on their way to the disk.
struct Worker {
    session: SessionName,
    kinds: Vec<Kind>,
    seq: u64,
    n_readies: u64,
    outcomes: Vec<Outcome>,
}

impl Drain {
    /// Starts a broker, waits until it has looked over the table, and lets the workers connect.
    pub(crate) fn open(db: &Path, load: &Load) -> Result<Self, String> {
        let now = Now { mono: Millis(1_000), wall: UnixMillis(1_800_000_000_000) };
        let table = Table::sqlite(db);
        let (desk, start) = Desk::open(&table, Faults::default(), settings::desk(), [7; 16], 1, now)?;
        let (core, actions) = Broker::new(settings::core(), start, now);
        let mut drain = Self {
            core,
            desk,
            now,
            actions,
            orders: Orders::default(),
            workers: workers(load),
            batch: load.batch,
            busy: VecDeque::new(),
            asked: IdMap::default(),
            next_reply: 0,
            n_done: 0,
            n_loaded: 0,
        };
        drain.act();
        // Before the broker looks over the table: a log that begins anew looks like the commit of an app.
        table.execute("PRAGMA wal_checkpoint(TRUNCATE)");
        drain.turn()?;
        while drain.desk.is_behind() || drain.desk.is_counting() {
            drain.now = Now { mono: drain.now.mono.after(100), ..drain.now };
            drain.turn()?;
        }
        for worker in 0..drain.workers.len() {
            drain.say_hello(worker);
            drain.say_ready(worker);
        }
        Ok(drain)
    }

    /// Lets the broker read ahead and hand out what the workers asked for at first.
    pub(crate) fn until_settled(&mut self) -> Result<(), String> {
        while !is_empty(&self.orders) || self.desk.is_behind() {
            self.turn()?;
        }
        Ok(())
    }

    /// Lets the workers work until so many outcomes are committed.
    pub(crate) fn until_done(&mut self, tasks: u64) -> Result<(), String> {
        while self.n_done < tasks {
            while !self.is_urgent()
                && let Some(worker) = self.busy.pop_front()
            {
                self.say_ready(worker);
            }
            if is_empty(&self.orders) && !self.desk.is_behind() {
                return Err(format!("only {} tasks were there to be done", self.n_done));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// The epoch ends; what the workers hold is left running.
    pub(crate) fn close(self) -> Result<(), String> {
        self.desk.close(self.now)
    }

    pub(crate) fn n_done(&self) -> u64 {
        self.n_done
    }

    pub(crate) fn n_loaded(&self) -> u64 {
        self.n_loaded
    }

    /// As in `Router::flush`.
    fn is_urgent(&mut self) -> bool {
        let Orders { ops, demands, unload, watch } = &self.orders;
        let full = ops.len() >= GATHERED_MAX || !(demands.is_empty() && unload.is_empty() && watch.is_empty());
        self.core.take_awaited() || full
    }

    fn say_hello(&mut self, worker: usize) {
        let Worker { session, kinds, .. } = &self.workers[worker];
        let hello = Hello {
            session: session.clone(),
            name: format!("worker-{worker}"),
            host: "cost".into(),
            pid: 1,
            sdk: String::new(),
            kinds: kinds.clone(),
            lanes: None,
            slots: 1,
            resume: Vec::new(),
            more: false,
        };
        self.ask(worker, Request::Hello(hello));
    }

    fn say_ready(&mut self, worker: usize) {
        let about = &mut self.workers[worker];
        about.n_readies += 1;
        let ready = Ready {
            session: about.session.clone(),
            slot: 0,
            epoch: None,
            ack: Some(about.seq),
            n: Some(about.n_readies),
            max: self.batch,
            wait_ms: 60_000,
            outcomes: std::mem::take(&mut about.outcomes),
            batch: Some(about.n_readies),
            committed: false,
            kinds: None,
            lanes: None,
        };
        self.ask(worker, Request::Ready(ready));
    }

    fn ask(&mut self, worker: usize, request: Request) {
        self.next_reply += 1;
        let reply = ReplyTo(self.next_reply);
        self.asked.insert(reply, worker);
        let from = Asker { reply, conn: ConnId(worker as u64 + 1) };
        self.core.handle(Event::Asked { from, request }, self.now, &mut self.actions);
        self.act();
    }

    /// One turn of the scheduler, and what the router makes of it.
    fn turn(&mut self) -> Result<(), String> {
        let wall = UnixMillis(self.now.wall.0 + 1);
        self.now = Now { mono: self.now.mono.after(1), wall };
        let orders = std::mem::take(&mut self.orders);
        let events = match self.desk.step(vec![orders], self.now) {
            Report::Events(events) => events,
            Report::Ended(error) => return Err(error),
        };
        for event in events {
            self.count(&event);
            self.core.handle(event, self.now, &mut self.actions);
        }
        if self.core.next_deadline().is_some_and(|at| at <= self.now.mono) {
            self.core.handle(Event::Tick, self.now, &mut self.actions);
        }
        self.act();
        Ok(())
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Committed(results) => {
                for (_, result) in results {
                    match result {
                        OpResult::Ended(EndedAs::Written(TaskState::Done)) => self.n_done += 1,
                        // An earlier run left it with a worker of the same name.
                        OpResult::Ended(EndedAs::Written(TaskState::Queued)) => {}
                        other => panic!("nobody else writes to the table: {other:?}"),
                    }
                }
            }
            Event::Loaded(loads) => self.n_loaded += loads.iter().map(|load| load.tasks.len() as u64).sum::<u64>(),
            _ => {}
        }
    }

    /// Carries out what the core asked for, in order.
    fn act(&mut self) {
        for action in self.actions.drain(..) {
            match action {
                Action::Answer { to, answer } => {
                    let worker = self.asked.remove(&to).expect("only what was asked is answered");
                    match answer {
                        Answer::Tasks(tasks) => {
                            self.workers[worker].take(tasks);
                            self.busy.push_back(worker);
                        }
                        Answer::Welcome(_) => {}
                        other => panic!("a worker is answered {other:?}"),
                    }
                }
                Action::Store { id, op } => self.orders.ops.push((id, op)),
                Action::Demand { key, rows, fair } => self.orders.demands.push((key, rows, fair)),
                Action::Unload(tasks) => self.orders.unload.extend(tasks),
                Action::Watch(task) => self.orders.watch.push((task, true)),
                Action::Unwatch(task) => self.orders.watch.push((task, false)),
                Action::Forget(_) | Action::Tell(_) | Action::TellAbandoned(_) => {}
            }
        }
    }
}

impl Worker {
    /// Its handlers take no time.
    fn take(&mut self, tasks: HandOut) {
        self.seq = tasks.seq;
        let done = tasks.tasks.into_iter().map(|task| Outcome {
            result: Some(Payload::json("{\"ok\":true}")),
            ..Outcome::new(task.task, task.lease, End::Done)
        });
        self.outcomes.extend(done);
    }
}

fn workers(load: &Load) -> Vec<Worker> {
    let share = load.kinds.div_ceil(load.kinds.div_ceil(KINDS_PER_WORKER_MAX));
    let kinds: Vec<Kind> = (0..load.kinds).map(settings::kind).collect();
    let shares: Vec<&[Kind]> = kinds.chunks(share).collect();
    let worker = |n: usize| Worker {
        session: SessionName::new(format!("{n:032x}")).expect("32 digits are a session"),
        kinds: shares[n % shares.len()].to_vec(),
        seq: 0,
        n_readies: 0,
        outcomes: Vec::new(),
    };
    (0..load.workers).map(worker).collect()
}

fn is_empty(orders: &Orders) -> bool {
    orders.ops.is_empty() && orders.demands.is_empty() && orders.unload.is_empty() && orders.watch.is_empty()
}
