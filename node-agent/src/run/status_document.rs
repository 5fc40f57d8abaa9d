//! Builds the status document from copies of the agent's state. `gather` holds each lock only while it copies data; `build` is pure.

use std::collections::HashMap;
use std::time::Duration;

use bobbin_agent_status::{
    AgentMode, AgentStatus, ApiStatus, AttachmentState, AttachmentStatus, BlockPhase, BlockStatus, WatchStatus,
};
use bobbin_datapath::boot_time;
use bobbin_ipam::BootTime;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::agent::Agent;
use crate::args::Mode;
use crate::cluster::freshness::{PROOF_KINDS, Proof};
use crate::recent_activity::Activity;
use crate::state::{Attachment, AttachmentPhase, BlockSnapshot, BlockState, SettledState, StateSnapshot};

/// Copies of everything that the document needs.
struct Inputs {
    node: String,
    node_uid: Option<String>,
    mode: Mode,
    clock: Clock,
    state: StateSnapshot,
    activity: Activity,
    api: ApiStatus,
}

/// The same moment on the wall clock and on the boot clock.
#[derive(Clone, Copy)]
struct Clock {
    wall: Timestamp,
    boot: BootTime,
}

impl Clock {
    fn at(self, moment: BootTime) -> Option<Timestamp> {
        self.ago(self.boot.since(moment))
    }

    fn ago(self, age: Duration) -> Option<Timestamp> {
        self.wall.saturating_sub(age).ok()
    }
}

/// The document as JSON.
pub(super) fn json(agent: &Agent) -> String {
    let status = build(gather(agent), |proof, now| agent.freshness.proves(proof, now));
    // The document contains only texts, numbers and times, so its conversion can't fail.
    serde_json::to_string(&status).unwrap_or_default()
}

fn gather(agent: &Agent) -> Inputs {
    let clock = Clock { wall: Timestamp::now(), boot: boot_time() };
    let cooldowns: HashMap<String, Duration> =
        agent.cluster.pools().iter().map(|pool| (pool.name_any(), pool.spec.cooldown())).collect();
    let cooldown = |pool: &str| cooldowns.get(pool).copied().unwrap_or(bobbin_crds::DEFAULT_COOLDOWN);
    Inputs {
        node: agent.args.node_name.clone(),
        node_uid: agent.cluster.node().map(|node| node.uid),
        mode: agent.args.mode,
        clock,
        state: agent.node_state.snapshot(clock.boot, cooldown),
        activity: agent.recent.get(),
        api: api(agent, clock),
    }
}

fn api(agent: &Agent, clock: Clock) -> ApiStatus {
    let silence = agent.freshness.silence(clock.boot);
    let own = PROOF_KINDS.into_iter().map(|kind| {
        let silence = silence[kind as usize];
        WatchStatus {
            name: kind.name().to_owned(),
            synced: silence.is_some(),
            last_active: silence.and_then(|silence| clock.ago(silence)),
            failing_since: None,
        }
    });
    let cached = agent.cluster.watch_health().into_iter().map(|(name, synced, failing)| WatchStatus {
        name: name.to_owned(),
        synced,
        last_active: None,
        failing_since: failing.and_then(|failing| clock.ago(failing)),
    });
    ApiStatus {
        healthy: agent.cluster.api_healthy(),
        last_contact: agent.freshness.last_answer().and_then(|last| clock.at(last)),
        pending_writes: agent.assignment_writer.pending(),
        watches: own.chain(cached).collect(),
    }
}

/// Builds the document. `proves` says whether a proof is valid at a moment.
fn build(inputs: Inputs, proves: impl Fn(Proof, BootTime) -> bool) -> AgentStatus {
    let Inputs { node, node_uid, mode, clock, state, activity, api } = inputs;
    let attachments = state.attachments.iter().map(|each| attachment(each, &activity)).collect();
    let blocks = state.blocks.iter().map(|each| block(each, proves(each.proof, clock.boot), clock)).collect();
    AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node,
        node_uid,
        time: Some(clock.wall),
        mode: match mode {
            Mode::Run => AgentMode::Run,
            Mode::Remove => AgentMode::Remove,
        },
        installation: activity.installation,
        attachments,
        blocks,
        errors: activity.errors.into(),
        api,
        resync: activity.resync,
        network: activity.network,
    }
}

fn attachment(attachment: &Attachment, activity: &Activity) -> AttachmentStatus {
    let broken_since = activity.broken.get(&attachment.key).copied();
    let state = match attachment.phase {
        AttachmentPhase::Adding => AttachmentState::Adding,
        AttachmentPhase::Live if broken_since.is_some() => AttachmentState::Broken,
        AttachmentPhase::Live => AttachmentState::Running,
        AttachmentPhase::Deleting => AttachmentState::Ending,
    };
    AttachmentStatus {
        container_id: attachment.key.container_id.clone(),
        interface: attachment.key.if_name.clone(),
        pod_namespace: attachment.pod.namespace.clone(),
        pod_name: attachment.pod.name.clone(),
        pod_uid: attachment.pod.uid.clone(),
        pool: attachment.pool.clone(),
        block: attachment.block.clone(),
        ipv4: attachment.pair.ipv4.map(|address| address.to_string()),
        ipv6: attachment.pair.ipv6.map(|address| address.to_string()),
        state,
        created_at: Some(attachment.created_at),
        broken_since,
    }
}

fn block(block: &BlockSnapshot, proven: bool, clock: Clock) -> BlockStatus {
    // The route of an exporting block may not exist yet.
    let exporting = matches!(
        block.state,
        BlockState::Exporting { .. } | BlockState::Doubted { before: SettledState::Exporting { .. }, .. }
    );
    BlockStatus {
        name: block.name.clone(),
        pool: block.pool.clone(),
        ipv4: block.range.and_then(|range| range.ipv4).map(|net| net.to_string()),
        ipv6: block.range.and_then(|range| range.ipv6).map(|net| net.to_string()),
        state: phase(block.state),
        since: block.since.and_then(|since| clock.at(since)),
        proven,
        exported: block.state.exported() && !exporting,
        assigned: block.assigned,
        cooling: block.cooling,
        free: block.free,
    }
}

fn phase(state: BlockState) -> BlockPhase {
    match state {
        BlockState::Claiming { .. } => BlockPhase::Claiming,
        BlockState::Exporting { .. } => BlockPhase::Exporting,
        BlockState::Serving => BlockPhase::Serving,
        BlockState::Retiring => BlockPhase::Retiring,
        BlockState::Doubted { .. } => BlockPhase::Doubted,
        BlockState::Releasing { .. } => BlockPhase::Releasing,
        BlockState::Lost => BlockPhase::Lost,
    }
}

#[cfg(test)]
mod tests;
