//! The program `laneway`: hands its words to the command line and ends with the exit code that comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    laneway_broker::main(std::env::args_os())
}
