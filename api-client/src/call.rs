//! Calls whose answers kube would decode too strictly. Each is one request; `write` gives it a deadline.

use std::fmt::Debug;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lenient::Lenient;

/// Creates an object and reads the answer leniently.
///
/// # Errors
/// As [`Api::create`].
pub async fn create<K>(api: &Api<Lenient<K>>, object: &K) -> kube::Result<Lenient<K>>
where
    K: Resource + Serialize + DeserializeOwned + Clone,
{
    let body = serde_json::to_vec(object).map_err(Error::SerdeError)?;
    let request = Request::new(api.resource_url()).create(&PostParams::default(), body).map_err(Error::BuildRequest)?;
    api.clone().into_client().request(request).await
}

/// Deletes an object. Done means that the API server took the deletion; finalizers may keep the object for a while.
///
/// [`Api::delete`] decodes the whole answer, which is the object itself while a finalizer keeps it.
///
/// # Errors
/// As [`Api::delete`].
pub async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> kube::Result<()>
where
    K: Resource + Clone,
{
    let request = Request::new(api.resource_url()).delete(name, params).map_err(Error::BuildRequest)?;
    api.clone().into_client().request_text(request).await.map(drop)
}

/// Applies a JSON patch (RFC 6902). Its first operation should test the UID or the resourceVersion that it was decided on:
/// a test that does not hold is refused as [`Refusal::Conflict`](crate::Refusal::Conflict).
///
/// # Errors
/// As [`Api::patch`]; and `operations` are no JSON patch.
pub async fn patch<K>(api: &Api<K>, name: &str, operations: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations).map_err(Error::SerdeError)?);
    api.patch(name, &PatchParams::default(), &patch).await
}

/// The same for an object's status.
///
/// # Errors
/// As [`patch`].
pub async fn patch_status<K>(api: &Api<K>, name: &str, operations: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations).map_err(Error::SerdeError)?);
    api.patch_status(name, &PatchParams::default(), &patch).await
}
