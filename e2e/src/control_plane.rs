//! A real etcd and kube-apiserver, alone or for a whole cluster. Both programs end when this process ends.
//!
//! Callers configure the control plane with [`ControlPlaneOptions`], and connect with [`ControlPlane::client`] or a
//! kubeconfig. This module does not start the controller manager, the scheduler or nodes.

mod audit;
mod certificates;
mod crds;
mod netns_forward;
mod options;
mod process;
mod scratch_dir;
mod snapshot;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::Signal;

pub use audit::{AuditLog, Entry, Mark};
pub use certificates::Certificates;
pub use crds::{await_served, install_crds};
pub use netns_forward::NetnsForward;
pub use options::{ADMIN, CONTROLLER_MANAGER, ControlPlaneOptions, SCHEDULER, Token, node_token};
pub use process::{Process, killed_with_parent, spawn};
pub use scratch_dir::ScratchDir;
pub use snapshot::Revision;

use xtask::programs::Programs;

use crate::ports::free_port;

/// How long the API server may take from its start until it is ready, even on a busy machine.
const START_TIMEOUT: Duration = Duration::from_mins(3);
/// How long one readiness probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A running etcd and kube-apiserver. Dropping this value kills both programs and removes their directory.
#[derive(Debug)]
pub struct ControlPlane {
    // Rust drops these fields in the order of their declaration, so the API server ends before etcd.
    apiserver: Option<Process>,
    etcd: Option<Process>,
    forward: Option<NetnsForward>,
    scratch: ScratchDir,
    options: ControlPlaneOptions,
    certificates: Certificates,
    ca: String,
    programs: Programs,
    inside: SocketAddr,
    etcd_url: String,
    etcd_peer_url: String,
}

impl ControlPlane {
    /// Starts etcd and the API server, and waits until the API server is ready.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        // Ignore a failure, because the process may already have a TLS provider, which works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = Programs::find()?;
        let scratch = ScratchDir::make("bobbin-control-plane-")?;
        let (port, etcd_ports) = match (&options.netns, options.port) {
            // A separate network namespace has no other programs, so fixed ports are free.
            (Some(_), port) => (port.unwrap_or(6443), [2379, 2380]),
            (None, port) => (port.map_or_else(free_port, Ok)?, [free_port()?, free_port()?]),
        };
        let inside = SocketAddr::new(options.address, port);
        let certificates = Certificates::create(&scratch.path().join("pki"), &options.addresses(), options::NAMES)?;
        let ca = std::fs::read_to_string(certificates.file("ca.crt"))?;
        std::fs::write(scratch.path().join("tokens.csv"), options.token_file())?;
        std::fs::write(scratch.path().join("audit-policy.yaml"), audit::POLICY)?;

        let etcd_url = format!("http://127.0.0.1:{}", etcd_ports[0]);
        let etcd_peer_url = format!("http://127.0.0.1:{}", etcd_ports[1]);
        let forward = options.netns.as_deref().map(|netns| NetnsForward::open(netns, inside)).transpose()?;
        let mut this = Self {
            apiserver: None,
            etcd: None,
            forward,
            scratch,
            options,
            certificates,
            ca,
            programs,
            inside,
            etcd_url,
            etcd_peer_url,
        };
        this.start_etcd()?;
        this.start_apiserver().await?;
        Ok(this)
    }

    /// The API server's URL for this process, and for every other program in this process's network namespace.
    pub fn url(&self) -> String {
        format!("https://{}", self.forward.as_ref().map_or(self.inside, NetnsForward::outside))
    }

    /// The API server's URL for programs in network namespaces from which [`ControlPlaneOptions::address`] is
    /// reachable. Equals [`Self::url`] if the control plane has no separate namespace.
    pub fn inside_url(&self) -> String {
        format!("https://{}", self.inside)
    }

    /// The certificate of the authority that signed the API server's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// The keys and certificates of the control plane. A controller manager needs `service-account.key` and `ca.crt`.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The directory with the control plane's files and logs.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The path of an administrator's kubeconfig (group system:masters), for programs in this process's network
    /// namespace.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        self.kubeconfig_for(ADMIN)
    }

    /// The path of a kubeconfig with this token, for programs in this process's network namespace. The token is one of
    /// [`ControlPlaneOptions::tokens`], or the token of a ServiceAccount.
    pub fn kubeconfig_for(&self, token: &str) -> Result<PathBuf> {
        self.write_kubeconfig(token, &self.url(), "outside")
    }

    /// Like [`Self::kubeconfig_for`], but for programs in network namespaces from which
    /// [`ControlPlaneOptions::address`] is reachable.
    pub fn kubeconfig_inside(&self, token: &str) -> Result<PathBuf> {
        self.write_kubeconfig(token, &self.inside_url(), "inside")
    }

    /// Like [`Self::kubeconfig_for`], but for programs that reach the API server through a proxy at this address.
    pub fn kubeconfig_through(&self, proxy: SocketAddr, token: &str) -> Result<PathBuf> {
        self.write_kubeconfig(token, &format!("https://{proxy}"), &format!("through-{}", proxy.port()))
    }

    fn write_kubeconfig(&self, token: &str, url: &str, place: &str) -> Result<PathBuf> {
        let path = self.scratch.path().join(format!("kubeconfig-{place}-{}", short_hash(token)));
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bobbin",
            "clusters": [{"name": "bobbin", "cluster": {"server": url, "certificate-authority": self.certificates.file("ca.crt")}}],
            "users": [{"name": "bobbin", "user": {"token": token}}],
            "contexts": [{"name": "bobbin", "context": {"cluster": "bobbin", "user": "bobbin"}}],
        });
        std::fs::write(&path, text.to_string()).with_context(|| format!("{} can't be written", path.display()))?;
        Ok(path)
    }

    /// A client with the administrator's permissions.
    pub async fn client(&self) -> Result<kube::Client> {
        self.client_for(ADMIN).await
    }

    /// A client that calls with this token. The client never repeats a request by itself.
    pub async fn client_for(&self, token: &str) -> Result<kube::Client> {
        Ok(kube::Client::try_from(client_config(&self.kubeconfig_for(token)?).await?)?)
    }

    /// Like [`Self::client_for`], but through a proxy at this address.
    pub async fn client_through(&self, proxy: SocketAddr, token: &str) -> Result<kube::Client> {
        Ok(kube::Client::try_from(client_config(&self.kubeconfig_through(proxy, token)?).await?)?)
    }

    /// A client that adds no token to its requests, for a proxy whose clients send their own tokens.
    pub async fn client_without_token(&self) -> Result<kube::Client> {
        let mut config = client_config(&self.admin_kubeconfig()?).await?;
        config.auth_info = kube::config::AuthInfo::default();
        Ok(kube::Client::try_from(config)?)
    }

    /// The audit log. The API server writes the log only if [`ControlPlaneOptions::audit`] is set.
    pub fn audit(&self) -> AuditLog {
        AuditLog::at(&self.scratch.path().join("audit.log"))
    }

    fn start_etcd(&mut self) -> Result<()> {
        let (url, peer) = (&self.etcd_url, &self.etcd_peer_url);
        let mut arguments = vec![
            format!("--data-dir={}", self.etcd_data().display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--log-level=warn".to_owned(),
        ];
        if !self.options.fsync {
            arguments.push("--unsafe-no-fsync".to_owned());
        }
        let log = self.scratch.path().join("etcd.log");
        let program = self.programs.path("etcd")?;
        self.etcd = Some(Process::start(&program, self.options.netns.as_deref(), &log, arguments)?);
        Ok(())
    }

    /// The directory with etcd's data.
    fn etcd_data(&self) -> PathBuf {
        self.scratch.path().join("etcd")
    }

    /// Kills the API server: open connections break, and new ones are refused.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Starts the API server again at the same address, and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_none() {
            let program = self.programs.path("kube-apiserver")?;
            let log = self.scratch.path().join("kube-apiserver.log");
            let arguments =
                self.options.apiserver_arguments(self.scratch.path(), &self.certificates, self.inside, &self.etcd_url);
            self.apiserver = Some(Process::start(&program, self.options.netns.as_deref(), &log, arguments)?);
        }
        self.await_ready().await
    }

    /// Freezes the API server. A frozen API server keeps open connections and accepts new ones, but answers nothing.
    pub fn freeze_apiserver(&self) -> Result<()> {
        self.apiserver
            .as_ref()
            .context("the API server can't be frozen, because it is stopped")?
            .signal(Signal::SIGSTOP)
    }

    /// Lets the API server continue after [`Self::freeze_apiserver`].
    pub fn resume_apiserver(&self) -> Result<()> {
        self.apiserver.as_ref().context("the API server can't continue, because it is stopped")?.signal(Signal::SIGCONT)
    }

    async fn await_ready(&mut self) -> Result<()> {
        let client = self.client().await?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.etcd.as_mut().context("etcd was not started")?.must_be_running()?;
            let apiserver = self.apiserver.as_mut().context("the API server was not started")?;
            apiserver.must_be_running()?;
            let request = http_get("/readyz")?;
            if let Ok(Ok(_)) = tokio::time::timeout(PROBE_TIMEOUT, client.request_text(request)).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the API server was not ready within {} s; its log ends with:\n{}",
                    START_TIMEOUT.as_secs(),
                    apiserver.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The configuration of a client that never repeats a request by itself.
async fn client_config(kubeconfig: &Path) -> Result<kube::Config> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(config)
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

/// A hash of a secret. A file name with the hash does not show the secret.
fn short_hash(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The first address of a range of Service addresses. The Service `kubernetes`, which leads to the API server, has this
/// address.
fn first_of(range: &str) -> Option<IpAddr> {
    let net: ipnet::IpNet = range.trim().parse().ok()?;
    Some(match net.network() {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) + 1).to_be_bytes()),
        IpAddr::V6(address) => IpAddr::from((u128::from(address) + 1).to_be_bytes()),
    })
}
