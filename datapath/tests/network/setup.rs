//! Several callers set up the node for pods concurrently.

use bobbin_datapath::{DesiredState, DriftKind, Network, Settings};

use crate::node::{Pod, ip, network, on_a_node, run};

#[test]
fn thirty_concurrent_set_ups_succeed_also_during_a_reconcile_pass() {
    on_a_node(|| async {
        let network = Network::open(Settings::default()).await.expect("open");
        let both = DesiredState { ipv4: true, ipv6: true, ..DesiredState::default() };
        for _ in 0..10 {
            let preparing = (0..30).map(|_| {
                let network = network.clone();
                tokio::spawn(async move { network.set_up(true, true).await })
            });
            let preparing: Vec<_> = preparing.collect();
            for _ in 0..3 {
                let found = network.reconcile(&both).await.expect("reconcile");
                assert!(found.iter().all(|found| found.kind == DriftKind::Applied), "{found:?}");
            }
            for done in preparing {
                done.await.expect("no panic").expect("set_up");
            }
            for (shown, family) in [(ip("rule"), "IPv4"), (ip("-6 rule"), "IPv6")] {
                assert_eq!(shown.matches("lookup 116").count(), 1, "{family}: {shown}");
            }
            assert!(run("nft", "list table inet bobbin").contains("fib saddr"));
            network.tear_down().await.expect("tear down");
        }
    });
}

#[test]
fn thirty_concurrent_first_pods_are_wired() {
    on_a_node(|| async {
        let network = Network::open(Settings::default()).await.expect("open");
        let adding = (1..=30).map(|n| {
            let network = network.clone();
            tokio::spawn(async move {
                let pod = Pod::dual(n);
                network.set_up(true, true).await.expect("set_up");
                network.attach(&pod.wiring, pod.netns()).await.expect("attach");
                pod
            })
        });
        for added in adding.collect::<Vec<_>>() {
            let pod = added.await.expect("no panic");
            assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
        }
    });
}

#[test]
fn a_stale_rule_is_removed_and_no_repair() {
    on_a_node(|| async {
        let network = network().await;
        ip("rule add priority 1999 lookup 116 protocol 30");
        let found = network.set_up(true, true).await.expect("set_up");
        let [stale] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((stale.kind, stale.attachment.as_ref()), (DriftKind::Applied, None));
        assert!(stale.what.contains("removed the stale rule 1999"), "{stale}");
    });
}
