//! Runs CoreDNS as the DNS server of the test cluster.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::Cluster;
use xtask::image;

/// The addresses of the Service kube-dns, which every kubelet writes into the `/etc/resolv.conf` of its pods.
pub(super) const DNS_ADDRESSES: [&str; 2] = ["10.96.0.10", "fd00:96::a"];
/// The objects of CoreDNS.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/coredns.yaml");
/// How long the pods of CoreDNS may take to end.
const END_TIMEOUT: Duration = Duration::from_mins(1);

impl Cluster {
    /// Starts CoreDNS and waits until it is Ready. CoreDNS runs in a pod, so the cluster needs a network and a pool for
    /// the namespace kube-system. Nodes that join after this call do not get the image of CoreDNS.
    pub fn start_dns(&self) -> Result<()> {
        let directory = self.run.make_directory("coredns-image")?;
        let archive = image::coredns(&self.programs, &directory)?;
        std::thread::scope(|scope| {
            let loads: Vec<_> = self.nodes().map(|node| scope.spawn(|| node.load_image(&archive))).collect();
            loads.into_iter().try_for_each(|load| {
                load.join().map_err(|_| anyhow!("a thread that loads the image of CoreDNS panicked"))?
            })
        })?;
        std::fs::remove_dir_all(&directory)?;
        self.kubectl(["apply", "-f", MANIFEST])?;
        self.kubectl(["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"])
            .context("CoreDNS did not become Ready")
            .map(drop)
    }

    /// Removes CoreDNS and waits until its pod has ended.
    pub async fn stop_dns(&self) -> Result<()> {
        self.kubectl(["delete", "-f", MANIFEST, "--wait=false"])?;
        self.await_no_pods_labelled("kube-system", "k8s-app=kube-dns", END_TIMEOUT).await
    }
}
