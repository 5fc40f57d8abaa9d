//! Makes the two clients that a program has: one for requests, one for watches. It makes no call itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A call that has not been answered for this long is over, whatever its own deadline says.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that does not take a connection within this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The clients of a program.
#[derive(Clone)]
pub struct Clients {
    /// For reads and writes: never retries by itself (a silent retry would make our own write look like somebody else's:
    /// kube-rs/kube#2082), gives up on a silent connection after 10 s.
    pub requests: Client,
    /// For watches: silence is normal there, so there is no read timeout; a watch has a timeout of its own.
    pub watches: Client,
}

/// Why a program cannot even know where the API server is.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig given cannot be used.
    #[error(
        "can't use the kubeconfig {path}: {source}; give a readable kubeconfig with a current context in --kubeconfig or KUBECONFIG"
    )]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// No kubeconfig was given and this is no pod.
    #[error("can't find the API server: {0}; run in a pod with a service account, or give --kubeconfig or KUBECONFIG")]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    /// The client cannot be built of the configuration.
    #[error(
        "can't make a client for the API server: {0}; check certificates and keys of the kubeconfig or service account"
    )]
    Client(#[source] Box<kube::Error>),
}

/// Builds the clients from `kubeconfig`, else `KUBECONFIG`, else the pod's service account.
///
/// `user_agent` is what the API server's audit log shows of us. Installs ring as the process's TLS provider. Makes no call:
/// it succeeds with the API server away.
pub async fn connect(kubeconfig: Option<&Path>, user_agent: &str) -> Result<Clients, ConnectError> {
    // An error only says that a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let from_environment = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut config = match kubeconfig.map(Path::to_path_buf).or(from_environment) {
        Some(path) => {
            from_file(&path).await.map_err(|source| ConnectError::Kubeconfig { path, source: Box::new(source) })?
        }
        None => Config::incluster().map_err(|source| ConnectError::NotInCluster(Box::new(source)))?,
    };
    if let Ok(value) = HeaderValue::from_str(user_agent) {
        config.headers.push((http::header::USER_AGENT, value));
    }
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(READ_TIMEOUT);
    let mut requests = config.clone();
    requests.read_timeout = Some(READ_TIMEOUT);
    requests.reset_reader_on_write = true;
    let mut watches = config;
    watches.read_timeout = None;
    Ok(Clients {
        requests: Client::try_from(requests).map_err(|error| ConnectError::Client(Box::new(error)))?,
        watches: Client::try_from(watches).map_err(|error| ConnectError::Client(Box::new(error)))?,
    })
}

async fn from_file(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
