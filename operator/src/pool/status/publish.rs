//! Writes the status of a pool when it is due, and publishes events about its conditions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bobbin_crds::{AddressPool, AddressPoolStatus};
use bobbin_ipam::pool_shape::{PoolShape, ShapeError};
use bobbin_messages::condition;
use bobbin_messages::event::operator;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::write_policy::{self, WritePolicy};
use super::{Inputs, compute, find};
use crate::cache::PoolView;
use crate::pool::accept::AcceptanceResult;
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
        acceptance: &AcceptanceResult,
    ) -> Result<Duration, ReconcileError> {
        let deleting = pool.metadata.deletion_timestamp.is_some();
        let users = if deleting { self.context.cache.with(|index| index.pool_users(&self.name)) } else { Vec::new() };
        let status = Self::status(pool, view, shape, acceptance, &users);
        self.context.metrics.set_pool(&self.name, &status);
        let interval = write_policy::interval(self.context.status_interval, view.nodes, view.pools);
        let left = |interval: Duration| {
            self.last_status_write.map_or(Duration::ZERO, |last| interval.saturating_sub(last.elapsed()))
        };
        let (wait, short_wait) = (left(interval), left(write_policy::short_interval(view.nodes)));
        let next_change = view.next_cooled.unwrap_or(RESYNC_INTERVAL).max(DEBOUNCE).min(RESYNC_INTERVAL);
        match write_policy::decide(pool.status.as_ref(), &status) {
            WritePolicy::Skip => Ok(next_change),
            WritePolicy::AtInterval if !wait.is_zero() => Ok(wait),
            WritePolicy::Soon if !short_wait.is_zero() => Ok(short_wait),
            WritePolicy::AtInterval | WritePolicy::Soon | WritePolicy::Immediately => {
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
        acceptance: &AcceptanceResult,
        users: &[(Arc<str>, u64)],
    ) -> AddressPoolStatus {
        let now = Timestamp::now();
        // The times of conditions are rounded down to whole seconds, because the API server stores whole seconds.
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        compute(&Inputs { pool, shape: shape.as_ref(), view, acceptance, users, now })
    }

    /// Writes the pool's status. Returns the pool from the API server's answer.
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

    /// Publishes an event when a condition begins to need attention, and when such a condition changes its reason or
    /// message.
    fn publish_events(&self, old: &AddressPool, new: &AddressPool) {
        for (type_, bad) in [
            (condition::EXHAUSTED, "True"),
            (condition::ACCEPTED, "False"),
            (condition::ADDRESS_CONFLICT, "True"),
            (condition::MISCONFIGURED, "True"),
        ] {
            let needs_attention = |pool| condition_of(pool, type_).filter(|condition| condition.status == bad);
            let Some(now) = needs_attention(new) else { continue };
            if needs_attention(old).is_none_or(|before| before.reason != now.reason || before.message != now.message) {
                // A test proves that each of these conditions has an event, so the loop never continues here.
                let Some(event) = operator::of_condition(type_, &now.reason) else { continue };
                self.context.events.on_pool(new, event, &now.message);
            }
        }
    }
}

fn condition_of<'a>(pool: &'a AddressPool, type_: &str) -> Option<&'a Condition> {
    find(&pool.status.as_ref()?.conditions, type_)
}
