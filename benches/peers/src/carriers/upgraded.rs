//! A WebSocket for each stream, with small buffers: the connect and the handshake that each dial of dial-back has too.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_tungstenite::{accept_async_with_config, client_async_with_config, tungstenite::protocol::WebSocketConfig};

use super::{message_bytes::MessageBytes, sockets::connect};

/// Tungstenite fills its read buffer with zeros before each read: small ones make small messages cheap.
const BUFFER: usize = 4 * 1024;

/// A stream to this address.
pub(crate) async fn dial(address: SocketAddr) -> MessageBytes {
    let stream = connect(address).await;
    // As with plain TCP: ports would be used up otherwise.
    stream.set_zero_linger().expect("a TCP socket");
    let (socket, _) =
        client_async_with_config(format!("ws://{address}/"), stream, Some(config())).await.expect("a handshake");
    MessageBytes::new(socket)
}

/// The other side of it.
pub(crate) async fn accept(stream: TcpStream) -> MessageBytes {
    MessageBytes::new(accept_async_with_config(stream, Some(config())).await.expect("a handshake"))
}

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0)
}
