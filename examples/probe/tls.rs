//! TLS to the server, and what its failures mean.

use std::{error::Error as StdError, io, path::Path, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    fault::{Failure, Fault},
    server::Server,
    unverified::Unverified,
    way::BoxedIo,
    words::{shown, took},
};

/// A connector that trusts Mozilla's roots, those of a file instead, or anybody.
pub(crate) fn connector(ca: Option<&Path>, insecure: bool) -> Result<TlsConnector, Box<dyn StdError>> {
    let provider = ring::default_provider();
    let builder = ClientConfig::builder_with_provider(provider.clone().into()).with_safe_default_protocol_versions()?;
    let config = match ca {
        _ if insecure => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified::new(provider))),
        Some(file) => builder.with_root_certificates(roots(file)?),
        None => builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
    };
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

fn roots(file: &Path) -> Result<RootCertStore, Box<dyn StdError>> {
    let mut roots = RootCertStore::empty();
    let named = |error: &dyn StdError| format!("--ca {}: {error}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| named(&error))? {
        roots.add(certificate.map_err(|error| named(&error))?).map_err(|error| named(&error))?;
    }
    if roots.is_empty() { Err(format!("--ca {}: no certificate in it", file.display()).into()) } else { Ok(roots) }
}

/// Puts TLS around a connection; the second value tells its version.
pub(crate) async fn secure(
    connector: &TlsConnector,
    server: &Server,
    io: BoxedIo,
    patience: Duration,
) -> Result<(BoxedIo, String), Failure> {
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| failure(server, "the host is no name that a certificate can have", "a slip in the URL", ""))?;
    match timeout(patience, connector.connect(name, io)).await {
        Ok(Ok(tls)) => {
            let version = tls.get_ref().1.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
            Ok((Box::new(tls), version.replace('_', ".")))
        }
        Ok(Err(error)) => Err(diagnosed(server, &error)),
        Err(_) => Err(failure(
            server,
            &format!("no answer to the TLS handshake within {}", took(patience)),
            "the port does not speak TLS, or a middlebox swallows it",
            "",
        )),
    }
}

fn diagnosed(server: &Server, error: &io::Error) -> Failure {
    let told = shown(&error.to_string());
    match error.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>()) {
        Some(tokio_rustls::rustls::Error::InvalidCertificate(why)) => {
            let (cause, look) = certificate(why);
            failure(server, &told, cause, &format!(" </dev/null | openssl x509 -noout {look}"))
        }
        Some(tokio_rustls::rustls::Error::InvalidMessage(_)) => {
            let cause = "the port does not speak TLS: the server is at http://, or this is another service's port";
            let next = format!("curl -v http://{}/", server.host_and_port());
            Failure::new(Fault::Tls, told, cause, next)
        }
        Some(_) => failure(server, &told, "both ends have no version or cipher in common, or a middlebox meddles", ""),
        None => {
            failure(server, &told, "the port does not speak TLS, or a middlebox does not let this name through", "")
        }
    }
}

/// What is wrong with a certificate, and what of it to look at.
fn certificate(why: &CertificateError) -> (&'static str, &'static str) {
    use CertificateError as C;
    match why {
        C::Expired | C::ExpiredContext { .. } => ("it has expired, or the clock of this machine is wrong", "-dates"),
        C::NotValidYet | C::NotValidYetContext { .. } => ("the clock of this machine is wrong", "-dates"),
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            ("another server answers there, or the URL has another name", "-ext subjectAltName")
        }
        C::UnknownIssuer => {
            ("it is self-signed, of a private authority (then: --ca FILE), or a middlebox looks into TLS", "-issuer")
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            "it is an authority's, as openssl req -x509 makes them; a server's is made with \
             -addext basicConstraints=critical,CA:FALSE",
            "-ext basicConstraints",
        ),
        _ => ("it is not what a server's certificate has to be; agents refuse it too", "-text"),
    }
}

fn failure(server: &Server, what: &str, cause: &str, pipe: &str) -> Failure {
    let openssl = format!("openssl s_client -connect {} -servername {}{pipe}", server.host_and_port(), server.host);
    Failure::new(Fault::Tls, what, cause, openssl)
}
