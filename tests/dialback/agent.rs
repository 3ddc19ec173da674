//! An agent of ours with a deployed server: lost, silent, hostile, slow, refusing.

use std::time::Duration;

use revdial::{ErrorKind, agent::AgentStatus};
use tokio::time::{Instant, sleep};

use crate::{
    classic::{
        self, Arrived, KEEP_ALIVE, Peer, soon,
        wire::{BINARY, Frame, Head},
    },
    until,
    world::Ours,
};

#[tokio::test(start_paused = true)]
async fn b98_streams_outlive_the_control_connection_and_the_agent_comes_back() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    ours.connected().await;
    let mut stream = ours.dial(&mut control).await;
    stream.say("before").await;
    assert_eq!(stream.bytes(6).await, b"before");
    let lost = Instant::now();
    drop(control);
    until("the loss is told", || !ours.status.borrow().is_connected()).await;
    stream.say("without").await;
    assert_eq!(stream.bytes(7).await, b"without");
    let mut control = ours.control().await;
    assert!(lost.elapsed() < Duration::from_secs(1), "{:?}", lost.elapsed());
    ours.connected().await;
    stream.say("after").await;
    assert_eq!(stream.bytes(5).await, b"after");
    ours.works(&mut control).await;
    stream.finish().await;
    assert_eq!(stream.next().await, Arrived::End);
}

#[tokio::test(start_paused = true)]
async fn b99_a_minute_of_silence_is_taken_for_dead() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let silent = Instant::now();
    sleep(Duration::from_millis(59_900)).await;
    assert_eq!(ours.waiting(), 0);
    assert!(ours.status.borrow().is_connected());
    let mut back = ours.control().await;
    let after = silent.elapsed();
    assert!((60_000..61_000).contains(&after.as_millis()), "{after:?}");
    ours.works(&mut back).await;
    // It had pinged, and was not answered.
    let pings = soon(control.pings()).await;
    assert!((3..=4).contains(&pings), "{pings}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_only_says_keep_alive_lives() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    for _ in 0..10 {
        sleep(Duration::from_secs(50)).await;
        control.say(KEEP_ALIVE).await;
    }
    assert_eq!(ours.waiting(), 0);
    ours.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn b100_a_hostile_path_is_asked_nowhere_and_told_back() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let ids = "revdial.dialer=0123456789abcdef0123456789abcdef&revdial.req=fedcba9876543210fedcba9876543210";
    let hostile = [
        format!("//evil.example/revdial?{ids}"),
        format!("/revdial//evil.example?{ids}"),
        format!("http://evil.example/revdial?{ids}"),
        format!("https:/evil.example/revdial?{ids}"),
        format!("@evil.example/revdial?{ids}"),
        format!("/revdial@evil.example?{ids}"),
        format!("/revdial?{ids}@evil.example"),
        format!(":80@evil.example/revdial?{ids}"),
        format!("/\\evil.example/revdial?{ids}"),
        format!("\\\\evil.example/revdial?{ids}"),
        format!("/revdial?{ids}\\"),
        format!("/revdial?{ids} HTTP/1.1\r\nX-Evil: 1"),
        format!("/revdial?{ids}\r\n\r\nGET /admin HTTP/1.1"),
        format!("/revdial?{ids}\n"),
        format!("/revdial?{ids}\0"),
        format!("/revdial ?{ids}"),
        format!("/admin?{ids}"),
        format!("/admin/revdial?{ids}"),
        format!("/../revdial?{ids}"),
        format!("/revdial/../admin?{ids}"),
        format!("revdial?{ids}"),
        format!("?{ids}"),
        "/".to_owned(),
        "<script>&\"'".to_owned(),
    ];
    for path in &hostile {
        control.say_ready(path).await;
        ours.fails(&mut control, path).await;
        assert_eq!(ours.waiting(), 0, "{path:?}");
    }
    assert!(ours.net.uris().iter().all(|uri| uri.host() == Some("gateway")), "{:?}", ours.net.uris());
    assert_eq!(ours.net.dials().len(), 1, "the control connection's own");
    assert_eq!(ours.counted.sum("revdial_path_rejected_total"), hostile.len() as u64);
    ours.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn a_pick_up_that_is_refused_is_told_and_no_redirect_followed() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    for status in ["404 Not Found", "410 Gone", "403 Forbidden", "401 Unauthorized", "500 No", "200 OK", "302 Found"] {
        let path = ours.path();
        control.say_ready(&path).await;
        let (mut peer, request) = Peer::asked(ours.connects().await).await;
        assert_eq!(request.target(), format!("/api/v1{path}"));
        let headers = [("Content-Length", "0"), ("Location", "http://evil.example/")];
        peer.write(&Head::new(&format!("HTTP/1.1 {status}"), &headers).encode()).await;
        ours.fails(&mut control, &path).await;
    }
    // A 101 that is none: another key's, or of another protocol.
    for (name, value) in [("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), ("Upgrade", "h2c")] {
        let path = ours.path();
        control.say_ready(&path).await;
        let (mut peer, request) = Peer::asked(ours.connects().await).await;
        let mut grant = classic::grant(&request);
        grant.set(name, value);
        peer.write(&grant.encode()).await;
        ours.fails(&mut control, &path).await;
    }
    assert_eq!((ours.waiting(), ours.net.dials().len()), (0, 10));
    assert!(ours.net.uris().iter().all(|uri| uri.host() == Some("gateway")));
    // A refusal of one connection is no refusal of the agent.
    ours.works(&mut control).await;
    assert!(ours.status.borrow().is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_pick_up_that_cannot_be_made_is_told() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    ours.net.down(true);
    let path = ours.path();
    control.say_ready(&path).await;
    ours.fails(&mut control, &path).await;
    ours.net.down(false);
    ours.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn a_pick_up_has_twenty_seconds_and_holds_up_no_other() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let start = Instant::now();
    let path = ours.path();
    control.say_ready(&path).await;
    let (_silent, _) = Peer::asked(ours.connects().await).await;
    ours.works(&mut control).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    ours.fails(&mut control, &path).await;
    let after = start.elapsed();
    assert!((20_000..20_100).contains(&after.as_millis()), "{after:?}");
    ours.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn a_pick_up_that_nobody_takes_is_told() {
    let mut ours = Ours::with(|listener| async { drop(listener) });
    let mut control = ours.control().await;
    let path = ours.path();
    control.say_ready(&path).await;
    ours.fails(&mut control, &path).await;
    assert_eq!(ours.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_101_at_once_is_the_begin_of_the_stream() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    for at_once in [true, false] {
        let path = ours.path();
        control.say_ready(&path).await;
        let (mut peer, request) = Peer::asked(ours.connects().await).await;
        let mut bytes = classic::grant(&request).encode();
        for word in ["at ", "once"] {
            bytes.extend(Frame::new(BINARY, word).encode());
        }
        if at_once {
            peer.write(&bytes).await;
        } else {
            for byte in bytes {
                peer.write(&[byte]).await;
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(peer.bytes(7).await, b"at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_and_an_agent_end_without_a_close_frame() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let mut stream = ours.dial(&mut control).await;
    stream.say("x").await;
    assert_eq!(stream.bytes(1).await, b"x");
    stream.finish().await;
    assert_eq!(stream.next().await, Arrived::End);
    assert!(ours.status.borrow().is_connected());
    ours.run.abort();
    assert_eq!(control.next().await, Arrived::End);
    until("it is stopped", || *ours.status.borrow() == AgentStatus::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_the_agent_is_asked_again_slowly() {
    for (status, cause) in [("401 Unauthorized", ErrorKind::Auth), ("409 Conflict", ErrorKind::KeyInUse)] {
        let mut ours = Ours::echoing();
        let mut control = ours.control().await;
        ours.works(&mut control).await;
        drop(control);
        let (mut peer, _) = Peer::asked(ours.connects().await).await;
        let refused = Instant::now();
        peer.write(&Head::new(&format!("HTTP/1.1 {status}"), &[("Content-Length", "0")]).encode()).await;
        until("refused", || matches!(*ours.status.borrow(), AgentStatus::Refused { .. })).await;
        let AgentStatus::Refused { cause: told, .. } = ours.status.borrow().clone() else { unreachable!() };
        assert_eq!(told, cause);
        let mut control = ours.control().await;
        assert!(refused.elapsed() >= Duration::from_secs(30), "{:?}", refused.elapsed());
        ours.works(&mut control).await;
    }
}
