//! A reconcile pass reports a repair only if another program changed an object.

use bobbin_datapath::{DesiredState, DirectRoute, Drift, DriftKind, Network};

use crate::node::{Pod, block, ip, network, on_a_node};

fn desired(pods: &[&Pod]) -> DesiredState {
    let pods = pods.iter().map(|pod| pod.wiring.clone()).collect();
    DesiredState {
        blocks: vec![block()],
        pods,
        direct: Some(Vec::new()),
        ipv4: true,
        ipv6: true,
        ..DesiredState::default()
    }
}

fn direct(n: u8) -> DirectRoute {
    let block = format!("10.99.{n}.0/24");
    let block = bobbin_ipam::BlockRange::parse(Some(&block), None).expect("a block");
    DirectRoute { block, via4: Some([192, 0, 2, n].into()), via6: None }
}

/// Makes a reconcile pass, which must find at least one drift, and only drifts of this kind. A second pass must find no
/// drift.
async fn expect(network: &Network, desired: &DesiredState, kind: DriftKind, what: &str) -> Vec<Drift> {
    let found = network.reconcile(desired).await.expect("reconcile");
    assert!(!found.is_empty() && found.iter().all(|found| found.kind == kind), "{what}: {found:?}");
    assert_eq!(network.reconcile(desired).await.expect("reconcile"), [], "{what}: the second pass found a drift");
    found
}

#[test]
fn a_change_of_the_desired_state_is_applied_and_no_repair() {
    on_a_node(|| async {
        let network = network().await;
        let mut desired = desired(&[]);
        expect(&network, &desired, DriftKind::Applied, "a first block").await;
        desired.blocks.clear();
        expect(&network, &desired, DriftKind::Applied, "a block that the node released").await;
        desired.direct = Some(vec![direct(7), direct(8)]);
        expect(&network, &desired, DriftKind::Applied, "other nodes' claims").await;
        desired.direct = Some(vec![direct(7), DirectRoute { via4: Some([192, 0, 2, 9].into()), ..direct(8) }]);
        expect(&network, &desired, DriftKind::Applied, "another node's new address").await;
        desired.direct = Some(vec![direct(7)]);
        expect(&network, &desired, DriftKind::Applied, "another node's release").await;
        ip("route del 10.99.7.0/24");
        expect(&network, &desired, DriftKind::Repaired, "a direct route that another program removed").await;
        desired.direct = None;
        ip("route del 10.99.7.0/24");
        assert_eq!(
            network.reconcile(&desired).await.expect("reconcile"),
            [],
            "without direct routes in the desired state, the pass changed a direct route"
        );
    });
}

#[test]
fn objects_of_an_earlier_agent_are_kept_and_later_changes_to_them_are_repaired() {
    on_a_node(|| async {
        let (before, pod) = (network().await, Pod::dual(1));
        before.export(&block()).await.expect("export");
        before.attach(&pod.wiring, pod.netns()).await.expect("attach");
        ip("route del 10.64.0.1 table 116");
        ip("route del 10.64.0.0/27 table 119");
        let network = Network::open(bobbin_datapath::Settings::default()).await.expect("open");
        let desired = desired(&[&pod]);
        expect(&network, &desired, DriftKind::Applied, "at start").await;
        ip("route del 10.64.0.1 table 116");
        let found = expect(&network, &desired, DriftKind::Repaired, "later").await;
        assert_eq!(found[0].attachment.as_ref(), Some(&pod.wiring.key));
        ip("route del 10.64.0.0/27 table 119");
        let found = expect(&network, &desired, DriftKind::Repaired, "later").await;
        assert_eq!(found[0].attachment, None);
    });
}

#[test]
fn a_change_right_after_an_add_or_an_export_is_a_repair() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        network.export(&block()).await.expect("export");
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        ip("route del 10.64.0.1 table 116");
        ip("route del 10.64.0.0/27 table 119");
        ip("rule del priority 2000");
        let found = expect(&network, &desired(&[&pod]), DriftKind::Repaired, "before the first comparison").await;
        assert_eq!(found.len(), 3, "{found:?}");
    });
}

#[test]
fn another_node_address_changes_the_routes_of_pods_and_is_no_repair() {
    on_a_node(|| async {
        let (network, mut pod) = (network().await, Pod::dual(1));
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        network.reconcile(&desired(&[&pod])).await.expect("reconcile");
        ip("addr add 192.0.2.2/24 dev bob-up");
        pod.wiring.node_ipv4 = Some([192, 0, 2, 2].into());
        let found = expect(&network, &desired(&[&pod]), DriftKind::Applied, "another node address").await;
        assert!(found[0].what.contains("src 192.0.2.2"), "{found:?}");
        assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
    });
}

#[test]
fn a_pod_is_wired_right_while_the_agent_does_not_know_the_nodes_addresses() {
    on_a_node(|| async {
        let (network, mut pod) = (network().await, Pod::dual(1));
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        network.reconcile(&desired(&[&pod])).await.expect("reconcile");
        (pod.wiring.node_ipv4, pod.wiring.node_ipv6) = (None, None);
        assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
        assert_eq!(network.reconcile(&desired(&[&pod])).await.expect("reconcile"), []);
    });
}

#[test]
fn another_programs_route_with_the_same_key_is_not_repairable() {
    on_a_node(|| async {
        let network = network().await;
        ip("route add 10.64.0.0/27 dev bob-up table 119 proto 99");
        ip("route add 10.99.7.0/24 dev bob-up proto 99");
        let desired = DesiredState { direct: Some(vec![direct(7)]), ..desired(&[]) };
        for _ in 0..2 {
            let found = network.reconcile(&desired).await.expect("reconcile");
            let wrong: Vec<&Drift> = found.iter().filter(|found| found.kind == DriftKind::NotRepairable).collect();
            assert_eq!(wrong.len(), 2, "{found:?}");
            assert!(wrong.iter().all(|wrong| wrong.what.contains("another program")), "{wrong:?}");
        }
        ip("route del 10.64.0.0/27 table 119");
        ip("route del 10.99.7.0/24");
        expect(&network, &desired, DriftKind::Applied, "the foreign routes are gone").await;
    });
}

#[test]
fn a_missing_link_is_reported_with_its_attachment_until_the_next_add() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        let desired = DesiredState { blocks: Vec::new(), ..desired(&[&pod]) };
        assert_eq!(network.reconcile(&desired).await.expect("reconcile"), []);
        ip(&format!("link del {}", attached.host_if));
        for _ in 0..2 {
            let found = network.reconcile(&desired).await.expect("reconcile");
            let [missing] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((missing.kind, missing.attachment.as_ref()), (DriftKind::LinkMissing, Some(&pod.wiring.key)));
        }
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        network.attach(&pod.wiring, pod.netns()).await.expect("attach again");
        assert_eq!(network.reconcile(&desired).await.expect("reconcile"), []);
    });
}

#[test]
fn adds_and_dels_during_a_reconcile_pass_are_no_repairs() {
    on_a_node(|| async {
        let network = network().await;
        let compared = {
            let network = network.clone();
            tokio::spawn(async move {
                let mut found = Vec::new();
                for _ in 0..50 {
                    // The list of pods is empty, as if the agent had read it before the test attached the pods.
                    let desired = DesiredState { ipv4: true, ipv6: true, ..DesiredState::default() };
                    found.extend(network.reconcile(&desired).await.expect("reconcile"));
                }
                found
            })
        };
        for n in 1..=40 {
            let pod = Pod::dual(n);
            network.attach(&pod.wiring, pod.netns()).await.expect("attach");
            assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
            network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        }
        assert_eq!(compared.await.expect("no panic"), []);
    });
}
