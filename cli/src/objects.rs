//! Reads objects from the API server. An object that can't be decoded is left out, and a warning names it.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bobbin_api_client::{Lenient, ReadError, read};
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The deadline of one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The deadline of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How many objects the API server returns per page of a list.
const LIST_PAGE_SIZE: u32 = 500;

/// Lists the objects that match the field selector `fields` (empty: all objects), page by page.
pub(crate) async fn list<K>(objects: &Api<Lenient<K>>, fields: &str) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let all = ListParams::default();
    list_with(objects, if fields.is_empty() { all } else { all.fields(fields) }).await
}

/// Lists the objects that the parameters select, page by page.
pub(crate) async fn list_with<K>(objects: &Api<Lenient<K>>, params: ListParams) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut params = params.limit(LIST_PAGE_SIZE);
    let mut found = Vec::new();
    loop {
        let page = read(READ_TIMEOUT, objects.list(&params))
            .await
            .with_context(|| format!("can't list {}", K::plural(&())))?;
        found.extend(page.items.into_iter().filter_map(readable));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Reads one object. Returns `None` if it does not exist.
pub(crate) async fn get<K>(objects: &Api<Lenient<K>>, name: &str) -> Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match read(READ_TIMEOUT, objects.get(name)).await {
        Ok(Lenient::Readable(object)) => Ok(Some(object)),
        Ok(Lenient::Unreadable(why)) => Err(anyhow!("can't decode {} {name}: {why}", K::kind(&()))),
        Err(ReadError::NotFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {} {name}", K::kind(&()))),
    }
}

/// Waits for a write, at most [`WRITE_TIMEOUT`]. The user may repeat each write of this program.
pub(crate) async fn written<T>(write: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(WRITE_TIMEOUT, write).await.with_context(|| {
        let seconds = WRITE_TIMEOUT.as_secs();
        format!("the API server did not answer within {seconds} s, so it may have made the change or not; run the command again")
    })
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
