//! Ports of the gateway's machine that lead to TCP services beside sandboxes.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{Gateway, process::DEADLINE};

/// More than all windows and buffers on the way.
const LENGTH: usize = 16 << 20;

/// Hears everything to its end before it answers, with the same and a word more.
async fn echo() -> SocketAddr {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = service.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = service.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                socket.read_to_end(&mut heard).await?;
                heard.extend_from_slice(b"end");
                socket.write_all(&heard).await
            });
        }
    });
    addr
}

/// The port of the next line, `PORT leads to SERVICE`.
async fn port(gateway: &mut Gateway, service: &str) -> SocketAddr {
    let line = gateway.program.line().await;
    let (port, leads_to) = line.split_once(" leads to ").expect("where it leads");
    assert_eq!(leads_to, service);
    port.parse().expect("an address")
}

#[tokio::test]
async fn a_port_of_the_gateways_leads_to_a_service_beside_a_sandbox() {
    let mut gateway = Gateway::with("--forward a/ssh=127.0.0.1:0 --forward b=127.0.0.1:0 --dial-timeout 5s").await;
    let (ssh, nobody) = (port(&mut gateway, "a/ssh").await, port(&mut gateway, "b").await);
    let _agent = gateway.connected("a", &format!("--forward ssh={}", echo().await)).await;
    let said: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
    let talk = async {
        let mut socket = TcpStream::connect(ssh).await?;
        socket.write_all(&said).await?;
        socket.shutdown().await?; // of this half only
        let mut heard = Vec::with_capacity(LENGTH);
        socket.read_to_end(&mut heard).await.map(|_| heard)
    };
    let heard = timeout(DEADLINE, talk).await.expect("in time").expect("a connection");
    assert!(heard == [&said[..], b"end"].concat(), "{} bytes of another kind", heard.len());

    // What never came to a service does not end as if it had said nothing. The connect may hear of it already.
    let talk = async { TcpStream::connect(nobody).await?.read_u8().await };
    let failed = timeout(DEADLINE, talk).await.expect("in time").expect_err("there is nobody");
    assert_eq!(failed.kind(), ErrorKind::ConnectionReset);
    gateway.program.logs("a forwarded connection failed service=\"b\" error=\"no connection\"").await;
}

#[tokio::test]
async fn a_port_that_other_machines_reach_is_asked_for_twice() {
    let mut gateway = Gateway::with("--forward a=0.0.0.0:0 --forward-anywhere").await;
    assert!(port(&mut gateway, "a").await.ip().is_unspecified());
}
