//! Each sign of trouble makes blocks unproven: the next ADD waits for its record's answer, and so passes over what others have.
//!
//! A block of four has one pod of this node, two addresses that the other node has recorded, and one that nobody has. An ADD that
//! waits gets that one. Reads of blocks are held meanwhile, so that nothing proves the block again.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use bobbin_e2e::api_proxy::{Fault, Injected, Selector};
use bobbin_e2e::lone_node::{LoneNode, PATIENCE};
use bobbin_e2e::proxy::Weather;
use bobbin_e2e::until::{so, until};
use serde_json::json;

use super::proven::{WAIT, silence_passes, with_wait};
use super::scene::{READS, Scene, answered, in_contact, is_saved};
use super::with_flags;

/// A wait that is shorter than the pauses between two tries of a record after some that failed.
const SHORT: &str = "1s";

struct Stage {
    scene: Scene,
    recorded: Vec<IpAddr>,
    next: usize,
}

impl Stage {
    async fn begin(node: &mut LoneNode, pool: &'static str, third: u8, wait: &str) -> Result<Self> {
        with_wait(node, wait).await?;
        let mut scene = Scene::begin(node, pool, third, 30, 2, json!({})).await?;
        scene.add(node).await?;
        let taken = scene.address(0)?;
        let next = scene.pod(node).await?;
        is_saved(node, &scene.name_of(next)).await?;
        let recorded = scene.block(node, 0).await?.record_others(node, pool, &[taken], 1).await?;
        Ok(Self { scene, recorded, next })
    }

    fn hold_reads(node: &LoneNode) -> Result<Injected> {
        Ok(node.api()?.inject(Selector::verbs(READS).of("addressblocks"), Fault::HoldRequest))
    }

    async fn waits(self, node: &mut LoneNode, held: Injected) -> Result<()> {
        let far = Fault::Delay(Duration::from_millis(100));
        let far = node.api()?.inject(Selector::verbs(&["create"]).of("ipassignments"), far);
        let answer = node.call(&self.scene.pods[self.next].call("ADD"))?;
        drop((far, held));
        let got = answered(&answer)?;
        ensure!(got.is_some(), "the ADD failed: {}", answer.stdout);
        ensure!(
            got.is_none_or(|got| !self.recorded.contains(&got)),
            "the ADD did not wait for its record: it answered {got:?}, which n9 has a record of"
        );
        node.proxy.set(Weather::Healthy);
        with_flags(node, &[]).await?;
        self.scene.end(node).await
    }
}

pub async fn broken_watch(node: &mut LoneNode) -> Result<()> {
    let stage = Stage::begin(node, "sign-broken", 91, WAIT).await?;
    let held = Stage::hold_reads(node)?;
    let mark = node.api()?.mark();
    node.proxy.set(Weather::Refuse);
    node.proxy.set(Weather::Healthy);
    in_contact(node, mark).await?;
    stage.waits(node, held).await
}

pub async fn agent_start(node: &mut LoneNode) -> Result<()> {
    let stage = Stage::begin(node, "sign-start", 92, WAIT).await?;
    let held = Stage::hold_reads(node)?;
    node.kill_agent();
    node.start_agent_only()?;
    node.await_agent(PATIENCE).await?;
    stage.waits(node, held).await
}

pub async fn silence(node: &mut LoneNode) -> Result<()> {
    let stage = Stage::begin(node, "sign-silence", 93, WAIT).await?;
    let held = Stage::hold_reads(node)?;
    // No bookmark either.
    let _silent = [
        node.api()?.inject(Selector::verbs(&["watch"]).of("addressblocks"), Fault::Freeze),
        node.api()?.inject(Selector::verbs(&["watch"]).of("nodes"), Fault::Freeze),
    ];
    silence_passes().await;
    stage.waits(node, held).await
}

pub async fn unauthorized(node: &mut LoneNode) -> Result<()> {
    let stage = Stage::begin(node, "sign-401", 97, SHORT).await?;
    // The pool default has a block of this node from here on.
    let first = node.pod()?;
    node.add(&first)?;
    node.del(&first)?;
    let refused = Selector::verbs(&["get", "list", "create", "update", "patch", "delete"]);
    let refused = node.api()?.inject(refused, Fault::Refuse(401));
    let other = node.pod()?;
    node.add(&other)?;
    // Longer than a minute, scaled.
    silence_passes().await;
    let mark = node.api()?.mark();
    let held = Stage::hold_reads(node)?;
    until("the token has been refused for longer than a minute", PATIENCE, || async {
        // The second is sent when the answer to the first is known.
        let tries = node.api()?.seen(mark, &Selector::verbs(&["get", "create"]).of("ipassignments")).len();
        Ok(so(tries >= 2, || format!("{tries} tries")))
    })
    .await?;
    drop(refused);
    node.del(&other)?;
    stage.waits(node, held).await
}

pub async fn lower_version(node: &mut LoneNode) -> Result<()> {
    let mut stage = Stage::begin(node, "sign-version", 94, WAIT).await?;
    // An ADD of another pool whose record is answered with a resourceVersion of long ago.
    let old = node.api()?.inject(Selector::verbs(&["create"]).of("ipassignments"), Fault::OldVersion);
    let held = Stage::hold_reads(node)?;
    let other = node.pod()?;
    node.add(&other)?;
    node.await_records(&[&stage.scene.pods[0].container_id, &other.container_id, "elsewhere", "elsewhere"], PATIENCE)
        .await?;
    node.del(&other)?;
    stage.next = stage.scene.pod(node).await?;
    // Not before: its record may be read while the answer is still on its way.
    drop(old);
    stage.waits(node, held).await
}

pub async fn duplicate(node: &mut LoneNode) -> Result<()> {
    let stage = Stage::begin(node, "sign-duplicate", 95, WAIT).await?;
    let other = Scene::begin(node, "sign-other", 96, 31, 1, json!({})).await?;
    let mut other = other;
    other.add(node).await?;
    let taken = other.address(0)?;
    other.block(node, 0).await?.record_others(node, other.pool, &[taken], 0).await?;
    let held = Stage::hold_reads(node)?;
    let mark = node.api()?.mark();
    let next = other.pod(node).await?;
    // It finds the duplicate, in time or late.
    let _ = node.call(&other.pods[next].call("ADD"))?;
    until("the duplicate was found", PATIENCE, || async {
        // The create is refused, and the record in its place read; in time or late.
        let read = node.api()?.seen(mark, &Selector::verbs(&["get"]).of("ipassignments"));
        Ok(so(!read.is_empty(), || "the record was not read".to_owned()))
    })
    .await?;
    for pod in &other.pods {
        node.del(pod)?;
    }
    for number in 0..other.pods.len() {
        node.delete_kube_pod("default", &other.name_of(number)).await?;
    }
    stage.waits(node, held).await
}
