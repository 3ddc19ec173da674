//! TCP sockets as every carrier has them: on loopback, and without Nagle's delay.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// A listener on a port of its own, and its address.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound listener");
    (listener, address)
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("the other side listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.expect("a connection");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}
