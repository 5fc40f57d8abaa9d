//! BIRD on each node and on the router. Each node announces its blocks to the router. The router forwards the other
//! nodes' packets to these blocks.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use bobbin_e2e::cluster::Cluster;
use bobbin_e2e::cluster::node::Node;
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::network::{FabricAddresses, Namespace};

/// The routing daemons. Dropping this value ends them.
pub struct Daemons(#[expect(dead_code, reason = "the processes end when this value is dropped")] Vec<Process>);

impl Daemons {
    /// Starts BIRD on all nodes and on the router.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let router = FabricAddresses::switch();
        let nodes: Vec<FabricAddresses> = cluster.nodes().map(Node::addresses).collect();
        let mut daemons = vec![start(cluster, "router", cluster.fabric().namespace(), &of_the_router(router, &nodes))?];
        for node in cluster.nodes() {
            let text = of_a_node(node.addresses(), router);
            daemons.push(start(cluster, node.name(), node.namespace()?, &text)?);
        }
        Ok(Self(daemons))
    }
}

fn start(cluster: &Cluster, name: &str, namespace: &Namespace, text: &str) -> Result<Process> {
    let directory = cluster.run().make_directory("bird")?;
    let file = |kind: &str| directory.join(format!("{name}.{kind}"));
    std::fs::write(file("conf"), text)?;
    let arguments = ["-f".into(), "-c".into(), file("conf"), "-s".into(), file("ctl"), "-P".into(), file("pid")];
    Process::start(Path::new("/usr/sbin/bird"), Some(&namespace.path()), &file("log"), arguments)
}

fn of_a_node(node: FabricAddresses, router: FabricAddresses) -> String {
    let families =
        [("4", node.ipv4.to_string(), router.ipv4.to_string()), ("6", node.ipv6.to_string(), router.ipv6.to_string())];
    let protocols = families.map(|(family, here, there)| {
        format!(
            "ipv{family} table blocks{family};\n\
             protocol kernel k{family} {{ kernel table 119; learn; scan time 1; ipv{family} {{ table blocks{family}; import all; export none; }}; }}\n\
             protocol bgp up{family} {{ local {here} as 65001; neighbor {there} as 65000; connect delay time 1; \
             ipv{family} {{ table blocks{family}; import none; export all; next hop self; }}; }}\n"
        )
    });
    format!("router id {};\nprotocol device {{ scan time 1; }}\n{}", node.ipv4, protocols.concat())
}

fn of_the_router(router: FabricAddresses, nodes: &[FabricAddresses]) -> String {
    let kernel = ["4", "6"]
        .map(|family| format!("protocol kernel k{family} {{ ipv{family} {{ import none; export all; }}; }}\n"))
        .concat();
    let peer = |number: usize, family: u8, here: IpAddr, there: IpAddr| {
        format!(
            "protocol bgp down{number}v{family} {{ local {here} as 65000; neighbor {there} as 65001; passive; \
             ipv{family} {{ import all; export none; }}; }}\n"
        )
    };
    let peers: String = (0..)
        .zip(nodes)
        .flat_map(|(number, node)| {
            [
                peer(number, 4, router.ipv4.into(), node.ipv4.into()),
                peer(number, 6, router.ipv6.into(), node.ipv6.into()),
            ]
        })
        .collect();
    format!("router id {};\nprotocol device {{ scan time 1; }}\n{kernel}{peers}", router.ipv4)
}
