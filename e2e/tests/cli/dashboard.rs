//! `dashboard`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::{ADMIN, killed_with_parent, spawn};
use bobbin_e2e::single_node::{NODE, SingleNode, WAIT_TIMEOUT};
use bobbin_e2e::wait::{check, wait_until};
use serde_json::{Value, json};

use crate::{executable, expect, kubectl_bobbin};

/// A running dashboard. Dropping this value ends the command.
struct Dashboard {
    child: Child,
    url: String,
    address: SocketAddr,
    /// The random part of the URL, between two slashes.
    secret: String,
}

impl Dashboard {
    fn start(node: &SingleNode, flags: &[&str]) -> Result<Self> {
        let mut command = killed_with_parent(&executable(node)?, None);
        command.env("KUBECONFIG", node.control_plane.kubeconfig_for(ADMIN)?).arg("dashboard").args(flags);
        command.stdout(Stdio::piped());
        let mut child = spawn(command)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let parts = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let (address, secret) = parts.with_context(|| format!("{line:?} has no URL"))?;
        let address = address.parse().with_context(|| format!("{url:?} has no address"))?;
        let secret = format!("/{secret}");
        Ok(Self { child, url, address, secret })
    }

    fn ask(&self, method: &str, path: &str, host: &str) -> Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{text:?} is no answer"))?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    /// Gets a file below the URL that the command printed.
    fn get(&self, file: &str) -> Result<Answer> {
        self.ask("GET", &format!("{}{file}", self.secret), &self.address.to_string())
    }

    fn data(&self) -> Result<Value> {
        let answer = self.get("data.json")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(serde_json::from_str(&answer.body)?)
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        // Killing fails only if the command has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A pool with a reserved address and two pods.
async fn prepare(node: &SingleNode, pool: &str, subnet: &str) -> Result<Vec<bobbin_e2e::single_node::Sandbox>> {
    let reserved = subnet.split('/').next().unwrap_or_default();
    node.apply_pool(pool, json!({"subnets": [{"ipv4": subnet}], "blockSizeBits": 2, "reserved": [reserved]})).await?;
    node.await_free_blocks(pool).await?;
    let mut pods = Vec::new();
    for name in [format!("{pool}-0"), format!("{pool}-1")] {
        pods.push(node.kube_pod("default", &name, Some(pool)).await?);
        node.add(&pods[pods.len() - 1])?;
    }
    node.await_assignments_of(&pods).await?;
    Ok(pods)
}

fn named<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    list.as_array().into_iter().flatten().find(|one| one[field] == name).unwrap_or(&Value::Null)
}

pub async fn numbers(node: &mut SingleNode) -> Result<()> {
    let pods = prepare(node, "board", "10.91.7.0/27").await?;
    let dashboard = Dashboard::start(node, &[])?;
    wait_until("the dashboard has the numbers of the commands", WAIT_TIMEOUT, || async {
        let pools = kubectl_bobbin(node, &["pools", "-o", "json"])?.json()?;
        let map = kubectl_bobbin(node, &["map", "board", "-o", "json"])?.json()?;
        let nodes = kubectl_bobbin(node, &["nodes", "-o", "json"])?.json()?;
        let data = dashboard.data()?;
        let pool = named(&data["pools"], "name", "board");
        let holds = data["pools"] == pools["pools"]
            && data["nodes"] == nodes["nodes"]
            && *named(&data["maps"], "pool", "board") == map
            && pool["used"] == 2
            && pool["reserved"] == 1;
        Ok(check(holds, || format!("{data}\n{pools}\n{map}\n{nodes}")))
    })
    .await?;
    // The dashboard shows a draining pool as a problem with the severity `info`.
    kubectl_bobbin(node, &["drain", "board", "--timeout", "0"])?;
    wait_until("the dashboard says that the pool drains", WAIT_TIMEOUT, || async {
        let data = dashboard.data()?;
        let found = named(&data["problems"], "object", "AddressPool board").clone();
        Ok(check(found["severity"] == "info" && data["missing"] == json!([]), || data.to_string()))
    })
    .await?;
    node.remove_pods(pods).await
}

pub async fn refusals(node: &mut SingleNode) -> Result<()> {
    let dashboard = Dashboard::start(node, &["--address", "127.0.0.1", "--port", "0"])?;
    let own = dashboard.address.to_string();
    let page = dashboard.get("")?;
    ensure!(page.status == 200 && page.body.contains("<title>Bobbin</title>"), "{page:?}");
    for header in
        ["content-security-policy: default-src 'none'; script-src 'self'", "frame-ancestors 'none'", "nosniff"]
    {
        ensure!(page.head.contains(header), "{header} is missing: {}", page.head);
    }
    ensure!(!page.head.contains("access-control-allow"), "other sites may read the page: {}", page.head);
    for (file, kind) in [("page.css", "text/css"), ("page.js", "text/javascript"), ("data.json", "application/json")] {
        let answer = dashboard.get(file)?;
        ensure!(answer.status == 200 && answer.head.contains(&format!("content-type: {kind}")), "{file}: {answer:?}");
    }
    // Send requests like another user of this machine, who does not know the random part of the URL.
    for path in ["/", "/data.json", "/page.js", "/00000000000000000000000000000000/data.json", "/etc/passwd"] {
        let answer = dashboard.ask("GET", path, &own)?;
        ensure!(answer.status == 404 && !answer.body.contains("pools"), "{path}: {answer:?}");
    }
    for file in ["", "data.json"] {
        let path = &format!("{}{file}", dashboard.secret);
        for host in ["evil.example", "evil.example:80", "127.0.0.1:1", ""] {
            let answer = dashboard.ask("GET", path, host)?;
            ensure!(matches!(answer.status, 400 | 403) && !answer.body.contains("pools"), "{host}: {answer:?}");
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
            let answer = dashboard.ask(method, path, &own)?;
            ensure!(answer.status == 405 && answer.head.contains("allow: get"), "{method}: {answer:?}");
        }
    }
    let local = dashboard.ask("GET", &dashboard.secret, &format!("localhost:{}", dashboard.address.port()))?;
    ensure!(local.status == 200 && dashboard.get("etc/passwd")?.status == 404, "{local:?}");
    expect(&kubectl_bobbin(node, &["dashboard", "--address", "0.0.0.0"])?, 2, "only a loopback address")?;
    let port = dashboard.address.port().to_string();
    expect(&kubectl_bobbin(node, &["dashboard", "--port", &port])?, 1, "choose another address or port")
}

/// The virtual time that Chromium lets pass before it prints the page, in milliseconds. The virtual time stands still
/// during requests.
const VIRTUAL_TIME_MS: u32 = 3000;

/// Runs headless Chromium with a profile in the directory. Returns what it printed.
fn chromium(directory: &Path, flags: &[&str], url: &str) -> Result<String> {
    let output = Command::new("timeout")
        .args(["120", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", directory.join("chromium").display()))
        .arg(format!("--virtual-time-budget={VIRTUAL_TIME_MS}"))
        .args(flags)
        .arg(url)
        .output()
        .context("chromium does not start: run e2e/prepare")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "chromium: {}: {errors}", output.status);
    ensure!(!errors.contains("Content Security Policy"), "the page breaks its own policy: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

pub async fn page(node: &mut SingleNode) -> Result<()> {
    let pods = prepare(node, "painted", "10.91.8.0/27").await?;
    // The page must show HTML in a message as text.
    let event = json!({
        "metadata": {"generateName": "painted-", "namespace": "default"}, "type": "Warning", "reason": "Painted",
        "message": "<img src=x onerror=alert(1)>", "reportingComponent": "bobbin-agent", "reportingInstance": NODE,
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "painted-0"},
        "lastTimestamp": "2026-01-01T00:00:00Z",
    });
    let events: kube::Api<k8s_openapi::api::core::v1::Event> = kube::Api::namespaced(node.client.clone(), "default");
    events.create(&kube::api::PostParams::default(), &serde_json::from_value(event)?).await?;
    let dashboard = Dashboard::start(node, &[])?;
    let block = node.own_blocks("painted").await?.into_iter().next().context("the node owns no block")?;
    let tile = format!("{}, {}: ", block.metadata.name.unwrap_or_default(), block.spec.ipv4.unwrap_or_default());
    let shown = chromium(&node.path("."), &["--enable-logging=stderr", "--dump-dom"], &dashboard.url)?;
    for text in ["<h3>painted</h3>", ">Ready</span>", "2 used", &tile, NODE, "&lt;img src=x"] {
        ensure!(shown.contains(text), "the page does not show {text:?}:\n{shown}");
    }
    ensure!(!shown.contains("<img"), "the page shows data as HTML:\n{shown}");
    node.remove_pods(pods).await
}
