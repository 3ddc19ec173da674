//! The proxy itself: it breaks connections at the byte and in the way that it is told, and nowhere else.

use std::{future::Future, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    PATIENCE,
    chaos::Chaos,
    plan::{Cut, How, Plan, Way},
};

/// Long enough for what is under way on loopback to have arrived.
const NOTHING_COMES: Duration = Duration::from_millis(50);

const WAYS: [Way; 2] = [Way::ToServer, Way::ToAgent];

/// A connection through a proxy, by its two ends.
struct Line {
    chaos: Chaos,
    agent: TcpStream,
    server: TcpStream,
}

impl Line {
    async fn new(cut: Option<Cut>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let chaos = Chaos::start(listener.local_addr().unwrap(), cut).await;
        let agent = TcpStream::connect(chaos.addr).await.unwrap();
        let (server, _) = soon(listener.accept()).await.unwrap();
        Self { chaos, agent, server }
    }

    /// Who writes this way, and who reads.
    fn ends(&mut self, way: Way) -> (&mut TcpStream, &mut TcpStream) {
        match way {
            Way::ToServer => (&mut self.agent, &mut self.server),
            _ => (&mut self.server, &mut self.agent),
        }
    }
}

async fn soon<F: Future>(event: F) -> F::Output {
    timeout(PATIENCE, event).await.expect("an event")
}

/// What a peer sees: the bytes that come, and how they end.
async fn seen(socket: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = soon(socket.read_to_end(&mut bytes)).await;
    (bytes, end.map(drop))
}

/// Asserts that a reset ended it.
fn assert_reset(end: io::Result<()>) {
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_resets_behind_the_byte() {
    for way in WAYS {
        for after_bytes in [1, 17, 4_096, 30_000] {
            let mut line = Line::new(Some(Cut { after_bytes, way, how: How::Reset })).await;
            let (writer, reader) = line.ends(way);
            writer.write_all(&[7; 40_000]).await.unwrap();
            let (bytes, end) = seen(reader).await;
            assert_eq!(bytes.len() as u64, after_bytes, "{way:?}");
            assert_reset(end);
            assert_reset(seen(writer).await.1);
            assert_eq!(line.chaos.counts().cuts, 1);
        }
    }
}

#[tokio::test]
async fn it_closes_behind_the_byte_and_what_comes_still_harms_nobody() {
    for way in WAYS {
        for after_bytes in [1, 4_096, 65_536, 1_000_000] {
            let mut line = Line::new(Some(Cut { after_bytes, way, how: How::Close })).await;
            let (writer, reader) = line.ends(way);
            let write = async {
                writer.write_all(&vec![7; 2_000_000]).await.unwrap();
                let (bytes, end) = seen(writer).await;
                assert_eq!((bytes.len(), end.is_ok()), (0, true), "{end:?}");
            };
            let ((), (bytes, end)) = tokio::join!(write, seen(reader));
            assert_eq!((bytes.len() as u64, end.is_ok()), (after_bytes, true), "{way:?}: {end:?}");
            assert_eq!(line.chaos.counts().cuts, 1);
        }
    }
}

#[tokio::test]
async fn it_falls_silent_behind_the_byte_one_way_or_both() {
    for way in WAYS {
        for silent in [way, Way::Both] {
            let mut line = Line::new(Some(Cut { after_bytes: 5_000, way, how: How::Silence(silent) })).await;
            let (writer, reader) = line.ends(way);
            writer.write_all(&[7; 9_000]).await.unwrap();
            let mut bytes = [0; 5_000];
            soon(reader.read_exact(&mut bytes)).await.unwrap();
            assert!(timeout(NOTHING_COMES, reader.read_u8()).await.is_err(), "{way:?}");
            // The other way goes on, or it does not.
            reader.write_u8(9).await.unwrap();
            match silent {
                Way::Both => assert!(timeout(NOTHING_COMES, writer.read_u8()).await.is_err(), "{way:?}"),
                _ => assert_eq!(soon(writer.read_u8()).await.unwrap(), 9),
            }
            // Both sockets are still there, until somebody ends it.
            assert_eq!(line.chaos.counts().cuts, 1);
            line.chaos.cut_now(How::Reset);
            assert_reset(seen(&mut line.agent).await.1);
            assert_reset(seen(&mut line.server).await.1);
            assert_eq!(line.chaos.counts().cuts, 2);
        }
    }
}

#[tokio::test]
async fn who_closes_into_a_silence_is_not_heard() {
    for way in WAYS {
        for how in [How::Silence(way), How::Silence(Way::Both)] {
            let line = Line::new(None).await;
            line.chaos.cut_now(how);
            line.chaos.until(|counts| counts.cuts == 1).await;
            let Line { chaos: _chaos, agent, server } = line;
            let mut listens = match way {
                Way::ToServer => server, // and the agent's socket is dropped
                _ => agent,
            };
            assert!(timeout(NOTHING_COMES, listens.read_u8()).await.is_err(), "{way:?}, {how:?}");
            // Nor is it when the other end finds out.
            let _ = listens.write_all(&[7; 1_000]).await;
            assert!(timeout(NOTHING_COMES, listens.read_u8()).await.is_err(), "{way:?}, {how:?}");
        }
    }
}

#[tokio::test]
async fn bytes_of_both_ways_count_together() {
    let mut line = Line::new(Some(Cut { after_bytes: 1_000, way: Way::Both, how: How::Close })).await;
    line.agent.write_all(&[7; 600]).await.unwrap();
    soon(line.server.read_exact(&mut [0; 600])).await.unwrap();
    line.server.write_all(&[7; 600]).await.unwrap();
    assert_eq!(seen(&mut line.agent).await.0.len(), 400);
    let counts = line.chaos.counts();
    assert_eq!((counts.to_server, counts.to_agent, counts.cuts), (600, 400, 1));
}

#[tokio::test]
async fn without_a_cut_bytes_ends_and_resets_pass() {
    let mut line = Line::new(None).await;
    for way in WAYS {
        let (writer, reader) = line.ends(way);
        let data = vec![7; 3_000_000];
        let write = async {
            writer.write_all(&data).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let ((), (bytes, end)) = tokio::join!(write, seen(reader));
        assert!(bytes == data && end.is_ok(), "{way:?}: {} bytes, {end:?}", bytes.len());
    }
    let mut line = Line::new(None).await;
    line.agent.set_zero_linger().unwrap();
    drop(line.agent);
    assert_reset(seen(&mut line.server).await.1);
    assert_eq!(line.chaos.counts().cuts, 0);
}

#[tokio::test]
async fn it_refuses_while_it_is_down() {
    let line = Line::new(None).await;
    line.chaos.down(true);
    let mut refused = TcpStream::connect(line.chaos.addr).await.unwrap();
    assert_reset(seen(&mut refused).await.1);
    assert_eq!(line.chaos.counts().accepted, 1, "what is there stays");
    line.chaos.down(false);
    let _again = TcpStream::connect(line.chaos.addr).await.unwrap();
    line.chaos.until(|counts| counts.accepted == 2).await;
}

#[tokio::test]
async fn each_connection_has_the_next_cut_and_then_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = [10, 20].map(|after_bytes| Cut { after_bytes, way: Way::ToServer, how: How::Close });
    let chaos = Chaos::start(listener.local_addr().unwrap(), plan).await;
    for expected in [10, 20, 30] {
        let mut agent = TcpStream::connect(chaos.addr).await.unwrap();
        let (mut server, _) = soon(listener.accept()).await.unwrap();
        agent.write_all(&[7; 30]).await.unwrap();
        agent.shutdown().await.unwrap();
        assert_eq!(seen(&mut server).await.0.len(), expected);
    }
}

#[tokio::test]
async fn dropped_it_ends_what_it_has_open() {
    let Line { chaos, mut agent, mut server } = Line::new(None).await;
    drop(chaos);
    assert!(seen(&mut agent).await.1.is_ok());
    assert!(seen(&mut server).await.1.is_ok());
}

#[test]
fn a_plan_is_its_seeds_and_keeps_to_the_transfer() {
    for (bytes, cuts) in [(8 << 20, 20), (16 << 20, 40), (128 << 20, 100), (1 << 30, 1_000)] {
        for seed in 0..1_000 {
            let plan = Plan::new(seed, cuts, Way::ToAgent, bytes);
            let cuts = Vec::from_iter(plan.clone());
            assert!(cuts.iter().copied().eq(plan), "{seed}");
            let passes: u64 = cuts.iter().map(|cut| cut.after_bytes).sum();
            assert!(passes < bytes * 9 / 10, "{seed}: {passes} of {bytes}");
            assert!(cuts.iter().all(|cut| cut.after_bytes > 0));
            assert!(cuts[0].after_bytes > 2_000, "{seed}: the first session begins");
        }
    }
    let cuts = Vec::from_iter(Plan::new(1, 10_000, Way::ToAgent, 10_000 << 20));
    let early = cuts.iter().filter(|cut| cut.after_bytes < 2_000);
    assert!((1_100..1_400).contains(&early.clone().count()));
    for way in [Way::ToServer, Way::ToAgent, Way::Both] {
        for how in [How::Reset, How::Close] {
            let some = early.clone().filter(|cut| (cut.way, cut.how) == (way, how)).count();
            assert!((150..280).contains(&some), "{way:?}, {how:?}: {some}");
        }
    }
    let in_vain = cuts.split(|cut| cut.after_bytes >= 128 << 10 && cut.how == How::Close).map(<[Cut]>::len).max();
    assert_eq!(in_vain, Some(8));
}
