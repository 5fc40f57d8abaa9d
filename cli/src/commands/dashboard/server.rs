//! The HTTP server of the dashboard. It answers only GET, and only if the request has the
//! URL that the command printed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustls::crypto::ring;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::snapshot::Source;
use crate::print::failure;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The header Content-Security-Policy: the browser may load only the dashboard's own style, script and data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The minimum pause between two reads of the data, so that several open pages cost no more calls than one.
const MIN_AGE: Duration = Duration::from_secs(2);
/// The pause after a read lasts at least this many times as long as the read. So a large cluster is not read all the time.
const REST_PER_READ: u32 = 4;

/// Where the dashboard is. Its URL has a random part, so that only programs that know the URL can read the data.
#[derive(Debug)]
pub(super) struct Place {
    address: SocketAddr,
    secret: String,
}

impl Place {
    /// A place at the address with a new random part of 128 bits.
    pub(super) fn new(address: SocketAddr) -> Result<Self> {
        let mut random = [0u8; 16];
        let filled = ring::default_provider().secure_random.fill(&mut random);
        filled.map_err(|_| anyhow!("can't read random bytes for the URL; check that /dev/urandom can be read"))?;
        Ok(Self { address, secret: format!("{:032x}", u128::from_ne_bytes(random)) })
    }

    /// The URL of the page.
    pub(super) fn url(&self) -> String {
        format!("http://{}/{}/", self.address, self.secret)
    }
}

/// Shared data of all requests.
struct Dashboard {
    source: Source,
    place: Place,
    /// The data of the last read. While one request reads new data, the other requests wait.
    last: Mutex<Option<Data>>,
}

/// The answer to a request for data, and until when it is current.
struct Data {
    current_until: Instant,
    answer: Result<String, String>,
}

/// Answers requests until the listener fails.
pub(super) async fn serve(listener: TcpListener, place: Place, source: Source) -> Result<()> {
    let dashboard = Arc::new(Dashboard { source, place, last: Mutex::default() });
    axum::serve(listener, Router::new().fallback(answer).with_state(dashboard)).await.map_err(Into::into)
}

async fn answer(State(dashboard): State<Arc<Dashboard>>, request: Request) -> Response {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let asked = decide(request.method(), request.uri().path(), request.headers(), &dashboard.place);
    let (status, kind, body) = match asked {
        Asked::Page => (StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned()),
        Asked::Style => (StatusCode::OK, "text/css; charset=utf-8", STYLE.to_owned()),
        Asked::Script => (StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT.to_owned()),
        Asked::Data => match dashboard.data().await {
            Ok(json) => (StatusCode::OK, "application/json", json),
            Err(why) => (StatusCode::BAD_GATEWAY, PLAIN, why),
        },
        Asked::Refused(status, why) => (status, PLAIN, format!("{why}\n")),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = (status, headers, body).into_response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Page,
    Style,
    Script,
    Data,
    Refused(StatusCode, &'static str),
}

/// Decides what a request gets. Refuses a header Host that is not the dashboard's own address. This stops DNS rebinding, in which
/// another site makes its own name resolve to a loopback address.
fn decide(method: &Method, path: &str, headers: &HeaderMap, place: &Place) -> Asked {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next());
    let (ip, local) = (place.address.to_string(), format!("localhost:{}", place.address.port()));
    // Browsers leave out port 80.
    let is_own = |host: &str| [&ip, &local].into_iter().any(|own| host == own || own.strip_suffix(":80") == Some(host));
    if more.is_some() || !host.is_some_and(is_own) {
        return Asked::Refused(StatusCode::FORBIDDEN, "the header Host must be the address that the dashboard printed");
    }
    let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(&place.secret));
    let found = match below {
        Some("/") => Asked::Page,
        Some("/page.css") => Asked::Style,
        Some("/page.js") => Asked::Script,
        Some("/data.json") => Asked::Data,
        _ => return Asked::Refused(StatusCode::NOT_FOUND, "nothing is here; open the URL that the dashboard printed"),
    };
    if method == Method::GET {
        found
    } else {
        Asked::Refused(StatusCode::METHOD_NOT_ALLOWED, "the dashboard is read-only, so it answers only GET")
    }
}

impl Dashboard {
    /// The data as JSON, or why it can't be read.
    async fn data(&self) -> Result<String, String> {
        let mut last = self.last.lock().await;
        if let Some(data) = &*last
            && Instant::now() < data.current_until
        {
            return data.answer.clone();
        }
        let began = Instant::now();
        let read =
            self.source.read().await.and_then(|data| serde_json::to_string(&data).context("can't encode the data"));
        let answer = read.map_err(|error| failure::sentence(&error, Some(&self.source.server)));
        let pause = MIN_AGE.max(began.elapsed() * REST_PER_READ);
        *last = Some(Data { current_until: Instant::now() + pause, answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "127.0.0.1:8080";

    fn asked(method: &Method, path: &str, hosts: &[&str]) -> Asked {
        asked_at(OWN, method, path, hosts)
    }

    fn asked_at(address: &str, method: &Method, path: &str, hosts: &[&str]) -> Asked {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).expect("a header"));
        }
        let place = Place { address: address.parse().expect("an address"), secret: "secret".to_owned() };
        decide(method, path, &headers, &place)
    }

    fn status(asked: Asked) -> u16 {
        match asked {
            Asked::Refused(status, _) => status.as_u16(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_get_with_the_own_host_is_answered() {
        assert_eq!(asked(&Method::GET, "/secret/", &[OWN]), Asked::Page);
        assert_eq!(asked(&Method::GET, "/secret/page.css", &[OWN]), Asked::Style);
        assert_eq!(asked(&Method::GET, "/secret/page.js", &[OWN]), Asked::Script);
        assert_eq!(asked(&Method::GET, "/secret/data.json", &["localhost:8080"]), Asked::Data);
        assert_eq!(asked_at("[::1]:80", &Method::GET, "/secret/", &["[::1]"]), Asked::Page);
        for hosts in [&["evil.example:8080"][..], &["127.0.0.1:9"], &["127.0.0.1"], &[], &[OWN, "evil.example"]] {
            assert_eq!(status(asked(&Method::GET, "/secret/data.json", hosts)), 403, "{hosts:?}");
        }
        for method in [Method::POST, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
            assert_eq!(status(asked(&method, "/secret/", &[OWN])), 405, "{method}");
        }
    }

    #[test]
    fn only_the_printed_url_leads_to_the_page() {
        for path in ["/", "/data.json", "/page.js", "/secret", "/secret/other", "//", "/secre/", "/secrets/", "/other/"]
        {
            assert_eq!(status(asked(&Method::GET, path, &[OWN])), 404, "{path}");
        }
        let place = |address: &str| Place::new(address.parse().expect("an address")).expect("random bytes");
        assert_ne!(place(OWN).url(), place(OWN).url());
        assert!(place("[::1]:80").url().starts_with("http://[::1]:80/"));
    }

    #[test]
    fn the_page_has_no_part_that_its_policy_forbids() {
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
        {
            let allowed = SCRIPT.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !allowed.contains(forbidden) && !PAGE.contains(forbidden) && !STYLE.contains(forbidden),
                "{forbidden}"
            );
        }
        assert!(!PAGE.contains("style=") && !PAGE.contains("<style") && !PAGE.contains("onclick="));
    }
}
