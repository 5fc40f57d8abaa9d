//! The thief with the token of the agent on n1, and the objects that the thief tries to change.

use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_crds::{AddressBlock, AddressPool, FINALIZER, IPAssignment};
use bobbin_e2e::wait::{Poll, check, wait_until};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::fixture::{NAMESPACE, PolicyFixture};

/// The pool whose blocks the thief wants. Each node may own at most four of them.
pub(super) const POOL: &str = "wanted";
/// The name of the ConfigMap of denied nodes.
pub(super) const DENIED: &str = bobbin_crds::denied_nodes::CONFIG_MAP;
/// An address in `free_block(1)`.
pub(super) const IN_RELEASED_BLOCK: &str = "10.201.0.97";
/// The pause between two claims of a thief that wants all blocks.
const CLAIM_INTERVAL: Duration = Duration::from_millis(300);
/// How long the operator may take for work that it does at once.
pub(super) const AT_ONCE: Duration = Duration::from_secs(20);
/// How long the operator may take for work that it does only after two checks.
pub(super) const TWO_CHECKS: Duration = Duration::from_mins(1);

/// The thief's clients, and the objects that the tries use.
pub(super) struct Thief {
    pub(super) agent: Client,
    pub(super) admin: Client,
    /// The name of a block that n1 owns.
    pub(super) own: String,
    /// The name of a block that n2 owns.
    pub(super) theirs: String,
    /// The address of a pod on n2.
    pub(super) their_address: String,
    pub(super) victim_uid: String,
    pub(super) agent_uid: String,
}

impl Thief {
    /// Creates the pool, lets each node claim a block, and creates a pod with an address on n2.
    pub(super) async fn new(fixture: &PolicyFixture) -> Result<Self> {
        let (agent, admin) = (fixture.agent(), fixture.admin());
        let pool = json!({
            "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressPool", "metadata": {"name": POOL},
            "spec": {"subnets": [{"ipv4": "10.201.0.0/22"}], "cooldownSeconds": 0, "maxBlocksPerNode": 4},
        });
        Api::<AddressPool>::all(admin.clone()).create(&PostParams::default(), &serde_json::from_value(pool)?).await?;
        let mut thief = Self {
            agent,
            admin: admin.clone(),
            own: format!("{POOL}-0"),
            theirs: format!("{POOL}-1"),
            their_address: "10.201.0.33".to_owned(),
            victim_uid: String::new(),
            agent_uid: String::new(),
        };
        wait_until("the operator has created the pool's blocks", AT_ONCE, || async {
            let blocks = thief.admin_blocks().list(&ListParams::default()).await?.items;
            let count = blocks.iter().filter(|block| block.spec.pool_name == POOL).count();
            Ok(check(count >= 8, || format!("{count} blocks")))
        })
        .await?;
        wait_until("the block is at least a second old", AT_ONCE, || async {
            let created = thief.admin_blocks().get(&thief.own).await?.metadata.creation_timestamp;
            let age = created.map(|created| Timestamp::now().as_second() - created.0.as_second());
            Ok(check(age.is_some_and(|age| age > 0), || format!("{age:?} s")))
        })
        .await?;
        thief.patch(&thief.own, &claim_patch("n1")).await?;
        let theirs = Patch::Merge(claim_patch("n2"));
        let blocks: Api<AddressBlock> = Api::all(fixture.agent_of_n2());
        blocks.patch(&thief.theirs, &PatchParams::default(), &theirs).await?;
        let pods: Api<Pod> = Api::namespaced(admin.clone(), NAMESPACE);
        let victim = json!({
            "metadata": {"name": "victim"},
            "spec": {"serviceAccountName": "bobbin-operator", "nodeName": "n2", "containers": [{"name": "c", "image": "none"}]},
        });
        let victim = pods.create(&PostParams::default(), &serde_json::from_value(victim)?).await?;
        let status = json!({"status": {"podIPs": [{"ip": thief.their_address}], "podIP": thief.their_address}});
        pods.patch_status("victim", &PatchParams::default(), &Patch::Merge(status)).await?;
        let agents: Api<Pod> = Api::namespaced(admin.clone(), NAMESPACE);
        thief.victim_uid = victim.metadata.uid.unwrap_or_default();
        thief.agent_uid = agents.get("bobbin-agent-n1").await?.metadata.uid.unwrap_or_default();
        let victim =
            json!({"nodeName": "n2", "podNamespace": NAMESPACE, "podName": "victim", "podUID": thief.victim_uid});
        let assignment = assignment(&thief.their_address, &thief.theirs, &victim, &json!({}));
        let assignments: Api<IPAssignment> = Api::all(admin);
        assignments.create(&PostParams::default(), &serde_json::from_value(assignment)?).await?;
        Ok(thief)
    }

    pub(super) fn assignments(&self) -> Api<IPAssignment> {
        Api::all(self.agent.clone())
    }

    pub(super) fn blocks(&self) -> Api<AddressBlock> {
        Api::all(self.agent.clone())
    }

    pub(super) fn admin_blocks(&self) -> Api<AddressBlock> {
        Api::all(self.admin.clone())
    }

    pub(super) async fn create(&self, address: &str, block: &str, spec: Value, metadata: Value) -> kube::Result<()> {
        let object = assignment(address, block, &spec, &metadata);
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.assignments().create(&PostParams::default(), &object).await.map(drop)
    }

    pub(super) async fn delete(&self, address: &str, params: DeleteParams) -> kube::Result<()> {
        self.assignments().delete(address, &params).await.map(drop)
    }

    pub(super) async fn patch(&self, block: &str, patch: &Value) -> kube::Result<()> {
        self.blocks().patch(block, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    pub(super) async fn create_event(&self) -> kube::Result<()> {
        let event = json!({
            "metadata": {"name": "thief", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reason": "Test", "action": "Test", "type": "Normal", "note": "a test",
            "reportingController": "test", "reportingInstance": "test",
            "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "victim", "namespace": "default"},
        });
        let event = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        let events: Api<Event> = Api::namespaced(self.agent.clone(), "default");
        events.create(&PostParams::default(), &event).await.map(drop)
    }

    pub(super) async fn until_deleted(&self, address: &str, within: Duration) -> Result<()> {
        wait_until(&format!("the operator has deleted the assignment {address}"), within, || async {
            let seen = self.assignments().get_opt(address).await?;
            Ok(check(seen.is_none(), || format!("{seen:?}")))
        })
        .await
    }

    /// Waits until the operator has denied n1 for this reason. Checks the event on the Node and the pool's status, too.
    pub(super) async fn denied(&self, reason: &str) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.admin.clone(), NAMESPACE);
        wait_until(&format!("the operator has denied n1 with the reason {reason}"), AT_ONCE, || async {
            let entries = maps.get_opt(DENIED).await?.and_then(|map| map.data).unwrap_or_default();
            Ok(check(entries.get("n1").is_some_and(|entry| entry.contains(reason)), || format!("{entries:?}")))
        })
        .await?;
        let events: Api<Event> = Api::all(self.admin.clone());
        wait_until("an event on the Node reports the denial", AT_ONCE, || async {
            let about = ListParams::default().fields("reason=NodeDenied");
            let notes: Vec<_> = events.list(&about).await?.into_iter().filter_map(|event| event.note).collect();
            let found =
                notes.iter().any(|note| note.contains(reason) && note.contains("kubectl -n somewhere patch configmap"));
            Ok(check(found, || format!("{notes:?}")))
        })
        .await?;
        let pools: Api<AddressPool> = Api::all(self.admin.clone());
        wait_until("the pool's status counts only the address of the pod on n2", AT_ONCE, || async {
            let status = pools.get(POOL).await?.status.unwrap_or_default();
            Ok(check(status.used == 1, || format!("{} in use", status.used)))
        })
        .await
    }

    /// Checks that a released block keeps its finalizer as long as an assignment of the address exists.
    pub(super) async fn keeps_finalizer(&self, block: &str, address: &str) -> Result<()> {
        // Release an unused block too. The operator handles both blocks in the same pass. When the finalizer of the
        // unused block is gone, the operator has also seen the released `block`.
        let unused = free_block(3);
        self.patch(&unused, &claim_patch("n1")).await?;
        self.patch(&unused, &release_patch()).await?;
        wait_until("the operator has removed the finalizer of an unused block", AT_ONCE, || async {
            let block = self.admin_blocks().get(&unused).await?;
            Ok(check(block.finalizers().is_empty(), || format!("{block:?}")))
        })
        .await?;
        self.assignments().get(address).await?;
        let released = self.admin_blocks().get(block).await?;
        let keeps = released.spec.node_name.is_none() && released.finalizers().iter().any(|one| one == FINALIZER);
        ensure!(keeps, "the released block must be free and keep its finalizer: {released:?}");
        Ok(())
    }

    /// Lifts the denial, and then claims one block after another until the API server refuses a claim because of a new
    /// denial.
    pub(super) async fn claim_until_denied(&self) -> kube::Result<()> {
        lift(&self.admin).await?;
        for index in (2..).cycle() {
            let block = format!("{POOL}-{index}");
            match self.patch(&block, &claim_patch("n1")).await {
                Err(kube::Error::Api(status)) if status.message.contains("denies the node") && index > 8 => {
                    return Ok(());
                }
                // Ignore the refusal. The API server may still enforce the lifted denial, or the block may not exist
                // yet.
                Ok(()) | Err(kube::Error::Api(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(CLAIM_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until only the assignment of the pod on n2 is left.
    pub(super) async fn nothing_is_left(&self) -> Result<()> {
        wait_until("only the assignment of the pod on n2 is left", TWO_CHECKS, || async {
            let all = self.assignments().list(&ListParams::default()).await?.items;
            let names: Vec<String> =
                all.iter().filter(|one| one.spec.pool_name == POOL).map(ResourceExt::name_any).collect();
            Ok(if names == [self.their_address.clone()] {
                Poll::Ready(())
            } else {
                Poll::Pending(format!("{names:?}"))
            })
        })
        .await
    }
}

/// Builds an assignment of node n1, and sets these fields of its metadata and spec.
fn assignment(address: &str, block: &str, spec: &Value, metadata: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "IPAssignment", "metadata": metadata,
        "spec": {
            "poolName": POOL, "blockName": block, "nodeName": "n1", "ipv4": address, "containerID": "c0ffee",
            "ifName": "eth0", "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "boot",
        },
    });
    object["metadata"]["name"] = json!(address);
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

pub(super) fn no_such_pod() -> Value {
    json!({"podNamespace": "default", "podName": "invented", "podUID": "0f1e2d3c-0000-4000-8000-000000000007"})
}

pub(super) fn claim_patch(node: &str) -> Value {
    json!({
        "metadata": {"finalizers": [FINALIZER]},
        "spec": {"nodeName": node, "nodeUID": "0f1e2d3c-0000-4000-8000-000000000001"},
    })
}

pub(super) fn release_patch() -> Value {
    json!({"spec": {"nodeName": null, "nodeUID": null, "freeSince": "2026-01-01T00:00:00.000000Z"}})
}

/// Removes n1 from the ConfigMap of denied nodes.
pub(super) async fn lift(client: &Client) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    maps.patch(DENIED, &PatchParams::default(), &Patch::Merge(json!({"data": {"n1": null}}))).await.map(drop)
}

/// An address in the block that n1 owns.
pub(super) fn own_address(last: u8) -> String {
    format!("10.201.0.{last}")
}

/// An address in the block that n2 owns.
pub(super) fn address_of_n2(last: u8) -> String {
    format!("10.201.0.{}", 32 + last)
}

/// A block that no node owns.
pub(super) fn free_block(number: u8) -> String {
    format!("{POOL}-{}", 2 + number)
}

/// An address in a block that no node owns.
pub(super) fn free_address(last: u8) -> String {
    format!("10.201.0.{}", 128 + last)
}
