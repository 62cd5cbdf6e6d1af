//! The router thread: owns the ROUTER socket, its monitor and the core. Polls until the core's next deadline, decodes,
//! lets the core decide, acts.
//!
//! It never blocks on anything but its poll. When the scheduler's inbox is full it stops reading the socket and goes on
//! draining its own inbox; that time counts as its own stall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use laneway::curve::KeyPair;
use laneway_core::{Action, Broker, ConnId, Dump, Event, Millis, Now, ReplyTo};
use laneway_protocol::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use laneway_protocol::{Answer, Code, Request, WireError, codec};

use crate::access::{Guard, Peer};
use crate::clock::Clock;
use crate::config::Config;
use crate::crowd::{self, Crowd};
use crate::doorbell::DoorbellWait;
use crate::error::Error;
use crate::incoming::{Envelope, Incoming};
use crate::monitor::{ConnEvent, Monitor};
use crate::peers::{Peers, ReturnAddress};
use crate::scheduler::Orders;

/// Messages taken in one turn of the loop, so that one flooder does not keep the others waiting.
const MESSAGES_PER_TURN_MAX: usize = 256;
/// Frames taken in one turn: a full message and some more. One without end is read on in the next turns.
const FRAMES_PER_TURN_MAX: usize = 4_096;
/// Hand-outs, and outcomes that their worker keeps until they are settled, gather for so long before the scheduler is woken
/// for them: one turn, one sync and one wake-up for many.
const GATHER_MS: u64 = 4;
/// How long the last words of a connection are looked for after its end, while the socket never runs empty.
const LAST_WORDS_MS: u64 = 100;
/// Messages of one peer that wait in libzmq; one that waits for its answers has one.
const UNREAD_MESSAGES_MAX: i32 = 64;
/// The longest poll: often enough to see that the process itself was stopped.
const POLL_MS_MAX: u64 = 250;
/// Questions without an answer, over all peers.
const OPEN_QUESTIONS_MAX: usize = 262_144;

/// What ends the router or holds it back, and what it tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// Hand nothing out any more, settle what arrives.
    pub(crate) gently: AtomicBool,
    /// End now.
    pub(crate) now: AtomicBool,
    /// Hand nothing out while it is set; everything else goes on.
    pub(crate) quiet: AtomicBool,
    /// What the core knows is wanted, once.
    pub(crate) dump: AtomicBool,
    /// Told by the router while it stops gently: nothing runs and nothing is on its way to the disk.
    pub(crate) idle: AtomicBool,
    /// How often the router's loop has turned.
    pub(crate) turns: AtomicU64,
}

pub(crate) struct Router {
    socket: zmq::Socket,
    monitor: Monitor,
    crowd: Crowd,
    /// Absent where no endpoint takes keys.
    guard: Option<Guard>,
    peers: Peers,
    core: Broker,
    clock: Clock,
    bell: DoorbellWait,
    from_scheduler: Receiver<Vec<Event>>,
    to_scheduler: Sender<Orders>,
    stop: Arc<Stop>,
    dumps: Sender<Dump>,
    stopping: bool,
    quiet: bool,
    stall_ms: u64,
    reading: Option<Reading>,
    /// Not yet taken by the scheduler, and until when they may gather.
    orders: Orders,
    gather_until: Option<Millis>,
    /// Since when the scheduler's inbox is full.
    blocked_since: Option<Now>,
    actions: Vec<Action>,
    /// Empty: the memory of those that were carried out.
    acted: Vec<Action>,
    /// What is behind the last poll: only what it named is read. At first anything may be there.
    readable: Readable,
    /// Connections whose end is told once the socket is drained: their last words come first. And since when some wait.
    gone: Vec<ConnId>,
    gone_since: Option<Millis>,
    dropped_lines: crate::telemetry::Dropped,
}

/// The other ends of the router's channels.
pub(crate) struct Links {
    pub(crate) bell: DoorbellWait,
    pub(crate) from_scheduler: Receiver<Vec<Event>>,
    pub(crate) to_scheduler: Sender<Orders>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) dumps: Sender<Dump>,
    pub(crate) dropped_lines: crate::telemetry::Dropped,
}

/// A ROUTER with every option set, bound to every endpoint of the settings, and its monitor. Gives also the endpoints as
/// libzmq resolved them (port 0 becomes a number). `pair` is the broker's own, where some take keys.
pub(crate) fn bind(
    context: &zmq::Context,
    config: &Config,
    pair: Option<&KeyPair>,
) -> Result<(zmq::Socket, Monitor, Vec<String>), Error> {
    let socket = context.socket(zmq::ROUTER).map_err(|error| Error::other("open a socket", error))?;
    set_options(&socket, config).map_err(|error| Error::other("set the options of the socket", error))?;
    let monitor = Monitor::start(context, &socket)?;
    let mut bound = Vec::new();
    let mut bind = |endpoint: &String| -> Result<(), Error> {
        let fail = |error: zmq::Error| match error {
            zmq::Error::EADDRINUSE => {
                let text = "the address is in use, perhaps by another broker (`laneway stats` tells); choose another with --bind";
                Error::other(format!("listen on {endpoint}"), text)
            }
            error => Error::other(format!("listen on {endpoint}"), error),
        };
        // Only where it is written so: on a machine without IPv6 the option alone would make others fail.
        socket.set_ipv6(endpoint.contains('[')).map_err(fail)?;
        socket.bind(endpoint).map_err(fail)?;
        let last = socket.get_last_endpoint().map_err(fail)?;
        bound.push(last.unwrap_or_else(|_| endpoint.clone()).trim_end_matches('\0').to_owned());
        Ok(())
    };
    config.bind.iter().try_for_each(&mut bind)?;
    if let Some(pair) = pair {
        // What is bound so far keeps the options that it was bound with.
        let fail = |error| Error::other("set the keys of the socket", error);
        socket.set_curve_server(true).and_then(|()| pair.apply_as_server(&socket)).map_err(fail)?;
        config.curve.bind.iter().try_for_each(&mut bind)?;
    }
    Ok((socket, monitor, bound))
}

fn set_options(socket: &zmq::Socket, config: &Config) -> Result<(), zmq::Error> {
    let millis = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
    // An answer that cannot be routed is an error here instead of a silent drop.
    socket.set_router_mandatory(true)?;
    socket.set_linger(0)?;
    socket.set_heartbeat_ivl(millis(config.heartbeat_interval_ms))?;
    socket.set_heartbeat_timeout(millis(config.heartbeat_timeout_ms))?;
    socket.set_heartbeat_ttl(millis(config.heartbeat_timeout_ms))?;
    socket.set_handshake_ivl(3_000)?;
    // Shuts out ZMTP 1 and 2, which know no heartbeats: such a peer with the identity of another is never read, and libzmq
    // keeps its descriptor for ever, even once it is gone. Where no endpoint takes keys no handler answers for the domain, and
    // ZMTP 3 is not asked.
    socket.set_zap_domain("laneway")?;
    // For each frame; the whole message is bounded while it is read. Over this libzmq cuts the connection without a word,
    // so it is the protocol's bound; the settings' lower one is answered.
    let frame_max = PAYLOAD_BYTES_MAX.max(BODY_BYTES_MAX) + 1_024;
    socket.set_maxmsgsize(i64::try_from(frame_max).unwrap_or(i64::MAX))?;
    socket.set_backlog(1_024)?;
    // What one peer may send before it is read. More waits in its own machine.
    socket.set_rcvhwm(UNREAD_MESSAGES_MAX)?;
    Ok(())
}

impl Router {
    pub(crate) fn new(
        (socket, monitor, crowd, guard): (zmq::Socket, Monitor, Crowd, Option<Guard>),
        (core, actions): (Broker, Vec<Action>),
        links: Links,
        clock: Clock,
        stall_ms: u64,
    ) -> Self {
        Self {
            socket,
            monitor,
            crowd,
            guard,
            peers: Peers::default(),
            core,
            clock,
            bell: links.bell,
            from_scheduler: links.from_scheduler,
            to_scheduler: links.to_scheduler,
            stop: links.stop,
            dumps: links.dumps,
            stopping: false,
            quiet: false,
            stall_ms,
            reading: None,
            orders: Orders::default(),
            gather_until: None,
            blocked_since: None,
            actions,
            acted: Vec::new(),
            readable: Readable { monitor: true, bell: true },
            gone: Vec::new(),
            gone_since: None,
            dropped_lines: links.dropped_lines,
        }
    }

    /// Runs until it is told to stop. Fails when the socket does, or when the scheduler is gone.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let fail = |error: zmq::Error| Error::other("serve the socket", error);
        let (mut last, mut timeout_ms) = (self.clock.now(), 0);
        loop {
            let now = self.clock.now();
            self.notice_stall(last, timeout_ms, now);
            last = now;
            self.bell.clear(self.readable.bell);
            if self.stop.now.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.take_wishes(now);
            self.stop.turns.fetch_add(1, Ordering::Relaxed);
            self.take_reports(now)?;
            if self.readable.monitor {
                self.take_conn_events().map_err(fail)?;
            }
            self.take_keys();
            let mut drained = false;
            if self.blocked_since.is_none() {
                drained = self.take_messages(now).map_err(fail)?;
            }
            self.tell_gone(drained, now);
            if self.core.next_deadline().is_some_and(|at| at <= now.mono) {
                self.core.handle(Event::Tick, now, &mut self.actions);
            }
            self.act(now).map_err(fail)?;
            self.flush(now)?;
            if self.stopping {
                let idle = self.core.n_running() == 0 && self.core.n_unsettled() == 0;
                self.stop.idle.store(idle, Ordering::SeqCst);
            }
            timeout_ms = if drained { self.poll_timeout_ms() } else { 0 };
            self.readable = self.poll(timeout_ms).map_err(fail)?;
        }
    }

    /// What the signals ask for.
    fn take_wishes(&mut self, now: Now) {
        if !self.stopping && self.stop.gently.load(Ordering::SeqCst) {
            self.stopping = true;
            self.core.handle(Event::Stop, now, &mut self.actions);
        }
        let quiet = self.stop.quiet.load(Ordering::SeqCst);
        if quiet != self.quiet {
            self.quiet = quiet;
            self.core.handle(Event::Quiet(quiet), now, &mut self.actions);
        }
        if self.stop.dump.swap(false, Ordering::SeqCst) {
            // Where one lies there already, nobody waits for this one.
            self.dumps.try_send(self.core.dump(now)).ok();
        }
    }

    /// A loop that took longer than its poll and its work explain was stopped or starved.
    fn notice_stall(&mut self, last: Now, timeout_ms: u64, now: Now) {
        let blocked = self.blocked_since.map_or(0, |since| now.mono.since(since.mono));
        let gap = now.mono.since(last.mono).saturating_sub(timeout_ms).max(blocked);
        if gap > self.stall_ms {
            if blocked == 0 {
                tracing::warn!(target: "laneway::router", gap_ms = gap, "the broker itself stood still; nobody is blamed for it");
            }
            self.core.handle(Event::Stalled { ms: gap }, now, &mut self.actions);
        }
    }

    /// Tells the ends of connections behind their last words, but no flood of other peers' words delays them for long.
    fn tell_gone(&mut self, drained: bool, now: Now) {
        if self.gone.is_empty() {
            return;
        }
        let since = *self.gone_since.get_or_insert(now.mono);
        if drained || now.mono.since(since) >= LAST_WORDS_MS {
            self.gone_since = None;
            for conn in std::mem::take(&mut self.gone) {
                self.peers.remove(conn);
                self.core.handle(Event::Disconnected(conn), now, &mut self.actions);
            }
        }
    }

    fn take_reports(&mut self, now: Now) -> Result<(), Error> {
        loop {
            match self.from_scheduler.try_recv() {
                Ok(events) => {
                    for event in events {
                        self.core.handle(event, now, &mut self.actions);
                    }
                }
                Err(crossbeam_channel::TryRecvError::Empty) => return Ok(()),
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    return Err(Error::other("go on", "the scheduler has ended"));
                }
            }
        }
    }

    /// Where the list of keys was read again, ends the connections of those that may not do any more what they could.
    fn take_keys(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        if guard.take_news() {
            self.peers.replace_keys(|listed| guard.still(listed)).into_iter().for_each(crowd::shut);
        }
    }

    fn take_conn_events(&mut self) -> Result<(), zmq::Error> {
        while let Some(event) = self.monitor.next()? {
            self.gone.extend(self.peers.on_conn_event(event));
            if let ConnEvent::Accepted(fd) = event {
                self.crowd.on_accepted(fd, self.peers.n_connections());
            }
        }
        Ok(())
    }

    /// Takes messages until there are none or this turn has had its share. True when there are none.
    fn take_messages(&mut self, now: Now) -> Result<bool, zmq::Error> {
        let (mut n_messages, mut n_frames) = (0, 0);
        while n_messages < MESSAGES_PER_TURN_MAX && n_frames < FRAMES_PER_TURN_MAX {
            let mut frame = match self.socket.recv_msg(zmq::DONTWAIT) {
                Ok(frame) => frame,
                Err(zmq::Error::EAGAIN) => return Ok(true),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(error),
            };
            n_frames += 1;
            let more = frame.get_more();
            let reading = match self.reading.take() {
                None => Reading::of(frame, &self.peers),
                Some(mut reading) => {
                    reading.take(&mut frame, self.guard.as_ref());
                    reading
                }
            };
            if more {
                self.reading = Some(reading);
            } else {
                n_messages += 1;
                self.take_message(reading, now)?;
            }
        }
        Ok(false)
    }

    fn take_message(&mut self, message: Reading, now: Now) -> Result<(), zmq::Error> {
        let Reading { routing_id, incoming, fd, peer, .. } = message;
        let peer = peer.unwrap_or(Peer::Unknown);
        if let (Peer::Unknown, Some(fd)) = (&peer, fd) {
            // Its answer says why, if it gets that far; it does not keep a place among the connections.
            crowd::shut(fd);
        }
        let conn = if let Some(conn) = self.peers.known(&routing_id) {
            conn
        } else {
            // What the monitor saw of this descriptor before the message came.
            self.take_conn_events()?;
            let listed = if let Peer::Known(listed) = &peer { Some(Arc::clone(listed)) } else { None };
            let (conn, over) = self.peers.add(&routing_id, fd, listed);
            if over {
                self.gone.push(conn);
            }
            conn
        };
        let Some(Envelope { correlation }) = incoming.envelope() else {
            self.core.handle(Event::BadMessage, now, &mut self.actions);
            return Ok(());
        };
        let from = self.peers.ask(conn, correlation);
        match self.decode(incoming, &peer) {
            Ok(request) => self.core.handle(Event::Asked { from, request }, now, &mut self.actions),
            Err(error) => {
                self.core.handle(Event::BadMessage, now, &mut self.actions);
                self.actions.push(Action::Answer { to: from.reply, answer: Answer::Error(error) });
            }
        }
        Ok(())
    }

    fn decode(&mut self, incoming: Incoming, peer: &Peer) -> Result<Request, WireError> {
        if self.peers.n_open() > OPEN_QUESTIONS_MAX {
            let text = format!("{} questions are open, at most {OPEN_QUESTIONS_MAX} are allowed", self.peers.n_open());
            return Err(WireError::new(Code::Full, text).after_ms(1_000));
        }
        let request = incoming.into_request()?;
        if let Some(guard) = &mut self.guard {
            guard.check(peer, &request)?;
        }
        Ok(request)
    }

    /// Carries out what the core asked for, in order.
    fn act(&mut self, now: Now) -> Result<(), zmq::Error> {
        // Two lists in turn, so that neither is allocated anew.
        let mut actions = std::mem::take(&mut self.acted);
        while !self.actions.is_empty() {
            let mut undelivered = Vec::new();
            std::mem::swap(&mut self.actions, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Answer { to, answer } => self.answer(to, answer, &mut undelivered)?,
                    Action::Forget(reply) => {
                        self.peers.take(reply);
                    }
                    Action::Store { id, op } => self.orders.ops.push((id, op)),
                    Action::Demand { key, rows, fair } => self.orders.demands.push((key, rows, fair)),
                    Action::Unload(tasks) => self.orders.unload.extend(tasks),
                    Action::Watch(task) => self.orders.watch.push((task, true)),
                    Action::Unwatch(task) => self.orders.watch.push((task, false)),
                    Action::Tell(event) => crate::telemetry::tell_worker(&event),
                    Action::TellAbandoned(tasks) => crate::telemetry::tell_abandoned(&tasks),
                }
            }
            for reply in undelivered {
                self.core.handle(Event::Undelivered(reply), now, &mut self.actions);
            }
        }
        self.acted = actions;
        Ok(())
    }

    fn answer(&mut self, to: ReplyTo, mut answer: Answer, undelivered: &mut Vec<ReplyTo>) -> Result<(), zmq::Error> {
        let Some(envelope) = self.peers.take(to) else { return Ok(()) };
        if let Answer::Stats(stats) = &mut answer {
            stats.log_lines_dropped = self.dropped_lines.lines();
        }
        let hand_out = matches!(answer, Answer::Tasks(_));
        let frames = match codec::encode_answer(answer) {
            Ok(frames) => frames,
            Err(error) => {
                tracing::error!(target: "laneway::router", %error, "an answer does not fit a message");
                let error = WireError::new(Code::TooLarge, format!("the answer does not fit a message: {error}"));
                codec::encode_answer(Answer::Error(error)).expect("an error is small")
            }
        };
        match send(&self.socket, &envelope, frames) {
            Ok(()) => {}
            // The peer is gone, or does not read: what it was to get goes back, and nobody else waits for it.
            Err(error @ (zmq::Error::EHOSTUNREACH | zmq::Error::EAGAIN)) => {
                if hand_out {
                    undelivered.push(to);
                }
                if error == zmq::Error::EHOSTUNREACH {
                    self.gone.push(envelope.conn());
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives the scheduler what has come up, in one message: at once when somebody waits for it, else what a moment gathers.
    fn flush(&mut self, now: Now) -> Result<(), Error> {
        if self.orders.is_empty() {
            self.blocked_since = None;
            return Ok(());
        }
        let until = *self.gather_until.get_or_insert(now.mono.after(GATHER_MS));
        let goes = self.core.take_awaited() || self.stopping || self.blocked_since.is_some() || now.mono >= until;
        if !goes && !self.orders.is_urgent() {
            return Ok(());
        }
        self.gather_until = None;
        let room = self.orders.room();
        match self.to_scheduler.try_send(std::mem::replace(&mut self.orders, room)) {
            Ok(()) => self.blocked_since = None,
            Err(TrySendError::Full(orders)) => {
                self.orders = orders;
                self.blocked_since.get_or_insert(now);
            }
            Err(TrySendError::Disconnected(_)) => return Err(Error::other("go on", "the scheduler has ended")),
        }
        Ok(())
    }

    fn poll_timeout_ms(&self) -> u64 {
        let now = self.clock.now();
        let deadlines = self.core.next_deadline().into_iter().chain(self.gather_until);
        deadlines.map(|at| at.since(now.mono)).min().map_or(POLL_MS_MAX, |until| until.min(POLL_MS_MAX))
    }

    /// Waits until something is there, and tells what beside the ROUTER, which is always asked.
    fn poll(&self, timeout_ms: u64) -> Result<Readable, zmq::Error> {
        let bell = zmq::PollItem::from_fd(self.bell.fd(), zmq::POLLIN);
        let timeout = i64::try_from(timeout_ms).expect("the poll is bounded");
        let (polled, readable) = if self.blocked_since.is_some() {
            // The scheduler is behind: its next report makes room.
            let mut items = [bell];
            let polled = zmq::poll(&mut items, i64::try_from(POLL_MS_MAX).expect("the poll is bounded"));
            (polled, Readable { monitor: true, bell: items[0].is_readable() })
        } else {
            let mut items = [self.socket.as_poll_item(zmq::POLLIN), self.monitor.poll_item(), bell];
            let polled = zmq::poll(&mut items, timeout);
            (polled, Readable { monitor: items[1].is_readable(), bell: items[2].is_readable() })
        };
        match polled {
            Ok(_) => Ok(readable),
            Err(zmq::Error::EINTR) => Ok(Readable { monitor: true, bell: true }),
            Err(error) => Err(error),
        }
    }
}

/// Whether there is something to read.
#[derive(Debug, Clone, Copy)]
struct Readable {
    monitor: bool,
    bell: bool,
}

/// A message whose last frame has not come out of the socket yet. libzmq gives out whole messages only, but one may have
/// more frames than a turn of the loop should take.
struct Reading {
    routing_id: zmq::Message,
    incoming: Incoming,
    wants_fd: bool,
    fd: Option<i32>,
    /// Told by each message: a routing id may go from one peer to another.
    peer: Option<Peer>,
}

impl Reading {
    fn of(routing_id: zmq::Message, peers: &Peers) -> Self {
        let wants_fd = peers.known(&routing_id).is_none();
        Self { routing_id, incoming: Incoming::new(), wants_fd, fd: None, peer: None }
    }

    fn take(&mut self, frame: &mut zmq::Message, guard: Option<&Guard>) {
        if self.peer.is_none() {
            self.peer = Some(guard.map_or(Peer::Plain, |guard| guard.peer(frame.gets("User-Id"))));
        }
        if self.wants_fd && self.fd.is_none() {
            self.fd = frame.gets("__fd").and_then(|fd| fd.parse().ok());
        }
        self.incoming.take(frame);
    }
}

/// Sends without waiting. An error of the first frame means that nothing was sent.
fn send(socket: &zmq::Socket, envelope: &ReturnAddress, frames: Vec<Vec<u8>>) -> Result<(), zmq::Error> {
    let flags = zmq::SNDMORE | zmq::DONTWAIT;
    socket.send(&*envelope.routing_id, flags)?;
    if let Some(correlation) = envelope.correlation {
        socket.send(&correlation[..], flags)?;
    }
    socket.send(&[][..], flags)?;
    let last = frames.len() - 1;
    for (index, frame) in frames.into_iter().enumerate() {
        // A frame becomes a message without a copy.
        let message = zmq::Message::from(frame);
        socket.send(message, if index == last { zmq::DONTWAIT } else { flags })?;
    }
    Ok(())
}
