use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{idle, link};
use crate::{
    frame::{Bounds, CloseCode, Frame, Hello, InstanceId, MessageHead, SessionId, Welcome, decode},
    link::{LinkError, MessageLink, Side},
    mux::establish::{self, EstablishError},
    proto::{Attempts, Welcomed},
};

const WITHIN: Duration = Duration::from_secs(10);

fn links() -> (MessageLink, MessageLink) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    (link(near, Side::Server), link(far, Side::Client))
}

fn hello() -> Hello {
    Hello::new(InstanceId::new([1; 16]), Bounds::default())
}

fn welcome_to(hello: &Hello) -> Welcome {
    Welcome::new(SessionId::new([2; 16]), hello.attempt, Bounds::default(), 30_000)
}

fn message(number: u64, frames: &[Frame]) -> Bytes {
    let mut message = BytesMut::new();
    MessageHead { number, received: 0 }.encode(&mut message);
    frames.iter().for_each(|frame| frame.encode(&mut message));
    message.freeze()
}

/// A first attempt.
async fn offer(agent: &mut MessageLink, base: Hello, has: u64) -> Result<(Welcome, Welcomed, u64), EstablishError> {
    establish::offer(agent, &mut Attempts::default(), &base, has, WITHIN).await
}

/// What the peer is told: the code of CLOSE, if one came, and that of the WebSocket.
async fn told(link: &mut MessageLink) -> (Option<CloseCode>, Option<CloseCode>) {
    let mut frame = None;
    loop {
        match link.recv().await {
            Ok(message) => {
                for sent in decode(message).unwrap().1 {
                    if let Frame::Close { code, .. } = sent.unwrap() {
                        frame = Some(code);
                    }
                }
            }
            Err(LinkError::Closed { code, .. }) => return (frame, code),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hello_and_welcome_carry_what_each_side_has() {
    let (mut server, mut agent) = links();
    let (offered, accepted) = tokio::join!(offer(&mut agent, hello(), 3), async {
        let accepted = establish::accept(&mut server, WITHIN).await.unwrap();
        establish::welcome(&mut server, &welcome_to(&accepted.0), 4).await.unwrap();
        accepted
    });
    let hello = Hello { attempt: 1, ..hello() };
    assert_eq!(accepted, (hello.clone(), 3));
    assert_eq!(offered.unwrap(), (welcome_to(&hello), Welcomed::Fresh, 4));
}

#[tokio::test(start_paused = true)]
async fn m34_b18_first_message_that_is_not_hello_alone_is_refused() {
    let ping = || Frame::Ping([0; 8]);
    let other_version = {
        let mut hello = hello();
        hello.version = 2;
        Frame::Hello(hello)
    };
    let absurd = Frame::Hello(Hello::new(InstanceId::new([1; 16]), Bounds { max_streams: 0, ..Bounds::default() }));
    for (bytes, expected) in [
        (message(0, &[ping()]), CloseCode::FORBIDDEN),
        (message(0, &[Frame::Hello(hello()), ping()]), CloseCode::FORBIDDEN),
        (message(1, &[Frame::Hello(hello())]), CloseCode::FORBIDDEN),
        (message(0, &[]), CloseCode::FORBIDDEN),
        (message(0, &[absurd]), CloseCode::FORBIDDEN),
        (message(0, &[other_version]), CloseCode::VERSION),
        (Bytes::from_static(b"short"), CloseCode::MALFORMED),
    ] {
        let (mut server, mut agent) = links();
        agent.send(bytes).await.unwrap();
        let (refused, told) = tokio::join!(establish::accept(&mut server, WITHIN), told(&mut agent));
        let Err(EstablishError::Violation(violation)) = refused else { panic!("{refused:?}") };
        assert_eq!(violation.code(), expected);
        assert_eq!(told, (Some(expected), Some(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn b18_hello_that_does_not_come_in_time_closes_with_4408() {
    let (mut server, mut agent) = links();
    let start = tokio::time::Instant::now();
    let (refused, told) = tokio::join!(establish::accept(&mut server, WITHIN), async {
        let told = told(&mut agent).await;
        drop(agent);
        told
    });
    assert!(matches!(refused, Err(EstablishError::Timeout)));
    assert_eq!(told, (Some(CloseCode::DEAD_PEER), Some(CloseCode::DEAD_PEER)));
    assert!(start.elapsed() < WITHIN + Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn peer_that_neither_talks_nor_reads_costs_a_second_more() {
    let (near, _far) = tokio::io::duplex(8);
    let mut server = link(near, Side::Server);
    let start = tokio::time::Instant::now();
    assert!(matches!(establish::accept(&mut server, WITHIN).await, Err(EstablishError::Timeout)));
    assert!(start.elapsed() <= WITHIN + Duration::from_millis(1002));
}

#[tokio::test(start_paused = true)]
async fn m35_refusal_reaches_the_agent_in_the_place_of_welcome() {
    let (mut server, mut agent) = links();
    let hello = hello();
    let (offered, ()) = tokio::join!(offer(&mut agent, hello.clone(), 0), async {
        establish::accept(&mut server, WITHIN).await.unwrap();
        establish::refuse(&mut server, CloseCode::IN_USE, "another has it").await;
    });
    let Err(EstablishError::Closed { code, reason }) = offered else { panic!("{offered:?}") };
    assert_eq!((code, &*reason), (CloseCode::IN_USE, "another has it"));

    let (mut server, mut agent) = links();
    let (offered, ()) = tokio::join!(
        offer(&mut agent, hello.clone(), 0),
        server.close(CloseCode::TRY_LATER, "later", Duration::from_secs(1))
    );
    let Err(EstablishError::Closed { code, .. }) = offered else { panic!("{offered:?}") };
    assert_eq!(code, CloseCode::TRY_LATER);
}

#[tokio::test(start_paused = true)]
async fn m36_welcome_that_does_not_fit_the_hello_is_refused() {
    let hello = hello();
    let welcome_to = |hello: &Hello| Welcome { attempt: 1, ..welcome_to(hello) };
    let other_attempt = Welcome { attempt: 2, ..welcome_to(&hello) };
    let resumed = Welcome { resumed: true, ..welcome_to(&hello) };
    let nameless = Welcome { session: SessionId::NEW, ..welcome_to(&hello) };
    for welcome in [other_attempt, resumed, nameless] {
        let (mut server, mut agent) = links();
        server.send(message(0, &[Frame::Welcome(welcome)])).await.unwrap();
        let (offered, told) = tokio::join!(offer(&mut agent, hello.clone(), 0), async {
            server.recv().await.unwrap();
            told(&mut server).await
        });
        assert!(matches!(offered, Err(EstablishError::Violation(_))), "{offered:?}");
        assert_eq!(told, (Some(CloseCode::FORBIDDEN), Some(CloseCode::FORBIDDEN)));
    }
    idle().await;
}
