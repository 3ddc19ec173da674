//! What becomes of two machines that present one session, and of a second agent whose server rejects it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use revdial::{
    ErrorKind, TunnelStream,
    agent::AgentStatus,
    connman::{ConnectionManager, Displace, Grace, GracePolicy, LinkLoss, Registration},
    frame::{CloseCode, Frame, SessionId},
    proto::SessionConfig,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, split},
    time::{Instant, sleep},
};

use crate::{
    attach::{back, welcomed},
    net::{Net, relay::Fault},
    raw::{Arrived, RawAgent},
    support::{Running, World, end, talk, until},
};

/// A server behind a wire that notes the sessions which it welcomes agents to.
fn tapped(net: &Net, sessions: &Arc<Mutex<Vec<SessionId>>>) -> Net {
    let (net, sessions) = (net.clone(), Arc::clone(sessions));
    Net::new(move |io| {
        tokio::spawn(tap(io, net.open(), Arc::clone(&sessions)));
    })
}

async fn tap(agent: DuplexStream, server: DuplexStream, sessions: Arc<Mutex<Vec<SessionId>>>) {
    let ((mut agent_read, mut agent_write), (mut server_read, mut server_write)) = (split(agent), split(server));
    let up = tokio::io::copy(&mut agent_read, &mut server_write);
    let down = async {
        let (mut seen, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
        loop {
            let n = server_read.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, std::io::Error>(());
            }
            seen.extend_from_slice(&buffer[..n]);
            // WELCOME is the first message: 2 bytes of WebSocket, 16 of the message, 8 of the frame, then the id.
            if let Some(head) = seen.windows(4).position(|four| four == b"\r\n\r\n")
                && let Some(id) = seen.get(head + 4 + 26..head + 4 + 42)
                && seen[head + 5] < 126
            {
                sessions.lock().unwrap().push(SessionId::new(id.try_into().unwrap()));
                agent_write.write_all(&buffer[..n]).await?;
                break;
            }
            agent_write.write_all(&buffer[..n]).await?;
        }
        tokio::io::copy(&mut server_read, &mut agent_write).await.map(drop)
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

/// Another machine has the memory of a running agent, and dials with it.
async fn copied(world: &World) -> (Running, TunnelStream, TunnelStream, RawAgent) {
    let sessions = Arc::default();
    let mut running = Running::new(tapped(&world.net, &sessions).agent());
    running.connected().await;
    let (here, there) = world.pair(&mut running).await;
    sleep(Duration::from_secs(1)).await;
    let session = sessions.lock().unwrap()[0];
    let mut copy = world.raw().await;
    let mut hello = back(session, 100);
    hello.instance = world.info().instance;
    // OPEN and ACCEPT.
    copy.attach(hello, 1, 1).await;
    assert!(welcomed(&mut copy).await, "the higher attempt has it");
    (running, here, there, copy)
}

#[tokio::test(start_paused = true)]
async fn m58_b56_of_two_copies_the_lower_attempt_starts_afresh_as_another_instance_and_displaces() {
    let world = World::new();
    let (mut agent, mut here, mut there, mut copy) = copied(&world).await;
    let instance = world.info().instance;
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    // The stream goes on at the copy, which is told to finish.
    until("displaced", || world.info().instance != instance).await;
    agent.connected().await;
    let Arrived::Frames(_, frames) = copy.recv().await else { panic!("closed") };
    assert!(matches!(frames[0], Frame::Drain { code: CloseCode::REPLACED, .. }), "{frames:?}");
    let (mut new, mut new_there) = world.pair(&mut agent).await;
    talk((&mut new, &mut new_there)).await;
    assert_eq!(copy.closed().await, CloseCode::REPLACED);
    assert_eq!(end(&mut here).await, Some(ErrorKind::Replaced));
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{replaced}"), 1);
    assert_eq!(world.counted.resumes(), ["fenced 1"]);
    assert_eq!(world.events(), ["connected", "resumed", "replaced", "connected"]);
    drop((here, there, new, new_there, copy));
    world.over([agent]).await;
}

/// The first agent keeps its key.
struct Rejecting;

impl GracePolicy for Rejecting {
    fn grace(&self, _: &LinkLoss<'_>) -> Grace {
        Grace::Hold(Duration::from_secs(30))
    }

    fn displace(&self, _: &Registration, _: &Registration) -> Displace {
        Displace::Reject
    }
}

#[tokio::test(start_paused = true)]
async fn b56_of_two_copies_the_lower_attempt_is_rejected_if_the_policy_says_so() {
    let world = World::of(ConnectionManager::builder().grace(Rejecting), SessionConfig::default());
    let (agent, here, mut there, copy) = copied(&world).await;
    assert_eq!(end(&mut there).await, Some(ErrorKind::SessionLost));
    let mut status = agent.status.clone();
    let refused = status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await;
    let refused = refused.unwrap().clone();
    let AgentStatus::Refused { cause, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(cause, ErrorKind::KeyInUse);
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{rejected}"), 1);
    drop((here, there, copy));
    world.over([agent]).await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_is_never_rejected_also_while_the_server_trusts_the_old_link() {
    let world = World::of(ConnectionManager::builder().grace(Rejecting), SessionConfig::default());
    let mut agent = world.agent().await;
    let before = world.baseline().await;
    let (mut here, mut there) = world.pair(&mut agent).await;
    for fault in [Fault::AgentGone, Fault::Cut] {
        world.net.fault(fault);
        talk((&mut here, &mut there)).await;
    }
    let mut second = Running::new(world.net.agent());
    let refused = second.status.wait_for(|status| matches!(status, AgentStatus::Refused { .. })).await;
    let refused = refused.unwrap().clone();
    let AgentStatus::Refused { cause, until: again, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(cause, ErrorKind::KeyInUse);
    assert!(again - Instant::now() >= Duration::from_secs(29));
    talk((&mut here, &mut there)).await;
    assert_eq!(world.counted.resumes(), ["fenced 1", "ok 1"]);
    assert_eq!(world.counted.sum("revdial_key_conflicts_total{rejected}"), 1);
    assert!(!world.events().contains(&"replaced"));
    second.kill().await;
    drop((here, there));
    world.net.fault(Fault::Cut);
    agent.connected().await;
    world.settled(&before).await;
    world.over([agent]).await;
}
