//! Writes the status of a pool when it is due, and publishes events about its conditions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_crds::pool::{AcceptedSubnet, condition};
use bobbin_crds::{AddressPool, AddressPoolStatus};
use bobbin_ipam::overlap::Overlap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::conditions::OVERLAPS;
use super::write_policy::{self, WritePolicy};
use super::{Inputs, compute, find};
use crate::cache::PoolView;
use crate::layout::{PoolShape, ShapeError};
use crate::pool::error::ReconcileError;
use crate::pool::reconciler::{DEBOUNCE, PoolReconciler, RESYNC_INTERVAL};
use crate::pool::write;

impl PoolReconciler {
    /// Writes the pool's status if a write is due. Returns how long the reconciler should wait before the next pass.
    pub(in crate::pool) async fn report_status(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
        shape: &Result<PoolShape, ShapeError>,
        listed: Vec<AcceptedSubnet>,
        rejected: &[Overlap],
    ) -> Result<Duration, ReconcileError> {
        let deleting = pool.metadata.deletion_timestamp.is_some();
        let users = if deleting { self.context.cache.with(|index| index.pool_users(&self.name)) } else { Vec::new() };
        let status = Self::status(pool, view, shape, listed, rejected, &users);
        self.context.metrics.set_pool(&self.name, &status);
        let interval = write_policy::interval(self.context.status_interval, view.nodes, view.pools);
        let wait = self.last_status_write.map_or(Duration::ZERO, |last| interval.saturating_sub(last.elapsed()));
        let next_change = view.next_cooled.unwrap_or(RESYNC_INTERVAL).max(DEBOUNCE).min(RESYNC_INTERVAL);
        match write_policy::decide(pool.status.as_ref(), &status) {
            WritePolicy::Skip => Ok(next_change),
            WritePolicy::AtInterval if !wait.is_zero() => Ok(wait),
            WritePolicy::AtInterval | WritePolicy::Immediately => {
                self.write_status(pool, view, status).await?;
                Ok(next_change)
            }
        }
    }

    /// Computes the status of a pool at the current time.
    pub(in crate::pool) fn status(
        pool: &AddressPool,
        view: &PoolView,
        shape: &Result<PoolShape, ShapeError>,
        listed: Vec<AcceptedSubnet>,
        rejected: &[Overlap],
        users: &[(Arc<str>, u64)],
    ) -> AddressPoolStatus {
        let now = Timestamp::now();
        // The times of conditions are rounded down to whole seconds, because the API server stores whole seconds.
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        compute(&Inputs { pool, shape: shape.as_ref(), view, listed, rejected, users, now })
    }

    /// Writes the pool's status. Returns the pool with which the API server answered.
    pub(in crate::pool) async fn write_status(
        &mut self,
        pool: &AddressPool,
        view: &PoolView,
        status: AddressPoolStatus,
    ) -> Result<AddressPool, ReconcileError> {
        let written = write::status(&self.context, pool, status).await?;
        self.last_status_write = Some(Instant::now());
        self.publish_events(pool, &written);
        self.remember(view, written.clone());
        Ok(written)
    }

    /// Publishes an event when the pool becomes exhausted, and when one of its subnets begins to overlap another object's
    /// addresses.
    fn publish_events(&self, old: &AddressPool, new: &AddressPool) {
        let exhausted = |pool| condition_of(pool, condition::EXHAUSTED).filter(|condition| condition.status == "True");
        let overlaps = |pool| condition_of(pool, condition::READY).filter(|condition| condition.reason == OVERLAPS);
        if let (None, Some(condition)) = (exhausted(old), exhausted(new)) {
            self.context.events.pool_warning(new, "Exhausted", "Carve", &condition.message);
        }
        if let (None, Some(condition)) = (overlaps(old), overlaps(new)) {
            self.context.events.pool_warning(new, OVERLAPS, "Accept", &condition.message);
        }
    }
}

fn condition_of<'a>(pool: &'a AddressPool, type_: &str) -> Option<&'a Condition> {
    find(&pool.status.as_ref()?.conditions, type_)
}
