//! Tests the nodes' routing. The tests cover exported blocks, dropped packets, routes of other programs, and a routing
//! daemon.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::cluster::Pool;
use bobbin_e2e::cluster::pod::{FAMILIES, Pod};
use bobbin_e2e::cluster::{Cluster, NAMESPACE, Workload};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::network::FabricAddresses;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{check, wait_until};
use libtest_mimic::Trial;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("table 119 shows each claimed block before its first pod runs", exported_first),
        suite.test("a spoofed source is dropped in both families", spoofed_source),
        suite.test("foreign rules, routes and CNI files are left alone", foreign_things_survive),
        suite.test("BIRD on a node imports table 119 and advertises its blocks", bird_learns),
    ]
}

async fn exported_first(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("n1")?;
    let log = node.disk().join("routes.log");
    // `ip monitor` shows the order in which routes were added.
    let mut monitor = Process::start(Path::new("ip"), Some(&node.namespace()?.path()), &log, ["monitor", "route"])?;
    let pool = Pool::named("exported").subnet("10.80.0.0/24", "fd00:80::/120").bits(1).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("exported", &[]).await?;
    for number in 0..5 {
        cluster.create_pod(&Workload::pod("exported", &format!("pod-{number}")).on("n1")).await?;
    }
    let pods = cluster.await_ready_pods("exported", "", "", 5, Duration::from_mins(1)).await?;
    monitor.kill();
    let log = std::fs::read_to_string(&log)?;
    for pod in &pods {
        for family in FAMILIES {
            let address = pod.address(family)?;
            let block = cluster
                .assignments_of("exported")
                .await?
                .into_iter()
                .find(|assignment| assignment.spec.pod_uid.as_deref() == Some(&pod.uid))
                .context("the pod has no assignment")?
                .spec
                .block_name;
            let block = cluster
                .blocks_of_pool("exported")
                .await?
                .into_iter()
                .find(|seen| seen.metadata.name.as_deref() == Some(&block))
                .context("the assignment's block is gone")?;
            let range = if address.is_ipv4() { block.spec.ipv4 } else { block.spec.ipv6 }
                .context("the block lacks one of the two families")?;
            let exported =
                log.lines().position(|line| line.starts_with(&format!("{range} ")) && line.contains("table 119"));
            let routed =
                log.lines().position(|line| line.starts_with(&format!("{address} ")) && line.contains("table 116"));
            ensure!(
                exported.is_some() && routed.is_some() && exported < routed,
                "block {range} must be exported before its address {address} gets a route; the lines are {exported:?} and {routed:?} of:\n{log}"
            );
        }
    }
    Ok(())
}

async fn spoofed_source(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("masks", &[]).await?;
    let thief = cluster.create_ready_pod(Workload::pod("masks", "thief").on("n1")).await?;
    let victim = cluster.create_ready_pod(Workload::pod("masks", "victim").on("n1")).await?;
    let near = cluster.create_ready_pod(Workload::pod("masks", "near").on("n1")).await?;
    let far = cluster.create_ready_pod(Workload::pod("masks", "far").on("n2")).await?;
    for family in FAMILIES {
        let (own, stolen) = (thief.address(family)?, victim.address(family)?);
        let bits = if stolen.is_ipv4() { 32 } else { 128 };
        let nodad = if stolen.is_ipv4() { "" } else { "nodad" };
        thief.netns().ip(&format!("addr add {stolen}/{bits} dev lo {nodad}\n"))?;
        for to in [&near, &far] {
            let to_address = to.address(family)?;
            ensure!(
                arrives(&thief, own, to, to_address)?,
                "pod {} sent packets from its own address {own}, but they did not arrive at pod {}",
                thief.name,
                to.name
            );
            ensure!(
                !arrives(&thief, stolen, to, to_address)?,
                "pod {} sent packets to pod {} from the stolen address {stolen}, and they arrived; the address belongs to pod {}",
                thief.name,
                to.name,
                victim.name
            );
        }
    }
    Ok(())
}

/// Sends datagrams with this source address from one pod to another. Returns whether a datagram arrives with this
/// address.
fn arrives(from: &Pod, source: IpAddr, to: &Pod, address: IpAddr) -> Result<bool> {
    let receiver = to.netns().run(move || UdpSocket::bind((address, 0)))??;
    receiver.set_read_timeout(Some(Duration::from_millis(500)))?;
    let port = receiver.local_addr()?.port();
    let sender = from.netns().run(move || UdpSocket::bind((source, 0)))??;
    // Send several datagrams, because any single datagram may be lost.
    for _ in 0..3 {
        sender.send_to(b"from whom?", SocketAddr::new(address, port))?;
    }
    let mut buffer = [0; 32];
    Ok(receiver.recv_from(&mut buffer).is_ok_and(|(_, seen)| seen.ip() == source))
}

async fn foreign_things_survive(cluster: &mut Cluster) -> Result<()> {
    const FILE: &str = "/etc/cni/net.d/99-foreign.conflist";
    const TEXT: &str = r#"{"cniVersion": "1.0.0", "name": "foreign", "plugins": [{"type": "ptp"}]}"#;
    let node = cluster.node("n3")?;
    node.namespace()?.ip(
        "rule add to 198.51.100.0/24 priority 1999 table 50\n\
         route add 198.51.100.0/24 dev lo table 50\nroute add 198.51.100.0/25 dev lo table 116 proto static\n\
         route add 198.51.100.128/25 dev lo table 119 proto static\nroute add 2001:db8:5::/64 dev lo table 119 proto static\n",
    )?;
    node.exec(["ip", "-6", "rule", "add", "to", "2001:db8:5::/48", "priority", "1999", "table", "50"])?;
    std::fs::write(node.path(FILE)?, TEXT)?;
    cluster.make_namespace("guests", &[]).await?;
    cluster.create_ready_pod(Workload::pod("guests", "a").on("n3")).await?;
    cluster.delete_pod("guests", "a").await?;
    // Restart the agent, because a starting agent compares all rules, routes and files with the desired state.
    cluster.kubectl(["-n", NAMESPACE, "rollout", "restart", "daemonset/bobbin-agent"])?;
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", "daemonset/bobbin-agent", "--timeout=120s"])?;
    cluster.create_ready_pod(Workload::pod("guests", "b").on("n3")).await?;

    let node = cluster.node("n3")?;
    let looks: [(&[&str], &str); 6] = [
        (&["ip", "rule", "show", "priority", "1999"], "198.51.100.0/24"),
        (&["ip", "-6", "rule", "show", "priority", "1999"], "2001:db8:5::/48"),
        (&["ip", "route", "show", "table", "50"], "198.51.100.0/24"),
        (&["ip", "route", "show", "table", "116"], "198.51.100.0/25"),
        (&["ip", "route", "show", "table", "119"], "198.51.100.128/25"),
        (&["ip", "-6", "route", "show", "table", "119"], "2001:db8:5::/64"),
    ];
    for (words, expected) in looks {
        let seen = node.exec(words)?;
        ensure!(seen.contains(expected), "the output of `{}` no longer contains {expected}:\n{seen}", words.join(" "));
    }
    ensure!(node.exec(["cat", FILE])? == TEXT, "Bobbin changed the foreign file {FILE}");
    node.namespace()?.ip("rule del priority 1999\nroute flush table 50\nroute del 198.51.100.0/25 table 116\n\
         route del 198.51.100.128/25 table 119\nroute del 2001:db8:5::/64 table 119\n")?;
    node.exec(["ip", "-6", "rule", "del", "priority", "1999"])?;
    node.exec(["rm", FILE]).map(drop)
}

/// The BIRD configuration of the node, as an administrator writes it. BIRD imports table 119 and advertises its routes
/// to the switch by BGP.
fn on_the_node(node: FabricAddresses, switch: FabricAddresses) -> String {
    format!(
        "router id {ipv4};\nipv4 table blocks4;\nipv6 table blocks6;\nprotocol device {{ scan time 1; }}\n\
         protocol kernel k4 {{ kernel table 119; learn; scan time 1; ipv4 {{ table blocks4; import all; export none; }}; }}\n\
         protocol kernel k6 {{ kernel table 119; learn; scan time 1; ipv6 {{ table blocks6; import all; export none; }}; }}\n\
         protocol bgp up4 {{ local {ipv4} as 65001; neighbor {switch4} as 65000; connect delay time 1; ipv4 {{ table blocks4; import none; export all; next hop self; }}; }}\n\
         protocol bgp up6 {{ local {ipv6} as 65001; neighbor {switch6} as 65000; connect delay time 1; ipv6 {{ table blocks6; import none; export all; next hop self; }}; }}\n",
        ipv4 = node.ipv4,
        ipv6 = node.ipv6,
        switch4 = switch.ipv4,
        switch6 = switch.ipv6,
    )
}

/// The BIRD configuration of the switch. BIRD learns routes from the node and adds them to the kernel.
fn on_the_switch(node: FabricAddresses, switch: FabricAddresses) -> String {
    format!(
        "router id {ipv4};\nprotocol device {{ scan time 1; }}\n\
         protocol kernel k4 {{ scan time 1; ipv4 {{ import none; export all; }}; }}\nprotocol kernel k6 {{ scan time 1; ipv6 {{ import none; export all; }}; }}\n\
         protocol bgp down4 {{ local {ipv4} as 65000; neighbor {node4} as 65001; passive; ipv4 {{ import all; export none; }}; }}\n\
         protocol bgp down6 {{ local {ipv6} as 65000; neighbor {node6} as 65001; passive; ipv6 {{ import all; export none; }}; }}\n",
        ipv4 = switch.ipv4,
        ipv6 = switch.ipv6,
        node4 = node.ipv4,
        node6 = node.ipv6,
    )
}

async fn bird_learns(cluster: &mut Cluster) -> Result<()> {
    let directory = cluster.run().make_directory("bird")?;
    let (node, switch) = (cluster.node("n1")?.addresses(), FabricAddresses::switch());
    let mut daemons = Vec::new();
    let namespaces = [cluster.node("n1")?.namespace()?, cluster.fabric().namespace()];
    for ((name, text), namespace) in
        [("node", on_the_node(node, switch)), ("switch", on_the_switch(node, switch))].into_iter().zip(namespaces)
    {
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        std::fs::write(file("conf"), text)?;
        let arguments = ["-f".into(), "-c".into(), file("conf"), "-s".into(), file("ctl"), "-P".into(), file("pid")];
        daemons.push(Process::start(Path::new("/usr/sbin/bird"), Some(&namespace.path()), &file("log"), arguments)?);
    }
    let pool = Pool::named("told").subnet("10.81.0.0/24", "fd00:81::/120").bits(3).build();
    cluster.apply(&pool).await?;
    cluster.await_condition(&pool, "Ready", "True", Duration::from_secs(20)).await?;
    cluster.make_namespace("told", &[]).await?;
    let pod = cluster.create_ready_pod(Workload::pod("told", "a").on("n1")).await?;
    let blocks: Vec<_> =
        cluster.blocks_of_node("n1").await?.into_iter().filter(|block| block.spec.pool_name == "told").collect();
    ensure!(!blocks.is_empty(), "n1 has no block of the pool");
    let fabric = cluster.fabric().namespace();
    for (flag, via, ranges) in [
        ("-4", node.ipv4.to_string(), blocks.iter().filter_map(|block| block.spec.ipv4.clone()).collect::<Vec<_>>()),
        ("-6", node.ipv6.to_string(), blocks.iter().filter_map(|block| block.spec.ipv6.clone()).collect()),
    ] {
        let (via, ranges) = (&via, &ranges);
        wait_until("the switch has a route to each block through its node", Duration::from_secs(40), || async move {
            let routes = fabric.command("ip").args([flag, "route", "show"]).output()?;
            let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
            let learned =
                ranges.iter().all(|range| routes.lines().any(|line| line.starts_with(&format!("{range} via {via} "))));
            Ok(check(learned, || format!("expected {ranges:?}; the routes are:\n{routes}")))
        })
        .await?;
    }
    // The switch can reach the pod only over the route that BIRD advertised.
    for family in FAMILIES {
        let address = SocketAddr::new(pod.address(family)?, bobbin_e2e::cluster::pod::PORT);
        let answer = fabric.run(move || bobbin_e2e::cluster::pod::who_answers(address))??;
        ensure!(answer == pod.name, "the switch reached the wrong pod: {answer}");
    }
    drop(daemons);
    // Remove the routes, because a killed BIRD may leave its routes behind.
    for block in blocks {
        for range in [block.spec.ipv4, block.spec.ipv6].into_iter().flatten() {
            let _ = fabric.ip(&format!("route del {range}\n"));
        }
    }
    Ok(())
}
