//! The gateway: requests to it as a caller, and what its answers mean.

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use revdial::{AgentKey, ErrorKind, TargetName};

use crate::{
    ask::{Answer, Ask, Conversation, NoAnswer},
    fault::{Failure, Fault},
    way::Way,
    words::shown,
};

/// Every kind that a gateway answers a caller with.
const KINDS: [ErrorKind; 16] = [
    ErrorKind::NoConnection,
    ErrorKind::ReconnectTimeout,
    ErrorKind::TooManyPendingDials,
    ErrorKind::DialTimeout,
    ErrorKind::TargetUnknown,
    ErrorKind::TargetDenied,
    ErrorKind::TargetRefused,
    ErrorKind::TargetTimeout,
    ErrorKind::SessionLost,
    ErrorKind::Replaced,
    ErrorKind::Protocol,
    ErrorKind::Overloaded,
    ErrorKind::Shutdown,
    ErrorKind::PeerReset,
    ErrorKind::InvalidInput,
    ErrorKind::Internal,
];

/// A gateway, the way to it, and what is shown to it.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) way: Way,
    /// What agents show.
    pub(crate) token: Option<Bearer>,
    /// What callers show.
    pub(crate) caller_token: Option<Bearer>,
}

/// A token and the header's value that shows it. `Debug` is left out for the token's sake.
#[derive(Clone)]
pub(crate) struct Bearer {
    pub(crate) token: String,
    pub(crate) value: HeaderValue,
}

impl Bearer {
    pub(crate) fn new(token: String) -> Result<Self, &'static str> {
        if token.is_empty() {
            return Err("it is empty");
        }
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| "it has a character that no header can have, such as a newline")?;
        value.set_sensitive(true);
        Ok(Self { token, value })
    }
}

impl Gateway {
    /// A GET with nobody's token.
    pub(crate) fn get(&self, path: &str) -> Result<Ask, Failure> {
        let request = Request::get(path)
            .header(header::HOST, self.way.server.authority())
            .header(header::USER_AGENT, concat!("revdial-probe/", env!("CARGO_PKG_VERSION")));
        request.body(Empty::new()).map_err(|error| {
            Failure::new(Fault::Probe, format!("{path}: {error}"), "it cannot be asked for", "another --path")
        })
    }

    /// A GET of a caller's.
    pub(crate) fn call(&self, path: &str) -> Result<Ask, Failure> {
        let mut request = self.get(path)?;
        if let Some(caller) = &self.caller_token {
            request.headers_mut().insert(header::AUTHORIZATION, caller.value.clone());
        }
        Ok(request)
    }

    /// A connection to ask on.
    pub(crate) async fn converse(&self) -> Result<Conversation, NoAnswer> {
        Conversation::over(self.way.open().await?, self.way.patience).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: Ask) -> Result<Answer, NoAnswer> {
        self.converse().await?.ask(request).await
    }

    /// A command of the probe's about this gateway.
    pub(crate) fn command(&self, words: &str) -> String {
        format!("probe {words} --server {}", self.way.server)
    }
}

/// The kind that the gateway's own answer carries; `None` for a service's, and for those of anything between.
pub(crate) fn kind_of(answer: &Answer) -> Option<ErrorKind> {
    let is_text = answer.header(header::CONTENT_TYPE).starts_with("text/plain");
    let is_failure = answer.status.is_client_error() || answer.status.is_server_error();
    KINDS.into_iter().find(|kind| is_text && is_failure && answer.body == kind.as_str().as_bytes())
}

/// Whether the gateway turns a caller away.
pub(crate) fn turned_away(gateway: &Gateway, answer: &Answer) -> Option<Failure> {
    let again = format!("the same again in {} s ; who tries from here?", answer.header(header::RETRY_AFTER));
    let (cause, next) = match (answer.status, &gateway.caller_token) {
        (StatusCode::UNAUTHORIZED, None) => (
            "it asks callers for a token",
            "the same with CALLER_TOKEN=… in the environment: the gateway's --caller-token",
        ),
        (StatusCode::UNAUTHORIZED, Some(_)) => {
            ("the callers' token is wrong", "compare CALLER_TOKEN here with the gateway's --caller-token")
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            ("too many wrong callers' tokens came from this address, whatever is shown now", again.as_str())
        }
        (StatusCode::FORBIDDEN, _) => (
            "it has no --caller-token, and so serves callers on its own machine only",
            "the same on the gateway's machine, by its address",
        ),
        _ => return None,
    };
    let is_text = answer.header(header::CONTENT_TYPE).starts_with("text/plain") && !answer.body.is_empty();
    let said = if is_text { format!(": {}", shown(&String::from_utf8_lossy(&answer.body))) } else { String::new() };
    Some(Failure::new(Fault::Auth, format!("{} for callers{said}", answer.status.as_u16()), cause, next))
}

/// What a failure that the gateway tells of means for whoever asked for this target.
pub(crate) fn told(gateway: &Gateway, kind: ErrorKind, key: &AgentKey, target: &TargetName) -> Failure {
    use ErrorKind as K;
    let named = if target.is_default() { "default target".to_owned() } else { format!("target named {target}") };
    let forward = if target.is_default() { String::new() } else { format!("{target}=") };
    let doctor = gateway.command(&format!("doctor --key {key}"));
    let failure = |fault, what: &str, cause: &str, next: &str| Failure::new(fault, what, cause, next);
    match kind {
        K::NoConnection => no_connection(gateway, key),
        K::ReconnectTimeout => failure(
            Fault::NoConnection,
            &format!("reconnect timeout: {key} lost its link and did not return in time"),
            "its process or machine is gone, or its network",
            "in the sandbox: is the agent running, and what does its log say of retry_in?",
        ),
        K::DialTimeout => failure(
            Fault::TimeOut,
            &format!("time-out: {key} counts as connected and answers no open"),
            "the tunnel is dead and the gateway has not noticed yet (it does after its --dead-after), or the agent hangs",
            "in the sandbox: is the agent's process alive (not stopped), and the network? then restart the agent",
        ),
        K::TargetRefused => failure(
            Fault::Target,
            &format!("connection refused: the service behind {key} is not ready on its socket"),
            "it has not started yet, has crashed, or listens elsewhere than the agent's --forward says",
            "in the sandbox: ss -ltnx ; start the service, then the same again",
        ),
        K::TargetTimeout => failure(
            Fault::Target,
            &format!("the service behind {key} does not answer the agent's connect"),
            "its address is wrong, its machine is down, or it accepts no more connections",
            "in the sandbox: curl -v to the address of the agent's --forward",
        ),
        K::TargetUnknown | K::TargetDenied => failure(
            Fault::Target,
            &format!("the agent of {key} has no {named}"),
            "what is not in its list is denied",
            &format!("in the sandbox: restart the agent with --forward {forward}HOST:PORT too"),
        ),
        K::PeerReset => failure(
            Fault::Target,
            &format!("the service behind {key} closed before it answered"),
            "it speaks no HTTP, or crashed at the request",
            "in the sandbox: curl -v to the address of the agent's --forward, and the service's log",
        ),
        K::SessionLost | K::Replaced => failure(
            Fault::NoConnection,
            &format!("the session of {key} ended under the request"),
            "the agent was restarted or replaced by another one with the same key",
            &format!("{doctor} ; again and again: are there two agents with this key?"),
        ),
        K::TooManyPendingDials | K::Overloaded | K::Shutdown => failure(
            Fault::NoConnection,
            &format!("the gateway answers {}", kind.as_str()),
            "more wait than it allows, or it goes down",
            &format!("{doctor} ; {}", gateway.command("stats")),
        ),
        _ => failure(
            Fault::Target,
            &format!("the gateway answers {}", kind.as_str()),
            "one end broke a rule",
            "the gateway's log, with RUST_LOG=debug",
        ),
    }
}

/// There is nobody under this key.
pub(crate) fn no_connection(gateway: &Gateway, key: &AgentKey) -> Failure {
    Failure::new(
        Fault::NoConnection,
        format!("no connection: no sandbox is connected as {key}"),
        "its agent is not running, dials another gateway or by another key, or is refused",
        format!("in the sandbox: the agent's log; RUNNER_TOKEN=… {}", gateway.command(&format!("doctor --key {key}"))),
    )
}
