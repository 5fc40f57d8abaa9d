//! Creates a program's two API clients, one for requests and one for watches. Creating the clients makes no API call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::request_metrics::{ObserveRequests, RequestMetrics};

/// A request fails if the API server sends nothing for this long, even if the request's own deadline is later.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The two API clients of a program.
#[derive(Clone)]
pub struct Clients {
    /// For reads and writes. This client gives up on a silent connection after 10 s. It never retries a request: the
    /// first attempt of a write may have succeeded without an answer. A hidden retry would then fail with a conflict,
    /// and Bobbin would mistake its own write for another client's write (kube-rs/kube#2082).
    pub requests: Client,
    /// For watches. This client has no read timeout, because a watch may receive no event for a long time. Each watch call
    /// has its own timeout.
    pub watches: Client,
    /// The metrics of the requests of both clients.
    pub metrics: RequestMetrics,
}

/// Why the program can't create its API clients.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error(
        "can't use the kubeconfig {path}: {source}; set --kubeconfig or KUBECONFIG to a readable kubeconfig with a current context"
    )]
    Kubeconfig {
        /// The path of the kubeconfig.
        path: PathBuf,
        /// Why the kubeconfig can't be used.
        source: Box<kube::config::KubeconfigError>,
    },
    /// No kubeconfig was set, and the program is not running in a pod.
    #[error(
        "can't find the API server: {0}; run the program in a pod with a service account, or set --kubeconfig or KUBECONFIG"
    )]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    /// kube can't create a client from the configuration.
    #[error(
        "can't create a client for the API server: {0}; check the certificates and keys of the kubeconfig or service account"
    )]
    Client(#[source] Box<kube::Error>),
}

/// Creates the clients from the file `kubeconfig`. If `kubeconfig` is `None`, takes the path of the file from
/// the variable `KUBECONFIG`. If this variable is empty or not set, uses the pod's service account.
///
/// `user_agent` is the program's name in the API server's audit log. Installs ring as the process's TLS provider.
/// Succeeds even if the API server is unreachable, because the function makes no API call.
pub async fn connect(kubeconfig: Option<&Path>, user_agent: &str) -> Result<Clients, ConnectError> {
    // Installing ring fails only if the process already has a TLS provider. The clients then use that provider.
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
    let metrics = RequestMetrics::default();
    Ok(Clients { requests: client(requests, &metrics)?, watches: client(watches, &metrics)?, metrics })
}

/// Creates a client whose requests are counted.
fn client(config: Config, metrics: &RequestMetrics) -> Result<Client, ConnectError> {
    let stack = ClientBuilder::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(stack.with_layer(&ObserveRequests(metrics.clone())).build())
}

async fn from_file(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
