//! Makes API calls that succeed even if the answer contains an object that can't be decoded. kube's own calls fail in this
//! case. Each call sends one request without a deadline; the functions `write` and `read` add a deadline.

use std::fmt::Debug;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lenient::Lenient;

/// Creates an object and decodes the answer leniently.
///
/// # Errors
/// Fails in the same cases as [`Api::create`].
pub async fn create<K>(api: &Api<Lenient<K>>, object: &K) -> kube::Result<Lenient<K>>
where
    K: Resource + Serialize + DeserializeOwned + Clone,
{
    let body = serde_json::to_vec(object).map_err(Error::SerdeError)?;
    let request = Request::new(api.resource_url()).create(&PostParams::default(), body).map_err(Error::BuildRequest)?;
    api.clone().into_client().request(request).await
}

/// Deletes an object. Success means that the API server accepted the deletion; finalizers may still keep the object.
///
/// Unlike [`Api::delete`], this function does not decode the answer. If a finalizer keeps the object, the answer contains
/// the whole object, which may be undecodable.
///
/// # Errors
/// Fails in the same cases as [`Api::delete`].
pub async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> kube::Result<()>
where
    K: Resource + Clone,
{
    let request = Request::new(api.resource_url()).delete(name, params).map_err(Error::BuildRequest)?;
    api.clone().into_client().request_text(request).await.map(drop)
}

/// Applies a JSON patch (RFC 6902) to an object. The first operation should test the UID or resourceVersion of the object
/// that the caller read.
///
/// If the object's UID or resourceVersion differs from the tested value, the API server refuses the patch with
/// [`Refusal::Conflict`](crate::Refusal::Conflict).
///
/// # Errors
/// Fails if [`Api::patch`] fails, or if `operations` is not a JSON patch.
pub async fn patch<K>(api: &Api<K>, name: &str, operations: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations).map_err(Error::SerdeError)?);
    api.patch(name, &PatchParams::default(), &patch).await
}

/// Applies a JSON patch to the status of an object.
///
/// # Errors
/// Fails in the same cases as [`patch`].
pub async fn patch_status<K>(api: &Api<K>, name: &str, operations: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch: Patch<()> = Patch::Json(serde_json::from_value(operations).map_err(Error::SerdeError)?);
    api.patch_status(name, &PatchParams::default(), &patch).await
}
