use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::error::ErrorKind;

#[test]
fn a_uri_has_its_port_in_the_end() {
    let table = [
        ("http://h/x", "http://h:80/x"),
        ("https://h/x?y", "https://h:443/x?y"),
        ("https://h:8443/", "https://h:8443/"),
        ("socks5h://[::1]/", "socks5h://[::1]:1080/"),
    ];
    for (uri, expected) in table {
        assert_eq!(with_port(&Uri::from_static(uri)), expected);
    }
}

#[tokio::test]
async fn an_address_is_asked_for_as_it_is_and_a_name_is_looked_up_or_not() {
    let table = [
        ("socks5://p", "http://127.0.0.1:80/x", "Address(127.0.0.1:80)"),
        ("socks5h://p", "http://[::1]:80/x", "Address([::1]:80)"),
        ("socks5h://p", "http://localhost:80/x", "Named(\"localhost\", 80)"),
    ];
    for (at, server, expected) in table {
        let found = destinations(&Uri::from_static(at), &Uri::from_static(server)).await.unwrap();
        assert_eq!(format!("{found:?}"), format!("[{expected}]"));
    }
    let found = destinations(&Uri::from_static("socks5://p"), &Uri::from_static("http://localhost:80")).await.unwrap();
    assert!(found.iter().all(|to| matches!(to, Destination::Address(address) if address.ip().is_loopback())));
}

/// A SOCKS5 proxy that gives each connection one of these replies, or none to `SILENT`; and the last parts of the
/// addresses that it was asked for.
async fn proxy(replies: &'static [u8]) -> (Uri, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("socks5://{}", listener.local_addr().unwrap()).parse().unwrap();
    let asked = Arc::<Mutex<Vec<u8>>>::default();
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        for reply in replies {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 13];
            socket.read_exact(&mut bytes[..3]).await.unwrap();
            socket.write_all(&[5, 0]).await.unwrap();
            socket.read_exact(&mut bytes[3..]).await.unwrap();
            told.lock().unwrap().push(bytes[10]);
            match *reply {
                SILENT => silent.push(socket),
                reply => socket.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap(),
            }
        }
        // Those about which it is silent stay open.
        std::future::pending::<()>().await;
    });
    (at, asked)
}

const SILENT: u8 = 99;

/// What comes of it if the server has this many addresses.
async fn in_turn(at: &Uri, addresses: u8) -> Result<(), ProxyError> {
    let to = (1..=addresses).map(|n| Destination::Address(([192, 0, 2, n], 80).into())).collect();
    let mut egress = Egress::new(
        None,
        #[cfg(feature = "tls")]
        super::super::tls::TlsOptions::new().build(false).unwrap(),
    );
    let (server, until) = (Uri::from_static("http://gateway.example:80"), Instant::now() + SOCKS_WITHIN);
    egress.reach_one_of(at, None, &server, to, until).await.map(drop)
}

#[tokio::test]
async fn the_addresses_of_a_server_are_asked_for_in_turn() {
    let (at, asked) = proxy(&[5, 2, 0]).await;
    in_turn(&at, 4).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn each_address_has_its_turn_however_many_the_proxy_is_silent_about() {
    let table: [&'static [u8]; 3] =
        [&[SILENT, 0], &[SILENT, SILENT, SILENT, SILENT, 0], &[SILENT, SILENT, 5, SILENT, SILENT, SILENT, SILENT, 0]];
    for replies in table {
        let addresses = u8::try_from(replies.len()).unwrap();
        let (at, asked) = proxy(replies).await;
        let start = Instant::now();
        in_turn(&at, addresses).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), (1..=addresses).collect::<Vec<_>>());
        assert!(start.elapsed() < SOCKS_WITHIN, "{addresses}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_silent_about_all_addresses_is_named_with_each_of_them() {
    let (at, _) = proxy(&[SILENT; MAX_DESTINATIONS]).await;
    let start = Instant::now();
    let error = in_turn(&at, 8).await.unwrap_err();
    assert!(start.elapsed() < SOCKS_WITHIN + Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(error.refusal, None);
    let told = error.to_string();
    let named = format!("the proxy {} did not connect to gateway.example:80: ", at.to_string().trim_end_matches('/'));
    assert!(told.starts_with(&named), "{told}");
    for n in 1..=8 {
        assert!(told.contains(&format!("192.0.2.{n}:80: it did not answer in time")), "{told}");
    }
}

#[tokio::test]
async fn a_server_is_refused_if_all_its_addresses_are() {
    for (replies, refusal) in [(&[2, 8], Some(ErrorKind::Handshake)), (&[2, 5], None), (&[5, 2], None)] {
        let (at, _) = proxy(replies).await;
        let error = in_turn(&at, 2).await.unwrap_err();
        assert_eq!(error.refusal, refusal, "{error}");
        let told = error.to_string();
        assert!(told.contains("gateway.example:80") && told.contains("192.0.2.2:80: it answered"), "{told}");
    }
}
