//! A running pod: its addresses, node and network namespace. Connections to other pods start inside the pod's
//! namespace.

pub mod paths;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1;
use kube::ResourceExt;

use crate::cluster::Cluster;
use crate::network::Namespace;

/// The port on which test pods answer with their name.
pub const PORT: u16 = 8080;
/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both address families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A running pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name, with which the pod answers requests.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The name of the pod's node.
    pub node: String,
    /// The pod's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    netns: Namespace,
}

impl Pod {
    /// Finds the network namespace of a Ready pod on the pod's node.
    pub fn find(cluster: &Cluster, pod: &v1::Pod) -> Result<Self> {
        let (name, uid) = (pod.name_any(), pod.uid().context("the pod has no UID")?);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod has no node")?;
        let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        let ips: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
        let pids = cluster.node(&node)?.processes_of_pod(&uid);
        let pid = pids.first().with_context(|| format!("node {node} runs no process of pod {name}"))?;
        Ok(Self {
            namespace: pod.namespace().unwrap_or_default(),
            ipv4: ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }),
            ipv6: ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }),
            netns: Namespace::at(&PathBuf::from(format!("/proc/{pid}/ns/net")))?,
            name,
            uid,
            node,
        })
    }

    /// The pod's address of the given family.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        match family {
            Family::V4 => self.ipv4.map(IpAddr::V4),
            Family::V6 => self.ipv6.map(IpAddr::V6),
        }
        .with_context(|| format!("pod {} has no {family:?} address", self.name))
    }

    /// The pod's network namespace.
    pub fn netns(&self) -> &Namespace {
        &self.netns
    }

    /// Opens a new connection to another pod, and checks that the answer comes from that pod.
    pub fn can_reach(&self, other: &Pod, family: Family) -> Result<()> {
        let to = SocketAddr::new(other.address(family)?, PORT);
        let answer = self
            .netns
            .run(move || who_answers(to))?
            .with_context(|| format!("pod {} does not reach pod {}", self.name, other.name))?;
        ensure!(
            answer == other.name,
            "pod {} connected to {to}, and {answer} answered, but {to} is the address of pod {}",
            self.name,
            other.name
        );
        Ok(())
    }

    /// Checks that no connection to another pod can be opened.
    pub fn can_not_reach(&self, other: &Pod, family: Family) -> Result<()> {
        if self.can_reach(other, family).is_ok() {
            bail!("pod {} reaches pod {} by {family:?}, but must not", self.name, other.name);
        }
        Ok(())
    }
}

/// Asks the pod at an address for its name, on a new connection from the calling thread's namespace.
pub fn who_answers(to: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)
        .with_context(|| format!("a connection to {to} could not be opened"))?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("the answer from {to} could not be read"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{to} did not answer with HTTP, but with {answer:?}"))?;
    ensure!(head.contains(" 200 "), "{to} did not answer with status 200, but with {head:?}");
    Ok(body.trim().to_owned())
}
