//! What the fuzz target of upgrade requests checks: the layer answers each, and 101 only to an upgrade.

use std::{convert::Infallible, str, sync::LazyLock};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{ext::Protocol, rt::Executor};
use revdial::{
    connman::ConnectionManager,
    server::{LinkTask, RevDialLayer, RevDialService, SharedBearer},
};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};

/// What the service behind the layer answers.
const BEHIND: StatusCode = StatusCode::IM_A_TEAPOT;

/// Lines of a head, as far as they are any, given to the layer as a request: it answers, and 101 only to an upgrade.
pub(crate) fn run(bytes: &[u8]) {
    let request = request(bytes);
    let (head, ()) = request.into_parts();
    let response = RUNTIME.block_on(answer(Request::from_parts(head.clone(), ())));
    let values = |name: &str| head.headers.get_all(name).iter().collect::<Vec<_>>();
    let names = |name: HeaderName, token: &[u8]| {
        let values = head.headers.get_all(name);
        values.iter().any(|value| value.as_bytes().windows(token.len()).any(|part| part.eq_ignore_ascii_case(token)))
    };
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            assert_eq!((&head.method, head.version), (&Method::GET, Version::HTTP_11));
            assert!(names(header::UPGRADE, b"websocket") && names(header::CONNECTION, b"upgrade"), "no upgrade");
            let keys = values("sec-websocket-key");
            assert!(keys.len() == 1 && keys[0].len() == 24, "{keys:?}");
            assert_eq!(values("sec-websocket-version"), ["13"]);
            assert!(values("origin").is_empty());
            assert!(names(header::AUTHORIZATION, b"secret"));
            let accept = response.headers().get_all("sec-websocket-accept").iter().collect::<Vec<_>>();
            assert!(accept.len() == 1 && accept[0].len() == 28, "{accept:?}");
        }
        StatusCode::OK => {
            assert_eq!(head.method, Method::CONNECT);
            assert!(head.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket"));
            assert_eq!(values("sec-websocket-version"), ["13"]);
            assert!(names(header::AUTHORIZATION, b"secret"));
        }
        BEHIND => assert_ne!(head.uri.path(), "/api/v1/revdial"),
        status => assert!(status.is_client_error(), "{status}"),
    }
    assert!(response.status() == BEHIND || head.uri.path() == "/api/v1/revdial");
}

async fn answer(request: Request<()>) -> Response<()> {
    SERVICE.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
}

type Behind = fn(Request<()>) -> std::future::Ready<Result<Response<()>, Infallible>>;
type Service = RevDialService<tower::util::ServiceFn<Behind>, SharedBearer>;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let bearer = SharedBearer::new("secret").expect("a secret");
    let behind: Behind = |_| {
        let mut response = Response::new(());
        *response.status_mut() = BEHIND;
        std::future::ready(Ok(response))
    };
    RevDialLayer::new(ConnectionManager::new(), bearer).executor(Nowhere).layer(tower::service_fn(behind))
});

/// Runs no tunnel: there is no connection below the request.
struct Nowhere;

impl Executor<LinkTask> for Nowhere {
    fn execute(&self, _: LinkTask) {}
}

/// `METHOD URI VERSION`, then `name: value` in lines; what cannot be is left out or stays as in a plain `GET`. A line
/// `:protocol: name` makes an extended `CONNECT`, as HTTP/2 has them.
fn request(bytes: &[u8]) -> Request<()> {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut request = Request::new(());
    let mut first = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
    if let Some(Ok(method)) = first.next().map(Method::from_bytes) {
        *request.method_mut() = method;
    }
    if let Some(Ok(uri)) = first.next().map(TryFrom::try_from) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = match first.next() {
        Some(b"HTTP/1.0") => Version::HTTP_10,
        Some(b"HTTP/2.0") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    for line in lines {
        if let Some(protocol) = line.strip_prefix(b":protocol: ").and_then(|name| str::from_utf8(name).ok()) {
            request.extensions_mut().insert(match protocol {
                "websocket" => Protocol::from_static("websocket"),
                _ => Protocol::from_static("other"),
            });
            continue;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    request
}
