//! What an agent's TLS is set to: own roots, a certificate of its own, another name; read and checked at once.

use std::{fmt, fs, io, path::PathBuf, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::{Tls, unverified::Unverified};

/// How the agent's own connector does TLS, for servers at https and wss.
///
/// Without any of it the server's certificate is verified against Mozilla's roots, for the host in its URL. Files are read
/// when the agent is built; what is wrong with them fails that, and names the option.
///
/// ```no_run
/// use revdial::agent::{Agent, TlsOptions};
///
/// # fn example() -> Result<(), revdial::Error> {
/// let tls = TlsOptions::new().roots_file("/etc/revdial/ca.pem").identity_files("/etc/revdial/me.pem", "/etc/revdial/me.key");
/// let agent = Agent::builder("https://10.0.0.1", "sandbox-1").token("secret").tls(tls.server_name("gateway.example")).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "options do nothing before they are given to a builder"]
pub struct TlsOptions {
    roots: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

/// A text in PEM.
#[derive(Clone)]
enum Pem {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// An option that cannot be: its name, and why.
pub(crate) type Fault = (&'static str, String);

impl TlsOptions {
    /// None of the options: each default holds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these certificates, in PEM, in the place of Mozilla's, which are the default; also those of
    /// a proxy at `https://`.
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(Pem::Bytes(pem.into()));
        self
    }

    /// The same from a file.
    pub fn roots_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots = Some(Pem::File(path.into()));
        self
    }

    /// Shows the server this certificate, with those that lead to its root behind it, and proves it by this private key;
    /// all in PEM. A proxy is not shown it. Default none.
    pub fn identity_pem(mut self, certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Pem::Bytes(certificates.into()), Pem::Bytes(key.into())));
        self
    }

    /// The same from files.
    pub fn identity_files(mut self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(certificates.into()), Pem::File(key.into())));
        self
    }

    /// The name that the server is asked for and its certificate has to be for, in the place of the URL's host, which is the
    /// default.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The first option that is set.
    pub(crate) fn first(&self) -> Option<&'static str> {
        let set = [
            ("tls.roots", self.roots.is_some()),
            ("tls.identity", self.identity.is_some()),
            ("tls.server_name", self.server_name.is_some()),
        ];
        set.into_iter().find_map(|(name, is)| is.then_some(name))
    }

    /// Reads and checks all of it. `insecure`: verifies no certificate of the server.
    pub(crate) fn build(&self, insecure: bool) -> Result<Tls, Fault> {
        if insecure && self.roots.is_some() {
            return Err(("insecure", "own roots are set too, by which nothing would be checked".into()));
        }
        let roots = Arc::new(self.roots()?);
        let name = self
            .server_name
            .clone()
            .map(|name| ServerName::try_from(name).map_err(|why| ("tls.server_name", why.to_string())));
        let proxy = builder()?.with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
        let verified = if insecure {
            let verifier = Arc::new(Unverified::new(ring::default_provider()));
            builder()?.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            builder()?.with_root_certificates(roots)
        };
        let server = match &self.identity {
            None => verified.with_no_client_auth(),
            Some((certificates, key)) => {
                let certificates = certificates.certificates("tls.identity")?;
                let key = key.read("tls.identity")?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|_| ("tls.identity", "the key is no private key in PEM".to_owned()))?;
                verified.with_client_auth_cert(certificates, key).map_err(|why| ("tls.identity", why.to_string()))?
            }
        };
        Ok(Tls::new(server, proxy, name.transpose()?))
    }

    fn roots(&self) -> Result<RootCertStore, Fault> {
        let Some(pem) = &self.roots else {
            return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        };
        let mut roots = RootCertStore::empty();
        for certificate in pem.certificates("tls.roots")? {
            roots.add(certificate).map_err(|why| ("tls.roots", why.to_string()))?;
        }
        Ok(roots)
    }
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Fault> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| ("tls", why.to_string()))
}

impl Pem {
    /// The text, at most 1 MiB of it: all roots of an operating system take a quarter of that.
    fn read(&self, option: &'static str) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => {
                let limit = |file: fs::File| io::Read::take(file, MAX_FILE);
                let read = fs::File::open(path).and_then(|file| {
                    let mut bytes = Vec::new();
                    io::Read::read_to_end(&mut limit(file), &mut bytes).map(|_| bytes)
                });
                read.map_err(|why| (option, format!("{}: {why}", path.display())))
            }
        }
    }

    /// The certificates in it: one at least.
    fn certificates(&self, option: &'static str) -> Result<Vec<CertificateDer<'static>>, Fault> {
        let pem = self.read(option)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => Err((option, "there is no certificate in PEM, or a broken one".into())),
        }
    }
}

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The names of files and no more: a key may be among the bytes.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(_) => f.write_str("Pem(..)"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roots, identity, server_name } = self;
        let mut debug = f.debug_struct("TlsOptions");
        debug.field("roots", roots).field("identity", identity).field("server_name", server_name).finish()
    }
}
