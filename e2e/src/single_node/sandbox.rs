//! Pod sandboxes of the single node. A test passes the path of a new network namespace to the plugin, as containerd
//! does. No process runs in the namespace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use super::plugin::Call;
use crate::network::Namespace;

/// A path at which a network namespace is bind-mounted. The mount keeps the namespace alive. Dropping this value
/// unmounts the namespace.
#[derive(Debug)]
pub struct NetnsMount(PathBuf);

impl NetnsMount {
    /// Mounts a network namespace at a path that does not exist yet.
    pub fn make(namespace: &Namespace, path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("{} can't be created", path.display()))?;
        mount(Some(&namespace.path()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("a network namespace can't be mounted at {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for NetnsMount {
    fn drop(&mut self) {
        // If unmounting fails, the kernel removes the mount later, when this process's mount namespace ends.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A pod's network namespace, and the identity of its attachment `eth0`.
#[derive(Debug)]
pub struct Sandbox {
    /// The pod's network namespace. When the sandbox is dropped, the namespace ends if no other process or mount uses
    /// it.
    pub namespace: Namespace,
    /// The path at which the pod's network namespace is mounted.
    pub netns: PathBuf,
    /// The container ID: 64 hexadecimal digits.
    pub container_id: String,
    /// The value of `CNI_ARGS`, if the sandbox belongs to a Pod object.
    pub args: Option<String>,
    _mount: NetnsMount,
}

impl Sandbox {
    /// Creates a sandbox. Its network namespace is mounted at a path in `directory`.
    pub fn make(directory: &Path) -> Result<Self> {
        let namespace = Namespace::make()?;
        let container_id = random_container_id();
        let netns = directory.join(format!("cni-{}", &container_id[..32]));
        let mount = NetnsMount::make(&namespace, netns.clone())?;
        Ok(Self { namespace, netns, container_id, args: None, _mount: mount })
    }

    /// Sets `CNI_ARGS` to the namespace, name and UID of the sandbox's Pod object, as containerd does.
    pub fn is_of(&mut self, namespace: &str, name: &str, uid: &str) {
        self.args = Some(format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid}",
            self.container_id
        ));
    }

    /// A CNI call for the sandbox's interface `eth0`.
    pub fn call(&self, verb: &'static str) -> Call {
        let mut call = Call::of(verb, &self.container_id, "eth0", Some(&self.netns));
        call.args.clone_from(&self.args);
        call
    }

    /// A CHECK call for `eth0`. `result` is the result of the ADD.
    pub fn check(&self, result: &Value) -> Call {
        self.call("CHECK").with("prevResult", result.clone())
    }

    /// The output of `ip -j` inside the sandbox's namespace.
    pub fn ip_json(&self, arguments: &str) -> Result<Value> {
        super::ip_json(&self.namespace, arguments)
    }
}

/// A container ID: 64 hexadecimal digits that are unique on this machine.
pub fn random_container_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    // The first digits must differ between IDs, as in real container IDs.
    let mixed = (now ^ count.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!("{mixed:016x}{count:016x}{now:016x}{:016x}", std::process::id())
}
