//! Dials under way when the link breaks: each opens one stream, wherever its open or its answer was lost.

use revdial::{Error, TunnelStream, agent::Listener, proto::SessionConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{Duration, timeout},
};

use crate::{
    PATIENCE,
    plan::{How, Way},
    world::World,
};

/// Long enough for a second stream to show itself.
const NOTHING_COMES: Duration = Duration::from_millis(50);

/// A connected agent that takes nothing yet.
async fn world() -> (World, Listener) {
    World::new(None, SessionConfig::default()).await
}

/// Dials, and waits until the agent has the open.
async fn dialled(world: &World) -> JoinHandle<Result<TunnelStream, Error>> {
    let before = world.chaos.counts().to_agent;
    let dial = world.dial();
    world.chaos.until(|counts| counts.to_agent > before).await;
    dial
}

/// Asserts that the dial and its stream on the other side find each other, and that there is no other stream.
async fn assert_one_stream(
    world: &World,
    mut listener: Listener,
    dial: JoinHandle<Result<TunnelStream, Error>>,
    far: Option<TunnelStream>,
) {
    let mut far = match far {
        Some(far) => far,
        None => timeout(PATIENCE, listener.accept()).await.expect("a stream").expect("a running agent"),
    };
    let mut near = timeout(PATIENCE, dial).await.expect("an answer").unwrap().expect("a stream");
    near.write_u8(1).await.unwrap();
    far.write_u8(2).await.unwrap();
    let heard = async { (far.read_u8().await.unwrap(), near.read_u8().await.unwrap()) };
    assert_eq!(timeout(PATIENCE, heard).await, Ok((1, 2)));
    assert!(timeout(NOTHING_COMES, listener.accept()).await.is_err(), "a second stream");
    assert_eq!(world.connman.stats().streams, 1);
    world.assert_one_session();
}

#[tokio::test]
async fn a_dial_that_waits_for_its_answer_survives_a_cut() {
    for how in [How::Reset, How::Close] {
        let (world, listener) = world().await;
        let dial = dialled(&world).await;
        world.cut(how).await;
        assert_one_stream(&world, listener, dial, None).await;
    }
}

#[tokio::test]
async fn a_dial_whose_open_was_lost_is_told_again() {
    let (world, listener) = world().await;
    world.cut(How::Silence(Way::ToAgent)).await;
    let dial = world.dial();
    while world.connman.stats().streams == 0 {
        tokio::task::yield_now().await;
    }
    world.cut(How::Reset).await;
    assert_one_stream(&world, listener, dial, None).await;
}

#[tokio::test]
async fn a_dial_whose_answer_was_lost_gets_it_again() {
    let (world, mut listener) = world().await;
    let dial = dialled(&world).await;
    world.cut(How::Silence(Way::ToServer)).await;
    let far = timeout(PATIENCE, listener.accept()).await.expect("a stream");
    world.cut(How::Reset).await;
    assert_one_stream(&world, listener, dial, far).await;
}

#[tokio::test]
async fn a_dial_that_is_given_up_while_the_link_is_down_leaves_nothing() {
    let (world, mut listener) = world().await;
    let given_up = dialled(&world).await;
    world.chaos.down(true);
    world.cut(How::Reset).await;
    given_up.abort();
    let dial = world.dial();
    world.chaos.down(false);
    let near = async {
        let mut near = dial.await.unwrap().expect("a stream");
        near.write_u8(1).await.unwrap();
        near
    };
    let far = async {
        loop {
            // The first may be taken here before the agent learns that it was given up.
            let mut far = listener.accept().await.expect("a running agent");
            if let Ok(heard) = far.read_u8().await {
                break (heard, far);
            }
        }
    };
    let (_near, (heard, _far)) = timeout(PATIENCE, async { tokio::join!(near, far) }).await.expect("a stream");
    assert_eq!((heard, world.connman.stats().streams), (1, 1));
    world.assert_one_session();
}
