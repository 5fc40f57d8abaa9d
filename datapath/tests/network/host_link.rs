//! If a pod's host link was renamed or lost its alias, Bobbin still finds the link, and the link keeps its routes.

use bobbin_datapath::{Attached, DesiredState, Drift, DriftKind, Network, Settings};

use crate::node::{NODE_V4, Pod, ip, links, network, on_a_node, round_trip, run, socket};

fn desired(pods: &[&Pod]) -> DesiredState {
    DesiredState {
        pods: pods.iter().map(|pod| pod.wiring.clone()).collect(),
        ipv4: true,
        ipv6: true,
        ..DesiredState::default()
    }
}

fn is_reachable(pod: &Pod) -> bool {
    round_trip(&socket(NODE_V4.into()), &pod.socket(pod.v4())).is_some()
}

/// Changes the host link by one `ip link set` for each entry of `changes`.
fn disguise(attached: &Attached, changes: &[&str]) {
    let mut name = attached.host_if.clone();
    for change in changes {
        ip(&format!("link set {name} {change}"));
        if let Some(new) = change.strip_prefix("name ") {
            new.clone_into(&mut name);
        }
    }
}

#[test]
fn a_link_that_lost_its_name_alias_or_mac_keeps_its_routes_and_is_repaired() {
    on_a_node(|| async {
        let network = network().await;
        for changes in [
            &["name moved"][..],
            &["alias EMPTY"],
            &["alias somebody-else"],
            &["address 02:00:00:00:00:07"],
            &["name moved", "alias EMPTY"],
            &["alias EMPTY", "address 02:00:00:00:00:07"],
            &["name moved", "alias EMPTY", "address 02:00:00:00:00:07"],
            &["alias EMPTY", "down"],
        ] {
            for restarted in [false, true] {
                let pod = Pod::dual(1);
                let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
                disguise(&attached, changes);
                let network = if restarted { self::network().await } else { network.clone() };
                let found = network.reconcile(&desired(&[&pod])).await.expect("reconcile");
                let kind = if restarted { DriftKind::Applied } else { DriftKind::Repaired };
                let expected = |found: &Drift| found.kind == kind && found.attachment.as_ref() == Some(&pod.wiring.key);
                assert!(!found.is_empty() && found.iter().all(expected), "{changes:?}: {found:?}");
                assert!(!found.iter().any(|found| found.what.contains("stale")), "{changes:?}: {found:?}");
                assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), [], "{changes:?}");
                assert!(links().contains(&attached.host_if), "{changes:?}: {:?}", links());
                assert!(is_reachable(&pod), "{changes:?}");
                network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
                assert_eq!(links().len(), 3, "{changes:?}: {:?}", links());
            }
        }
    });
}

#[test]
fn a_del_finds_the_link_under_any_name_and_alias() {
    on_a_node(|| async {
        let network = network().await;
        for changes in [
            &["name moved"][..],
            &["alias EMPTY"],
            &["alias somebody-else"],
            &["name moved", "alias EMPTY"],
            &["name moved", "alias EMPTY", "address 02:00:00:00:00:07"],
        ] {
            let pod = Pod::dual(1);
            let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
            disguise(&attached, changes);
            network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
            assert_eq!(links().len(), 3, "{changes:?}: {:?}", links());
        }
    });
}

#[test]
fn another_prefix_keeps_the_routes_of_running_pods_and_renames_their_links() {
    on_a_node(|| async {
        let (before, pod) = (network().await, Pod::dual(1));
        let attached = before.attach(&pod.wiring, pod.netns()).await.expect("attach");
        for prefix in ["pods", "x", "bob"] {
            let settings = Settings { veth_prefix: prefix.to_owned(), ..Settings::default() };
            let network = Network::open(settings).await.expect("open");
            let found = network.reconcile(&desired(&[&pod])).await.expect("reconcile");
            assert!(found.iter().all(|found| found.kind == DriftKind::Applied), "{found:?}");
            assert!(!found.iter().any(|found| found.what.contains("route")), "{found:?}");
            let name = network.host_if(&pod.wiring.key);
            assert!(name.starts_with(prefix) && name.len() == 15, "{name}");
            assert!(links().contains(&name), "{:?}", links());
            assert!(is_reachable(&pod), "with prefix {prefix}");
            // Attach a second pod, whose link gets the new prefix. CHECK then finds no difference.
            let other = Pod::dual(2);
            let added = network.attach(&other.wiring, other.netns()).await.expect("attach");
            assert_eq!(added.host_if, network.host_if(&other.wiring.key));
            assert_eq!(network.check(&other.wiring, other.netns()).await.expect("check"), []);
            network.detach(&other.wiring.key, other.wiring.pair).await.expect("detach");
        }
        assert!(links().contains(&attached.host_if));
    });
}

#[test]
fn a_prefix_that_names_no_link_is_refused() {
    on_a_node(|| async {
        for prefix in ["", "abcde", "Bob", "b0b", "b/"] {
            let settings = Settings { veth_prefix: prefix.to_owned(), ..Settings::default() };
            let error = Network::open(settings).await.err().expect("refused");
            assert!(error.to_string().contains("--veth-prefix to one to four lower-case letters"), "{error}");
        }
    });
}

#[test]
fn only_a_half_created_pair_is_removed() {
    on_a_node(|| async {
        let (network, unlisted) = (network().await, Pod::dual(1));
        let attached = network.attach(&unlisted.wiring, unlisted.netns()).await.expect("attach");
        // The desired state does not list this pod, and the pod's host link has no alias, but the pod is running.
        ip(&format!("link set {} alias EMPTY", attached.host_if));
        for name in ["bob000000000001", "bob000000000002"] {
            ip(&format!("link add {name} group 116 type veth peer name peer-{}", &name[12..]));
        }
        ip("link set bob000000000002 up");
        let found = network.reconcile(&desired(&[])).await.expect("reconcile");
        let [removed] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(removed.kind, DriftKind::Applied);
        assert!(removed.what.contains("bob000000000001"), "{removed}");
        assert!(!links().contains(&"bob000000000001".to_owned()));
        for stays in [attached.host_if.as_str(), "bob000000000002"] {
            assert!(links().contains(&stays.to_owned()), "{stays} was removed");
        }
        assert!(is_reachable(&unlisted));
        assert!(run("ip", "route show table 116").contains("10.64.0.1 dev"));
    });
}
