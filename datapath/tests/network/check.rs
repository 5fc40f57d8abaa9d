//! CHECK names each difference from what ADD created.

use crate::node::{Pod, ip, network, on_a_node, run};

#[test]
fn each_missing_thing_is_named() {
    on_a_node(|| async {
        let network = network().await;
        let inside = [
            ("addr del 10.64.0.1/32 dev eth0", "in the container: address 10.64.0.1 on eth0 is missing"),
            ("-6 addr del fd00:64::1/128 dev eth0", "in the container: address fd00:64::1 on eth0 is missing"),
            ("route del default", "in the container: route 0.0.0.0/0 via 169.254.1.1"),
            ("-6 route del default", "in the container: route ::/0 via fe80::1"),
            ("neigh del 169.254.1.1 dev eth0", "in the container: permanent neighbour 169.254.1.1 on eth0 is missing"),
            ("neigh del fe80::1 dev eth0", "in the container: permanent neighbour fe80::1 on eth0 is missing"),
            ("link set eth0 down", "in the container: link eth0 is down"),
            ("link set eth0 mtu 1300", "in the container: link eth0 has MTU 1300 instead of 1400"),
            ("link set eth0 name eth1", "in the container: link eth0 is missing"),
        ];
        let on_node = [
            ("neigh del 10.64.0.1 dev LINK", "on the node: permanent neighbour 10.64.0.1"),
            ("neigh del fd00:64::1 dev LINK", "on the node: permanent neighbour fd00:64::1"),
            ("route del 10.64.0.1 table 116", "on the node: route 10.64.0.1/32"),
            ("-6 route del fd00:64::1 table 116", "on the node: route fd00:64::1/128"),
            ("rule del priority 2000", "on the node: rule 2000: from all lookup 116 (IPv4) is missing"),
            ("-6 rule del priority 2000", "on the node: rule 2000: from all lookup 116 (IPv6) is missing"),
            ("link set LINK group 0", "in group 0 instead of 116"),
            ("link set LINK down", "is down"),
            ("link del LINK", "is missing"),
        ];
        let cases = inside.iter().map(|case| (true, case)).chain(on_node.iter().map(|case| (false, case)));
        for (is_inside, (line, expected)) in cases {
            let pod = Pod::dual(1);
            network.set_up(true, true).await.expect("set_up");
            let attached = network.attach(&pod.wiring, pod.netns()).await.expect("attach");
            assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), [], "before {line}");
            if is_inside {
                pod.ip(line);
            } else {
                ip(&line.replace("LINK", &attached.host_if));
            }
            let misses: Vec<String> =
                network.check(&pod.wiring, pod.netns()).await.expect("check").iter().map(ToString::to_string).collect();
            assert!(misses.iter().any(|miss| miss.contains(expected)), "after {line}: {misses:?}");
            network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        }
        let pod = Pod::dual(1);
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        run("nft", "flush chain inet bobbin spoof");
        let misses = network.check(&pod.wiring, pod.netns()).await.expect("check");
        assert!(misses.iter().any(|miss| miss.to_string().contains("anti-spoofing filter")), "{misses:?}");
    });
}
