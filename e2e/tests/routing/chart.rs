//! The chart runs BIRD: when Helm has ended, the router knows the pods. BIRD keeps up with many routes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::cluster::NAMESPACE;
use bobbin_e2e::cluster::pod::FAMILIES;
use bobbin_e2e::suite::Suite;
use k8s_openapi::api::core::v1;
use kube::api::{Api, ListParams};
use libtest_mimic::Trial;

use crate::fixture::{LEARN_TIMEOUT, Routing};
use crate::router::Route;

/// How many routes a node has in the test of many routes, half of them for each family.
const MANY: usize = 500;

pub fn tests(suite: &Suite<Routing>) -> Vec<Trial> {
    vec![
        suite.test("after one helm install with routing.daemon=bird, the network knows the pods of all nodes", install),
        suite.test("the router knows 500 routes of one node, and forgets them when they are gone", many_routes),
    ]
}

async fn install(routing: &mut Routing) -> Result<()> {
    routing.with_chart().await?;
    let pods = routing.pod_on_each_node("known").await?;
    routing.router.await_blocks(&routing.cluster, &FAMILIES, LEARN_TIMEOUT).await?;
    routing.all_reach_each_other(&pods, &FAMILIES)?;
    // n2 has BFD and a password, and n1 has neither.
    let bfd = routing.router.ask("show bfd sessions")?;
    ensure!(bfd.matches(" Up ").count() == 2, "both sessions with n2 must have BFD:\n{bfd}");
    let labels = ListParams::default().labels("app.kubernetes.io/component=bird");
    let pods = Api::<v1::Pod>::namespaced(routing.cluster.client(), NAMESPACE).list(&labels).await?.items;
    ensure!(pods.len() == 2, "the chart must run BIRD on two nodes, but runs {} pods", pods.len());
    for volume in pods.iter().filter_map(|pod| pod.spec.as_ref()?.volumes.as_ref()).flatten() {
        ensure!(volume.projected.is_none(), "a pod of BIRD has the token of a service account: {volume:?}");
    }
    Ok(())
}

async fn many_routes(routing: &mut Routing) -> Result<()> {
    routing.with_chart().await?;
    let (node, mut lines) = (routing.cluster.node("n1")?, String::new());
    for number in 0..MANY / 2 {
        writeln!(lines, "route add 198.18.{number}.0/28 dev lo table 119 proto static")?;
        writeln!(lines, "route add 2001:db8:0:{number:x}::/64 dev lo table 119 proto static")?;
    }
    let vias = [node.addresses().ipv4.to_string(), node.addresses().ipv6.to_string()];
    let count = |routes: &BTreeSet<Route>| {
        let added =
            |range: &str| range.starts_with("198.18.") || range.starts_with("2001:db8:0:") || range == "2001:db8::/64";
        routes.iter().filter(|(range, via)| added(range) && vias.contains(via)).count()
    };
    let within = Duration::from_secs(10);
    for _ in 0..2 {
        node.namespace()?.ip(&lines)?;
        routing.router.await_routes("the router knows all routes", within, |routes| count(routes) == MANY).await?;
        node.namespace()?.ip(&lines.replace("route add", "route del"))?;
        routing.router.await_routes("the router has forgotten them", within, |routes| count(routes) == 0).await?;
    }
    Ok(())
}
