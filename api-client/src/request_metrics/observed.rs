//! Observes the requests of a client and the data of its watches. It is a layer of the client's HTTP stack.

use std::task::{Context, Poll};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::MapFrame;
use kube::client::Body;
use tower::{Layer, Service};

use super::{NO_ANSWER, RequestMetrics};

/// Adds the observation to a client's HTTP stack.
#[derive(Clone)]
pub(crate) struct ObserveRequests(pub(crate) RequestMetrics);

impl<S> Layer<S> for ObserveRequests {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.0.clone() }
    }
}

/// An HTTP stack whose requests are observed.
pub(crate) struct Observed<S> {
    inner: S,
    metrics: RequestMetrics,
}

/// Sees each part of a response body.
type SeeFrame<D> = Box<dyn FnMut(Frame<D>) -> Frame<D> + Send>;

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: HttpBody + Send + 'static,
{
    type Response = Response<MapFrame<B, SeeFrame<B::Data>>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Target { verb, resource } = Target::of(request.method(), request.uri());
        let metrics = self.metrics.clone();
        let pending = PendingRequest { metrics: metrics.clone(), verb, begun: Instant::now(), code: None };
        let answer = self.inner.call(request);
        async move {
            let response = answer.await?;
            pending.answered(response.status().as_u16());
            let watched = (verb == "watch" && response.status().is_success()).then_some(resource);
            let see = move || {
                if let Some(resource) = &watched {
                    metrics.watch_received(resource);
                }
            };
            see();
            Ok(response.map(|body| {
                let see_frame: SeeFrame<B::Data> = Box::new(move |frame| {
                    see();
                    frame
                });
                body.map_frame(see_frame)
            }))
        }
        .boxed()
    }
}

/// A request that is counted when it ends. If the caller abandons the request, it counts as a request without an
/// answer.
struct PendingRequest {
    metrics: RequestMetrics,
    verb: &'static str,
    begun: Instant,
    code: Option<u16>,
}

impl PendingRequest {
    fn answered(mut self, code: u16) {
        self.code = Some(code);
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        let code = self.code.map_or_else(|| NO_ANSWER.to_owned(), |code| code.to_string());
        self.metrics.answered(self.verb, code, self.begun.elapsed());
    }
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    verb: &'static str,
    /// The name of the resource in the URL, for example `pods`.
    resource: String,
}

impl Target {
    fn of(method: &Method, uri: &Uri) -> Self {
        // A path is /api/v1/... or /apis/<group>/<version>/..., and may then contain namespaces/<name>/.
        let mut parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let prefix = if parts.first() == Some(&"apis") { 3 } else { 2 };
        parts.drain(..prefix.min(parts.len()));
        if parts.len() > 2 && parts[0] == "namespaces" {
            parts.drain(..2);
        }
        let is_watch = || uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("watch=")));
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ if is_watch() => "watch",
            _ if parts.len() == 1 => "list",
            _ => "get",
        };
        Self { verb, resource: parts.first().copied().unwrap_or_default().to_owned() }
    }
}

#[cfg(test)]
mod tests;
