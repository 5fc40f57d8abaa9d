//! Pods find Services by their names.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::Cluster;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

/// How long a pod may take until it finds a Service by its name. kube-proxy sees the endpoints of CoreDNS a moment
/// after CoreDNS is Ready.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![suite.test("pods on three nodes find Services by their names, and connect to them", names)]
}

async fn names(cluster: &mut Cluster) -> Result<()> {
    cluster.start_dns()?;
    cluster.make_namespace("names", &[]).await?;
    cluster.deploy("names", "web", 3).await?;
    let pods = cluster.await_ready_pods("names", "", "app=web", 3, Duration::from_secs(90)).await?;
    for pod in &pods {
        let run = ["-n", "names", "exec", &pod.name, "--"];
        let [namespace, names, exec, name, end] = run;
        let api = "kubernetes.default.svc.cluster.local:443";
        let connect = [namespace, names, exec, name, end, "/agnhost", "connect", api, "--timeout=3s"];
        cluster.await_kubectl(connect, RESOLVE_TIMEOUT).await?;
        let ask = [namespace, names, exec, name, end, "wget", "-qO-", "http://web/hostname"];
        let answer = cluster.await_kubectl(ask, RESOLVE_TIMEOUT).await?;
        ensure!(
            pods.iter().any(|pod| pod.name == answer.trim()),
            "pod {name} asked the Service web for the name of a pod, and the answer was {answer}"
        );
    }
    cluster.stop_dns().await
}
