//! Routing daemons that the administrator runs on the nodes, with the configurations of docs/routing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::node::Node;
use bobbin_e2e::cluster::pod::{FAMILIES, Family};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::network::FabricAddresses;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use libtest_mimic::Trial;

use crate::fixture::{LEARN_TIMEOUT, Routing};
use crate::values::documents;

/// The directory of FRR's daemons in Debian's package.
const FRR_PROGRAMS: &str = "/usr/lib/frr";

pub fn tests(suite: &Suite<Routing>) -> Vec<Trial> {
    vec![
        suite.test("with docs/routing/bird.conf on the nodes, pods and a host outside reach each other", bird),
        suite.test("with docs/routing/frr.conf on the nodes, FRR announces the IPv4 blocks", frr),
    ]
}

/// A file of docs/routing with the values of a node.
fn configuration(file: &str, node: &Node) -> Result<String> {
    let router = FabricAddresses::switch();
    let text = std::fs::read_to_string(documents().join(file))?;
    // Replace the example's node address first, because its text begins with the text of the example's router address.
    Ok(text
        .replace("192.0.2.11", &node.addresses().ipv4.to_string())
        .replace("192.0.2.1", &router.ipv4.to_string())
        .replace("2001:db8::1", &router.ipv6.to_string()))
}

async fn bird(routing: &mut Routing) -> Result<()> {
    routing.without_chart(true).await?;
    let mut daemons = Vec::new();
    for node in routing.cluster.nodes() {
        let file = |name: &str| node.disk().join(name);
        std::fs::write(file("bird.conf"), configuration("bird.conf", node)?)?;
        let arguments = ["-R".into(), "-f".into(), "-c".into(), file("bird.conf"), "-s".into(), file("bird.ctl")];
        let (bird, namespace) = (Path::new("/usr/sbin/bird"), node.namespace()?.path());
        daemons.push(Process::start(bird, Some(&namespace), &file("bird.log"), arguments)?);
    }
    let pods = routing.pod_on_each_node("with-bird").await?;
    routing.router.await_blocks(&routing.cluster, &FAMILIES, LEARN_TIMEOUT).await?;
    routing.all_reach_each_other(&pods, &FAMILIES)?;
    daemons.iter_mut().try_for_each(Process::must_be_running)
}

async fn frr(routing: &mut Routing) -> Result<()> {
    routing.without_chart(false).await?;
    let mut daemons = Vec::new();
    for node in routing.cluster.nodes() {
        daemons.push(Frr::start(node).await?);
    }
    let pods = routing.pod_on_each_node("with-frr").await?;
    routing.router.await_blocks(&routing.cluster, &[Family::V4], LEARN_TIMEOUT).await?;
    routing.all_reach_each_other(&pods, &[Family::V4])?;
    // docs/routing/README.md says that this version of FRR lacks these commands. If FRR has them, it can import IPv6
    // routes, and the document must change.
    let (bgp, ipv6) = ("router bgp 65001", "address-family ipv6 unicast");
    for commands in [&["ipv6 import-table 119"][..], &[bgp, ipv6, "redistribute table-direct 119"]] {
        let words = ["configure terminal"].iter().chain(commands).flat_map(|command| ["-c", command]);
        let answer = daemons[0].vtysh(words)?;
        ensure!(answer.contains("Unknown command"), "FRR now knows {commands:?}: correct docs/routing: {answer}");
    }
    daemons.iter_mut().try_for_each(Frr::must_be_running)
}

/// FRR's zebra and bgpd on one node. Dropping this value kills them.
struct Frr {
    zebra: Process,
    bgpd: Process,
    /// FRR's files. FRR drops its rights, so this directory must belong to the user `frr`, and all users must be able
    /// to enter the parent directory.
    directory: tempfile::TempDir,
}

impl Frr {
    async fn start(node: &Node) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bobbin-frr-").tempdir()?;
        let path = directory.path();
        let owned = Command::new("chown").arg("frr:frr").arg(path).status()?;
        ensure!(owned.success(), "{} can't be given to the user frr: install the package frr", path.display());
        let start = |name: &str| {
            let file = |kind: &str| path.join(kind).display().to_string();
            let arguments = [
                "--pid_file".to_owned(),
                file(&format!("{name}.pid")),
                "--socket".to_owned(),
                file("zserv.api"),
                "--vty_socket".to_owned(),
                path.display().to_string(),
                "--vty_port=0".to_owned(),
                "--log=stdout".to_owned(),
            ];
            let log = node.disk().join(format!("{name}.log"));
            Process::start(&Path::new(FRR_PROGRAMS).join(name), Some(&node.namespace()?.path()), &log, arguments)
        };
        let this = Self { zebra: start("zebra")?, bgpd: start("bgpd")?, directory };
        wait_until("zebra and bgpd accept commands", Duration::from_secs(20), || async {
            let both = ["zebra.vty", "bgpd.vty"].iter().all(|name| this.directory.path().join(name).exists());
            Ok(check(both, || format!("{}\n{}", this.zebra.log_tail(), this.bgpd.log_tail())))
        })
        .await?;
        let file = node.disk().join("frr.conf");
        std::fs::write(&file, configuration("frr.conf", node)?)?;
        let answer = this.vtysh(["-f", file.to_str().context("the path of frr.conf is not UTF-8")?])?;
        ensure!(!answer.contains("Unknown command"), "FRR refused docs/routing/frr.conf: {answer}");
        Ok(this)
    }

    /// The output of a call of `vtysh`, with errors.
    fn vtysh<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let end = Command::new("vtysh").arg("--vty_socket").arg(self.directory.path()).args(arguments).output()?;
        Ok(format!("{}{}", String::from_utf8_lossy(&end.stdout), String::from_utf8_lossy(&end.stderr)))
    }

    fn must_be_running(&mut self) -> Result<()> {
        self.zebra.must_be_running()?;
        self.bgpd.must_be_running()
    }
}
