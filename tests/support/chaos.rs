//! A TCP proxy between an agent and a server that breaks connections: after a byte of a plan, or when it is told to.

use std::{
    future::poll_fn,
    io,
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::plan::{Cut, How, Way};

/// What is read before it is written, each way of a connection.
const BUFFER: usize = 64 * 1024;

/// Nothing that a test waits for takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy. Dropped, it closes what it has open and refuses the rest.
#[derive(Debug)]
pub(crate) struct Chaos {
    /// Where agents connect.
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that agents made, refused ones left out.
    pub(crate) accepted: u64,
    /// Connections that were broken; one that was silenced first counts again.
    pub(crate) cuts: u64,
    /// Bytes that were passed on to the server.
    pub(crate) to_server: u64,
    /// Bytes that were passed on to the agent.
    pub(crate) to_agent: u64,
}

#[derive(Debug)]
struct Shared {
    counts: watch::Sender<Counts>,
    order: watch::Sender<How>,
    down: AtomicBool,
}

impl Chaos {
    /// Starts a proxy for a server. Each connection breaks by the plan's next cut; those that come when it has no more
    /// do not break by themselves.
    pub(crate) async fn start(
        server: SocketAddr,
        plan: impl IntoIterator<Item = Cut, IntoIter: Send + 'static>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("a bound listener");
        let shared = Arc::new(Shared {
            counts: watch::Sender::default(),
            order: watch::Sender::new(How::Reset),
            down: AtomicBool::new(false),
        });
        let accepting = accept(listener, server, plan.into_iter(), Arc::clone(&shared));
        Self { addr, shared, accepting: tokio::spawn(accepting).abort_handle() }
    }

    /// Breaks every connection that there is. A silent one can be broken once more.
    pub(crate) fn cut_now(&self, how: How) {
        self.shared.order.send_replace(how);
    }

    /// Whether connections are refused from now on. They are reset once they are made: a port that is closed for a
    /// while may be somebody else's afterwards.
    pub(crate) fn down(&self, down: bool) {
        self.shared.down.store(down, Ordering::Relaxed);
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until something has happened.
    pub(crate) async fn until(&self, happened: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let waited = timeout(PATIENCE, counts.wait_for(happened)).await;
        *waited.unwrap_or_else(|_| panic!("it does not come to that: {:?}", self.counts())).expect("it runs")
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts for ever. The connections are its own and end with it.
async fn accept(listener: TcpListener, server: SocketAddr, mut plan: impl Iterator<Item = Cut>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let agent = tokio::select! {
            accepted = listener.accept() => accepted.expect("a listener that goes on").0,
            Some(_) = connections.join_next() => continue,
        };
        if shared.down.load(Ordering::Relaxed) {
            reset(&agent);
        } else {
            shared.counts.send_modify(|counts| counts.accepted += 1);
            let (order, shared) = (shared.order.subscribe(), Arc::clone(&shared));
            connections.spawn(connect(agent, server, plan.next(), order, shared));
        }
    }
}

async fn connect(
    agent: TcpStream,
    server: SocketAddr,
    cut: Option<Cut>,
    mut order: watch::Receiver<How>,
    shared: Arc<Shared>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return reset(&agent) };
    for socket in [&agent, &server] {
        socket.set_nodelay(true).expect("a TCP socket");
    }
    let meter = Meter { shared, state: Mutex::new(State { cut, bytes: 0, silent: None }) };
    let mut pumps = pin!(async {
        tokio::try_join!(pump(&agent, &server, Way::ToServer, &meter), pump(&server, &agent, Way::ToAgent, &meter))
    });
    loop {
        let how = tokio::select! {
            biased;
            ended = &mut pumps => {
                if ended.is_err() {
                    [&agent, &server].into_iter().for_each(reset);
                }
                return;
            }
            // Polled behind the pumps, which alone can bring it about, so that it needs no waker of its own.
            how = poll_fn(|_| meter.due()) => how,
            Ok(()) = order.changed() => *order.borrow_and_update(),
        };
        meter.shared.counts.send_modify(|counts| counts.cuts += 1);
        match how {
            How::Silence(way) => meter.silence(way),
            How::Reset => return [&agent, &server].into_iter().for_each(reset),
            How::Close => {
                [&agent, &server].into_iter().for_each(finish);
                // A socket that is closed while there is something to read in it resets.
                tokio::join!(drain(&agent), drain(&server));
                return;
            }
        }
    }
}

/// What may still pass on one connection.
struct Meter {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    /// What is to come.
    cut: Option<Cut>,
    /// Bytes that were passed on, of those that it counts.
    bytes: u64,
    silent: Option<Way>,
}

impl Meter {
    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().expect("nobody panics with it"))
    }

    /// How many bytes may pass this way now.
    fn room(&self, way: Way) -> usize {
        self.with(|state| match state.cut {
            _ if state.silent.is_some_and(|silent| silent.has(way)) => 0,
            Some(cut) if cut.way.has(way) => usize::try_from(cut.after_bytes - state.bytes).unwrap_or(usize::MAX),
            _ => usize::MAX,
        })
    }

    /// Waits until bytes may pass this way. What changes it has the connection's task poll this again.
    async fn open(&self, way: Way) {
        poll_fn(|_| if self.room(way) > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn passed(&self, way: Way, n: usize) {
        let n = n as u64;
        self.with(|state| {
            if state.cut.is_some_and(|cut| cut.way.has(way)) {
                state.bytes += n;
            }
        });
        self.shared.counts.send_modify(|counts| match way {
            Way::ToServer => counts.to_server += n,
            _ => counts.to_agent += n,
        });
    }

    /// How the connection breaks, once the byte has passed.
    fn due(&self) -> Poll<How> {
        self.with(|state| match state.cut {
            Some(Cut { after_bytes, how, .. }) if state.bytes == after_bytes => {
                state.cut = None;
                Poll::Ready(how)
            }
            _ => Poll::Pending,
        })
    }

    fn silence(&self, way: Way) {
        self.with(|state| {
            state.silent = Some(state.silent.filter(|silent| *silent != way).map_or(way, |_| Way::Both));
        });
    }
}

/// Passes bytes on, one way, to their end.
async fn pump(from: &TcpStream, to: &TcpStream, way: Way, meter: &Meter) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        from.readable().await?;
        meter.open(way).await;
        let read = match from.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            to.writable().await?;
            meter.open(way).await;
            // Nothing is awaited from the look at the room to the count: both ways may share it.
            match to.try_write(&rest[..rest.len().min(meter.room(way))]) {
                Ok(written) => {
                    meter.passed(way, written);
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // That a peer is gone is news that goes the other way.
                    meter.open(way.back()).await;
                    return Err(error);
                }
            }
        }
    }
    finish(to);
    Ok(())
}

/// Reads to the end, and throws it away.
async fn drain(socket: &TcpStream) {
    let mut buffer = vec![0; BUFFER];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Tells a peer that no more comes. What is under way arrives before it.
fn finish(socket: &TcpStream) {
    // tokio shuts down what it has to itself only. It fails if the peer has reset.
    let same = socket.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
    let _ = same.and_then(|same| same.shutdown(Shutdown::Write));
}

/// Has the socket reset when it is dropped: what is under way is lost.
fn reset(socket: &TcpStream) {
    socket.set_zero_linger().expect("a TCP socket");
}
