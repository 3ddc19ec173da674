//! How an agent is set up: every setting, its default, and the checks of all of them in one place.

use std::{fmt, path::PathBuf, sync::Arc};

use http::{Uri, uri::Scheme};
#[cfg(not(feature = "tls"))]
use hyper_util::client::proxy::matcher::Intercept;
use secrecy::SecretString;
use tower_service::Service;
use tracing::info;
#[cfg(feature = "tls")]
use tracing::warn;

#[cfg(feature = "tls")]
use super::tls::TlsOptions;
use super::{
    backoff::Backoff,
    choices::{HttpVersion, ProtocolChoice},
    connect::{BoxError, Connector},
    egress::Egress,
    endpoint::endpoint,
    proxy_choice::ProxyChoice,
    run::Agent,
    token::{Reading, Token},
};
use crate::{
    error::{Error, ErrorKind},
    frame::{Hello, InstanceId, MAX_AGENT_VERSION, MAX_LABEL, MAX_LABELS},
    key::AgentKey,
    metrics,
    proto::SessionConfig,
};

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
    http: HttpVersion,
    proxy: ProxyChoice,
    #[cfg(feature = "tls")]
    tls: TlsOptions,
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
    /// How it asks for its WebSockets.
    pub(crate) http: HttpVersion,
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
            http: HttpVersion::Http1,
            proxy: ProxyChoice::Environment,
            #[cfg(feature = "tls")]
            tls: TlsOptions::new(),
            #[cfg(feature = "tls")]
            insecure: false,
        }
    }

    /// The bearer token that the server asks for. It is shown by no `Debug` and in no log.
    ///
    /// One of `token`, [`token_file`](Self::token_file) and [`token_source`](Self::token_source) is required; of several
    /// the last one counts.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Value(token.into().into()));
        self
    }

    /// Reads the bearer token from a file at each attempt, without the white space around it; at most 8 KiB. In the place
    /// of [`token`](Self::token).
    ///
    /// A file that cannot be read, is empty or is none, as a pipe, is a failed attempt whose text names it, of kind
    /// [`Auth`](ErrorKind::Auth). So is a read that takes longer than 10 s, as from a mount whose server is away: it holds a
    /// blocking thread of the runtime, and the next attempts wait for it and begin no other.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(path.into(), Reading::default()));
        self
    }

    /// Asks for the bearer token at each attempt. In the place of [`token`](Self::token).
    ///
    /// A failure is a failed attempt, of kind [`Auth`](ErrorKind::Auth). So is a panic, or an answer that takes longer than
    /// 10 s, of kind [`Internal`](ErrorKind::Internal): the agent goes on, and it is counted in
    /// `revdial_callback_failures_total`. It runs on the task of the agent's run and must not block.
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

    /// A label that the server shows in its list; at most 16, each part at most 128 bytes. Default none.
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

    /// Over which version of HTTP the server is asked for WebSockets. Default [`HttpVersion::Http1`].
    pub fn http(mut self, version: HttpVersion) -> Self {
        self.http = version;
        self
    }

    /// Through which proxy the server is reached. Default [`ProxyChoice::Environment`]. Only for [`build`](Self::build)'s
    /// own connector.
    pub fn proxy(mut self, choice: ProxyChoice) -> Self {
        self.proxy = choice;
        self
    }

    /// How TLS is done: own roots, a certificate of the agent's own, another name. Only for [`build`](Self::build)'s own
    /// connector, and servers at https and wss. Default [`TlsOptions::new`]: Mozilla's roots, no certificate, the URL's
    /// host.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, options: TlsOptions) -> Self {
        self.tls = options;
        self
    }

    /// Whether the server's certificate goes unchecked, so that anyone on the way can read and change everything,
    /// the token first of all. Default false; logged at `warn`. Only for [`build`](Self::build)'s own connector.
    #[cfg(feature = "tls")]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Makes the agent, with a connector of its own: TCP, through a proxy if one is named, and TLS for https and wss if the
    /// feature `tls` is on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], whose source names the setting that cannot be.
    pub fn build(self) -> Result<Agent, Error> {
        let proxy = self.proxy.clone();
        #[cfg(feature = "tls")]
        let (tls, insecure) = (self.tls.clone(), self.insecure);
        let config = self.check()?;
        let variable = |name: &str| std::env::var(name).ok();
        let proxy = proxy.proxy(&config.uri, variable).map_err(|why| invalid("proxy", why))?;
        if let Some(proxy) = &proxy {
            info!(key = %config.key, proxy = %proxy.uri(), "the server is reached through a proxy");
        }
        #[cfg(feature = "tls")]
        let tls = {
            if let Some(option) = tls.first().filter(|_| config.uri.scheme() != Some(&Scheme::HTTPS)) {
                return Err(invalid(option, "is set, and the URL of the server is one without TLS"));
            }
            if insecure {
                warn!(key = %config.key, "the server's certificate goes unchecked, as asked for");
            }
            tls.build(insecure).map_err(|(option, why)| invalid(option, why))?
        };
        #[cfg(not(feature = "tls"))]
        for (setting, uri) in [("server_url", Some(&config.uri)), ("proxy", proxy.as_ref().map(Intercept::uri))] {
            if uri.and_then(Uri::scheme) == Some(&Scheme::HTTPS) {
                return Err(invalid(setting, "https and wss need this crate's feature `tls`"));
            }
        }
        let egress = Egress::new(
            proxy,
            #[cfg(feature = "tls")]
            tls,
        );
        Ok(Agent::new(config, Box::new(egress)))
    }

    /// Makes the agent with a connector: any `Service<Uri>` whose response is hyper I/O, a unix socket's for one. It is
    /// called with the endpoint's URI, scheme `http` or `https`; proxies and TLS are its matter.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], whose source names the setting that cannot be: also one that is only for
    /// [`build`](Self::build)'s own connector.
    pub fn build_with<C>(self, connector: C) -> Result<Agent, Error>
    where
        C: Service<Uri> + Send + 'static,
        C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
        C::Error: Into<BoxError>,
        C::Future: Send + 'static,
    {
        if let Some(setting) = self.for_own_connector() {
            return Err(invalid(setting, "is of no use with a connector that is given"));
        }
        Ok(Agent::new(self.check()?, Box::new(Connector(connector))))
    }

    /// The first setting that is only for the own connector.
    fn for_own_connector(&self) -> Option<&'static str> {
        #[cfg(feature = "tls")]
        if let Some(setting) = self.tls.first().or(self.insecure.then_some("insecure")) {
            return Some(setting);
        }
        matches!(self.proxy, ProxyChoice::Url(_)).then_some("proxy")
    }

    fn check(self) -> Result<Config, Error> {
        metrics::describe();
        metrics::begin_agent();
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
        let Self { session, backoff, protocol, http, .. } = self;
        Ok(Config { uri, key, token, session, backoff, hello, protocol, http })
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
    fn a14_a_setting_that_cannot_be_fails_at_once_and_is_named() {
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
            (builder().proxy(ProxyChoice::Url("ftp://a\nb@h".into())), "proxy"),
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
    fn a_setting_of_the_own_connector_is_none_of_a_given_one() {
        let given = || hyper_util::client::legacy::connect::HttpConnector::new();
        assert!(builder().build_with(given()).is_ok());
        assert!(builder().proxy(ProxyChoice::Direct).build_with(given()).is_ok());
        let error = builder().proxy(ProxyChoice::Url("http://p".into())).build_with(given()).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("proxy"));
    }

    #[test]
    fn https_needs_the_feature_that_brings_it() {
        let built = Agent::builder("https://h", "k").token("t").build();
        assert_eq!(built.is_ok(), cfg!(feature = "tls"));
    }
}
