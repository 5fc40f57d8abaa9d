//! Writes to the pool object itself, and live reads of it. Each write carries the resourceVersion it was decided on.

use std::time::Duration;

use bobbin_apiserver::{Outcome, ReadError, Refusal, read, write};
use bobbin_crds::{AddressPool, AddressPoolStatus, FINALIZER};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};

use super::TurnError;
use crate::fresh::READ;
use crate::run::Shared;

/// How long one write may take.
pub(super) const WRITE: Duration = Duration::from_secs(10);

/// What a write that is tied to a version means for the turn.
pub(super) fn settled<T>(what: &'static str, outcome: Outcome<T>) -> Result<T, TurnError> {
    match outcome {
        Outcome::Done(done) => Ok(done),
        Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => Err(TurnError::Stale),
        Outcome::Refused(why) => Err(TurnError::Refused { what, why }),
        Outcome::Unknown(why) => Err(TurnError::Unknown { what, why }),
    }
}

fn api(shared: &Shared) -> Api<AddressPool> {
    Api::all(shared.clients.requests.clone())
}

fn name(pool: &AddressPool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}

/// Replaces the status.
pub(super) async fn status(
    shared: &Shared,
    pool: &AddressPool,
    status: AddressPoolStatus,
) -> Result<AddressPool, TurnError> {
    let mut wanted = pool.clone();
    wanted.status = Some(status);
    let call =
        write(WRITE, async { api(shared).replace_status(name(pool), &PostParams::default(), &wanted).await }).await;
    let written = settled("a pool's status", call)?;
    shared.metrics.status_writes.inc();
    Ok(written)
}

/// Puts our finalizer on.
pub(super) async fn add_finalizer(shared: &Shared, pool: &AddressPool) -> Result<AddressPool, TurnError> {
    let mut finalizers = pool.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    finalize(shared, pool, finalizers).await
}

/// Takes our finalizer off; others stay.
pub(super) async fn remove_finalizer(shared: &Shared, pool: &AddressPool) -> Result<(), TurnError> {
    let mut finalizers = pool.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().all(|finalizer| finalizer != FINALIZER) {
        return Ok(());
    }
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    finalize(shared, pool, finalizers).await.map(|_| ())
}

async fn finalize(shared: &Shared, pool: &AddressPool, finalizers: Vec<String>) -> Result<AddressPool, TurnError> {
    let patch = serde_json::json!({"metadata": {
        "uid": pool.metadata.uid, "resourceVersion": pool.metadata.resource_version, "finalizers": finalizers,
    }});
    let patch = Patch::Merge(patch);
    let call = write(WRITE, async { api(shared).patch(name(pool), &PatchParams::default(), &patch).await }).await;
    settled("a pool's finalizer", call)
}

/// Whether no pool has the name, by a quorum read.
pub(super) async fn pool_is_gone(shared: &Shared, pool: &str) -> Result<bool, TurnError> {
    match read(READ, api(shared).get(pool)).await {
        Ok(_) => Ok(false),
        Err(ReadError::NotFound) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The pool, by a quorum read.
pub(super) async fn live(shared: &Shared, pool: &str) -> Result<AddressPool, TurnError> {
    match read(READ, api(shared).get(pool)).await {
        Ok(pool) => Ok(pool),
        Err(ReadError::NotFound) => Err(TurnError::Stale),
        Err(error) => Err(error.into()),
    }
}
