//! The operator against a real kube-apiserver. Two of them work at once in every test, without an election: whatever holds
//! here holds for two leaders. The tests play the agents: they claim, record and give back.

#[path = "operator/carving.rs"]
mod carving;
#[path = "operator/finish.rs"]
mod finish;
#[path = "operator/leaders.rs"]
mod leaders;
#[path = "operator/lenient.rs"]
mod lenient;
#[path = "operator/nodes.rs"]
mod nodes;
#[path = "operator/overlap.rs"]
mod overlap;
#[path = "operator/status.rs"]
mod status;
#[path = "operator/world.rs"]
mod world;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use world::World;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, tests(&World::absent())).exit_code());
    }
    bobbin_observability::init_logs(bobbin_observability::LogFormat::Text);
    let runtime = tokio::runtime::Runtime::new()?;
    let (control_plane, world) = runtime.block_on(World::start())?;
    let conclusion = libtest_mimic::run(&arguments, tests(&world));
    world.stop();
    drop(control_plane);
    Ok(conclusion.exit_code())
}

fn tests(world: &World) -> Vec<libtest_mimic::Trial> {
    [carving::tests, overlap::tests, finish::tests, nodes::tests, status::tests, leaders::tests, lenient::tests]
        .into_iter()
        .flat_map(|tests| tests(world))
        .collect()
}
