//! Tests that a consistent snapshot of two nodes has no finding, and that each change of one fact causes a finding
//! about this fact.

use super::*;
use crate::invariants::Kind;
use crate::invariants::snapshot::{
    AcceptedSubnet, AddressCounts, ApiObjects, Assignment, Block, Checkpoint, HostLink, Kernel, Machine, Pod, PodRoute,
    Pool, Sandbox, SavedAttachment, SavedBlock,
};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn key(container: &str) -> AttachmentKey {
    AttachmentKey::new(container, "eth0")
}

fn pod_id(name: &str) -> PodId {
    PodId { namespace: "shop".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
}

/// A node with one block and one pod.
fn machine(name: &str, pod: &str, ip: &str, block: &str, range: &str, inode: u64) -> Machine {
    let (container, link) = (format!("container-{pod}"), format!("bob-{pod}"));
    Machine {
        name: name.to_owned(),
        kernel: Kernel {
            links: vec![HostLink { name: link.clone(), attachment: key(&container), filtered: true }],
            pod_routes: vec![PodRoute { to: address(ip), link: link.clone() }],
            blackholes: vec![net(range)],
            exports: vec![net(range)],
            neighbours: vec![(address(ip), link)],
            rules: [true, false],
            filter: true,
        },
        checkpoint: Checkpoint {
            exists: true,
            attachments: vec![SavedAttachment { key: key(&container), addresses: vec![address(ip)], pod: pod_id(pod) }],
            unreadable: Vec::new(),
            blocks: vec![SavedBlock { name: block.to_owned(), serving: true }],
        },
        sandboxes: vec![Sandbox {
            inode,
            container: Some(container),
            pod_uid: Some(format!("uid-{pod}")),
            addresses: vec![("eth0".to_owned(), address(ip))],
        }],
    }
}

fn block(name: &str, range: &str, node: &str) -> Block {
    let (node, node_uid) = (Some(node.to_owned()), Some(format!("uid-{node}")));
    Block { name: name.to_owned(), pool: "p".to_owned(), ranges: vec![net(range)], node, node_uid }
}

fn assignment(ip: &str, block: &str, node: &str, pod: &str) -> Assignment {
    Assignment {
        name: ip.to_owned(),
        pool: "p".to_owned(),
        block: block.to_owned(),
        node: node.to_owned(),
        addresses: vec![address(ip)],
        attachment: key(&format!("container-{pod}")),
        pod: pod_id(pod),
    }
}

fn pod(name: &str, node: &str, ip: &str) -> Pod {
    Pod { id: pod_id(name), node: Some(node.to_owned()), addresses: vec![address(ip)], ..Pod::default() }
}

fn consistent() -> Snapshot {
    let counts = AddressCounts { total: 256, reserved: 1, assigned: 2, cooling: 3, free: 250 };
    Snapshot {
        api: Some(ApiObjects {
            pools: vec![Pool {
                name: "p".to_owned(),
                status_is_current: true,
                block_size_bits: 4,
                accepted: vec![AcceptedSubnet { ranges: vec![net("10.0.0.0/24")], first_index: Some(0) }],
                counts: [("IPv4", counts)].into(),
                used: 2,
                free: 250,
                claimed_blocks: 2,
            }],
            blocks: vec![block("p-0", "10.0.0.0/28", "n1"), block("p-1", "10.0.0.16/28", "n2")],
            assignments: vec![assignment("10.0.0.5", "p-0", "n1", "a"), assignment("10.0.0.20", "p-1", "n2", "b")],
            pods: vec![pod("a", "n1", "10.0.0.5"), pod("b", "n2", "10.0.0.20")],
            nodes: [("n1".to_owned(), "uid-n1".to_owned()), ("n2".to_owned(), "uid-n2".to_owned())].into(),
        }),
        machines: vec![
            machine("n1", "a", "10.0.0.5", "p-0", "10.0.0.0/28", 1),
            machine("n2", "b", "10.0.0.20", "p-1", "10.0.0.16/28", 2),
        ],
        unread: Vec::new(),
    }
}

/// Changes the consistent snapshot, and checks that a finding of this kind contains all these words.
fn finds(kind: Kind, words: &[&str], change: impl FnOnce(&mut ApiObjects, &mut Vec<Machine>)) {
    let mut snapshot = consistent();
    change(snapshot.api.as_mut().unwrap(), &mut snapshot.machines);
    let findings = compare(&snapshot);
    let is_named = |one: &Finding| one.kind == kind && words.iter().all(|word| one.text.contains(word));
    assert!(
        findings.iter().any(is_named),
        "no finding of kind {kind:?} contains {words:?}; the findings are {findings:#?}"
    );
}

#[test]
fn a_consistent_snapshot_has_no_finding() {
    assert_eq!(compare(&consistent()), []);
}

#[test]
fn two_holders_of_one_address_are_found_in_any_pair_of_sources() {
    let twice = Kind::DuplicateAddress;
    let both = ["pod shop/a", "pod shop/b", "both have 10.0.0.5"];
    let sandbox = |m: &mut Vec<Machine>| m[1].sandboxes[0].addresses.push(("eth0".to_owned(), address("10.0.0.5")));
    let route = |m: &mut Vec<Machine>| {
        m[1].kernel.pod_routes.push(PodRoute { to: address("10.0.0.5"), link: "bob-b".to_owned() });
    };
    let saved = |m: &mut Vec<Machine>| m[1].checkpoint.attachments[0].addresses.push(address("10.0.0.5"));
    finds(twice, &both, |_, m| sandbox(m));
    finds(twice, &both, |_, m| route(m));
    finds(twice, &both, |_, m| saved(m));
    // Each pair of sources alone is enough to find the duplicate.
    for other in 0..3 {
        let only = |m: &mut Vec<Machine>, source: usize| {
            let machine = &mut m[0];
            if source != 0 {
                machine.sandboxes.clear();
            }
            if source != 1 {
                machine.kernel.pod_routes.clear();
            }
            if source != 2 {
                machine.checkpoint.attachments.clear();
            }
        };
        finds(twice, &["10.0.0.5"], |_, m| (sandbox(m), only(m, other)).1);
        finds(twice, &["10.0.0.5"], |_, m| (route(m), only(m, other)).1);
        finds(twice, &["10.0.0.5"], |_, m| (saved(m), only(m, other)).1);
    }
    let conflict = Kind::ConflictingHolders;
    finds(conflict, &both, |api, _| api.pods[1].addresses.push(address("10.0.0.5")));
    finds(conflict, &both, |api, _| api.assignments[0].attachment = key("container-b"));
    finds(twice, &both, |api, _| api.assignments[1].addresses.push(address("10.0.0.5")));
}

#[test]
fn two_namespaces_without_a_known_container_are_two_holders() {
    finds(Kind::DuplicateAddress, &["network namespace 1 ", "network namespace 9 "], |_, machines| {
        let unknown =
            Sandbox { inode: 9, addresses: vec![("eth0".to_owned(), address("10.0.0.5"))], ..Sandbox::default() };
        machines[0].sandboxes[0].container = None;
        machines[0].sandboxes.push(unknown);
    });
}

#[test]
fn an_address_in_use_that_is_not_held_is_found() {
    let freed = Kind::AddressInUseFreed;
    finds(freed, &["shop/a", "10.0.0.5", "checkpoint of n1"], |_, m| m[0].checkpoint.attachments.clear());
    finds(freed, &["10.0.0.5", "block p-0 is free"], |api, _| api.blocks[0].node = None);
    finds(freed, &["10.0.0.5", "p-0 belongs to node n2"], |api, _| api.blocks[0].node = Some("n2".to_owned()));
    finds(freed, &["10.0.0.5", "no block contains the address"], |api, _| drop(api.blocks.remove(0)));
    finds(Kind::MissingAssignment, &["shop/a", "10.0.0.5", "no assignment"], |api, _| drop(api.assignments.remove(0)));
}

#[test]
fn an_unreadable_file_of_an_attachment_counts_as_in_use() {
    let mut snapshot = consistent();
    let checkpoint = &mut snapshot.machines[0].checkpoint;
    checkpoint.attachments.clear();
    checkpoint.unreadable.push(key("container-a"));
    let kinds: Vec<Kind> = compare(&snapshot).into_iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::Unread]);
}

#[test]
fn leaked_and_void_assignments_are_found() {
    let leaked = Kind::LeakedAssignment;
    finds(leaked, &["10.0.0.5", "does not exist"], |api, _| drop(api.pods.remove(0)));
    finds(leaked, &["10.0.0.5", "has ended"], |api, _| api.pods[0].ended = true);
    finds(leaked, &["10.0.0.5", "node n1 does not exist"], |api, _| drop(api.nodes.remove("n1")));
    finds(leaked, &["10.0.0.5", "runs on n2"], |api, _| api.pods[0].node = Some("n2".to_owned()));
    finds(leaked, &["10.0.0.9", "no such attachment"], |api, _| {
        let mut old = assignment("10.0.0.9", "p-0", "n1", "old");
        old.pod = pod_id("a");
        api.assignments.push(old);
    });
    let void = Kind::VoidAssignment;
    finds(void, &["10.0.0.5", "are in block p-1"], |api, _| api.assignments[0].block = "p-1".to_owned());
    finds(void, &["10.0.0.5", "p-0 belongs to node n2"], |api, _| api.blocks[0].node = Some("n2".to_owned()));
    finds(void, &["10.0.0.5", "block p-9 does not exist"], |api, _| api.assignments[0].block = "p-9".to_owned());
}

#[test]
fn blocks_that_overlap_or_belong_to_nobody_are_found() {
    finds(Kind::OverlappingBlocks, &["p-0", "p-7", "overlap"], |api, _| {
        api.blocks.push(block("p-7", "10.0.0.4/30", "n1"));
    });
    finds(Kind::BlockOfMissingNode, &["p-0", "n1", "does not exist"], |api, _| drop(api.nodes.remove("n1")));
    finds(Kind::BlockOfMissingNode, &["p-0", "earlier Node n1"], |api, _| {
        api.nodes.insert("n1".to_owned(), "another".to_owned());
    });
    finds(Kind::BlockOutsidePool, &["p-0", "10.0.0.0/28"], |api, _| api.pools[0].accepted.clear());
    finds(Kind::SavedBlocksDiffer, &["n1", "p-0", "lacks"], |_, m| m[0].checkpoint.blocks.clear());
    finds(Kind::SavedBlocksDiffer, &["n1", "p-0", "has not claimed"], |api, _| api.blocks[0].node = None);
}

#[test]
fn a_kernel_that_differs_from_the_checkpoint_is_found() {
    let kernel = Kind::MissingInKernel;
    finds(kernel, &["n1", "shop/a", "no host link"], |_, m| m[0].kernel.links.clear());
    finds(kernel, &["n1", "shop/a", "no route to 10.0.0.5"], |_, m| m[0].kernel.pod_routes.clear());
    finds(kernel, &["n1", "shop/a", "no network namespace"], |_, m| m[0].sandboxes.clear());
    finds(Kind::WrongRoute, &["n1", "10.0.0.5", "bob-x", "bob-a"], |_, m| {
        m[0].kernel.pod_routes[0].link = "bob-x".to_owned();
    });
    let checkpoint = Kind::MissingInCheckpoint;
    finds(checkpoint, &["n1", "link bob-a"], |_, m| m[0].checkpoint.attachments.clear());
    finds(checkpoint, &["n1", "route to 10.0.0.7", "no link of a pod"], |_, m| {
        m[0].kernel.pod_routes.push(PodRoute { to: address("10.0.0.7"), link: "lo".to_owned() });
    });
    let incomplete = Kind::IncompleteNetwork;
    finds(incomplete, &["n1", "neighbour 10.0.0.5"], |_, m| m[0].kernel.neighbours.clear());
    finds(incomplete, &["n1", "IPv4 rule"], |_, m| m[0].kernel.rules = [false, true]);
    finds(incomplete, &["n1", "anti-spoofing filter"], |_, m| m[0].kernel.filter = false);
    finds(incomplete, &["bob-a", "group"], |_, m| m[0].kernel.links[0].filtered = false);
}

#[test]
fn wrong_exports_are_found() {
    finds(Kind::NotExported, &["n1", "p-0", "in this block: 1"], |_, m| m[0].kernel.exports.clear());
    finds(Kind::NotExported, &["n1", "p-0", "blackhole"], |_, m| m[0].kernel.blackholes.clear());
    finds(Kind::ForeignExport, &["n1", "10.0.0.16/28", "p-1 belongs to node n2"], |_, m| {
        m[0].kernel.exports.push(net("10.0.0.16/28"));
    });
    finds(Kind::ForeignExport, &["n1", "10.9.0.0/28", "no block"], |_, m| m[0].kernel.exports.push(net("10.9.0.0/28")));
    finds(Kind::ExportedTwice, &["n1", "n2", "10.0.0.16/28"], |_, m| m[0].kernel.exports.push(net("10.0.0.16/28")));
    finds(Kind::ForeignBlockUsed, &["n1", "uses 10.0.0.5", "belongs to node n2"], |api, _| {
        api.blocks[0].node = Some("n2".to_owned());
    });
}

#[test]
fn pools_whose_subnets_or_counts_are_wrong_are_found() {
    let other = |range: &str, first| AcceptedSubnet { ranges: vec![net(range)], first_index: first };
    finds(Kind::OverlappingSubnets, &["10.0.0.0/24", "10.0.0.128/25"], |api, _| {
        api.pools[0].accepted.push(other("10.0.0.128/25", Some(16)));
    });
    finds(Kind::OverlappingIndices, &["10.0.0.0/24", "10.0.1.0/24", "from 15"], |api, _| {
        api.pools[0].accepted.push(other("10.0.1.0/24", Some(15)));
    });
    let wrong = Kind::WrongPoolCounts;
    finds(wrong, &["pool p", "add up", "total 256"], |api, _| api.pools[0].counts.get_mut("IPv4").unwrap().cooling = 4);
    finds(wrong, &["pool p", "3 used"], |api, _| api.pools[0].used = 3);
    finds(wrong, &["pool p", "1 claimed"], |api, _| api.pools[0].claimed_blocks = 1);
    finds(wrong, &["pool p", "accepted subnets have 512"], |api, _| {
        api.pools[0].accepted.push(other("10.0.1.0/24", Some(16)));
    });
}

#[test]
fn a_silent_api_server_is_a_finding_and_hides_no_duplicate() {
    let mut snapshot = consistent();
    snapshot.api = None;
    snapshot.unread.push("the API server's objects can't be read: silent".to_owned());
    snapshot.machines[1].sandboxes[0].addresses.push(("eth0".to_owned(), address("10.0.0.5")));
    let kinds: Vec<Kind> = compare(&snapshot).into_iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&Kind::DuplicateAddress) && kinds.contains(&Kind::Unread), "{kinds:?}");
    assert!(!kinds.contains(&Kind::MissingAssignment), "{kinds:?}");
}
