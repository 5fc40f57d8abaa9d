//! One machine of the test cluster: a set of namespaces in which a real containerd, kubelet and kube-proxy run.
//!
//! [`crate::cluster::Cluster`] creates nodes. Tests cut the power of nodes, boot nodes and run commands on nodes. The disk
//! survives a power cut; `/run`, the processes and the network do not.

mod files;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::run::{Run, cgroup_roots};
use crate::control_plane::Process;
use crate::network::Namespace;
use crate::network::{Fabric, FabricAddresses};
use crate::wait::{Poll, wait_until};

/// The script that runs as the node's first process.
const INIT: &str = include_str!("node/init.sh");
/// How long containerd may take from boot to its first answer, even on a busy machine.
const CONTAINERD_START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the machine may take to start a program again.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);

/// The files and the certificate authority with which a node joins the cluster.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The path of a kubeconfig for the node's user.
    pub kubelet: PathBuf,
    /// The path of a kubeconfig for kube-proxy.
    pub kube_proxy: PathBuf,
    /// The path of the certificate of the cluster's certificate authority.
    pub ca: String,
    /// Archives of the images that pods may use.
    pub images: Vec<PathBuf>,
    /// The directory with the cluster's programs.
    pub programs: PathBuf,
}

/// The processes and namespaces of a machine that has power.
#[derive(Debug)]
struct Power {
    init: Process,
    namespace: Namespace,
}

/// A machine of the test cluster. Dropping this value cuts the machine's power.
#[derive(Debug)]
pub struct Node {
    name: String,
    addresses: FabricAddresses,
    disk: PathBuf,
    cgroup: String,
    fabric: Arc<Fabric>,
    config: NodeConfig,
    power: Option<Power>,
}

impl Node {
    /// Creates a machine without power. Its name is `n1` to `n40`.
    pub fn new(run: &Run, fabric: &Arc<Fabric>, name: &str, config: NodeConfig) -> Result<Self> {
        let addresses = FabricAddresses::node(name)?;
        let disk = run.make_directory(name)?;
        let cgroup = format!("bob-{}-{name}", run.id());
        files::lay_out(&disk, &config.programs)?;
        files::write(&disk, &files::NodeInfo { name, addresses, cgroup: &cgroup, ca: &config.ca })?;
        std::fs::copy(&config.kubelet, disk.join("kubelet.kubeconfig"))?;
        std::fs::copy(&config.kube_proxy, disk.join("kube-proxy.kubeconfig"))?;
        Ok(Self { name: name.to_owned(), addresses, disk, cgroup, fabric: fabric.clone(), config, power: None })
    }

    /// The machine's name, which is also the name of its Node object.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine's addresses on the fabric.
    pub fn addresses(&self) -> FabricAddresses {
        self.addresses
    }

    /// The directory that survives a power cut: `etc`, `opt`, `var`, and the logs of the machine's programs.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// Boots the machine, and returns when containerd has loaded the images and the kubelet may start. The Node may not be
    /// Ready yet.
    pub fn boot(&mut self) -> Result<()> {
        self.power_cut();
        make_cgroups(&self.cgroup)?;
        let first_boot = !self.disk.join("boot-id").exists();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        std::fs::write(self.disk.join("boot-id"), boot_id)?;
        // The node starts its kubelet when the file `go` exists. Remove the file that the previous boot left. At the first
        // boot, there is no such file, so ignore the failure.
        let _ = std::fs::remove_file(self.disk.join("go"));
        let namespace = Namespace::make()?;
        self.fabric.plug(&self.name, self.addresses, &namespace)?;
        let init = Process::start(
            Path::new("unshare"),
            Some(&namespace.path()),
            &self.disk.join("init.log"),
            self.arguments(),
        )?;
        self.power = Some(Power { init, namespace });
        self.await_containerd()?;
        if first_boot {
            self.load_images()?;
        }
        std::fs::write(self.disk.join("go"), "")?;
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let FabricAddresses { ipv4, ipv6 } = self.addresses;
        let mut arguments: Vec<String> =
            ["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "env"]
                .map(str::to_owned)
                .into();
        arguments.push(format!("DISK={}", self.disk.display()));
        arguments.push(format!("PROGRAMS={}", self.config.programs.display()));
        arguments.push(format!("NODE={}", self.name));
        arguments.push(format!("NODE_IP={ipv4},{ipv6}"));
        arguments.extend(["bash", "-c", INIT, &self.cgroup].map(str::to_owned));
        arguments
    }

    fn await_containerd(&mut self) -> Result<()> {
        let deadline = Instant::now() + CONTAINERD_START_TIMEOUT;
        while let Err(error) = self.exec(["ctr", "version"]) {
            if let Some(power) = self.power.as_mut() {
                power.init.must_be_running()?;
            }
            if Instant::now() > deadline {
                bail!(
                    "containerd on node {} did not answer within {} s: {error:#}; the log of containerd is {}",
                    self.name,
                    CONTAINERD_START_TIMEOUT.as_secs(),
                    self.disk.join("containerd.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn load_images(&self) -> Result<()> {
        self.config.images.iter().try_for_each(|image| self.load_image(image))
    }

    /// Loads the images of an archive into containerd.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let words = ["ctr", "-n", "k8s.io", "images", "import"].map(OsStr::new);
        self.exec(words.into_iter().chain([archive.as_os_str()])).map(drop)
    }

    /// Ends all processes and the network of the machine at once, without a message to any other machine.
    pub fn power_cut(&mut self) {
        let Some(mut power) = self.power.take() else { return };
        if let Ok(pid) = first_process(&power.init) {
            // Kill the first process. The kernel then kills all other processes of the PID namespace, and `unshare` ends
            // after the last of them.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            let deadline = Instant::now() + Duration::from_secs(20);
            while power.init.ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        power.init.kill();
        remove_cgroups(&self.cgroup);
    }

    /// Cuts the machine's power and boots it again.
    pub fn reboot(&mut self) -> Result<()> {
        self.boot()
    }

    /// Whether the machine has power.
    pub fn is_on(&self) -> bool {
        self.power.is_some()
    }

    /// Unplugs the machine's network cable, which cuts the machine off from all other machines. [`Self::plug`] connects the
    /// machine again.
    pub fn unplug(&self) -> Result<()> {
        self.fabric.cable(&self.name, false)
    }

    /// Plugs the machine's network cable in again.
    pub fn plug(&self) -> Result<()> {
        self.fabric.cable(&self.name, true)
    }

    /// The machine's network namespace.
    pub fn namespace(&self) -> Result<&Namespace> {
        Ok(&self.power.as_ref().with_context(|| format!("the node {} has no power", self.name))?.namespace)
    }

    /// A command that runs inside all namespaces of the machine.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first_process()?));
        command.args(["--mount", "--uts", "--net", "--pid", "--"]).args(words).current_dir("/").stdin(Stdio::null());
        let path =
            format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.config.programs.display());
        command.env("PATH", path);
        Ok(command)
    }

    /// Runs a command on the machine and returns its output. If the command fails, the error contains the command's output.
    pub fn exec<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<String> {
        let mut command = self.command(words)?;
        let end = command.output().context("nsenter did not start")?;
        if !end.status.success() {
            let words: Vec<_> = command.get_args().skip(6).map(|word| word.to_string_lossy().into_owned()).collect();
            let said = format!("{}{}", String::from_utf8_lossy(&end.stderr), String::from_utf8_lossy(&end.stdout));
            bail!("the command `{}` on node {} failed ({}): {}", words.join(" "), self.name, end.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&end.stdout).into_owned())
    }

    /// Waits until a process of the machine runs this program, and kills all such processes. If the program is containerd,
    /// kubelet or kube-proxy, the machine starts the program again.
    pub async fn kill_program(&self, name: &str) -> Result<()> {
        wait_until(&format!("a process {name} of node {} has been killed", self.name), RESTART_TIMEOUT, || async {
            self.exec(["pkill", "-KILL", "-x", name]).map(|_| Poll::Ready(()))
        })
        .await
    }

    /// The PID of the node's first process in the host's PID namespace. `nsenter` needs this PID to enter the node.
    pub fn first_process(&self) -> Result<i32> {
        first_process(&self.power.as_ref().with_context(|| format!("the node {} has no power", self.name))?.init)
    }

    /// The path by which this process can read a file of the node.
    pub fn path(&self, path: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{path}", self.first_process()?)))
    }

    /// Reads the PIDs of a pod's processes on this node from the pod's cgroups.
    pub fn processes_of_pod(&self, uid: &str) -> Vec<i32> {
        let roots = cgroup_roots();
        let root = roots.iter().find(|root| root.ends_with("pids")).or(roots.first());
        let Some(kubepods) = root.map(|root| root.join(&self.cgroup).join("kubepods")) else { return Vec::new() };
        let name = format!("pod{uid}");
        let mut found = Vec::new();
        for pod in ["", "besteffort", "burstable"].iter().map(|class| kubepods.join(class).join(&name)) {
            for container in std::fs::read_dir(pod).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(container.path().join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            }
        }
        found
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_cut();
    }
}

/// Returns the PID that the host sees for the node's first process. This process is the child of `unshare`.
fn first_process(init: &Process) -> Result<i32> {
    let pid = init.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .context("the first process of the node is not running")
}

/// Creates a cgroup under every controller. Copies the CPUs and memory nodes of the root cpuset into the new cpuset,
/// because the kernel adds no process to a cpuset without them.
fn make_cgroups(name: &str) -> Result<()> {
    for root in cgroup_roots() {
        let directory = root.join(name);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("the cgroup {} can't be created", directory.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(value), true) = (std::fs::read_to_string(root.join(file)), root.ends_with("cpuset")) {
                std::fs::write(directory.join(file), value)?;
            }
        }
    }
    Ok(())
}

/// Removes the node's cgroups. If a process in a cgroup is still ending, the clean-up of the run removes that cgroup
/// later.
fn remove_cgroups(name: &str) {
    for root in cgroup_roots() {
        remove_tree(&root.join(name));
    }
}

fn remove_tree(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(directory);
}
