//! The roles of agent and operator grant the permissions that the two programs need, and nothing else.

use anyhow::Result;
use bobbin_crds::{AddressBlock, IPAssignment};
use bobbin_e2e::suite::Suite;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use libtest_mimic::Trial;

use crate::fixture::{NAMESPACE, PolicyFixture, refused};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("refused: an agent that deletes a collection of assignments", deleting_a_collection),
        suite.test("refused: an agent that creates or deletes blocks", making_and_deleting_blocks),
        suite.test("refused: reading secrets", reading_secrets),
        suite.test("agent and operator have exactly the permissions that they need", may_do_what_they_do),
    ]
}

async fn deleting_a_collection(fixture: &mut PolicyFixture) -> Result<()> {
    let all = ListParams::default();
    let own = ListParams::default().fields("spec.nodeName=n1");
    for which in [all, own] {
        let answer =
            Api::<IPAssignment>::all(fixture.agent()).delete_collection(&DeleteParams::default(), &which).await;
        refused(answer, 403, "cannot deletecollection resource \"ipassignments\"")?;
    }
    let answer = Api::<AddressBlock>::all(fixture.operator())
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await;
    refused(answer, 403, "cannot deletecollection resource \"addressblocks\"")
}

async fn making_and_deleting_blocks(fixture: &mut PolicyFixture) -> Result<()> {
    let block = fixture.block(Some("n1")).await?;
    let api: Api<AddressBlock> = Api::all(fixture.agent());
    refused(api.delete(&block.name_any(), &DeleteParams::default()).await, 403, "cannot delete resource")?;
    refused(
        api.create(&PostParams::default(), &AddressBlock::new("default-999", block.spec)).await,
        403,
        "cannot create resource",
    )
}

async fn reading_secrets(fixture: &mut PolicyFixture) -> Result<()> {
    for client in [fixture.agent(), fixture.operator()] {
        let answer = Api::<Secret>::namespaced(client, NAMESPACE).list(&ListParams::default()).await;
        refused(answer, 403, "cannot list resource \"secrets\"")?;
    }
    Ok(())
}

/// Each row has a client, an API group, a resource, the allowed verbs and the refused verbs.
const TABLE: &[(&str, &str, &str, &str, &str)] = &[
    ("agent", "bobbin.dev", "addresspools", "get list watch", "create update patch delete deletecollection"),
    ("agent", "bobbin.dev", "addresspools/status", "", "get update patch"),
    ("agent", "bobbin.dev", "addressblocks", "get list watch patch", "create update delete deletecollection"),
    ("agent", "bobbin.dev", "ipassignments", "get list watch create delete", "update patch deletecollection"),
    ("agent", "", "nodes", "get list watch", "create update patch delete"),
    ("agent", "", "pods", "get list watch", "create update patch delete"),
    ("agent", "", "namespaces", "get list watch", "create update patch delete"),
    ("agent", "events.k8s.io", "events", "create patch", "delete list"),
    ("operator", "bobbin.dev", "addresspools", "get list watch patch", "create update delete deletecollection"),
    ("operator", "bobbin.dev", "addresspools/status", "patch", "get update"),
    ("operator", "bobbin.dev", "addressblocks", "get list watch create patch delete", "update deletecollection"),
    ("operator", "bobbin.dev", "ipassignments", "get list watch delete", "create update patch deletecollection"),
    ("operator", "", "nodes", "get list watch", "create update patch delete"),
    ("operator", "", "pods", "get list", "watch create delete"),
    ("operator", "", "namespaces", "", "get list watch"),
    ("operator", "coordination.k8s.io", "leases", "", "get list watch create update patch delete"),
    ("operator", "", "configmaps", "", "get list watch create update patch delete"),
    ("agent", "", "configmaps", "", "get list watch create update patch delete"),
];

/// The objects that the operator may write in its own namespace. Each row has an API group, a resource and a name.
const NAMED: [(&str, &str, &str); 3] = [
    ("coordination.k8s.io", "leases", "bobbin-operator"),
    ("", "configmaps", "bobbin-deleted-nodes"),
    ("", "configmaps", "bobbin-denied-nodes"),
];

async fn may_do_what_they_do(fixture: &mut PolicyFixture) -> Result<()> {
    let mut wrong = Vec::new();
    for (who, group, resource, allowed, refused) in TABLE {
        let client = if *who == "agent" { fixture.agent() } else { fixture.operator() };
        for (verbs, expected) in [(allowed, true), (refused, false)] {
            for verb in verbs.split_whitespace() {
                if may(&client, group, resource, verb, None).await? != expected {
                    wrong.push(format!("the permission of the {who} to {verb} {resource} must be {expected}"));
                }
            }
        }
    }
    for (group, resource, name) in NAMED {
        for (verb, expected) in [("get", true), ("create", true), ("patch", true), ("update", false), ("delete", false)]
        {
            if may(&fixture.operator(), group, resource, verb, Some(name)).await? != expected {
                wrong.push(format!("the permission of the operator to {verb} {resource} {name} must be {expected}"));
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn may(client: &Client, group: &str, resource: &str, verb: &str, name: Option<&str>) -> Result<bool> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let is_namespaced = group == "coordination.k8s.io" || resource == "configmaps";
    let namespace = is_namespaced.then(|| NAMESPACE.to_owned());
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        namespace,
        name: name.map(ToOwned::to_owned),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
