//! The HTTP server of `/metrics`, `/healthz` and `/readyz`. Serves loopback or pod network; never writes anything.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::Metrics;

/// How a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it should go on; an error restarts the container and says why.
    pub live: Result<(), String>,
    /// Whether it does its work; an error says what is missing.
    pub ready: Result<(), String>,
}

impl Health {
    /// Lives and works.
    pub fn well() -> Self {
        Self { live: Ok(()), ready: Ok(()) }
    }

    /// Lives, but does not work yet or any more.
    pub fn not_ready(why: impl Into<String>) -> Self {
        Self { live: Ok(()), ready: Err(why.into()) }
    }
}

/// Answers how the program is; must not wait.
pub type Ask = Arc<dyn Fn() -> Health + Send + Sync>;

/// A server that has its port.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Takes the port; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address it listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is over.
    pub async fn run(
        self,
        metrics: Arc<Metrics>,
        health: Ask,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (live, ready) = (Arc::clone(&health), health);
        let routes = Router::new()
            .route("/metrics", get(move || std::future::ready(openmetrics(&metrics))))
            .route("/healthz", get(move || std::future::ready(answer(live().live))))
            .route("/readyz", get(move || std::future::ready(answer(ready().ready))));
        axum::serve(self.listener, routes).with_graceful_shutdown(shutdown).await
    }
}

/// Takes the port of `address` and serves until `shutdown` is over.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    health: Ask,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    Server::bind(address).await?.run(metrics, health, shutdown).await
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
