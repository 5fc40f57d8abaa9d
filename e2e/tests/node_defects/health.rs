//! Tests the agent's metrics and health endpoints. A fault of an endpoint never delays a pod.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{Poll, check, wait_until};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{METRICS, end, metrics_endpoint, restart, scaled, scaled_minute};

/// How long a program may take until it has refused an invalid flag.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn busy_port(node: &mut SingleNode) -> Result<()> {
    node.kill_agent();
    let address: SocketAddr = METRICS.parse()?;
    let busy = node.namespace.run(move || TcpListener::bind(address))??;
    let begun = node.agent_log().len();
    node.set_agent_flags(&scaled("0.1").iter().map(String::as_str).collect::<Vec<_>>());
    node.start_agent().await.context("the agent did not start while its metrics port was busy")?;
    let pod = node.sandbox()?;
    node.add(&pod)?;
    wait_until("the agent logs that its metrics port is busy", WAIT_TIMEOUT, || async {
        let log = node.agent_log().split_off(begun);
        let told = |line: &str| (line.contains("WARN") || line.contains("ERROR")) && line.contains(METRICS);
        Ok(check(log.lines().any(told), || log))
    })
    .await?;
    drop(busy);
    wait_until(
        "the agent opens its metrics port after another program has freed the port",
        scaled_minute(),
        || async {
            let (status, _) = metrics_endpoint::get(node, "/healthz")?;
            Ok(check(status == 200, || status.to_string()))
        },
    )
    .await?;
    end(node, vec![pod], &[]).await?;
    restart(node, &[]).await
}

pub async fn hung_loop(node: &mut SingleNode) -> Result<()> {
    node.kill_agent();
    // Replace the plugin's source file by a pipe that nobody writes to. The loop that installs the plugin hangs when it
    // reads the pipe.
    let pipe = node.path("hangs");
    mkfifo(&pipe, Mode::S_IRWXU)?;
    let mut flags = scaled("0.1");
    flags.push(format!("--shim-path={}", pipe.display()));
    node.set_agent_flags(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    node.start_agent_only()?;
    let failed = wait_until("/healthz fails and names the hanging loop", scaled_minute() * 2, || async {
        let (status, text) = metrics_endpoint::get(node, "/healthz")?;
        let fails = status == 503 && text.contains("install");
        Ok(check(fails, || format!("{status} {text}")))
    })
    .await;
    node.kill_agent();
    std::fs::remove_file(&pipe)?;
    failed?;
    restart(node, &[]).await
}

pub async fn log_format(node: &mut SingleNode) -> Result<()> {
    let kubeconfig = format!("--kubeconfig={}", node.control_plane.admin_kubeconfig()?.display());
    let run_dir = format!("--run-dir={}", node.path("log-format-run").display());
    let runs = [
        ("bobbin-operator", vec!["--namespace=bobbin-system".to_owned(), "--no-leader-election".to_owned()]),
        ("bobbin-agent", vec!["--node-name=n9".to_owned(), run_dir]),
    ];
    for (program, mut flags) in runs {
        flags.extend([kubeconfig.clone(), "--log-format=yaml".to_owned()]);
        let (path, log) = (node.path("bin").join(program), node.path("log-format.log"));
        std::fs::write(&log, "")?;
        let mut running = Process::start(&path, Some(&node.namespace.path()), &log, flags)?;
        let what = format!("{program} refuses --log-format=yaml");
        let refused = wait_until(&what, EXIT_TIMEOUT, || {
            let (ended, text) = (running.ended(), std::fs::read_to_string(&log));
            async move {
                let text = text?;
                Ok(if ended.is_some() {
                    Poll::Ready(text)
                } else {
                    Poll::Pending(format!("the program is still running: {text}"))
                })
            }
        });
        let said = refused.await?;
        let names = ["yaml", "text", "json"].into_iter().all(|word| said.contains(word));
        ensure!(names, "{}", anyhow!("the error of {program} does not name the valid log formats: {said}"));
    }
    Ok(())
}
