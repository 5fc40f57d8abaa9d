//! The CNI plugin that the container runtime executes: it carries one call to the agent and the answer back, nothing else.
//!
//! It decides nothing about addresses or links, knows no JSON, and is small and static so that it starts at once.

mod agent;
mod answer;
mod call;
mod clock;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    answer::print(&call::carry())
}
