//! Connects to the API server with the user's kubeconfig.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::api::objects;
use crate::args::GlobalArgs;
use crate::print::failure::advised;

/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request fails if the API server sends nothing for this long. This timeout never ends a watch, because the API server ends an
/// idle watch sooner.
const READ_TIMEOUT: Duration = Duration::from_mins(6);

/// A client of the API server, and the namespace of the kubeconfig's context.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The URL of the API server.
    pub(crate) server: String,
    pub(crate) namespace: String,
}

/// Reads the kubeconfig and creates a client. Makes no call to the API server.
pub(crate) async fn connect(args: &GlobalArgs) -> Result<Connection> {
    // Installing ring fails only if the process already has a TLS provider. The client then uses that provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    objects::limit_calls(args.request_timeout);
    let kubeconfig = read_kubeconfig(args)?;
    let contexts: Vec<String> = kubeconfig.contexts.iter().map(|one| one.name.clone()).collect();
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(args.context.as_deref(), &contexts, &error))?;
    config.headers.push((
        http::header::USER_AGENT,
        HeaderValue::from_static(concat!("kubectl-bobbin/", env!("CARGO_PKG_VERSION"))),
    ));
    if let Some(user) = &args.as_user {
        config.auth_info.impersonate = Some(user.clone());
    }
    if !args.as_group.is_empty() {
        // The API server accepts groups only together with a user. `--as` or the kubeconfig names this user.
        ensure!(config.auth_info.impersonate.is_some(), "--as-group needs a user: add --as USER");
        config.auth_info.impersonate_groups = Some(args.as_group.clone());
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // The API server answers a refused eviction with 429. kube's own retry would hide that answer from the user.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|error| {
        let what = format!("can't create a client of {server}");
        advised(what, &error, "check the user and the cluster in the kubeconfig")
    })?;
    Ok(Connection { client, server, namespace })
}

/// Reads the file of `--kubeconfig`. Without this flag, reads the files of $KUBECONFIG, else ~/.kube/config.
pub(crate) fn read_kubeconfig(args: &GlobalArgs) -> Result<Kubeconfig> {
    match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(|error| {
            let what = format!("can't read the kubeconfig {}", path.display());
            advised(what, &error, "name another file with --kubeconfig")
        }),
        None => Kubeconfig::read().map_err(|error| {
            let remedy = "name a file with --kubeconfig or in the variable KUBECONFIG";
            advised("can't read the kubeconfig", &error, remedy)
        }),
    }
}

/// The error for a kubeconfig that can't be used, with advice that depends on the chosen context and the existing contexts.
fn unusable(context: Option<&str>, contexts: &[String], cause: &KubeconfigError) -> anyhow::Error {
    let known = if contexts.is_empty() { "none".to_owned() } else { contexts.join(", ") };
    match context {
        Some(name) if !contexts.iter().any(|one| one == name) => {
            anyhow!(
                "the kubeconfig has no context {name}; choose a context with --context (the kubeconfig has {known})"
            )
        }
        Some(name) => {
            let what = format!("can't use the context {name} of the kubeconfig");
            advised(what, cause, "correct its cluster and its user")
        }
        None => {
            let remedy =
                format!("choose a context with --context (the kubeconfig has {known}), or set the current context");
            advised("can't use the kubeconfig", cause, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_context_is_named_with_those_that_exist() {
        let contexts = ["a".to_owned(), "b".to_owned()];
        let said = |context, contexts: &[String]| {
            unusable(context, contexts, &KubeconfigError::CurrentContextNotSet).to_string()
        };
        assert!(
            said(Some("c"), &contexts)
                .contains("no context c; choose a context with --context (the kubeconfig has a, b)")
        );
        assert!(said(Some("a"), &contexts).ends_with("; correct its cluster and its user"));
        assert!(said(None, &[]).ends_with("(the kubeconfig has none), or set the current context"));
    }
}
