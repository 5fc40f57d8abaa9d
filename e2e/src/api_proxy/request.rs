//! What the proxy knows about a request: the client, the verb and the object. Selectors compare these properties.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, Uri, header};
use serde_json::Value;

/// The program that sent a request. The token of the request identifies the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// The name of the ServiceAccount, or the whole token if it is a static token.
    pub user: String,
    /// The node of the ServiceAccount's pod; empty if the token names no node.
    pub node: String,
}

impl Client {
    /// Reads the client from a request's bearer token. The API server checks the token; the proxy only reads it.
    fn of(headers: &HeaderMap) -> Self {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let claims = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        let claims: Option<Value> = claims.and_then(|payload| serde_json::from_slice(&payload).ok());
        let Some(claims) = claims else { return Self { user: token.to_owned(), node: String::new() } };
        let claim = |path| claims.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { user: claim("/kubernetes.io/serviceaccount/name"), node: claim("/kubernetes.io/node/name") }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        if self.node.is_empty() { Ok(()) } else { write!(f, " on {}", self.node) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct RequestInfo {
    pub(super) client: Client,
    pub(super) verb: &'static str,
    pub(super) resource: String,
    pub(super) name: String,
    /// The number of the request or event, in the order of arrival.
    pub(super) id: u64,
}

impl RequestInfo {
    /// Parses a request path `/apis/GROUP/VERSION[/namespaces/NAMESPACE]/RESOURCE[/NAME]`.
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap, id: u64) -> RequestInfo {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let skipped = if parts.next() == Some("apis") { 2 } else { 1 };
        let mut rest: Vec<&str> = parts.skip(skipped).collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        let watches =
            uri.query().is_some_and(|query| query.split('&').any(|one| matches!(one, "watch=true" | "watch=1")));
        let verb = match method.as_str() {
            "GET" if watches => "watch",
            "GET" if name.is_empty() => "list",
            "GET" => "get",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "other",
        };
        let resource = rest.first().copied().unwrap_or_default().to_owned();
        RequestInfo { client: Client::of(headers), verb, resource, name, id }
    }

    /// Describes one line of the watch that this request opened.
    pub(super) fn event(&self, name: &str, id: u64) -> RequestInfo {
        RequestInfo { verb: "event", name: name.to_owned(), id, ..self.clone() }
    }
}

/// Selects requests. A field that is not set matches all requests.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    user: Option<String>,
    node: Option<String>,
    verbs: &'static [&'static str],
    resource: Option<&'static str>,
    name: Option<String>,
    except: Option<&'static str>,
    pub(super) once: bool,
    /// If `once` is set, how many matching requests come before the selected one.
    pub(super) skipped: usize,
}

impl Selector {
    /// Selects all requests.
    pub fn any() -> Self {
        Self::default()
    }

    /// Selects requests with one of these verbs. The verb `event` selects lines of watches.
    pub fn verbs(verbs: &'static [&'static str]) -> Self {
        Self { verbs, ..Self::default() }
    }

    /// Selects only requests of this user. `user` is the name of a ServiceAccount, or a static token.
    #[must_use]
    pub fn by(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Selects only requests from the pods of this node.
    #[must_use]
    pub fn from_node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Selects only requests for this resource (plural, lower case).
    #[must_use]
    pub fn of(mut self, resource: &'static str) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Selects only requests for the object with this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Selects only the first matching request.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Excludes all requests for this resource.
    #[must_use]
    pub fn not_of(mut self, resource: &'static str) -> Self {
        self.except = Some(resource);
        self
    }

    /// Selects only one of the matching requests. Number 0 selects the first of them.
    #[must_use]
    pub fn nth(mut self, number: usize) -> Self {
        self.skipped = number;
        self.once()
    }

    pub(super) fn matches(&self, request: &RequestInfo) -> bool {
        self.except.is_none_or(|resource| resource != request.resource)
            && (self.verbs.is_empty() || self.verbs.contains(&request.verb))
            && self.user.as_ref().is_none_or(|user| *user == request.client.user)
            && self.node.as_ref().is_none_or(|node| *node == request.client.node)
            && self.resource.is_none_or(|resource| resource == request.resource)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
    }
}
