//! The flags, and the agent that they set up.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser};
use revdial::{
    Error,
    agent::{Agent, AgentBuilder, Backoff, HttpVersion, ProtocolChoice, ProxyChoice, TlsOptions},
    proto::SessionConfig,
};

/// Dials out to a gateway and serves what it asks for.
#[derive(Parser)]
#[command(group(ArgGroup::new("credentials").required(true).multiple(true).args(["token", "token_file"])))]
pub(crate) struct Args {
    /// The gateway's base, such as https://host:port; the endpoint's path is added unless it is there.
    #[arg(long)]
    server: String,
    /// The name of this sandbox.
    #[arg(long)]
    key: String,
    /// What the gateway lets it in by.
    #[arg(long, env = "RUNNER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with that, read at each attempt, in the place of --token.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// [NAME=]ADDR: host:port or unix:///path; without a name it is the default target. May be given many times.
    #[arg(long, required = true)]
    pub(crate) forward: Vec<String>,
    /// NAME=VALUE, which the gateway shows in its list. May be given many times.
    #[arg(long, value_parser = pair)]
    label: Vec<(String, String)>,
    /// How long the tunnel may be silent before it is asked for a sign of life.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    ping_interval: Duration,
    /// How long without one until it is held for dead.
    #[arg(long, default_value = "45s", value_parser = humantime::parse_duration)]
    dead_after: Duration,
    /// The longest pause between two attempts after failures.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    max_backoff: Duration,
    /// How long running streams may finish when the agent is told to stop.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pub(crate) drain: Duration,
    /// What is spoken with the gateway: auto, native, or dialback.
    #[arg(long, default_value = "auto")]
    protocol: ProtocolChoice,
    /// Over which HTTP the gateway is asked: 1.1 or 2.
    #[arg(long, default_value = "1.1")]
    http: HttpVersion,
    /// The proxy on the way, http://, https://, socks5:// or socks5h://, in the place of the environment's HTTPS_PROXY,
    /// HTTP_PROXY, ALL_PROXY and NO_PROXY; "none" for no proxy at all.
    #[arg(long, env = "REVDIAL_PROXY", hide_env_values = true)]
    proxy: Option<String>,
    /// Certificates in PEM that are trusted in the place of Mozilla's.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// The agent's own certificate, in PEM.
    #[arg(long, requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The private key of that, in PEM.
    #[arg(long, requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// The name that the gateway's certificate has to be for, in the place of the URL's host.
    #[arg(long)]
    server_name: Option<String>,
    /// Do not verify the gateway's certificate.
    #[arg(long)]
    insecure: bool,
    /// Where to answer /metrics, for Prometheus, to whoever asks; port 0 picks one. Without it nowhere.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Begin each line of the log with its level as journald reads it, such as <4>.
    #[arg(long)]
    pub(crate) log_levels: bool,
}

impl Args {
    /// The agent that the flags describe.
    pub(crate) fn builder(self) -> Result<AgentBuilder, Error> {
        let tls = self.tls();
        let (ping_interval, dead_after) = (self.ping_interval, self.dead_after);
        let builder = Agent::builder(self.server, self.key)
            .agent_version(concat!("revdial-agent/", env!("CARGO_PKG_VERSION")))
            .session(SessionConfig { ping_interval, dead_after, ..SessionConfig::default() })
            .backoff(Backoff::new(Duration::from_millis(250), self.max_backoff))
            .protocol(self.protocol)
            .http(self.http)
            .proxy(match self.proxy {
                None => ProxyChoice::Environment,
                Some(none) if none == "none" => ProxyChoice::Direct,
                Some(url) => ProxyChoice::Url(url),
            })
            .tls(tls)
            .insecure(self.insecure);
        let builder = self.label.into_iter().fold(builder, |builder, (name, value)| builder.label(name, value));
        Ok(match (self.token_file, self.token) {
            (Some(path), _) => builder.token_file(path),
            (None, token) => builder.token(token.unwrap_or_default()),
        })
    }

    fn tls(&self) -> TlsOptions {
        let mut tls = TlsOptions::new();
        if let Some(path) = &self.ca_file {
            tls = tls.roots_file(path);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            tls = tls.identity_files(certificate, key);
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
        }
        tls
    }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
