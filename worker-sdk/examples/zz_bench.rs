#![allow(clippy::all, clippy::pedantic)]
use laneway::protocol::codec::*;
use laneway::protocol::message::*;
use laneway::protocol::*;
use std::sync::atomic::*;
use std::sync::Arc;
use std::time::*;
fn main() {
    let slots: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let batch: u32 = std::env::args().nth(2).unwrap().parse().unwrap();
    let ep = format!("ipc:///tmp/sdkbench/b{}", std::process::id());
    let e2 = ep.clone();
    let done = Arc::new(AtomicU64::new(0));
    let d2 = done.clone();
    std::thread::spawn(move || {
        laneway::seed_libzmq();
        let ctx = zmq::Context::new();
        let r = ctx.socket(zmq::ROUTER).unwrap();
        r.bind(&e2).unwrap();
        let (kind, lane) = (Kind::new("k").unwrap(), LaneName::new("normal").unwrap());
        let mut id = 0u64; let mut seqs = std::collections::HashMap::<u32, u64>::new();
        loop {
            let mut f = r.recv_multipart(0).unwrap();
            let at = f.iter().position(Vec::is_empty).unwrap();
            let m = f.split_off(at + 1);
            let a = match decode_request(m).unwrap() {
                Request::Hello(_) => Answer::Welcome(Welcome { epoch: Epoch(1), beat_ms: 5000, wait_ms_max: 60000, payload_bytes_max: 1 << 20, batch_max: 512, lanes: vec![], lost: vec![] }),
                Request::Ready(x) => {
                    d2.fetch_add(x.outcomes.len() as u64, Ordering::Relaxed);
                    let s = seqs.entry(x.slot).or_default(); *s += 1;
                    let settled = x.batch.unwrap_or(0);
                    let tasks = (0..x.max).map(|_| { id += 1; HandedTask { task: TaskId::new(id).unwrap(), lease: Lease::new(id as i64), kind: kind.clone(), lane: lane.clone(), run: 1, attempt: 1, max_attempts: 3, timeout_ms: 3600000, payload: Some(Payload::json("{}")), trace: None, checkpoint: None } }).collect();
                    Answer::Tasks(HandOut { epoch: Epoch(1), seq: *s, tasks, outcomes: vec![OutcomeCode::Ok; x.outcomes.len()], settled })
                }
                Request::Beat(_) => Answer::Beat(BeatNoted { epoch: Epoch(1), cancel: vec![], stale: vec![], drain: false, release: false }),
                Request::Bye(_) => Answer::Bye(ByeNoted { outcomes: vec![] }),
                _ => continue,
            };
            f.extend(encode_answer(a).unwrap());
            r.send_multipart(f, 0).unwrap();
        }
    });
    let w = laneway::Worker::builder(&ep).slots(slots).batch(batch).handle_raw("k", |_p, _c: &laneway::Context| Ok::<_, laneway::Failure>(None)).build().unwrap();
    let stop = w.stopper();
    let t = std::thread::spawn(move || w.run());
    std::thread::sleep(Duration::from_millis(500));
    let (a, t0) = (done.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let n = done.load(Ordering::Relaxed) - a;
    println!("slots {slots} batch {batch}: {:.0}/s", n as f64 / t0.elapsed().as_secs_f64());
    let t1 = Instant::now();
    stop.stop();
    println!("{:?} stop took {:?}", t.join().unwrap(), t1.elapsed());
}
