//! The schemas of the three kinds against a real kube-apiserver: each rule accepts what is right and refuses what is wrong
//! with its sentence, and nothing but that sentence.

#![allow(clippy::needless_pass_by_value, reason = "tests build objects out of objects")]

#[path = "schema/assignment.rs"]
mod assignment;
#[path = "schema/block.rs"]
mod block;
#[path = "schema/largest.rs"]
mod largest;
#[path = "schema/pool.rs"]
mod pool;
#[path = "schema/server.rs"]
mod server;
#[path = "schema/surface.rs"]
mod surface;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use server::Server;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, tests(&Server::absent())).exit_code());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let (control_plane, server) = runtime.block_on(Server::start())?;
    let conclusion = libtest_mimic::run(&arguments, tests(&server));
    drop(control_plane);
    Ok(conclusion.exit_code())
}

fn tests(server: &Server) -> Vec<libtest_mimic::Trial> {
    [pool::tests, block::tests, assignment::tests, largest::tests, surface::tests]
        .into_iter()
        .flat_map(|tests| tests(server))
        .collect()
}
