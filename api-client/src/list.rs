//! Lists objects page by page, so that no answer of the API server is larger than one page.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::lenient::Lenient;
use crate::outcome::{ReadError, read};

/// How many objects the API server returns per page.
const PAGE_SIZE: u32 = 500;

/// The parameters for listing the objects that match the field selector `fields`. If `fields` is empty, all objects match.
pub fn selected_by(fields: &str) -> ListParams {
    let all = ListParams::default();
    if fields.is_empty() { all } else { all.fields(fields) }
}

/// Calls `visit` with each object that the parameters select. The reads are quorum reads, and `deadline` limits each page.
///
/// # Errors
/// Fails if a page can't be read. `visit` has then seen the objects of earlier pages.
pub async fn for_each_listed<K>(
    objects: &Api<Lenient<K>>,
    params: ListParams,
    deadline: Duration,
    mut visit: impl FnMut(Lenient<K>),
) -> Result<(), ReadError>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut params = params.limit(PAGE_SIZE);
    loop {
        let page = read(deadline, objects.list(&params)).await?;
        page.items.into_iter().for_each(&mut visit);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Client;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn each_page_is_requested_with_the_token_of_the_page_before() {
        let queries: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&queries);
        let server = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (name, token) = if query.contains("continue=t1") { ("b", "") } else { ("a", "t1") };
            let page = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"continue": token},
                              "items": [{"metadata": {"name": name}}]});
            seen.lock().push(query);
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Body::from(
                page.to_string().into_bytes(),
            ))))
        });
        let maps: Api<Lenient<ConfigMap>> = Api::all(Client::new(server, "default"));
        let mut names = Vec::new();
        let visit = |map: Lenient<ConfigMap>| names.push(map.name().to_owned());
        for_each_listed(&maps, selected_by("metadata.name!=x"), Duration::from_secs(5), visit)
            .await
            .expect("both pages are read");
        assert_eq!(names, ["a", "b"]);
        let queries = queries.lock();
        assert_eq!(queries.len(), 2);
        assert!(
            queries.iter().all(|query| query.contains("limit=500") && query.contains("fieldSelector=")),
            "{queries:?}"
        );
    }
}
