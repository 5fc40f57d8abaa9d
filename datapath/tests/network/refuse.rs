//! If a step of an attach fails, nothing is left on the node or in the pod, and the error says what to do.

use std::os::fd::OwnedFd;

use bobbin_datapath::{AttachError, Network, Settings};

use crate::node::{Pod, ip, links, network, on_a_node};

/// Attaches a pod, expects an error, and checks that neither the node nor the pod has changed.
async fn refused(network: &Network, pod: &Pod, netns: OwnedFd) -> AttachError {
    let node = || [links().join("\n"), ip("route show table all"), ip("-6 route show table all")];
    let inside = || [pod.ip("-o addr show scope global"), pod.ip("route"), pod.ip("-o link show type veth")];
    let before = (node(), inside());
    let error = network.attach(&pod.wiring, netns).await.expect_err("this attach can't succeed");
    assert_eq!((node(), inside()), before);
    println!("{error}");
    error
}

#[test]
fn an_existing_interface_in_the_container_is_refused_and_stays() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        pod.ip("link add eth0 type veth peer name other");
        let error = refused(&network, &pod, pod.netns()).await;
        assert!(matches!(error, AttachError::InterfaceExists { .. }), "{error:?}");
        assert!(pod.ip("link").contains("other@eth0"));
    });
}

#[test]
fn the_nodes_own_namespace_is_refused() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let own = std::fs::File::open("/proc/thread-self/ns/net").expect("the node's namespace");
        let error = refused(&network, &pod, own.into()).await;
        assert!(matches!(error, AttachError::HostNetns(_)), "{error:?}");
    });
}

#[test]
fn a_file_that_is_no_namespace_is_refused_as_gone() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(1));
        let file = tempfile::tempfile().expect("a file");
        let error = refused(&network, &pod, file.into()).await;
        assert!(matches!(error, AttachError::NetnsGone { .. }), "{error:?}");
    });
}

#[test]
fn an_address_in_use_by_another_attachment_is_refused_in_either_family() {
    on_a_node(|| async {
        let network = network().await;
        for (ipv4, ipv6) in [(true, false), (false, true)] {
            let holder = Pod::new(3, ipv4, ipv6);
            network.attach(&holder.wiring, holder.netns()).await.expect("attach");
            let mut pod = Pod::new(4, true, true);
            pod.wiring.pair.ipv4 = holder.wiring.pair.ipv4.or(pod.wiring.pair.ipv4);
            pod.wiring.pair.ipv6 = holder.wiring.pair.ipv6.or(pod.wiring.pair.ipv6);
            let error = refused(&network, &pod, pod.netns()).await;
            assert!(matches!(error, AttachError::AddressInUse { .. }), "{error:?}");
            assert!(error.to_string().contains("bobbin:container3/eth0"), "{error}");
            network.detach(&holder.wiring.key, holder.wiring.pair).await.expect("detach");
        }
    });
}

#[test]
fn a_foreign_route_with_the_same_key_is_named_and_stays() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(5));
        ip("route add 10.64.0.5/32 dev bob-up table 116 proto 99");
        let error = refused(&network, &pod, pod.netns()).await;
        assert!(error.to_string().contains("another program (protocol 99) over bob-up"), "{error}");
        assert!(ip("route show table 116").contains("10.64.0.5 dev bob-up"));
    });
}

#[test]
fn a_node_address_that_the_node_does_not_have_is_an_error() {
    on_a_node(|| async {
        let (network, mut pod) = (network().await, Pod::dual(6));
        pod.wiring.node_ipv6 = Some("2001:db8::77".parse().expect("an address"));
        refused(&network, &pod, pod.netns()).await;
    });
}

#[test]
fn settings_that_cannot_be_written_undo_the_link() {
    on_a_node(|| async {
        let nothing = tempfile::tempdir().expect("a directory");
        let settings = Settings { sysctl_root: nothing.path().to_owned(), ..Settings::default() };
        let network = Network::open(settings).await.expect("open");
        let pod = Pod::dual(6);
        let error = refused(&network, &pod, pod.netns()).await;
        assert!(error.to_string().contains("proxy_arp"), "{error}");
    });
}

#[test]
fn the_same_attachment_twice_is_an_error_and_keeps_the_first() {
    on_a_node(|| async {
        let (network, pod) = (network().await, Pod::dual(7));
        network.attach(&pod.wiring, pod.netns()).await.expect("attach");
        let error = network.attach(&pod.wiring, pod.netns()).await.expect_err("twice");
        assert!(matches!(error, AttachError::LinkExists { .. }), "{error:?}");
        assert_eq!(network.check(&pod.wiring, pod.netns()).await.expect("check"), []);
    });
}
