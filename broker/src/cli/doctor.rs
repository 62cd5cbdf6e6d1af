//! `laneway doctor`: what is wrong with how a broker is set up on this machine, each finding with its fix. It changes nothing, and a
//! broker may run meanwhile.

use std::fs::{self, Metadata};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{FsType, statfs};
use serde_json::json;

use super::{Common, Output, broker, output, remote, when};
use crate::bounds::DESCRIPTORS_KEPT;
use crate::config::{Config, IPC_PATH_BYTES_MAX, Resolved, ipc_path};
use crate::error::{Error, Exit};
use crate::run::check_web;
use crate::store::{StoreError, offline};

/// Free space below which a broker is in danger, and below which it is soon.
const FREE_BYTES_BAD: u64 = 64 * 1024 * 1024;
const FREE_BYTES_LOW: u64 = 1024 * 1024 * 1024;
/// A write-ahead log over this cannot shrink, or is about to be moved.
const WAL_BYTES_LONG: u64 = 256 * 1024 * 1024;
/// Syncs that are timed, and how long the middle one of them may take.
const SYNCS: usize = 9;
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// How far the newest row may lie in the future.
const AHEAD_MAX_MS: i64 = 60_000;
/// The clocks of machines without a battery begin here or before.
const YEAR_2025_MS: i64 = 1_735_689_600_000;
/// Watchers of folders that one user may have.
const WATCHES: &str = "/proc/sys/fs/inotify/max_user_instances";
const WATCHES_LOW: u64 = 16;

/// Where locks or shared memory do not work as SQLite's log needs them, by `statfs`.
const REMOTE: [(i64, &str); 8] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x0102_1997, "9p"),
    (0x7375_7245, "Coda"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
];
const FUSE: i64 = 0x6573_5546;
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Look for what is wrong with how a broker is set up here: permissions, file system, log, clock, ports, keys, dashboard, disk
///
/// Changes nothing; a broker may run meanwhile. Each finding comes with its fix. Ends with 0 when nothing is bad, else with 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway doctor --db /srv/app/app.db
  laneway doctor --config /etc/laneway/laneway.toml -o json")]
pub(super) struct DoctorArgs {
    /// The settings that the broker has [default: none, or LANEWAY_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    Odd,
    Bad,
}

#[derive(Debug)]
struct Finding {
    health: Health,
    /// What was looked at.
    about: &'static str,
    what: String,
    fix: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

pub(super) fn run(common: &Common, args: &DoctorArgs) -> Result<(), Error> {
    let mut found = Findings::default();
    match broker::settings(common, args.config.clone()) {
        Ok(resolved) => {
            found.good("settings", "they are consistent".into());
            for warning in &resolved.warnings {
                // Some say what to do behind what is odd.
                let (what, fix) = warning.split_once("; ").unwrap_or((warning, "change the setting"));
                found.odd("settings", what.into(), fix.into());
            }
            found.log_file(&resolved);
            examine(&mut found, &resolved.config);
        }
        Err(error) => found.bad("settings", error.to_string(), "correct the setting, then run this again".into()),
    }
    found.print(common.output)?;
    if found.0.iter().any(|finding| finding.health == Health::Bad) { Err(Error::Judged(Exit::Failure)) } else { Ok(()) }
}

fn examine(found: &mut Findings, config: &Config) {
    let folder = folder_of(&config.db);
    let running = remote::running(&config.db);
    found.folder(&folder);
    found.file_system(&folder);
    found.space(&folder);
    found.syncs(&folder);
    found.database(&config.db);
    found.owners(&config.db);
    found.log(&config.db, running.as_deref());
    found.clock(&config.db);
    found.endpoints(config, running.as_deref());
    found.keys(config);
    found.dashboard(config, running.is_some());
    found.limits(config);
}

fn folder_of(file: &Path) -> PathBuf {
    let real = file.canonicalize().unwrap_or_else(|_| file.into());
    real.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or_else(|| ".".into(), Into::into)
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.canonicalize().unwrap_or_else(|_| database.into()).into_os_string();
    path.push(suffix);
    path.into()
}

impl Findings {
    fn log_file(&mut self, resolved: &Resolved) {
        let Some(file) = &resolved.config.log_file else { return };
        match broker::check_log_file(resolved) {
            Ok(()) => self.good("log file", format!("{} can be written", file.display())),
            Err(error) => {
                let fix = "make the folder, let this user write there, or name another file: log_file";
                self.bad("log file", error.to_string(), fix.into());
            }
        }
    }

    fn folder(&mut self, folder: &Path) {
        let shown = folder.display();
        let Ok(meta) = fs::metadata(folder) else {
            return self.bad("folder", format!("{shown} is not there"), format!("mkdir -p {shown}"));
        };
        if let Err(error) = tempfile::tempfile_in(folder) {
            let fix =
                format!("give this user the folder: chown $(id -u) {shown}; SQLite makes its log beside the database");
            return self.bad("folder", format!("{shown} cannot be written: {error}"), fix);
        }
        if meta.permissions().mode() & 0o002 != 0 && meta.permissions().mode() & 0o1000 == 0 {
            return self.odd("folder", format!("every user may write to {shown}"), format!("chmod o-w {shown}"));
        }
        self.good("folder", format!("{shown} can be written"));
    }

    fn file_system(&mut self, folder: &Path) {
        if let Ok(FsType(kind)) = statfs(folder).map(|stat| stat.filesystem_type()) {
            self.file_system_is(folder, kind);
        }
    }

    fn file_system_is(&mut self, folder: &Path, kind: i64) {
        let remote = REMOTE.iter().find(|(number, _)| *number == kind);
        if let Some((_, name)) = remote {
            let fix = "put the database on a local disk; share the broker by its port, not its file";
            return self.bad(
                "file system",
                format!("{} is {name}, where a write-ahead log is not safe", folder.display()),
                fix.into(),
            );
        }
        if MEMORY.contains(&kind) {
            let what = format!("{} is in memory: a power loss takes all of it", folder.display());
            return self.odd("file system", what, "put the database on a disk, unless you can do without it".into());
        }
        if kind == FUSE {
            let fix = "make sure that it has POSIX locks and shared memory, or use a local disk";
            return self.odd("file system", format!("{} is a FUSE file system", folder.display()), fix.into());
        }
        self.good("file system", "a local one".into());
    }

    fn space(&mut self, folder: &Path) {
        let Ok(stat) = statfs(folder) else { return };
        self.free(stat.blocks_available().saturating_mul(u64::try_from(stat.block_size()).unwrap_or(0)));
    }

    fn free(&mut self, free: u64) {
        let what = format!("{} MB free", free / 1_000_000);
        let fix = "make room, or let rows go earlier: retention.done_age_ms, retention.done_count_max";
        match free {
            ..FREE_BYTES_BAD => self.bad("disk", what, fix.into()),
            FREE_BYTES_BAD..FREE_BYTES_LOW => self.odd("disk", what, fix.into()),
            FREE_BYTES_LOW.. => self.good("disk", what),
        }
    }

    fn syncs(&mut self, folder: &Path) {
        if let Ok(median) = median_sync(folder) {
            self.sync_takes(median);
        }
    }

    fn sync_takes(&mut self, median: Duration) {
        let what = format!("a sync takes {:.1} ms", median.as_secs_f64() * 1_000.0);
        if median > SYNC_SLOW {
            let fix = "each acknowledged submit waits for one: a faster disk, many tasks in one submit, or durability = \"normal\"";
            return self.odd("disk", what, fix.into());
        }
        self.good("disk", what);
    }

    fn database(&mut self, path: &Path) {
        let shown = path.display();
        if !path.exists() {
            return self.good("database", format!("{shown} is not there yet; the broker makes it"));
        }
        match offline::schemas(path) {
            Ok((found, known)) if found < known => {
                let what = format!("{shown} has schema {found}, this program brings {known}");
                self.odd(
                    "database",
                    what,
                    "the next start of the broker upgrades it; make a backup first: laneway db backup".into(),
                );
            }
            Ok((schema, _)) => self.good("database", format!("{shown} has schema {schema}")),
            Err(StoreError::SchemaTooNew { found, known }) => {
                let what = format!("{shown} has schema {found}, this program knows {known}");
                self.bad("database", what, "use the newer program that made it".into());
            }
            Err(error) => self.bad("database", format!("{shown}: {error}"), format!("laneway db check --db {shown}")),
        }
    }

    /// A log of another user than the file's is one that somebody else cannot open.
    fn owners(&mut self, path: &Path) {
        let Ok(database) = fs::metadata(path) else { return };
        let who = |meta: &Metadata| (meta.uid(), meta.gid());
        let strangers: Vec<String> = ["-wal", "-shm", ".lock"]
            .iter()
            .map(|suffix| beside(path, suffix))
            .filter(|file| fs::metadata(file).is_ok_and(|meta| who(&meta) != who(&database)))
            .map(|file| file.display().to_string())
            .collect();
        let (uid, gid) = who(&database);
        if strangers.is_empty() {
            return self.good("owners", format!("database and log belong to user {uid}, group {gid}"));
        }
        let fix = format!("stop the broker and the apps, then chown {uid}:{gid} {}", strangers.join(" "));
        self.odd("owners", format!("{} belong to somebody else than the database", strangers.join(", ")), fix);
    }

    fn log(&mut self, path: &Path, running: Option<&str>) {
        if !path.exists() {
            return;
        }
        let bytes = fs::metadata(beside(path, "-wal")).map_or(0, |meta| meta.len());
        let what = format!("the write-ahead log has {} kB", bytes / 1_000);
        if bytes < WAL_BYTES_LONG {
            return self.good("log", what);
        }
        let fix = match running {
            Some(_) => "a reader holds a transaction open: laneway db status says whether, then end it",
            None => "start a broker, which moves it into the database",
        };
        self.odd("log", what, fix.into());
    }

    fn clock(&mut self, path: &Path) {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        let fix = "set the clock, by NTP for example: times of tasks are wall-clock times";
        if now < YEAR_2025_MS {
            return self.bad("clock", format!("it says {}", when::show(now)), fix.into());
        }
        let newest = if path.exists() { offline::newest_time(path).ok().flatten() } else { None };
        match newest.filter(|newest| *newest > now + AHEAD_MAX_MS) {
            Some(newest) => {
                let what = format!("it says {}, and the newest task is of {}", when::show(now), when::show(newest));
                self.odd("clock", what, fix.into());
            }
            None => self.good("clock", format!("it says {}", when::show(now))),
        }
    }

    fn endpoints(&mut self, config: &Config, running: Option<&str>) {
        if let Some(endpoint) = running {
            return self.good("broker", format!("one runs on this database and answers at {endpoint}"));
        }
        self.good("broker", "none runs on this database".into());
        for endpoint in config.bind.iter().chain(&config.curve.bind) {
            if let Some(path) = ipc_path(endpoint) {
                self.socket(path);
            } else if let Some(address) = endpoint.strip_prefix("tcp://") {
                self.port(address);
            }
        }
    }

    fn socket(&mut self, path: &Path) {
        let (shown, bytes) = (path.display(), path.as_os_str().len());
        if bytes > IPC_PATH_BYTES_MAX {
            let what = format!("{shown} has {bytes} bytes, a socket may have {IPC_PATH_BYTES_MAX}");
            return self.bad("socket", what, "use a shorter path: bind".into());
        }
        if let Err(error) = tempfile::tempfile_in(folder_of(path)) {
            let what = format!("{shown} cannot be made: {error}");
            return self.bad("socket", what, "give this user its folder, or use another path: bind".into());
        }
        self.good("socket", format!("{shown} can be made"));
    }

    fn port(&mut self, address: &str) {
        // Wildcards and interfaces are libzmq's to resolve.
        if address.starts_with('*') || address.ends_with(":0") || address.ends_with('*') {
            return;
        }
        match TcpListener::bind(address) {
            Ok(_) => self.good("port", format!("{address} is free")),
            Err(error) => {
                let fix = "end what listens there (ss -ltnp shows it), or listen elsewhere: bind";
                self.bad("port", format!("{address}: {error}"), fix.into());
            }
        }
    }

    fn keys(&mut self, config: &Config) {
        let Some(file) = &config.curve.key_file else { return };
        if let Err(error) = crate::access::check(&config.curve) {
            return self.bad(
                "keys",
                error.chain(),
                "laneway keygen makes a pair; the folder holds the peers' public files".into(),
            );
        }
        let mode = fs::metadata(file).map_or(0, |meta| meta.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            let what = format!("others may read the secret {} (mode {mode:o})", file.display());
            return self.bad("keys", what, format!("chmod 600 {}", file.display()));
        }
        self.good("keys", format!("{} is the broker's, and nobody else's to read", file.display()));
    }

    fn dashboard(&mut self, config: &Config, is_running: bool) {
        let Some(bind) = config.web.bind else { return };
        let wrong = check_web(config, is_running);
        if wrong.is_empty() {
            let is = if is_running { "can be listened at, or the broker does" } else { "can be listened at" };
            return self.good("dashboard", format!("{bind} {is}; the files that its settings name can be used"));
        }
        for error in wrong {
            let fix = error.fix();
            self.bad("dashboard", Error::Dashboard(error).chain(), fix);
        }
    }

    fn limits(&mut self, config: &Config) {
        let wanted = config.connections_max as u64 + DESCRIPTORS_KEPT;
        let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(wanted, |(_, most)| most);
        if most < wanted {
            let what = format!("{most} open files are allowed, connections_max and the broker need {wanted}");
            self.odd(
                "limits",
                what,
                "raise it (LimitNOFILE= under systemd, ulimit -Hn), or lower connections_max".into(),
            );
        } else {
            self.good("limits", format!("{most} open files are allowed, {wanted} needed at most"));
        }
        if let Some(n) = fs::read_to_string(WATCHES).ok().and_then(|text| text.trim().parse().ok()) {
            self.watchers(n);
        }
    }

    fn watchers(&mut self, n: u64) {
        if n < WATCHES_LOW {
            let what = format!("a user may have {n} inotify watchers; without one the broker polls for new rows");
            self.odd("limits", what, "sysctl fs.inotify.max_user_instances=128".into());
        }
    }

    fn good(&mut self, about: &'static str, what: String) {
        self.0.push(Finding { health: Health::Good, about, what, fix: None });
    }

    fn odd(&mut self, about: &'static str, what: String, fix: String) {
        self.0.push(Finding { health: Health::Odd, about, what, fix: Some(fix) });
    }

    fn bad(&mut self, about: &'static str, what: String, fix: String) {
        self.0.push(Finding { health: Health::Bad, about, what, fix: Some(fix) });
    }

    fn print(&self, format: Output) -> Result<(), Error> {
        for Finding { health, about, what, fix } in &self.0 {
            let health = health.word();
            match (format, fix) {
                (Output::Json, _) => {
                    output::json(&json!({ "health": health, "about": about, "what": what, "fix": fix }))?;
                }
                (Output::Table, None) => output::line(&output::clean(&format!("{health:<5} {about:<12} {what}")))?,
                (Output::Table, Some(fix)) => {
                    output::line(&output::clean(&format!("{health:<5} {about:<12} {what}")))?;
                    output::line(&output::clean(&format!("{:<18} fix: {fix}", "")))?;
                }
            }
        }
        Ok(())
    }
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Odd => "odd",
            Self::Bad => "bad",
        }
    }
}

/// Of a page appended to a file in this folder.
fn median_sync(folder: &Path) -> std::io::Result<Duration> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(folder)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How it is judged, and that all but a good one comes with a fix.
    fn judged(look: impl FnOnce(&mut Findings)) -> Option<Health> {
        let mut found = Findings::default();
        look(&mut found);
        let finding = found.0.pop()?;
        assert_eq!(finding.fix.is_none(), finding.health == Health::Good, "{finding:?}");
        Some(finding.health)
    }

    #[test]
    fn what_no_test_can_make_of_a_machine_is_judged() {
        // Proves the findings of a full disk, a slow one, a remote file system and a machine that is out of watchers.
        let free = |bytes| judged(|found| found.free(bytes));
        assert_eq!(free(FREE_BYTES_BAD - 1), Some(Health::Bad));
        assert_eq!(free(FREE_BYTES_BAD), Some(Health::Odd));
        assert_eq!(free(FREE_BYTES_LOW), Some(Health::Good));
        let sync = |time| judged(|found| found.sync_takes(time));
        assert_eq!(sync(SYNC_SLOW), Some(Health::Good));
        assert_eq!(sync(SYNC_SLOW * 2), Some(Health::Odd));
        let kind = |kind| judged(|found| found.file_system_is(Path::new("/srv"), kind));
        assert!(REMOTE.iter().all(|(remote, _)| kind(*remote) == Some(Health::Bad)));
        assert_eq!((kind(FUSE), kind(MEMORY[0])), (Some(Health::Odd), Some(Health::Odd)));
        assert_eq!(kind(0xef53), Some(Health::Good), "ext4");
        assert_eq!(judged(|found| found.watchers(WATCHES_LOW - 1)), Some(Health::Odd));
        assert_eq!(judged(|found| found.watchers(WATCHES_LOW)), None);
    }
}
