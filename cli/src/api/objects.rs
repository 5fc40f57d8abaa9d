//! Reads objects from the API server. An object that can't be decoded is left out, and a warning names it.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bobbin_api_client::{
    Lenient, Outcome, ReadError, Refusal, UnknownWhy, for_each_listed, is_object_name, read, selected_by, write,
};
use bobbin_crds::AddressPool;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::print::failure::NotServed;

/// The deadline of one call if [`limit_calls`] has set no other deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The value of `--request-timeout`. It is static, because it is the same for all calls of the process.
static TIMEOUT: OnceLock<Duration> = OnceLock::new();

/// Sets the deadline of each later call. Only the first setting has an effect.
pub(crate) fn limit_calls(timeout: Duration) {
    // An error means that the deadline is already set.
    let _ = TIMEOUT.set(timeout);
}

fn timeout() -> Duration {
    TIMEOUT.get().copied().unwrap_or(DEFAULT_TIMEOUT)
}

/// Lists the objects that match the field selector `fields` (empty: all objects), page by page.
pub(crate) async fn list<K>(objects: &Api<Lenient<K>>, fields: &str) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    list_with(objects, selected_by(fields)).await
}

/// Lists the objects that the parameters select, page by page.
pub(crate) async fn list_with<K>(objects: &Api<Lenient<K>>, params: ListParams) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    Ok(list_all(objects, params).await?.into_iter().filter_map(readable).collect())
}

/// Like [`list`], but keeps only what `map` returns of each object, to save memory. Gives no warning about objects that can't be decoded.
pub(crate) async fn list_mapped<K, T>(
    objects: &Api<Lenient<K>>,
    fields: &str,
    map: impl Fn(&K) -> Option<T>,
) -> Result<Vec<T>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    let keep = |object: Lenient<K>| found.extend(object.readable().and_then(&map));
    for_each_listed(objects, selected_by(fields), timeout(), keep)
        .await
        .with_context(|| format!("can't list {}", K::plural(&())))?;
    Ok(found)
}

/// Lists the objects that the parameters select, page by page. Includes the objects that can't be decoded.
pub(crate) async fn list_all<K>(objects: &Api<Lenient<K>>, params: ListParams) -> Result<Vec<Lenient<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    match for_each_listed(objects, params, timeout(), |object| found.push(object)).await {
        Ok(()) => Ok(found),
        // "Not found" means that the API server does not serve the resource: a resource without objects has an empty list.
        Err(ReadError::NotFound) => Err(NotServed::of::<K>().into()),
        Err(error) => Err(error).with_context(|| format!("can't list {}", K::plural(&()))),
    }
}

/// Reads one object. Returns `None` if it does not exist.
pub(crate) async fn get<K>(objects: &Api<Lenient<K>>, name: &str) -> Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    // The name may come from an object that another program wrote. A name with a slash would change the path of the request.
    if !is_object_name(name) || !objects.namespace().is_none_or(is_object_name) {
        return Ok(None);
    }
    match read(timeout(), objects.get(name)).await {
        Ok(Lenient::Readable(object)) => Ok(Some(object)),
        Ok(Lenient::Unreadable(why)) => Err(anyhow!("can't decode {} {name}: {why}", K::kind(&()))),
        // Either the object or the whole custom resource definition is missing. A LIST request shows which of the two.
        Err(ReadError::NotFound) if is_custom::<K>() => {
            match read(timeout(), objects.list(&ListParams::default().limit(1))).await {
                Err(ReadError::NotFound) => Err(NotServed::of::<K>().into()),
                _ => Ok(None),
            }
        }
        Err(ReadError::NotFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {} {name}", K::kind(&()))),
    }
}

/// What the API server says about an object. `Unknown` if the user may not read it, or the read failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Read<T> {
    Unknown,
    Absent,
    Present(T),
}

impl<T> Read<T> {
    /// The result of reading one object.
    pub(crate) fn of(answer: Result<Option<T>>) -> Read<T> {
        match answer {
            Ok(Some(object)) => Read::Present(object),
            Ok(None) => Read::Absent,
            Err(_) => Read::Unknown,
        }
    }

    pub(crate) fn as_ref(&self) -> Read<&T> {
        match self {
            Read::Unknown => Read::Unknown,
            Read::Absent => Read::Absent,
            Read::Present(object) => Read::Present(object),
        }
    }
}

/// Whether a custom resource definition defines the resource.
fn is_custom<K: Resource<DynamicType = ()>>() -> bool {
    K::group(&()) == AddressPool::group(&())
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused the write.
    #[error("{0}")]
    Refused(Refusal),
    /// The API server may have executed the write. It is safe to repeat any write of this program.
    #[error("{0}")]
    Unknown(UnknownWhy),
}

/// Waits for a write.
pub(crate) async fn written<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    match write(timeout(), call).await {
        Outcome::Done(done) => Ok(done),
        Outcome::Refused(why) => Err(WriteError::Refused(why)),
        Outcome::Unknown(why) => Err(WriteError::Unknown(why)),
    }
}

fn readable<K: Resource<DynamicType = ()>>(object: Lenient<K>) -> Option<K> {
    object
        .into_result()
        .inspect_err(|unreadable| {
            let (kind, name) = (K::kind(&()), unreadable.name());
            anstream::eprintln!("warning: {kind} {name} can't be decoded, so the output leaves it out: {unreadable}");
        })
        .ok()
}
