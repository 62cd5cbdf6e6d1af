//! That a task does not come to cost more unnoticed: counts the instructions of core, scheduler and SQLite store for one task,
//! from READY to the commit of its outcome. A busy machine counts like an idle one; times would differ. `bench/cost` is what runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the parts of a figure are for people")]

mod harness;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::output_of;
use harness::tools::{target, valgrind};

/// Figures repeat to 0.1 per cent on one machine. The rest is for another C library, C compiler or processor: they bring the
/// allocator, SQLite's code, and the way memory is copied.
const BAND_PERCENT: u64 = 7;

#[test]
fn a_task_of_a_batch_of_64_costs_what_it_did() {
    // Proves that a worker which takes 64 tasks at once costs the broker as many instructions for each as when this was set.
    check(64, 43_600);
}

#[test]
fn a_task_taken_alone_costs_what_it_did() {
    // Proves the same for workers that take one task at a time.
    check(1, 54_400);
}

#[track_caller]
fn check(batch: u32, expected: u64) {
    let (tasks, profile) = measure(batch);
    let parts = parts(&std::fs::read_to_string(&profile).unwrap());
    let cost = parts.values().sum::<u64>() / tasks;
    println!("instructions for each of {tasks} tasks, {batch} at a time: {cost}");
    for (part, instructions) in &parts {
        println!("{:>8}  {part}", instructions / tasks);
    }
    let (low, high) = (expected * (100 - BAND_PERCENT) / 100, expected * (100 + BAND_PERCENT) / 100);
    assert!(
        (low..=high).contains(&cost),
        "a task costs {cost} instructions, {batch} at a time; the band is {low} to {high}. The parts are above; `callgrind_annotate \
         {}` tells the functions. If the change is worth it, or the cost has fallen, set the number in this test to {cost} and say \
         why in the commit",
        profile.display()
    );
}

/// Drains a small database under callgrind: how many tasks were done, and the profile, which is kept for whoever looks.
fn measure(batch: u32) -> (u64, PathBuf) {
    let valgrind = valgrind();
    let program = build();
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("cost.db");
    output_of(Command::new(&program).arg("prepare").arg(&db).args(["--queued", "20000"]));
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{batch}.out"));
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--toggle-collect=*measured*"]);
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(&program).arg("run").arg(&db).args(["--tasks", "8000", "--batch", &batch.to_string()]);
    let said = output_of(&mut command);
    let tasks = said.lines().find_map(|line| line.strip_prefix("tasks ")).unwrap();
    (tasks.parse().unwrap(), profile)
}

/// Builds the program as it is measured, beside the profile of this very test, if that has not been done.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--profile", "measured", "--package", "laneway-cost", "--locked", "--target-dir"]);
    let status = cargo.arg(target()).current_dir(root).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "laneway-cost does not build");
    target().join("measured/laneway-cost")
}

/// Instructions by whose code they are in, out of callgrind's file: `fn=` names the function, and `ob=` the file it is from, that
/// the numbers below belong to; but one below a `calls=` is all that the callee took.
fn parts(profile: &str) -> BTreeMap<&'static str, u64> {
    let (mut objects, mut functions) = (HashMap::new(), HashMap::new());
    let (mut object, mut function, mut is_call) = ("", "", false);
    let mut parts = BTreeMap::new();
    for line in profile.lines() {
        match line.split_once('=') {
            Some(("ob", name)) => object = named(&mut objects, name),
            Some(("cob", name)) => drop(named(&mut objects, name)),
            Some(("fn", name)) => function = named(&mut functions, name),
            Some(("cfn", name)) => drop(named(&mut functions, name)),
            _ => {
                let is_count = line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first));
                if is_count && !is_call {
                    let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                    *parts.entry(part(object, function)).or_insert(0) += count;
                }
            }
        }
        is_call = line.starts_with("calls=");
    }
    parts
}

/// A name is written out once, with a number that stands for it later.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    let (number, name) = text.split_once(' ').unwrap_or((text, ""));
    if name.is_empty() { names[number] } else { names.entry(number).or_insert(name) }
}

fn part(object: &str, function: &str) -> &'static str {
    let of = |name| function.contains(name);
    match () {
        () if !object.ends_with("laneway-cost") => "C library",
        () if of("laneway_cost") => "workers of the measurement",
        () if of("laneway_core") => "core",
        () if of("laneway_broker") => "scheduler and store",
        () if of("::") => "Rust libraries",
        () => "SQLite",
    }
}
