//! What runs through a tunnel when its link fails, and that it comes through whole.

use futures_util::FutureExt;
use revdial::{TargetName, TunnelStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use crate::{
    net::relay::Fault,
    support::{LONG, Running, World, end, key, say, talk},
};

const BYTES: usize = 2 * 1024 * 1024;

/// What runs when the link fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    Download,
    Upload,
    BothWays,
    /// The caller has finished, which the agent knows.
    HalfClosedHere,
    /// The agent has finished, which the caller knows.
    HalfClosedThere,
    /// Both finish, and neither FIN has left.
    Finishing,
    Idle,
    /// Small messages to and fro, as after an upgrade.
    Conversation,
    /// Dials that are not answered.
    Dials,
    /// More dials than may be unanswered, so that some are queued.
    QueuedDials,
}

impl During {
    pub(crate) const ALL: [Self; 10] = [
        Self::Download,
        Self::Upload,
        Self::BothWays,
        Self::HalfClosedHere,
        Self::HalfClosedThere,
        Self::Finishing,
        Self::Idle,
        Self::Conversation,
        Self::Dials,
        Self::QueuedDials,
    ];

    /// Has it run, and the link fail by `strike` in its middle.
    pub(crate) async fn run(self, world: &World, agent: &mut Running, strike: impl FnOnce()) {
        match self {
            Self::Dials => return dials_in_flight(world, agent, strike).await,
            Self::QueuedDials => return queued_dials(world, agent, strike).await,
            _ => {}
        }
        let (mut here, mut there) = world.pair(agent).await;
        talk((&mut here, &mut there)).await;
        match self {
            Self::Download => carry(&mut there, &mut here, Some(strike)).await,
            Self::Upload => carry(&mut here, &mut there, Some(strike)).await,
            Self::BothWays => {
                let (mut here_read, mut here_write) = split(here);
                let (mut there_read, mut there_write) = split(there);
                tokio::join!(
                    carry(&mut here_write, &mut there_read, Some(strike)),
                    carry(&mut there_write, &mut here_read, None::<fn()>)
                );
            }
            Self::HalfClosedHere => half_closed(&mut here, &mut there, strike).await,
            Self::HalfClosedThere => half_closed(&mut there, &mut here, strike).await,
            Self::Finishing => {
                strike();
                AsyncWriteExt::shutdown(&mut here).await.unwrap();
                AsyncWriteExt::shutdown(&mut there).await.unwrap();
                assert_eq!((end(&mut here).await, end(&mut there).await), (None, None));
            }
            Self::Idle => {
                strike();
                talk((&mut here, &mut there)).await;
            }
            Self::Conversation => {
                let mut strike = Some(strike);
                for round in 0..100 {
                    if round == 50
                        && let Some(strike) = strike.take()
                    {
                        strike();
                    }
                    talk((&mut here, &mut there)).await;
                }
            }
            Self::Dials | Self::QueuedDials => {}
        }
    }
}

/// The one has finished; the other one goes on, and finishes, too.
async fn half_closed(done: &mut TunnelStream, going: &mut TunnelStream, strike: impl FnOnce()) {
    AsyncWriteExt::shutdown(done).await.unwrap();
    assert_eq!(end(going).await, None);
    strike();
    say(going, done).await;
    carry(going, done, None::<fn()>).await;
    assert_eq!((end(going).await, end(done).await), (None, None), "both have finished");
}

/// Dials of which the agent has taken one, and the caller does not know of any answer.
async fn dials_in_flight(world: &World, agent: &mut Running, strike: impl FnOnce()) {
    world.net.fault(Fault::SilentUp);
    let mut dials: Vec<_> = (0..20).map(|_| world.dial()).collect();
    let first = agent.accepted().await;
    assert!(dials.iter().all(|dial| !dial.is_finished()), "an answer is back");
    strike();
    let mut first = Some(first);
    for dial in &mut dials {
        let mut there = match first.take() {
            Some(there) => there,
            None => agent.accepted().await,
        };
        let mut here = dial.await.unwrap().unwrap();
        talk((&mut here, &mut there)).await;
    }
    assert_eq!(agent.untaken(), 0, "none came twice");
}

/// More dials than may be unanswered, none of which has left.
async fn queued_dials(world: &World, agent: &mut Running, strike: impl FnOnce()) {
    let mut dials: Vec<_> = (0..100).map(|_| world.connman.dial(&key(), &TargetName::default())).collect();
    for dial in &mut dials {
        assert!(dial.now_or_never().is_none());
    }
    strike();
    // In the order of the dials.
    for dial in dials {
        let (here, mut there) = tokio::join!(dial, agent.accepted());
        talk((&mut here.unwrap(), &mut there)).await;
    }
    assert_eq!(agent.untaken(), 0, "none came twice");
}

/// Bytes from one end to the other, with the end of them; the link fails when half of them have come.
pub(crate) async fn carry<W, R>(from: &mut W, to: &mut R, strike: Option<impl FnOnce()>)
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let write = async {
        for at in (0..BYTES).step_by(10_000) {
            let chunk: Vec<u8> = (at..BYTES.min(at + 10_000)).map(byte).collect();
            timeout(LONG, from.write_all(&chunk)).await.expect("room in time").unwrap();
        }
        from.shutdown().await.unwrap();
    };
    let read = async {
        let (mut strike, mut at, mut buffer) = (strike, 0, vec![0; 30_000]);
        loop {
            let n = timeout(LONG, to.read(&mut buffer)).await.expect("bytes in time").unwrap();
            if n == 0 {
                break;
            }
            assert!(buffer[..n].iter().zip(at..).all(|(got, at)| *got == byte(at)), "other bytes at {at}");
            at += n;
            if at > BYTES / 2
                && let Some(strike) = strike.take()
            {
                strike();
            }
        }
        assert_eq!(at, BYTES);
    };
    tokio::join!(write, read);
}

/// What is at this place: nothing that a shift or a repetition would leave as it is.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 13) as u8
}
