//! The control plane that other tests stand on: that it counts calls, has outages, can live in a namespace, and leaves
//! nothing behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::{ControlPlane, Options, node_token};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::{Arguments, Failed, Trial};

/// Set for a process that only starts a control plane, prints its directory and waits to be killed.
const VICTIM: &str = "BOBBIN_TEST_VICTIM";

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    if std::env::var_os(VICTIM).is_some() {
        let control_plane = runtime.block_on(ControlPlane::start(Options::default()))?;
        println!("{}", control_plane.directory().display());
        loop {
            std::thread::park();
        }
    }
    let handle = runtime.handle().clone();
    let test = move |sentence: &str, run: fn() -> Run| {
        let handle = handle.clone();
        Trial::test(sentence, move || handle.block_on(run()).map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let tests = vec![
        test("calls are counted by user, verb and resource", || Box::pin(calls_are_counted())),
        test("an outage breaks calls, and its end mends them", || Box::pin(an_outage_ends())),
        test("a frozen API server answers nothing until it is thawed", || Box::pin(frozen_and_thawed())),
        test("one in a network namespace is reached through its door", || Box::pin(reached_through_the_door())),
        test("its programs die when the test is killed, and the next start removes its directory", || {
            Box::pin(nothing_is_left())
        }),
    ];
    Ok(libtest_mimic::run(&Arguments::from_args(), tests).exit_code())
}

type Run = std::pin::Pin<Box<dyn Future<Output = Result<()>>>>;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

async fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        ensure!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn calls_are_counted() -> Result<()> {
    let control_plane = ControlPlane::start(Options { audit: true, ..Options::default() }).await?;
    let nodes: Api<Node> = Api::all(control_plane.client_for(&node_token("n3")).await?);
    let audit = control_plane.audit();
    let mark = audit.mark();
    for _ in 0..3 {
        nodes.get_opt("n3").await?;
    }
    let count = || {
        audit.calls(mark, |call| call.user.username == "system:node:n3" && call.is_read() && call.resource() == "nodes")
    };
    until("3 calls are entered", || Ok(count()?.len() >= 3)).await?;
    let calls = count()?;
    ensure!(calls.len() == 3 && calls.iter().all(|call| call.name() == "n3" && call.code() == 404), "{calls:?}");
    Ok(())
}

async fn an_outage_ends() -> Result<()> {
    let mut control_plane = ControlPlane::start(Options::default()).await?;
    let namespaces: Api<Namespace> = Api::all(control_plane.client().await?);
    let url = control_plane.url();
    control_plane.stop_apiserver();
    ensure!(namespaces.list(&ListParams::default()).await.is_err(), "the API server is stopped and answers");
    control_plane.start_apiserver().await?;
    ensure!(control_plane.url() == url, "the API server has another address now");
    namespaces.list(&ListParams::default()).await?;
    Ok(())
}

async fn frozen_and_thawed() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default()).await?;
    let namespaces: Api<Namespace> = Api::all(control_plane.client().await?);
    control_plane.freeze_apiserver()?;
    let everything = ListParams::default();
    let answer = namespaces.list(&everything);
    tokio::pin!(answer);
    ensure!(
        tokio::time::timeout(Duration::from_millis(300), &mut answer).await.is_err(),
        "a frozen API server answers"
    );
    control_plane.thaw_apiserver()?;
    tokio::time::timeout(PATIENCE, answer).await.context("a thawed API server does not answer")??;
    Ok(())
}

async fn reached_through_the_door() -> Result<()> {
    let name = format!("bob-door-{}", std::process::id());
    let _namespace = NetworkNamespace::make(&name)?;
    let path = Path::new("/run/netns").join(&name);
    let control_plane = ControlPlane::start(Options { netns: Some(path), ..Options::default() }).await?;
    ensure!(control_plane.inside_url() == "https://127.0.0.1:6443", "inside it is {}", control_plane.inside_url());
    ensure!(control_plane.url() != control_plane.inside_url(), "outside it is the same");
    let namespaces: Api<Namespace> = Api::all(control_plane.client().await?);
    namespaces.get("kube-system").await?;
    Ok(())
}

/// A network namespace with its loopback up, removed when dropped.
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
    ensure!(status.success(), "ip {} failed: network namespaces need root", arguments.join(" "));
    Ok(())
}

async fn nothing_is_left() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?).env(VICTIM, "1").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.take().context("no output")?).read_line(&mut line)?;
    let directory = PathBuf::from(line.trim());
    ensure!(directory.is_dir() && !running_in(&directory).is_empty(), "the victim did not start: {line:?}");
    victim.kill()?;
    victim.wait()?;
    until("etcd and kube-apiserver are gone", || Ok(running_in(&directory).is_empty())).await?;
    ensure!(directory.is_dir(), "nobody was there to remove it");
    drop(bobbin_e2e::control_plane::Scratch::make("bobbin-control-plane-")?);
    ensure!(!directory.exists(), "{} is left", directory.display());
    Ok(())
}

/// The processes whose command line names a directory.
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
