//! Makes CNI calls as containerd does: the plugin runs in the node's network namespace, with environment variables and
//! a configuration on stdin. The module is not specific to Bobbin, so the benchmark also calls the reference plugins
//! through it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::network::Namespace;

/// A plugin and the environment in which a node's runtime executes it.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The network namespace in which the plugin is executed.
    pub namespace: Namespace,
    /// The plugin's executable.
    pub executable: PathBuf,
    /// The directory with the other plugins that this plugin executes (`CNI_PATH`).
    pub path: PathBuf,
    /// Additional environment variables for every call.
    pub environment: Vec<(String, String)>,
    /// The network configuration, to which [`Call::conf`] adds the fields of a single call.
    pub conf: Value,
}

/// The parameters of one CNI call.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub verb: &'static str,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub if_name: String,
    /// `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: Option<String>,
    /// Fields to set in the configuration (`prevResult`, `cniVersion`, …). `null` removes a field.
    pub conf: Vec<(&'static str, Value)>,
    /// The bytes to pass on stdin instead of the network configuration.
    pub stdin: Option<Vec<u8>>,
}

/// The result of a CNI call: exit status, output and time.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The exit status, or -1 if a signal ended the plugin.
    pub exit: i32,
    /// The plugin's output on stdout.
    pub stdout: String,
    /// The plugin's output on stderr.
    pub stderr: String,
    /// The time from the plugin's exec to its exit.
    pub took: Duration,
}

/// An error of a plugin, as the CNI specification defines it.
#[derive(Clone, Debug)]
pub struct CniError {
    /// The field `code` of the error.
    pub code: u64,
    /// The fields `msg` and `details` of the error, joined.
    pub text: String,
}

impl Call {
    /// A CNI call for an attachment.
    pub fn of(verb: &'static str, container_id: &str, if_name: &str, netns: Option<&Path>) -> Self {
        Self {
            verb,
            container_id: container_id.to_owned(),
            if_name: if_name.to_owned(),
            netns: netns.map(Path::to_owned),
            ..Self::default()
        }
    }

    /// Sets a field of the network configuration for this call.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.conf.push((name, value));
        self
    }

    /// Sets `CNI_ARGS` for this call.
    #[must_use]
    pub fn args(mut self, args: &str) -> Self {
        self.args = Some(args.to_owned());
        self
    }
}

impl Plugin {
    /// Executes the plugin and waits until it exits.
    pub fn call(&self, call: &Call) -> Result<Answer> {
        let (this, call) = (self.clone(), call.clone());
        self.namespace.run(move || this.call_in_current_netns(&call))?
    }

    /// Makes the calls concurrently. Returns the answer to each call, and the time until the last call ended.
    pub fn call_at_once(&self, calls: Vec<Call>) -> Result<(Vec<Answer>, Duration)> {
        let gate = std::sync::Arc::new(std::sync::Barrier::new(calls.len() + 1));
        let threads: Vec<_> = calls
            .into_iter()
            .map(|call| {
                let (this, gate) = (self.clone(), gate.clone());
                let namespace = self.namespace.clone();
                std::thread::spawn(move || {
                    namespace.run(move || {
                        gate.wait();
                        this.call_in_current_netns(&call)
                    })?
                })
            })
            .collect();
        gate.wait();
        let start = Instant::now();
        let mut answers = Vec::with_capacity(threads.len());
        for thread in threads {
            answers.push(thread.join().map_err(|_| anyhow::anyhow!("the thread that makes a CNI call panicked"))??);
        }
        Ok((answers, start.elapsed()))
    }

    /// Like [`Self::call`], but on the calling thread, which must be in the node's namespace. So the measured time does
    /// not include entering the namespace.
    pub fn call_in_current_netns(&self, call: &Call) -> Result<Answer> {
        let stdin = call.stdin.clone().unwrap_or_else(|| self.conf_of(call).to_string().into_bytes());
        let mut command = Command::new(&self.executable);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CNI_PATH", &self.path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for (name, value) in
            [("CNI_COMMAND", call.verb), ("CNI_CONTAINERID", &call.container_id), ("CNI_IFNAME", &call.if_name)]
        {
            if !value.is_empty() {
                command.env(name, value);
            }
        }
        if let Some(netns) = &call.netns {
            command.env("CNI_NETNS", netns);
        }
        if let Some(args) = &call.args {
            command.env("CNI_ARGS", args);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} did not start", self.executable.display()))?;
        // Ignore a failure, because the plugin may refuse a call before it has read its stdin.
        let _ = child.stdin.take().context("the plugin has no stdin")?.write_all(&stdin);
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        Ok(Answer {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took,
        })
    }

    fn conf_of(&self, call: &Call) -> Value {
        let mut conf = self.conf.clone();
        if let Value::Object(fields) = &mut conf {
            for (name, value) in &call.conf {
                if value.is_null() {
                    fields.remove(*name);
                } else {
                    fields.insert((*name).to_owned(), value.clone());
                }
            }
        }
        conf
    }
}

impl Answer {
    /// The result of a successful call, or `null` if the plugin printed nothing. Fails if the call failed.
    pub fn ok(&self) -> Result<Value> {
        ensure!(self.exit == 0, "the call failed: {} {}", self.stdout.trim(), self.stderr.trim());
        if self.stdout.trim().is_empty() {
            return Ok(json!(null));
        }
        serde_json::from_str(&self.stdout).with_context(|| format!("the plugin printed no JSON: {}", self.stdout))
    }

    /// The error of a failed call. Fails if the call succeeded.
    pub fn error(&self) -> Result<CniError> {
        ensure!(self.exit != 0, "the call succeeded, but must fail; the plugin printed: {}", self.stdout.trim());
        let object: Value = serde_json::from_str(&self.stdout).with_context(|| {
            format!("the plugin failed without an error object; stdout {:?}, stderr {:?}", self.stdout, self.stderr)
        })?;
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(code) = object.get("code").and_then(Value::as_u64) else {
            bail!("the error object has no code: {object}");
        };
        ensure!(object.get("cniVersion").is_some_and(Value::is_string), "the error object has no cniVersion: {object}");
        Ok(CniError { code, text: format!("{} {}", text("msg"), text("details")).trim().to_owned() })
    }
}
