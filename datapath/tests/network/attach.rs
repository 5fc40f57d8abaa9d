//! Attaches and detaches pods one after another, and a hundred at once. Also checks the links that a restarted agent
//! finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_datapath::{Network, Settings};

use crate::node::{Pod, links, network, on_a_node};

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[test]
fn one_after_another() {
    on_a_node(|| async {
        let network = network().await;
        for (name, ipv6) in [("IPv4", false), ("dual", true)] {
            let (mut attach, mut detach) = (Vec::new(), Vec::new());
            for n in 1..=50 {
                let pod = Pod::new(n, true, ipv6);
                let start = Instant::now();
                network.attach(&pod.wiring, pod.netns()).await.expect("attach");
                attach.push(start.elapsed());
                let start = Instant::now();
                network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
                detach.push(start.elapsed());
            }
            attach.sort();
            detach.sort();
            println!(
                "{name}: attach best {:?} p50 {:?} p99 {:?}; detach p50 {:?} p99 {:?}",
                attach[0],
                percentile(&attach, 50),
                percentile(&attach, 99),
                percentile(&detach, 50),
                percentile(&detach, 99)
            );
        }
        assert_eq!(links().len(), 3, "{:?}", links());
    });
}

#[test]
fn a_hundred_at_once_come_and_go_and_a_new_agent_finds_them() {
    on_a_node(|| async {
        let network = network().await;
        let pods: Vec<Arc<Pod>> = (1..=100).map(|n| Arc::new(Pod::dual(n))).collect();
        let start = Instant::now();
        let attaching = pods.iter().map(|pod| {
            let (network, pod) = (network.clone(), pod.clone());
            tokio::spawn(async move { network.attach(&pod.wiring, pod.netns()).await })
        });
        for done in attaching.collect::<Vec<_>>() {
            done.await.expect("no panic").expect("attach");
        }
        println!("100 attached at once in {:?}", start.elapsed());
        let restarted = Network::open(Settings::default()).await.expect("open");
        let start = Instant::now();
        let mut seen = restarted.links().await.expect("links");
        println!("100 links found in {:?}", start.elapsed());
        seen.sort_by_key(|link| link.pair);
        assert_eq!(seen.len(), 100);
        for (pod, link) in pods.iter().zip(&seen) {
            assert_eq!((&link.key, link.pair), (&pod.wiring.key, pod.wiring.pair));
            assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
        }
        let start = Instant::now();
        let detaching = pods.iter().map(|pod| {
            let (network, pod) = (network.clone(), pod.clone());
            tokio::spawn(async move { network.detach(&pod.wiring.key, pod.wiring.pair).await })
        });
        for done in detaching.collect::<Vec<_>>() {
            done.await.expect("no panic").expect("detach");
        }
        println!("100 detached at once in {:?}", start.elapsed());
        assert_eq!(links().len(), 3, "{:?}", links());
        assert!(pods.iter().all(|pod| !pod.ip("link").contains("eth0")));
    });
}
