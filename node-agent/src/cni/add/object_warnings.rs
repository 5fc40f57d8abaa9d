//! Warns about settings of pods and namespaces that Bobbin ignores or can't follow.

use std::collections::HashMap;
use std::time::Duration;

use bobbin_api_client::list_names;
use bobbin_crds::POOL_ANNOTATION;
use bobbin_ipam::pool_selection::{POOL_NAME_RULE, is_pool_name};
use bobbin_messages::Event;
use bobbin_messages::event::agent as event;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::cluster::{IgnoredAnnotations, NamespaceInfo};
use crate::state::PodRef;

/// How often the agent repeats a warning. Kubernetes deletes events after an hour.
const REPEAT_INTERVAL: Duration = Duration::from_hours(1);
/// The largest number of host ports that a warning names.
const MAX_NAMED_PORTS: usize = 4;

/// The warnings that the agent gave, each with the time when the agent last gave it.
#[derive(Debug, Default)]
pub(super) struct ObjectWarnings(Mutex<HashMap<(String, Warning), Instant>>);

/// A warning about one pod or one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Warning {
    /// The event that reports the warning.
    event: &'static Event,
    /// The message in the log and in the event.
    sentence: String,
}

impl ObjectWarnings {
    /// Warns about a pod that gets an address, and about the pod's namespace. Sends no request to the API server.
    pub(super) fn report(&self, agent: &Agent, pod: &PodRef, runtime_config: &Map<String, Value>) {
        let (named, now) = (format!("pod {}/{}", pod.namespace, pod.name), Instant::now());
        let ignored = agent.cluster.cached_pod(&pod.namespace, &pod.name, &pod.uid).map(|info| info.ignored.clone());
        let of_pod = ignored_annotations(&named, &ignored.unwrap_or_default(), ". Then create the pod again");
        for warning in of_pod.into_iter().chain(unserved_ports(&named, runtime_config)) {
            if !pod.name.is_empty() && self.note_if_due(&pod.uid, &warning, now) {
                tracing::warn!("{}", warning.sentence);
                agent.events.on_pod(pod, warning.event, &warning.sentence);
            }
        }
        let namespace = agent.cluster.namespace(&pod.namespace);
        for warning in namespace.iter().flat_map(|info| of_namespace(&pod.namespace, info)) {
            if self.note_if_due("", &warning, now) {
                tracing::warn!("{}", warning.sentence);
                agent.events.on_namespace(&pod.namespace, warning.event, &warning.sentence);
            }
        }
    }

    /// Whether the agent must now give this warning about the object with this UID. A warning is due if the agent has not given it within
    /// the last [`REPEAT_INTERVAL`]. Records the current time for a warning that is due.
    fn note_if_due(&self, uid: &str, warning: &Warning, now: Instant) -> bool {
        let mut given = self.0.lock();
        given.retain(|_, at| now.duration_since(*at) < REPEAT_INTERVAL);
        let is_new = !given.contains_key(&(uid.to_owned(), warning.clone()));
        if is_new {
            given.insert((uid.to_owned(), warning.clone()), now);
        }
        is_new
    }
}

fn of_namespace(name: &str, info: &NamespaceInfo) -> Vec<Warning> {
    let named = format!("namespace {name}");
    let mut warnings = ignored_annotations(&named, &info.ignored, "");
    if let Some(pool) = info.pool.as_ref().filter(|pool| !is_pool_name(pool)) {
        let sentence = format!(
            "the annotation {POOL_ANNOTATION} of {named} names pool {pool:?}, which is not a valid pool name: {POOL_NAME_RULE}. Name an existing pool in the annotation"
        );
        warnings.push(Warning { event: &event::INVALID_POOL_NAME, sentence });
    }
    warnings
}

/// The warnings about ignored annotations of an object. Each warning ends with `then`, which says what to do after the correction of the
/// annotation.
fn ignored_annotations(object: &str, ignored: &IgnoredAnnotations, then: &str) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if !ignored.unknown.is_empty() {
        let sentence = format!(
            "Bobbin ignores {} of {object}, because Bobbin knows only {POOL_ANNOTATION}. Correct or remove each unknown annotation{then}",
            list_names(&ignored.unknown, ignored.unknown.len())
        );
        warnings.push(Warning { event: &event::UNKNOWN_ANNOTATION, sentence });
    }
    if ignored.empty_pool {
        let sentence = format!(
            "the annotation {POOL_ANNOTATION} of {object} is empty, so Bobbin ignores the annotation. Name a pool in the annotation, or remove the annotation{then}"
        );
        warnings.push(Warning { event: &event::EMPTY_POOL_NAME, sentence });
    }
    warnings
}

/// The warning about host ports that no chained plugin handles. The runtime passes host ports to Bobbin only in this case, because Bobbin
/// declares the capability `portMappings` only if no chained plugin declares it.
fn unserved_ports(pod: &str, runtime_config: &Map<String, Value>) -> Option<Warning> {
    let mappings = runtime_config.get("portMappings").and_then(Value::as_array)?;
    let ports: Vec<String> = mappings.iter().filter_map(host_port).collect();
    let sentence = format!(
        "{pod} gets no hostPort {}, because no chained plugin of Bobbin's CNI configuration has the capability portMappings. Remove hostPort from the pod, or add {{type: portmap, capabilities: {{portMappings: true}}}} to the chart value cni.chained. Then create the pod again",
        list_names(ports.iter().take(MAX_NAMED_PORTS), ports.len())
    );
    (!ports.is_empty()).then_some(Warning { event: &event::HOST_PORT_IGNORED, sentence })
}

/// The host port and the protocol of a mapping. The agent ignores the case of field names, because containerd writes `HostPort`, but the
/// CNI conventions say `hostPort`.
fn host_port(mapping: &Value) -> Option<String> {
    let fields = mapping.as_object()?;
    let field = |name: &str| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let port = field("hostPort").and_then(Value::as_u64).filter(|port| *port > 0)?;
    Some(format!("{port}/{}", field("protocol").and_then(Value::as_str).unwrap_or("tcp")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports(mappings: Value) -> Option<String> {
        let config = Map::from_iter([("portMappings".to_owned(), mappings)]);
        unserved_ports("pod shop/web", &config).map(|warning| warning.sentence)
    }

    #[test]
    fn host_ports_are_named_in_the_spelling_of_each_runtime() {
        let sentence = ports(json!([
            {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        ]));
        assert!(sentence.unwrap().starts_with("pod shop/web gets no hostPort 53/udp, 8080/tcp, because"));
        let many: Vec<_> = (1..=6).map(|port| json!({"hostPort": port})).collect();
        assert!(ports(json!(many)).unwrap().contains("hostPort 1/tcp, 2/tcp, 3/tcp, 4/tcp and 2 more, because"));
        for none in [json!([]), json!([{"hostPort": 0, "containerPort": 80}]), json!("8080"), json!([8080])] {
            assert_eq!(ports(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn each_fault_of_a_namespaces_annotations_gets_a_warning() {
        let metadata = |annotations: Value| serde_json::from_value(json!({"annotations": annotations})).unwrap();
        let reasons = |annotations: Value| {
            let warnings = of_namespace("shop", &NamespaceInfo::of(&metadata(annotations)));
            warnings.iter().map(|warning| warning.event.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(json!({"bobbin.dev/pool": "gold", "example.com/pool": ""})), [""; 0]);
        assert_eq!(reasons(json!({"bobbin.dev/pool": "", "bobbin.dev/x": ""})), ["UnknownAnnotation", "EmptyPoolName"]);
        assert_eq!(reasons(json!({"bobbin.dev/pool": "Gold"})), ["InvalidPoolName"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_warning_is_given_once_an_hour_for_each_object() {
        let (warnings, now) = (ObjectWarnings::default(), Instant::now());
        let warning = Warning { event: &event::UNKNOWN_ANNOTATION, sentence: "no".to_owned() };
        assert!(warnings.note_if_due("a", &warning, now) && warnings.note_if_due("b", &warning, now));
        assert!(!warnings.note_if_due("a", &warning, now + REPEAT_INTERVAL / 2));
        assert!(warnings.note_if_due("a", &warning, now + REPEAT_INTERVAL));
    }
}
