//! Requests to the agent's HTTP endpoint for metrics and health.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};

use super::METRICS;

/// How long one answer may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a GET request for a path to the agent. Returns the HTTP status and the body of the answer.
pub fn get(node: &SingleNode, path: &str) -> Result<(u16, String)> {
    let path = path.to_owned();
    node.namespace.run(move || get_from(METRICS, &path))?
}

/// Sends a GET request for a path to a program in the current network namespace.
pub fn get_from(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address.parse::<SocketAddr>()?, RESPONSE_TIMEOUT)
        .with_context(|| format!("no process listens at {address}"))?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("the answer is no HTTP response: {answer:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The value of a metric. If the metric has labels, the values of all its series are added up.
pub fn metric(node: &SingleNode, name: &str) -> Result<f64> {
    let (_, text) = get(node, "/metrics")?;
    let series = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values: Vec<f64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    ensure!(!values.is_empty(), "the agent exports no metric {name}");
    Ok(values.iter().sum())
}

/// Waits for stale checks in `count` different seconds. The function can't count single checks, because the metric
/// shows only the second of the last check.
pub async fn await_stale_checks(node: &SingleNode, count: u32) -> Result<()> {
    for _ in 0..count {
        let before = metric(node, "bobbin_agent_stale_check_timestamp_seconds")?;
        wait_until("the agent has checked all attachments again", WAIT_TIMEOUT, || async {
            let now = metric(node, "bobbin_agent_stale_check_timestamp_seconds")?;
            Ok(check(now > before, || node.agent_log_tail()))
        })
        .await?;
    }
    Ok(())
}
