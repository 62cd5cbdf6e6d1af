//! `simulate [--seeds FROM..TO | --long SECONDS]`: runs seeds until one fails. `LANEWAY_SEED=n` runs that one alone, aloud.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of tests says what it found")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use laneway_simulation::{Plan, report, run};

const USAGE: &str = "usage: simulate [--seeds FROM..TO | --long SECONDS], or LANEWAY_SEED=n simulate";

fn main() -> ExitCode {
    if let Ok(seed) = std::env::var("LANEWAY_SEED") {
        let Ok(seed) = seed.parse() else { return usage() };
        let ran = run(Plan { aloud: true, ..Plan::of(seed) });
        println!(
            "seed {seed}: {} steps, hash {:016x}, {}",
            ran.steps,
            ran.hash,
            ran.found.as_deref().unwrap_or("nothing found")
        );
        return if ran.found.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seeds, until) = match words[..] {
        [] => (0..1_000, None),
        ["--seeds", range] => {
            let Some((from, to)) = range.split_once("..") else { return usage() };
            let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { return usage() };
            (from..to, None)
        }
        ["--long", seconds] => {
            let Ok(seconds) = seconds.parse() else { return usage() };
            (0..u64::MAX, Some(Instant::now() + Duration::from_secs(seconds)))
        }
        _ => return usage(),
    };
    let (mut n, mut steps) = (0_u64, 0);
    for seed in seeds {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let ran = run(Plan::of(seed));
        (n, steps) = (n + 1, steps + ran.steps);
        if ran.found.is_some() {
            println!("{}", report(seed));
            return ExitCode::FAILURE;
        }
    }
    println!("{n} seeds, {steps} steps, nothing found");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
