//! `make bench`: Bobbin beside the reference plugins in one run, and which of the bars hold.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    bobbin_e2e::single_node::own_mounts()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(bobbin_e2e::bench::run())?;
    print!("{report}");
    Ok(ExitCode::SUCCESS)
}
