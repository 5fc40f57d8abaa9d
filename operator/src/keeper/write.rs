//! Writes to the pool object itself, and live reads of it. Each write carries the resourceVersion it was decided on.

use std::time::Duration;

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, patch, patch_status, read, write};
use bobbin_crds::{AddressPool, AddressPoolStatus, FINALIZER};
use kube::Api;
use serde_json::{Value, json};

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

fn api(shared: &Shared) -> Api<Lenient<AddressPool>> {
    Api::all(shared.clients.requests.clone())
}

fn name(pool: &AddressPool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}

/// A pool as a write answered. One that can't be read is looked at anew by what the watch shows.
fn readable(answer: Lenient<AddressPool>) -> Result<AddressPool, TurnError> {
    answer.into_result().map_err(|_| TurnError::Stale)
}

/// Operations that hold for the pool as it was read only.
fn tied_to(pool: &AddressPool, operations: impl IntoIterator<Item = Value>) -> Value {
    let test = |field: &str, value: Option<&String>| json!({"op": "test", "path": format!("/metadata/{field}"), "value": value});
    let metadata = &pool.metadata;
    let tests = [test("uid", metadata.uid.as_ref()), test("resourceVersion", metadata.resource_version.as_ref())];
    tests.into_iter().chain(operations).collect()
}

/// Replaces the status.
pub(super) async fn status(
    shared: &Shared,
    pool: &AddressPool,
    status: AddressPoolStatus,
) -> Result<AddressPool, TurnError> {
    let operations = tied_to(pool, [json!({"op": "add", "path": "/status", "value": status})]);
    let call = write(WRITE, patch_status(&api(shared), name(pool), operations)).await;
    let written = settled("a pool's status", call)?;
    shared.metrics.status_writes.inc();
    readable(written)
}

/// Puts our finalizer on.
pub(super) async fn add_finalizer(shared: &Shared, pool: &AddressPool) -> Result<AddressPool, TurnError> {
    let operation = match &pool.metadata.finalizers {
        Some(_) => json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}),
        None => json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}),
    };
    finalize(shared, pool, operation).await.and_then(readable)
}

/// Takes our finalizer off; others stay.
pub(super) async fn remove_finalizer(shared: &Shared, pool: &AddressPool) -> Result<(), TurnError> {
    let place = pool.metadata.finalizers.iter().flatten().position(|finalizer| finalizer == FINALIZER);
    let Some(place) = place else { return Ok(()) };
    let operation = json!({"op": "remove", "path": format!("/metadata/finalizers/{place}")});
    finalize(shared, pool, operation).await.map(drop)
}

async fn finalize(shared: &Shared, pool: &AddressPool, operation: Value) -> Result<Lenient<AddressPool>, TurnError> {
    let call = write(WRITE, patch(&api(shared), name(pool), tied_to(pool, [operation]))).await;
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

/// The pool, by a quorum read. Stale: it is gone, or can't be read any more.
pub(super) async fn live(shared: &Shared, pool: &str) -> Result<AddressPool, TurnError> {
    match read(READ, api(shared).get(pool)).await {
        Ok(pool) => readable(pool),
        Err(ReadError::NotFound) => Err(TurnError::Stale),
        Err(error) => Err(error.into()),
    }
}
