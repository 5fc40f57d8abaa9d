//! The anti-spoofing filter drops packets whose source address does not belong to the sending pod.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::node::{NODE_V4, NODE_V6, Pod, network, on_a_node, run, socket};

/// Sends a datagram with this source address from inside the pod. Returns whether the datagram reaches the node.
fn arrives(pod: &Pod, source: IpAddr, node: &UdpSocket) -> bool {
    node.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let from = pod.socket(source);
    from.send_to(b"x", node.local_addr().expect("an address")).expect("send");
    node.recv_from(&mut [0; 8]).is_ok()
}

#[test]
fn a_spoofed_source_is_dropped_in_both_families() {
    on_a_node(|| async {
        let network = network().await;
        let (pod, other) = (Pod::dual(8), Pod::dual(9));
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        network.attach(&other.wiring, other.netns()).await.expect("attach");
        pod.ip("addr add 10.9.9.9/32 dev lo");
        pod.ip("-6 addr add fd00:9::9/128 dev lo");
        let spoofed: [IpAddr; 2] = ["10.9.9.9".parse().expect("an address"), "fd00:9::9".parse().expect("an address")];
        let nodes = [socket(NODE_V4.into()), socket(NODE_V6.into())];
        assert!(
            arrives(&pod, pod.v4(), &nodes[0]) && arrives(&pod, pod.v6(), &nodes[1]),
            "the filter drops packets with the pod's own source address"
        );
        assert!(
            !arrives(&pod, spoofed[0], &nodes[0]),
            "the filter lets packets with a foreign IPv4 source address pass"
        );
        assert!(
            !arrives(&pod, spoofed[1], &nodes[1]),
            "the filter lets packets with a foreign IPv6 source address pass"
        );
        // The filter also drops packets with the address of another pod, not only packets with an unknown address.
        pod.ip(&format!("addr add {}/32 dev lo", other.v4()));
        pod.ip(&format!("-6 addr add {}/128 dev lo", other.v6()));
        assert!(!arrives(&pod, other.v4(), &nodes[0]) && !arrives(&pod, other.v6(), &nodes[1]));
        // Without the filter the spoofed packets arrive, which shows that the filter dropped them before.
        run("nft", "delete table inet bobbin");
        assert!(arrives(&pod, spoofed[0], &nodes[0]) && arrives(&pod, spoofed[1], &nodes[1]));
    });
}

#[test]
fn the_filter_is_one_rule_for_all_pods() {
    on_a_node(|| async {
        let network = network().await;
        let shown = run("nft", "list ruleset");
        println!("{shown}");
        assert!(shown.contains("type filter hook prerouting priority raw; policy accept;"), "{shown}");
        assert_eq!(shown.matches("drop").count(), 1, "{shown}");
        assert!(
            shown.contains("iifgroup 116 fib saddr . iif oif 0 drop")
                || shown.contains("iifgroup 116 fib saddr . iif oif missing drop")
                || shown.contains("iifgroup 116 fib saddr . iif oif \"\" drop"),
            "{shown}"
        );
        assert_eq!(
            network.set_up(true, true).await.expect("set_up"),
            Vec::<bobbin_datapath::Drift>::new(),
            "the second set-up changed an object"
        );
    });
}
