//! The chart on a real kube-apiserver, and what an agent with a real token, bound to a pod of node n1, may do there: write in
//! the name of n1, and in no other.

#[path = "policy/assignments.rs"]
mod assignments;
#[path = "policy/blocks.rs"]
mod blocks;
#[path = "policy/place.rs"]
mod place;
#[path = "policy/roles.rs"]
mod roles;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use place::Place;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, tests(&Place::absent())).exit_code());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let (control_plane, place) = runtime.block_on(Place::make())?;
    let conclusion = libtest_mimic::run(&arguments, tests(&place));
    drop(control_plane);
    Ok(conclusion.exit_code())
}

fn tests(place: &Place) -> Vec<Trial> {
    [blocks::tests, assignments::tests, roles::tests].into_iter().flat_map(|tests| tests(place)).collect()
}
