use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
};

use super::*;

const LIMIT: usize = 100_000;

/// A server's link and the raw bytes of its client.
fn server() -> (MessageLink, DuplexStream) {
    let (ours, theirs) = duplex(KIB);
    (MessageLink::new(ours, Side::Server, LIMIT), theirs)
}

fn links(pipe: usize) -> (MessageLink, MessageLink) {
    let (a, b) = duplex(pipe);
    (MessageLink::new(a, Side::Server, LIMIT), MessageLink::new(b, Side::Client, LIMIT))
}

/// A frame as a client sends it; the mask is zero, so that the payload reads as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()).unwrap() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

async fn error_after(bytes: &[u8]) -> LinkError {
    let (mut link, mut raw) = server();
    raw.write_all(bytes).await.unwrap();
    let error = link.recv().await.unwrap_err();
    assert!(matches!(link.recv().await, Err(LinkError::Eof)), "nothing comes after {error}");
    error
}

#[tokio::test]
async fn m8_b23_a_text_message_is_an_error_of_its_own_even_if_it_is_not_utf8() {
    assert!(matches!(error_after(&masked(0x81, b"text")).await, LinkError::Text));
    assert!(matches!(error_after(&masked(0x81, &[0xff, 0xfe])).await, LinkError::Text));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_at_its_header() {
    let mut header = vec![0x82, 0x80 | 127];
    header.extend((LIMIT as u64 + 1).to_be_bytes());
    header.extend([0; 4]);
    assert!(matches!(error_after(&header).await, LinkError::TooBig));
    let mut huge = vec![0x82, 0x80 | 127];
    huge.extend([0xff; 8]);
    huge.extend([0; 4]);
    assert!(matches!(error_after(&huge).await, LinkError::TooBig));
}

#[tokio::test]
async fn fragments_over_the_limit_are_refused_though_each_is_below_it() {
    let (ours, mut raw) = duplex(4 * LIMIT);
    let mut link = MessageLink::new(ours, Side::Server, LIMIT);
    raw.write_all(&masked(0x02, &[0; 60_000])).await.unwrap();
    raw.write_all(&masked(0x00, &[0; 60_000])).await.unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::TooBig)));
}

#[tokio::test]
async fn fragments_are_put_together() {
    let (mut link, mut raw) = server();
    raw.write_all(&masked(0x02, b"one ")).await.unwrap();
    raw.write_all(&masked(0x89, b"between")).await.unwrap();
    raw.write_all(&masked(0x80, b"message")).await.unwrap();
    assert_eq!(link.recv().await.unwrap(), "one message");
}

#[tokio::test]
async fn frames_that_cannot_be_are_malformed() {
    let unmasked = vec![0x82, 1, b'x'];
    let frames = [
        ("unmasked", unmasked),
        ("data opcode", masked(0x83, b"")),
        ("control opcode", masked(0x8b, b"")),
        ("fragmented ping", masked(0x09, b"")),
        ("long ping", masked(0x89, &[0; 126])),
        ("reserved bit", masked(0xc2, b"x")),
        ("stray continuation", masked(0x80, b"x")),
        ("one byte of close", masked(0x88, b"x")),
        ("close code that stands for no frame", masked(0x88, b"\x03\xee")),
        ("reason that is not UTF-8", masked(0x88, b"\x03\xe8\xff")),
        ("text within a message", [masked(0x02, b"x"), masked(0x81, b"y")].concat()),
    ];
    for (name, frame) in frames {
        let error = error_after(&frame).await;
        assert!(matches!(error, LinkError::Malformed(_)), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_masked_frame_from_the_server_is_malformed() {
    let (ours, mut raw) = duplex(KIB);
    let mut link = MessageLink::new(ours, Side::Client, LIMIT);
    raw.write_all(&masked(0x82, b"x")).await.unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::Malformed(_))));
}

#[tokio::test]
async fn a_byte_stream_that_ends_without_a_close_frame_is_an_eof() {
    let (mut link, raw) = server();
    drop(raw);
    assert!(matches!(link.recv().await, Err(LinkError::Eof)));
    assert!(matches!(link.recv().await, Err(LinkError::Eof)));
}

#[tokio::test]
async fn a_byte_stream_that_ends_amid_a_message_has_failed() {
    let half = masked(0x02, b"half");
    let long = masked(0x82, &[7; 200]);
    let mut huge = vec![0x82, 0xff];
    huge.extend(70_000_u64.to_be_bytes());
    huge.extend([0; 4 + 70_000]);
    for (whole, rest) in
        [(&half, half.len()), (&half, 7), (&half, 1), (&long, 3), (&long, 150), (&huge, 9), (&huge, 66_000)]
    {
        let (ours, mut raw) = duplex(200 * KIB);
        let mut link = MessageLink::new(ours, Side::Server, LIMIT);
        raw.write_all(&masked(0x82, b"whole")).await.unwrap();
        raw.write_all(&whole[..rest]).await.unwrap();
        drop(raw);
        assert_eq!(link.recv().await.unwrap(), b"whole".as_slice());
        let error = link.recv().await.unwrap_err();
        assert!(matches!(&error, LinkError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof), "{error:?}");
        assert!(matches!(link.recv().await, Err(LinkError::Eof)));
    }
    for whole in [&long, &huge] {
        let (ours, mut raw) = duplex(200 * KIB);
        let mut link = MessageLink::new(ours, Side::Server, LIMIT);
        for frame in [&masked(0x02, b"a"), &masked(0x8a, b""), &masked(0x80, b"b"), whole] {
            raw.write_all(frame).await.unwrap();
        }
        drop(raw);
        assert_eq!(link.recv().await.unwrap(), b"ab".as_slice());
        link.recv().await.unwrap();
        assert!(matches!(link.recv().await, Err(LinkError::Eof)));
    }
}

#[tokio::test]
async fn a_close_frame_gives_its_code_and_reason_and_is_answered() {
    let (mut link, mut raw) = server();
    raw.write_all(&masked(0x88, b"\x13\x87why")).await.unwrap();
    match link.recv().await {
        Err(LinkError::Closed { code: Some(code), reason }) => assert_eq!((code.number(), &*reason), (4999, "why")),
        other => panic!("{other:?}"),
    }
    let mut answer = [0; 7];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x88\x05\x13\x87why");

    let (mut link, mut raw) = server();
    raw.write_all(&masked(0x88, b"")).await.unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::Closed { code: None, .. })));
}

#[tokio::test]
async fn a_send_after_the_peers_close_is_no_violation_of_the_peer() {
    let (mut link, mut raw) = server();
    raw.write_all(&masked(0x88, b"")).await.unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::Closed { .. })));
    assert_eq!(link.send(Bytes::from_static(b"late")).await.unwrap_err().close_code(), None);
}

#[tokio::test]
async fn a_ping_is_answered_by_a_link_that_only_receives() {
    let (mut link, mut raw) = server();
    raw.write_all(&masked(0x89, b"beat")).await.unwrap();
    let mut pong = [0; 6];
    tokio::select! {
        got = link.recv() => panic!("{got:?}"),
        read = raw.read_exact(&mut pong) => assert_eq!(read.unwrap(), 6),
    }
    assert_eq!(&pong, b"\x8a\x04beat");
}

#[tokio::test]
async fn a_pong_that_had_no_room_leaves_when_there_is_some() {
    let (mut link, mut raw) = server();
    let fill = link.send(Bytes::from(vec![7; 2 * KIB]));
    assert!(tokio::time::timeout(Duration::from_millis(1), fill).await.is_err(), "the pipe takes 1 KiB only");
    raw.write_all(&masked(0x89, b"beat")).await.unwrap();
    let mut bytes = vec![0; 4 + 2 * KIB + 6];
    // Nothing but `recv` is polled, so only its own wake-ups can move the rest.
    tokio::select! {
        got = link.recv() => panic!("{got:?}"),
        read = raw.read_exact(&mut bytes) => drop(read.unwrap()),
    }
    assert!(bytes.ends_with(b"\x8a\x04beat"));
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_flood_of_pings_does_not_keep_the_task_and_loses_no_wake_up() {
    let (ours, mut raw) = duplex(64 * KIB);
    let mut link = MessageLink::new(ours, Side::Server, LIMIT);
    raw.write_all(&masked(0x89, b"").repeat(CONTROL_FRAMES_PER_POLL + 1)).await.unwrap();
    raw.write_all(&masked(0x82, b"message")).await.unwrap();
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(link.poll_recv(&mut cx).is_pending());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    match link.poll_recv(&mut cx) {
        Poll::Ready(Ok(message)) => assert_eq!(message, "message"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn more_pings_than_a_burst_are_a_flood_and_a_steady_few_are_not() {
    for kind in [0x89, 0x8a] {
        let (ours, mut raw) = duplex(64 * KIB);
        let mut link = MessageLink::new(ours, Side::Server, LIMIT);
        let step = Duration::from_secs(1) / CONTROLS_PER_SECOND;
        for burst in [100, 1, 1, 1] {
            raw.write_all(&masked(kind, b"x").repeat(burst)).await.unwrap();
            raw.write_all(&masked(0x82, b"message")).await.unwrap();
            assert_eq!(link.recv().await.unwrap(), "message");
            tokio::time::sleep(step).await;
        }
        raw.write_all(&masked(kind, b"x").repeat(2)).await.unwrap();
        assert!(matches!(link.recv().await, Err(LinkError::Flood)));
    }
}

/// Sends `count` messages of 16 KiB, receives as many, all on one task.
async fn exchange(mut link: MessageLink, count: usize) -> MessageLink {
    let (mut sent, mut received) = (0, 0);
    poll_fn(|cx| {
        while received < count
            && let Poll::Ready(message) = link.poll_recv(cx)
        {
            assert_eq!(message.unwrap(), vec![received as u8; 16 * KIB]);
            received += 1;
        }
        while sent < count
            && let Poll::Ready(ready) = link.poll_ready(cx)
        {
            ready.unwrap();
            link.start_send(Bytes::from(vec![sent as u8; 16 * KIB])).unwrap();
            sent += 1;
        }
        let flushed = link.poll_flush(cx).map(Result::unwrap);
        if sent == count && received == count { flushed } else { Poll::Pending }
    })
    .await;
    link
}

#[tokio::test]
async fn a_mebibyte_goes_both_ways_at_once_through_a_pipe_of_a_kibibyte() {
    let (a, b) = links(KIB);
    tokio::join!(exchange(a, 64), exchange(b, 64));
}

#[tokio::test]
async fn a_full_write_buffer_is_not_ready_until_the_peer_reads() {
    let (mut a, mut b) = links(KIB);
    let message = Bytes::from(vec![1; 10 * KIB]);
    let mut buffered = 0;
    while let Poll::Ready(ready) = a.poll_ready(&mut Context::from_waker(Waker::noop())) {
        ready.unwrap();
        a.start_send(message.clone()).unwrap();
        buffered += message.len();
    }
    assert!((WRITE_BUFFER - 11 * KIB..WRITE_BUFFER + 11 * KIB).contains(&buffered), "{buffered}");
    let reader = async {
        for _ in 0..buffered / message.len() {
            assert_eq!(b.recv().await.unwrap(), message);
        }
    };
    let (ready, ()) = tokio::join!(poll_fn(|cx| a.poll_ready(cx)), reader);
    ready.unwrap();
}

#[tokio::test]
async fn a_message_that_could_never_leave_is_refused_at_once() {
    let (mut a, _b) = links(KIB);
    let error = a.send(Bytes::from(vec![0; LIMIT + 1])).await.unwrap_err();
    assert!(matches!(error, LinkError::Io(ref io) if io.kind() == io::ErrorKind::InvalidInput));
    assert_eq!(error.close_code(), None);
}

#[tokio::test]
async fn a_part_of_a_frame_counts_as_activity() {
    let (mut link, mut raw) = server();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(link.poll_recv(&mut cx).is_pending());
    assert!(!link.take_activity());
    for byte in &masked(0x82, b"x")[..6] {
        raw.write_all(&[*byte]).await.unwrap();
        assert!(link.poll_recv(&mut cx).is_pending());
        assert!(link.take_activity());
        assert!(!link.take_activity());
    }
}

#[tokio::test]
async fn early_bytes_come_first_and_count_as_activity() {
    let (ours, mut raw) = duplex(KIB);
    let whole = masked(0x82, b"split over two");
    let (early, late) = whole.split_at(9);
    let mut link = MessageLink::with_early(ours, early, Side::Server, LIMIT);
    assert!(link.poll_recv(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(link.take_activity());
    raw.write_all(late).await.unwrap();
    assert_eq!(link.recv().await.unwrap(), "split over two");
}

#[tokio::test]
async fn a_small_message_does_not_pin_the_read_buffer() {
    let (mut a, mut b) = links(64 * KIB);
    for _ in 0..4 {
        a.send(Bytes::from(vec![0; 30 * KIB])).await.unwrap();
        b.recv().await.unwrap();
    }
    a.send(Bytes::from_static(b"small")).await.unwrap();
    a.send(Bytes::from_static(b"next")).await.unwrap();
    assert!(b.recv().await.unwrap().is_unique());
    a.send(Bytes::from(vec![0; 30 * KIB])).await.unwrap();
    assert_eq!(b.recv().await.unwrap(), "next");
    assert_eq!(b.recv().await.unwrap().len(), 30 * KIB);
}

#[tokio::test(start_paused = true)]
async fn code_and_reason_of_a_close_arrive_behind_what_was_sent() {
    for (reason, expected) in [("bye", "bye".to_owned()), (&"€".repeat(50), "€".repeat(41))] {
        let (mut a, mut b) = links(KIB);
        poll_fn(|cx| a.poll_ready(cx)).await.unwrap();
        a.start_send(Bytes::from_static(b"before")).unwrap();
        let started = tokio::time::Instant::now();
        let peer = async move {
            assert_eq!(b.recv().await.unwrap(), "before");
            b.recv().await
        };
        let ((), end) = tokio::join!(a.close(CloseCode::REPLACED, reason, Duration::from_secs(5)), peer);
        match end {
            Err(LinkError::Closed { code: Some(CloseCode::REPLACED), reason }) => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "a peer that ends its side is not waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_is_given_up_when_the_peer_does_not_read() {
    let (mut link, _raw) = server();
    poll_fn(|cx| link.poll_ready(cx)).await.unwrap();
    link.start_send(Bytes::from(vec![0; 4 * KIB])).unwrap();
    let started = tokio::time::Instant::now();
    link.close(CloseCode::NORMAL, "", Duration::from_secs(3)).await;
    assert_eq!(started.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_close_is_sent_once_and_ready_without_an_answer() {
    let (mut link, mut raw) = server();
    for _ in 0..3 {
        poll_fn(|cx| link.poll_close(cx, CloseCode::DRAINED, "once")).await;
    }
    let mut bytes = Vec::new();
    raw.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"\x88\x06\x03\xe9once");
}

#[tokio::test]
async fn a_close_after_the_peers_close_sends_the_answer_only() {
    let (mut link, mut raw) = server();
    raw.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    assert!(matches!(link.recv().await, Err(LinkError::Closed { .. })));
    poll_fn(|cx| link.poll_close(cx, CloseCode::INTERNAL, "too late")).await;
    let mut bytes = Vec::new();
    raw.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"\x88\x02\x03\xe8");
}

/// A socket dropped with unread bytes is reset, and the reset overtakes the close frame.
#[tokio::test]
async fn a_close_frame_survives_what_the_peer_was_still_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut client = MessageLink::new(client, Side::Client, LIMIT);
    let mut server = MessageLink::new(listener.accept().await.unwrap().0, Side::Server, LIMIT);
    let peer = tokio::spawn(async move {
        for _ in 0..200 {
            client.send(Bytes::from(vec![0; 60_000])).await.unwrap();
        }
        client.recv().await
    });
    let started = Instant::now();
    server.close(CloseCode::CREDENTIALS, "revoked", Duration::from_secs(20)).await;
    drop(server);
    let end = peer.await.unwrap();
    assert!(matches!(end, Err(LinkError::Closed { code: Some(CloseCode::CREDENTIALS), .. })), "{end:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}
