//! Writes the pool object, and reads it from the API server. Each write tests the pool's UID and resourceVersion.

pub(super) mod blocks;
pub(super) mod failed_blocks;
mod status_patch;

use bobbin_api_client::{Lenient, Outcome, ReadError, Refusal, patch, patch_status, read, write};
use bobbin_crds::{AddressPool, AddressPoolStatus, FINALIZER};
use kube::Api;
use serde_json::{Value, json};

use super::error::ReconcileError;
use crate::context::{Context, WRITE_TIMEOUT};
use crate::live_reads::READ_TIMEOUT;

fn api(context: &Context) -> Api<Lenient<AddressPool>> {
    Api::all(context.clients.requests.clone())
}

fn name(pool: &AddressPool) -> &str {
    pool.metadata.name.as_deref().unwrap_or_default()
}

/// Converts the outcome of a conditional write to a result of the reconcile pass.
fn written<T>(what: &'static str, outcome: Outcome<T>) -> Result<T, ReconcileError> {
    match outcome {
        Outcome::Done(done) => Ok(done),
        Outcome::Refused(Refusal::Conflict | Refusal::NotFound) => Err(ReconcileError::Stale),
        Outcome::Refused(why) => Err(ReconcileError::Refused { what, why }),
        Outcome::Unknown(why) => Err(ReconcileError::Unknown { what, why }),
    }
}

/// A JSON patch that the API server refuses if the pool was changed since the operator read it.
fn conditional_patch(pool: &AddressPool, operations: impl IntoIterator<Item = Value>) -> Value {
    let test = |field: &str, value: Option<&String>| json!({"op": "test", "path": format!("/metadata/{field}"), "value": value});
    let metadata = &pool.metadata;
    let tests = [test("uid", metadata.uid.as_ref()), test("resourceVersion", metadata.resource_version.as_ref())];
    tests.into_iter().chain(operations).collect()
}

/// Changes the status of a pool to `status`. Keeps the fields that only a newer version of the operator knows.
pub(super) async fn status(
    context: &Context,
    pool: &AddressPool,
    status: AddressPoolStatus,
) -> Result<AddressPool, ReconcileError> {
    let changes = match &pool.status {
        Some(old) => status_patch::operations("/status", &json!(old), &json!(status)),
        None => vec![json!({"op": "add", "path": "/status", "value": status})],
    };
    let operations = conditional_patch(pool, changes);
    let outcome = write(WRITE_TIMEOUT, patch_status(&api(context), name(pool), operations)).await;
    let answer = written("the status of the pool", outcome)?;
    context.metrics.status_writes.inc();
    Ok(answer.into_result()?)
}

/// Adds Bobbin's finalizer to a pool.
pub(super) async fn add_finalizer(context: &Context, pool: &AddressPool) -> Result<AddressPool, ReconcileError> {
    let operation = match &pool.metadata.finalizers {
        Some(_) => json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}),
        None => json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}),
    };
    Ok(patch_finalizers(context, pool, operation).await?.into_result()?)
}

/// Removes Bobbin's finalizer from a pool and keeps all other finalizers.
pub(super) async fn remove_finalizer(context: &Context, pool: &AddressPool) -> Result<(), ReconcileError> {
    let position = pool.metadata.finalizers.iter().flatten().position(|finalizer| finalizer == FINALIZER);
    let Some(position) = position else { return Ok(()) };
    let operation = json!({"op": "remove", "path": format!("/metadata/finalizers/{position}")});
    patch_finalizers(context, pool, operation).await.map(drop)
}

async fn patch_finalizers(
    context: &Context,
    pool: &AddressPool,
    operation: Value,
) -> Result<Lenient<AddressPool>, ReconcileError> {
    let operations = conditional_patch(pool, [operation]);
    written("the finalizers of the pool", write(WRITE_TIMEOUT, patch(&api(context), name(pool), operations)).await)
}

/// Whether no pool with this name exists, according to the API server.
pub(super) async fn pool_is_gone(context: &Context, pool: &str) -> Result<bool, ReconcileError> {
    match read(READ_TIMEOUT, api(context).get(pool)).await {
        Ok(_) => Ok(false),
        Err(ReadError::NotFound) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Reads the pool from the API server.
async fn live_pool(context: &Context, pool: &str) -> Result<AddressPool, ReconcileError> {
    match read(READ_TIMEOUT, api(context).get(pool)).await {
        Ok(pool) => Ok(pool.into_result()?),
        Err(ReadError::NotFound) => Err(ReconcileError::Stale),
        Err(error) => Err(error.into()),
    }
}
