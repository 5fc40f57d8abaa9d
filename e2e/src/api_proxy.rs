//! An HTTPS proxy in front of the API server that terminates TLS, so that a test can break single requests and watches.
//!
//! [`crate::network::TcpProxy`] sees only bytes; the HTTPS proxy sees verbs, resources and watch events. Programs reach
//! it through a kubeconfig with the proxy's address. The proxy calls the API server as the user of one token.

mod faults;
mod watches;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use faults::{Fault, FaultGuard, ObservedRequest, Selector};
use faults::{Faults, RequestInfo};

use crate::control_plane::ControlPlane;

/// The largest request body that the proxy forwards.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The running proxy. Dropping it ends the proxy and breaks its connections.
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
    /// Starts a proxy on a free port of this process's loopback. The proxy forwards requests to the API server with
    /// this token.
    pub async fn start(control_plane: &ControlPlane, token: &str) -> Result<Self> {
        let certificates = control_plane.certificates();
        let chain =
            CertificateDer::pem_file_iter(certificates.file("apiserver.crt"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(certificates.file("apiserver.key"))?;
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let tcp = TcpListener::bind("127.0.0.1:0").await.context("the API proxy can't listen")?;
        let address = tcp.local_addr()?;
        let faults = Arc::new(Faults::default());
        let state = ProxyState { client: control_plane.client_for(token).await?, faults: Arc::clone(&faults) };
        let app = axum::Router::new().fallback(pass).with_state(state);
        let listener = TlsListener::on(tcp, TlsAcceptor::from(Arc::new(tls)))?;
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

    /// Causes a fault in the selected requests and in their open watches, until the guard is dropped.
    #[must_use = "the fault ends when this is dropped"]
    pub fn inject(&self, selector: Selector, fault: Fault) -> FaultGuard {
        Faults::inject(&self.faults, selector, fault)
    }

    /// How many requests and watch events the proxy has seen so far. Pass this number to [`Self::observed`] as `since`.
    pub fn mark(&self) -> usize {
        self.faults.mark()
    }

    /// The selected requests and watch events since a mark, in the order of arrival.
    pub fn observed(&self, since: usize, selector: &Selector) -> Vec<ObservedRequest> {
        self.faults.observed(since, selector)
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A listener that accepts TCP connections and returns them after their TLS handshake.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Starts the listener. Each TLS handshake runs in a separate task, so that a hanging handshake delays no other.
    fn on(tcp: TcpListener, tls: TlsAcceptor) -> Result<Self> {
        let (sender, ready) = mpsc::channel(1);
        let address = tcp.local_addr()?;
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = tcp.accept() => accepted,
                    () = sender.closed() => return,
                };
                let Ok((stream, from)) = accepted else { continue };
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                        // Sending a connection fails only when the proxy has ended.
                        let _ = sender.send((stream, from)).await;
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn pass(State(state): State<ProxyState>, request: Request) -> Response {
    match forward(&state, request).await {
        Ok(response) => response,
        Err(error) => answer(StatusCode::BAD_GATEWAY, &format!("{error:#}")),
    }
}

async fn forward(state: &ProxyState, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_REQUEST_BYTES).await?;
    let mut request = RequestInfo::of(&parts.method, &parts.uri);
    request.id = state.faults.note(&request, &String::from_utf8_lossy(&body));
    if let Some(code) = state.faults.refuses(&request) {
        return Ok(answer(StatusCode::from_u16(code)?, "refused by the test"));
    }
    state.faults.held(&request, false).await;
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = state.faults.rewound(&request, path).parse()?;
    for name in [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH, header::CONNECTION] {
        parts.headers.remove(name);
    }
    let opened = state.faults.mark();
    let response = state.client.send(http::Request::from_parts(parts, body.into())).await?;
    let (parts, body) = response.into_parts();
    if request.verb == "watch" && parts.status.is_success() {
        return Ok(Response::from_parts(parts, watches::body(body, request, Arc::clone(&state.faults), opened)));
    }
    let bytes = body.collect_bytes().await?;
    state.faults.held(&request, true).await;
    let bytes = state.faults.aged(&request, bytes.to_vec());
    let mut response = Response::from_parts(parts, Body::from(bytes));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(response)
}

fn answer(code: StatusCode, why: &str) -> Response {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": why, "reason": "", "code": code.as_u16(),
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
