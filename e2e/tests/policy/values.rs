//! Tests the chart's values. Helm refuses value names of earlier versions, durations that would overload the API
//! server, and waits that are too long for an ADD. Each refusal says in a sentence what is wrong. An upgrade that
//! changes only the chart's version restarts no pod.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::chart;
use bobbin_e2e::suite::Suite;
use libtest_mimic::Trial;

use crate::fixture::{NAMESPACE, PolicyFixture};

/// Settings of earlier versions, each with the current name of the value and a valid setting.
const RENAMED: [(&str, &str, &str); 3] = [
    ("agent.holdAdd=30s", "agent.addTimeout", "30s"),
    ("agent.sweepInterval=60s", "agent.staleCheckInterval", "60s"),
    ("operator.nodeGoneSeconds=300", "operator.nodeGracePeriod", "5m"),
];

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("a chart value of an earlier version is refused with its new name", renamed_values),
        suite.test("a duration that would load the API server is refused", short_durations),
        suite.test("a wait that is too long for an ADD is refused with the longest one", long_waits),
        suite.test("the refusal of a value says what the value must be, without a regular expression", sentences),
        suite.test("a new version of the chart alone changes no pod template", chart_version),
        suite.test("a new log level restarts no pod, and the chart refuses an unknown one", log_levels),
        suite.test(
            "the chart creates PodMonitors that select the pods of agent and operator, if a value asks for them",
            pod_monitors,
        ),
        suite.test("an update restarts one agent at a time, and a drain evicts one operator at a time", one_at_a_time),
    ]
}

/// Values with a duration that Helm refuses, and the shortest duration that Helm accepts.
const DURATIONS: [(&str, &str, &str); 8] = [
    ("operator.statusInterval", "0s", "1s"),
    ("operator.leaseDuration", "900ms", "11s"),
    ("operator.renewDeadline", "999ms", "14s"),
    ("operator.retryPeriod", "50ms", "1s"),
    ("agent.addTimeout", "0s", "1s"),
    ("agent.blockIdle", "29s", "30s"),
    ("agent.staleCheckInterval", "1s", "10s"),
    ("agent.relistInterval", "59s", "1m"),
];

async fn short_durations(_: &mut PolicyFixture) -> Result<()> {
    for (value, short, shortest) in DURATIONS {
        let refused = template(&[&format!("{value}={short}")])?;
        let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
        let name = value.split('.').next_back().unwrap_or_default();
        ensure!(
            !refused.status.success() && sentence.contains(name),
            "Helm must refuse {value}={short} and name the value, but says: {sentence}"
        );
        let accepted = template(&[&format!("{value}={shortest}")])?;
        ensure!(accepted.status.success(), "{value}={shortest}: {}", String::from_utf8_lossy(&accepted.stderr));
    }
    for (value, why) in [("leaseDuration=10s", "operator.renewDeadline"), ("renewDeadline=2s", "operator.retryPeriod")]
    {
        let refused = template(&[&format!("operator.{value}")])?;
        let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && sentence.contains("is not longer than") && sentence.contains(why),
            "Helm must refuse operator.{value} with a reason, but says: {sentence}"
        );
    }
    Ok(())
}

/// Values with a wait that Helm refuses, and the longest wait that Helm accepts.
const WAITS: [(&str, &str, &str); 4] = [
    ("agent.addTimeout", "51s", "50s"),
    ("agent.addTimeout", "1m", "50s"),
    ("agent.confirmWait", "5001ms", "5000ms"),
    ("agent.confirmWait", "6s", "5s"),
];

async fn long_waits(_: &mut PolicyFixture) -> Result<()> {
    for (value, long, longest) in WAITS {
        let refused = refusal(&format!("{value}={long}"))?;
        let end = longest.strip_suffix("000ms").map_or_else(|| longest.to_owned(), |seconds| format!("{seconds}s"));
        ensure!(refused.contains(&end), "the refusal of {value}={long} must name {end}, but says: {refused}");
        let accepted = template(&[&format!("{value}={longest}")])?;
        ensure!(accepted.status.success(), "{value}={longest}: {}", String::from_utf8_lossy(&accepted.stderr));
    }
    Ok(())
}

/// Settings that Helm refuses, and words of the sentence that says what the value must be.
const REFUSED: [(&str, &str); 29] = [
    ("operator.bindAddress=everywhere", "an IP address to listen on"),
    ("operator.nodeGracePeriod=3m", "at least 4 minutes"),
    ("operator.reclaimHold=9m", "at least 10 minutes"),
    ("operator.statusInterval=0s", "at least 1s"),
    ("operator.podComparisonInterval=59s", "at least 1 minute"),
    ("operator.leaseDuration=4s", "at least 5s"),
    ("operator.renewDeadline=1d", "at least 1s"),
    ("agent.bindAddress=everywhere", "an IP address to listen on"),
    ("agent.confirmWait=soon", "at most 5s"),
    ("agent.addTimeout=30", "got number, want string"),
    ("agent.maxUnavailable=0%", "a percentage of the nodes"),
    ("cni.binDir=opt/cni/bin", "an absolute path"),
    ("cni.confDir=/", "an absolute path"),
    ("network.podTable=254", "a table other than 253, 254 and 255"),
    ("network.vethPrefix=bob1", "one to four lowercase letters"),
    ("metrics.podMonitor.interval=often", "for example 30s"),
    ("network.mtu=500", "a number from 1280 to 65535"),
    ("operator.extraArgs[0]=verbose", "a flag that begins with --"),
    ("agent.extraArgs[0]=verbose", "a flag that begins with --"),
    ("operator.extraEnv[0].name=1st", "the name of an environment variable"),
    ("operator.extraEnv[0].name=POD_NAME", "but the chart sets this variable"),
    ("agent.extraEnv[0].name=KUBERNETES_SERVICE_HOST", "set apiServer.host and apiServer.port instead"),
    ("operator.podLabels.team=a b", "a label value"),
    ("agent.podLabels.app\\.kubernetes\\.io/name=x", "which belongs to the chart"),
    ("operator.tolerations[0].effect=Never", "'NoExecute'"),
    ("agent.updateStrategy.type=Recreate", "'OnDelete'"),
    ("agent.updateStrategy.rollingUpdate.maxSurge=1", "set agent.maxUnavailable instead"),
    ("test.pool=A_B", "the name of an AddressPool"),
    ("crds.install=yes", "want boolean"),
];

async fn sentences(_: &mut PolicyFixture) -> Result<()> {
    for (setting, words) in REFUSED {
        let refused = refusal(setting)?;
        ensure!(refused.contains(words), "the refusal of {setting} must say {words:?}, but says: {refused}");
        for cryptic in ["does not match pattern", "anyOf", "'not' failed", "false schema"] {
            ensure!(!refused.contains(cryptic), "the refusal of {setting} is not a sentence: {refused}");
        }
    }
    Ok(())
}

/// Helm's refusal of a setting. The refusal names the component and the value.
fn refusal(setting: &str) -> Result<String> {
    let refused = template(&[setting])?;
    let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
    let path = setting.split(['=', '[']).next().unwrap_or_default();
    let mut names = path.split('.').take(2);
    ensure!(
        !refused.status.success() && names.all(|name| sentence.contains(name)),
        "Helm must refuse {setting} and name the value, but says: {sentence}"
    );
    Ok(sentence)
}

async fn chart_version(_: &mut PolicyFixture) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let chart_directory = chart::directory();
    let copied = std::process::Command::new("cp").arg("-r").arg(&chart_directory).arg(scratch.path()).status()?;
    ensure!(copied.success(), "the chart can't be copied");
    let copy = scratch.path().join("bobbin");
    let description = copy.join("Chart.yaml");
    let text = std::fs::read_to_string(&description)?;
    // Change only the version of the chart. The image stays the same.
    let version = text.lines().find(|line| line.starts_with("version: ")).context("the chart has no version")?;
    std::fs::write(&description, text.replace(version, "version: 9.9.9"))?;
    let templates = |chart: &std::path::Path| pod_templates(&chart::template_of(chart, NAMESPACE)?.output()?);
    let (before, after) = (templates(&chart_directory)?, templates(&copy)?);
    ensure!(before.len() == 3, "the chart must have three pod templates, but has {}", before.len());
    ensure!(
        before == after,
        "the new version of the chart changed a pod template, so an upgrade would restart the pods"
    );
    Ok(())
}

async fn log_levels(_: &mut PolicyFixture) -> Result<()> {
    let values = ["agent.logLevel=debug", "operator.logLevel=info\\,bobbin_operator::pool=debug"];
    let (before, after) = (template(&[])?, template(&values)?);
    ensure!(
        pod_templates(&before)? == pod_templates(&after)?,
        "a new log level changed a pod template, so it would restart the pods"
    );
    let rendered = String::from_utf8_lossy(&after.stdout);
    for line in ["  agent: \"debug\"", "  operator: \"info,bobbin_operator::pool=debug\""] {
        ensure!(rendered.contains(line), "the chart contains no line {line}");
    }
    refusal("agent.logLevel=loud").map(drop)
}

async fn one_at_a_time(_: &mut PolicyFixture) -> Result<()> {
    let documents = documents(&template(&[])?)?;
    let find = |kind: &str| {
        documents.iter().find(|document| document.contains(&format!("\nkind: {kind}\n"))).context(kind.to_owned())
    };
    ensure!(
        find("DaemonSet")?.contains("    rollingUpdate:\n      maxUnavailable: 1\n"),
        "the DaemonSet must update one pod at a time"
    );
    let (budget, operator) = (find("PodDisruptionBudget")?, find("Deployment")?);
    ensure!(budget.contains("\n  maxUnavailable: 1\n"), "{budget}");
    let selector = "  selector:\n    matchLabels:\n";
    let (_, selects) = budget.split_once(selector).context("the PodDisruptionBudget has no selector")?;
    ensure!(
        operator.contains(&format!("{selector}{}", selects.trim_end())),
        "the PodDisruptionBudget does not select the operator's pods: {budget}"
    );
    Ok(())
}

async fn pod_monitors(_: &mut PolicyFixture) -> Result<()> {
    let is_monitor = |document: &String| document.contains("\nkind: PodMonitor\n");
    let default = documents(&template(&[])?)?;
    ensure!(!default.iter().any(is_monitor), "by default, the chart must create no PodMonitor");
    let settings =
        ["enabled=true", "interval=45s", "labels.release=stack"].map(|value| format!("metrics.podMonitor.{value}"));
    let all = documents(&template(&settings.each_ref().map(String::as_str))?)?;
    for (component, components, workload) in
        [("agent", "agent, agent-remove", "DaemonSet"), ("operator", "operator", "Deployment")]
    {
        let name = format!("\n  name: bobbin-{component}\n");
        let monitor =
            all.iter().find(|document| is_monitor(document) && document.contains(&name)).context("no PodMonitor")?;
        for part in
            ["\n    release: stack\n", "\n    - port: health\n", "\n      interval: 45s\n", "\n      path: /metrics\n"]
        {
            ensure!(monitor.contains(part), "the PodMonitor of the {component} lacks {part:?}: {monitor}");
        }
        let selects = format!("{{key: app.kubernetes.io/component, operator: In, values: [{components}]}}");
        ensure!(monitor.contains(&selects), "{monitor}");
        let kind = format!("\nkind: {workload}\n");
        let workloads: Vec<&String> = all.iter().filter(|document| document.contains(&kind)).collect();
        ensure!(workloads.len() == components.split(", ").count(), "{workloads:?}");
        for (workload, component) in workloads.into_iter().zip(components.split(", ")) {
            let labels = format!(
                "    matchLabels:\n      app.kubernetes.io/name: bobbin\n      app.kubernetes.io/component: {component}\n"
            );
            ensure!(
                workload.contains(&labels) && workload.contains("- name: health\n"),
                "the PodMonitor selects no pod: {workload}"
            );
        }
    }
    let local = template(&["metrics.podMonitor.enabled=true", "agent.bindAddress=127.0.0.1"])?;
    let sentence = String::from_utf8_lossy(&local.stderr).into_owned();
    ensure!(!local.status.success() && sentence.contains("agent.bindAddress 127.0.0.1"), "{sentence}");
    Ok(())
}

/// The YAML documents of a rendered chart.
fn documents(rendered: &Output) -> Result<Vec<String>> {
    ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    Ok(String::from_utf8(rendered.stdout.clone())?.split("\n---\n").map(ToOwned::to_owned).collect())
}

/// The pod templates of operator and agent, each with the rest of its document. Leaves out the Job of `helm uninstall`,
/// because an upgrade does not change this Job.
fn pod_templates(rendered: &Output) -> Result<Vec<String>> {
    let template = |document: &String| document.split_once("\n  template:\n").map(|(_, template)| template.to_owned());
    let documents = documents(rendered)?;
    Ok(documents.iter().filter(|document| !document.contains("\nkind: Job\n")).filter_map(template).collect())
}

async fn renamed_values(_: &mut PolicyFixture) -> Result<()> {
    for (old, new, setting) in RENAMED {
        let refused = template(&[old])?;
        let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success(), "Helm must refuse {old}");
        let name = old.split('=').next().unwrap_or_default();
        ensure!(
            sentence.contains(new) && sentence.contains(&format!("--set {name}=null")),
            "the refusal of {old} does not name {new} and how to unset the old value: {sentence}"
        );
        let accepted = template(&[&format!("{name}=null"), &format!("{new}={setting}")])?;
        ensure!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    }
    Ok(())
}

fn template(values: &[&str]) -> Result<Output> {
    let mut helm = chart::template(NAMESPACE)?;
    for value in values {
        helm.args(["--set", value]);
    }
    helm.output().context("the test could not start Helm")
}
