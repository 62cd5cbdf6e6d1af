//! Apps that write to the table by SQL, each a process of its own under the shim: this very test binary, started again, or
//! Python with the SQLite of the system. They go on until they are killed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use laneway_protocol::message::{End, HandedTask, Outcome};
use rusqlite::Connection;

use super::log::Marker;
use super::plain::{Plain, run_plain};
use super::said::{By, Said, To, payload};
use super::shim::{DATABASE, LOG, Shim, log_of};
use crate::harness::{DEADLINE, Place, Random, tools};

const APP: &str = "LANEWAY_POWER_APP";
const ENDPOINT: &str = "LANEWAY_POWER_ENDPOINT";

/// A checkpoint of the app's own whenever the log is this long, so that the log begins anew many times in a short run.
const CHECKPOINT_PAGES: u32 = 300;
/// Between two transactions.
const PAUSE_MS: u64 = 12;

/// A running app; killed when dropped.
pub(crate) struct App(Child);

impl App {
    /// `full` and `normal` insert with that `synchronous`; `sql_worker` ends its tasks by SQL, with `NORMAL`; `one_normal`
    /// inserts one task with `NORMAL`.
    pub(crate) fn start(place: &Place, shim: &Shim, app: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["app_process", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(APP, app).env(ENDPOINT, place.endpoint()).stdout(Stdio::null());
        Self::spawn(command, shim)
    }

    /// An app in Python, which commits as its SQLite does when nothing is set: `FULL`.
    pub(crate) fn start_python(place: &Place, shim: &Shim) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/power/app.py");
        let mut command = Command::new(tools::python3());
        command.arg(script).arg(place.db()).arg(log_of(place));
        Self::spawn(command, shim)
    }

    fn spawn(mut command: Command, shim: &Shim) -> Self {
        command.envs(shim.env().iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The body of the test `app_process`: nothing, unless [`App::start`] has started it.
pub(crate) fn app_main() {
    let Ok(app) = std::env::var(APP) else { return };
    let place = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let table = Connection::open(place(DATABASE)).unwrap();
    table.busy_timeout(DEADLINE).unwrap();
    let marker = Marker::open(&place(LOG));
    match app.as_str() {
        "full" => insert_for_ever(&table, &marker, By::Full),
        "normal" => insert_for_ever(&table, &marker, By::Normal),
        "sql_worker" => work_for_ever(&table, &marker),
        "one_normal" => insert_one(&table),
        other => panic!("no app is {other}"),
    }
}

fn insert_for_ever(table: &Connection, marker: &Marker, by: By) {
    table.pragma_update(None, "synchronous", if by == By::Full { "FULL" } else { "NORMAL" }).unwrap();
    table.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).unwrap();
    let random = Random::new();
    let mut n = 0;
    for group in 0.. {
        let of = 1 + random.below(4);
        let stored = insert_group(table, &random, by, n, group, of);
        n += of;
        for (id, payload) in stored {
            marker.say(&Said::Stored { by, id, payload });
            // It is the app's last word about this row, and may come while the row runs or has ended.
            if by == By::Full && random.below(8) == 0 {
                table.execute("UPDATE tasks SET cancel_requested = 1 WHERE id = ?1", [id]).unwrap();
                marker.say(&Said::Requested { id });
            }
        }
        std::thread::sleep(Duration::from_millis(random.below(2 * PAUSE_MS)));
    }
}

fn insert_one(table: &Connection) {
    table.pragma_update(None, "synchronous", "NORMAL").unwrap();
    table.execute("INSERT INTO tasks(kind, payload) VALUES ('plain', '1')", []).unwrap();
    // At its end it would move the log into the database, synced.
    std::thread::sleep(DEADLINE);
}

/// One transaction.
fn insert_group(table: &Connection, random: &Random, by: By, n: u64, group: u64, of: u64) -> Vec<(i64, String)> {
    let kinds = ["echo", "plain", "sql", "fail_once", "never"];
    table.execute_batch("BEGIN IMMEDIATE").unwrap();
    let insert = |n| {
        let kind = kinds[usize::try_from(random.below(5)).unwrap()];
        let payload = payload(by, n, group, of);
        // Of a group of its own: a key that is live stands for a row of somebody else.
        let key = (of == 1 && kind == "never").then(|| format!("key {}", random.below(40)));
        let sql = "INSERT INTO tasks(kind, payload, unique_key) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        let inserted = table.execute(sql, (kind, &payload, key)).unwrap();
        (inserted == 1).then(|| (table.last_insert_rowid(), payload))
    };
    let stored = (n..n + of).filter_map(insert).collect();
    table.execute_batch("COMMIT").unwrap();
    stored
}

/// Ends its tasks as docs/sql.md says, without a sync of its own.
fn work_for_ever(table: &Connection, marker: &Marker) {
    table.pragma_update(None, "synchronous", "NORMAL").unwrap();
    let finish = |task: &HandedTask| {
        let sql = "UPDATE tasks SET state = 'done', attempts = attempts + 1, result = payload, finished_at = 1 \
                   WHERE id = ?1 AND lease = ?2 AND state = 'running'";
        table.execute(sql, (task.task.value().cast_signed(), task.lease.value())).unwrap();
        Outcome::new(task.task, task.lease, End::Already)
    };
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let plain = Plain { session: "sql", kind: "sql", committed: true, to: To::SqlWorker };
    run_plain(&endpoint, marker, &plain, finish, || false, || ());
}
