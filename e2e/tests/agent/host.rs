//! Other programs interfere with the agent's files, sockets or port.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{CONVERGENCE_TIMEOUT, Call, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::add_pods;

/// How long the agent may take to restore its files after a change. The interval of its regular checks is longer, so
/// these checks alone can't repair every change in time.
const REINSTALL_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn installation(node: &mut SingleNode) -> Result<()> {
    let (plugin, conflist) = (node.path("cni-bin/bobbin"), node.path("cni-conf/10-bobbin.conflist"));
    let written = (fs::read(&plugin)?, fs::read(&conflist)?);
    // Damage the files several times, because a regular check may happen to make one of the repairs.
    for _ in 0..3 {
        fs::remove_file(&plugin)?;
        fs::write(&conflist, b"{}")?;
        wait_until("the agent has restored the plugin and the CNI configuration", REINSTALL_TIMEOUT, || async {
            let now = (fs::read(&plugin).unwrap_or_default(), fs::read(&conflist)?);
            Ok(check(now == written, || String::from_utf8_lossy(&now.1).into_owned()))
        })
        .await?;
    }
    let foreign = node.path("cni-conf/05-foreign.conflist");
    fs::write(&foreign, b"{}")?;
    wait_until("a Warning event names the configuration that sorts first", REINSTALL_TIMEOUT, || async {
        let told = node.warnings("CNIConfigShadowed").await?;
        let named = foreign.display().to_string();
        Ok(check(told.iter().any(|one| one.contains(&named)), || format!("{told:?}")))
    })
    .await?;
    fs::remove_file(&foreign)?;
    for path in [&plugin, &conflist] {
        let sentence = format!("another program removed or changed {}", path.display());
        wait_until("a Warning event on the Node reports the problem", WAIT_TIMEOUT, || async {
            let told = node.warnings("InstallationRestored").await?;
            Ok(check(told.iter().any(|one| one.contains(&sentence)), || format!("{told:?}")))
        })
        .await?;
    }
    Ok(())
}

pub async fn second_agent(node: &mut SingleNode) -> Result<()> {
    let pods = add_pods(node, 1)?;
    let second = node.another_agent("second-agent.log")?;
    let log = node.path("second-agent.log");
    wait_until("the second agent logs that it waits for the lock", WAIT_TIMEOUT, || async {
        let text = fs::read_to_string(&log)?;
        Ok(check(text.contains("another agent (process "), || text))
    })
    .await?;
    node.await_agent(WAIT_TIMEOUT).await?;
    node.replace_agent(second);
    node.await_agent(WAIT_TIMEOUT).await?;
    let text = fs::read_to_string(&log)?;
    ensure!(text.matches("another agent (process ").count() == 1, "{text}");
    node.kill_agent();
    node.start_agent().await?;
    node.remove_pods(pods).await
}

pub async fn other_node(node: &mut SingleNode) -> Result<()> {
    node.kill_agent();
    let path = node.run_dir().join("agent.json");
    let mut identity: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    identity["nodeName"] = "n0".into();
    fs::write(&path, identity.to_string())?;
    node.start_agent().await?;
    let set_aside = node.run_dir().join("other-node-n0-1");
    ensure!(
        set_aside.join("agent.json").exists() && set_aside.join("attachments").exists(),
        "the agent has set aside no directory"
    );
    let log = node.agent_log();
    ensure!(log.contains("has the checkpoint of node n0, but this agent serves node n1"), "{log}");
    let pods = add_pods(node, 1)?;
    node.remove_pods(pods).await?;
    Ok(fs::remove_dir_all(set_aside)?)
}

pub async fn taken_port(node: &mut SingleNode) -> Result<()> {
    // Wait until the agent has saved its view of the cluster. Without this file, the restarted agent knows no pool.
    let view = node.run_dir().join("cluster.json");
    wait_until("the agent's saved view of the cluster contains the pool", WAIT_TIMEOUT, || async {
        let kept = fs::read_to_string(&view)?;
        Ok(check(kept.contains("10.64.0.0/16"), || kept))
    })
    .await?;
    let other = node.namespace.run(|| TcpListener::bind("127.0.0.1:0"))??;
    let address = other.local_addr()?;
    node.set_agent_flags(&[&format!("--metrics-address={address}")]);
    node.kill_agent();
    node.start_agent().await?;
    let pods = add_pods(node, 2)?;
    wait_until("a Warning event on the Node reports the problem", WAIT_TIMEOUT, || async {
        let told = node.warnings("MetricsPortInUse").await?;
        Ok(check(told.iter().any(|one| one.contains(&address.to_string())), || format!("{told:?}")))
    })
    .await?;
    for path in ["/healthz", "/readyz"] {
        let mut probe = std::process::Command::new(node.artifacts.all());
        let output = probe.arg("probe").arg(node.run_dir().join("health.sock")).arg(path).output()?;
        ensure!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
    drop(other);
    wait_until("the agent serves metrics at the port", CONVERGENCE_TIMEOUT, || async {
        let connected = node.namespace.run(move || connect(address))?;
        Ok(check(connected.is_ok(), || format!("{connected:?}")))
    })
    .await?;
    let log = node.agent_log();
    ensure!(log.matches("can't serve metrics and health").count() == 1, "{log}");
    node.set_agent_flags(&[]);
    node.kill_agent();
    node.start_agent().await?;
    node.remove_pods(pods).await
}

fn connect(address: SocketAddr) -> std::io::Result<()> {
    std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop)
}

pub async fn run_dir_emptied(node: &mut SingleNode) -> Result<()> {
    for name in ["agent.sock", "health.sock", "ready", "lock", "agent.json"] {
        fs::remove_file(node.run_dir().join(name))?;
    }
    node.await_agent(WAIT_TIMEOUT).await?;
    wait_until("the socket and the marker files exist again", WAIT_TIMEOUT, || async {
        let missing: Vec<&str> = ["health.sock", "ready", "lock", "agent.json"]
            .into_iter()
            .filter(|name| !node.run_dir().join(name).exists())
            .collect();
        Ok(check(missing.is_empty(), || format!("the files {missing:?} are missing")))
    })
    .await?;
    let status = node.call(&Call { verb: "STATUS", ..Call::default() })?;
    ensure!(status.exit == 0, "{}", status.stdout);
    let pods = add_pods(node, 1)?;
    node.remove_pods(pods).await
}

pub async fn log_format(node: &mut SingleNode) -> Result<()> {
    for program in ["bobbin-agent", "bobbin-operator"] {
        let mut command = std::process::Command::new(node.path("bin").join(program));
        let output = command.args(["--log-format=xml"]).env("NODE_NAME", "n1").output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && told.contains("text or json"), "{program}: {told}");
    }
    Ok(())
}
