//! The recorded run: the real broker and apps under the shim, real workers and clients, one kill -9 of the broker in the
//! middle, and of everything once the log has what the audit is about. Nobody here opens the database but processes whose
//! every write is recorded.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use laneway::{Client, Task, TaskId};
use laneway_protocol::LaneName;
use laneway_protocol::message::{End, HandedTask, Outcome, Verdict};

use super::app::App;
use super::log::{self, Marker, Record};
use super::plain::{Plain, run_plain};
use super::said::{By, Said, To, payload};
use super::shim::{Shim, log_of};
use crate::harness::{Broker, DEADLINE, Place, Random, WorkerProcess, wait_until};

/// Ends that plain workers were answered before the broker is killed, and again before all is.
const ENDS_PER_LIFE: u64 = 250;
/// Of the ladder that a task is taken up: stored, cancelled, requeued, cancelled.
const STEPS: u32 = 4;
/// Waits between two questions of one client.
const PAUSE: Duration = Duration::from_millis(8);

/// Records a run at this place with this `durability` until the log `has_enough`; gives the log.
pub(crate) fn record(place: &Place, durability: &str, has_enough: impl Fn(&[Record]) -> bool) -> PathBuf {
    let shim = Shim::build(place);
    let marker = Marker::open(&log_of(place));
    let settings = [format!("durability={durability}"), "defaults.backoff_base_ms=10".into()];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let start = || Broker::start_under(place, &settings, shim.env());
    let broker = start();
    let mut workers =
        [WorkerProcess::start(place, "name=one slots=2"), WorkerProcess::start(place, "name=two slots=1 batch=8")];
    let mut apps: Vec<App> = ["full", "normal", "sql_worker"].map(|app| App::start(place, &shim, app)).into();
    apps.push(App::start_python(place, &shim));

    let load = Load { place, stop: AtomicBool::new(false), ends: AtomicU64::new(0) };
    let broker = std::thread::scope(|scope| {
        let load = &load;
        scope.spawn(|| load.submit());
        scope.spawn(|| load.submit_and_wait());
        scope.spawn(|| load.climb());
        scope.spawn(|| load.pause_and_resume());
        for session in ["plain-1", "plain-2"] {
            scope.spawn(move || load.work(session));
        }
        load.wait_for_ends(ENDS_PER_LIFE);
        marker.locked(|| broker.kill());
        let broker = start();
        load.wait_for_ends(2 * ENDS_PER_LIFE);
        wait_until("a log that has enough", || has_enough(&log::read(&log_of(place))));
        load.stop.store(true, Ordering::SeqCst);
        broker
    });
    assert!(apps.iter_mut().all(App::is_running), "an app has ended");
    assert!(workers.iter_mut().all(WorkerProcess::is_running), "a worker has ended");
    marker.locked(|| {
        broker.kill();
        apps.into_iter().for_each(App::kill);
    });
    log_of(place)
}

/// The clients and workers in this process. Each waits out the broker's restart.
struct Load<'a> {
    place: &'a Place,
    stop: AtomicBool,
    ends: AtomicU64,
}

impl Load<'_> {
    fn wait_for_ends(&self, n: u64) {
        wait_until(&format!("{n} acknowledged ends"), || self.ends.load(Ordering::SeqCst) >= n);
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn client(&self) -> (Client, Marker) {
        let client = Client::connect_with(self.place.endpoint(), DEADLINE).unwrap();
        (client, Marker::open(&log_of(self.place)))
    }

    /// Submits of one to five tasks, each all or none, and such that meet a key.
    fn submit(&self) {
        let ((client, marker), random) = (self.client(), Random::new());
        let mut n = 0;
        for group in (0..).take_while(|_| !self.is_over()) {
            let of = 1 + random.below(5);
            let payloads: Vec<String> = (n..n + of).map(|n| payload(By::Wire, n, group, of)).collect();
            n += of;
            let key = (of == 1).then(|| format!("key {}", random.below(40)));
            let kind = ["echo", "plain", "sql", "fail_once"][usize::try_from(random.below(4)).unwrap()];
            let task = |payload: &String| match &key {
                Some(key) => json_task("never", payload).unique_key(key),
                None => json_task(kind, payload),
            };
            let stored = client.submit_many(payloads.iter().map(task)).unwrap();
            for (stored, payload) in stored.into_iter().zip(payloads) {
                let id = stored.task.value().cast_signed();
                match &key {
                    Some(key) if !stored.new => marker.say(&Said::Met { id, key: key.clone() }),
                    _ => marker.say(&Said::Stored { by: By::Wire, id, payload }),
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Foreground calls: some succeed, some fail for good.
    fn submit_and_wait(&self) {
        let ((client, marker), random) = (self.client(), Random::new());
        for n in (1_000_000..).take_while(|_| !self.is_over()) {
            let payload = payload(By::Wire, n, n, 1);
            let task = match random.below(4) {
                0 => json_task("fail", &payload).max_attempts(1),
                _ => json_task("echo", &payload),
            };
            let ended = client.submit_and_wait(task).unwrap();
            let id = ended.task.value().cast_signed();
            marker.say(&Said::Stored { by: By::Wire, id, payload });
            marker.say(&Said::Ended { id, state: ended.state.as_str().into(), to: To::Waiter });
            std::thread::sleep(PAUSE);
        }
    }

    /// Tasks that nobody runs: stored, cancelled, requeued, cancelled again.
    fn climb(&self) {
        let (client, marker) = self.client();
        for n in (2_000_000..).take_while(|_| !self.is_over()) {
            let payload = payload(By::Wire, n, n, 1);
            let task = client.submit(json_task("never", &payload)).unwrap().task;
            let id = task.value().cast_signed();
            marker.say(&Said::Stored { by: By::Wire, id, payload });
            marker.say(&Said::Climbed { id, step: 0 });
            for step in 1..STEPS {
                marker.say(&Said::Asked { id, step });
                climb_step(&client, task, step);
                marker.say(&Said::Climbed { id, step });
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// A lane that nobody uses.
    fn pause_and_resume(&self) {
        let (client, marker) = self.client();
        for n in (0_u32..).take_while(|_| !self.is_over()) {
            let (lane, paused) = (LaneName::new("low").unwrap(), n % 2 == 0);
            let said = |paused| (lane.as_str().to_owned(), paused);
            let (name, to) = said(paused);
            marker.say(&Said::Pausing { lane: name.clone(), paused: to });
            let (pause, resume) = if paused { (vec![lane], Vec::new()) } else { (Vec::new(), vec![lane]) };
            client.set_lanes(pause, resume).unwrap();
            marker.say(&Said::Paused { lane: name, paused });
            std::thread::sleep(4 * PAUSE);
        }
    }

    fn work(&self, session: &str) {
        let marker = Marker::open(&log_of(self.place));
        let random = Random::new();
        let finish = |task: &HandedTask| {
            if task.attempt == 1 && random.below(6) == 0 {
                let mut failed = Outcome::new(task.task, task.lease, End::Fail);
                (failed.error, failed.after_ms) = (Some("the first attempt fails".into()), Some(1));
                return failed;
            }
            let mut done = Outcome::new(task.task, task.lease, End::Done);
            done.result.clone_from(&task.payload);
            done
        };
        let plain = Plain { session, kind: "plain", committed: false, to: To::Worker };
        let on_end = || _ = self.ends.fetch_add(1, Ordering::SeqCst);
        run_plain(&self.place.endpoint(), &marker, &plain, finish, || self.is_over(), on_end);
    }
}

/// An answer that was lost with the broker is asked for again, and the step is found to be taken.
fn climb_step(client: &Client, task: TaskId, step: u32) {
    if step % 2 == 1 {
        let verdict = client.cancel(&[task]).unwrap()[0];
        assert!(matches!(verdict, Verdict::Cancelled | Verdict::Unchanged), "{verdict:?}");
    } else {
        let verdict = client.requeue(&[task]).unwrap()[0];
        assert!(matches!(verdict, Verdict::Requeued | Verdict::Unchanged), "{verdict:?}");
    }
}

fn json_task(kind: &str, payload: &str) -> Task {
    Task::new(kind).payload(&serde_json::from_str::<serde_json::Value>(payload).unwrap())
}
