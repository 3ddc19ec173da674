//! Small real proxies on loopback: one by CONNECT, one by SOCKS5. All names lead to one place.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// A running proxy, and what it was asked.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What a SOCKS5 proxy asks for and answers.
#[derive(Clone, Copy)]
pub(crate) struct Socks {
    /// As `user:password`.
    pub(crate) auth: Option<&'static str>,
    /// The reply to a request: 0 grants it.
    pub(crate) reply: u8,
}

impl Proxy {
    /// One that connects everybody to `to`, or answers with another status.
    pub(crate) async fn connect(to: SocketAddr, status: &'static str) -> Self {
        Self::serve(move |socket, asked| connect(socket, asked, to, status)).await
    }

    /// The same behind TLS.
    pub(crate) async fn connect_by_tls(to: SocketAddr, config: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(move |socket, asked| {
            let acceptor = acceptor.clone();
            async move { connect(acceptor.accept(socket).await.ok()?, asked, to, "200 Fine").await }
        })
        .await
    }

    /// One of SOCKS5.
    pub(crate) async fn socks(to: SocketAddr, socks: Socks) -> Self {
        Self::serve(move |socket, asked| serve_socks(socket, asked, to, socks)).await
    }

    async fn serve<F>(serve: impl Fn(TcpStream, Asked) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, asked) = (listener.local_addr().unwrap(), Asked::default());
        let told = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&told)));
            }
        });
        Self { addr, asked }
    }

    /// What it was asked until now: heads of requests, or `user:password` and the SOCKS5 target.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type Asked = Arc<Mutex<Vec<String>>>;

async fn connect<I>(mut socket: I, asked: Asked, to: SocketAddr, status: &'static str) -> Option<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    asked.lock().unwrap().push(String::from_utf8(head).unwrap());
    if !status.starts_with("200") {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>");
        return socket.write_all(answer.as_bytes()).await.ok();
    }
    let mut there = TcpStream::connect(to).await.ok()?;
    socket.write_all(format!("HTTP/1.1 {status}\r\nVia: 1.1 test\r\n\r\n").as_bytes()).await.ok()?;
    copy_bidirectional(&mut socket, &mut there).await.ok().map(drop)
}

async fn serve_socks(mut socket: TcpStream, asked: Asked, to: SocketAddr, socks: Socks) -> Option<()> {
    assert_eq!(socket.read_u8().await.ok()?, 5);
    let methods = read(&mut socket).await?;
    let method = if socks.auth.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return socket.write_all(&[5, 0xff]).await.ok();
    }
    socket.write_all(&[5, method]).await.ok()?;
    if let Some(auth) = socks.auth {
        assert_eq!(socket.read_u8().await.ok()?, 1);
        let (user, password) = (read(&mut socket).await?, read(&mut socket).await?);
        let told = format!("{}:{}", String::from_utf8_lossy(&user), String::from_utf8_lossy(&password));
        let granted = told == auth;
        asked.lock().unwrap().push(told);
        socket.write_all(&[1, u8::from(!granted)]).await.ok()?;
        if !granted {
            return None;
        }
    }
    let mut request = [0; 4];
    socket.read_exact(&mut request).await.ok()?;
    assert_eq!(&request[..3], [5, 1, 0], "a CONNECT");
    let host = match request[3] {
        1 => {
            let mut address = [0; 4];
            socket.read_exact(&mut address).await.ok()?;
            std::net::Ipv4Addr::from(address).to_string()
        }
        3 => String::from_utf8(read(&mut socket).await?).unwrap(),
        other => panic!("an address of type {other}"),
    };
    let port = socket.read_u16().await.ok()?;
    asked.lock().unwrap().push(format!("{host}:{port}"));
    socket.write_all(&[5, socks.reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    if socks.reply != 0 {
        return None;
    }
    let mut there = TcpStream::connect(to).await.ok()?;
    copy_bidirectional(&mut socket, &mut there).await.ok().map(drop)
}

/// So many bytes as the byte before them says.
async fn read(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; socket.read_u8().await.ok()?.into()];
    socket.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}
