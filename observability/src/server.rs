//! The HTTP server of `/metrics`, `/healthz` and `/readyz`. Never writes anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;

use crate::{Metrics, Progress};

/// The first pause after a port could not be had; it doubles up to [`MAX_RETRY_INTERVAL`].
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it makes progress; an error restarts the container and names the loop that hangs.
    pub live: Result<(), String>,
    /// Whether it does its work; an error says what is missing.
    pub ready: Result<(), String>,
}

impl Health {
    /// Lives as long as its loops make progress.
    pub fn of(progress: &Progress, ready: Result<(), String>) -> Self {
        Self { live: progress.live(), ready }
    }
}

/// Answers how the program is; must not wait.
pub type Ask = Arc<dyn Fn() -> Health + Send + Sync>;

/// The address of metrics and health is not to be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics and health can't be served at {address}: {source}; all else goes on, and the address is tried again; free it, or name another one with --metrics-address"
)]
pub struct PortError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What is served. Cheap to clone: a program may serve it in more than one place.
#[derive(Clone)]
pub struct Server(Router);

impl Server {
    /// Serves these metrics, and what `health` answers.
    pub fn new(metrics: Arc<Metrics>, health: Ask) -> Self {
        let (live, ready) = (Arc::clone(&health), health);
        let routes = Router::new()
            .route("/metrics", get(move || std::future::ready(openmetrics(&metrics))))
            .route("/healthz", get(move || std::future::ready(answer(live().live))))
            .route("/readyz", get(move || std::future::ready(answer(ready().ready))));
        Self(routes)
    }

    /// Serves on a listener until `shutdown` is over.
    pub async fn serve<L>(self, listener: L, shutdown: impl Future<Output = ()> + Send + 'static)
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        // Never an error: axum handles those of the listener by itself.
        let _ = axum::serve(listener, self.0).with_graceful_shutdown(shutdown).await;
    }

    /// Serves at an address until `shutdown` is over. An address that is not to be had is tried again; `failed` is told once.
    pub async fn serve_at(
        self,
        address: SocketAddr,
        failed: impl Fn(&PortError),
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut shutdown = Box::pin(shutdown);
        let bound = tokio::select! {
            () = &mut shutdown => return,
            listener = bind(address, failed) => listener,
        };
        self.serve(bound, shutdown).await;
    }
}

async fn bind(address: SocketAddr, failed: impl Fn(&PortError)) -> TcpListener {
    let mut pause = RETRY_INTERVAL;
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if told {
                    tracing::info!(%address, "metrics and health are served now");
                }
                return listener;
            }
            Err(source) if !told => {
                let error = PortError { address, source };
                tracing::error!("{error}");
                failed(&error);
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY_INTERVAL);
    }
}

fn openmetrics(metrics: &Metrics) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text()).into_response()
}

fn answer(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
