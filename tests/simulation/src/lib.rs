//! A whole Laneway in one process, from one seed: the core, the scheduler on either store, and the SDK's link, with
//! everything between them virtual. [`run`] says what the auditor found, [`shrink`] looks for less that shows the same.

mod auditor;
mod faults;
mod host;
mod plan;
mod random;
mod row;
mod schedules;
mod tally;
mod trace;
mod worker;
mod workload;
mod world;

pub use plan::{Fault, Plan};
pub use tally::Tally;

use world::World;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What the auditor found, with the step and the virtual time at which it did.
    pub found: Option<String>,
    pub steps: u64,
    /// Of everything that happened.
    pub hash: u64,
    /// What happened last, for whoever looks for the bug.
    pub last: Vec<String>,
    pub tally: Tally,
}

/// The whole of one run. The same plan gives the same, to the byte.
pub fn run(plan: Plan) -> Ran {
    let mut world = World::new(plan);
    let found = world.run().err().map(|found| format!("step {}, {} ms: {found}", world.steps, world.now));
    Ran {
        found,
        steps: world.steps,
        hash: world.trace.hash(),
        last: world.trace.last_lines(),
        tally: world.auditor.tally,
    }
}

/// A smaller plan that still fails: fewer classes of faults, fewer tasks, workers and clients.
pub fn shrink(mut plan: Plan) -> Plan {
    let fails = |plan: &Plan| run(plan.clone()).found.is_some();
    for fault in plan.faults.clone() {
        let mut less = plan.clone();
        less.faults.retain(|other| *other != fault);
        if fails(&less) {
            plan = less;
        }
    }
    let less = Plan { schedules: 0, ..plan.clone() };
    if fails(&less) {
        plan = less;
    }
    let halve =
        [|plan: &mut Plan| plan.tasks /= 2, |plan: &mut Plan| plan.workers /= 2, |plan: &mut Plan| plan.clients /= 2];
    for halve in halve {
        loop {
            let mut less = plan.clone();
            halve(&mut less);
            if less.tasks == 0 || less.workers == 0 || less.clients == 0 || !fails(&less) {
                break;
            }
            plan = less;
        }
    }
    plan
}

/// What to print about a seed that fails: its last lines, what was found, and the least that still fails.
pub fn report(seed: u64) -> String {
    let ran = run(Plan::of(seed));
    let less = shrink(Plan::of(seed));
    let found = ran.found.unwrap_or_else(|| "nothing found".into());
    let smaller = run(less.clone()).found.unwrap_or_default();
    format!(
        "{}\nseed {seed}, {found}\nsmaller: {less:?}\n  {smaller}\nrepeat it aloud with LANEWAY_SEED={seed}",
        ran.last.join("\n")
    )
}
