//! Asks by extended `CONNECT`, over HTTP/2 (RFC 8441), on a connection that bears this one WebSocket.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{SEC_WEBSOCKET_VERSION, USER_AGENT},
};
use hyper::{client::conn::http2, ext::Protocol, rt::Executor, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{AGENT, Answer, BadUri, BoxError, NoConnect, offer_protocol, refused, upgrade::host};
use crate::link::messages::{MessageLink, Side};

/// How long the server's settings may take: they are the first that it says.
const SETTINGS_WITHIN: Duration = Duration::from_secs(5);

/// How long a link's last words may take to leave once it was dropped.
const FAREWELL_WITHIN: Duration = Duration::from_secs(5);

/// Asks, and makes a link of what is granted, with the longest message that `judge` finds right. Only then is there a task behind
/// it, which serves the connection and ends with the link.
pub(super) async fn open<I, T>(
    io: I,
    uri: &Uri,
    headers: HeaderMap,
    offer: bool,
    judge: impl FnOnce(&HeaderMap) -> Result<(usize, T), BoxError>,
) -> Result<Answer<T>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let request = request(uri, headers, offer)?;
    let (spawner, mut tasks) = tasks();
    let (mut sender, mut connection) = http2::handshake::<_, I, String>(spawner, io).await?;
    // Before the server's settings allow it, this must not be asked.
    let offered = std::future::poll_fn(|cx| {
        let _ = Pin::new(&mut tasks).poll(cx);
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(Err(NoConnect::NoHttp2));
        }
        if connection.is_extended_connect_protocol_enabled() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    timeout(SETTINGS_WITHIN, offered).await.unwrap_or(Err(NoConnect::NotOffered))?;
    tasks.running.push(Box::pin(async { drop(connection.await) }));
    let granted = {
        let mut exchange = pin!(async {
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::OK {
                return Ok(Err(refused(response).await));
            }
            let judged = judge(response.headers())?;
            Ok::<_, BoxError>(Ok((hyper::upgrade::on(response).await?, judged)))
        });
        tokio::select! {
            outcome = &mut exchange => outcome,
            // The connection has failed: the exchange is told, and knows better what it means.
            () = &mut tasks => exchange.await,
        }?
    };
    let (upgraded, (max_message, judged)) = match granted {
        Ok(granted) => granted,
        Err(refused) => return Ok(Err(refused)),
    };
    let (link, dropped) = oneshot::channel();
    tokio::spawn(serve(tasks, dropped));
    let io = Stream { io: TokioIo::new(upgraded), _link: link };
    Ok(Ok((MessageLink::with_early(io, &[], Side::Client, max_message), judged)))
}

fn request(uri: &Uri, more: HeaderMap, offer: bool) -> Result<Request<String>, BoxError> {
    let scheme = uri.scheme().cloned().ok_or(BadUri)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme(scheme).authority(host(uri)?.as_bytes()).path_and_query(path).build()?;
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, AGENT);
    headers.extend(more);
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    offer_protocol(headers, offer);
    Ok(request)
}

/// Serves a connection for as long as its link is there, and a little longer for what that has said last.
async fn serve(mut tasks: Tasks, dropped: oneshot::Receiver<()>) {
    tokio::select! {
        () = &mut tasks => {}
        _ = dropped => drop(timeout(FAREWELL_WITHIN, tasks).await),
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes what hyper wants spawned. Its end of the channel is as bounded as the streams of the connection: one.
#[derive(Clone)]
struct Spawner(mpsc::UnboundedSender<Task>);

/// What hyper had spawned, as one future, which ends when all of that has. A task for each could not be waited for here,
/// and would outlive its link.
struct Tasks {
    spawned: mpsc::UnboundedReceiver<Task>,
    running: FuturesUnordered<Task>,
}

fn tasks() -> (Spawner, Tasks) {
    let (spawner, spawned) = mpsc::unbounded_channel();
    (Spawner(spawner), Tasks { spawned, running: FuturesUnordered::new() })
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        // Fails when the connection is given up.
        let _ = self.0.send(Box::pin(task));
    }
}

impl Future for Tasks {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(Some(task)) = self.spawned.poll_recv(cx) {
                self.running.push(task);
            }
            if ready!(self.running.poll_next_unpin(cx)).is_none() {
                return Poll::Ready(());
            }
        }
    }
}

/// The HTTP/2 stream that is the link's byte stream.
struct Stream {
    io: TokioIo<Upgraded>,
    /// Dropped with it, which tells the task that serves the connection.
    _link: oneshot::Sender<()>,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
