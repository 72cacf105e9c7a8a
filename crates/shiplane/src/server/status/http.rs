//! A small HTTP server for reading: bounded in connections, bytes and time, and closed to other web pages.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::uri::Authority,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use shiplane_wire::DigestAlgorithm;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// What a path gives.
pub(super) enum Answer {
    Page(Page),
    Figures(String),
    Json(Vec<u8>),
    Well(&'static str),
    Unavailable(&'static str),
}

/// The page, and the policy under which a browser shows it: nothing but its own style and script.
#[derive(Debug, Clone)]
pub(super) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

/// The names that it answers to.
pub(super) struct Allowed(Vec<String>);

impl Page {
    pub(super) fn new() -> Self {
        let (style, script) = (include_str!("page.css"), include_str!("page.js"));
        let html = include_str!("page.html").replace(STYLE_MARK, style).replace(SCRIPT_MARK, script);
        let source = |text: &str| {
            format!("'sha256-{}'", BASE64.encode(DigestAlgorithm::Sha256.digest(text.as_bytes()).as_bytes()))
        };
        let policy = format!(
            "{CLOSED_POLICY}; connect-src 'self'; style-src {}; script-src {}",
            source(style),
            source(script)
        );
        // Digits and ASCII punctuation.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static(CLOSED_POLICY));
        Self { html: html.into(), policy }
    }
}

impl Allowed {
    /// These, in addition to those that are always allowed.
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Whether a request that came in at `local` may name this host. A name that any site could make point to this address is
    /// refused: a browser would treat the answer as that site's own.
    fn permits(&self, host: &str, local: IpAddr) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host();
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return ip.is_loopback() || ip.to_canonical() == local.to_canonical();
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// Answers what comes, until the listener fails for good.
pub(super) async fn serve<F>(listener: StdTcpListener, allowed: Allowed, site: F) -> io::Error
where
    F: Fn(&str) -> Option<Answer> + Send + Sync + 'static,
{
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let site = Arc::new((allowed, site));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // More wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return io::ErrorKind::Other.into() };
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = Arc::clone(&site);
                tokio::spawn(async move {
                    let (allowed, site) = &*site;
                    connection(stream, allowed, site).await;
                    drop(place);
                });
            }
            Err(error) => {
                // As when too many files are open.
                tracing::debug!(%error, "no connection to the status page");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request and its answer.
async fn connection(
    stream: TcpStream,
    allowed: &Allowed,
    site: &(impl Fn(&str) -> Option<Answer> + Send + Sync),
) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, local.ip(), allowed, site);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        // Simple programs end their half of the connection with the request.
        .half_close(true)
        .max_buf_size(MAX_REQUEST_BYTES)
        .max_headers(MAX_HEADERS)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT);
    let answered = http.serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, answered).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request for the status page failed"),
        Err(_) => tracing::debug!("a reader of the status page is too slow"),
    }
}

fn respond<B>(
    request: &Request<B>,
    local: IpAddr,
    allowed: &Allowed,
    site: &impl Fn(&str) -> Option<Answer>,
) -> Response<Full<Bytes>> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let named = request.uri().authority().map(Authority::as_str);
    let permits = |host: &str| allowed.permits(host, local);
    if hosts.next().is_some() || !host.is_some_and(permits) || !named.is_none_or(permits) {
        return text(StatusCode::FORBIDDEN, "this host name is not allowed: see --metrics-host\n");
    }
    let Some(answer) = site(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "there is /, /metrics and /healthz\n");
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match answer {
        Answer::Page(page) => {
            let mut response = response(StatusCode::OK, "text/html; charset=utf-8", page.html);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page.policy);
            response
        }
        Answer::Figures(figures) => {
            response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", figures.into())
        }
        Answer::Json(json) => response(StatusCode::OK, "application/json", json.into()),
        Answer::Well(words) => text(StatusCode::OK, words),
        Answer::Unavailable(words) => text(StatusCode::SERVICE_UNAVAILABLE, words),
    }
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", Bytes::from_static(words.as_bytes()))
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Of every answer; the page has a wider policy.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, CLOSED_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const CLOSED_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where `page.html` has its style and its script.
const STYLE_MARK: &str = "/* page.css */";
const SCRIPT_MARK: &str = "/* page.js */";

/// 32 connections: a page opens one a second, a scraper one in fifteen.
const MAX_CONNECTIONS: usize = 32;

/// 8 KiB of request line and headers, what hyper needs at least. Browsers send less than 2 KiB.
const MAX_REQUEST_BYTES: usize = 8 << 10;

/// 64 headers.
const MAX_HEADERS: usize = 64;

/// 5 s from the connection to the end of the request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// 10 s from the connection to the end of the answer, which is at most some 200 KiB.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// 100 ms: until others have closed some files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_lead_nowhere_else_are_allowed() {
        let allowed = Allowed::new(vec!["Files.example".to_owned()]);
        let local: IpAddr = "192.0.2.7".parse().unwrap();
        for host in [
            "localhost",
            "LOCALHOST:9514",
            "localhost.",
            "127.0.0.1:9514",
            "127.8.8.8",
            "[::1]:9514",
            "192.0.2.7:9514",
            "files.example:80",
        ] {
            assert!(allowed.permits(host, local), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.8",
            "[2001:db8::1]",
            "files.example@evil.example",
            "evil.example@localhost",
            "files.example.evil.example",
            "a b",
        ] {
            assert!(!allowed.permits(host, local), "{host}");
        }
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert!(allowed.permits("192.0.2.7", mapped));
    }

    #[test]
    fn the_page_has_no_external_part_and_its_policy_names_its_own() {
        let page = Page::new();
        let html = std::str::from_utf8(&page.html).unwrap();
        assert!(!html.contains(STYLE_MARK) && !html.contains(SCRIPT_MARK));
        for external in ["http://", "https://", "//cdn", "src=", "@import", "url(", "innerHTML", "style="] {
            assert!(!html.contains(external), "{external}");
        }
        let policy = page.policy.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
    }
}
