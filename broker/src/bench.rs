//! `laneway bench`: placeholder for the command of that name.

use clap::Args;

use crate::error::Error;

/// Placeholder
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  laneway bench")]
pub(crate) struct BenchArgs {}

pub(crate) fn run(_: &BenchArgs) -> Result<(), Error> {
    Err(Error::other("run the benchmark", "it is not built in"))
}
