//! How the error of a real stream leads to ours by std's `source()` alone, with no help of this crate's.

use std::{error::Error as StdError, io};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use revdial::{
    Error, ErrorKind, TunnelStream,
    connector::RevDialConnector,
    frame::{Frame, ResetCode, StreamId},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    attach::Scripted,
    net::TOKEN,
    raw::hello,
    support::{World, key},
};

/// What the chain of causes leads to, the error itself left out.
#[track_caller]
fn cause(error: &(dyn StdError + 'static)) -> ErrorKind {
    let chain = std::iter::successors(error.source(), |error| StdError::source(*error));
    let ours: Vec<_> = chain.filter_map(|error| error.downcast_ref::<Error>()).map(Error::kind).collect();
    let [kind] = ours[..] else { panic!("once in the chain of {error:?}: {ours:?}") };
    kind
}

fn reset(stream: StreamId, code: ResetCode) -> Frame {
    Frame::Reset { stream, code, reason: String::new() }
}

async fn read(stream: &mut TunnelStream) -> io::Error {
    stream.read_u8().await.unwrap_err()
}

async fn write(stream: &mut TunnelStream) -> io::Error {
    loop {
        if let Err(error) = AsyncWriteExt::write(stream, &[0; 1024]).await {
            return error;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn e12_the_errors_of_a_streams_read_and_write_lead_to_ours_by_their_source() {
    for (kind, io_kind) in [
        (ErrorKind::SessionLost, io::ErrorKind::ConnectionReset),
        (ErrorKind::PeerReset, io::ErrorKind::ConnectionReset),
        (ErrorKind::Protocol, io::ErrorKind::Other),
    ] {
        let world = World::new();
        let mut one = Scripted::new(&world, "a", TOKEN).await;
        match kind {
            ErrorKind::SessionLost => assert!(world.connman.disconnect(&key())),
            ErrorKind::PeerReset => one.agent.send(reset(one.id, ResetCode::TARGET_RESET)).await,
            _ => one.agent.send(Frame::Unknown { kind: 0x41 }).await,
        }
        let (on_read, on_write) = (read(&mut one.stream).await, write(&mut one.stream).await);
        assert_eq!((cause(&on_read), on_read.kind()), (kind, io_kind), "of a read");
        assert_eq!(cause(&on_write), kind, "of a write");
        drop(one);
        world.over([]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn e12_the_errors_of_hypers_connections_and_clients_lead_to_ours_by_their_source() {
    let get = || Request::get("http://a/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();

    // A dial that is refused, by the pooled client.
    let world = World::new();
    let mut agent = world.raw().await;
    agent.greet(hello(1)).await;
    let client = Client::builder(TokioExecutor::new()).build(RevDialConnector::new(world.connman.clone()));
    let answer = tokio::spawn(client.request(get()));
    let (stream, _) = agent.opened().await;
    agent.send(reset(stream, ResetCode::TARGET_DENIED)).await;
    assert_eq!(cause(&answer.await.unwrap().unwrap_err()), ErrorKind::TargetDenied);

    // A body under which the session ends.
    let answer = tokio::spawn(client.request(get()));
    let (stream, _) = agent.opened().await;
    agent.send(Frame::Accept { stream, credit: 64 * 1024 }).await;
    agent.recv().await; // the request
    let begun = Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\nhalf");
    agent.send(Frame::Data { stream, payload: begun }).await;
    let mut body = answer.await.unwrap().unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    world.connman.disconnect(&key());
    assert_eq!(cause(&body.frame().await.unwrap().unwrap_err()), ErrorKind::SessionLost);
    drop((agent, client, body));
    world.over([]).await;

    // A request over one connection.
    let world = World::new();
    let mut one = Scripted::new(&world, "a", TOKEN).await;
    let (mut send, connection) = http1::handshake(one.stream).await.unwrap();
    tokio::spawn(connection);
    let answer = tokio::spawn(send.send_request(get()));
    one.agent.send(reset(one.id, ResetCode::TARGET_RESET)).await;
    assert_eq!(cause(&answer.await.unwrap().unwrap_err()), ErrorKind::PeerReset);
    drop((one.agent, send));
    world.over([]).await;
}
