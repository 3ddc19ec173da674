//! TLS to the server: what is trusted, what is shown, what is refused, and settings that cannot be.

use std::{
    error::Error as _,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::date_time_ymd;
use revdial::{
    ErrorKind,
    agent::{AgentBuilder, HttpVersion, TlsOptions},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::{
    Gateway, NAME, Running, builder,
    certificates::{Authority, Identity},
    counted::Counted,
    net::Net,
};

/// Where a gateway is by an address, which all can reach.
fn url(gateway: &Gateway) -> String {
    format!("https://{}", gateway.addr)
}

async fn works(gateway: &Gateway, builder: AgentBuilder) {
    let mut agent = Running::of(builder.build().unwrap());
    agent.connected().await;
    gateway.works().await;
}

#[tokio::test]
async fn b21_tls_that_is_not_valid_is_told_retried_slowly_and_never_gone_around() {
    let authority = Authority::new();
    let expired = authority.issue_with("127.0.0.1", |params| params.not_after = date_time_ymd(2001, 1, 1));
    let known = || TlsOptions::new().roots_pem(authority.pem.clone());
    let table = [
        (authority.issue("127.0.0.1"), TlsOptions::new(), "UnknownIssuer"),
        (authority.issue("127.0.0.1"), TlsOptions::new().roots_pem(Authority::new().pem), "certificate"),
        (authority.issue("elsewhere.test"), known(), "not valid for"),
        (authority.issue("127.0.0.1"), known().server_name("elsewhere.test"), "not valid for"),
        (expired, known(), "expired"),
    ];
    for (identity, options, why) in table {
        invalid(identity, options, why).await;
    }
}

/// A server of this identity gets nothing but the beginning of TLS from an agent with these options, which waits long.
async fn invalid(identity: Identity, options: TlsOptions, why: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        acceptor.accept(socket).await.map(drop).unwrap_err();
        listener
    });
    let counted = Counted::new();
    let agent = builder(&format!("https://{addr}")).tls(options).build().unwrap();
    let (cause, wait, refused, text) = Running::of(agent).setback().await;
    assert_eq!((cause, refused), (ErrorKind::Tls, true), "{text}");
    assert!((Duration::from_secs(28)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
    assert!(text.contains("TLS") && text.contains(why), "{text}");
    let listener = server.await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "no second try");
    assert_eq!(counted.sum("revdial_agent_connect_failures_total{tls}"), 1);
}

#[tokio::test]
async fn b21_a_server_without_tls_is_told_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = builder(&format!("https://{}", listener.local_addr().unwrap())).build().unwrap();
    let mut agent = Running::of(agent);
    let (mut socket, _): (TcpStream, _) = listener.accept().await.unwrap();
    // The first byte of a record with a handshake, in which the token is not.
    assert_eq!(socket.read_u8().await.unwrap(), 0x16);
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let (cause, _, refused, text) = agent.setback().await;
    assert_eq!((cause, refused), (ErrorKind::Tls, true), "{text}");
}

#[tokio::test]
async fn own_roots_are_trusted_from_bytes_and_from_a_file() {
    let authority = Authority::new();
    let gateway = Gateway::tls(authority.issue("127.0.0.1").server()).await;
    works(&gateway, builder(&url(&gateway)).tls(TlsOptions::new().roots_pem(authority.pem.clone()))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# ours\n{}{}", Authority::new().pem, authority.pem)).unwrap();
    works(&gateway, builder(&url(&gateway)).tls(TlsOptions::new().roots_file(file.path()))).await;
}

#[tokio::test]
async fn a_server_may_have_another_name_than_its_url() {
    let authority = Authority::new();
    let gateway = Gateway::tls(authority.issue(NAME).server()).await;
    works(&gateway, builder(&url(&gateway)).tls(TlsOptions::new().roots_pem(authority.pem).server_name(NAME))).await;
}

#[tokio::test]
async fn a12_verification_is_off_only_if_it_is_turned_off() {
    let gateway = Gateway::tls(Authority::new().issue("elsewhere.test").server()).await;
    works(&gateway, builder(&url(&gateway)).insecure(true)).await;
    assert_eq!(Running::of(builder(&url(&gateway)).build().unwrap()).setback().await.0, ErrorKind::Tls);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a12_verification_that_is_off_is_logged_at_warn_with_the_agents_key() {
    for insecure in [true, false] {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let agent = builder("https://gateway.test").insecure(insecure);
        tracing::subscriber::with_default(subscriber, || agent.build().unwrap());
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), usize::from(insecure), "{log}");
        assert!(
            warnings.iter().all(|line| line.contains("certificate goes unchecked") && line.contains("key=a")),
            "{log}"
        );
    }
}

#[tokio::test]
async fn an_agent_shows_its_certificate_to_a_server_that_asks_for_one() {
    let authority = Authority::new();
    let gateway = Gateway::tls(authority.server_asking(&authority.issue("127.0.0.1"))).await;
    let roots = || TlsOptions::new().roots_pem(authority.pem.clone());
    let me = authority.issue("sandbox-1");
    let of_memory = roots().identity_pem(me.certificate.clone(), me.key.clone());
    works(&gateway, builder(&url(&gateway)).tls(of_memory)).await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("me.pem"), folder.path().join("me.key"));
    std::fs::write(&certificate, &me.certificate).unwrap();
    std::fs::write(&key, &me.key).unwrap();
    works(&gateway, builder(&url(&gateway)).tls(roots().identity_files(certificate, key))).await;

    let stranger = Authority::new().issue("sandbox-1");
    for options in [roots(), roots().identity_pem(stranger.certificate, stranger.key)] {
        let (cause, wait, refused, text) =
            Running::of(builder(&url(&gateway)).tls(options).build().unwrap()).setback().await;
        assert_eq!((cause, refused), (ErrorKind::Tls, true), "{text}");
        assert!(wait > Duration::from_secs(28), "{text}: {wait:?}");
    }
}

#[test]
fn a14_options_that_cannot_be_fail_at_once_and_are_named() {
    let (authority, other) = (Authority::new(), Authority::new().issue("x"));
    let me = authority.issue("x");
    let options = TlsOptions::new;
    let https = || builder("https://h");
    let garbled = me.certificate.replace('A', "!");
    let table = [
        (https().tls(options().roots_pem("hunter2")), "tls.roots"),
        (https().tls(options().roots_pem("")), "tls.roots"),
        (https().tls(options().roots_pem(garbled.clone())), "tls.roots"),
        (https().tls(options().roots_file("/nowhere/ca.pem")), "tls.roots: /nowhere/ca.pem"),
        (https().tls(options().identity_pem("hunter2", "hunter2")), "tls.identity"),
        (https().tls(options().identity_pem(garbled, me.key.clone())), "tls.identity"),
        (https().tls(options().identity_pem(me.certificate.clone(), "hunter2")), "tls.identity"),
        (https().tls(options().identity_pem(me.certificate.clone(), other.key)), "tls.identity"),
        (https().tls(options().identity_files("/nowhere/me.pem", "/nowhere/me.key")), "tls.identity: /nowhere/me.pem"),
        (https().tls(options().server_name("no name")), "tls.server_name"),
        (https().tls(options().roots_pem(authority.pem.clone())).insecure(true), "insecure"),
        (builder("http://h").tls(options().server_name("h")), "tls.server_name"),
    ];
    for (builder, setting) in table {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{setting}");
        let told = error.source().unwrap().to_string();
        assert!(told.contains(&format!("the setting {setting}")) && !told.contains("hunter2"), "{setting}: {told}");
    }
    let given = || Net::answering(200, &[]);
    for (builder, setting) in
        [(https().tls(options().roots_pem(authority.pem.clone())), "tls.roots"), (https().insecure(true), "insecure")]
    {
        let error = builder.build_with(given()).unwrap_err();
        assert!(error.source().unwrap().to_string().contains(setting), "{setting}: {error:?}");
    }
    let shown = format!("{:?}", options().roots_pem(authority.pem).identity_pem(me.certificate, me.key));
    assert!(!shown.contains("BEGIN"), "{shown}");
}

#[tokio::test]
async fn an_agent_asks_by_alpn_for_the_http_that_it_speaks() {
    let identity = Authority::new().issue("127.0.0.1");
    let table = [
        ("spdy/1", HttpVersion::Http2, false),
        ("h2", HttpVersion::Http1, false),
        ("http/1.1", HttpVersion::Http1, true),
    ];
    for (alpn, http, works) in table {
        let mut config = identity.server();
        config.alpn_protocols = vec![alpn.into()];
        let gateway = Gateway::tls(config).await;
        let mut agent = Running::of(builder(&url(&gateway)).insecure(true).http(http).build().unwrap());
        if works {
            agent.connected().await;
            continue;
        }
        let (cause, _, refused, text) = agent.setback().await;
        assert_eq!((cause, refused), (ErrorKind::Tls, true), "{text}");
        let alert = rustls::AlertDescription::NoApplicationProtocol;
        assert!(text.contains(&format!("{alert:?}")), "{alpn}: {text}");
    }
}
