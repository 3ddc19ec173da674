//! The `h2` crate, reversed: the agent dials and is the HTTP/2 server, and a stream is a POST whose two bodies flow.

use bytes::Bytes;
use h2::{client, client::SendRequest, server};
use http::{Request, Response};
use tokio::{net::TcpStream, spawn};

use super::{
    h2_pipe::{H2Pipe, Incoming},
    server::Pipe,
};
use crate::commands::{CHUNK, serve};

/// As much as ours may have in flight, so that at long delays both meet the same limit.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;

/// Two streams' worth.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;

/// As large as what is written in one go.
const FRAME: u32 = CHUNK as u32;

/// What a stream may have queued: a few writes, at least what fills a long link.
const QUEUE: usize = STREAM_WINDOW as usize;

/// Room for all measured streams.
const STREAMS: u32 = 4096;

/// Opens streams of a connection.
#[derive(Clone)]
pub(crate) struct Opener(SendRequest<Bytes>);

impl Opener {
    /// The server's side of a connection that an agent has dialled.
    pub(crate) async fn start(io: TcpStream) -> Self {
        let (requests, connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_send_buffer_size(QUEUE)
            .initial_max_send_streams(STREAMS as usize)
            .enable_push(false)
            .handshake(io)
            .await
            .expect("an HTTP/2 peer");
        spawn(connection);
        Self(requests)
    }

    pub(crate) async fn dial(&self) -> Box<dyn Pipe> {
        let mut requests = self.0.clone().ready().await.expect("the connection is open");
        let request = Request::post("http://agent/").body(()).expect("a request");
        let (response, outgoing) = requests.send_request(request, false).expect("the connection is open");
        Box::new(H2Pipe::new(outgoing, Incoming::Awaited(response)))
    }
}

/// The agent's side, which serves what the server opens.
pub(crate) async fn agent(io: TcpStream) {
    let mut connection = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(QUEUE)
        .max_concurrent_streams(STREAMS)
        .handshake(io)
        .await
        .expect("an HTTP/2 peer");
    spawn(async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            // A request that was reset meanwhile has nobody to answer.
            if let Ok(outgoing) = respond.send_response(Response::new(()), false) {
                spawn(serve(H2Pipe::new(outgoing, Incoming::Open(request.into_body()))));
            }
        }
    });
}
