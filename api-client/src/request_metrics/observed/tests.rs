//! Tests which verb and which status code a request counts for, and what counts as data of a watch.

use std::convert::Infallible;
use std::time::Duration;

use bobbin_observability::Metrics;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchParams};
use kube::{Client, Error};
use serde_json::json;

use super::*;

fn target(method: &Method, uri: &'static str) -> (&'static str, String) {
    let Target { verb, resource } = Target::of(method, &Uri::from_static(uri));
    (verb, resource)
}

#[test]
fn the_verb_of_a_request_is_that_of_the_audit_log() {
    let pods = |verb| (verb, "pods".to_owned());
    assert_eq!(target(&Method::GET, "/api/v1/pods?limit=500"), pods("list"));
    assert_eq!(target(&Method::GET, "/api/v1/pods?&watch=true&timeoutSeconds=60"), pods("watch"));
    assert_eq!(target(&Method::GET, "/api/v1/namespaces/shop/pods"), pods("list"));
    assert_eq!(target(&Method::GET, "/api/v1/namespaces/shop/pods/web"), pods("get"));
    assert_eq!(target(&Method::GET, "/api/v1/namespaces/shop"), ("get", "namespaces".to_owned()));
    assert_eq!(target(&Method::GET, "/api/v1/namespaces?watch=1"), ("watch", "namespaces".to_owned()));
    let pools = "/apis/bobbin.dev/v1beta1/addresspools/default/status";
    assert_eq!(target(&Method::PATCH, pools), ("patch", "addresspools".to_owned()));
    assert_eq!(target(&Method::PUT, pools), ("update", "addresspools".to_owned()));
    assert_eq!(target(&Method::GET, "/version"), ("get", String::new()));
}

/// A client whose server answers each request with this status code and body, and the client's metrics.
fn client(code: u16, body: &serde_json::Value) -> (Api<ConfigMap>, RequestMetrics) {
    let (metrics, body) = (RequestMetrics::default(), body.to_string());
    let server = tower::service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Body::from(body.clone().into_bytes()));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let observed = ObserveRequests(metrics.clone()).layer(server);
    (Api::default_namespaced(Client::new(observed, "default")), metrics)
}

/// The number of requests with this verb and this code.
fn count(metrics: &RequestMetrics, verb: &str, code: &str) -> String {
    let mut page = Metrics::default();
    metrics.register(&mut page.component("agent"), &["ConfigMap"]);
    let series = format!("bobbin_agent_api_requests_total{{verb=\"{verb}\",code=\"{code}\"}} ");
    page.text().lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("absent").to_owned()
}

#[tokio::test]
async fn each_request_counts_once_with_its_status_code() {
    let refusal = json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "message": "", "code": 409});
    let (maps, metrics) = client(409, &refusal);
    assert_eq!(count(&metrics, "create", "409"), "0", "the series exists from the start");
    let refused = maps.create(&PostParams::default(), &ConfigMap::default()).await;
    assert!(matches!(refused, Err(Error::Api(_))), "{refused:?}");
    let _ = maps.delete("a", &DeleteParams::default()).await;
    assert_eq!((count(&metrics, "create", "409"), count(&metrics, "delete", "409")), ("1".into(), "1".into()));
    assert_eq!(count(&metrics, "create", "201"), "0");
}

#[tokio::test]
async fn a_request_that_its_caller_abandons_has_no_answer() {
    let metrics = RequestMetrics::default();
    let server = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let maps: Api<ConfigMap> =
        Api::default_namespaced(Client::new(ObserveRequests(metrics.clone()).layer(server), "default"));
    let abandoned = tokio::time::timeout(Duration::from_millis(20), maps.list(&ListParams::default())).await;
    assert!(abandoned.is_err());
    assert_eq!(count(&metrics, "list", NO_ANSWER), "1");
}

#[tokio::test]
async fn each_part_of_a_watch_makes_it_younger() {
    let event =
        json!({"type": "ADDED", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}}});
    let (maps, metrics) = client(200, &event);
    let events = maps.watch(&WatchParams::default(), "0").await.expect("the server accepts the watch");
    let long_ago = Instant::now().checked_sub(Duration::from_secs(90)).expect("the machine has run for longer");
    metrics.watches.lock().insert("configmaps".to_owned(), long_ago);
    assert!(metrics.watch_age("ConfigMap") >= Duration::from_secs(90));
    let events: Vec<_> = events.boxed().try_collect().await.expect("the event is readable");
    assert_eq!(events.len(), 1);
    assert!(metrics.watch_age("ConfigMap") < Duration::from_mins(1));
}

#[tokio::test]
async fn a_refused_watch_is_no_sign_of_life() {
    let refusal = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "", "code": 403});
    let (maps, metrics) = client(403, &refusal);
    assert!(maps.watch(&WatchParams::default(), "0").await.is_err());
    assert!(metrics.watches.lock().is_empty());
}
