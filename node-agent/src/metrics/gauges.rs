//! Sets the gauges from the agent's state, each time that the metrics are read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bobbin_ipam::demand::BlockUse;
use jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::metrics::gauge::Gauge;

use super::{AddressLabels, BlockLabels, KindLabel, Metrics};
use crate::agent::Agent;
use crate::blocks::demand::DemandController;
use crate::state::{Attachment, AttachmentPhase, BlockState, BlockView};

pub(super) const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];
pub(super) const ADDRESS_STATES: [&str; 3] = ["assigned", "cooling", "free"];

/// Sets all gauges that describe the agent's state.
pub(crate) fn refresh(agent: &Agent, demand: &DemandController) {
    let metrics = &agent.metrics;
    let attachments = agent.node_state.attachments();
    set(&metrics.attachments, attachments.len());
    set(&metrics.pending_assignments, agent.assignment_writer.pending());
    set(&metrics.waiting_adds, demand.waiting_adds());
    set(&metrics.excluded_addresses, agent.node_state.conflicts().len());
    let (count, oldest) = unconfirmed(&attachments, Timestamp::now());
    set(&metrics.unconfirmed_assignments, count);
    metrics.oldest_unconfirmed_assignment.set(oldest.as_secs_f64());
    for (kind, number) in agent.cluster.unreadable().counts() {
        set(&metrics.unreadable_objects.get_or_create(&KindLabel { kind }), number);
    }
    let blocks = agent.node_state.blocks();
    metrics.calls.keep_pools(&pools(agent));
    set_blocks(agent, metrics, &blocks);
    set_addresses(agent, metrics, &blocks);
}

/// The pools that exist, and the deleted pools of which the node still has blocks.
pub(crate) fn pools(agent: &Agent) -> BTreeSet<String> {
    let existing = agent.cluster.pools().into_iter().map(|pool| pool.name_any());
    existing.chain(agent.node_state.blocks().into_iter().map(|block| block.held.pool)).collect()
}

fn set_blocks(agent: &Agent, metrics: &Metrics, blocks: &[BlockView]) {
    // Remove all old numbers first, because some pools may no longer exist.
    metrics.blocks.clear();
    for pool in pools(agent) {
        for state in BlockState::NAMES {
            drop(metrics.blocks.get_or_create(&BlockLabels { pool: pool.clone(), state }));
        }
    }
    for block in blocks {
        let labels = BlockLabels { pool: block.held.pool.clone(), state: block.state.name() };
        metrics.blocks.get_or_create(&labels).inc();
    }
}

fn set_addresses(agent: &Agent, metrics: &Metrics, blocks: &[BlockView]) {
    metrics.addresses.clear();
    let mut families: BTreeMap<String, [bool; 2]> = BTreeMap::new();
    for pool in agent.cluster.pools() {
        let has = families.entry(pool.name_any()).or_default();
        for subnet in &pool.spec.subnets {
            *has = [has[0] || subnet.ipv4.is_some(), has[1] || subnet.ipv6.is_some()];
        }
    }
    for block in blocks {
        let (has, range) = (families.entry(block.held.pool.clone()).or_default(), block.held.range);
        *has = [has[0] || range.ipv4.is_some(), has[1] || range.ipv6.is_some()];
    }
    for (pool, has) in families {
        let uses = agent.node_state.pool_use(&pool, agent.cooldown(&pool));
        for (family, _) in FAMILIES.into_iter().zip(has).filter(|(_, has)| *has) {
            let in_family = |block: &&BlockUse| {
                let block = blocks.iter().find(|each| each.held.name == block.name.0);
                block.is_some_and(|block| match family {
                    "ipv4" => block.held.range.ipv4.is_some(),
                    _ => block.held.range.ipv6.is_some(),
                })
            };
            for (state, number) in counts(uses.iter().filter(in_family)) {
                let labels = AddressLabels { pool: pool.clone(), family, state };
                metrics.addresses.get_or_create(&labels).set(number);
            }
        }
    }
}

/// How many addresses of these blocks are in each state.
fn counts<'a>(blocks: impl Iterator<Item = &'a BlockUse>) -> [(&'static str, i64); 3] {
    let mut sums = [0; 3];
    for block in blocks {
        let free = block.usable.saturating_sub(block.held).saturating_sub(block.cooling);
        for (sum, number) in sums.iter_mut().zip([block.held, block.cooling, free]) {
            *sum += i64::from(number);
        }
    }
    let [assigned, cooling, free] = sums;
    [(ADDRESS_STATES[0], assigned), (ADDRESS_STATES[1], cooling), (ADDRESS_STATES[2], free)]
}

/// The number of attachments whose assignment the API server has not confirmed, and the age of the oldest of them.
fn unconfirmed(attachments: &[Attachment], now: Timestamp) -> (usize, Duration) {
    let is_unconfirmed =
        |attachment: &&Attachment| attachment.phase != AttachmentPhase::Deleting && attachment.assignment_uid.is_none();
    let ages = attachments.iter().filter(is_unconfirmed).map(|attachment| now.duration_since(attachment.created_at));
    let ages: Vec<Duration> = ages.map(|age| age.try_into().unwrap_or_default()).collect();
    (ages.len(), ages.into_iter().max().unwrap_or_default())
}

fn set(gauge: &Gauge, number: usize) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use bobbin_ipam::{AttachmentKey, IpPair};

    use super::*;
    use crate::state::PodRef;

    fn attachment(second: i64, phase: AttachmentPhase, uid: Option<&str>) -> Attachment {
        Attachment {
            key: AttachmentKey::new(format!("c{second}"), "eth0"),
            pair: IpPair { ipv4: Some([10, 77, 1, 1].into()), ipv6: None },
            block: "default-1".to_owned(),
            pool: "default".to_owned(),
            pod: PodRef::default(),
            created_at: Timestamp::from_second(second).unwrap(),
            boot_id: "b".to_owned(),
            assignment_uid: uid.map(str::to_owned),
            phase,
            netns: None,
            pod_seen: false,
            network: None,
            links: None,
        }
    }

    #[test]
    fn only_attachments_that_need_an_assignment_and_have_none_are_unconfirmed() {
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(unconfirmed(&[], now), (0, Duration::ZERO));
        let all = [
            attachment(10, AttachmentPhase::Live, Some("uid")),
            attachment(20, AttachmentPhase::Deleting, None),
            attachment(40, AttachmentPhase::Live, None),
            attachment(30, AttachmentPhase::Adding, None),
        ];
        assert_eq!(unconfirmed(&all, now), (2, Duration::from_secs(70)));
        let later = attachment(200, AttachmentPhase::Live, None);
        assert_eq!(unconfirmed(&[later], now), (1, Duration::ZERO), "the clock was set back");
    }
}
