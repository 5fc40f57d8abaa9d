//! Plants faults in the kernel of the node.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::invariants::{Kind, MachineSource, Watched};
use bobbin_e2e::network::Namespace;
use bobbin_e2e::single_node::SingleNode;

use super::stage::{Stage, sees};

pub async fn planted(node: &mut SingleNode) -> Result<()> {
    let mut stage = Stage::set(node).await?;
    let (ada, bob) = (stage.link(&stage.ada)?, stage.link(&stage.bob)?);
    let address =
        ada.addresses.iter().find(|address| address.is_ipv4()).context("the pod ada has no IPv4 address")?.to_string();
    let block = stage.node.own_blocks("default").await?.pop().context("the node has no block")?;
    let range = block.spec.ipv4.clone().context("the block has no IPv4 CIDR")?;
    let name = block.metadata.name.unwrap_or_default();
    let link = &ada.link;

    let faults: [(String, Kind, Vec<&str>); 9] = [
        (format!("route del {address} table 116"), Kind::MissingInKernel, vec!["default/ada", "no route to", &address]),
        (
            format!("route replace {address} dev {} table 116 proto 30", bob.link),
            Kind::WrongRoute,
            vec!["default/ada", &address, &bob.link, "instead of", link],
        ),
        (
            "route add 10.64.77.7 dev uplink table 116 proto 30".to_owned(),
            Kind::MissingInCheckpoint,
            vec!["node n1", "route to 10.64.77.7", "table 116", "no link of a pod"],
        ),
        (format!("neigh del {address} dev {link}"), Kind::IncompleteNetwork, vec!["neighbour", &address, link]),
        (format!("link set {link} group default"), Kind::IncompleteNetwork, vec![link, "group"]),
        ("rule del priority 2000".to_owned(), Kind::IncompleteNetwork, vec!["n1", "IPv4 rule"]),
        (format!("route del {range} table 119"), Kind::NotExported, vec!["n1", &name, &range, "does not export"]),
        (
            format!("route del blackhole {range} table 116 metric 4096"),
            Kind::NotExported,
            vec!["n1", &name, &range, "blackhole"],
        ),
        (
            "route add 10.64.99.0/27 dev uplink table 119 proto 30".to_owned(),
            Kind::ForeignExport,
            vec!["n1", "10.64.99.0/27"],
        ),
    ];
    for (command, kind, words) in faults {
        stage.node.namespace.ip(&command).with_context(|| command.clone())?;
        stage.sees(kind, &words).await.with_context(|| command.clone())?;
        stage.repair().await.with_context(|| command)?;
    }
    let removed = stage.node.namespace.command("nft").args(["delete", "table", "inet", "bobbin"]).status()?;
    ensure!(removed.success(), "nft could not remove the anti-spoofing filter");
    stage.sees(Kind::IncompleteNetwork, &["n1", "anti-spoofing filter"]).await?;
    stage.repair().await?;

    // Delete the host link, which also deletes the interface in the pod's namespace. The agent can't repair this fault,
    // so the test ends with a DEL.
    stage.node.namespace.ip(&format!("link del {link}"))?;
    stage.sees(Kind::MissingInKernel, &["default/ada", "no host link"]).await?;
    stage.sees(Kind::MissingInKernel, &["default/ada", "no network namespace has", &address]).await?;
    stage.start().await?;
    stage.delete_pods().await
}

/// The node, and a second machine that has only a kernel.
struct TwoNodes<'a> {
    node: &'a SingleNode,
    other: Namespace,
}

impl Watched for TwoNodes<'_> {
    fn client(&self) -> kube::Client {
        self.node.client.clone()
    }

    fn machines(&self, pods: &[(String, String)]) -> Vec<MachineSource> {
        let mut machines = self.node.machines(pods);
        machines.push(MachineSource {
            name: "n2".to_owned(),
            namespace: self.other.clone(),
            run_dir: self.node.path("run-of-n2"),
            netns_dir: self.node.path("netns-of-n2"),
            processes: Vec::new(),
        });
        machines
    }
}

pub async fn two_nodes(node: &mut SingleNode) -> Result<()> {
    let stage = Stage::set(node).await?;
    let block = stage.node.own_blocks("default").await?.pop().context("the node has no block")?;
    let range = block.spec.ipv4.context("the block has no IPv4 CIDR")?;
    let address = stage.ada.addresses()?.first().context("the pod ada has no address")?.to_string();
    let two = TwoNodes { node: stage.node, other: Namespace::make()? };
    two.other.ip(&format!("route add {range} dev lo table 119 proto 30\n"))?;
    sees(&two, Kind::ExportedTwice, &["nodes n1 and n2", &range]).await?;
    sees(&two, Kind::ForeignExport, &["n2", &range, "belongs to node n1"]).await?;
    two.other.ip(&format!("route add {address} dev lo table 116 proto 30\n"))?;
    sees(&two, Kind::DuplicateAddress, &["default/ada", "on n2", &address]).await?;
    stage.strike().await
}
