//! Tests the pod-absence check against a simulated API server.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

const MIN_ABSENCE: Duration = Duration::from_mins(5);
const NODE: &str = "/api/v1/nodes/n1";
const WEB: &str = "/api/v1/namespaces/shop/pods/web";

/// A simulated API server. It answers a request with the object at the request's path. It answers 404 if there is no object at the path,
/// and 500 if the object is null.
#[derive(Clone, Default)]
struct ApiServer {
    objects: Arc<Mutex<HashMap<String, Value>>>,
    reads: Arc<Mutex<Vec<String>>>,
}

impl ApiServer {
    fn with_node(ready_since: &str) -> ApiServer {
        let server = ApiServer::default();
        server.node("True", ready_since);
        server
    }

    fn set(&self, path: &str, object: Value) {
        self.objects.lock().insert(path.to_owned(), object);
    }

    fn node(&self, ready: &str, since: &str) {
        let condition = json!({"type": "Ready", "status": ready, "lastTransitionTime": since});
        self.set(NODE, json!({"metadata": {"uid": "n"}, "status": {"conditions": [condition]}}));
    }

    fn pod_reads(&self) -> usize {
        self.reads.lock().iter().filter(|path| path.contains("/pods/")).count()
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = server.answer(request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, path: &str) -> Response<Body> {
        self.reads.lock().push(path.to_owned());
        let status = |code: StatusCode, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code.as_u16()});
            (code, status)
        };
        let (code, body) = match self.objects.lock().get(path) {
            Some(Value::Null) => status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Some(object) => (StatusCode::OK, object.clone()),
            None => status(StatusCode::NOT_FOUND, "NotFound"),
        };
        Response::builder().status(code).body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap()
    }
}

fn candidate(name: &str, seen: bool) -> Candidate<&str> {
    let pod = PodRef { namespace: "shop".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") };
    Candidate { key: name, pod, seen }
}

/// Runs a check at each of the given minutes. Returns the candidates that these checks reported as gone.
async fn check_at<'a>(
    gone: &mut PodAbsenceTracker<&'a str>,
    server: &ApiServer,
    candidates: &[Candidate<&'a str>],
    minutes: impl IntoIterator<Item = u64>,
) -> Vec<&'a str> {
    let client = server.client();
    let mut found = Vec::new();
    for minute in minutes {
        found.extend(gone.check(&client, candidates, BootTime(Duration::from_mins(minute))).await);
    }
    found
}

fn tracker<'a>() -> PodAbsenceTracker<&'a str> {
    PodAbsenceTracker::new("n1", MIN_ABSENCE)
}

#[tokio::test]
async fn two_reads_prove_that_a_pod_is_gone() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    let web = [candidate("web", true)];
    assert!(check_at(&mut gone, &server, &web, 0..5).await.is_empty());
    assert_eq!(server.pod_reads(), 1);
    assert_eq!(check_at(&mut gone, &server, &web, [5]).await, ["web"]);
    assert_eq!(server.pod_reads(), 2);
}

#[tokio::test]
async fn the_next_pod_of_a_statefulset_does_not_count_as_the_old_one() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    server.set(WEB, json!({"metadata": {"uid": "uid-next"}}));
    assert_eq!(check_at(&mut gone, &server, &[candidate("web", true)], 0..6).await, ["web"]);
}

#[tokio::test]
async fn a_pod_that_was_never_seen_is_never_gone_and_costs_no_read() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    assert!(check_at(&mut gone, &server, &[candidate("static", false)], 0..60).await.is_empty());
    assert!(server.reads.lock().is_empty());
}

#[tokio::test]
async fn an_attachment_with_an_unknown_pod_is_in_use() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    let nameless = Candidate { key: "x", pod: PodRef::default(), seen: true };
    assert!(check_at(&mut gone, &server, &[nameless], 0..60).await.is_empty());
    assert!(server.reads.lock().is_empty());
}

#[tokio::test]
async fn a_mirror_pod_with_the_uid_in_its_annotation_is_present() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    server.set(WEB, json!({"metadata": {"uid": "other", "annotations": {"kubernetes.io/config.hash": "uid-web"}}}));
    assert!(check_at(&mut gone, &server, &[candidate("web", true)], 0..60).await.is_empty());
}

#[tokio::test]
async fn a_pod_that_was_force_deleted_during_a_partition_is_gone_only_after_the_node_was_ready_long_enough() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    let web = [candidate("web", true)];
    assert!(check_at(&mut gone, &server, &web, [0]).await.is_empty());
    // The Node was not Ready for a time between the two reads, but no read of the agent showed this.
    server.node("True", "10:04");
    assert!(check_at(&mut gone, &server, &web, [5]).await.is_empty());
    server.node("Unknown", "10:06");
    assert!(check_at(&mut gone, &server, &web, [10, 11]).await.is_empty());
    server.node("True", "10:12");
    assert!(check_at(&mut gone, &server, &web, 12..17).await.is_empty());
    assert_eq!(check_at(&mut gone, &server, &web, [17]).await, ["web"]);
}

#[tokio::test]
async fn while_the_api_server_fails_everything_is_in_use() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    let web = [candidate("web", true)];
    assert!(check_at(&mut gone, &server, &web, [0]).await.is_empty());
    server.set(WEB, Value::Null);
    assert!(check_at(&mut gone, &server, &web, 5..30).await.is_empty());
    server.set(WEB, json!({"metadata": {"uid": "uid-web"}}));
    assert!(check_at(&mut gone, &server, &web, 30..60).await.is_empty());
    server.set(NODE, Value::Null);
    server.objects.lock().remove(WEB);
    assert!(check_at(&mut gone, &server, &web, 60..90).await.is_empty());
}

#[tokio::test]
async fn a_deleted_node_proves_nothing_about_its_pods() {
    let (mut gone, server) = (tracker(), ApiServer::default());
    assert!(check_at(&mut gone, &server, &[candidate("web", true)], 0..60).await.is_empty());
}

#[tokio::test]
async fn a_pod_that_was_no_candidate_in_between_needs_two_new_reads() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    let web = [candidate("web", true)];
    assert!(check_at(&mut gone, &server, &web, [0]).await.is_empty());
    assert!(check_at(&mut gone, &server, &[], [1]).await.is_empty());
    assert!(check_at(&mut gone, &server, &web, [5, 9]).await.is_empty());
    assert_eq!(check_at(&mut gone, &server, &web, [10]).await, ["web"]);
}

#[tokio::test]
async fn a_check_makes_a_bounded_number_of_reads_and_the_next_one_continues() {
    let (mut gone, server) = (tracker(), ApiServer::with_node("10:00"));
    let names: Vec<String> = (0..MAX_READS + 8).map(|number| format!("p{number}")).collect();
    let many: Vec<Candidate<&str>> = names.iter().map(|name| candidate(name, true)).collect();
    assert!(check_at(&mut gone, &server, &many, [0]).await.is_empty());
    assert_eq!(server.pod_reads(), MAX_READS);
    assert!(check_at(&mut gone, &server, &many, [1]).await.is_empty());
    assert_eq!(server.pod_reads(), MAX_READS + 8);
}
