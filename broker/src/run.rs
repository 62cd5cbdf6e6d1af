//! Builds the parts of the broker, starts its threads, joins them in stop order.
//!
//! | thread | inbox | does |
//! |---|---|---|
//! | router | the ROUTER socket, reports of the scheduler | the core: who gets what |
//! | scheduler | orders of the router, commits of apps | the table: one transaction a turn |
//! | checkpoint | the size of the WAL | moves the WAL into the database |
//! | access | handshakes of peers with keys | whether a key is on the list |
//! | web, live, rows | HTTP | the dashboard, which asks as a client does and only reads the table |
//! | main (here) | signals | starts and stops the others, tells them of settings that have changed |

use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use laneway::curve::KeyPair;
use laneway_core::{Broker, KindSettings, Settings, Start};
use laneway_protocol::message::{KindValues, LaneValues};
use laneway_protocol::{Epoch, Kind, SessionName};
use laneway_web::ShownSettings;

use crate::access::Access;
use crate::bounds;
use crate::clock::Clock;
use crate::config::{Config, Durability, LaneLimits, Resolved, ipc_path};
use crate::crowd::Crowd;
use crate::doorbell::doorbell;
use crate::error::Error;
use crate::monitor::Monitor;
use crate::reload::{Read, Reload};
use crate::router::{Links, Router, Stop, bind};
use crate::scheduler::{Pace, RetentionNews, Scheduler};
use crate::service::Service;
use crate::signals::Signals;
use crate::store::{Keeping, KnownKind, Limit, Limits, Opened, Rules, Store, StoreError, checkpoint, lock, sqlite};
use crate::telemetry::Telemetry;
use crate::wake;
use crate::watch::watch;

/// Orders of the router that wait for the scheduler, and reports that wait for the router, in messages.
const INBOX_MESSAGES_MAX: usize = 256;
/// Rows read ahead for a queue that even one slot serves: enough for the milliseconds that a synced turn takes.
const WINDOW_ROWS_MIN: usize = 128;
/// Rows that one step of pruning looks at.
const PRUNE_ROWS: usize = 1_000;
/// Tasks that one slice of a batch changes at most: its turn must not hold the write lock for long.
const BULK_ROWS: usize = 256;

/// Runs a broker until a signal ends it, or one of its threads does.
pub(crate) fn run(
    mut resolved: Resolved,
    read: Read<'_>,
    telemetry: &Telemetry,
    signals: &Signals,
) -> Result<(), Error> {
    laneway::seed_libzmq();
    let shown = ShownSettings::default();
    shown.set(resolved.shown());
    let config = &resolved.config.clone();
    let clock = Clock::start();
    let started = Instant::now();
    let database = |error: StoreError| Error::database(format!("open {}", config.db.display()), error);
    let mut lock = lock::acquire(&config.db).map_err(database)?;
    refuse_sockets_in_use(config)?;
    let connections_max = bounds::connections(config);
    bounds::guard_memory(config)?;
    // Before the database is touched: an address in use leaves no file, and no epoch that did not end well.
    let context = zmq::Context::new();
    remove_stale_sockets(config)?;
    let (access, guard, pair) = match Access::start(&context, &config.curve)? {
        Some((access, guard, pair)) => (Some(access), Some(guard), Some(pair)),
        None => (None, None, None),
    };
    let (socket, monitor, endpoints) = bind_for_ourselves(&context, config, pair.as_ref())?;
    lock.tell_endpoints(&endpoints).map_err(database)?;
    // Asks nothing of the broker until somebody looks.
    let web = web_settings(config, &endpoints, shown.clone()).map(laneway_web::start).transpose();
    let web = web.map_err(Error::dashboard)?;
    let mut store = sqlite::SqliteStore::open(&config.db, rules(config)).map_err(database)?;
    let (mut secret, mut seed) = ([0; 16], [0; 8]);
    getrandom::fill(&mut secret).map_err(|error| Error::other("get random bytes", error))?;
    getrandom::fill(&mut seed).map_err(|error| Error::other("get random bytes", error))?;
    let wal_hint = store.wal_hint();
    let opened = store.open_epoch(secret, clock.now()).map_err(database)?;
    let epoch = opened.epoch;
    let retention_news = bounded(1);
    let pace = pace(config, &opened.kinds, retention_news.1.clone());
    let core = Broker::new(settings(config), start(opened, secret, u64::from_ne_bytes(seed)), clock.now());

    let (to_scheduler, orders) = bounded(INBOX_MESSAGES_MAX);
    let (to_router, from_scheduler) = bounded(INBOX_MESSAGES_MAX);
    let (bell, bell_wait) = doorbell().map_err(|error| Error::other("make a doorbell", error))?;
    let stop = Arc::new(Stop::default());
    let (to_main, dumps) = bounded(1);
    let links = Links {
        bell: bell_wait,
        from_scheduler,
        to_scheduler,
        stop: Arc::clone(&stop),
        dumps: to_main,
        dropped_lines: telemetry.dropped(),
    };
    let scheduler = Scheduler::new(
        store,
        (orders, to_router, bell.clone()),
        clock,
        pace,
        wake::watch(&config.db),
        telemetry.task_log(),
    );
    let crowd = Crowd::new(connections_max);
    let router = Router::new((socket, monitor, crowd, guard), core, links, clock, config.stall_ms);
    let checkpoints = checkpoint::start(&config.db, wal_hint.clone(), config.wal_alarm_bytes).map_err(database)?;
    // From here on a stop is settled, no longer an end at once.
    signals.serve();
    let scheduler = spawn("scheduler", move || scheduler.run())?;
    let router = spawn("router", move || router.run())?;

    tell_ready(config, epoch, &endpoints, started);
    let service = Service::ready();
    let reopen = || {
        telemetry.reopen();
        if let Some(access) = &access {
            access.reload();
            bell.ring();
        }
        if let Some(web) = &web {
            web.reload();
        }
    };
    let mut reload = Reload { resolved, read, telemetry, to_scheduler: retention_news, wal_hint, shown };
    let has_ended =
        || router.is_finished() || scheduler.is_finished() || access.as_ref().is_some_and(Access::has_ended);
    watch(signals, (&stop, &dumps), &mut reload, service, (|| bell.ring(), reopen), has_ended);

    // Before the broker goes, of which it asks things.
    if let Some(web) = web {
        web.stop();
    }
    stop.now.store(true, Ordering::SeqCst);
    bell.ring();
    // Before the store's connection, which clears up the log when it is the last.
    checkpoints.stop();
    let router = router.join().unwrap_or_else(|_| Err(Error::other("go on", "the router thread panicked")));
    let access = access.map_or(Ok(()), Access::stop);
    let scheduler =
        scheduler.join().unwrap_or_else(|_| Err(StoreError::Broken("the scheduler thread panicked".into())));
    if let Err(error) = &scheduler {
        // Whoever reads only the log is told as well.
        tracing::error!(target: "laneway", epoch = epoch.0, %error, "the database ends the broker");
    }
    remove_stale_sockets(config)?;
    scheduler.map_err(|error| Error::database(format!("go on with {}", config.db.display()), error))?;
    router?;
    access?;
    tracing::info!(target: "laneway", epoch = epoch.0, "stopped");
    Ok(())
}

/// What the dashboard is told, when there is to be one.
fn web_settings(config: &Config, endpoints: &[String], shown: ShownSettings) -> Option<laneway_web::Settings> {
    let web = &config.web;
    let bind = web.bind?;
    // Those without keys come first, as they were bound.
    let plain = endpoints.iter().take(config.bind.len());
    let endpoint = plain.min_by_key(|endpoint| !endpoint.starts_with("ipc://"));
    let endpoint = endpoint.expect("settings with a dashboard have an endpoint without keys");
    Some(laneway_web::Settings {
        schema_known: Some(sqlite::SCHEMA_VERSION),
        base_path: web.base_path.clone(),
        access_file: web.access_file.clone(),
        read_only: web.read_only,
        show_payloads: !web.hide_payloads,
        hosts: web.hosts.clone(),
        link_key_file: web.link_key_file.clone(),
        cors_origins: web.cors_origins.clone(),
        trace_url: web.trace_url.clone(),
        shown,
        ..laneway_web::Settings::new(bind, config.db.clone(), endpoint.clone())
    })
}

/// What would keep the dashboard of these settings from its start. While a broker runs on the database, an address in use is taken
/// for that one's own.
pub(crate) fn check_web(config: &Config, is_running: bool) -> Vec<laneway_web::Error> {
    let Some(settings) = web_settings(config, &config.bind, ShownSettings::default()) else { return Vec::new() };
    let mut wrong = laneway_web::check(&settings);
    wrong.retain(|error| !(is_running && error.is_in_use()));
    wrong
}

fn tell_ready(config: &Config, epoch: Epoch, endpoints: &[String], started: Instant) {
    tracing::info!(
        target: "laneway",
        epoch = epoch.0,
        db = %config.db.display(),
        endpoints = %endpoints.join(" "),
        ready_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
}

fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(body);
    thread.map_err(|error| Error::other(format!("start the {name} thread"), error))
}

pub(crate) fn rules(config: &Config) -> Rules {
    Rules {
        lanes: config.lanes.clone(),
        default_lane: config.default_lane.clone(),
        kind_lanes: config.kinds.iter().filter_map(|(kind, own)| Some((kind.clone(), own.lane.clone()?))).collect(),
        payload_bytes_max: config.payload_bytes_max,
        full_durability: config.durability == Durability::Full,
    }
}

/// What the settings say of how long ended tasks are kept, and what was set over it in earlier lives.
fn keeping(config: &Config, known: &[KnownKind]) -> Keeping {
    Keeping::new(retention_news(config).limits, kind_values(config), known)
}

/// What the settings say of how long ended tasks are kept, where no kind differs.
pub(crate) fn retention_news(config: &Config) -> RetentionNews {
    let own = &config.retention;
    let limit = |age_ms, count_max| Limit { age_ms, count_max };
    let limits = Limits {
        done: limit(Some(own.done_age_ms), own.done_count_max),
        cancelled: limit(own.cancelled_age_ms, own.cancelled_count_max),
        dead: limit(own.dead_age_ms, own.dead_count_max),
    };
    RetentionNews { limits, interval_ms: own.interval_ms }
}

fn pace(config: &Config, known: &[KnownKind], retention_news: Receiver<RetentionNews>) -> Pace {
    Pace {
        poll: Duration::from_micros(config.poll_us),
        lanes: config.lanes.clone(),
        turn_rows: config.scheduler_turn_rows,
        window_bytes: config.window_bytes_max,
        full_durability: config.durability == Durability::Full,
        keeping: keeping(config, known),
        prune_interval_ms: config.retention.interval_ms,
        prune_rows: PRUNE_ROWS,
        retention_news,
    }
}

/// What the settings say of single kinds.
fn kind_values(config: &Config) -> BTreeMap<Kind, KindValues> {
    let values = |own: &crate::config::KindSettings| KindValues {
        cap: own.cap,
        rate: own.rate,
        rate_burst: own.rate_burst,
        lane: own.lane.clone(),
        max_attempts: own.max_attempts,
        timeout_ms: own.timeout_ms,
        backoff_base_ms: own.backoff_base_ms,
        backoff_max_ms: own.backoff_max_ms,
        done_age_ms: own.done_age_ms,
        done_count_max: own.done_count_max,
        cancelled_age_ms: own.cancelled_age_ms,
        cancelled_count_max: own.cancelled_count_max,
        dead_age_ms: own.dead_age_ms,
        dead_count_max: own.dead_count_max,
    };
    config.kinds.iter().map(|(kind, own)| (kind.clone(), values(own))).collect()
}

pub(crate) fn settings(config: &Config) -> Settings {
    let defaults = KindSettings {
        lane: config.default_lane.clone(),
        max_attempts: config.defaults.max_attempts,
        timeout_ms: config.defaults.timeout_ms,
        backoff_base_ms: config.defaults.backoff_base_ms,
        backoff_max_ms: config.defaults.backoff_max_ms,
    };
    let lane_values = config.lane_limits.iter().map(|(lane, own)| {
        let LaneLimits { cap, rate, rate_burst, share } = own.clone();
        (lane.clone(), LaneValues { cap, rate, rate_burst, share })
    });
    Settings {
        lanes: config.lanes.clone(),
        kinds: HashMap::new(),
        kind_values: kind_values(config),
        lane_values: lane_values.collect(),
        fair_key_values: config.fair_keys.clone(),
        defaults,
        losses_max: config.defaults.losses_max,
        resume_grace_ms: config.resume_grace_ms,
        restart_hold_ms: config.restart_hold_ms,
        disconnect_grace_ms: config.disconnect_grace_ms,
        cancel_grace_ms: config.cancel_grace_ms,
        abandon_grace_ms: config.abandon_grace_ms,
        beat_ms: config.beat_ms,
        payload_bytes_max: config.payload_bytes_max,
        result_bytes_max: config.result_bytes_max.unwrap_or(config.payload_bytes_max),
        window_rows_min: WINDOW_ROWS_MIN,
        window_rows_max: config.window_rows_max,
        window_bytes_max: config.window_bytes_max,
        backlog_bytes_max: config.backlog_bytes_max,
        sessions_max: config.sessions_max,
        kinds_max: config.kinds_max,
        waiters_max: config.waiters_max,
        bulk_rows: BULK_ROWS,
    }
}

pub(crate) fn start(opened: Opened, secret: [u8; 16], seed: u64) -> Start {
    let sessions =
        opened.sessions.into_iter().filter_map(|known| Some((SessionName::new(known.session).ok()?, known.plain)));
    Start {
        version: env!("CARGO_PKG_VERSION").into(),
        epoch: opened.epoch,
        secret,
        past_secrets: opened.past_secrets,
        seed,
        running: opened.running,
        sessions: sessions.collect(),
        unclean: opened.unclean,
        paused: opened.paused,
        kinds: opened.kinds.into_iter().map(|known| (known.kind, known.paused, known.values)).collect(),
        lanes: opened.lanes,
        fair_keys: opened.fair_keys,
    }
}

/// libzmq would take a socket over without a word, and with it the clients of the broker that listens there. The lock does
/// not help when that one has another database.
fn refuse_sockets_in_use(config: &Config) -> Result<(), Error> {
    for path in ipc_paths(config) {
        if UnixStream::connect(path).is_ok() {
            return Err(Error::other(format!("listen on {}", path.display()), "another broker listens there"));
        }
    }
    Ok(())
}

/// A socket file that an earlier broker left would keep libzmq from nothing, but its mode would stay; the lock on the
/// database says that no broker of this database is using it.
fn remove_stale_sockets(config: &Config) -> Result<(), Error> {
    use std::os::unix::fs::FileTypeExt;
    for path in ipc_paths(config) {
        // Whatever else lies at the path is somebody's file; binding will name it.
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            std::fs::remove_file(path)
                .map_err(|error| Error::other(format!("remove the old socket {}", path.display()), error))?;
        }
    }
    Ok(())
}

/// Binds every endpoint; no socket file is open to others, not for a moment either.
fn bind_for_ourselves(
    context: &zmq::Context,
    config: &Config,
    pair: Option<&KeyPair>,
) -> Result<(zmq::Socket, Monitor, Vec<String>), Error> {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = bind(context, config, pair);
    nix::sys::stat::umask(umask);
    let bound = bound?;
    restrict_sockets(config)?;
    Ok(bound)
}

/// Only this user may connect: one peer that is not trusted can end libzmq itself.
fn restrict_sockets(config: &Config) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    for path in ipc_paths(config) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| Error::other(format!("restrict the socket {}", path.display()), error))?;
    }
    Ok(())
}

fn ipc_paths(config: &Config) -> impl Iterator<Item = &Path> {
    config.bind.iter().chain(&config.curve.bind).filter_map(|endpoint| ipc_path(endpoint))
}
