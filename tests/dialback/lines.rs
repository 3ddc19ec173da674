//! Control lines, whole and in pieces, welcome and not, heard by a server of ours and by an agent of ours.

use std::time::Duration;

use revdial::ErrorKind;
use tokio::time::Instant;

use crate::{
    classic::{
        Arrived, KEEP_ALIVE, Peer, conn_ready, pickup_failed,
        wire::{BINARY, CONTINUATION, Frame, PING, TEXT},
    },
    until,
    world::{Ours, Server, failed},
};

/// As long as any.
const PATH: &str =
    "/revdial?revdial.dialer=00000000000000000000000000000000&revdial.req=11111111111111111111111111111111";

/// An unknown command in a line of so many bytes, its end included.
fn line_of(length: usize) -> String {
    let line = |pad: usize| format!("{{\"command\":\"pad\",\"err\":\"{}\"}}\n", "p".repeat(pad));
    line(length - line(0).len())
}

#[tokio::test(start_paused = true)]
async fn b97_lines_that_mean_nothing_to_a_server_are_ignored() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let path = control.conn_ready().await;
    for line in [
        KEEP_ALIVE,
        "{}\n",
        "{\"command\":\"\"}\n",
        "{\"command\":\"hello\",\"x\":1}\n",
        "{\"command\":\"Pickup-Failed\",\"err\":\"\"}\n",
        "{\"x\":{\"command\":[\"pickup-failed\",{}]}}\n",
        "{\"command\":\"pickup-failed\"}\n",
        "{\"command\":\"pickup-failed\",\"connPath\":\"\",\"err\":\"e\"}\n",
        "{\"command\":\"pickup-failed\",\"connPath\":\"/revdial?revdial.req=nope\",\"err\":\"e\"}\n",
        "{\"command\":\"pickup-failed\",\"connPath\":\"\\u0000\\ud83d\\ude00\",\"err\":\"e\"}\n",
        &conn_ready(&path),
        &pickup_failed("/revdial?revdial.dialer=00000000000000000000000000000000&revdial.req=00", "e"),
        &pickup_failed(&path[..path.len() - 1], "e"),
        &pickup_failed(&format!("{path}0"), "e"),
    ] {
        control.say(line).await;
        server.works(&mut control).await;
        assert!(!dialled.is_finished(), "{line:?}");
    }
    // And one that does mean something, whatever stands beside it.
    control
        .say(pickup_failed(&path, &"long ".repeat(600)).replace("{\"command\"", "{ \"new\" : [ 1 ],\t\"command\" "))
        .await;
    assert_eq!(failed(dialled).await, ErrorKind::TargetRefused);
    assert_eq!(server.events(), ["connected"]);
}

#[tokio::test(start_paused = true)]
async fn b97_lines_that_mean_nothing_to_an_agent_are_ignored() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    for line in [
        KEEP_ALIVE,
        "{}\n",
        "{\"command\":\"\"}\n",
        "{\"command\":\"hello\",\"x\":1}\n",
        "{\"command\":\"Conn-Ready\",\"connPath\":\"/revdial\"}\n",
        "{\"x\":{\"command\":[\"conn-ready\",{}]}}\n",
        &pickup_failed("/revdial?revdial.dialer=00&revdial.req=00", "e"),
    ] {
        control.say(line).await;
        ours.works(&mut control).await;
    }
    let path = ours.path();
    control.say(conn_ready(&path).replace("{\"command\"", "{ \"new\" : [ 1 ],\t\"command\" ")).await;
    ours.brings(&path).await;
    assert_eq!((ours.waiting(), ours.net.dials().len()), (0, 9));
}

#[tokio::test(start_paused = true)]
async fn a_line_to_a_server_may_be_split_anywhere() {
    let server = Server::new();
    let mut control = server.control().await;
    for at in 0..=pickup_failed(PATH, "e").len() {
        let dialled = server.dial();
        let line = pickup_failed(&control.conn_ready().await, "e");
        let (head, tail) = line.split_at(at);
        control.say(head).await;
        control.say(tail).await;
        assert_eq!(failed(dialled).await, ErrorKind::TargetRefused, "split at {at}");
    }
    let dialled = server.dial();
    for byte in pickup_failed(&control.conn_ready().await, "e").bytes() {
        control.say([byte]).await;
    }
    assert_eq!(failed(dialled).await, ErrorKind::TargetRefused);
}

#[tokio::test(start_paused = true)]
async fn a_line_to_an_agent_may_be_split_anywhere() {
    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    for at in 0..=conn_ready(PATH).len() {
        let path = ours.path();
        let line = conn_ready(&path);
        let (head, tail) = line.split_at(at);
        control.say(head).await;
        control.say(tail).await;
        ours.brings(&path).await;
    }
    let path = ours.path();
    for byte in conn_ready(&path).bytes() {
        control.say([byte]).await;
    }
    ours.brings(&path).await;
}

#[tokio::test(start_paused = true)]
async fn lines_joined_in_one_message_are_each_heard() {
    let server = Server::new();
    let mut control = server.control().await;
    let dials = [(); 5].map(|()| server.dial());
    let mut joined = String::from("{\"command\":\"hello\"}\n{}\n");
    for _ in 0..5 {
        joined += &pickup_failed(&control.conn_ready().await, "e");
        joined += KEEP_ALIVE;
    }
    joined.pop();
    control.say(joined).await;
    for dialled in dials {
        assert_eq!(failed(dialled).await, ErrorKind::TargetRefused);
    }
    control.say("\n").await;
    server.works(&mut control).await;

    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let paths = [(); 5].map(|()| ours.path());
    control.say(paths.iter().map(|path| conn_ready(path) + KEEP_ALIVE).collect::<String>()).await;
    let mut brought = Vec::new();
    for _ in 0..5 {
        brought.push(Peer::asked(ours.connects().await).await.1.target().to_owned());
    }
    brought.sort();
    assert_eq!(brought, paths.map(|path| format!("/api/v1{path}")));
}

#[tokio::test(start_paused = true)]
async fn a_fragmented_message_is_one_and_pings_within_it_are_answered() {
    let server = Server::new();
    let mut control = server.control().await;
    let dialled = server.dial();
    let line = pickup_failed(&control.conn_ready().await, "e");
    let (first, rest) = line.as_bytes().split_at(30);
    assert_eq!(control.line().await, KEEP_ALIVE);
    control.say_in_pieces(&[first, b"", &rest[..40], &rest[40..]]).await;
    assert_eq!(failed(dialled).await, ErrorKind::TargetRefused);
    for nth in 1..=3 {
        assert_eq!(control.frame().await.unwrap().payload, format!("ping {nth}").into_bytes());
    }

    let mut ours = Ours::echoing();
    let mut control = ours.control().await;
    let path = ours.path();
    let line = conn_ready(&path);
    let (first, rest) = line.as_bytes().split_at(30);
    control.say_in_pieces(&[first, b"", &rest[..40], &rest[40..]]).await;
    ours.brings(&path).await;
    for nth in 1..=3 {
        assert_eq!(control.frame().await.unwrap().payload, format!("ping {nth}").into_bytes());
    }
}

/// What is said on a fresh control connection, in messages, and the code that it is closed with.
fn forbidden() -> Vec<(Vec<Vec<u8>>, u8, u16)> {
    let one = |line: &[u8]| vec![line.to_vec()];
    let long = line_of(4097).into_bytes();
    vec![
        (one(&long), BINARY, 1009),
        (long.chunks(100).map(<[u8]>::to_vec).collect(), BINARY, 1009),
        (one(&[b'x'; 4097]), BINARY, 1009),
        (one(&[b'x'; 70_000]), BINARY, 1009),
        (vec![vec![b'x'; 1000]; 5], BINARY, 1009),
        (one(b"not json\n"), BINARY, 1007),
        (one(b"{\n"), BINARY, 1007),
        (one(b"{\"command\":}\n"), BINARY, 1007),
        (one(b"{\"command\":\"keep-alive\"\n"), BINARY, 1007),
        (one(b"{\"command\":\"keep-alive\"}}\n"), BINARY, 1007),
        (one(b"{\"command\":\"\xff\xfe\"}\n"), BINARY, 1007),
        (one(KEEP_ALIVE.as_bytes()), TEXT, 1003),
    ]
}

#[tokio::test(start_paused = true)]
async fn b96_what_is_no_line_closes_the_control_connection_of_a_server() {
    for (messages, opcode, code) in forbidden() {
        let server = Server::new();
        let mut control = server.control().await;
        for length in [4094, 4095, 4096] {
            control.say(line_of(length)).await;
        }
        server.works(&mut control).await;
        for message in &messages {
            control.send(opcode, &message[..]).await;
        }
        control.closed_with(code).await;
        drop(control);
        server.in_grace().await;
        let counter = format!("revdial_protocol_errors_total{{{code}}}");
        until("it is counted", || server.counted.sum(&counter) == 1).await;
        let mut back = server.control().await;
        server.works(&mut back).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b96_what_is_no_line_closes_the_control_connection_of_an_agent_which_comes_back() {
    for (messages, opcode, code) in forbidden() {
        let mut ours = Ours::echoing();
        let mut control = ours.control().await;
        for length in [4094, 4095, 4096] {
            control.say(line_of(length)).await;
        }
        ours.works(&mut control).await;
        let start = Instant::now();
        for message in &messages {
            control.send(opcode, &message[..]).await;
        }
        control.closed_with(code).await;
        drop(control);
        let counter = format!("revdial_protocol_errors_total{{{code}}}");
        until("it is counted", || ours.counted.sum(&counter) == 1).await;
        let mut back = ours.control().await;
        assert!(start.elapsed() < Duration::from_secs(31), "{:?}", start.elapsed());
        ours.works(&mut back).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_of_4096_bytes_may_come_in_any_pieces() {
    let server = Server::new();
    let mut control = server.control().await;
    for pieces in [1, 7, 4095] {
        for piece in line_of(4096).as_bytes().chunks(pieces) {
            control.say(piece).await;
        }
        server.works(&mut control).await;
    }
    // Many lines in one message are as many as they are, and no long one.
    control.say(line_of(4096).repeat(15)).await;
    server.works(&mut control).await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_breaks_the_rules_of_websockets_ends_the_control_connection() {
    let (mask, whole) = (Some([1, 2, 3, 4]), Frame::new(BINARY, KEEP_ALIVE));
    for frame in [
        Frame { mask: None, ..whole.clone() },
        Frame { mask, opcode: 3, ..whole.clone() },
        Frame { mask, reserved: 4, ..whole.clone() },
        Frame { mask, opcode: CONTINUATION, ..whole.clone() },
        Frame { mask, opcode: PING, is_last: false, ..whole.clone() },
        Frame { mask, opcode: PING, payload: vec![0; 126], ..whole.clone() },
    ] {
        let server = Server::new();
        let mut control = server.control().await;
        control.write(&frame.encode()).await;
        let end = control.ends().await;
        assert!(matches!(end, Arrived::Closed(Some(1002)) | Arrived::End), "{frame:?}: {end:?}");
        drop(control);
        until("it is gone", || server.connman.stats().active_connections == 0).await;
        let mut back = server.control().await;
        server.works(&mut back).await;
    }
}
