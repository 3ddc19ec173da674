//! A TCP relay between agent and gateway, whose connection is cut at a word: RST to both at once.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{mpsc, oneshot},
};

/// What one read takes: two messages of the largest.
const BUFFER: usize = 128 * 1024;

/// Who wants a cut, and is told when it was.
type Cuts = mpsc::Receiver<oneshot::Sender<Instant>>;

/// A relay at work; it carries one connection at a time, and ends when this is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    cuts: mpsc::Sender<oneshot::Sender<Instant>>,
}

impl Relay {
    /// Starts a relay to the gateway, on another thread.
    pub(crate) async fn start(on: &Handle, gateway: SocketAddr) -> Self {
        let (cuts, wanted) = mpsc::channel(1);
        let (tell, address) = oneshot::channel();
        on.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("a bound listener")).expect("the starter waits");
            carry_all(listener, gateway, wanted).await;
        });
        Self { address: address.await.expect("the relay starts"), cuts }
    }

    /// Where the agent dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the connection, or the next one if there is none. Gives the time just before.
    pub(crate) async fn cut(&self) -> Instant {
        let (tell, told) = oneshot::channel();
        self.cuts.send(tell).await.expect("the relay goes on");
        told.await.expect("the relay goes on")
    }
}

async fn carry_all(listener: TcpListener, gateway: SocketAddr, mut cuts: Cuts) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut far = TcpStream::connect(gateway).await.expect("the gateway listens");
        for socket in [&near, &far] {
            socket.set_nodelay(true).expect("a TCP socket");
            socket.set_zero_linger().expect("a TCP socket");
        }
        let cut = tokio::select! {
            biased;
            cut = cuts.recv() => cut,
            _ = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER) => continue,
        };
        let Some(tell) = cut else { return };
        let at = Instant::now();
        drop((near, far));
        tell.send(at).expect("whoever wanted the cut waits");
    }
}
