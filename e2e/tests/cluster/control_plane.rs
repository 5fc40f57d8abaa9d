//! The control plane reaches pods: the API server's proxy, a webhook in a pod, and `kubectl bobbin`.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bobbin_e2e::cluster::pod::PORT;
use bobbin_e2e::cluster::{Cluster, Workload, pod_template};
use bobbin_e2e::demo;
use bobbin_e2e::suite::Suite;
use bobbin_e2e::wait::{Poll, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// How long the control plane may take until it has learned a route or a webhook.
const LEARN_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of the webhook in its pod.
const WEBHOOK_PORT: u16 = 8443;

pub fn tests(suite: &Suite<Cluster>) -> Vec<Trial> {
    vec![
        suite.test("the API server's proxy reaches pods on all nodes, directly and by a Service", proxy),
        suite.test("the API server calls a validating webhook that a pod serves", webhook),
        suite.test("the commands that a kept demo prints work, with kubectl bobbin", commands_of_the_demo),
    ]
}

async fn proxy(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("proxied", &[]).await?;
    cluster.deploy("proxied", "web", 3).await?;
    let pods = cluster.await_ready_pods("proxied", "", "app=web", 3, Duration::from_secs(90)).await?;
    for pod in &pods {
        let path = format!("/api/v1/namespaces/proxied/pods/{}:{PORT}/proxy/hostname", pod.name);
        let answer = cluster.await_kubectl(["get", "--raw", &path], LEARN_TIMEOUT).await?;
        ensure!(answer.trim() == pod.name, "{answer} answered instead of pod {}", pod.name);
    }
    let path = "/api/v1/namespaces/proxied/services/web:80/proxy/hostname";
    let answer = cluster.await_kubectl(["get", "--raw", path], LEARN_TIMEOUT).await?;
    ensure!(pods.iter().any(|pod| pod.name == answer.trim()), "{answer} answered instead of a pod of the Service");
    Ok(())
}

async fn webhook(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("hooked", &[]).await?;
    let pair = rcgen::generate_simple_self_signed(vec!["hook.hooked.svc".to_owned()])?;
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    for object in serving_objects(&certificate, &key) {
        cluster.apply(object).await?;
    }
    cluster.await_ready_pod("hooked", "hook").await?;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "hooked"},
        "webhooks": [{
            "name": "hook.hooked.svc", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "failurePolicy": "Fail",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hooked"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
            "clientConfig": {
                "caBundle": BASE64_STANDARD.encode(&certificate),
                "service": {"namespace": "hooked", "name": "hook", "path": "/always-deny", "port": 443},
            },
        }],
    });
    cluster.apply(&configuration).await?;
    let mut tries = 0;
    let answer = wait_until("the webhook refuses a ConfigMap", LEARN_TIMEOUT, || {
        tries += 1;
        let object = config_map(&format!("asks-{tries}"));
        let cluster = &*cluster;
        async move {
            let refusal = cluster.refusal_of(object).await?;
            Ok(if refusal.contains("this webhook denies all requests") {
                Poll::Ready(())
            } else {
                Poll::Pending(refusal)
            })
        }
    })
    .await;
    cluster.delete(&configuration).await?;
    answer
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "hooked", "name": name}})
}

/// The pod that serves the webhook, with its Service and the Secret with its certificate.
fn serving_objects(certificate: &str, key: &str) -> [Value; 3] {
    let meta = |name: &str| json!({"namespace": "hooked", "name": name, "labels": {"app": "hook"}});
    let mut pod = pod_template(&json!({"app": "hook"}), Some("n2"));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = meta("hook");
    pod["spec"]["volumes"] = json!([{"name": "tls", "secret": {"secretName": "hook"}}]);
    let container = &mut pod["spec"]["containers"][0];
    container["command"] = json!([
        "/agnhost",
        "webhook",
        "--tls-cert-file=/tls/tls.crt",
        "--tls-private-key-file=/tls/tls.key",
        format!("--port={WEBHOOK_PORT}")
    ]);
    container["ports"] = json!([{"containerPort": WEBHOOK_PORT}]);
    container["readinessProbe"] = json!({"tcpSocket": {"port": WEBHOOK_PORT}, "periodSeconds": 1});
    container["volumeMounts"] = json!([{"name": "tls", "mountPath": "/tls", "readOnly": true}]);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": meta("hook"), "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta("hook"),
        "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": WEBHOOK_PORT}]},
    });
    [secret, service, pod]
}

async fn commands_of_the_demo(cluster: &mut Cluster) -> Result<()> {
    cluster.make_namespace("watched", &[]).await?;
    let pod = cluster.create_ready_pod(Workload::pod("watched", "seen").on("n1")).await?;
    let commands = demo::user_commands(cluster)?;
    let kubectl = |words: &[&str]| -> Result<String> {
        let end = Command::new(commands.join("kubectl"))
            .args(words)
            .env("PATH", &commands)
            .env("KUBECONFIG", cluster.control_plane().admin_kubeconfig()?)
            .stdin(Stdio::null())
            .output()
            .context("kubectl did not start")?;
        let error = String::from_utf8_lossy(&end.stderr);
        ensure!(end.status.success(), "`kubectl {}` failed: {error}", words.join(" "));
        Ok(String::from_utf8_lossy(&end.stdout).into_owned())
    };
    let node = kubectl(&["bobbin", "node", "n1"])?;
    ensure!(node.contains("watched/seen"), "`kubectl bobbin node n1` does not name the pod:\n{node}");
    let address = pod.ipv4.context("the pod has no IPv4 address")?.to_string();
    let owner = kubectl(&["bobbin", "who", &address])?;
    ensure!(owner.contains("watched/seen"), "`kubectl bobbin who {address}` does not name the pod:\n{owner}");
    Ok(())
}
