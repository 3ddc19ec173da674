//! A server that agents reach over duplex pipes: it can be the real one or say what a test tells it to, and its links
//! can be cut, silenced or held half-open.

pub(crate) mod relay;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use revdial::{
    agent::{Agent, AgentBuilder},
    connman::ConnectionManager,
    frame::{CloseCode, Frame, MessageHead},
    server::{Authorize, RevDialLayer, SharedBearer},
};
use tokio::{io::DuplexStream, sync::watch, task::AbortHandle, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};
use tower::Service;

use relay::{Fault, Plan};

/// The token that the real server takes.
pub(crate) const TOKEN: &str = "token";

/// An agent's way to a server: a `Service<Uri>` that counts, and whose links can be cut.
#[derive(Clone)]
pub(crate) struct Net {
    serve: Arc<Mutex<Serve>>,
    state: Arc<Mutex<State>>,
}

/// What takes the server's end of a byte stream.
type Serve = Arc<dyn Fn(DuplexStream) + Send + Sync>;

#[derive(Default)]
struct State {
    dials: Vec<(Instant, Uri)>,
    links: Vec<Link>,
    /// Of the links that come next.
    plans: VecDeque<Plan>,
    down: bool,
}

struct Link {
    task: AbortHandle,
    faults: watch::Sender<Fault>,
}

impl Net {
    /// A net to whatever serves a byte stream.
    pub(crate) fn new(serve: impl Fn(DuplexStream) + Send + Sync + 'static) -> Self {
        Self { serve: Arc::new(Mutex::new(Arc::new(serve))), state: Arc::default() }
    }

    /// A net to a real server.
    pub(crate) fn to(connman: &ConnectionManager) -> Self {
        Self::of(RevDialLayer::new(connman.clone(), SharedBearer::new(TOKEN).unwrap()))
    }

    /// A net to a real server with this layer.
    pub(crate) fn of<A: Authorize>(layer: RevDialLayer<A>) -> Self {
        let service = layer.into_service();
        Self::new(move |io| {
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(io), TowerToHyperService::new(service.clone()))
                .with_upgrades();
            tokio::spawn(connection);
        })
    }

    /// From now on this net leads where that one leads. The links that there are stay.
    pub(crate) fn lead_to(&self, other: &Self) {
        let serve = other.serve.lock().unwrap().clone();
        *self.serve.lock().unwrap() = serve;
    }

    /// A link to the server that no agent has asked for.
    pub(crate) fn open(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(256 * 1024);
        (self.serve.lock().unwrap().clone())(far);
        near
    }

    /// A net to a server that answers every request with this status and these headers, and a page.
    pub(crate) fn answering(status: u16, headers: &'static [(&'static str, &'static str)]) -> Self {
        let answer = move |_: Request<Incoming>| async move {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from("<html>log in</html>"))).unwrap())
        };
        Self::new(move |io| {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(answer)));
        })
    }

    /// A net to a server that grants the upgrade, hears HELLO and then closes with this code; with CLOSE before, or
    /// by the WebSocket alone.
    pub(crate) fn closing(code: CloseCode, with_frame: bool) -> Self {
        let answer = move |mut request: Request<Incoming>| async move {
            let key = request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes().to_owned();
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                let Some(Ok(_hello)) = socket.next().await else { return };
                if with_frame {
                    let mut message = BytesMut::new();
                    MessageHead { number: 0, received: 0 }.encode(&mut message);
                    Frame::Close { code, reason: "because".into() }.encode(&mut message);
                    let _ = socket.send(Message::Binary(message.freeze())).await;
                }
                let frame = CloseFrame { code: code.number().into(), reason: "because".into() };
                let _ = socket.close(Some(frame)).await;
                while let Some(Ok(_)) = socket.next().await {}
            });
            let response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_PROTOCOL, "revdial.v1")
                .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(&key));
            Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
        };
        Self::new(move |io| {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(answer));
            tokio::spawn(connection.with_upgrades());
        })
    }

    /// An agent `a` on this net, with the right token.
    pub(crate) fn agent(&self) -> Agent {
        self.build(Agent::builder("http://gateway", "a").token(TOKEN))
    }

    /// This agent on this net.
    pub(crate) fn build(&self, builder: AgentBuilder) -> Agent {
        builder.build_with(self.clone()).unwrap()
    }

    /// Ends every link that there is, without a word.
    pub(crate) fn cut(&self) {
        for link in self.state.lock().unwrap().links.drain(..) {
            link.task.abort();
        }
    }

    /// Has every link that there is fail in this way.
    pub(crate) fn fault(&self, fault: Fault) {
        for link in &self.state.lock().unwrap().links {
            link.faults.send_replace(fault);
        }
    }

    /// The next links are cut where these plans say.
    pub(crate) fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        self.state.lock().unwrap().plans.extend(plans);
    }

    /// The next links are cut nowhere.
    pub(crate) fn unplan(&self) {
        self.state.lock().unwrap().plans.clear();
    }

    /// How many links there are, those that one end has left included.
    pub(crate) fn links(&self) -> usize {
        let links = &mut self.state.lock().unwrap().links;
        links.retain(|link| !link.task.is_finished());
        links.len()
    }

    /// Whether connects fail from now on.
    pub(crate) fn down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    /// When connects came.
    pub(crate) fn dials(&self) -> Vec<Instant> {
        self.state.lock().unwrap().dials.iter().map(|(when, _)| *when).collect()
    }

    /// Which URIs were asked for.
    pub(crate) fn uris(&self) -> Vec<Uri> {
        self.state.lock().unwrap().dials.iter().map(|(_, uri)| uri.clone()).collect()
    }
}

impl Service<Uri> for Net {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut state = self.state.lock().unwrap();
        state.dials.push((Instant::now(), uri));
        if state.down {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (agent, near) = tokio::io::duplex(256 * 1024);
        let far = self.open();
        let (faults, told) = watch::channel(Fault::None);
        let plan = state.plans.pop_front().unwrap_or_default();
        let link = tokio::spawn(relay::relay(near, far, plan, told));
        state.links.push(Link { task: link.abort_handle(), faults });
        Box::pin(async { Ok(TokioIo::new(agent)) })
    }
}
