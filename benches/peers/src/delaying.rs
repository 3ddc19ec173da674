//! A TCP relay that delivers every byte some time after it came, as a long link does. Threads, and not tasks: timers of
//! the runtime have a resolution of a millisecond, which is a twentieth of the shortest delay.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// What one read takes.
const PIECE: usize = 64 * 1024;

/// How many pieces may be on the way, in each direction of a connection: 256 MiB, more than any carrier has in flight.
const ON_THE_WAY: usize = 4096;

/// A relay at work; it takes no new connections once this is dropped, and those it has end with their ends.
pub(crate) struct Delaying {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Delaying {
    /// Starts a relay to `target` that adds so much to a round trip.
    pub(crate) fn start(target: SocketAddr, round_trip: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self { address: listener.local_addr()?, stopped: Arc::default() };
        let stopped = relay.stopped.clone();
        thread::spawn(move || {
            for dialled in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // A connection that cannot be carried is dropped, which its ends see.
                let _ = dialled.and_then(|dialled| carry(dialled, target, round_trip));
            }
        });
        Ok(relay)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Delaying {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections; if it has gone, all the better.
        let _ = TcpStream::connect(self.address);
    }
}

/// The dialler's first byte waits a round trip longer, which is what TCP's handshake takes.
fn carry(dialled: TcpStream, target: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let opened = Instant::now();
    let listening = TcpStream::connect(target)?;
    for socket in [&dialled, &listening] {
        socket.set_nodelay(true)?;
    }
    let one_way = round_trip / 2;
    start(dialled.try_clone()?, listening.try_clone()?, one_way, opened + round_trip + one_way);
    start(listening, dialled, one_way, opened);
    Ok(())
}

/// One direction; nothing is delivered before `earliest`.
fn start(from: TcpStream, to: TcpStream, delay: Duration, earliest: Instant) {
    let (pieces, due) = sync_channel(ON_THE_WAY);
    thread::spawn(move || read(from, &pieces, delay, earliest));
    thread::spawn(move || write(to, &due));
}

fn read(mut from: TcpStream, pieces: &SyncSender<(Instant, Vec<u8>)>, delay: Duration, earliest: Instant) {
    let mut buffer = vec![0; PIECE];
    while let Ok(n) = from.read(&mut buffer)
        && n > 0
    {
        let due = (Instant::now() + delay).max(earliest);
        if pieces.send((due, buffer[..n].to_vec())).is_err() {
            break;
        }
    }
}

fn write(mut to: TcpStream, due: &Receiver<(Instant, Vec<u8>)>) {
    for (at, piece) in due {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // Its peer may have closed it already.
    let _ = to.shutdown(Shutdown::Write);
}
