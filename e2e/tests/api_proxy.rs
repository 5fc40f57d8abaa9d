//! Tests the fault proxy in front of a real API server. Each fault does what its name says, and a real agent and
//! operator survive it.

#[path = "api_proxy/clients.rs"]
mod clients;
#[path = "api_proxy/programs.rs"]
mod programs;
#[path = "api_proxy/requests.rs"]
mod requests;
#[path = "api_proxy/watches.rs"]
mod watches;

use std::process::ExitCode;

use anyhow::Result;
use bobbin_e2e::single_node::{self, SingleNodeOptions};

fn main() -> Result<ExitCode> {
    let options = SingleNodeOptions {
        api_proxy: true,
        ..SingleNodeOptions::with_agent_flags(["--time-scale=0.05", "--add-timeout=8s"])
    };
    let suite = single_node::suite(options)?;
    let tests = vec![
        suite.test("delay: the answer comes after the time, and the write is applied", requests::delay),
        suite.test("lost answer: the client sees a reset, and the write is applied", requests::lost_answer),
        suite.test("applied twice: the write is applied twice, and the client sees the second answer", requests::twice),
        suite.test(
            "refused with 409, 500 or 503: the client sees the status, and no write is applied",
            requests::refused,
        ),
        suite.test("throttled: the client sees 429 with Retry-After, and no write is applied", requests::throttled),
        suite.test("reset: the client sees a reset, and no write is applied", requests::reset),
        suite.test("a fault of the first request hits only the first request", requests::once),
        suite.test("frozen watch: it stays open and shows no event, and a later watch shows all", watches::frozen),
        suite.test(
            "frozen watch with a later reset: it shows no event, and ends with the fault",
            watches::frozen_then_reset,
        ),
        suite.test("dropped event: the watch shows the events before and after it", watches::dropped),
        suite.test(
            "cut off: one client's requests and watches are reset, and another client is served",
            clients::cut_off,
        ),
        suite.test("requests are counted by client, verb and resource", clients::counted),
        suite.test("an agent whose writes are all applied twice loses and leaks no address", programs::twice),
        suite.test("an agent whose writes are throttled repeats them", programs::throttled),
        suite.test("an agent whose answers are lost one by one loses and leaks no address", programs::lost_answers),
        suite.test(
            "an operator whose answers are lost or whose writes are applied twice carves each block once",
            programs::operator,
        ),
        suite.test(
            "a burst takes no cooling address while the operator can still create blocks",
            programs::burst_without_cooling,
        ),
    ];
    Ok(suite.run(tests))
}
