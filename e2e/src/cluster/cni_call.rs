//! Calls the CNI plugin on a node in the same way as the container runtime does.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;

/// One CNI call. The fields are environment variables of the CNI specification.
#[derive(Clone, Debug)]
pub struct CniCall<'a> {
    /// `CNI_COMMAND`: `ADD`, `DEL`, `CHECK`, `STATUS`, `GC` or `VERSION`.
    pub verb: &'a str,
    /// `CNI_CONTAINERID`.
    pub container: &'a str,
    /// `CNI_IFNAME`.
    pub interface: &'a str,
    /// `CNI_NETNS`, a path on the node. If this field is empty, the variable is not set.
    pub netns: &'a str,
    /// `CNI_ARGS`. If this field is empty, the variable is not set.
    pub args: &'a str,
}

impl<'a> CniCall<'a> {
    /// Creates a late DEL, in which the runtime knows only the container ID and not the network namespace.
    pub fn late_del(container: &'a str) -> Self {
        Self { verb: "DEL", container, interface: "eth0", netns: "", args: "" }
    }
}

/// The plugin's answer to a CNI call.
#[derive(Clone, Debug)]
pub struct CniAnswer {
    /// Whether the plugin exited with status 0.
    pub ok: bool,
    /// The plugin's output as JSON: a result or an error. If the output is not JSON, this value is the output as a string.
    pub said: Value,
}

impl Cluster {
    /// Calls the plugin on a node with the installed CNI configuration.
    pub fn shim(&self, node: &str, call: &CniCall<'_>) -> Result<CniAnswer> {
        let node = self.node(node)?;
        let list: Value = serde_json::from_str(&node.exec(["cat", "/etc/cni/net.d/10-bobbin.conflist"])?)?;
        let mut configuration = list["plugins"][0].clone();
        configuration["cniVersion"] = list["cniVersion"].clone();
        configuration["name"] = list["name"].clone();

        let mut words =
            vec!["env".to_owned(), format!("CNI_COMMAND={}", call.verb), "CNI_PATH=/opt/cni/bin".to_owned()];
        words.push(format!("CNI_CONTAINERID={}", call.container));
        words.push(format!("CNI_IFNAME={}", call.interface));
        if !call.netns.is_empty() {
            words.push(format!("CNI_NETNS={}", call.netns));
        }
        if !call.args.is_empty() {
            words.push(format!("CNI_ARGS={}", call.args));
        }
        words.push("/opt/cni/bin/bobbin".to_owned());
        let mut child =
            node.command(&words)?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("the plugin has no input")?.write_all(configuration.to_string().as_bytes())?;
        let end = child.wait_with_output()?;
        let said = serde_json::from_slice(&end.stdout).unwrap_or_else(|_| json!(String::from_utf8_lossy(&end.stdout)));
        Ok(CniAnswer { ok: end.status.success(), said })
    }
}
