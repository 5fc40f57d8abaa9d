//! An HTTPS proxy in front of the API server. The proxy terminates TLS, so that a test can break single requests and
//! watches.
//!
//! [`crate::network::TcpProxy`] sees only bytes; the HTTPS proxy sees clients, verbs, resources and watch events.
//! Programs connect to the HTTPS proxy's address with their own tokens. The proxy forwards each request with the
//! client's token.

mod faults;
mod listener;
mod log;
mod request;
mod watches;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub use faults::{Fault, FaultGuard};
use faults::{Faults, lock};
use listener::{Reset, TlsListener};
pub use log::{ObservedRequest, RequestCount};
use request::RequestInfo;
pub use request::{Client, Selector};

use crate::control_plane::ControlPlane;
use crate::network::Namespace;

/// The largest request body that the proxy forwards.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The running proxy. Dropping this value ends the proxy and breaks its connections.
#[derive(Debug)]
pub struct ApiProxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct ProxyState {
    client: kube::Client,
    faults: Arc<Faults>,
}

impl ApiProxy {
    /// Starts a proxy on a free port of this process's loopback.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").context("the API proxy can't listen")?;
        Self::on(control_plane, tcp).await
    }

    /// Starts a proxy at an address of a network namespace. The proxy presents the API server's certificate, so this
    /// certificate must contain the address.
    pub async fn start_in(control_plane: &ControlPlane, namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let tcp = namespace.run(move || std::net::TcpListener::bind(address))?;
        Self::on(control_plane, tcp.with_context(|| format!("the API proxy can't listen at {address}"))?).await
    }

    async fn on(control_plane: &ControlPlane, tcp: std::net::TcpListener) -> Result<Self> {
        let certificates = control_plane.certificates();
        let chain =
            CertificateDer::pem_file_iter(certificates.file("apiserver.crt"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(certificates.file("apiserver.key"))?;
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        tcp.set_nonblocking(true)?;
        let address = tcp.local_addr()?;
        let faults = Arc::new(Faults::default());
        let state = ProxyState { client: control_plane.client_without_token().await?, faults: Arc::clone(&faults) };
        let app = axum::Router::new().fallback(pass).with_state(state);
        let app = app.into_make_service_with_connect_info::<Reset>();
        let listener = TlsListener::on(TcpListener::from_std(tcp)?, TlsAcceptor::from(Arc::new(tls)))?;
        let task = tokio::spawn(async move {
            // The proxy's task serves until it is aborted, so there is no result to check.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, faults, task })
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Causes a fault in the selected requests and open watches, until the guard is dropped.
    #[must_use = "the fault ends when this guard is dropped"]
    pub fn inject(&self, selector: Selector, fault: Fault) -> FaultGuard {
        Faults::inject(&self.faults, selector, fault)
    }

    /// How many requests and watch events the proxy has seen so far. Pass this number to [`Self::observed`] as `since`.
    pub fn mark(&self) -> usize {
        self.faults.mark()
    }

    /// The selected requests and watch events since a mark, in the order of arrival.
    pub fn observed(&self, since: usize, selector: &Selector) -> Vec<ObservedRequest> {
        lock(&self.faults.log).observed(since, selector)
    }

    /// How many requests of each client the proxy has seen since it was started, by verb and resource.
    pub fn counts(&self) -> Vec<RequestCount> {
        lock(&self.faults.log).counts()
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    State(state): State<ProxyState>,
    ConnectInfo(connection): ConnectInfo<Reset>,
    request: Request,
) -> Response {
    match forward(&state, &connection, request).await {
        Ok(response) => response,
        Err(error) => answer(StatusCode::BAD_GATEWAY, &format!("{error:#}")),
    }
}

async fn forward(state: &ProxyState, connection: &Reset, request: Request) -> Result<Response> {
    let faults = &state.faults;
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_REQUEST_BYTES).await?;
    let request = RequestInfo::of(&parts.method, &parts.uri, &parts.headers, faults.next_id());
    lock(&faults.log).add(&request, &String::from_utf8_lossy(&body));
    if let Some((code, retry_after)) = faults.refuses(&request) {
        let mut refusal = answer(StatusCode::from_u16(code)?, "refused by the test");
        if let Some(time) = retry_after {
            refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(time.as_secs()));
        }
        return Ok(refusal);
    }
    faults.held(&request, false).await;
    if faults.resets(&request) {
        return connection.now().await;
    }
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = faults.rewound(&request, path).parse()?;
    for name in [header::HOST, header::CONTENT_LENGTH, header::CONNECTION] {
        parts.headers.remove(name);
    }
    let opened = faults.mark();
    let call = async || {
        let answer = state.client.send(http::Request::from_parts(parts.clone(), body.to_vec().into())).await;
        match answer {
            Ok(answer) => answer,
            // The API server did not answer. Reset the client's connection, because a client without the proxy would also
            // see a broken connection.
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "the API server did not answer the proxy");
                connection.now().await
            }
        }
    };
    if faults.applies_twice(&request) {
        call().await.into_body().collect_bytes().await?;
    }
    let (parts, body) = call().await.into_parts();
    lock(&faults.log).add_answer(&request, parts.status.as_u16());
    if request.verb == "watch" && parts.status.is_success() {
        let body = watches::body(body, request, Arc::clone(faults), opened, connection.clone());
        return Ok(Response::from_parts(parts, body));
    }
    let bytes = body.collect_bytes().await?;
    faults.held(&request, true).await;
    if faults.loses_answer(&request) {
        return connection.now().await;
    }
    let bytes = faults.aged(&request, bytes.to_vec());
    let mut response = Response::from_parts(parts, Body::from(bytes));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(response)
}

/// Builds the answer of an API server that refuses a request. Clients read the code and the reason of this answer.
fn answer(code: StatusCode, why: &str) -> Response {
    let reason = match code {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::INTERNAL_SERVER_ERROR => "InternalError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "",
    };
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": why, "reason": reason, "code": code.as_u16(),
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
