//! `make bench`: measures Bobbin and the reference plugins, and compares the results with the thresholds. With
//! `--before <directory>`, the program compares Bobbin with an earlier build. With `--only stolen-token`, it measures only
//! the ADDs of a node while another node's token is misused.

use std::path::Path;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    bobbin_e2e::single_node::own_mounts()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let report = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => runtime.block_on(bobbin_e2e::bench::run())?.to_string(),
        ["--only", "stolen-token"] => runtime.block_on(bobbin_e2e::bench::run_stolen_token())?.to_string(),
        ["--before", directory] => runtime.block_on(bobbin_e2e::bench::compare::run(Path::new(directory)))?,
        _ => bail!("usage: bench [--only stolen-token | --before <directory with bobbin-all and bobbin>]"),
    };
    print!("{report}");
    Ok(())
}
