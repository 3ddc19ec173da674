//! Megabytes both ways, in messages of every size, with every byte looked at.

use std::time::Duration;

use revdial::{
    TunnelStream,
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    classic::{
        self, Arrived, KEEP_ALIVE, Peer, soon,
        wire::{BINARY, CONTINUATION, Frame, PING},
    },
    net::TOKEN,
    random::Random,
    world::{Ours, Server, ends, opened},
};

const MANY: usize = 8 * 1024 * 1024;

/// Bytes that no shift of theirs is equal to.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.flatten().take(length).collect()
}

/// Where two texts differ, which are too long to be shown.
#[track_caller]
fn same(heard: &[u8], sent: &[u8]) {
    let differs = heard.iter().zip(sent).position(|(heard, sent)| heard != sent);
    assert_eq!((differs, heard.len()), (None, sent.len()));
}

/// Sends them as deployed peers do: in messages of any size, some of them in pieces with pings in between.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let longest = random.pick(&[0, 1, 125, 126, 4096, 32 * 1024, 65_535, 65_536, 100_000]).unwrap();
        let message;
        (message, rest) = rest.split_at(longest.min(rest.len()));
        if random.chance(70) {
            peer.send(BINARY, message).await;
            continue;
        }
        // As gorilla's client does, whose buffer has 4 KiB.
        let pieces: Vec<_> = message.chunks(4096).collect();
        for (nth, piece) in pieces.iter().enumerate() {
            if random.chance(10) {
                peer.send(PING, "").await;
            }
            let opcode = if nth == 0 { BINARY } else { CONTINUATION };
            let is_last = nth + 1 == pieces.len();
            peer.send_frame(Frame { is_last, ..Frame::new(opcode, *piece) }).await;
        }
    }
}

/// Sends back so many bytes, each message as soon as it is there.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(peer: &mut Peer<S>, length: usize) {
    let (mut seen, mut random) = (0, Random::new(3));
    while seen < length {
        match peer.next().await {
            Arrived::Binary(message) => {
                seen += message.len();
                send(peer, &message, &mut random).await;
            }
            other => panic!("{other:?} after {seen} bytes"),
        }
    }
    assert_eq!(seen, length);
}

/// All of `sent` there and back, as both directions have room.
async fn there_and_back(stream: TunnelStream, sent: &[u8]) -> TunnelStream {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut heard = vec![0; sent.len()];
    let (wrote, read_all) = tokio::join!(write.write_all(sent), read.read_exact(&mut heard));
    wrote.unwrap();
    read_all.unwrap();
    same(&heard, sent);
    read.unsplit(write)
}

/// Without anything of ours between them.
#[tokio::test(start_paused = true)]
async fn the_scripted_peers_carry_megabytes_between_themselves() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let sent = bytes(7, MANY);
    let path = "/revdial?revdial.dialer=00000000000000000000000000000000&revdial.req=11111111111111111111111111111111";
    let server = async {
        let (mut peer, request) = Peer::asked(far).await;
        assert_eq!(request, classic::request(&format!("/api/v1{path}"), TOKEN));
        peer.grant(&request).await;
        peer.say_ready(path).await;
        assert_eq!(peer.line().await, classic::pickup_failed(path, "<&>"));
        echo(&mut peer, MANY).await;
    };
    let agent = async {
        let mut peer = Peer::pick_up(near, path, TOKEN).await.unwrap();
        assert_eq!(peer.conn_ready().await, path);
        assert_eq!(peer.line().await, KEEP_ALIVE);
        peer.pickup_failed(path, "<&>").await;
        let mut random = Random::new(8);
        for piece in sent.chunks(10_000) {
            send(&mut peer, piece, &mut random).await;
            same(&peer.bytes(piece.len()).await, piece);
        }
        assert_eq!(peer.next().await, Arrived::End);
    };
    tokio::join!(server, agent);
}

#[tokio::test(start_paused = true)]
async fn our_server_carries_megabytes_to_a_deployed_agent_and_back() {
    let server = Server::new();
    let mut control = server.control().await;
    let (here, mut there) = server.joined(&mut control).await;
    let sent = bytes(1, MANY);
    let (mut here, ()) = tokio::join!(there_and_back(here, &sent), echo(&mut there, MANY));
    let info = server.info();
    assert_eq!((info.sent_bytes, info.received_bytes), (MANY as u64, MANY as u64));
    there.finish().await;
    ends(&mut here).await;
}

#[tokio::test(start_paused = true)]
async fn our_agent_carries_megabytes_to_a_deployed_server_and_back() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let mut peer = ours.dial(&mut control).await;
    let sent = bytes(2, MANY);
    // Piece by piece, since a peer that is scripted does one thing at a time.
    let mut random = Random::new(6);
    for piece in sent.chunks(100_000) {
        send(&mut peer, piece, &mut random).await;
        same(&peer.bytes(piece.len()).await, piece);
    }
    peer.finish().await;
    assert_eq!(peer.next().await, Arrived::End);
}

/// gorilla's server writes what it is given in one piece, as one frame.
#[tokio::test(start_paused = true)]
async fn a_message_of_a_megabyte_is_a_part_of_the_stream_like_any_other() {
    let sent = bytes(4, 1024 * 1024 + 1);
    let mut ours = Ours::with(|mut listener| async move {
        let mut stream = listener.accept().await.unwrap();
        let mut heard = vec![0; 1024 * 1024 + 1];
        stream.read_exact(&mut heard).await.unwrap();
        AsyncWriteExt::write_all(&mut stream, &heard).await.unwrap();
        let _ = stream.read_u8().await;
    });
    let mut control = ours.control().await;
    let mut peer = ours.dial(&mut control).await;
    peer.say(&sent[..]).await;
    same(&peer.bytes(sent.len()).await, &sent);

    let server = Server::new();
    let mut control = server.control().await;
    let (mut here, mut there) = server.joined(&mut control).await;
    let mut heard = vec![0; sent.len()];
    let (_, all) = tokio::join!(there.say(&sent[..]), here.read_exact(&mut heard));
    all.unwrap();
    same(&heard, &sent);
}

/// One that nobody reads holds up its own sender, and nobody else.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_bounded_and_holds_up_no_other() {
    let server = Server::new();
    let mut control = server.control().await;
    let (mut here, mut stuck) = server.joined(&mut control).await;
    let block = vec![7; 64 * 1024];
    let mut sent = 0;
    while let Ok(wrote) = timeout(Duration::from_secs(1), AsyncWriteExt::write(&mut here, &block)).await {
        sent += wrote.unwrap();
        assert!(sent < 64 * 1024 * 1024, "without a bound");
    }
    assert!(sent > 64 * 1024, "{sent}");
    server.works(&mut control).await;
    // What is written leaves by itself as far as the connection takes it, and by flushing from there.
    let (flushed, heard) = tokio::join!(AsyncWriteExt::flush(&mut here), stuck.bytes(sent));
    flushed.unwrap();
    assert!(heard.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn megabytes_go_over_tcp_with_axum_below_too() {
    let connman = ConnectionManager::new();
    let layer = RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut control = Peer::control(TcpStream::connect(address).await.unwrap(), "a", TOKEN).await;
    let dialled = tokio::spawn(connman.dial(&"a".parse().unwrap(), &"".parse().unwrap()));
    let path = control.conn_ready().await;
    let mut there = Peer::pick_up(TcpStream::connect(address).await.unwrap(), &path, TOKEN).await.unwrap();
    let sent = bytes(5, MANY);
    let here = opened(dialled).await;
    let (mut here, ()) = soon(async { tokio::join!(there_and_back(here, &sent), echo(&mut there, MANY)) }).await;
    there.finish().await;
    ends(&mut here).await;
    drop(here);
    assert_eq!(there.next().await, Arrived::End);
}
