//! The API server accepts the objects that the chart renders from an administrator's values for pods, users and CRDs.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::chart;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use xtask::programs::Programs;

use crate::fixture::{NAMESPACE, PolicyFixture};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("settings for pods reach the pods of operator and agent", settings_of_pods),
        suite.test("by default, operators avoid each other and agents tolerate every taint", defaults),
        suite.test("without crds.install and rbac.aggregate, the chart has no CRD and no role for users", opt_outs),
    ]
}

/// The fields that the settings must change. Each row has an object, a JSON pointer into the object, and the expected
/// value.
fn expected() -> [(&'static str, &'static str, Value); 15] {
    let gpu = json!([{"key": "gpu", "operator": "Exists"}]);
    let spread = json!({"app.kubernetes.io/name": "bobbin", "app.kubernetes.io/component": "operator"});
    [
        ("Deployment", "/spec/template/metadata/labels/team", json!("network")),
        ("Deployment", "/spec/template/spec/containers/0/args/11", json!("--no-leader-election")),
        ("Deployment", "/spec/template/spec/containers/0/env/2/value", json!("http://192.0.2.1:3128")),
        ("Deployment", "/spec/template/spec/affinity", json!({"nodeAffinity": node_affinity()})),
        ("Deployment", "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels", spread),
        ("Deployment", "/spec/template/spec/topologySpreadConstraints/1/labelSelector/matchLabels", json!({"a": "b"})),
        ("DaemonSet", "/spec/template/metadata/labels/team", json!("network")),
        ("DaemonSet", "/spec/template/spec/containers/0/env/3/valueFrom/fieldRef/fieldPath", json!("status.hostIP")),
        ("DaemonSet", "/spec/template/spec/affinity", json!({"nodeAffinity": agent_affinity()})),
        ("DaemonSet", "/spec/template/spec/tolerations", gpu),
        ("DaemonSet", "/spec/updateStrategy/type", json!("OnDelete")),
        ("DaemonSet", "/spec/updateStrategy/rollingUpdate", Value::Null),
        ("ServiceAccount bobbin-operator", "/metadata/annotations/example.com~1role", json!("operator")),
        ("ServiceAccount bobbin-agent", "/metadata/annotations/example.com~1role", json!("agent")),
        ("ClusterRole bobbin-edit", "/rules/0/verbs", json!(["create", "update", "patch", "delete"])),
    ]
}

fn node_affinity() -> Value {
    let terms = json!([{"matchExpressions": [{"key": "example.com/pool", "operator": "In", "values": ["infra"]}]}]);
    json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}})
}

/// The agent's node affinity: the administrator's affinity, and the chart's own requirement. The requirement keeps the
/// agent off Nodes whose label asks for the removal of Bobbin.
fn agent_affinity() -> Value {
    let stays = json!({"key": "bobbin.dev/agent", "operator": "NotIn", "values": ["remove"]});
    let mut affinity = node_affinity();
    let pointer = "/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions";
    if let Some(expressions) = affinity.pointer_mut(pointer).and_then(Value::as_array_mut) {
        expressions.push(stays);
    }
    affinity
}

async fn settings_of_pods(fixture: &mut PolicyFixture) -> Result<()> {
    let values = json!({
        "operator": {
            "podLabels": {"team": "network"},
            "extraArgs": ["--no-leader-election"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://192.0.2.1:3128"}],
            "affinity": {"nodeAffinity": node_affinity()},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}},
            ],
            "serviceAccount": {"annotations": {"example.com/role": "operator"}},
        },
        "agent": {
            "podLabels": {"team": "network"},
            "extraEnv": [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
            "affinity": {"nodeAffinity": node_affinity()},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "updateStrategy": {"type": "OnDelete"},
            "serviceAccount": {"annotations": {"example.com/role": "agent"}},
        },
        "rbac": {"aggregateEdit": true},
    });
    let objects = accepted(fixture, &values)?;
    let mut wrong = Vec::new();
    for (object, pointer, expected) in expected() {
        let seen = find(&objects, object)?.pointer(pointer).unwrap_or(&Value::Null);
        if *seen != expected {
            wrong.push(format!("{pointer} of {object} must be {expected}, but is {seen}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn defaults(fixture: &mut PolicyFixture) -> Result<()> {
    let objects = accepted(fixture, &json!({}))?;
    let operator = find(&objects, "Deployment")?;
    let term = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0";
    ensure!(operator.pointer(term).is_some(), "{}", operator["spec"]["template"]["spec"]["affinity"]);
    let tolerations = &find(&objects, "DaemonSet")?["spec"]["template"]["spec"]["tolerations"];
    ensure!(*tolerations == json!([{"operator": "Exists"}]), "the agents must tolerate every taint: {tolerations}");
    ensure!(find(&objects, "ClusterRole bobbin-edit").is_err(), "by default, users may not write pools");
    let view = find(&objects, "ClusterRole bobbin-view")?;
    ensure!(view["rules"][0]["verbs"] == json!(["get", "list", "watch"]), "{}", view["rules"]);
    Ok(())
}

async fn opt_outs(fixture: &mut PolicyFixture) -> Result<()> {
    let objects = accepted(fixture, &json!({"crds": {"install": false}, "rbac": {"aggregate": false}}))?;
    for object in ["CustomResourceDefinition", "ClusterRole bobbin-view"] {
        ensure!(find(&objects, object).is_err(), "the chart must not contain {object}");
    }
    find(&objects, "Deployment").map(drop)
}

/// Renders the chart with these values, and lets the API server check all objects without storing them.
fn accepted(fixture: &PolicyFixture, values: &Value) -> Result<Vec<Value>> {
    let scratch = tempfile::tempdir()?;
    let (file, rendered) = (scratch.path().join("values.json"), scratch.path().join("chart.yaml"));
    std::fs::write(&file, values.to_string())?;
    let helm = chart::template(NAMESPACE)?.arg("--values").arg(&file).output()?;
    ensure!(helm.status.success(), "{}", String::from_utf8_lossy(&helm.stderr));
    std::fs::write(&rendered, &helm.stdout)?;
    let kubectl = Command::new(Programs::find()?.path("kubectl")?)
        .arg("--kubeconfig")
        .arg(fixture.control_plane.admin_kubeconfig()?)
        .args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--output=json", "-f"])
        .arg(&rendered)
        .stdin(Stdio::null())
        .output()?;
    ensure!(kubectl.status.success(), "the API server refuses it: {}", String::from_utf8_lossy(&kubectl.stderr));
    let list: Value = serde_json::from_slice(&kubectl.stdout)?;
    Ok(list["items"].as_array().context("kubectl printed no list")?.clone())
}

/// Finds the object that `object` describes by a kind and a name. Without a name, finds the first object of the kind.
fn find<'a>(objects: &'a [Value], object: &str) -> Result<&'a Value> {
    let (kind, name) = object.split_once(' ').unwrap_or((object, ""));
    let is = |seen: &&Value| seen["kind"] == kind && (name.is_empty() || seen["metadata"]["name"] == name);
    objects.iter().find(is).with_context(|| format!("the chart has no {object}"))
}
