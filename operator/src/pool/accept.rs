//! Runs the acceptance protocol of a pool's subnets: proposes entries according to the cache, surveys the cluster, and
//! writes the result.

mod protocol;

use bobbin_crds::AddressPool;
use bobbin_ipam::BlockRange;
use bobbin_ipam::overlap::SubnetConflict;
use bobbin_ipam::pool_shape::{accepted_entries, entries, subnet_pair};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use super::error::ReconcileError;
use super::reconciler::PoolReconciler;
use super::survey;
use crate::cache::{Index, PoolView, SuspectAssignment};

pub(super) use protocol::{AcceptanceResult, is_unnumbered};

impl PoolReconciler {
    /// Runs the acceptance protocol as far as possible. Returns the newest pool, and the subnet entries that its status
    /// should list.
    pub(super) async fn accept(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
    ) -> Result<(AddressPool, AcceptanceResult), ReconcileError> {
        let mut pool = pool.clone();
        if protocol::is_unnumbered(&pool) {
            let blocks = survey::own_blocks(&self.context.clients, &self.name).await?;
            if let Ok(numbered) = protocol::number(&pool, &blocks) {
                pool = self.write_acceptance(&pool, view, &numbered).await?;
            }
        }
        // The block numbers of new entries follow those of the accepted entries, so all accepted entries need their numbers
        // first.
        if !protocol::is_open(&pool) || protocol::is_unnumbered(&pool) {
            let unchanged = AcceptanceResult::unchanged(&pool);
            return Ok((pool, unchanged));
        }
        let (pools, conflicts) =
            self.context.cache.with(|index| (index.pools(), cached_conflicts(index, &self.name, &pool)));
        let all = entries(pools.iter().filter_map(|pool| pool.readable()));
        let blocks: Vec<_> = view.blocks.iter().filter_map(|block| Some((block.index, block.range?))).collect();
        let proposed = protocol::propose(&pool, &all, &conflicts, &blocks, &MicroTime(Timestamp::now()));
        if proposed.listed != accepted_entries(pool.status.as_ref()) {
            // The operator writes the proposed entries before its survey, so that every later survey by another operator sees them.
            pool = self.write_acceptance(&pool, view, &proposed).await?;
        }
        if !protocol::is_pending(&pool) {
            return Ok((pool, proposed));
        }
        let Some(survey) = survey::run(&self.context.clients, &self.name).await? else {
            return Err(ReconcileError::Stale);
        };
        let is_other = survey.pool.metadata.uid != pool.metadata.uid;
        if is_other || survey.pool.metadata.deletion_timestamp.is_some() || protocol::is_unnumbered(&survey.pool) {
            return Err(ReconcileError::Stale);
        }
        let mut confirmed = protocol::confirm(&survey.pool, &survey.entries, &survey.conflicts, &survey.own_blocks);
        confirmed.rejected.extend(proposed.rejected);
        let mut pool = survey.pool;
        if confirmed.listed != accepted_entries(pool.status.as_ref()) {
            // The API server refuses this write if the pool has changed since the survey.
            pool = self.write_acceptance(&pool, view, &confirmed).await?;
        }
        Ok((pool, confirmed))
    }

    async fn write_acceptance(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
        acceptance: &AcceptanceResult,
    ) -> Result<AddressPool, ReconcileError> {
        let shape = view.shape(pool, &acceptance.listed);
        let status = Self::status(pool, view, &shape, acceptance, &[]);
        self.write_status(pool, view, status).await
    }
}

/// The conflicts with a pool's subnets, according to the cache. These conflicts decide only which entries the operator
/// proposes. The survey decides which entries the operator accepts.
fn cached_conflicts(index: &Index, name: &str, pool: &AddressPool) -> Vec<SubnetConflict> {
    let wanted: Vec<_> = pool.spec.subnets.iter().filter_map(|entry| subnet_pair(entry).ok()).collect();
    let overlaps = |range: &BlockRange| wanted.iter().any(|subnet| range.overlaps_subnet(subnet));
    let blocks = index.blocks_of_other_pools(name).into_iter();
    let blocks = blocks.map(|(block, range)| (format!("AddressBlock {block}"), range));
    let suspects = index.suspect_assignments().into_iter().filter(SuspectAssignment::lacks_block);
    let suspects =
        suspects.map(|suspect| (format!("IPAssignment {} of node {}", suspect.name, suspect.node), suspect.range));
    let left = blocks.chain(suspects).map(|(what, range)| SubnetConflict::leftover(what, range));
    let known =
        left.chain(index.node_addresses()).chain(index.service_ranges()).filter(|conflict| overlaps(&conflict.range));
    known.chain(index.unreadable_objects(name).iter().flat_map(|object| object.conflicts(&wanted))).collect()
}
