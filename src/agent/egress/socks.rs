//! SOCKS5 as its client speaks it (RFC 1928, with RFC 1929's user and password). hyper-util's tells the reply of a proxy in
//! words only, of which nothing can be concluded.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::ErrorKind;

const VERSION: u8 = 5;
const WITHOUT_AUTH: u8 = 0;
const BY_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What a proxy is to connect to.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// A host that the proxy looks up.
    Named(String, u16),
    /// An address.
    Address(SocketAddr),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// The proxy wants to be shown something else than it was offered.
    Method,
    /// It does not take the user or the password.
    Credentials,
    /// It answered the request with this.
    Reply(u8),
    /// Its answer is none of SOCKS5.
    Garbled,
    /// A name, user or password does not fit into its field.
    TooLong,
    /// Nothing came in the time that this destination has.
    Timeout,
    /// The connection to it failed.
    Io(io::Error),
}

/// Has the proxy at the other end of `io` open a connection, whose bytes come next.
pub(super) async fn connect<S>(io: &mut S, auth: Option<(&str, &str)>, to: &Destination) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    greet(io, auth).await?;
    io.write_all(&request(to)?).await?;
    reply(io).await
}

async fn greet<S>(io: &mut S, auth: Option<(&str, &str)>) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let offer: &[u8] = if auth.is_some() { &[WITHOUT_AUTH, BY_PASSWORD] } else { &[WITHOUT_AUTH] };
    let mut greeting = vec![VERSION];
    put_counted(&mut greeting, offer)?;
    io.write_all(&greeting).await?;
    match (read(io).await?, auth) {
        ([VERSION, WITHOUT_AUTH], _) => Ok(()),
        ([VERSION, BY_PASSWORD], Some((user, password))) => log_in(io, user, password).await,
        ([VERSION, NO_METHOD], _) => Err(Fault::Method),
        _ => Err(Fault::Garbled),
    }
}

async fn log_in<S>(io: &mut S, user: &str, password: &str) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut message = vec![1];
    put_counted(&mut message, user.as_bytes())?;
    put_counted(&mut message, password.as_bytes())?;
    io.write_all(&message).await?;
    let [_version, status] = read(io).await?;
    if status == 0 { Ok(()) } else { Err(Fault::Credentials) }
}

fn request(to: &Destination) -> Result<Vec<u8>, Fault> {
    let mut message = vec![VERSION, CONNECT, 0];
    let port = match to {
        Destination::Named(host, port) => {
            message.push(NAME);
            put_counted(&mut message, host.as_bytes())?;
            *port
        }
        Destination::Address(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    message.push(IPV4);
                    message.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    message.push(IPV6);
                    message.extend(ip.octets());
                }
            }
            address.port()
        }
    };
    message.extend(port.to_be_bytes());
    Ok(message)
}

/// Reads the answer, and not a byte of what comes behind it.
async fn reply<S: AsyncRead + Unpin>(io: &mut S) -> Result<(), Fault> {
    match read(io).await? {
        [VERSION, 0] => {}
        [VERSION, code] => return Err(Fault::Reply(code)),
        _ => return Err(Fault::Garbled),
    }
    let [_reserved, kind] = read(io).await?;
    let address = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = read(io).await?;
            usize::from(length)
        }
        _ => return Err(Fault::Garbled),
    };
    let mut bound = [0; 255 + 2];
    io.read_exact(&mut bound[..address + 2]).await?;
    Ok(())
}

/// Puts a field with its length in front.
fn put_counted(message: &mut Vec<u8>, field: &[u8]) -> Result<(), Fault> {
    message.push(u8::try_from(field.len()).map_err(|_| Fault::TooLong)?);
    message.extend(field);
    Ok(())
}

async fn read<const N: usize>(io: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl Fault {
    /// The kind of one that only an operator can mend.
    pub(super) fn refusal(&self) -> Option<ErrorKind> {
        match self {
            Self::Method | Self::Credentials => Some(ErrorKind::Auth),
            // Its rules, its commands, its kinds of addresses.
            Self::Reply(2 | 7 | 8) | Self::TooLong => Some(ErrorKind::Handshake),
            Self::Reply(_) | Self::Garbled | Self::Timeout | Self::Io(_) => None,
        }
    }

    /// Whether another destination may do better.
    pub(super) fn is_of_destination(&self) -> bool {
        matches!(self, Self::Reply(_) | Self::Timeout | Self::Io(_))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("it asks for a user and password, or for what this agent has not"),
            Self::Credentials => f.write_str("it takes another user and password"),
            Self::Reply(code) => {
                let meaning = match code {
                    1 => "a general failure",
                    2 => "its rules do not allow this",
                    3 => "the network is unreachable",
                    4 => "the host is unreachable",
                    5 => "the connection was refused",
                    6 => "the time to live is over",
                    7 => "it does not do this command",
                    8 => "it does not take this kind of address",
                    _ => "no meaning",
                };
                write!(f, "it answered {code}, {meaning}")
            }
            Self::Garbled => f.write_str("its answer is none of SOCKS5"),
            Self::TooLong => f.write_str("SOCKS5 has no room for a name, user or password this long"),
            Self::Timeout => f.write_str("it did not answer in time"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(host, port) => write!(f, "{host}:{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What comes of it if the proxy says this at once; and what it was told, and what the client has left unread.
    async fn with(
        answers: &[u8],
        auth: Option<(&str, &str)>,
        to: Destination,
    ) -> (Result<(), Fault>, Vec<u8>, Vec<u8>) {
        let (mut client, mut proxy) = duplex(4096);
        proxy.write_all(answers).await.unwrap();
        proxy.shutdown().await.unwrap();
        let outcome = connect(&mut client, auth, &to).await;
        let (mut told, mut left) = (Vec::new(), Vec::new());
        client.read_to_end(&mut left).await.unwrap();
        drop(client);
        proxy.read_to_end(&mut told).await.unwrap();
        (outcome, told, left)
    }

    fn named() -> Destination {
        Destination::Named("h.example".into(), 443)
    }

    #[tokio::test]
    async fn the_bytes_are_those_of_the_rfcs() {
        let greeting: &[u8] = &[5, 2, 0, 2, 1, 1, b'u', 2, b'p', b'w'];
        let v6: SocketAddr = "[2001:db8::1]:258".parse().unwrap();
        let table: [(Destination, Vec<u8>); 3] = [
            (named(), [&[5, 1, 0, 3, 9][..], b"h.example", &[1, 187]].concat()),
            (Destination::Address("192.0.2.7:80".parse().unwrap()), vec![5, 1, 0, 1, 192, 0, 2, 7, 0, 80]),
            (Destination::Address(v6), {
                let ip = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                [&[5, 1, 0, 4][..], &ip, &[1, 2]].concat()
            }),
        ];
        for (to, request) in table {
            let granted = [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            let (outcome, told, _) = with(&granted, Some(("u", "pw")), to).await;
            outcome.unwrap();
            assert_eq!(told, [greeting, &request].concat());
        }
    }

    #[tokio::test]
    async fn what_comes_behind_the_answer_is_the_connections() {
        for bound in [&[1, 0, 0, 0, 0][..], &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[3, 2, b'a', b'b']] {
            let answers = [&[5, 0, 5, 0, 0][..], bound, &[0, 80], b"first"].concat();
            let (outcome, told, left) = with(&answers, None, named()).await;
            outcome.unwrap();
            assert_eq!(told[..3], [5, 1, 0], "nothing but no authentication is offered");
            assert_eq!(left, b"first");
        }
    }

    #[tokio::test]
    async fn what_a_proxy_can_answer_is_a_refusal_or_passes() {
        let (auth, other) = (Some(ErrorKind::Auth), Some(ErrorKind::Handshake));
        let table: [(&[u8], Option<ErrorKind>, bool); 16] = [
            (&[5, 0xff], auth, false),
            (&[5, 2, 1, 1], auth, false),
            (&[5, 0, 5, 1], None, true),
            (&[5, 0, 5, 2], other, true),
            (&[5, 0, 5, 3], None, true),
            (&[5, 0, 5, 4], None, true),
            (&[5, 0, 5, 5], None, true),
            (&[5, 0, 5, 6], None, true),
            (&[5, 0, 5, 7], other, true),
            (&[5, 0, 5, 8], other, true),
            (&[5, 0, 5, 99], None, true),
            (&[5, 0, 4, 0], None, false),
            (&[5, 0, 5, 0, 0, 9], None, false),
            (&[5, 1], None, false),
            (b"HTTP/1.1 400", None, false),
            (&[5], None, true),
        ];
        for (answers, refusal, another) in table {
            let (outcome, ..) = with(answers, Some(("u", "p")), named()).await;
            let fault = outcome.unwrap_err();
            assert_eq!((fault.refusal(), fault.is_of_destination()), (refusal, another), "{answers:?}: {fault}");
        }
    }

    #[tokio::test]
    async fn a_field_that_does_not_fit_is_not_cut() {
        let long = "x".repeat(256);
        let (outcome, told, _) = with(&[5, 0], None, Destination::Named(long.clone(), 1)).await;
        assert!(matches!(outcome, Err(Fault::TooLong)) && told == [5, 1, 0], "{outcome:?}");
        let (outcome, told, _) = with(&[5, 2], Some(("u", &long)), named()).await;
        assert!(matches!(outcome, Err(Fault::TooLong)) && told == [5, 2, 0, 2], "{outcome:?}");
    }
}
