//! Tests the check whether an assignment names a given attachment.

use super::*;

fn found(container: &str, node: &str) -> AssignmentInfo {
    let spec = IPAssignmentSpec {
        pool_name: "default".to_owned(),
        block_name: "default-0".to_owned(),
        node_name: node.to_owned(),
        ipv4: Some("10.64.0.5".to_owned()),
        ipv6: None,
        container_id: container.to_owned(),
        if_name: "eth0".to_owned(),
        pod_namespace: None,
        pod_name: None,
        pod_uid: None,
        created_at: MicroTime(jiff::Timestamp::UNIX_EPOCH),
        boot_id: "boot".to_owned(),
    };
    let mut assignment = IPAssignment::new("10.64.0.5", spec);
    assignment.metadata.uid = Some("uid".to_owned());
    AssignmentInfo::of(Lenient::Readable(assignment))
}

#[test]
fn an_assignment_is_the_attachments_only_with_its_key_and_node() {
    let key = AttachmentKey::new("c1", "eth0");
    assert_eq!(owner_result(found("c1", "n1"), &key, "n1"), CallResult::Own("uid".to_owned()));
    for (container, node) in [("c2", "n1"), ("c2", "n2"), ("c1", "n2")] {
        let CallResult::OtherOwner { node: named, holder, uid, .. } = owner_result(found(container, node), &key, "n1")
        else {
            panic!("the agent took container {container} on node {node} for container c1 on node n1");
        };
        assert_eq!((named.as_str(), holder.container_id.as_str(), uid.as_str()), (node, container, "uid"));
    }
}
