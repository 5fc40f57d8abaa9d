//! Bobbin on a real cluster of three nodes: what a user sees, and what an administrator may do to it. The tests run one after
//! another on one cluster, which the first of them starts; each tidies up after itself, and the stage after it once more.

#[path = "cluster/calls.rs"]
mod calls;
#[path = "cluster/choice.rs"]
mod choice;
#[path = "cluster/full.rs"]
mod full;
#[path = "cluster/kernel.rs"]
mod kernel;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/outage.rs"]
mod outage;
#[path = "cluster/probe.rs"]
mod probe;
#[path = "cluster/reach.rs"]
mod reach;
#[path = "cluster/stage.rs"]
mod stage;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use stage::Stage;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Stage::build()?;
    let tests = [
        reach::tests,
        choice::tests,
        full::tests,
        calls::tests,
        lifecycle::tests,
        kernel::tests,
        outage::tests,
        nodes::tests,
    ];
    let trials = tests.into_iter().flat_map(|tests| tests(&stage)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage.clear();
    Ok(conclusion.exit_code())
}
