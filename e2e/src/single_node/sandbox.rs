//! A pod sandbox of the single node: a new network namespace with a path, as containerd gives it to plugins.
//! No process runs in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use super::plugin::Call;
use crate::network::Namespace;

/// A path by which a namespace can be entered, which keeps the namespace alive until it is dropped.
#[derive(Debug)]
pub struct NetnsMount(PathBuf);

impl NetnsMount {
    /// Mounts the namespace at a path that is not there yet.
    pub fn make(namespace: &Namespace, path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("{} can't be made", path.display()))?;
        mount(Some(&namespace.path()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("{} can't be mounted", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for NetnsMount {
    fn drop(&mut self) {
        // The mount is in this process's own mount namespace and goes with it in any case.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A pod's namespace, and the identity of its attachment `eth0`.
#[derive(Debug)]
pub struct Sandbox {
    /// The namespace; gone when the pod is dropped, unless somebody else holds it.
    pub namespace: Namespace,
    /// The path of the namespace.
    pub netns: PathBuf,
    /// The container's ID: 64 hexadecimal digits.
    pub container_id: String,
    /// `CNI_ARGS`, if the container is of a pod that Kubernetes knows.
    pub args: Option<String>,
    _mount: NetnsMount,
}

impl Sandbox {
    /// A new one, its namespace's path under `directory`.
    pub fn make(directory: &Path) -> Result<Self> {
        let namespace = Namespace::make()?;
        let container_id = random_container_id();
        let netns = directory.join(format!("cni-{}", &container_id[..32]));
        let mount = NetnsMount::make(&namespace, netns.clone())?;
        Ok(Self { namespace, netns, container_id, args: None, _mount: mount })
    }

    /// As containerd says which pod a container is of.
    pub fn is_of(&mut self, namespace: &str, name: &str, uid: &str) {
        self.args = Some(format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid}",
            self.container_id
        ));
    }

    /// A call for `eth0`.
    pub fn call(&self, verb: &'static str) -> Call {
        let mut call = Call::of(verb, &self.container_id, "eth0", Some(&self.netns));
        call.args.clone_from(&self.args);
        call
    }

    /// CHECK, with what ADD answered.
    pub fn check(&self, result: &Value) -> Call {
        self.call("CHECK").with("prevResult", result.clone())
    }

    /// What `ip -j` says inside.
    pub fn ip_json(&self, arguments: &str) -> Result<Value> {
        super::ip_json(&self.namespace, arguments)
    }
}

/// 64 hexadecimal digits, never the same twice on this machine.
pub fn random_container_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    // The beginning differs, as the beginnings of real IDs do.
    let mixed = (now ^ count.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{mixed:016x}{count:016x}{now:016x}{:016x}", std::process::id())
}
