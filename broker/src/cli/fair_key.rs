//! `laneway fair-key`: what part a fair key gets beside others, and how much of it may run. Asked of the running broker, which
//! keeps it.

use clap::{Args, Subcommand};
use laneway_protocol::FairKey;
use laneway_protocol::message::{FairKeyRow, FairKeyValues, FairKeys, SetFairKey};

use super::kind::{bound, origins, pair, rate, read, unknown};
use super::output::{Table, or_dash};
use super::remote::Remote;
use super::{Common, Output, output};
use crate::error::Error;

/// List fair keys, and set their weights, caps and rates
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  laneway fair-key list\n  laneway fair-key set acme weight=3\n  laneway fair-key set '*' cap=20"
)]
pub(super) enum FairKeyCommand {
    /// List the keys that have values of their own or running tasks
    #[command(after_help = "Examples:\n  laneway fair-key list\n  laneway fair-key list -o json | jq .running")]
    List,
    /// Set values of a key, over those of the settings; kept until a reset, also over restarts
    ///
    /// weight: tasks that it is given for each one of a key of weight 1, 1 to 1000. cap: its tasks that run at a time. rate:
    /// starts in a second, minute, hour or day (10/s, 90/m, 1/h, 5/d). rate_burst: starts at once after a quiet time. `none`
    /// takes a cap or a rate away. The key '*' stands for every key that says nothing of its own.
    #[command(after_help = "\
Examples:
  laneway fair-key set acme weight=3
  laneway fair-key set acme rate=10/s rate_burst=20
  laneway fair-key set '*' cap=20")]
    Set(SetFairKeyArgs),
    /// Go back to what the settings say of these keys
    #[command(after_help = "Example:\n  laneway fair-key reset acme")]
    Reset(FairKeyArgs),
}

#[derive(Debug, Args)]
pub(super) struct FairKeyArgs {
    #[arg(required = true, value_name = "KEY", value_parser = fair_key)]
    fair_keys: Vec<FairKey>,
}

#[derive(Debug, Args)]
pub(super) struct SetFairKeyArgs {
    #[arg(value_name = "KEY", value_parser = fair_key)]
    fair_key: FairKey,
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
}

pub(super) fn run(common: &Common, command: FairKeyCommand) -> Result<(), Error> {
    let keys = match command {
        FairKeyCommand::List => FairKeys::default(),
        FairKeyCommand::Reset(args) => FairKeys { reset: args.fair_keys, ..FairKeys::default() },
        FairKeyCommand::Set(args) => {
            let values = values(&args.values)?;
            FairKeys { set: vec![SetFairKey { fair_key: args.fair_key, values }], ..FairKeys::default() }
        }
    };
    print(common, &Remote::expect(common)?.fair_keys(keys)?)
}

fn print(common: &Common, rows: &[FairKeyRow]) -> Result<(), Error> {
    if common.output == Output::Json {
        return rows.iter().try_for_each(output::json);
    }
    let mut table = Table::new(&["KEY", "WEIGHT", "RUNNING", "CAP", "RATE", "SET"]);
    for row in rows {
        table.row([
            row.fair_key.to_string(),
            row.weight.to_string(),
            row.running.to_string(),
            or_dash(row.cap),
            rate(row.rate, row.rate_burst),
            origins(&row.set, &row.settings),
        ]);
    }
    table.print()
}

fn values(pairs: &[(String, String)]) -> Result<FairKeyValues, Error> {
    let mut values = FairKeyValues::default();
    for (name, value) in pairs {
        match name.as_str() {
            "weight" => values.weight = Some(read(name, value)?),
            "cap" => values.cap = Some(bound(name, value)?),
            "rate" => values.rate = Some(read(name, value)?),
            "rate_burst" => values.rate_burst = Some(read(name, value)?),
            _ => return Err(unknown(name, "weight, cap, rate or rate_burst")),
        }
    }
    Ok(values)
}

pub(super) fn fair_key(text: &str) -> Result<FairKey, String> {
    FairKey::new(text).map_err(|error| error.to_string())
}
