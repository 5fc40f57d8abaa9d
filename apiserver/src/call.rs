//! Calls whose answers kube would decode too strictly. Each is one request; `write` gives it a deadline.

use kube::api::{DeleteParams, PostParams};
use kube::core::Request;
use kube::{Api, Error, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

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
