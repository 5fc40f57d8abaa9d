//! Tests the presence of an attachment, which is the evidence for freeing the attachment's address without a DEL.

use bobbin_datapath::{Attached, NetnsPresence, NetnsRef, Network, Settings};
use nix::sched::{CloneFlags, unshare};

use crate::node::{Pod, ip, network, on_a_node, run, until};

async fn presence(network: &Network, pod: &Pod, netns: Option<NetnsRef>) -> NetnsPresence {
    presence_of(network, &pod.wiring.key, netns).await
}

async fn presence_of(network: &Network, key: &bobbin_ipam::AttachmentKey, netns: Option<NetnsRef>) -> NetnsPresence {
    network.presence(vec![(key.clone(), netns)]).await.expect("presence")[key]
}

async fn attach(network: &Network, pod: &Pod) -> Attached {
    network.attach(&pod.wiring, pod.netns()).await.expect("attach")
}

#[test]
fn an_ended_namespace_differs_from_a_lost_link() {
    on_a_node(|| async {
        let (network, kept, ended) = (network().await, Pod::dual(1), Pod::dual(2));
        let (in_kept, in_ended) = (attach(&network, &kept).await, attach(&network, &ended).await);
        assert!(in_kept.netns.is_some() && in_ended.netns.is_some() && in_kept.netns != in_ended.netns);
        for (pod, attached) in [(&kept, &in_kept), (&ended, &in_ended)] {
            assert_eq!(presence(&network, pod, attached.netns).await, NetnsPresence::Linked);
            assert_eq!(presence(&network, pod, None).await, NetnsPresence::Linked);
        }
        ip(&format!("link del {}", in_kept.host_if));
        let key = ended.wiring.key.clone();
        drop(ended);
        until("the namespace ends", || async {
            presence_of(&network, &key, in_ended.netns).await == NetnsPresence::NetnsGone
        })
        .await;
        assert_eq!(presence(&network, &kept, in_kept.netns).await, NetnsPresence::Broken);
        // Without a namespace ID there is no proof that the container ended.
        assert_eq!(presence_of(&network, &key, None).await, NetnsPresence::Unknown);
    });
}

#[test]
fn a_link_removed_from_inside_is_broken() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let attached = attach(&network, &pod).await;
        pod.ip("link del eth0");
        assert_eq!(presence(&network, &pod, attached.netns).await, NetnsPresence::Broken);
    });
}

#[test]
fn a_namespace_that_has_an_id_keeps_it_for_further_interfaces_and_repeated_adds() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        // When another tool puts a link into the pod's namespace, the kernel gives the namespace an ID.
        ip(&format!("link add tool type veth peer name tool-in netns {}", pod.path()));
        let first = attach(&network, &pod).await;
        let second = pod.second("eth1", 2);
        let in_second = attach(&network, &second).await;
        assert_eq!(in_second.netns, first.netns);
        network.detach(&pod.wiring.key, pod.wiring.pair).await.expect("detach");
        let again = attach(&network, &pod).await;
        assert_eq!(again.netns, first.netns);
        assert_eq!(presence(&network, &pod, first.netns).await, NetnsPresence::Linked);
        ip(&format!("link del {}", again.host_if));
        assert_eq!(presence(&network, &pod, first.netns).await, NetnsPresence::Broken);
        assert_eq!(presence(&network, &second, in_second.netns).await, NetnsPresence::Linked);
    });
}

#[test]
fn an_id_reused_for_another_container_still_proves_that_the_first_namespace_ended() {
    on_a_node(|| async {
        let (network, ended) = (network().await, Pod::dual(1));
        let attached = attach(&network, &ended).await;
        let key = ended.wiring.key.clone();
        drop(ended);
        until("the namespace ends", || async {
            presence_of(&network, &key, attached.netns).await == NetnsPresence::NetnsGone
        })
        .await;
        let next = Pod::dual(2);
        let in_next = attach(&network, &next).await;
        assert_eq!(in_next.netns, attached.netns, "the kernel did not reuse the ID, so this test proves nothing");
        assert_eq!(presence_of(&network, &key, attached.netns).await, NetnsPresence::NetnsGone);
        assert_eq!(presence(&network, &next, in_next.netns).await, NetnsPresence::Linked);
    });
}

#[test]
fn an_id_reused_by_a_foreign_namespace_proves_nothing() {
    on_a_node(|| async {
        let (network, ended, foreign) = (network().await, Pod::dual(1), Pod::dual(2));
        let attached = attach(&network, &ended).await;
        let key = ended.wiring.key.clone();
        drop(ended);
        until("the namespace ends", || async {
            presence_of(&network, &key, attached.netns).await == NetnsPresence::NetnsGone
        })
        .await;
        ip(&format!("link add tool type veth peer name tool-in netns {}", foreign.path()));
        assert!(ip("link show tool").contains(&format!("link-netnsid {}", attached.netns.expect("an ID").id)));
        assert_eq!(presence_of(&network, &key, attached.netns).await, NetnsPresence::Broken);
    });
}

#[test]
fn an_alias_of_lo_from_another_program_is_no_proof() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let attached = attach(&network, &pod).await;
        assert!(pod.ip("link show lo").contains("alias bobbin:container1"));
        ip(&format!("link del {}", attached.host_if));
        for (alias, expected) in [
            ("EMPTY", NetnsPresence::Broken),
            ("loopback", NetnsPresence::Broken),
            ("bobbin:", NetnsPresence::Broken),
            ("bobbin:container2/eth0", NetnsPresence::Broken),
            ("bobbin:container2", NetnsPresence::NetnsGone),
        ] {
            pod.ip(&format!("link set lo alias {alias}"));
            assert_eq!(presence(&network, &pod, attached.netns).await, expected, "{alias}");
        }
    });
}

#[test]
fn an_interface_that_was_moved_to_another_namespace_keeps_its_address() {
    on_a_node(|| async {
        let (network, pod, elsewhere) = (network().await, Pod::dual(1), Pod::dual(2));
        let attached = attach(&network, &pod).await;
        pod.ip(&format!("link set eth0 netns {}", elsewhere.path()));
        assert_eq!(presence(&network, &pod, attached.netns).await, NetnsPresence::Linked);
        let key = pod.wiring.key.clone();
        drop(pod);
        until("the namespace ends", || async {
            presence_of(&network, &key, attached.netns).await == NetnsPresence::Moved
        })
        .await;
    });
}

#[test]
fn a_namespace_kept_by_a_mount_or_an_open_socket_is_not_gone() {
    on_a_node(|| async {
        let network = network().await;
        let directory = tempfile::tempdir().expect("a directory");
        let mount = directory.path().join("netns");
        std::fs::write(&mount, "").expect("a file");
        for by_mount in [true, false] {
            let pod = Pod::dual(1);
            let attached = attach(&network, &pod).await;
            let socket = if by_mount {
                run("mount", &format!("--bind {} {}", pod.path(), mount.display()));
                None
            } else {
                Some(pod.socket(pod.v4()))
            };
            let key = pod.wiring.key.clone();
            drop(pod);
            ip(&format!("link del {}", attached.host_if));
            assert_eq!(
                presence_of(&network, &key, attached.netns).await,
                NetnsPresence::Broken,
                "by mount: {by_mount}"
            );
            drop(socket);
            if by_mount {
                run("umount", &mount.display().to_string());
            }
            until("the namespace ends", || async {
                presence_of(&network, &key, attached.netns).await == NetnsPresence::NetnsGone
            })
            .await;
        }
    });
}

#[test]
fn an_agent_in_another_namespace_ignores_the_ids_of_the_first() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let attached = attach(&network, &pod).await;
        ip(&format!("link del {}", attached.host_if));
        assert_eq!(presence(&network, &pod, attached.netns).await, NetnsPresence::Broken);
        let restarted = Network::open(Settings::default()).await.expect("open");
        assert_eq!(presence(&restarted, &pod, attached.netns).await, NetnsPresence::Broken);
        let key = pod.wiring.key.clone();
        let elsewhere = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let network = Network::open(Settings::default()).await.expect("open");
                presence_of(&network, &key, attached.netns).await
            })
        };
        let verdict = std::thread::spawn(elsewhere).join().expect("no panic");
        assert_eq!(verdict, NetnsPresence::Unknown);
    });
}

#[test]
fn a_hundred_attachments_are_looked_up_at_once() {
    on_a_node(|| async {
        let network = network().await;
        let pods: Vec<Pod> = (1..=100).map(Pod::dual).collect();
        let mut asked = Vec::new();
        for pod in &pods {
            asked.push((pod.wiring.key.clone(), attach(&network, pod).await.netns));
        }
        let found = network.presence(asked).await.expect("presence");
        assert_eq!(found.len(), 100);
        assert!(found.values().all(|presence| *presence == NetnsPresence::Linked), "{found:?}");
    });
}
