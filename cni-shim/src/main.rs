//! The CNI plugin that the container runtime executes. It sends one call to the agent and prints the answer.
//!
//! It decides nothing about addresses or links. It is static, small and without a JSON library, so that it starts at once.

mod agent;
mod answer;
mod call;
mod clock;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    answer::print(&call::run_call())
}
