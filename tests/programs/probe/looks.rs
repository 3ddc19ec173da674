//! A screenshot, a stream's pace, and the gateway's counts.

use serde_json::Value;

use super::{at, probe, sandbox, servers::answering};
use crate::{
    Gateway, TOKEN,
    process::{self, Program},
    state,
};

/// `script`, which every Debian has, is the terminal.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_terminal_what_takes_longer_than_a_second_shows_that_it_goes_on() {
    use std::process::Stdio;

    use tokio::{process::Command, time::timeout};

    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-ses_1").await;
    let watch = format!("stream ses_1 --duration 2500ms --server http://{}", gateway.addr);
    let command = format!("NO_PROXY='*' '{}' {watch}", process::example("probe").display());
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(process::DEADLINE, script.output()).await.expect("in time").expect("a process");
    let seen = String::from_utf8(output.stdout).expect("text");
    for text in ["… watching, 1 s", "… watching, 2 s", "watched for 2.5 s"] {
        assert!(seen.contains(text), "no {text:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_screenshot_is_saved_as_the_picture_that_it_is() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-ses_1").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("screen.png");
    let ended = probe(&gateway, &format!("screenshot ses_1 -o {}", file.display())).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with(&format!("{}: image/png, ", file.display())), "{ended:?}");
    let png = std::fs::File::open(&file).map(std::io::BufReader::new).unwrap();
    let mut reader = png::Decoder::new(png).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("a whole picture");

    let ended = probe(&gateway, &format!("screenshot ses_1 --json -o {}", file.display())).await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&told["type"], told["bytes"].as_u64()), (&"image/png".into(), Some(file.metadata().unwrap().len())));
}

#[tokio::test]
async fn a_screenshot_that_there_is_not_writes_no_file_and_says_why() {
    let gateway = Gateway::new().await;
    let _agent = gateway.connected("desktop-refused", "--forward 127.0.0.1:1").await;
    let _web = gateway.connected("desktop-web", &format!("--forward {}", gateway.addr)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("screen.png");
    for (session, code, says) in [
        ("ses_1", 16, "no connection: no sandbox is connected as desktop-ses_1"),
        ("refused", 18, "connection refused: the service behind desktop-refused"),
        ("web", 18, "answered 404 Not Found"),
    ] {
        let ended = probe(&gateway, &format!("screenshot {session} -o {}", file.display())).await;
        assert_eq!(ended.status.code(), Some(code), "{ended:?}");
        assert!(ended.stderr.contains(says) && ended.stderr.contains("\n  next  "), "{ended:?}");
        assert!(!file.exists(), "{session}");
    }
    let _sandbox = sandbox(&gateway, "desktop-ses_1").await;
    let ended = probe(&gateway, "screenshot ses_1 -o /nowhere/screen.png").await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
}

#[tokio::test]
async fn a_stream_is_watched_and_its_pace_told() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-ses_1").await;
    let ended = probe(&gateway, "stream ses_1 --duration 1").await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for text in ["ses_1, watched for 1", "  frames    ", "  bytes     ", "  jitter    ", "  gaps      "] {
        assert!(ended.stdout.contains(text), "no {text:?}: {ended:?}");
    }
    let ended = probe(&gateway, "stream ses_1 --duration 1500ms --json").await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let frames = told["frames"].as_u64().unwrap();
    // Ten a second, "frame 0" and so on; a machine with much else to do may be slow.
    assert!((2..=16).contains(&frames), "{told}");
    assert_eq!(told["bytes"], (0..frames).map(|n| format!("frame {n}").len() as u64).sum::<u64>(), "{told}");
    assert!(told["seconds"].as_f64().is_some_and(|seconds| seconds >= 1.5), "{told}");
    assert!(told["interval_seconds"]["median"].as_f64().is_some_and(|median| median > 0.01), "{told}");
}

#[tokio::test]
async fn a_stream_that_ends_or_that_there_is_not_is_a_fault() {
    let gateway = Gateway::with("--grace 200ms").await;
    let mut sandbox = sandbox(&gateway, "desktop-1").await;
    let command = format!("probe stream 1 --duration 60 --server http://{}", gateway.addr);
    let mut watching = Program::start_with(&command, &[("NO_PROXY", "*")]);
    gateway.until(|stats| stats["agents"][0]["received_bytes"].as_u64() > Some(400)).await;
    sandbox.signal("TERM").await;
    assert_eq!(watching.ended().await.code(), Some(18));
    watching.logs("the stream ended after ").await;
    assert_eq!(watching.line().await.split(", ").next(), Some("1"), "what came before is told");
    sandbox.ended().await;
    gateway.until(|stats| state(stats, "desktop-1").is_none()).await;
    let ended = probe(&gateway, "stream 1 --duration 1").await;
    assert_eq!(ended.status.code(), Some(16), "{ended:?}");
}

#[tokio::test]
async fn stats_are_a_line_for_each_sandbox_or_the_gateways_json() {
    let gateway = Gateway::new().await;
    let ended = probe(&gateway, "stats").await;
    assert!(ended.stdout.starts_with("0 connected, 0 in grace; ") && ended.stdout.lines().count() == 1, "{ended:?}");
    let _sandbox = sandbox(&gateway, "desktop-1").await;
    let mut agent = gateway.connected("a", "--forward 127.0.0.1:1").await;
    agent.kill().await;
    gateway.until(|stats| state(stats, "a") == Some("grace")).await;
    let ended = probe(&gateway, "stats").await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let lines: Vec<_> = ended.stdout.lines().collect();
    let [counts, head, a, desktop] = lines[..] else { panic!("{ended:?}") };
    assert!(counts.starts_with("1 connected, 1 in grace; "), "{counts}");
    assert!(head.starts_with("KEY        STATE      SINCE"), "{head}");
    assert!(a.starts_with("a          grace      ") && a.ends_with("the connection was lost"), "{a}");
    assert!(desktop.starts_with("desktop-1  connected  "), "{desktop}");
    let ended = probe(&gateway, "stats --json").await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(state(&told, "desktop-1"), Some("connected"));
    assert!(!ended.stdout.contains(TOKEN));
}

#[tokio::test]
async fn what_a_server_writes_reaches_no_terminal_as_it_is() {
    let body = r#"{"matching":1001,"agents":[{"key":"a\u001b[2J\nb","state":"connected","last_cause":"\u0007"}]}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let server = answering(answer.leak()).await;
    let ended = at(&format!("http://{server}"), "stats").await;
    assert_eq!(ended.stdout.lines().count(), 4, "{ended:?}");
    assert!(ended.stdout.ends_with("… and 1000 more\n"), "{ended:?}");
    assert!(ended.stdout.contains(r"a\u{1b}[2J\nb"), "{ended:?}");
    assert!(!ended.stdout.contains(['\x1b', '\x07']), "{ended:?}");
}
