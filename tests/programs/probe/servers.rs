//! What stands in a server's place or before it: proxies of the environment, TLS, servers that are no gateway, and
//! middleboxes that cut idle connections.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::Query,
    http::{StatusCode, header},
    routing::get,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Serves connections, each in a task of its own, for as long as the test lasts.
async fn serve<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    addr
}

/// Reads a request's head. What is no HTTP is answered and left at once, as servers do.
async fn head(tcp: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await?);
        if !head[0].is_ascii_alphabetic() {
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8(head).expect("text"))
}

/// Answers everything with the same text.
pub(super) async fn answering(answer: &'static str) -> SocketAddr {
    serve(move |mut tcp| async move {
        loop {
            head(&mut tcp).await?;
            tcp.write_all(answer.as_bytes()).await?;
        }
    })
    .await
}

/// Answers requests for an upgrade with one text, and others with another.
pub(super) async fn refusing(plain: &'static str, upgrade: &'static str) -> SocketAddr {
    serve(move |mut tcp| async move {
        loop {
            let answer = if head(&mut tcp).await?.contains("upgrade: websocket\r\n") { upgrade } else { plain };
            tcp.write_all(answer.as_bytes()).await?;
        }
    })
    .await
}

/// A gateway by its looks: it says that `a` is connected, and answers whoever asks for it with this. Below `/many` it
/// has many sandboxes, and tells of two at once.
pub(super) async fn pretending(status: u16, kind: &'static str, body: &'static str) -> SocketAddr {
    let stats = r#"{"agents":[{"key":"a","state":"connected"}]}"#;
    let status = StatusCode::from_u16(status).unwrap();
    let version = (header::SEC_WEBSOCKET_VERSION, "13");
    let required = async || (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket"), version]);
    let app = Router::new()
        .route("/api/v1/revdial", get(required.clone()))
        .route("/many/api/v1/revdial", get(required))
        .route("/stats", get(move || async move { stats }))
        .route("/many/stats", get(two_of_many))
        .fallback(move || async move { (status, [(header::CONTENT_TYPE, kind)], body) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    addr
}

/// The first two keys after the one that is asked for, as the gateway tells of more than it tells at once.
async fn two_of_many(Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let digits = (0..10).flat_map(|n| [format!("a{n}"), format!("a-{n}"), format!("desktop-{n}")]);
    let mut keys: Vec<String> = digits.chain(["a", "b", "nn", "z"].map(str::to_owned)).collect();
    keys.sort();
    keys.retain(|key| query.get("after").is_none_or(|after| key > after));
    let lines = keys.iter().take(2).map(|key| json!({ "key": key, "state": "connected" }));
    Json(json!({ "agents": lines.collect::<Vec<_>>() }))
}

/// An HTTP proxy: connects where it is told to, or answers this status; with credentials only, if it wants some.
pub(super) async fn http_proxy(refusal: Option<&'static str>, credentials: Option<&'static str>) -> SocketAddr {
    serve(move |mut tcp| async move {
        let head = head(&mut tcp).await?;
        let to = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).expect("a CONNECT").to_owned();
        let known = credentials.is_none_or(|known| head.contains(&format!("proxy-authorization: Basic {known}\r\n")));
        let refusal = refusal.or((!known).then_some("407 Proxy Authentication Required"));
        if let Some(status) = refusal {
            return tcp.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
        }
        let mut server = TcpStream::connect(to).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        copy_bidirectional(&mut tcp, &mut server).await.map(drop)
    })
    .await
}

/// A SOCKS5 proxy for IPv4, without credentials.
pub(super) async fn socks_proxy() -> SocketAddr {
    serve(|mut tcp| async move {
        let mut hello = [0; 3];
        tcp.read_exact(&mut hello).await?;
        assert_eq!(hello, [5, 1, 0], "one method: none");
        tcp.write_all(&[5, 0]).await?;
        let mut ask = [0; 10];
        tcp.read_exact(&mut ask).await?;
        let [5, 1, 0, 1, a, b, c, d, high, low] = ask else { panic!("no CONNECT to IPv4: {ask:?}") };
        let mut server = TcpStream::connect(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))).await?;
        tcp.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        copy_bidirectional(&mut tcp, &mut server).await.map(drop)
    })
    .await
}

/// TLS in front of a server, with a certificate of its own making for 127.0.0.1, which is given in PEM.
pub(super) async fn tls(server: SocketAddr, name: &str) -> (SocketAddr, String) {
    tls_by(server, CertificateParams::new([name.to_owned()]).unwrap()).await
}

/// The same with a certificate like this.
pub(super) async fn tls_by(server: SocketAddr, made: CertificateParams) -> (SocketAddr, String) {
    let key = KeyPair::generate().unwrap();
    let made = made.self_signed(&key).unwrap();
    let certificate = CertificateDer::from(made.der().to_vec());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()));
    let addr = serve(move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let mut tls = acceptor.accept(tcp).await?;
            let mut server = TcpStream::connect(server).await?;
            copy_bidirectional(&mut tls, &mut server).await.map(drop)
        }
    })
    .await;
    (addr, made.pem())
}

/// How a middlebox ends what is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Both ends are told.
    Cut,
    /// Nobody is told, and nothing passes any more.
    Silent,
}

/// A middlebox that ends connections on which nothing has passed for this long.
pub(super) async fn impatient(server: SocketAddr, idle: Duration, ends: Ends) -> SocketAddr {
    serve(move |mut tcp| async move {
        let mut server = TcpStream::connect(server).await?;
        let (mut up, mut down) = ([0; 4096], [0; 4096]);
        loop {
            let pass = async {
                tokio::select! {
                    read = tcp.read(&mut up) => (read, true),
                    read = server.read(&mut down) => (read, false),
                }
            };
            match timeout(idle, pass).await {
                Ok((Ok(0) | Err(_), _)) => return Ok(()),
                Ok((Ok(read), true)) => server.write_all(&up[..read]).await?,
                Ok((Ok(read), false)) => tcp.write_all(&down[..read]).await?,
                Err(_) if ends == Ends::Cut => return Ok(()),
                Err(_) => return std::future::pending().await,
            }
        }
    })
    .await
}
