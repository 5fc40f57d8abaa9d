//! The router that the nodes announce their blocks to: BIRD in the namespace of the switch. BIRD adds the learned
//! routes to the kernel. The switch then forwards packets between the nodes and the host outside of the cluster.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use bobbin_crds::AddressBlock;
use bobbin_e2e::cluster::Cluster;
use bobbin_e2e::cluster::pod::{FAMILIES, Family};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::network::{FabricAddresses, Namespace};
use bobbin_e2e::wait::{check, wait_until};
use kube::api::{Api, ListParams};

/// The router's AS number.
pub const ROUTER_AS: u32 = 65000;
/// The AS number of the nodes.
pub const NODE_AS: u32 = 65001;

/// A route of the router: the range and the address of the next hop.
pub type Route = (String, String);

/// A node with which the router has a session for each family.
#[derive(Clone, Copy, Debug)]
pub struct Neighbor {
    /// The node's name.
    pub node: &'static str,
    /// The password of TCP MD5.
    pub password: Option<&'static str>,
    /// Whether node and router monitor each other with BFD.
    pub bfd: bool,
}

/// The running router. Dropping this value kills BIRD.
#[derive(Debug)]
pub struct Router {
    _bird: Process,
    namespace: Namespace,
    directory: PathBuf,
}

impl Router {
    /// Starts BIRD without sessions.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.run().make_directory("router")?;
        let namespace = cluster.fabric().namespace().clone();
        std::fs::write(directory.join("bird.conf"), configuration(&directory, &[])?)?;
        let file = |name: &str| directory.join(name);
        let arguments =
            ["-f".into(), "-c".into(), file("bird.conf"), "-s".into(), file("bird.ctl"), "-P".into(), file("bird.pid")];
        let bird = Process::start(Path::new("/usr/sbin/bird"), Some(&namespace.path()), &file("out.log"), arguments)?;
        Ok(Self { _bird: bird, namespace, directory })
    }

    /// Ends all sessions, forgets their routes, and opens sessions with these nodes.
    pub async fn configure(&self, neighbors: &[Neighbor]) -> Result<()> {
        for neighbors in [&[], neighbors] {
            std::fs::write(self.directory.join("bird.conf"), configuration(&self.directory, neighbors)?)?;
            wait_until("the router accepts its configuration", Duration::from_secs(20), || async {
                let answer = self.ask("configure")?;
                Ok(check(answer.contains("econfigur") && !answer.contains("bird.conf:"), || answer))
            })
            .await?;
            if neighbors.is_empty() {
                wait_until("the router has forgotten its routes", Duration::from_secs(20), || async {
                    let routes = self.routes()?;
                    Ok(check(routes.is_empty(), || format!("{routes:?}")))
                })
                .await?;
            }
        }
        Ok(())
    }

    /// BIRD's answer to a command of its administrator.
    pub fn ask(&self, words: &str) -> Result<String> {
        let socket = self.directory.join("bird.ctl");
        let end = Command::new("birdcl").arg("-s").arg(socket).args(words.split(' ')).output()?;
        Ok(String::from_utf8_lossy(&end.stdout).into_owned())
    }

    /// The routes that the router has learned, as its kernel has them.
    pub fn routes(&self) -> Result<BTreeSet<Route>> {
        let mut routes = BTreeSet::new();
        for flag in ["-4", "-6"] {
            let end = self.namespace.command("ip").args([flag, "route", "show", "proto", "bird"]).output()?;
            for line in String::from_utf8_lossy(&end.stdout).lines() {
                let mut words = line.split_whitespace();
                if let (Some(range), Some("via"), Some(via)) = (words.next(), words.next(), words.next()) {
                    routes.insert((range.to_owned(), via.to_owned()));
                }
            }
        }
        Ok(routes)
    }

    /// Waits until the router has exactly the routes to all claimed blocks of these families.
    pub async fn await_blocks(&self, cluster: &Cluster, families: &[Family], within: Duration) -> Result<()> {
        wait_until("the router has a route to each block and no other", within, || async {
            let (expected, seen) = (block_routes(cluster, families).await?, self.routes()?);
            Ok(check(!expected.is_empty() && expected == seen, || {
                let sessions = self.ask("show protocols").unwrap_or_default();
                format!("expected {expected:?}, but the router has {seen:?}; its sessions are:\n{sessions}")
            }))
        })
        .await
    }

    /// Waits until each session is established, no neighbour is still in a graceful restart, and BFD sees each neighbour that uses
    /// BFD. If a neighbour restarts again in its graceful restart, the router drops the routes that it has kept (RFC 4724,
    /// section 4.2).
    pub async fn await_settled(&self, neighbors: &[Neighbor], within: Duration) -> Result<()> {
        let with_bfd = neighbors.iter().filter(|neighbor| neighbor.bfd).count();
        wait_until("all sessions of the router are established and settled", within, || async move {
            let (sessions, bfd) = (self.ask("show protocols all")?, self.ask("show bfd sessions")?);
            let established = sessions.matches("BGP state:          Established").count();
            let holds = established == neighbors.len() * FAMILIES.len()
                && !sessions.contains("graceful restart active")
                && bfd.matches(" Up ").count() == with_bfd * FAMILIES.len();
            Ok(check(holds, || format!("{sessions}\n{bfd}")))
        })
        .await
    }

    /// Waits until the router's routes pass `passes`.
    pub async fn await_routes(
        &self,
        what: &str,
        within: Duration,
        passes: impl Fn(&BTreeSet<Route>) -> bool,
    ) -> Result<()> {
        let passes = &passes;
        wait_until(what, within, || async move {
            let routes = self.routes()?;
            Ok(check(passes(&routes), || format!("the router has {} routes: {routes:?}", routes.len())))
        })
        .await
    }
}

/// The routes to all claimed blocks, as the API objects have them.
async fn block_routes(cluster: &Cluster, families: &[Family]) -> Result<BTreeSet<Route>> {
    let blocks = Api::<AddressBlock>::all(cluster.client()).list(&ListParams::default()).await?;
    let mut routes = BTreeSet::new();
    for spec in blocks.items.into_iter().map(|block| block.spec) {
        for family in families {
            let (range, via) = match family {
                Family::V4 => (&spec.ipv4, &spec.node_ipv4),
                Family::V6 => (&spec.ipv6, &spec.node_ipv6),
            };
            routes.extend(range.clone().zip(via.clone()));
        }
    }
    Ok(routes)
}

fn configuration(directory: &Path, neighbors: &[Neighbor]) -> Result<String> {
    let own = FabricAddresses::switch();
    let mut text = format!(
        "router id {};\nlog \"{}\" all;\nprotocol device {{ scan time 1; }}\n\
         protocol kernel {{ scan time 1; ipv4 {{ import none; export all; }}; }}\n\
         protocol kernel {{ scan time 1; ipv6 {{ import none; export all; }}; }}\n\
         protocol bfd {{ interface \"*\" {{ interval 300 ms; multiplier 4; }}; }}\n",
        own.ipv4,
        directory.join("router.log").display()
    );
    for neighbor in neighbors {
        let node = FabricAddresses::node(neighbor.node)?;
        let password = neighbor.password.map(|password| format!("password \"{password}\"; ")).unwrap_or_default();
        let bfd = if neighbor.bfd { "bfd graceful; " } else { "" };
        for family in FAMILIES {
            let (channel, local, remote) = match family {
                Family::V4 => ("ipv4", own.ipv4.to_string(), node.ipv4.to_string()),
                Family::V6 => ("ipv6", own.ipv6.to_string(), node.ipv6.to_string()),
            };
            writeln!(
                text,
                "protocol bgp {}_{channel} {{ local {local} as {ROUTER_AS}; neighbor {remote} as {NODE_AS}; passive; \
                 {password}{bfd}{channel} {{ import all; export none; }}; }}",
                neighbor.node
            )
            .context("the configuration of the router can't be written")?;
        }
    }
    Ok(text)
}
