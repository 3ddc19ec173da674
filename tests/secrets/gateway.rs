//! What lies at both ends of a tunnel here: a server over HTTP/1.1 and 2, and a service behind the agent.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use revdial::{
    agent::Listener,
    server::{Authorize, RevDialLayer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tower::ServiceExt;

use crate::{COOKIE, net::Net};

/// A real server.
#[derive(Clone)]
pub(crate) struct Gateway {
    serve: Arc<dyn Fn(Box<dyn Io>) -> Serving + Send + Sync>,
    uris: Arc<Mutex<Vec<Uri>>>,
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Io for I {}

impl Gateway {
    pub(crate) fn new<A: Authorize>(layer: RevDialLayer<A>) -> Self {
        let uris = Arc::<Mutex<Vec<Uri>>>::default();
        let seen = Arc::clone(&uris);
        let service = layer.into_service().map_request(move |request: Request<Incoming>| {
            seen.lock().unwrap().push(request.uri().clone());
            request
        });
        let service = TowerToHyperService::new(service);
        let serve = move |io| {
            let service = service.clone();
            Box::pin(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().enable_connect_protocol();
                let _ = server.serve_connection_with_upgrades(TokioIo::new(io), service).await;
            }) as Serving
        };
        Self { serve: Arc::new(serve), uris }
    }

    /// The way to it over pipes.
    pub(crate) fn net(&self) -> Net {
        let serve = Arc::clone(&self.serve);
        Net::new(move |io| drop(tokio::spawn(serve(Box::new(io)))))
    }

    /// Where it is on loopback, by TLS if there is a config.
    pub(crate) async fn listen(&self, tls: Option<ServerConfig>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let serve = Arc::clone(&self.serve);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(Box::new(socket)).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(socket).await {
                                serve(Box::new(stream)).await;
                            }
                        }
                    }
                });
            }
        });
        addr
    }

    /// What it was asked for until now.
    pub(crate) fn uris(&self) -> Vec<Uri> {
        self.uris.lock().unwrap().clone()
    }
}

/// Serves HTTP on the streams of an agent, and says nothing of what it is told. Who asks for an upgrade has its bytes back.
pub(crate) fn serve(mut listener: Listener) {
    tokio::spawn(async move {
        while let Some(stream) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(stream, service_fn(answer)).with_upgrades());
        }
    });
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, http::Error> {
    let answer = Response::builder().header(header::SET_COOKIE, COOKIE);
    if !request.headers().contains_key(header::UPGRADE) {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return answer.body(Full::new(body));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        tokio::io::copy(&mut read, &mut write).await
    });
    let answer = answer.status(StatusCode::SWITCHING_PROTOCOLS);
    answer.header(header::CONNECTION, "upgrade").header(header::UPGRADE, "websocket").body(Full::default())
}
