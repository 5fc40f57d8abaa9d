//! The tries of the thief, and the expected answer to each try.

use bobbin_crds::{AddressPool, FINALIZER};
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::json;

use super::thief::{
    AT_ONCE, DENIED, IN_RELEASED_BLOCK, POOL, TWO_CHECKS, address_of_n2, claim_patch, free_address, free_block, lift,
    no_such_pod, own_address, release_patch,
};
use super::{Answer, Call};
use crate::fixture::NAMESPACE;

/// The tries, in the order in which the test makes them. Some tries need objects that earlier tries created.
pub(super) const TRIES: &[(&str, Answer, Call)] = &[
    (
        "create an assignment for another node",
        Answer::Refused(403, "an agent may do so only for its own node"),
        |thief| thief.create("10.201.0.9", &thief.theirs, json!({"nodeName": "n2"}), json!({})).boxed(),
    ),
    (
        "delete an assignment of another node",
        Answer::Refused(403, "an agent may do so only for its own node"),
        |thief| thief.delete(&thief.their_address, DeleteParams::default()).boxed(),
    ),
    (
        "delete all assignments with one request",
        Answer::Refused(403, "cannot deletecollection resource \"ipassignments\""),
        |thief| {
            async move {
                thief.assignments().delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop)
            }
            .boxed()
        },
    ),
    ("create an assignment with a finalizer", Answer::Refused(403, "a finalizer or an owner"), |thief| {
        async move {
            thief.create(&own_address(1), &thief.own, json!({}), json!({"finalizers": ["example.com/keep"]})).await
        }
        .boxed()
    }),
    ("create an assignment with an owner", Answer::Refused(403, "a finalizer or an owner"), |thief| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u", "blockOwnerDeletion": true});
        async move { thief.create(&own_address(1), &thief.own, json!({}), json!({"ownerReferences": [owner]})).await }
            .boxed()
    }),
    ("create an assignment with labels", Answer::Refused(403, "labels or annotations"), |thief| {
        async move { thief.create(&own_address(1), &thief.own, json!({}), json!({"labels": {"a": "b"}})).await }.boxed()
    }),
    ("create an assignment with annotations", Answer::Refused(403, "labels or annotations"), |thief| {
        async move { thief.create(&own_address(1), &thief.own, json!({}), json!({"annotations": {"a": "b"}})).await }
            .boxed()
    }),
    (
        "create an assignment whose name is not its address",
        Answer::Refused(422, "the name of the assignment is not its address"),
        |thief| {
            async move { thief.create("10.201.0.9", &thief.own, json!({"ipv4": own_address(1)}), json!({})).await }
                .boxed()
        },
    ),
    ("create a second assignment of another pod's address", Answer::Refused(409, "already exists"), |thief| {
        thief.create(&thief.their_address, &thief.theirs, json!({}), json!({})).boxed()
    }),
    (
        "create an assignment of an address in its block",
        Answer::Allowed("the node has the whole block anyway"),
        |thief| async move { thief.create(&own_address(2), &thief.own, json!({}), json!({})).await }.boxed(),
    ),
    (
        "put a finalizer on its own assignment",
        Answer::Refused(403, "cannot patch resource \"ipassignments\""),
        |thief| {
            async move {
                let patch = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/keep"]}}));
                thief.assignments().patch(&own_address(2), &PatchParams::default(), &patch).await.map(drop)
            }
            .boxed()
        },
    ),
    (
        "delete its own assignment so that a finalizer keeps it",
        Answer::Refused(403, "only with the propagation policy Background"),
        |thief| {
            let foreground =
                DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
            async move { thief.delete(&own_address(2), foreground).await }.boxed()
        },
    ),
    (
        "delete an assignment of its node",
        Answer::Allowed("the address stays held on the node, and its agent creates the assignment again"),
        |thief| async move { thief.delete(&own_address(2), DeleteParams::default()).await }.boxed(),
    ),
    (
        "claim a block for another node",
        Answer::Refused(403, "an agent may claim blocks only for its own node"),
        |thief| async move { thief.patch(&free_block(0), &claim_patch("n2")).await }.boxed(),
    ),
    (
        "take over the block of another node",
        Answer::Refused(422, "the block is claimed by the node n2 and cannot go to n1 directly: release it first"),
        |thief| {
            async move { thief.patch(&thief.theirs, &json!({"spec": {"nodeName": "n1", "nodeUID": "u"}})).await }
                .boxed()
        },
    ),
    (
        "release the block of another node",
        Answer::Refused(403, "is claimed by node n2, so the agent of node n1 may not change it"),
        |thief| async move { thief.patch(&thief.theirs, &release_patch()).await }.boxed(),
    ),
    (
        "give its block directly to another node",
        Answer::Refused(422, "cannot go to n2 directly: release it first"),
        |thief| async move { thief.patch(&thief.own, &json!({"spec": {"nodeName": "n2"}})).await }.boxed(),
    ),
    (
        "put another finalizer on its block",
        Answer::Refused(403, "may add only the finalizer bobbin.dev/in-use"),
        |thief| {
            let patch = json!({"metadata": {"finalizers": [FINALIZER, "example.com/keep"]}});
            async move { thief.patch(&thief.own, &patch).await }.boxed()
        },
    ),
    ("remove the finalizer of its block", Answer::Refused(403, "may not remove a finalizer of block"), |thief| {
        async move { thief.patch(&thief.own, &json!({"metadata": {"finalizers": null}})).await }.boxed()
    }),
    ("claim a block without the finalizer", Answer::Refused(403, "lacks the finalizer bobbin.dev/in-use"), |thief| {
        let patch = json!({"spec": {"nodeName": "n1", "nodeUID": "u"}});
        async move { thief.patch(&free_block(0), &patch).await }.boxed()
    }),
    (
        "put a finalizer on a free block",
        Answer::Refused(403, "may claim it, but may not change anything else"),
        |thief| {
            async move { thief.patch(&free_block(0), &json!({"metadata": {"finalizers": [FINALIZER]}})).await }.boxed()
        },
    ),
    (
        "give its block an owner",
        Answer::Refused(403, "an owner, because the garbage collector would delete"),
        |thief| {
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u"});
            async move { thief.patch(&thief.own, &json!({"metadata": {"ownerReferences": [owner]}})).await }.boxed()
        },
    ),
    ("label its block", Answer::Refused(403, "may not change labels or annotations of block"), |thief| {
        async move { thief.patch(&thief.own, &json!({"metadata": {"labels": {"a": "b"}}})).await }.boxed()
    }),
    ("annotate its block", Answer::Refused(403, "may not change labels or annotations of block"), |thief| {
        async move { thief.patch(&thief.own, &json!({"metadata": {"annotations": {"a": "b"}}})).await }.boxed()
    }),
    (
        "change the addresses of its block",
        Answer::Refused(422, "poolName, index, ipv4 and ipv6 of a block are immutable"),
        |thief| async move { thief.patch(&thief.own, &json!({"spec": {"ipv4": "10.0.0.0/27"}})).await }.boxed(),
    ),
    ("set freeSince of its block without releasing it", Answer::Refused(403, "may set freeSince of block"), |thief| {
        let patch = json!({"spec": {"freeSince": "2020-01-01T00:00:00.000000Z"}});
        async move { thief.patch(&thief.own, &patch).await }.boxed()
    }),
    ("create a block", Answer::Refused(403, "cannot create resource \"addressblocks\""), |thief| {
        async move {
            let mut block = thief.admin_blocks().get(&thief.own).await?;
            block.metadata = kube::api::ObjectMeta { name: Some(format!("{POOL}-99")), ..Default::default() };
            thief.blocks().create(&PostParams::default(), &block).await.map(drop)
        }
        .boxed()
    }),
    ("delete a block", Answer::Refused(403, "cannot delete resource \"addressblocks\""), |thief| {
        async move { thief.blocks().delete(&thief.own, &DeleteParams::default()).await.map(drop) }.boxed()
    }),
    ("change a pool", Answer::Refused(403, "cannot patch resource \"addresspools\""), |thief| {
        async move {
            let patch = Patch::Merge(json!({"spec": {"maxBlocksPerNode": 1000}}));
            Api::<AddressPool>::all(thief.agent.clone()).patch(POOL, &PatchParams::default(), &patch).await.map(drop)
        }
        .boxed()
    }),
    ("change the status of a pool", Answer::Refused(403, "cannot patch resource \"addresspools/status\""), |thief| {
        async move {
            let pools = Api::<AddressPool>::all(thief.agent.clone());
            let patch = Patch::Merge(json!({"status": {"free": 0}}));
            pools.patch_status(POOL, &PatchParams::default(), &patch).await.map(drop)
        }
        .boxed()
    }),
    ("change a Node", Answer::Refused(403, "cannot patch resource \"nodes\""), |thief| {
        async move {
            let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
            Api::<Node>::all(thief.agent.clone()).patch("n1", &PatchParams::default(), &patch).await.map(drop)
        }
        .boxed()
    }),
    ("delete a pod", Answer::Refused(403, "cannot delete resource \"pods\""), |thief| {
        async move {
            let pods: Api<Pod> = Api::namespaced(thief.agent.clone(), NAMESPACE);
            pods.delete("bobbin-agent-n1", &DeleteParams::default()).await.map(drop)
        }
        .boxed()
    }),
    ("read Secrets", Answer::Refused(403, "cannot list resource \"secrets\""), |thief| {
        async move { Api::<Secret>::all(thief.agent.clone()).list(&ListParams::default()).await.map(drop) }.boxed()
    }),
    (
        "get a token of the operator",
        Answer::Refused(403, "cannot create resource \"serviceaccounts/token\""),
        |thief| {
            async move {
                let accounts: Api<ServiceAccount> = Api::namespaced(thief.agent.clone(), NAMESPACE);
                let request = TokenRequest::default();
                accounts.create_token_request("bobbin-operator", &PostParams::default(), &request).await.map(drop)
            }
            .boxed()
        },
    ),
    (
        "read pools, blocks, assignments, Nodes, namespaces and pods",
        Answer::Allowed("the agent must read them; the thief can read environment variables in pod specs"),
        |thief| {
            async move { Api::<Pod>::all(thief.agent.clone()).list(&ListParams::default()).await.map(drop) }.boxed()
        },
    ),
    (
        "create an event in any namespace",
        Answer::Allowed("events only inform people; no program of Bobbin reads them"),
        |thief| async move { thief.create_event().await }.boxed(),
    ),
    (
        "claim a free block for its node",
        Answer::Allowed(
            "at most as many as the pool allows for a node; the node's agent releases an empty block again",
        ),
        |thief| async move { thief.patch(&free_block(0), &claim_patch("n1")).await }.boxed(),
    ),
    (
        "change nodeIPv4 of its block",
        Answer::Allowed(
            "with `--routing=direct`, other nodes route only this block to the false address, until the node's agent corrects the address",
        ),
        |thief| async move { thief.patch(&thief.own, &json!({"spec": {"nodeIPv4": "192.0.2.66"}})).await }.boxed(),
    ),
    (
        "claim a free block for its node with a false nodeUID",
        Answer::Allowed(
            "the name decides who owns a block; the node's agent writes the UID of its Node into the block",
        ),
        |thief| {
            let mut claim = claim_patch("n1");
            claim["spec"]["nodeUID"] = json!("0f1e2d3c-0000-4000-8000-00000000bad0");
            async move { thief.patch(&free_block(1), &claim).await }.boxed()
        },
    ),
    (
        "release its block while an address of the block is in use",
        Answer::Harmless(
            "the assignment and the finalizer stay, so no other node assigns the address; the node's agent claims the block back",
            |thief| async move { thief.keeps_finalizer(&free_block(1), IN_RELEASED_BLOCK).await }.boxed(),
        ),
        |thief| {
            async move {
                thief.create(IN_RELEASED_BLOCK, &free_block(1), json!({}), json!({})).await?;
                thief.patch(&free_block(1), &release_patch()).await
            }
            .boxed()
        },
    ),
    (
        "create an assignment of an address outside of its block, without a pod",
        Answer::Undone("the operator deletes it at once", |thief| thief.until_deleted("10.201.9.1", AT_ONCE).boxed()),
        |thief| async move { thief.create("10.201.9.1", &thief.own, json!({}), json!({})).await }.boxed(),
    ),
    (
        "create an assignment of an address outside of its block, naming a pod on another node",
        Answer::Undone("the operator deletes it at once", |thief| thief.until_deleted("10.201.9.2", AT_ONCE).boxed()),
        |thief| {
            let pod = json!({"podNamespace": NAMESPACE, "podName": "victim", "podUID": thief.victim_uid});
            thief.create("10.201.9.2", &thief.own, pod, json!({})).boxed()
        },
    ),
    (
        "create an assignment of an address outside of its block, naming the pod of its agent",
        Answer::Undone("the operator deletes it at once", |thief| thief.until_deleted("10.201.9.3", AT_ONCE).boxed()),
        |thief| {
            let pod = json!({"podNamespace": NAMESPACE, "podName": "bobbin-agent-n1", "podUID": thief.agent_uid});
            thief.create("10.201.9.3", &thief.own, pod, json!({})).boxed()
        },
    ),
    (
        "create an assignment in the block of another node, naming a pod that does not exist",
        Answer::Undone(
            "the operator deletes it after two checks, 15 minutes apart; until then the other node uses its other addresses",
            |thief| async move { thief.until_deleted(&address_of_n2(5), TWO_CHECKS).await }.boxed(),
        ),
        |thief| async move { thief.create(&address_of_n2(5), &thief.theirs, no_such_pod(), json!({})).await }.boxed(),
    ),
    (
        "create 40 assignments outside of its blocks, naming pods that do not exist",
        Answer::Undone("the operator denies the node at once; no status counts the assignments", |thief| {
            thief.denied("with addresses that are outside its blocks").boxed()
        }),
        |thief| {
            async move {
                for last in 6..26 {
                    thief.create(&address_of_n2(last), &thief.theirs, no_such_pod(), json!({})).await?;
                }
                for last in 0..20 {
                    thief.create(&free_address(last), &free_block(2), no_such_pod(), json!({})).await?;
                }
                Ok(())
            }
            .boxed()
        },
    ),
    ("create an assignment while its node is denied", Answer::Refused(403, "may not create IPAssignment"), |thief| {
        async move { thief.create(&own_address(4), &thief.own, json!({}), json!({})).await }.boxed()
    }),
    (
        "claim a block while its node is denied",
        Answer::Refused(
            403,
            "When the node is trusted again, remove the entry: kubectl -n somewhere patch configmap bobbin-denied-nodes",
        ),
        |thief| async move { thief.patch(&free_block(1), &claim_patch("n1")).await }.boxed(),
    ),
    (
        "remove its node from the ConfigMap bobbin-denied-nodes",
        Answer::Refused(403, "cannot patch resource \"configmaps\""),
        |thief| async move { lift(&thief.agent).await }.boxed(),
    ),
    (
        "delete the ConfigMap bobbin-denied-nodes",
        Answer::Refused(403, "cannot delete resource \"configmaps\""),
        |thief| {
            async move {
                let maps: Api<ConfigMap> = Api::namespaced(thief.agent.clone(), NAMESPACE);
                maps.delete(DENIED, &DeleteParams::default()).await.map(drop)
            }
            .boxed()
        },
    ),
    ("release a block while its node is denied", Answer::Allowed("a denied node may return its blocks"), |thief| {
        async move { thief.patch(&free_block(0), &release_patch()).await }.boxed()
    }),
    (
        "delete its assignments while its node is denied",
        Answer::Allowed("pods of a denied node stop like other pods"),
        |thief| {
            async move {
                let own = ListParams::default().fields("spec.nodeName=n1");
                for assignment in thief.assignments().list(&own).await? {
                    thief.delete(&assignment.name_any(), DeleteParams::default()).await?;
                }
                Ok(())
            }
            .boxed()
        },
    ),
    (
        "claim again and again beyond its maximum, after an administrator has lifted the denial",
        Answer::Undone(
            "the operator denies the node if it still claims blocks a minute after it exceeded its maximum",
            |thief| thief.denied("further blocks of pool wanted").boxed(),
        ),
        |thief| async move { thief.claim_until_denied().await }.boxed(),
    ),
];
