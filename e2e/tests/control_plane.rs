//! Tests the control plane that the other test suites use. The tests cover its audit log, outages, network namespace
//! and removal.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::{ControlPlane, ControlPlaneOptions, node_token};
use bobbin_e2e::suite::{NoFixture, Suite};
use bobbin_e2e::wait::{check, wait_until};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use kube::api::ListParams;

/// If this environment variable is set, the process starts a control plane, prints the control plane's directory, and
/// waits to be killed.
const VICTIM: &str = "BOBBIN_TEST_VICTIM";

fn main() -> Result<ExitCode> {
    if std::env::var_os(VICTIM).is_some() {
        let runtime = tokio::runtime::Runtime::new()?;
        let control_plane = runtime.block_on(ControlPlane::start(ControlPlaneOptions::default()))?;
        println!("{}", control_plane.directory().display());
        loop {
            std::thread::park();
        }
    }
    let suite = Suite::without_fixture()?;
    let tests = vec![
        suite.test("the audit log counts calls by user, verb and resource", calls_are_counted),
        suite.test("calls fail while the API server is stopped, and succeed when it runs again", api_server_outage),
        suite.test("a frozen API server answers nothing until it is resumed", frozen_and_resumed),
        suite.test(
            "a control plane in a network namespace is reached through its forwarded port",
            reached_through_netns_forward,
        ),
        suite.test(
            "etcd and kube-apiserver end when the test is killed, and the next start removes their directory",
            nothing_is_left,
        ),
    ];
    Ok(suite.run(tests))
}

/// How long each of the tests' conditions may take to become true.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

async fn calls_are_counted(_: &mut NoFixture) -> Result<()> {
    let control_plane =
        ControlPlane::start(ControlPlaneOptions { audit: true, ..ControlPlaneOptions::default() }).await?;
    let nodes: Api<Node> = Api::all(control_plane.client_for(&node_token("n3")).await?);
    let audit = control_plane.audit();
    let mark = audit.mark();
    for _ in 0..3 {
        nodes.get_opt("n3").await?;
    }
    let count = || {
        audit.calls(mark, |call| call.user.username == "system:node:n3" && call.is_read() && call.resource() == "nodes")
    };
    wait_until("the audit log has three calls", WAIT_TIMEOUT, || async {
        let calls = count()?.len();
        Ok(check(calls >= 3, || format!("{calls} calls")))
    })
    .await?;
    let calls = count()?;
    ensure!(calls.len() == 3 && calls.iter().all(|call| call.name() == "n3" && call.code() == 404), "{calls:?}");
    Ok(())
}

async fn api_server_outage(_: &mut NoFixture) -> Result<()> {
    let mut control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
    let namespaces: Api<Namespace> = Api::all(control_plane.client().await?);
    let url = control_plane.url();
    control_plane.stop_apiserver();
    ensure!(namespaces.list(&ListParams::default()).await.is_err(), "the stopped API server still answers");
    control_plane.start_apiserver().await?;
    ensure!(control_plane.url() == url, "the restarted API server has another address");
    namespaces.list(&ListParams::default()).await?;
    Ok(())
}

async fn frozen_and_resumed(_: &mut NoFixture) -> Result<()> {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
    let namespaces: Api<Namespace> = Api::all(control_plane.client().await?);
    control_plane.freeze_apiserver()?;
    let everything = ListParams::default();
    let answer = namespaces.list(&everything);
    tokio::pin!(answer);
    ensure!(
        tokio::time::timeout(Duration::from_millis(300), &mut answer).await.is_err(),
        "the frozen API server answered a request"
    );
    control_plane.resume_apiserver()?;
    tokio::time::timeout(WAIT_TIMEOUT, answer).await.context("the resumed API server did not answer the request")??;
    Ok(())
}

async fn reached_through_netns_forward(_: &mut NoFixture) -> Result<()> {
    let name = format!("bob-forward-{}", std::process::id());
    let _namespace = NetworkNamespace::make(&name)?;
    let path = Path::new("/run/netns").join(&name);
    let control_plane =
        ControlPlane::start(ControlPlaneOptions { netns: Some(path), ..ControlPlaneOptions::default() }).await?;
    ensure!(
        control_plane.inside_url() == "https://127.0.0.1:6443",
        "inside the network namespace, the API server has the wrong URL {}",
        control_plane.inside_url()
    );
    ensure!(
        control_plane.url() != control_plane.inside_url(),
        "the API server must have different URLs inside and outside the network namespace"
    );
    let namespaces: Api<Namespace> = Api::all(control_plane.client().await?);
    namespaces.get("kube-system").await?;
    Ok(())
}

/// A network namespace whose loopback link is up. Dropping the value removes the namespace.
struct NetworkNamespace(String);

impl NetworkNamespace {
    fn make(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let this = Self(name.to_owned());
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(this)
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("the program ip is missing: install the package iproute2")?;
    ensure!(status.success(), "ip {} failed (only root can create network namespaces)", arguments.join(" "));
    Ok(())
}

async fn nothing_is_left(_: &mut NoFixture) -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?).env(VICTIM, "1").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().context("no output")?).read_line(&mut line)?;
    let directory = PathBuf::from(line.trim());
    ensure!(
        directory.is_dir() && !running_in(&directory).is_empty(),
        "the child process started no control plane: {line:?}"
    );
    victim.kill()?;
    victim.wait()?;
    wait_until("etcd and kube-apiserver are gone", WAIT_TIMEOUT, || async {
        let left = running_in(&directory);
        Ok(check(left.is_empty(), || format!("{left:?}")))
    })
    .await?;
    ensure!(directory.is_dir(), "the directory of the killed process was removed before the next start");
    drop(bobbin_e2e::control_plane::ScratchDir::make("bobbin-control-plane-")?);
    ensure!(!directory.exists(), "{} is left", directory.display());
    Ok(())
}

/// Lists the processes whose command line contains a directory.
fn running_in(directory: &Path) -> Vec<PathBuf> {
    let directory = directory.display().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&directory)
        })
        .collect()
}
