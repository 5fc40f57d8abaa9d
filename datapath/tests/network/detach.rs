//! Detaching an attachment removes only objects that belong to this attachment.

use std::sync::Arc;

use bobbin_ipam::IpPair;

use crate::node::{Pod, ip, links, network, on_a_node};

#[test]
fn detach_succeeds_again_when_nothing_is_left() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach a pod that was never attached");
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        pod.ip("link del eth0");
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach a pod whose link is gone");
        network.attach(&pod.wiring, pod.netns()).await.expect("attach again");
        network.detach(&pod.wiring.key, IpPair::default()).await.expect("detach a pod whose addresses are unknown");
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach a pod a second time");
        assert!(!ip("route show table all").contains("10.64.0.1 "));
    });
}

#[test]
fn another_programs_link_of_the_same_name_stays() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let name = network.host_if(&pod.wiring.key);
        ip(&format!("link add {name} type veth peer name other"));
        ip(&format!("link set {name} alias somebody-else"));
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach a pod that has no link");
        assert!(links().contains(&name));
    });
}

#[test]
fn a_batch_never_takes_a_foreign_link() {
    on_a_node(|| async {
        let network = network().await;
        ip("link add bob-foreign type veth peer name bob-foreign2");
        for group in 0..50 {
            // Put a foreign link into every link group that the next batches will use.
            ip(&format!("link add bob-f{group} type bridge"));
            ip(&format!("link set bob-f{group} group {}", 0x0b0b_0000 + group));
        }
        let before = links();
        let pods: Vec<Arc<Pod>> = (1..=20).map(|n| Arc::new(Pod::dual(n))).collect();
        for pod in &pods {
            network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        }
        let detaching = pods.iter().map(|pod| {
            let (network, pod) = (network.clone(), pod.clone());
            tokio::spawn(async move { network.detach(&pod.wiring.key, pod.wiring.pair).await })
        });
        for done in detaching.collect::<Vec<_>>() {
            done.await.expect("no panic").expect("detach");
        }
        assert_eq!(links(), before);
    });
}
