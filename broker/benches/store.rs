//! What the SQLite store can do alone, on one thread: `cargo bench -p laneway-broker --bench store`. Prints rows a second.
//! Sync is off (`Process`) unless a line says full.

#![allow(dead_code, unused_imports, reason = "the store is compiled in whole, its tests too, as its types are private")]
#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::time::Instant;

use laneway_core::{Count, Ended, FairRules, IdSet, Next, Now, Op, OpResult, QueueKey, Started, UnixMillis};
use laneway_protocol::message::{NewTask, Payload};
use laneway_protocol::{Kind, LaneName, Lease, RequestId, SessionName, TaskId};

#[path = "../src/schedule/mod.rs"]
mod schedule;
#[path = "../src/store/mod.rs"]
mod store;

use store::sqlite::SqliteStore;
use store::{Load, Rules, Store, Sync};

const ROWS: usize = 100_000;
const BATCH: usize = 1000;
const PAIRS: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let lane = LaneName::new("normal")?;
    let rules = Rules {
        lanes: vec![lane.clone()],
        default_lane: lane.clone(),
        kind_lanes: std::collections::HashMap::new(),
        payload_bytes_max: 1 << 20,
        full_durability: true,
    };
    let mut bench = Bench {
        store: SqliteStore::open(&dir.path().join("bench.db"), rules)?,
        key: QueueKey { lane, kind: Kind::new("bench")? },
        worker: SessionName::new("0123456789abcdef0123456789abcdef")?,
        now: Now { wall: UnixMillis(1_800_000_000_000), ..Now::default() },
    };
    bench.store.open_epoch([7; 16], bench.now)?;
    bench.store.changed()?;

    let rows = (ROWS / BATCH) * BATCH;
    bench.timed("insert by submit, 1000 a turn", rows, Bench::submit_all)?;
    bench.timed("load, 512 a call", rows, Bench::load_all)?;
    bench.timed("started, 1000 a turn", rows / 2, |bench| bench.runs(1, rows / 2, BATCH, true, false))?;
    bench.timed("ended, 1000 a turn", rows / 2, |bench| bench.runs(1, rows / 2, BATCH, false, true))?;
    bench.timed("started and ended in one, 1000 a turn", rows / 4, |bench| {
        bench.runs(rows / 2 + 1, rows * 3 / 4, BATCH, true, true)
    })?;
    bench.timed("started and ended in one, 4096 a turn", PAIRS, |bench| {
        bench.runs(rows * 3 / 4 + 1, rows * 3 / 4 + PAIRS, PAIRS, true, true)
    })?;
    bench.timed("recount, a whole pass", rows / 4 - PAIRS, |bench| {
        while !bench.store.recount(20_000)? {}
        Ok(())
    })?;
    bench.timed("commits of one submit", 2000, |bench| bench.submit_each(2000, Sync::Process))?;
    bench.timed("commits of one submit, full", 1000, |bench| bench.submit_each(1000, Sync::Power))?;
    bench.timed("data_version", 100_000, |bench| {
        for _ in 0..100_000 {
            bench.store.changed()?;
        }
        Ok(())
    })?;
    bench.timed("empty turns", 10_000, |bench| {
        for _ in 0..10_000 {
            bench.store.begin(Sync::Process)?;
            bench.store.commit()?;
        }
        Ok(())
    })
}

type Done = Result<(), Box<dyn std::error::Error>>;

struct Bench {
    store: SqliteStore,
    key: QueueKey,
    worker: SessionName,
    now: Now,
}

impl Bench {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn timed(&mut self, what: &str, rows: usize, work: impl FnOnce(&mut Self) -> Done) -> Done {
        let (started, cpu) = (Instant::now(), cpu_ns());
        work(self)?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu_us = (cpu_ns() - cpu) as f64 / 1e3 / rows as f64;
        let each_us = seconds * 1e6 / rows as f64;
        println!("{what:<40} {:>10.0} /s {each_us:>9.2} µs each, {cpu_us:>6.2} µs of processor", rows as f64 / seconds);
        Ok(())
    }

    fn tasks(&self, n: usize) -> Vec<NewTask> {
        (0..n)
            .map(|i| NewTask::new(self.key.kind.clone(), Some(Payload::json(format!("{{\"number\": {i}}}")))))
            .collect()
    }

    fn submit_all(&mut self) -> Done {
        for batch in 0..ROWS / BATCH {
            let mut request = [0; 16];
            request[..8].copy_from_slice(&batch.to_be_bytes());
            self.turn(
                Sync::Process,
                &[Op::Submit {
                    request: RequestId(request),
                    tasks: self.tasks(BATCH),
                    group: None,
                    secured: Vec::new(),
                }],
            )?;
        }
        Ok(())
    }

    fn submit_each(&mut self, n: usize, sync: Sync) -> Done {
        for i in 0..n {
            let mut request = [u8::from(sync == Sync::Power) + 1; 16];
            request[..8].copy_from_slice(&i.to_be_bytes());
            self.turn(
                sync,
                &[Op::Submit { request: RequestId(request), tasks: self.tasks(1), group: None, secured: Vec::new() }],
            )?;
        }
        Ok(())
    }

    /// The window moves on as in the scheduler: what was read is out of it again before long.
    fn load_all(&mut self) -> Done {
        let mut skip = IdSet::default();
        self.store.begin(Sync::Process)?;
        let mut read = 0;
        while read < ROWS / 20 {
            let load = Load {
                key: &self.key,
                skip: &|task| skip.contains(&task),
                rows: 512,
                bytes: 1 << 20,
                fair: &FairRules::default(),
            };
            let loaded = self.store.load(load, self.now)?;
            read += loaded.tasks.len();
            skip.extend(loaded.tasks.iter().map(|task| task.id));
        }
        for _ in 0..(ROWS - read) / 512 {
            self.store.load(
                Load {
                    key: &self.key,
                    skip: &|task| skip.contains(&task),
                    rows: 512,
                    bytes: 1 << 20,
                    fair: &FairRules::default(),
                },
                self.now,
            )?;
        }
        self.store.commit()?;
        Ok(())
    }

    fn runs(&mut self, from: usize, to: usize, batch: usize, start: bool, end: bool) -> Done {
        let ids: Vec<TaskId> = (from..=to).filter_map(|id| TaskId::new(id as u64)).collect();
        for ids in ids.chunks(batch) {
            let started = ids.iter().filter(|_| start).map(|id| Op::Started(self.started(*id)));
            let ended = ids.iter().filter(|_| end).map(|id| Op::Ended(self.ended(*id)));
            let ops: Vec<Op> = started.chain(ended).collect();
            self.turn(Sync::Process, &ops)?;
        }
        Ok(())
    }

    fn turn(&mut self, sync: Sync, ops: &[Op]) -> Done {
        self.store.begin(sync)?;
        let results = self.store.apply(ops, self.now)?;
        self.store.commit()?;
        let bad = results.iter().flatten().find(|result| {
            !matches!(result, OpResult::Submitted(_) | OpResult::Ended(laneway_core::EndedAs::Written(_)))
        });
        bad.map_or(Ok(()), |bad| Err(format!("unexpected {bad:?}").into()))
    }

    fn started(&self, task: TaskId) -> Started {
        Started {
            task,
            lease: Lease::new(lease(task)),
            run: 1,
            worker: self.worker.clone(),
            at: self.now.wall,
            kind: self.key.kind.clone(),
            lane: self.key.lane.clone(),
            attempt: 1,
            wait_ms: 0,
        }
    }

    fn ended(&self, task: TaskId) -> Ended {
        Ended {
            task,
            lease: Lease::new(lease(task)),
            run: 1,
            next: Next::Done(Some(Payload::json("{}"))),
            count: Count::Attempt,
            error: None,
            cause: None,
            spawn: Vec::new(),
            worker: self.worker.clone(),
            at: self.now.wall,
            kind: self.key.kind.clone(),
            lane: self.key.lane.clone(),
            attempt: 1,
            run_ms: 0,
        }
    }
}

/// Time on a processor, which another process cannot spoil; 0 where the system does not tell.
fn cpu_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    told.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn lease(task: TaskId) -> i64 {
    i64::from_be_bytes((task.value().wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes())
}
