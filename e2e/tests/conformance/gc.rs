//! GC frees an attachment only if the runtime does not list the attachment as valid.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{Answer, Call, SingleNode};
use serde_json::{Value, json};

use super::nothing_is_left;

/// Calls GC. Its list of valid attachments has every attachment with an assignment, except those of the `unlisted`
/// containers.
async fn gc_without(node: &SingleNode, unlisted: &[&str]) -> Result<Answer> {
    let all = node.assignments().await?;
    let listed = all.iter().filter(|one| !unlisted.contains(&one.spec.container_id.as_str()));
    let list: Vec<Value> =
        listed.map(|one| json!({"containerID": one.spec.container_id, "ifname": one.spec.if_name})).collect();
    node.call(&Call { verb: "GC", ..Call::default() }.with("cni.dev/valid-attachments", json!(list)))
}

pub async fn frees_the_unlisted(node: &mut SingleNode) -> Result<()> {
    let (kept, first, second) = (node.sandbox()?, node.sandbox()?, node.sandbox()?);
    let result = node.add(&kept)?;
    node.add(&first)?;
    node.add(&second)?;
    let ids = [kept.container_id.as_str(), &first.container_id, &second.container_id];
    have_assignments(node, &ids).await?;
    let unlisted = [first.container_id.as_str(), &second.container_id];
    gc_without(node, &unlisted).await?.ok()?;
    ensure!(
        first.addresses()?.len() == 2,
        "one GC call freed the attachment of a container whose network namespace exists"
    );
    gc_without(node, &unlisted).await?.ok()?;
    for id in unlisted {
        nothing_is_left(node, id).await?;
    }
    node.call(&kept.check(&result))?.ok()?;
    node.del(&kept)
}

/// Waits until these containers have assignments.
async fn have_assignments(node: &SingleNode, ids: &[&str]) -> Result<()> {
    bobbin_e2e::wait::wait_until(
        "the containers have their assignments",
        bobbin_e2e::single_node::WAIT_TIMEOUT,
        || async {
            let all = node.assignments().await?;
            let there = ids.iter().filter(|id| all.iter().any(|one| one.spec.container_id == **id)).count();
            Ok(bobbin_e2e::wait::check(there == ids.len(), || format!("{there} of {}", ids.len())))
        },
    )
    .await
}

pub async fn leaves_other_networks(node: &mut SingleNode) -> Result<()> {
    let (ours, other) = (node.sandbox()?, node.sandbox()?);
    let of_other = |verb: &'static str| other.call(verb).with("name", json!("other"));
    let gc = |name: &str| {
        let call = Call { verb: "GC", ..Call::default() }.with("name", json!(name));
        node.call(&call.with("cni.dev/valid-attachments", json!([])))
    };
    let result = node.add(&ours)?;
    node.call(&of_other("ADD"))?.ok()?;
    have_assignments(node, &[&ours.container_id, &other.container_id]).await?;
    for _ in 0..3 {
        gc("a third")?.ok()?;
    }
    // GC frees an attachment at the second call for its network. The calls for the network `a third` do not count.
    gc("other")?.ok()?;
    ensure!(other.addresses()?.len() == 2, "the first GC call for the network freed the attachment");
    gc("other")?.ok()?;
    nothing_is_left(node, &other.container_id).await?;
    node.call(&ours.check(&result))?.ok()?;
    node.del(&ours)
}

pub async fn frees_what_is_gone(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    let id = pod.container_id.clone();
    drop(pod);
    // Wait, because the kernel removes a network namespace a moment after the last reference is gone.
    bobbin_e2e::wait::wait_until(
        "the kernel has removed the link with its network namespace",
        bobbin_e2e::single_node::WAIT_TIMEOUT,
        || async {
            let links = node.attachments()?;
            Ok(bobbin_e2e::wait::check(!links.keys().any(|alias| alias.contains(&id)), || "it exists".to_owned()))
        },
    )
    .await?;
    have_assignments(node, &[&id]).await?;
    gc_without(node, &[&id]).await?.ok()?;
    have_assignments(node, &[&id]).await?;
    gc_without(node, &[&id]).await?.ok()?;
    nothing_is_left(node, &id).await
}

pub async fn without_a_list(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    for _ in 0..2 {
        let error = node.call(&Call { verb: "GC", ..Call::default() })?.error()?;
        ensure!(error.code == 7 && error.text.contains("valid-attachments"), "{error:?}");
    }
    let older = Call { verb: "GC", ..Call::default() }.with("cniVersion", json!("1.0.0"));
    ensure!(node.call(&older)?.error()?.code == 1, "the plugin must refuse GC for CNI version 1.0.0");
    node.call(&pod.check(&result))?.ok()?;
    node.del(&pod)
}
