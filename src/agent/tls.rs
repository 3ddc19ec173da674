//! TLS to the server, and to a proxy, by rustls.

use std::{error::Error as StdError, io, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::{
    choices::HttpVersion,
    connect::{BoxError, ServerIo},
};

mod options;
mod unverified;

pub use options::TlsOptions;

/// The agent's TLS, as it was set up.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// To a server that is asked by HTTP/1.1.
    http1: Arc<ClientConfig>,
    /// To one that is asked by HTTP/2 if it agrees.
    http2: Arc<ClientConfig>,
    proxy: Arc<ClientConfig>,
    /// In the place of the host's.
    name: Option<ServerName<'static>>,
}

impl Tls {
    fn new(server: ClientConfig, proxy: ClientConfig, name: Option<ServerName<'static>>) -> Self {
        // Said also where it is all: what lies in front of a server may take nothing said for HTTP/2.
        let (mut http1, mut http2) = (server.clone(), server);
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { http1: Arc::new(http1), http2: Arc::new(http2), proxy: Arc::new(proxy), name }
    }

    /// TLS with the server over `io`, by which it is asked over this version at most, and whether both agreed on HTTP/2.
    pub(crate) async fn to_server(
        &self,
        io: Box<dyn ServerIo>,
        server: &Uri,
        version: HttpVersion,
    ) -> Result<(Box<dyn ServerIo>, bool), BoxError> {
        let name = self.name.clone().map_or_else(|| host(server), Ok)?;
        let config = match version {
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 => &self.http2,
        };
        let stream = shake_hands(config, name, io).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(TokioIo::new(stream)), http2))
    }

    /// TLS with a proxy over `io`.
    pub(crate) async fn to_proxy(&self, io: Box<dyn ServerIo>, proxy: &Uri) -> Result<Box<dyn ServerIo>, BoxError> {
        let stream = shake_hands(&self.proxy, host(proxy)?, io).await?;
        Ok(Box::new(TokioIo::new(stream)))
    }
}

async fn shake_hands(
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
    io: Box<dyn ServerIo>,
) -> io::Result<TlsStream<TokioIo<Box<dyn ServerIo>>>> {
    TlsConnector::from(Arc::clone(config)).connect(name, TokioIo::new(io)).await
}

/// The host as certificates have it: an IPv6 address without its brackets.
fn host(uri: &Uri) -> Result<ServerName<'static>, BoxError> {
    let host = uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(ServerName::try_from(bare.to_owned())?)
}

/// Whether TLS itself failed somewhere below `error`, and not the connection that it runs on.
pub(crate) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<tokio_rustls::rustls::Error>() {
            return true;
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls;

    use super::*;

    #[test]
    fn a_tls_error_is_found_below_io_errors() {
        let tls = rustls::Error::HandshakeNotComplete;
        assert!(is_tls(&io::Error::other(io::Error::other(tls))));
        assert!(!is_tls(&io::Error::from(io::ErrorKind::ConnectionRefused)));
    }

    #[test]
    fn hosts_are_named_as_in_certificates() {
        for (uri, name) in [("https://h:1/", "h"), ("https://127.0.0.1/", "127.0.0.1"), ("https://[::1]:1/", "::1")] {
            assert_eq!(host(&Uri::from_static(uri)).unwrap().to_str(), name);
        }
    }
}
