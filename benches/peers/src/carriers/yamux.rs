//! The `yamux` crate: one task owns the connection, opens streams on request and hands out those of the peer.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};
use tokio::{
    spawn,
    sync::{mpsc, oneshot},
};
use tokio_util::compat::FuturesAsyncReadCompatExt;
use yamux::{Config, Connection, Mode, Stream};

use super::server::Pipe;
use crate::commands::serve;

/// Who wants a stream.
type Request = oneshot::Sender<Stream>;

/// Opens streams of a connection whose task goes on as long as there is one of these.
#[derive(Clone)]
pub(crate) struct Opener(mpsc::Sender<Request>);

impl Opener {
    /// The server's side of a connection that an agent has dialled.
    pub(crate) fn start(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (requests, requested) = mpsc::channel(64);
        let driver = Driver { connection: Connection::new(io, config(), Mode::Server), requested, waiting: None };
        spawn(driver.run());
        Self(requests)
    }

    pub(crate) async fn dial(&self) -> Box<dyn Pipe> {
        let (tell, stream) = oneshot::channel();
        self.0.send(tell).await.expect("the connection is open");
        Box::new(stream.await.expect("the connection is open").compat())
    }
}

/// The agent's side, which serves what the server opens.
pub(crate) fn agent(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let (_, requested) = mpsc::channel(1);
    spawn(Driver { connection: Connection::new(io, config(), Mode::Client), requested, waiting: None }.run());
}

struct Driver<T> {
    connection: Connection<T>,
    requested: mpsc::Receiver<Request>,
    waiting: Option<Request>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Ends with the connection.
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting.is_none()
                && let Poll::Ready(Some(request)) = self.requested.poll_recv(cx)
            {
                self.waiting = Some(request);
            }
            if self.waiting.is_some() {
                match self.connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        // Whoever asked may have gone; then the stream goes too.
                        let _ = self.waiting.take().map(|request| request.send(stream));
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => drop(spawn(serve(stream.compat()))),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The defaults, but for room for all measured streams. The default window of the connection would be used up by what
/// so many are guaranteed, and none could grow.
fn config() -> Config {
    let mut config = Config::default();
    config.set_max_connection_receive_window(None).set_max_num_streams(4096);
    config
}
