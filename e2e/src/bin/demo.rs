//! `make demo`.

use std::process::ExitCode;

use bobbin_e2e::demo::{self, Stay};

fn main() -> anyhow::Result<ExitCode> {
    let stay = Stay::from_environment();
    if stay == Stay::Ask {
        return demo::run_and_leave();
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (cluster, outcome) = demo::run().await?;
        let good = outcome.is_good();
        if stay == Stay::Yes {
            demo::how_to_use(&cluster)?;
            println!("{outcome}");
            demo::stay(cluster, good).await?;
        } else {
            drop(cluster);
            println!("{outcome}");
        }
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
