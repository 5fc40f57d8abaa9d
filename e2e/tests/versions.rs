//! Tests Bobbin with data of other versions. A newer version may have added fields, and an earlier version has left
//! files and objects.

#[path = "versions/earlier.rs"]
mod earlier;
#[path = "versions/newer.rs"]
mod newer;

use std::process::ExitCode;

use anyhow::Result;
use bobbin_e2e::single_node::{self, SingleNodeOptions};

fn main() -> Result<ExitCode> {
    let agent = vec!["--time-scale=0.05".to_owned(), "--block-idle=1s".to_owned()];
    let operator = vec!["--node-grace-period=2s".to_owned()];
    let suite = single_node::suite(SingleNodeOptions { agent, operator, ..SingleNodeOptions::default() })?;
    let tests = vec![
        suite.test("no write of agent or operator drops a field that a newer version added", newer::fields),
        suite.test(
            "the objects of version 0.2.0 are accepted, and its run directory keeps every address",
            earlier::v0_2_0,
        ),
    ];
    Ok(suite.run(tests))
}
