//! What SIGTTIN writes into the log: the broker, its lanes, the longest leases, and the threads of this process. A line each, in a
//! target of its own, in a bounded number. `run` calls it; the router only gathers, between two messages, what the core knows.

use std::fs;

use laneway_core::{Dump, DumpedLane, DumpedLease};

/// For a log filter: `LANEWAY_LOG=info,laneway::dump=off`. Shown whatever the level of the log is, for somebody has asked.
pub(crate) const TARGET: &str = "laneway::dump";
/// There are a dozen and those of libzmq.
const THREADS_MAX: usize = 64;
/// Linux tells processor time to programs in hundredths of a second, on every machine.
const TICK_MS: u64 = 10;

/// `None`: the router did not answer, which the threads may explain.
pub(crate) fn write(dump: Option<&Dump>) {
    match dump {
        Some(dump) => {
            broker(dump);
            dump.lanes.iter().for_each(lane);
            dump.leases.iter().for_each(lease);
            if dump.more_leases > 0 {
                tracing::info!(target: TARGET, event = "leases", more = dump.more_leases, "and more leases, all younger");
            }
        }
        None => {
            tracing::error!(target: TARGET, event = "broker", "the router did not answer: its loop hangs or is starved");
        }
    }
    threads();
}

fn broker(dump: &Dump) {
    tracing::info!(
        target: TARGET,
        event = "broker",
        epoch = dump.epoch.0,
        uptime_ms = dump.uptime_ms,
        held_back = dump.held_back.as_deref(),
        workers = dump.workers,
        ready = dump.ready,
        running = dump.running,
        unsettled = dump.unsettled,
        unsettled_bytes = dump.unsettled_bytes,
        questions = dump.questions,
        waiters = dump.waiters,
    );
}

fn lane(lane: &DumpedLane) {
    tracing::info!(
        target: TARGET,
        event = "lane",
        lane = lane.lane.as_str(),
        paused = lane.paused,
        at_hand = lane.at_hand,
        ready = lane.ready,
        running = lane.running,
        handed_out = lane.handed_out,
    );
}

fn lease(lease: &DumpedLease) {
    tracing::info!(
        target: TARGET,
        event = "lease",
        task = lease.task.value(),
        kind = lease.kind.as_str(),
        lane = lease.lane.as_str(),
        run = lease.run,
        attempt = lease.attempt,
        worker = lease.worker,
        session = lease.session,
        slot = lease.slot,
        since_ms = lease.since_ms,
        left_ms = lease.left_ms,
        note = lease.note,
    );
}

fn threads() {
    let threads = look_at_threads();
    let more = threads.len().saturating_sub(THREADS_MAX);
    for Thread { name, id, cpu_ms, state } in threads.into_iter().take(THREADS_MAX) {
        tracing::info!(target: TARGET, event = "thread", name, id, cpu_ms, state = %state);
    }
    if more > 0 {
        tracing::info!(target: TARGET, event = "threads", more, "and more threads");
    }
}

/// A thread of this process as Linux tells of it.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    /// As in ARCHITECTURE.md; those of libzmq have the program's own.
    name: String,
    id: u32,
    cpu_ms: u64,
    /// R runs, S sleeps, D waits for the disk.
    state: char,
}

/// In the order of their ids, which is that of their starts.
fn look_at_threads() -> Vec<Thread> {
    let ids = fs::read_dir("/proc/self/task").into_iter().flatten();
    let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // A thread may end between the list and the look.
    let look = |id: u32| Thread::read(id, &fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?);
    let mut threads: Vec<Thread> = ids.filter_map(look).collect();
    threads.sort_by_key(|thread| thread.id);
    threads
}

impl Thread {
    /// Of a line of proc(5): `id (name) state` and numbers, of which the 14th and 15th of the line are user and system time. A name may
    /// have brackets and spaces.
    fn read(id: u32, stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n)?.parse::<u64>().ok();
        let is_main = id == std::process::id();
        Some(Self {
            name: if is_main { "main".into() } else { name.into() },
            id,
            cpu_ms: (ticks(11)? + ticks(12)?) * TICK_MS,
            state: fields.first()?.chars().next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_as_linux_tells_it() {
        // Proves that odd names do not shift the fields, and that times are added up.
        let stat = "77 (ZMQbg/IO) 0) S 1 77 77 0 -1 4194368 9 0 0 0 123 45 0 0 20 0 12 0 5 0 0";
        let read = Thread { name: "ZMQbg/IO) 0".into(), id: 77, cpu_ms: 1_680, state: 'S' };
        assert_eq!(Thread::read(77, stat), Some(read));
        for bad in ["", "77", "77 (x", "77 (x)", "77 (x) S 1 2"] {
            assert_eq!(Thread::read(77, bad), None, "{bad}");
        }
    }

    #[test]
    fn the_threads_of_this_process_are_found_by_name() {
        // Proves that a named thread is among them, and that each is told once.
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let (here, came) = crossbeam_channel::bounded(1);
        let body = move || {
            // It has its name from here on.
            here.send(()).unwrap();
            stopped.recv()
        };
        let thread = std::thread::Builder::new().name("a-dumped-one".into()).spawn(body).unwrap();
        came.recv().unwrap();
        let threads = look_at_threads();
        assert_eq!(threads.iter().filter(|thread| thread.name == "a-dumped-one").count(), 1, "{threads:?}");
        assert!(threads.is_sorted_by(|a, b| a.id < b.id), "{threads:?}");
        drop(stop);
        assert!(thread.join().unwrap().is_err());
    }
}
