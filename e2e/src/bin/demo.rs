//! `make demo`: runs the demo on a test cluster.

use std::process::ExitCode;

use bobbin_e2e::cluster::{Cluster, ClusterOptions};
use bobbin_e2e::demo::{self, Stay, print_step};

fn main() -> anyhow::Result<ExitCode> {
    let stay = Stay::from_environment();
    if stay == Stay::Ask {
        return demo::run_and_leave();
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        match play(stay).await {
            Ok(code) => Ok(code),
            Err(error) => {
                eprintln!("demo: {error:#}");
                Ok(ExitCode::FAILURE)
            }
        }
    })
}

async fn play(stay: Stay) -> anyhow::Result<ExitCode> {
    print_step(
        "the demo starts three machines and a control plane, each in its own namespaces, with real etcd, kube-apiserver, containerd, kubelet and kube-proxy",
    );
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let outcome = demo::run(&cluster).await;
    let good = outcome.as_ref().is_ok_and(demo::Outcome::is_good);
    let last = match outcome {
        Ok(outcome) => outcome.to_string(),
        Err(error) => format!("demo: {error:#}"),
    };
    if stay == Stay::Yes {
        demo::how_to_use(&cluster)?;
        println!("{last}");
        demo::stay(cluster, good).await?;
    } else {
        if !good {
            print_step(&cluster.describe_state());
        }
        drop(cluster);
        println!("{last}");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
