//! Only changes of Bobbin's objects wake the agent and cause hints from the monitor. Changes of other programs' routes
//! do neither.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use bobbin_datapath::{DesiredState, DriftKind};

use crate::node::{Pod, ip, network, on_a_node};

/// The number of routes that these tests change: about as many as a BGP daemon may import.
const ROUTES: u32 = 5000;

/// Passes lines of commands to one `ip -batch` process.
fn batch(lines: &str) {
    let spawned = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn();
    let mut child = spawned.expect("`ip` (iproute2) is installed");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("write");
    assert!(child.wait().expect("wait").success());
}

fn change_foreign_routes(verb: &str) {
    let lines: Vec<String> = (0..ROUTES)
        .map(|n| format!("route {verb} 10.{}.{}.0/24 dev bob-up proto bgp", 128 + n / 256, n % 256))
        .collect();
    batch(&lines.join("\n"));
}

/// How often the thread that receives this node's notifications has woken up.
fn wakes() -> u64 {
    let own = std::fs::read_link("/proc/thread-self/ns/net").expect("the node's namespace");
    let task = std::fs::read_dir("/proc/self/task").expect("threads").filter_map(Result::ok).map(|entry| entry.path());
    let hears = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "bobbin-netlink")
            && std::fs::read_link(path.join("ns/net")).is_ok_and(|netns| netns == own)
    };
    let status = task.filter(hears).map(|path| std::fs::read_to_string(path.join("status")).expect("its status"));
    let line = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(str::to_owned));
        line.expect("a count").trim().parse::<u64>().expect("a number")
    };
    status.map(line).sum()
}

#[test]
fn a_storm_of_foreign_routes_wakes_nobody() {
    on_a_node(|| async {
        let network = network().await;
        let mut changes = network.changes();
        let (hints, woken) = (*changes.borrow_and_update(), wakes());
        for verb in ["add", "change", "del"] {
            change_foreign_routes(verb);
        }
        // Change one of Bobbin's tables last. When the hint about this change arrives, the monitor has read all
        // notifications about the foreign routes.
        ip("route add 10.64.0.9 dev bob-up table 116 proto 99");
        changes.wait_for(|count| *count > hints).await.expect("still listening");
        assert_eq!(*changes.borrow(), hints + 1, "changes of foreign routes caused hints");
        let woken = wakes() - woken;
        assert!(woken < u64::from(ROUTES) / 10, "the thread that receives notifications woke {woken} times");
    });
}

#[test]
fn direct_routes_are_correct_among_foreign_routes_which_are_not_read() {
    on_a_node(|| async {
        let network = network().await;
        change_foreign_routes("add");
        ip("route add 10.99.7.0/24 dev bob-up proto 31");
        let quiet = DesiredState { ipv4: true, ipv6: true, ..DesiredState::default() };
        assert_eq!(network.reconcile(&quiet).await.expect("reconcile"), []);
        let found = network.reconcile(&DesiredState { direct: Some(Vec::new()), ..quiet }).await.expect("reconcile");
        let [stale] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(stale.kind, DriftKind::Applied);
        assert!(stale.what.contains("removed the stale route 10.99.7.0/24"), "{stale}");
        assert_eq!(ip("route show proto bgp").lines().count(), usize::try_from(ROUTES).expect("a count"));
    });
}

#[test]
fn pods_get_the_uplinks_mtu_among_foreign_routes() {
    on_a_node(|| async {
        let network = network().await;
        change_foreign_routes("add");
        assert_eq!(network.uplink_mtu(Vec::new()).await.expect("an MTU"), 1400);
        ip("route del default");
        assert_eq!(network.uplink_mtu(vec![crate::node::NODE_V4.into()]).await.expect("an MTU"), 1400);
        ip("link add bob-other mtu 1350 type veth peer name bob-other2");
        ip("link set bob-other2 up");
        ip("link set bob-other up");
        ip("route add default dev bob-other metric 10");
        assert_eq!(network.uplink_mtu(Vec::new()).await.expect("an MTU"), 1350);
    });
}

#[test]
fn a_removed_link_is_hinted_from_whichever_namespace_it_was_removed() {
    on_a_node(|| async {
        let network = network().await;
        let mut changes = network.changes();
        for how in ["on the node", "inside", "with the namespace"] {
            let pod = Pod::dual(1);
            let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
            changes.mark_unchanged();
            let (key, pair) = (pod.wiring.key.clone(), pod.wiring.pair);
            match how {
                "on the node" => drop(ip(&format!("link del {}", attached.host_if))),
                "inside" => drop(pod.ip("link del eth0")),
                _ => drop(pod),
            }
            let hinted = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
            hinted
                .unwrap_or_else(|_| panic!("no hint arrived after the link was removed {how}"))
                .expect("still listening");
            network.detach(&key, pair).await.expect("detach");
        }
    });
}

#[test]
fn a_hundred_concurrent_adds_and_dels_are_not_hinted() {
    on_a_node(|| async {
        let network = network().await;
        let mut changes = network.changes();
        let hints = *changes.borrow_and_update();
        let pods: Vec<Pod> = (1..=100).map(Pod::dual).collect();
        let working = pods.into_iter().map(|pod| {
            let network = network.clone();
            tokio::spawn(async move {
                network.attach(&pod.wiring, pod.netns()).await.expect("attach");
                network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
            })
        });
        for done in working.collect::<Vec<_>>() {
            done.await.expect("no panic");
        }
        ip("route add 10.64.0.9 dev bob-up table 116 proto 99");
        changes.wait_for(|count| *count > hints).await.expect("still listening");
        assert_eq!(*changes.borrow(), hints + 1, "Bobbin's own changes caused hints");
    });
}
