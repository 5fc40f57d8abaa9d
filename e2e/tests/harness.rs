//! Tests the test cluster itself. In most tests, the CNI reference plugins provide the cluster's network. The tests
//! show that nodes can lose power and boot again, and that a killed run leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::{Fault, RequestCount, Selector};
use bobbin_e2e::cluster::pod::paths;
use bobbin_e2e::cluster::pod::{Family, Pod};
use bobbin_e2e::cluster::run::cgroup_roots;
use bobbin_e2e::cluster::{Cluster, ClusterOptions, Network, Pool, Workload};
use bobbin_e2e::invariants::{self, Finding, Kind};
use bobbin_e2e::suite::{NoFixture, Suite};
use bobbin_e2e::wait::{check, wait_until};

/// How long a cluster may take until no invariant is broken.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);
/// If this environment variable is set, the process starts a cluster, prints the cluster's directory, and waits to be
/// killed.
const VICTIM: &str = "BOBBIN_TEST_VICTIM";

fn main() -> Result<ExitCode> {
    if std::env::var_os(VICTIM).is_some() {
        let runtime = tokio::runtime::Runtime::new()?;
        let cluster = runtime.block_on(Cluster::start(options(1)))?;
        println!("{}", cluster.run().directory().display());
        loop {
            std::thread::park();
        }
    }
    let suite = Suite::without_fixture()?;
    let tests = vec![
        suite.test("pods of the reference plugins reach each other across three real kubelets", reference_pods),
        suite.test("a node boots after a power cut and runs pods again, and another node joins", power_comes_back),
        suite.test(
            "agents and operators of a whole cluster call through the proxy, and a fault hits one agent alone",
            behind_the_proxy,
        ),
        suite.test("after SIGKILL no process, network namespace, mount, cgroup or directory is left", nothing_is_left),
    ];
    Ok(suite.run(tests))
}

fn options(nodes: usize) -> ClusterOptions {
    ClusterOptions { nodes, network: Network::Reference, ..ClusterOptions::default() }
}

async fn reference_pods(_: &mut NoFixture) -> Result<()> {
    let cluster = Cluster::start(options(3)).await?;
    cluster.await_nodes_ready().await?;
    cluster.make_namespace("reach", &[]).await?;
    cluster.deploy("reach", "web", 6).await?;
    let pods = cluster.await_ready_pods("reach", "", "app=web", 6, Duration::from_secs(90)).await?;
    let failures = paths::failures(&paths::pod_to_pod(&pods)?)?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

async fn power_comes_back(_: &mut NoFixture) -> Result<()> {
    let mut cluster = Cluster::start(options(1)).await?;
    cluster.await_nodes_ready().await?;
    cluster.make_namespace("dusk", &[]).await?;
    cluster.create_ready_pod(Workload::pod("dusk", "before").on("n1")).await?;
    cluster.node_mut("n1")?.power_cut();
    ensure!(cgroups(cluster.run().id()).is_empty(), "a node without power still has cgroups");
    cluster.node_mut("n1")?.boot()?;
    cluster.add_nodes(&["n2".to_owned()]).await?;
    cluster.await_nodes_ready().await?;
    let here = cluster.create_ready_pod(Workload::pod("dusk", "after").on("n1")).await?;
    let there = cluster.create_ready_pod(Workload::pod("dusk", "there").on("n2")).await?;
    here.can_reach(&there, Family::V4)?;
    there.can_reach(&here, Family::V6)
}

async fn behind_the_proxy(_: &mut NoFixture) -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { nodes: 2, ..ClusterOptions::default() }).await?;
    cluster.start_api_proxy().await?;
    cluster.install(&[]).await?;
    let pool = Pool::named("default").subnet("10.64.0.0/20", "fd00:64::/116").build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(30)).await?;
    cluster.make_namespace("behind", &[]).await?;
    let one = cluster.create_ready_pod(Workload::pod("behind", "one").on("n1")).await?;
    let two = cluster.create_ready_pod(Workload::pod("behind", "two").on("n2")).await?;
    cluster.await_invariants(SETTLE_TIMEOUT).await?;

    let counts = cluster.api()?.counts();
    for (user, node) in [("bobbin-agent", "n1"), ("bobbin-agent", "n2")] {
        let is_create = |count: &&RequestCount| {
            count.verb == "create"
                && count.resource == "ipassignments"
                && count.client.user == user
                && count.client.node == node
        };
        let created: u64 = counts.iter().filter(is_create).map(|count| count.count).sum();
        ensure!(
            created == 1,
            "the agent of {node} must create one assignment through the proxy, but created {created}: {counts:?}"
        );
    }
    let carved = counts.iter().any(|count| count.client.user == "bobbin-operator" && count.resource == "addressblocks");
    ensure!(carved, "no operator wrote blocks through the proxy: {counts:?}");

    a_duplicate_is_found(&cluster, &one, &two).await?;

    // Cut off the agent of n1. The agent then can't read a new pod from the API server, so this pod must wait. Pods on
    // n2 start.
    let agent = Selector::any().by("bobbin-agent").from_node("n1");
    let cut_off = cluster.api()?.inject(agent, Fault::Reset);
    cluster.create_pod(&Workload::pod("behind", "three").on("n1")).await?;
    cluster.create_ready_pod(Workload::pod("behind", "four").on("n2")).await?;
    cluster.await_warning("behind", "three", &["n1", "the API server is unreachable"], Duration::from_mins(1)).await?;
    ensure!(invariants::never_allowed(&cluster).await.is_empty(), "a cut-off agent caused a duplicate address");
    drop(cut_off);
    cluster.await_ready_pod("behind", "three").await?;
    cluster.await_invariants(SETTLE_TIMEOUT).await
}

/// Adds the address of one pod to the network namespace of a pod on another node. The invariant checker must find the
/// duplicate.
async fn a_duplicate_is_found(cluster: &Cluster, one: &Pod, two: &Pod) -> Result<()> {
    let address = two.address(Family::V4)?;
    one.netns().ip(&format!("addr add {address}/32 dev eth0\n"))?;
    let findings = invariants::never_allowed(cluster).await;
    let words = ["pod behind/one", "pod behind/two", &format!("both have {address}"), "on n1", "on n2"];
    let found = |one: &Finding| one.kind == Kind::DuplicateAddress && words.iter().all(|word| one.text.contains(word));
    ensure!(
        findings.iter().any(found),
        "the checker did not find the duplicate address {address}, but found {findings:?}"
    );
    one.netns().ip(&format!("addr del {address}/32 dev eth0\n"))?;
    cluster.await_invariants(SETTLE_TIMEOUT).await
}

async fn nothing_is_left(_: &mut NoFixture) -> Result<()> {
    let mut victim =
        Command::new(std::env::current_exe()?).env(VICTIM, "1").stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let mut directory = String::new();
    BufReader::new(victim.stdout.take().context("the child process has no output")?).read_line(&mut directory)?;
    let directory = PathBuf::from(directory.trim());
    let id =
        directory.to_string_lossy().rsplit_once('-').map(|(_, id)| id.to_owned()).context("the directory has no ID")?;
    ensure!(!cgroups(&id).is_empty() && !processes(&directory).is_empty(), "the child process has started no cluster");
    victim.kill()?;
    victim.wait()?;
    wait_until(
        "the killed process has left no cgroup, process, mount or directory",
        Duration::from_secs(30),
        || async {
            let left = (cgroups(&id), processes(&directory), mounts(&directory), directory.exists());
            Ok(check(left.0.is_empty() && left.1.is_empty() && left.2.is_empty() && !left.3, || format!("{left:?}")))
        },
    )
    .await
}

fn cgroups(id: &str) -> Vec<PathBuf> {
    let own = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&format!("bob-{id}-"));
    cgroup_roots()
        .iter()
        .filter_map(|root| std::fs::read_dir(root).ok())
        .flat_map(|entries| entries.flatten().filter(own).map(|entry| entry.path()).collect::<Vec<_>>())
        .collect()
}

/// Lists the processes whose command line contains the directory. Only these processes keep a node's namespaces alive,
/// so without them the namespaces are gone too.
fn processes(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    commands
        .filter(|command| command.contains(&*directory.to_string_lossy()))
        .map(|command| command.replace('\0', " "))
        .collect()
}

fn mounts(directory: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(&*directory.to_string_lossy())).map(str::to_owned).collect()
}
