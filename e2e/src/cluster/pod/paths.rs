//! Tests connections between many pairs of pods, nodes and Services. Each path is a new connection from the network
//! namespace of its source.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::cluster::Cluster;
use crate::cluster::pod::{FAMILIES, Family, PORT, Pod, who_answers};
use crate::network::Namespace;

/// The kubelet's port. A path from a pod to a node ends at this port.
const KUBELET: u16 = 10250;
/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that a test tries to open from a network namespace to an address.
#[derive(Clone, Debug)]
pub struct Path {
    /// The name of the source.
    pub from: String,
    /// The name of the destination.
    pub to: String,
    namespace: Namespace,
    address: SocketAddr,
    /// The names with which the destination may answer. If the list is empty, an open connection is enough for the path to
    /// work.
    answer: Vec<String>,
}

/// The paths from every pod to every other pod.
pub fn pod_to_pod(pods: &[Pod]) -> Result<Vec<Path>> {
    let mut paths = Vec::new();
    for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
        if from.uid != to.uid {
            for family in FAMILIES {
                paths.push(path(&from.name, from.netns(), to, family)?);
            }
        }
    }
    Ok(paths)
}

/// The paths from every pod to every node.
pub fn pod_to_node(cluster: &Cluster, pods: &[Pod]) -> Vec<Path> {
    let mut paths = Vec::new();
    for (from, to) in pods.iter().flat_map(|from| cluster.nodes().map(move |to| (from, to))) {
        for address in [IpAddr::V4(to.addresses().ipv4), IpAddr::V6(to.addresses().ipv6)] {
            paths.push(Path {
                from: from.name.clone(),
                to: to.name().to_owned(),
                namespace: from.netns().clone(),
                address: SocketAddr::new(address, KUBELET),
                answer: Vec::new(),
            });
        }
    }
    paths
}

/// The paths from every node to every pod.
pub fn node_to_pod(cluster: &Cluster, pods: &[Pod]) -> Result<Vec<Path>> {
    let mut paths = Vec::new();
    for from in cluster.nodes() {
        for (to, family) in pods.iter().flat_map(|to| FAMILIES.map(|family| (to, family))) {
            paths.push(path(from.name(), from.namespace()?, to, family)?);
        }
    }
    Ok(paths)
}

/// The paths from every pod to the addresses of a Service. Any of the pods in `behind` may answer.
pub fn pod_to_service(pods: &[Pod], service: &[IpAddr], behind: &[Pod]) -> Vec<Path> {
    let answer: Vec<String> = behind.iter().map(|pod| pod.name.clone()).collect();
    let each = pods.iter().flat_map(|from| service.iter().map(move |address| (from, address)));
    each.map(|(from, address)| Path {
        from: from.name.clone(),
        to: "the Service".to_owned(),
        namespace: from.netns().clone(),
        address: SocketAddr::new(*address, 80),
        answer: answer.clone(),
    })
    .collect()
}

fn path(from: &str, namespace: &Namespace, to: &Pod, family: Family) -> Result<Path> {
    Ok(Path {
        from: from.to_owned(),
        to: to.name.clone(),
        namespace: namespace.clone(),
        address: SocketAddr::new(to.address(family)?, PORT),
        answer: vec![to.name.clone()],
    })
}

/// Tries all paths. A thread per source tries the paths of this source one after another. Returns one sentence for each
/// path that fails.
pub fn failures(paths: &[Path]) -> Result<Vec<String>> {
    let mut by_source: Vec<(&str, Vec<Path>)> = Vec::new();
    for path in paths {
        match by_source.iter_mut().find(|(from, _)| *from == path.from) {
            Some((_, paths)) => paths.push(path.clone()),
            None => by_source.push((&path.from, vec![path.clone()])),
        }
    }
    let walkers = by_source.into_iter().filter_map(|(_, paths)| {
        let namespace = paths.first()?.namespace.clone();
        Some(std::thread::spawn(move || namespace.run(move || paths.iter().filter_map(walk).collect::<Vec<_>>())))
    });
    let mut failures = Vec::new();
    for walker in walkers.collect::<Vec<_>>() {
        failures.extend(walker.join().map_err(|_| anyhow!("a thread that tries paths panicked"))??);
    }
    Ok(failures)
}

/// Returns the reason why a path's connection fails, or `None` if the path works.
fn walk(path: &Path) -> Option<String> {
    attempt(path).err().map(|error| format!("{} does not reach {} at {}: {error:#}", path.from, path.to, path.address))
}

fn attempt(path: &Path) -> Result<()> {
    if path.answer.is_empty() {
        TcpStream::connect_timeout(&path.address, CONNECT_TIMEOUT).context("the connection could not be opened")?;
        return Ok(());
    }
    let answer = who_answers(path.address)?;
    ensure!(path.answer.contains(&answer), "the pod {answer} answered instead");
    Ok(())
}
