//! The HTTP server for `/metrics`, `/healthz`, `/readyz` and a program's own documents. A request changes nothing in the program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use connection::AgingListener;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::{Metrics, Watchdog};

mod connection;

/// The pause after the first failed attempt to bind the port. Each further failure doubles the pause, up to
/// [`MAX_RETRY_INTERVAL`].
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to bind the port.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the server answers further requests with the same text of a JSON document.
pub const DOCUMENT_LIFETIME: Duration = Duration::from_secs(1);

/// The health of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether all loops of the program make progress. An error names the loops that hang. After such an error, the
    /// kubelet restarts the container.
    pub live: Result<(), String>,
    /// Whether the program is ready to do its work. An error says what is missing.
    pub ready: Result<(), String>,
}

impl Health {
    /// Returns a health with the given readiness. The program is live as long as the watchdog finds no hanging loop.
    pub fn of(watchdog: &Watchdog, ready: Result<(), String>) -> Self {
        Self { live: watchdog.live(), ready }
    }
}

/// A function that returns the program's health at each request. The function must not block.
pub type HealthCheck = Arc<dyn Fn() -> Health + Send + Sync>;

/// The program can't bind the address for metrics and health.
#[derive(Debug, thiserror::Error)]
#[error(
    "can't serve metrics and health at {address}: {source}. Bobbin keeps running and tries again. Free the port (`ss -ltnp` shows which program uses it), or set another address with --metrics-address"
)]
pub struct PortError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The HTTP server of a program. Clones are cheap, so a program can listen at several addresses.
#[derive(Clone)]
pub struct Server(Router);

impl Server {
    /// Creates a server for the given metrics and the given health check.
    pub fn new(metrics: Arc<Metrics>, health: HealthCheck) -> Self {
        let (live, ready) = (Arc::clone(&health), health);
        let routes = Router::new()
            .route("/metrics", get(move || std::future::ready(openmetrics(&metrics))))
            .route("/healthz", get(move || std::future::ready(answer(live().live))))
            .route("/readyz", get(move || std::future::ready(answer(ready().ready))));
        Self(routes)
    }

    /// Also serves a JSON document at a path. `document` returns its text and must not block. Requests within
    /// [`DOCUMENT_LIFETIME`] share one text, so many requests cost little time and memory.
    #[must_use]
    pub fn with_json(self, path: &str, document: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        let last: Arc<Mutex<Option<(Instant, Bytes)>>> = Arc::default();
        let answer = move || {
            let text = {
                let mut last = last.lock();
                match last.as_ref().filter(|(made, _)| made.elapsed() < DOCUMENT_LIFETIME) {
                    Some((_, text)) => text.clone(),
                    None => last.insert((Instant::now(), document().into())).1.clone(),
                }
            };
            std::future::ready(([(header::CONTENT_TYPE, "application/json")], text).into_response())
        };
        Self(self.0.route(path, get(answer)))
    }

    /// Answers requests on a listener until `shutdown` completes.
    pub async fn serve<L>(self, listener: L, shutdown: impl Future<Output = ()> + Send + 'static)
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        // `axum::serve` never returns an error, because axum itself handles the errors of the listener.
        let _ = axum::serve(AgingListener(listener), self.0).with_graceful_shutdown(shutdown).await;
    }

    /// Answers requests at an address until `shutdown` completes. If the first attempt to bind the address fails, calls
    /// `failed` once and keeps trying.
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
    let mut reported = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if reported {
                    tracing::info!(%address, "the program now serves metrics and health");
                }
                return listener;
            }
            Err(source) if !reported => {
                let error = PortError { address, source };
                tracing::error!("{error}");
                failed(&error);
                reported = true;
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
