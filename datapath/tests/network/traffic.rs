//! Once a pod is attached, even its first packet gets through, in each of its address families.

use std::time::{Duration, Instant};

use bobbin_datapath::DesiredState;

use crate::node::{NODE_V4, NODE_V6, Pod, ip, network, on_a_node, round_trip, socket};

#[test]
fn the_first_packet_passes_at_once_between_pods_and_node_in_both_families() {
    on_a_node(|| async {
        let network = network().await;
        for round in 0..5 {
            let (a, b) = (Pod::dual(1 + 2 * round), Pod::dual(2 + 2 * round));
            for pod in [&a, &b] {
                network.attach(&pod.wiring, pod.netns()).await.expect("attach");
            }
            for (name, from, to) in [
                ("pod to pod IPv4", a.socket(a.v4()), b.socket(b.v4())),
                ("pod to pod IPv6", a.socket(a.v6()), b.socket(b.v6())),
                ("node to pod IPv4", socket(NODE_V4.into()), a.socket(a.v4())),
                ("node to pod IPv6", socket(NODE_V6.into()), a.socket(a.v6())),
                ("pod to node IPv4", b.socket(b.v4()), socket(NODE_V4.into())),
                ("pod to node IPv6", b.socket(b.v6()), socket(NODE_V6.into())),
            ] {
                let first = round_trip(&from, &to).unwrap_or_else(|| panic!("{name}: the first packet is lost"));
                let second = round_trip(&from, &to).unwrap_or_else(|| panic!("{name}: the second packet is lost"));
                println!("{name}: first {first:?}, second {second:?}");
                assert!(first.as_millis() < 100, "{name}: the first round trip took {first:?}");
            }
        }
    });
}

#[test]
fn the_node_sends_to_a_pod_from_its_own_address() {
    on_a_node(|| async {
        let network = network().await;
        let pod = Pod::dual(5);
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        for (any, own, node) in
            [("0.0.0.0", pod.v4(), NODE_V4.into()), ("::", pod.v6(), std::net::IpAddr::from(NODE_V6))]
        {
            let from = socket(any.parse().expect("an address"));
            from.connect((own, 9)).expect("a route");
            assert_eq!(from.local_addr().expect("an address").ip(), node);
        }
    });
}

#[test]
fn a_pod_of_one_family_has_no_address_of_the_other() {
    on_a_node(|| async {
        let network = network().await;
        let (four, six) = (Pod::new(4, true, false), Pod::new(6, false, true));
        for pod in [&four, &six] {
            network.attach(&pod.wiring, pod.netns()).await.expect("attach");
            assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
        }
        assert!(round_trip(&socket(NODE_V4.into()), &four.socket(four.v4())).is_some());
        assert!(round_trip(&socket(NODE_V6.into()), &six.socket(six.v6())).is_some());
        assert_eq!(six.ip("-4 route").trim(), "");
        assert!(!four.ip("-6 route").contains("default"));
    });
}

#[test]
fn a_smaller_uplink_lowers_the_mtu_of_new_pods_and_running_ones_learn_it() {
    on_a_node(|| async {
        let (network, old, new) = (network().await, Pod::dual(1), Pod::dual(2));
        network.attach(&old.wiring, old.netns()).await.expect("attach");
        ip("link set bob-up mtu 1300");
        let desired =
            DesiredState { pods: vec![old.wiring.clone()], ipv4: true, ipv6: true, ..DesiredState::default() };
        assert_eq!(
            network.reconcile(&desired).await.expect("reconcile"),
            [],
            "the pass changed a running pod because of the smaller uplink"
        );
        assert_eq!(network.attach(&new.wiring, new.netns()).await.expect("attach").mtu, 1300);
        // Send a packet that is too large for the uplink. The node's kernel tells the pod's kernel, which remembers
        // the smaller MTU (path MTU discovery).
        for (own, far, route) in [
            (old.v4(), "192.0.2.9:9", "route get 192.0.2.9"),
            (old.v6(), "[2001:db8::9]:9", "-6 route get 2001:db8::9"),
        ] {
            let far: std::net::SocketAddr = far.parse().expect("an address");
            old.socket(own).send_to(&[0; 1340], far).expect("send");
            let start = Instant::now();
            while !old.ip(route).contains("mtu 1300") {
                assert!(start.elapsed() < Duration::from_secs(5), "{}", old.ip(route));
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn links_have_the_uplinks_mtu_and_the_host_side_no_address() {
    on_a_node(|| async {
        let network = network().await;
        let pod = Pod::dual(7);
        let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        assert_eq!(attached.mtu, 1400);
        assert!(pod.ip("link show eth0").contains("mtu 1400"));
        let shown = crate::node::ip(&format!("addr show dev {}", attached.host_if));
        assert!(shown.contains("mtu 1400") && !shown.contains("inet"), "{shown}");
        let link = crate::node::ip(&format!("link show dev {}", attached.host_if));
        assert!(link.contains("alias bobbin:container7/eth0"), "{link}");
    });
}
