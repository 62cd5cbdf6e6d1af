//! `laneway web`: the dashboard as a process of its own, beside a broker that runs already or is away.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use crossbeam_channel::RecvTimeoutError;
use laneway_web::TraceUrl;

use super::{Common, output, remote};
use crate::config::Config;
use crate::error::Error;
use crate::signals::{self, Signal, Signals};
use crate::store::sqlite::SCHEMA_VERSION;
use crate::telemetry::{Rotator, Telemetry};

/// Any length will do.
const ANY_TIME: Duration = Duration::from_mins(1);

/// Show the dashboard of a broker, from a process of its own
///
/// The same as `laneway broker --web`, and it stays when the broker goes: then it shows what the database says. Needs the database
/// on this machine; the broker may have keys (--key, --broker-key). Ends on SIGTERM or Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway web --db /srv/app/app.db
  laneway web --db app.db --listen 0.0.0.0:9730 --access-file web.access --read-only
  laneway web --db app.db --link-key-file link.keys --cors-origin https://www.example.com")]
pub(super) struct WebArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9730")]
    listen: SocketAddr,

    /// Who is let in: lines of ROLE NAME SECRET, in a file of mode 600; read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    access_file: Option<PathBuf>,

    /// The path under which a reverse proxy shows it
    #[arg(long, value_name = "PATH", default_value = "")]
    base_path: String,

    /// A name of this host besides localhost; may be repeated
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// The keys of observer links, of `laneway link --new-key`; read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    link_key_file: Option<PathBuf>,

    /// An origin whose pages may show what such a link opens, or * for all; may be repeated
    #[arg(long, value_name = "ORIGIN", requires = "link_key_file")]
    cors_origin: Vec<String>,

    /// Where people look at a trace, as in `https://jaeger.example/trace/{trace_id}`
    #[arg(long, value_name = "URL")]
    trace_url: Option<TraceUrl>,

    /// Nobody may change anything
    #[arg(long)]
    read_only: bool,

    /// Show payloads and results to nobody
    #[arg(long)]
    hide_payloads: bool,
}

pub(super) fn run(common: &Common, args: &WebArgs) -> Result<(), Error> {
    // Signals first: they are taken from every thread that starts after this.
    let signals = Signals::install(signals::STOPS).map_err(|error| Error::other("take signals", error))?;
    let _telemetry =
        Telemetry::start(&Config::default(), Rotator::This).map_err(|error| Error::other("write a log", error))?;
    let (endpoint, curve) = remote::address(common)?;
    let db = remote::db(common);
    say_what_is_missing(&db, &endpoint)?;
    laneway::seed_libzmq();
    let settings = laneway_web::Settings {
        schema_known: Some(SCHEMA_VERSION),
        base_path: args.base_path.clone(),
        access_file: args.access_file.clone(),
        read_only: args.read_only,
        show_payloads: !args.hide_payloads,
        hosts: args.host.clone(),
        link_key_file: args.link_key_file.clone(),
        cors_origins: args.cors_origin.clone(),
        trace_url: args.trace_url.clone(),
        curve,
        ..laneway_web::Settings::new(args.listen, db, endpoint)
    };
    let web = laneway_web::start(settings).map_err(Error::dashboard)?;
    output::note(&format!("http://{}{}/", web.address(), args.base_path.trim_end_matches('/')));
    loop {
        match signals.next(ANY_TIME) {
            Ok(Signal::Stop | Signal::StopNow) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Signal::Reload) => web.reload(),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    web.stop();
    Ok(())
}

/// The dashboard may be started before what it shows, so what is not there yet is told and no reason to fail.
fn say_what_is_missing(db: &Path, endpoint: &str) -> Result<(), Error> {
    let shown = db.display();
    if db.is_dir() {
        return Err(Error::Usage(format!("--db {shown} is a folder: name the database file in it")));
    }
    if !db.exists() {
        let text = "there is no such database: pages show nothing of it until a broker has made it";
        output::note(&format!("laneway: {shown}: {text} (laneway broker --db {shown})"));
    }
    if !remote::is_alive(endpoint) {
        let text =
            "no broker answers yet: pages show what the database says, and nothing can be changed, until one does";
        output::note(&format!("laneway: {endpoint}: {text}"));
    }
    Ok(())
}
