use super::*;

fn key() -> AttachmentKey {
    AttachmentKey::new("c1", "eth0")
}

fn link(peer_netns: Option<i32>) -> Link {
    Link { peer_netns, ..Link::default() }
}

fn exists(alias: &str) -> Namespace {
    Namespace::Exists(container_of_alias(alias).map(ToOwned::to_owned))
}

#[test]
fn only_a_missing_link_and_an_ended_namespace_prove_that_an_address_is_out_of_use() {
    for (namespace, without_link, with_link) in [
        (None, NetnsPresence::Unknown, NetnsPresence::Linked),
        (Some(Namespace::Gone), NetnsPresence::NetnsGone, NetnsPresence::Moved),
        (Some(exists("bobbin:c2")), NetnsPresence::NetnsGone, NetnsPresence::Moved),
        (Some(exists("bobbin:c1")), NetnsPresence::Broken, NetnsPresence::Linked),
    ] {
        let namespace = namespace.as_ref().map(|namespace| (7, namespace));
        assert_eq!(decide(&key(), None, namespace), without_link, "{namespace:?}");
        assert_eq!(decide(&key(), Some(&link(Some(8))), namespace), with_link, "{namespace:?}");
    }
}

#[test]
fn an_alias_that_another_program_set_or_cleared_names_no_container() {
    for alias in ["", "lo", "bobbin", "bobbin:", "bobbin:c2/eth0", "bobbin: c2", "bobbin:-", "Bobbin:c2", "x bobbin:c2"]
    {
        let namespace = exists(alias);
        assert_eq!(decide(&key(), None, Some((7, &namespace))), NetnsPresence::Broken, "{alias:?}");
        assert_eq!(decide(&key(), Some(&link(Some(7))), Some((7, &namespace))), NetnsPresence::Linked, "{alias:?}");
    }
}

#[test]
fn in_a_namespace_of_two_containers_the_link_of_the_first_counts_as_linked() {
    let namespace = exists("bobbin:c2");
    assert_eq!(decide(&key(), Some(&link(Some(7))), Some((7, &namespace))), NetnsPresence::Linked);
}
