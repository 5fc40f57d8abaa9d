//! The CNI plugin that the container runtime executes. The plugin sends one call to the agent and prints the answer.
//!
//! The plugin decides nothing about addresses or links. It is static and small and has no JSON library, so that it starts
//! quickly.

mod agent;
mod answer;
mod call;
mod clock;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    answer::print(&call::run_call())
}
