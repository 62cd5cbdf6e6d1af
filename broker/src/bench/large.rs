//! Payloads and results of a megabyte: how many bytes a second come from the client through a worker into the table, and what
//! the broker's memory is meanwhile, which `window_bytes_max` and `backlog_bytes_max` bound. The limit is the same way of the
//! same bytes over a bare ROUTER, without a table.

use std::collections::{HashSet, VecDeque};
use std::thread;
use std::time::Instant;

use laneway::{Client, Payload, Task};
use zmq::Message;

use super::figure::{Figure, Report, Unit};
use super::limits::{WITHIN_MS, bound_router, receive};
use super::stage::{Durability, Sort, Stage, start_worker};
use super::worker::ECHO;
use super::{Bench, join};
use crate::error::Error;

/// Of a payload, and of a result; below the default of `payload_bytes_max`.
const BYTES: u32 = 1_000_000;
const SLOTS: u32 = 4;
/// Each waits for the answer to one submit before the next.
const CLIENTS: u32 = 4;
const LIMIT: &str = "1 MB from REQ over ROUTER to REQ and back, 4 peers";

pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    for durability in Durability::BOTH {
        through_the_table(bench, report, durability)?;
    }
    Ok(())
}

/// From the first submit until every result is in the table.
fn through_the_table(bench: &Bench, report: &mut Report, durability: Durability) -> Result<(), Error> {
    let each = bench.scale.large_tasks / CLIENTS;
    let mut stage = Stage::open(bench, durability)?;
    stage.hire(SLOTS, 1)?;
    let clients = stage.clients(CLIENTS)?;
    let started = Instant::now();
    thread::scope(|scope| {
        let submit = |client| move || submit_each(client, each);
        let threads: Vec<_> = clients.iter().map(|client| scope.spawn(submit(client))).collect();
        threads.into_iter().try_for_each(join)
    })?;
    let ended = stage.await_end()?;
    let (_, most) = stage.broker().memory()?;
    report.count(stage.tally_done(CLIENTS * each)?);
    let rate = megabytes(CLIENTS * each) / ended.duration_since(started).as_secs_f64();
    let name = format!("1 MB payloads and results, {SLOTS} slots, {}", durability.word());
    let figure = Figure::new("large", name, Unit::MegabytesPerSecond, rate).over(LIMIT);
    report.add(figure.note(format!("broker: at most {} MiB", most >> 20)));
    Ok(())
}

fn submit_each(client: &Client, n: u32) -> Result<(), laneway::Error> {
    let payload = Payload::json(format!("\"{}\"", "x".repeat(BYTES as usize - 2)));
    (0..n).try_for_each(|_| client.submit(Task::new(ECHO).payload_raw(payload.clone())).map(drop))
}

/// Payloads and results of so many tasks.
fn megabytes(tasks: u32) -> f64 {
    2.0 * f64::from(tasks) * f64::from(BYTES) / 1e6
}

/// Adds the limit to the figures.
pub(super) fn limit(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let each = bench.scale.large_tasks / CLIENTS;
    let fail = |error: zmq::Error| Error::other("measure large messages", error);
    let context = zmq::Context::new();
    let (router, endpoint) = bound_router(&context).map_err(fail)?;
    let _workers =
        (0..SLOTS).map(|_| start_worker(bench, &endpoint, 1, 1, Sort::Raw)).collect::<Result<Vec<_>, _>>()?;
    let mut workers = Vec::new();
    for _ in 0..SLOTS {
        workers.extend(receive(&router).map_err(fail)?.into_iter().next());
    }
    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let endpoint = endpoint.clone();
            thread::spawn(move || send_each(&endpoint, each))
        })
        .collect();
    pass_on(&router, workers, CLIENTS * each).map_err(fail)?;
    let took = started.elapsed();
    for client in clients {
        client.join().map_err(|_| Error::other("measure large messages", "a thread panicked"))?.map_err(fail)?;
    }
    report.add(Figure::new("limits", LIMIT, Unit::MegabytesPerSecond, megabytes(CLIENTS * each) / took.as_secs_f64()));
    Ok(())
}

/// What a broker does at least: a client's message goes to a worker that is free, and only then has the client its answer.
/// Ends when so many have come back.
fn pass_on(router: &zmq::Socket, mut free: Vec<Message>, tasks: u32) -> Result<(), zmq::Error> {
    let workers: HashSet<Vec<u8>> = free.iter().map(|identity| identity.to_vec()).collect();
    let mut waiting = VecDeque::new();
    let mut n_done = 0;
    while n_done < tasks {
        let mut frames = receive(router)?.into_iter();
        let (Some(identity), Some(body)) = (frames.next(), frames.last()) else { continue };
        if workers.contains(&*identity) {
            free.push(identity);
            n_done += 1;
        } else {
            waiting.push_back((identity, body));
        }
        // At most one: a message brings either a task or a free worker.
        if !waiting.is_empty()
            && let Some(worker) = free.pop()
            && let Some((client, body)) = waiting.pop_front()
        {
            router.send_multipart([worker, Message::new(), body], 0)?;
            router.send_multipart([client, Message::new(), Message::from("ok")], 0)?;
        }
    }
    Ok(())
}

fn send_each(endpoint: &str, n: u32) -> Result<(), zmq::Error> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::REQ)?;
    socket.set_linger(0)?;
    socket.set_rcvtimeo(WITHIN_MS)?;
    socket.connect(endpoint)?;
    let body = vec![b'x'; BYTES as usize];
    for _ in 0..n {
        socket.send(&body, 0)?;
        socket.recv_msg(0)?;
    }
    Ok(())
}
