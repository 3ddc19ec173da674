//! What the examples show, seen from outside.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::process::{DEADLINE, Program};

#[tokio::test]
async fn each_lesson_ends_well() {
    for (lesson, says) in [
        ("tonic", "watched, it becomes NotServing"),
        ("reqwest", "the sandbox says: hello, world"),
        ("tcp_forward", "an answer to a question"),
    ] {
        let ended = Program::run(lesson, &[]).await;
        assert!(ended.status.success() && ended.stdout.contains(says), "{lesson}: {ended:?}");
    }
}

/// A connection to a forwarded port, the service's end of it, and the program between.
async fn forwarded() -> (TcpStream, TcpStream, Program) {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut program = Program::start(&format!("tcp_forward --service {}", service.local_addr().unwrap()));
    let line = program.line().await;
    let addr = line.strip_suffix(" leads to ssh of desktop-1").unwrap_or_else(|| panic!("{line}"));
    let (caller, served) = tokio::join!(TcpStream::connect(addr), timeout(DEADLINE, service.accept()));
    (caller.unwrap(), served.expect("a connection").unwrap().0, program)
}

async fn end(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    timeout(DEADLINE, socket.read_to_end(&mut heard)).await.expect("an end").map(|_| heard)
}

#[tokio::test]
async fn a_forwarded_port_carries_bytes_both_ways_and_whichever_side_ends_its_half_first_hears_the_other_out() {
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    for caller_ends_first in [true, false] {
        let (mut caller, mut service, _program) = forwarded().await;
        let (first, second) = if caller_ends_first { (&mut caller, &mut service) } else { (&mut service, &mut caller) };
        let ask = async {
            first.write_all(&sent).await.unwrap();
            first.shutdown().await.unwrap();
            end(first).await.unwrap()
        };
        let answer = async {
            let question = end(second).await.unwrap();
            second.write_all(&question[..1_000_000]).await.unwrap();
            second.shutdown().await.unwrap();
            question
        };
        let (answered, asked) = tokio::join!(ask, answer);
        assert!(asked == sent && answered == sent[..1_000_000], "{} {}", asked.len(), answered.len());
    }
}

#[tokio::test]
async fn a_forwarded_connection_that_is_cut_off_is_cut_off_on_the_other_side() {
    for caller_is_cut in [true, false] {
        let (caller, service, _program) = forwarded().await;
        let (mut cut, mut other) = if caller_is_cut { (caller, service) } else { (service, caller) };
        cut.write_all(b"half").await.unwrap();
        timeout(DEADLINE, other.read_exact(&mut [0; 4])).await.expect("bytes").unwrap();
        cut.set_zero_linger().unwrap();
        drop(cut);
        assert_eq!(end(&mut other).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
