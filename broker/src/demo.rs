//! `laneway demo`: placeholder for the command of that name.

use std::path::PathBuf;

use clap::Args;

use crate::error::Error;

/// Placeholder
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway demo ~/Documents")]
pub(crate) struct DemoArgs {
    /// The folder whose files are worked on [default: this one]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &DemoArgs) -> Result<(), Error> {
    Err(Error::other(format!("run the demo on {:?}", args.dir), "it is not built in"))
}
