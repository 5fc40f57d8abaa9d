//! The files that a node boots with: its disk, and the configuration of containerd, kubelet and kube-proxy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cluster::dns::DNS_ADDRESSES;
use crate::network::FabricAddresses;
use xtask::image::PAUSE;

/// Creates the directories and files of the node's disk.
pub(super) fn lay_out(disk: &Path, programs: &Path) -> Result<()> {
    for directory in ["opt", "var/lib", "var/log"] {
        std::fs::create_dir_all(disk.join(directory))?;
    }
    // Copy the host's `/etc`, because programs on the node need the host's users, resolver and certificates. With a copy,
    // these programs can't change the host's files.
    let copy = Command::new("cp").args(["-a", "/etc"]).arg(disk).status().context("cp did not start")?;
    if !copy.success() {
        bail!("/etc could not be copied to {}", disk.display());
    }
    // The host's CNI configuration must not apply to the node.
    let _ = std::fs::remove_dir_all(disk.join("etc/cni"));
    // On every real node, the package kubernetes-cni installs these plugins. containerd calls `loopback` itself, and a
    // CNI configuration can chain `portmap`.
    let plugins = disk.join("opt/cni/bin");
    std::fs::create_dir_all(&plugins)?;
    for plugin in ["loopback", "portmap"] {
        std::fs::copy(programs.join(plugin), plugins.join(plugin))
            .with_context(|| format!("the CNI plugin {plugin} is missing in {}", programs.display()))?;
    }
    Ok(())
}

/// The values that the node's configuration files contain.
pub(super) struct NodeInfo<'a> {
    pub(super) name: &'a str,
    pub(super) addresses: FabricAddresses,
    pub(super) cgroup: &'a str,
    /// The path of a certificate authority's certificate. Clients with a certificate from this authority may read logs and
    /// run commands through the kubelet.
    pub(super) ca: &'a str,
}

/// Writes the configuration files of containerd, kubelet and kube-proxy.
pub(super) fn write(disk: &Path, node: &NodeInfo<'_>) -> Result<()> {
    std::fs::write(disk.join("containerd.toml"), containerd())?;
    std::fs::write(disk.join("kubelet.yaml"), kubelet(node).to_string())?;
    std::fs::write(disk.join("kube-proxy.yaml"), kube_proxy(disk, node).to_string())?;
    Ok(())
}

fn containerd() -> String {
    include_str!("containerd.toml").replace("SANDBOX_IMAGE", PAUSE)
}

fn kubelet(node: &NodeInfo<'_>) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": "::",
        "authentication": {"x509": {"clientCAFile": node.ca}, "anonymous": {"enabled": false}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", node.cgroup), "enforceNodeAllocatable": [],
        // The addresses of the Service kube-dns. Only a cluster that has started its DNS server answers there.
        "clusterDNS": DNS_ADDRESSES, "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "failCgroupV1": false, "failSwapOn": false,
        "kubeAPIQPS": 200, "kubeAPIBurst": 400, "eventRecordQPS": 0, "registryPullQPS": 0,
        "staticPodPath": "/etc/kubernetes/manifests", "fileCheckFrequency": "500ms",
        "maxPods": 300, "serializeImagePulls": false,
        // The kubelet sees the host's disk and memory. Turn off eviction, because the kubelet must not evict pods when
        // other programs of the host use disk or memory.
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "memory.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "shutdownGracePeriod": "0s",
    })
}

fn kube_proxy(disk: &Path, node: &NodeInfo<'_>) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "iptables", "hostnameOverride": node.name,
        "bindAddress": node.addresses.ipv4.to_string(),
        "clientConnection": {"kubeconfig": disk.join("kube-proxy.kubeconfig"), "qps": 100, "burst": 200},
        // The kernel allows no change of these conntrack settings in a network namespace, so kube-proxy must not try to
        // change them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    })
}
