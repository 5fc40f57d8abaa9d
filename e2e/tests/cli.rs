//! `kubectl bobbin` with a real API server, a real operator and a real agent.

#[path = "cli/agents.rs"]
mod agents;
#[path = "cli/confirm.rs"]
mod confirm;
#[path = "cli/connect.rs"]
mod connect;
#[path = "cli/dashboard.rs"]
mod dashboard;
#[path = "cli/drain.rs"]
mod drain;
#[path = "cli/findings.rs"]
mod findings;
#[path = "cli/krew.rs"]
mod krew;
#[path = "cli/leader.rs"]
mod leader;
#[path = "cli/mismatches.rs"]
mod mismatches;
#[path = "cli/show.rs"]
mod show;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::ADMIN;
use bobbin_e2e::single_node::{self, SingleNode, SingleNodeOptions};
use serde_json::Value;

/// Where the agent answers requests for metrics, health and its status, inside the node's network namespace.
const METRICS: &str = "127.0.0.1:9119";
/// The address of the agent's pod, in the test's own network namespace. The API server's pod proxy would refuse a
/// loopback address.
const HOST_ADDRESS: &str = "198.51.100.1";

fn main() -> Result<ExitCode> {
    single_node::own_network(HOST_ADDRESS)?;
    let metrics = format!("--metrics-address={METRICS}");
    let flags = ["--time-scale=0.1", "--add-timeout=10s", metrics.as_str()];
    let options = SingleNodeOptions { leader_election: true, ..SingleNodeOptions::with_agent_flags(flags) };
    let suite = single_node::suite(options)?;
    let tests = vec![
        suite.test("pools and nodes show the counts of the API objects", show::lists),
        suite.test("who finds the pod of an address in both families, and says why no pod has it", show::who),
        suite.test("explain names the pool, the rule and the address of a pod, or the reason for none", show::explain),
        suite.test("who and explain show the address of a pod whose IPAssignment is missing", mismatches::unrecorded),
        suite.test("who says that the pod of an IPAssignment is gone", mismatches::gone),
        suite.test("map draws each claimed block with its used and reserved addresses", show::map),
        suite.test(
            "node shows the attachments, blocks and errors of a running agent, through the pod proxy",
            agents::shows,
        ),
        suite.test(
            "node and check name the missing right, the missing agent and the unreachable agent",
            agents::refused,
        ),
        suite.test(
            "check finds nothing on a healthy node, and names what the API and the agent disagree on",
            agents::compares,
        ),
        suite.test("check names a pod that waits for an address, until the pod is deleted", findings::waiting),
        suite.test("check and node name a CNI configuration that sorts before Bobbin's", findings::shadowed),
        suite.test(
            "without a leading operator, check and pools say that the numbers may be out of date",
            leader::missing,
        ),
        suite.test(
            "confirm-deletion tells an absent namespace and an unwritten list from a list without held nodes",
            confirm::distinguishes,
        ),
        suite.test("wrong arguments and failures have their exit codes and one sentence", show::errors),
        suite.test("drain stops the assignment, waits for the pods, and can be undone", drain::waits),
        suite.test("drain --undo of a pool that is being deleted is refused with the reason", drain::deleting),
        suite.test("drain --evict obeys PodDisruptionBudgets and keeps pods without a controller", drain::evicts),
        suite.test("the dashboard has the numbers that the commands print, and what is wrong", dashboard::numbers),
        suite.test(
            "the dashboard refuses foreign Host headers, methods other than GET and other addresses",
            dashboard::refusals,
        ),
        suite.test("a browser draws the dashboard under its own policy, and shows data as text", dashboard::page),
        suite.test("an error names the API server, the cause and what to do", connect::errors),
        suite.test("a user acts as another user, and limits the time of a call", connect::flags),
        suite.test("kubectl completes commands, flags and names of objects", connect::completes),
        suite.test("krew installs the plugin of a release, and refuses another archive", krew::installs),
        suite.test("a deleted Node whose agent runs is one finding of check", findings::deleted),
    ];
    Ok(suite.run(tests))
}

/// What the command printed, and its exit code.
#[derive(Debug)]
struct Printed {
    code: i32,
    out: String,
    err: String,
}

impl Printed {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

/// Runs `kubectl-bobbin` with the administrator's kubeconfig.
fn kubectl_bobbin(node: &SingleNode, args: &[&str]) -> Result<Printed> {
    kubectl_bobbin_as(node, ADMIN, args)
}

/// Runs `kubectl-bobbin` with the kubeconfig of the user who has this token.
fn kubectl_bobbin_as(node: &SingleNode, token: &str, args: &[&str]) -> Result<Printed> {
    kubectl_bobbin_with(node, &node.control_plane.kubeconfig_for(token)?, args)
}

/// Runs `kubectl-bobbin` with a kubeconfig.
fn kubectl_bobbin_with(node: &SingleNode, kubeconfig: &Path, args: &[&str]) -> Result<Printed> {
    let mut command = Command::new(executable(node)?);
    printed(command.env("KUBECONFIG", kubeconfig).args(args))
}

fn printed(command: &mut Command) -> Result<Printed> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} does not start"))?;
    Ok(Printed {
        code: output.status.code().context("a signal ended the command")?,
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

/// The executable under the name by which kubectl finds its plugin.
fn executable(node: &SingleNode) -> Result<PathBuf> {
    link(node, "kubectl-bobbin")
}

/// Bobbin's executable under another name.
fn link(node: &SingleNode, name: &str) -> Result<PathBuf> {
    let path = node.path(name);
    if !path.exists() {
        std::os::unix::fs::symlink(node.artifacts.all(), &path)?;
    }
    Ok(path)
}

/// Checks that the command had this exit code and printed the text.
fn expect(printed: &Printed, code: i32, text: &str) -> Result<()> {
    ensure!(printed.code == code, "the exit code is not {code}: {printed:?}");
    ensure!(printed.out.contains(text) || printed.err.contains(text), "{text:?} is missing: {printed:?}");
    Ok(())
}
