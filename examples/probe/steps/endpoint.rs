//! The gateway's endpoint: who answers, whether an upgrade gets through, whether the token is good.

use http::{HeaderValue, StatusCode, header};
use revdial::AgentKey;

use crate::{
    ask::{Answer, Ask, Conversation},
    fault::{Failure, Fault},
    gateway::Gateway,
    report::{Outcome, Passed},
    socket,
    way::BoxedIo,
    words::took,
};

/// Headers that middleboxes leave in answers. A gateway of this crate sends none of them.
const TRACES: [&str; 14] = [
    "via",
    "server",
    "x-cache",
    "x-served-by",
    "x-varnish",
    "cf-ray",
    "x-amz-cf-id",
    "x-amzn-requestid",
    "x-amzn-trace-id",
    "x-azure-ref",
    "x-envoy-upstream-service-time",
    "fly-request-id",
    "x-cloud-trace-context",
    "x-proxy-cache",
];

/// Whether the gateway asks agents for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials {
    Wanted,
    Unwanted,
}

/// Asks without an upgrade: who answers, and what stands between.
pub(crate) async fn plain(gateway: &Gateway, io: BoxedIo) -> Outcome<Answer> {
    let server = &gateway.way.server;
    let request = gateway.get(&server.endpoint(None))?;
    let asked = async { Conversation::over(io, gateway.way.patience).await?.ask(request).await }.await;
    let answer = asked.map_err(|why| {
        let cause = if server.is_tls {
            "the port does not speak HTTP"
        } else {
            "the port does not speak HTTP, or only https://"
        };
        why.blamed(Fault::Upgrade, cause, &format!("curl -v {server}{}", server.endpoint(None)))
    })?;
    let traces: Vec<_> = TRACES
        .into_iter()
        .filter(|name| answer.headers.contains_key(*name))
        .map(|name| format!("{name}: {}", answer.header(name)))
        .collect();
    let shows = if traces.is_empty() { "no middlebox shows itself".to_owned() } else { traces.join(", ") };
    let what = format!("{:?} {} ({}); {shows}", answer.version, answer.status.as_u16(), took(answer.took));
    Ok(Passed::ok(what, answer))
}

/// Whether there is a gateway, and upgrades get through to it.
pub(crate) async fn upgrade(gateway: &Gateway, key: Option<&AgentKey>, plain: &Answer) -> Outcome<Credentials> {
    if let Some(failure) = no_gateway(gateway, plain) {
        return Err(failure);
    }
    let request = ungrantable(gateway, key)?;
    let answer = gateway.ask(request).await.map_err(|why| {
        let cause = "a middlebox cuts connections that want to be upgraded";
        why.blamed(Fault::Upgrade, cause, "the middlebox's log, and its rules for WebSockets")
    })?;
    match answer.status {
        StatusCode::UPGRADE_REQUIRED if is_judged(&answer) => {
            Ok(Passed::ok("gets through; credentials are not asked for", Credentials::Unwanted))
        }
        StatusCode::UPGRADE_REQUIRED => Err(stripped()),
        StatusCode::SERVICE_UNAVAILABLE => Err(overloaded(&answer)),
        status if status.is_client_error() => {
            let what = format!("gets through; without credentials it is answered {}", status.as_u16());
            Ok(Passed::ok(what, Credentials::Wanted))
        }
        status => {
            let what = format!("an upgrade that nobody can grant is answered {status}");
            let cause = "a middlebox answers in the gateway's place, or breaks upgrades";
            Err(Failure::new(Fault::Upgrade, what, cause, "the middlebox's log, and its rules for WebSockets"))
        }
    }
}

/// Whether the token is good, and for the key if there is one.
pub(crate) async fn auth(gateway: &Gateway, key: Option<&AgentKey>, credentials: Credentials) -> Outcome<()> {
    let Some(token) = &gateway.token else {
        return Ok(Passed::skip("no RUNNER_TOKEN here to try", ()));
    };
    if credentials == Credentials::Unwanted {
        return Ok(Passed::ok("nobody is asked for a token", ()));
    }
    let mut request = ungrantable(gateway, key)?;
    request.headers_mut().insert(header::AUTHORIZATION, token.value.clone());
    let next = "curl -v with the same token; the gateway's log";
    let answer = gateway.ask(request).await;
    let answer = answer.map_err(|why| why.blamed(Fault::Upgrade, "whatever checks tokens hangs", next))?;
    let failure = |what: &str, cause: &str, next: &str| Failure::new(Fault::Auth, what, cause, next);
    match (answer.status, key) {
        (StatusCode::UPGRADE_REQUIRED, Some(key)) => Ok(Passed::ok(format!("the token is good for {key}"), ())),
        (StatusCode::UPGRADE_REQUIRED, None) => Ok(Passed::ok("the token is good", ())),
        (StatusCode::BAD_REQUEST, None) => Ok(Passed::ok("the token is not refused; for a key: --key", ())),
        (StatusCode::UNAUTHORIZED, _) => Err(failure(
            "401: the gateway does not accept this token",
            "RUNNER_TOKEN is wrong here: not the gateway's, another key's, expired, or with a space or newline too much",
            "compare, on both machines: printf %s \"$RUNNER_TOKEN\" | sha256sum ; then restart the sandbox with the right one",
        )),
        (StatusCode::FORBIDDEN, _) => Err(failure(
            "403: this token may not take this key",
            "RUNNER_TOKEN belongs to another key, or the key to somebody else",
            "the same with the sandbox's own key and token",
        )),
        (StatusCode::TOO_MANY_REQUESTS, _) => Err(failure(
            "429: too many failed log-ins from here",
            "a sandbox keeps trying with a wrong RUNNER_TOKEN, perhaps this one",
            &format!("the same again in {} s ; the agents' logs", answer.header(header::RETRY_AFTER)),
        )),
        (StatusCode::SERVICE_UNAVAILABLE, _) => Err(overloaded(&answer)),
        (status, _) => Err(failure(
            &format!("{} with a token", status.as_u16()),
            "the gateway takes the key for none, or its own check of tokens fails",
            "the gateway's log",
        )),
    }
}

/// An upgrade of a WebSocket version that there is not. Servers judge versions behind credentials, and before they
/// register anybody: the answer tells of all that comes first, and no agent is replaced, even where a middlebox takes
/// headers out. (A strange subprotocol would do only if it arrived.)
fn ungrantable(gateway: &Gateway, key: Option<&AgentKey>) -> Result<Ask, Failure> {
    let mut request = gateway.get(&gateway.way.server.endpoint(key))?;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_KEY, socket::key()?);
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("0"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("revdial.probe"));
    Ok(request)
}

/// Whether it was the version that was refused, and so all before it was good.
fn is_judged(answer: &Answer) -> bool {
    answer.headers.contains_key(header::SEC_WEBSOCKET_VERSION)
}

/// What answered, if it was no gateway.
fn no_gateway(gateway: &Gateway, answer: &Answer) -> Option<Failure> {
    let status = answer.status;
    let is_html = answer.header(header::CONTENT_TYPE).starts_with("text/html");
    let cause = match status {
        StatusCode::UPGRADE_REQUIRED => return None,
        status if status.is_redirection() => "it sends elsewhere: http instead of https, or a portal asks for a log-in",
        StatusCode::NOT_FOUND if is_html => "another web server answers there, or the URL's path is wrong",
        StatusCode::NOT_FOUND => "the URL's path is wrong, or the server has no tunnels' endpoint",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "something in front of the gateway asks for a log-in of its own"
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            "a proxy answers, and the gateway behind it does not"
        }
        status if status.is_success() => "a web page answers there: another server, or a portal in between",
        _ => "it is no gateway, or a middlebox answers in its place",
    };
    let server = &gateway.way.server;
    let location =
        if status.is_redirection() { format!(" to {}", answer.header(header::LOCATION)) } else { String::new() };
    let what = format!("no gateway answers at {server}: {status}{location}, where 426 belongs");
    let next = format!("curl -v {}", server.url(&server.endpoint(None)));
    Some(Failure::new(Fault::Upgrade, what, cause, next))
}

fn stripped() -> Failure {
    Failure::new(
        Fault::Upgrade,
        "the upgrade does not get through: the gateway answers as if none were asked for",
        "a proxy in between takes the headers Connection and Upgrade out, or speaks HTTP/1.0",
        "in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
    )
}

fn overloaded(answer: &Answer) -> Failure {
    let what = format!("{}, Retry-After: {}", answer.status, answer.header(header::RETRY_AFTER));
    let cause = "there is no room for more tunnels or upgrades, or whatever checks tokens does not answer";
    Failure::new(Fault::Upgrade, what, cause, "the same again later; the gateway's log")
}
