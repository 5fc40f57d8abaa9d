//! Connects to the API server with the user's kubeconfig.

use std::time::Duration;

use anyhow::{Context, Result};
use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::GlobalArgs;

/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request fails if the API server sends nothing for this long. It is longer than the time for which the API server keeps an idle
/// watch open, so that it does not end watches.
const READ_TIMEOUT: Duration = Duration::from_mins(6);

/// A client of the API server, and the namespace of the kubeconfig's context.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Reads the kubeconfig and creates a client. Makes no call to the API server.
pub(crate) async fn connect(args: &GlobalArgs) -> Result<Connection> {
    // Installing ring fails only if the process already has a TLS provider. The client then uses that provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).with_context(|| {
            format!("can't read the kubeconfig {}: name another file with --kubeconfig", path.display())
        })?,
        None => Kubeconfig::read()
            .context("can't read the kubeconfig: name a file with --kubeconfig or in the variable KUBECONFIG")?,
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .context("can't use the kubeconfig: choose a context with --context, or set the current context")?;
    config.headers.push((
        http::header::USER_AGENT,
        HeaderValue::from_static(concat!("kubectl-bobbin/", env!("CARGO_PKG_VERSION"))),
    ));
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // The API server answers a refused eviction with 429. A hidden retry would keep that answer from the user.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).context("can't create a client with the kubeconfig")?;
    Ok(Connection { client, namespace })
}
