//! How an agent is set up: every setting, its default, and the checks of all of them in one place.

use std::{fmt, io::Read, path::PathBuf, sync::Arc};

use http::Uri;
use secrecy::{ExposeSecret, SecretString};
use tower_service::Service;

use super::{
    backoff::Backoff,
    connect::{self, BoxError, BoxFuture, Connector, ProtocolChoice},
    endpoint::endpoint,
    run::Agent,
};
use crate::{
    error::{Error, ErrorKind},
    frame::{Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS},
    key::AgentKey,
    metrics,
    proto::SessionConfig,
};

/// The longest token that is read from a file, in bytes: what HTTP servers take in a header.
const MAX_TOKEN_FILE: u64 = 8 * 1024;

/// Sets an agent up; made by [`Agent::builder`].
///
/// Settings are checked together by [`build`](Self::build), so that their order does not matter.
#[must_use = "a builder does nothing before it is built"]
pub struct AgentBuilder {
    url: String,
    key: String,
    token: Option<Token>,
    session: SessionConfig,
    backoff: Backoff,
    labels: Vec<(String, String)>,
    version: String,
    instance: Option<InstanceId>,
    protocol: ProtocolChoice,
    #[cfg(feature = "tls")]
    insecure: bool,
}

/// The settings of an agent, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// What is dialled: the endpoint with path and query.
    pub(crate) uri: Uri,
    /// The agent's key.
    pub(crate) key: AgentKey,
    /// Where its credentials come from.
    pub(crate) token: Token,
    /// The bounds of its sessions.
    pub(crate) session: SessionConfig,
    /// Its pace after setbacks.
    pub(crate) backoff: Backoff,
    /// What it says about itself.
    pub(crate) hello: Hello,
    /// What it speaks.
    pub(crate) protocol: ProtocolChoice,
}

/// Where the bearer token comes from.
pub(crate) enum Token {
    /// Given.
    Value(SecretString),
    /// Read at each attempt.
    File(PathBuf),
    /// Asked at each attempt.
    Source(Arc<dyn Fn() -> BoxFuture<'static, Result<SecretString, BoxError>> + Send + Sync>),
}

/// A setting that cannot be, and why.
#[derive(Debug)]
struct InvalidSetting {
    setting: &'static str,
    why: String,
}

impl AgentBuilder {
    pub(crate) fn new(url: String, key: String) -> Self {
        Self {
            url,
            key,
            token: None,
            session: SessionConfig::default(),
            backoff: Backoff::default(),
            labels: Vec::new(),
            version: concat!("revdial/", env!("CARGO_PKG_VERSION")).to_owned(),
            instance: None,
            protocol: ProtocolChoice::Auto,
            #[cfg(feature = "tls")]
            insecure: false,
        }
    }

    /// The bearer token that the server asks for. It is shown by no `Debug` and in no log.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Value(token.into().into()));
        self
    }

    /// Reads the bearer token from a file at each attempt, without the white space around it; at most 8 KiB.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(path.into()));
        self
    }

    /// Asks for the bearer token at each attempt. A failure, or an answer that takes longer than 20 s together with
    /// the connect, is a failed attempt.
    pub fn token_source<F, A, E>(mut self, source: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.token = Some(Token::Source(Arc::new(move || {
            let answer = source();
            Box::pin(async move { answer.await.map(SecretString::from).map_err(Into::into) })
        })));
        self
    }

    /// The bounds and intervals of the agent's sessions. Default [`SessionConfig::default`].
    pub fn session(mut self, session: SessionConfig) -> Self {
        self.session = session;
        self
    }

    /// The pace after losses and refusals. Default [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// A label that the server shows in its list; at most 16, each part at most 128 bytes.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// The program and version that the server shows in its list, at most 64 bytes. Default this crate's.
    pub fn agent_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The id of this run of the agent, by which the server tells a return from a replacement. Default random. No two
    /// runs may share one: of two that do, one draws another id as soon as it learns of it.
    pub fn instance(mut self, instance: InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }

    /// What is spoken with the server. Default [`ProtocolChoice::Auto`]: whatever it speaks.
    pub fn protocol(mut self, choice: ProtocolChoice) -> Self {
        self.protocol = choice;
        self
    }

    /// Whether the server's certificate goes unchecked, so that anyone on the way can read and change everything,
    /// the token first of all. Default false; logged at `warn`. Only for [`build`](Self::build)'s own connector.
    #[cfg(feature = "tls")]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Makes the agent, with a connector of its own: TCP, and TLS for https if the feature `tls` is on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], whose source names the setting that cannot be.
    #[cfg(feature = "tls")]
    pub fn build(self) -> Result<Agent, Error> {
        let insecure = self.insecure;
        let config = self.check()?;
        if insecure {
            tracing::warn!(key = %config.key, "the server's certificate goes unchecked, as asked for");
        }
        let connector = super::tls::around(connect::tcp(), insecure).map_err(|why| invalid("tls", why.to_string()))?;
        Ok(Agent::new(config, Box::new(Connector(connector))))
    }

    /// Makes the agent, with a connector of its own: TCP, and TLS for https if the feature `tls` is on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], whose source names the setting that cannot be.
    #[cfg(not(feature = "tls"))]
    pub fn build(self) -> Result<Agent, Error> {
        let config = self.check()?;
        if config.uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
            return Err(invalid("server_url", "https and wss need this crate's feature `tls`"));
        }
        Ok(Agent::new(config, Box::new(Connector(connect::tcp()))))
    }

    /// Makes the agent with a connector: any `Service<Uri>` whose response is hyper I/O, hyper-util's proxies and
    /// unix sockets among them. It is called with the endpoint's URI, scheme `http` or `https`; TLS is its matter.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], whose source names the setting that cannot be.
    pub fn build_with<C>(self, connector: C) -> Result<Agent, Error>
    where
        C: Service<Uri> + Send + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send + 'static,
    {
        Ok(Agent::new(self.check()?, Box::new(Connector(connector))))
    }

    fn check(self) -> Result<Config, Error> {
        metrics::describe();
        let key: AgentKey = self.key.parse().map_err(|why| invalid("key", format!("{:?}: {why}", self.key)))?;
        // The URL itself is not shown: it may hold a password.
        let uri = endpoint(&self.url, &key).map_err(|why| invalid("server_url", why))?;
        let token = self.token.ok_or_else(|| invalid("token", "is missing"))?;
        token.check().map_err(|why| invalid("token", why))?;
        self.session.validate().map_err(|why| invalid("session", why.to_string()))?;
        if let Some(why) = self.backoff.fault() {
            return Err(invalid("backoff", why));
        }
        if self.version.len() > MAX_AGENT_VERSION {
            return Err(invalid("agent_version", format!("is longer than {MAX_AGENT_VERSION} bytes")));
        }
        if self.labels.len() > MAX_LABELS {
            return Err(invalid("label", format!("there are more than {MAX_LABELS}")));
        }
        if let Some((name, _)) = self.labels.iter().find(|(name, value)| name.len().max(value.len()) > MAX_LABEL) {
            return Err(invalid("label", format!("{name:?} is longer than {MAX_LABEL} bytes, or its value is")));
        }
        let instance = self.instance.unwrap_or_else(|| InstanceId::new(rand::random()));
        let mut hello = Hello::new(instance, self.session.bounds());
        hello.agent_version = self.version;
        hello.labels = self.labels;
        Ok(Config { uri, key, token, session: self.session, backoff: self.backoff, hello, protocol: self.protocol })
    }
}

impl Token {
    /// Whether a token that is known already can be sent.
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Value(token) if token.expose_secret().is_empty() => Err("is empty"),
            Self::Value(token) => {
                connect::bearer(token).map(drop).map_err(|_| "has a character that no header can have")
            }
            Self::File(path) if path.as_os_str().is_empty() => Err("the path of its file is empty"),
            Self::File(_) | Self::Source(_) => Ok(()),
        }
    }

    /// The token for one attempt.
    pub(crate) async fn ask(&self) -> Result<SecretString, BoxError> {
        match self {
            Self::Value(token) => Ok(token.clone()),
            Self::Source(source) => source().await,
            Self::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || {
                    let mut text = String::new();
                    std::fs::File::open(path)?.take(MAX_TOKEN_FILE).read_to_string(&mut text)?;
                    Ok(SecretString::from(text.trim()))
                })
                .await?
            }
        }
    }
}

fn invalid(setting: &'static str, why: impl Into<String>) -> Error {
    Error::with_source(ErrorKind::InvalidInput, InvalidSetting { setting, why: why.into() })
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the setting {}: {}", self.setting, self.why)
    }
}

impl std::error::Error for InvalidSetting {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Token(..)"),
            Self::File(path) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Source(_) => f.write_str("TokenSource(..)"),
        }
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder").field("key", &self.key).field("token", &self.token).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn builder() -> AgentBuilder {
        Agent::builder("http://127.0.0.1:1", "sandbox-1").token("secret")
    }

    #[test]
    fn a_setting_that_cannot_be_fails_at_once_and_is_named() {
        let short = std::time::Duration::from_millis(1);
        let table = [
            (Agent::builder("ftp://h", "k").token("t"), "server_url"),
            (Agent::builder("http://h", "-k").token("t"), "key"),
            (Agent::builder("http://h", "k"), "token"),
            (builder().token(""), "token"),
            (builder().token("a\nb"), "token"),
            (builder().token_file(""), "token"),
            (builder().session(SessionConfig { max_streams: 0, ..SessionConfig::default() }), "max_streams"),
            (builder().backoff(Backoff::new(short * 2, short)), "backoff"),
            (builder().backoff(Backoff::default().slow_range(short * 2, short)), "backoff"),
            (builder().agent_version("v".repeat(65)), "agent_version"),
            (builder().label("l".repeat(129), ""), "label"),
            (builder().label("l", "v".repeat(129)), "label"),
            ((0..17).fold(builder(), |builder, n| builder.label(n.to_string(), "")), "label"),
        ];
        for (builder, setting) in table {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{setting}");
            let told = error.source().unwrap().to_string();
            assert!(told.contains(setting) && !told.contains("a\nb"), "{told}");
        }
        assert!(builder().build().is_ok());
    }

    #[test]
    fn tokens_are_shown_by_no_debug() {
        let builder = builder().token("hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
        assert!(!format!("{:?}", builder.build().unwrap()).contains("hunter2"));
    }

    #[test]
    fn https_needs_the_feature_that_brings_it() {
        let built = Agent::builder("https://h", "k").token("t").build();
        assert_eq!(built.is_ok(), cfg!(feature = "tls"));
    }

    #[tokio::test]
    async fn a_token_file_is_read_at_each_attempt_and_trimmed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = Token::File(file.path().to_owned());
        for text in ["one", " two\n"] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(token.ask().await.unwrap().expose_secret(), text.trim());
        }
        drop(file);
        assert!(token.ask().await.is_err());
    }
}
