//! A reconcile pass repairs each of Bobbin's objects and reports the drift. Other programs' objects survive repairs and
//! an uninstall.

use std::time::Duration;

use bobbin_datapath::{DesiredState, DirectRoute, Drift, DriftKind, Network, Settings};

use crate::node::{Pod, block, ip, links, network, on_a_node, run};

fn desired(pods: &[&Pod]) -> DesiredState {
    DesiredState {
        blocks_incomplete: false,
        blocks: vec![block()],
        pods: pods.iter().map(|pod| pod.wiring.clone()).collect(),
        direct: Some(Vec::new()),
        ipv4: true,
        ipv6: true,
    }
}

async fn findings(network: &Network, desired: &DesiredState) -> Vec<String> {
    network.reconcile(desired).await.expect("reconcile").iter().map(ToString::to_string).collect()
}

#[test]
fn each_change_by_another_program_is_repaired_and_reported_once() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        network.export(&block()).await.expect("export");
        let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        let desired = desired(&[&pod]);
        assert_eq!(
            findings(&network, &desired).await,
            Vec::<String>::new(),
            "the pass found a drift before the first change"
        );
        let shown = [
            ip("route show table 116"),
            ip("-6 route show table 116"),
            ip("route show table 119"),
            ip("-6 route show table 119"),
        ];
        println!("{}", shown.join("\n"));
        let host = format!("/proc/sys/net/ipv4/conf/{}", attached.host_if);
        for (program, line, expected) in [
            ("ip", "route del 10.64.0.1 table 116", "added the missing route 10.64.0.1/32"),
            ("ip", "-6 route del fd00:64::1 table 116", "added the missing route fd00:64::1/128"),
            ("ip", "route del 10.64.0.0/27 table 119", "added the missing route 10.64.0.0/27"),
            ("ip", "-6 route del fd00:64::/123 table 119", "added the missing route fd00:64::/123"),
            ("ip", "route del blackhole 10.64.0.0/27 table 116", "added the missing route blackhole 10.64.0.0/27"),
            ("ip", "-6 route del blackhole fd00:64::/123 table 116", "added the missing route blackhole fd00:64::/123"),
            ("ip", "route change 10.64.0.1 dev bob-up table 116 proto 30", "replaced the wrong route 10.64.0.1/32"),
            ("ip", "rule del priority 2000", "added the rule 2000: from all lookup 116 (IPv4)"),
            ("ip", "-6 rule del priority 2000", "added the rule 2000: from all lookup 116 (IPv6)"),
            ("ip", "neigh del 10.64.0.1 dev LINK", "restored the permanent neighbour 10.64.0.1"),
            (
                "ip",
                "neigh replace fd00:64::1 lladdr 02:00:00:00:00:01 dev LINK nud permanent",
                "restored the permanent neighbour fd00:64::1",
            ),
            ("ip", "link set LINK alias somebody-else", "restored the alias bobbin:container1/eth0 of"),
            ("ip", "link set LINK alias EMPTY", "restored the alias bobbin:container1/eth0 of"),
            ("ip", "link set LINK name moved", "renamed moved back to"),
            ("ip", "link set LINK group 0", "back to group 116"),
            ("ip", "link set LINK addrgenmode eui64", "turned its link-local address off"),
            ("ip", "link set LINK address 02:00:00:00:00:07", "restored the MAC address"),
            ("nft", "delete table inet bobbin", "wrote the anti-spoofing filter"),
            ("nft", "flush chain inet bobbin spoof", "wrote the anti-spoofing filter"),
            ("nft", "add rule inet bobbin spoof accept", "wrote the anti-spoofing filter"),
            ("sysctl", "HOST/proxy_arp 1", "proxy_arp to 0"),
            ("sysctl", "HOST/forwarding 0", "forwarding to 1"),
            ("sysctl", "/proc/sys/net/ipv4/ip_forward 0", "turned IPv4 forwarding on"),
            ("sysctl", "/proc/sys/net/ipv6/conf/all/forwarding 0", "turned IPv6 forwarding on"),
            ("ip", "link set LINK down", "brought bob"),
        ] {
            let line = line.replace("LINK", &attached.host_if).replace("HOST", &host);
            if program == "sysctl" {
                let (path, value) = line.split_once(' ').expect("path and value");
                std::fs::write(path, value).expect("write");
            } else {
                run(program, &line);
            }
            let said = network.reconcile(&desired).await.expect("reconcile");
            let repaired = |found: &Drift| found.kind == DriftKind::Repaired && found.what.contains(expected);
            assert!(said.iter().any(repaired), "after {program} {line}: {said:?}");
            assert!(said.iter().all(|found| found.kind == DriftKind::Repaired), "after {program} {line}: {said:?}");
            assert_eq!(
                findings(&network, &desired).await,
                Vec::<String>::new(),
                "the pass found a drift after the repair of `{program} {line}`"
            );
            assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), [], "after {program} {line}");
        }
    });
}

#[test]
fn foreign_objects_survive_repair_and_uninstall_and_conflicts_are_named() {
    on_a_node(|| async {
        let network = network().await;
        ip("link add bob-for type veth peer name bob-for2");
        ip("link set bob-for group 116");
        ip("route add 10.80.0.0/24 dev bob-up table 116 proto 99");
        ip("route add 10.81.0.0/24 dev bob-up table 119 proto 99");
        ip("-6 route add fd00:80::/64 dev bob-up table 116 proto 99");
        ip("route add 10.82.0.0/24 dev bob-up proto static");
        ip("rule add priority 2000 from 10.83.0.0/16 lookup 200");
        run("nft", "add table inet foreign");
        let pod = Pod::dual(1);
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        network.export(&block()).await.expect("export");
        network.reconcile(&desired(&[&pod])).await.expect("reconcile");
        let warnings = network.warnings();
        println!("{}", warnings.join("\n"));
        for expected in [
            "10.80.0.0/24",
            "10.81.0.0/24",
            "fd00:80::/64",
            "rule of priority 2000",
            "link bob-for of another program is in link group 116",
        ] {
            assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected}: {warnings:?}");
        }
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        println!("{}", network.tear_down().await.expect("tear down").join("\n"));
        assert_eq!(
            network.tear_down().await.expect("tear down"),
            Vec::<String>::new(),
            "the second uninstall removed something"
        );
        let all = [
            ip("route show table all"),
            ip("-6 route show table all"),
            ip("rule"),
            ip("-6 rule"),
            run("nft", "list ruleset"),
        ]
        .join("\n");
        for survives in [
            "10.80.0.0/24",
            "10.81.0.0/24",
            "fd00:80::/64",
            "10.82.0.0/24",
            "from 10.83.0.0/16 lookup 200",
            "table inet foreign",
        ] {
            assert!(all.contains(survives), "{survives} is gone: {all}");
        }
        for own in ["10.64.0", "fd00:64::", "lookup 116", "inet bobbin"] {
            assert!(!all.contains(own), "{own} is still there: {all}");
        }
        assert!(links().contains(&"bob-for".to_owned()));
    });
}

#[test]
fn a_block_can_be_exported_again_and_withdrawn_again() {
    on_a_node(|| async {
        let network = network().await;
        for _ in 0..2 {
            network.export(&block()).await.expect("export");
        }
        assert!(ip("route show table 119").contains("10.64.0.0/27 dev lo"));
        assert!(ip("-6 route show table 119").contains("fd00:64::/123"));
        for _ in 0..2 {
            network.withdraw(&block()).await.expect("withdraw");
        }
        ip("route add 10.64.0.0/27 dev bob-up table 119 proto 99");
        let error = network.export(&block()).await.expect_err("another program has a route to the block");
        assert!(error.to_string().contains("another program (protocol 99)"), "{error}");
        network.withdraw(&block()).await.expect("withdraw");
        let none = DesiredState { blocks: Vec::new(), ..desired(&[]) };
        assert_eq!(findings(&network, &none).await, Vec::<String>::new());
    });
}

#[test]
fn a_block_of_one_address_and_its_pod_share_a_prefix() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let one = bobbin_ipam::BlockRange::from(pod.wiring.pair);
        network.export(&one).await.expect("export");
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        let desired = DesiredState { blocks: vec![one], ..desired(&[&pod]) };
        assert_eq!(findings(&network, &desired).await, Vec::<String>::new());
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        assert!(ip("route show table 116").contains("blackhole 10.64.0.1"));
    });
}

#[test]
fn direct_routes_to_other_nodes_blocks_are_added_and_removed() {
    on_a_node(|| async {
        let network = network().await;
        let far = bobbin_ipam::BlockRange::parse(Some("10.65.0.0/27"), Some("fd00:65::/123")).expect("a block");
        let direct = DirectRoute { block: far, via4: "192.0.2.2".parse().ok(), via6: "2001:db8::2".parse().ok() };
        let with = DesiredState { blocks: Vec::new(), direct: Some(vec![direct]), ..desired(&[]) };
        assert_eq!(findings(&network, &with).await.len(), 2);
        assert_eq!(findings(&network, &with).await, Vec::<String>::new());
        assert!(ip("route").contains("10.65.0.0/27 via 192.0.2.2 dev bob-up proto 31"));
        assert_eq!(findings(&network, &DesiredState { direct: None, ..with.clone() }).await, Vec::<String>::new());
        assert_eq!(findings(&network, &DesiredState { direct: Some(Vec::new()), ..with }).await.len(), 2);
    });
}

#[test]
fn an_ipv4_node_gets_no_ipv6_rule() {
    on_a_node(|| async {
        let network = Network::open(Settings::default()).await.expect("open");
        network.set_up(true, false).await.expect("set_up");
        assert!(ip("rule").contains("lookup 116") && !ip("-6 rule").contains("lookup 116"));
    });
}

#[test]
fn an_attachment_that_is_not_listed_keeps_its_routes() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        let lacking = DesiredState { blocks: Vec::new(), blocks_incomplete: true, ..desired(&[]) };
        assert_eq!(findings(&network, &lacking).await, Vec::<String>::new());
        let none = DesiredState { blocks: Vec::new(), ..desired(&[]) };
        assert_eq!(findings(&network, &none).await, Vec::<String>::new());
        assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
    });
}

#[test]
fn other_programs_changes_are_hinted_and_bobbins_own_are_not() {
    on_a_node(|| async {
        let network = network().await;
        let mut changes = network.changes();
        changes.mark_unchanged();
        let pod = Pod::dual(1);
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        let quiet = tokio::time::timeout(Duration::from_millis(300), changes.changed()).await;
        assert!(quiet.is_err(), "Bobbin's own changes caused a hint, so each ADD would start a reconcile pass");
        for (program, line) in
            [("ip", "rule del priority 2000"), ("nft", "delete table inet bobbin"), ("ip", "link set bob-up mtu 1450")]
        {
            run(program, line);
            tokio::time::timeout(Duration::from_secs(3), changes.changed())
                .await
                .expect(line)
                .expect("still listening");
            changes.mark_unchanged();
        }
    });
}

#[test]
fn an_incomplete_list_of_blocks_removes_no_route() {
    on_a_node(|| async {
        network().await.export(&block()).await.expect("export");
        // A new handle acts as a restarted agent that has lost its list of blocks.
        let restarted = network().await;
        let lacking = DesiredState { blocks: Vec::new(), blocks_incomplete: true, ..desired(&[]) };
        restarted.reconcile(&lacking).await.expect("reconcile");
        let before = ip("route show table 119");
        assert!(!before.trim().is_empty(), "the pass withdrew a block although the list of blocks was incomplete");
        let complete = DesiredState { blocks_incomplete: false, ..lacking };
        restarted.reconcile(&complete).await.expect("reconcile");
        assert!(ip("route show table 119").trim().is_empty(), "a block that the node does not own is still exported");
    });
}
