//! Tests the invariant checker on a real node with a real API server. The tests plant each kind of fault once, and the
//! checker must find it.
//!
//! The tests stop agent and operator before they plant a fault, because both programs repair faults.

#[path = "invariants/checkpoint.rs"]
mod checkpoint;
#[path = "invariants/kernel.rs"]
mod kernel;
#[path = "invariants/namespaces.rs"]
mod namespaces;
#[path = "invariants/objects.rs"]
mod objects;
#[path = "invariants/stage.rs"]
mod stage;

use std::process::ExitCode;

use anyhow::Result;
use bobbin_e2e::single_node::{self, SingleNodeOptions};

fn main() -> Result<ExitCode> {
    let suite = single_node::suite(SingleNodeOptions::default())?;
    let tests = vec![
        suite.test("the checker finds each fault that is planted in assignments and pods", objects::assignments),
        suite.test("the checker finds each fault that is planted in blocks", objects::blocks),
        suite.test("the checker finds each fault that is planted in pools", objects::pools),
        suite.test("the checker finds each fault that is planted in the kernel", kernel::planted),
        suite.test("the checker finds what two nodes export", kernel::two_nodes),
        suite.test("the checker finds each fault that is planted in the checkpoint", checkpoint::planted),
        suite.test(
            "the checker finds a duplicate in two namespaces at once, and a leak only at rest",
            namespaces::planted,
        ),
    ];
    Ok(suite.run(tests))
}
