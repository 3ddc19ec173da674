//! The sandbox behind the gateway's own routes, and the quickstart that shows it all.

use axum::body::Body;
use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    Gateway, TOKEN,
    process::{DEADLINE, Program},
    text,
};

async fn sandbox(gateway: &Gateway, key: &str) -> Program {
    let sandbox = Program::start(&format!("sandbox --server http://{} --key {key} --token {TOKEN}", gateway.addr));
    sandbox.logs("connected").await;
    sandbox
}

/// Decodes a PNG to its last pixel; its width and height.
fn decode(png: &[u8]) -> (u32, u32) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG's head");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("a whole picture");
    assert!(pixels.windows(2).any(|pair| pair[0] != pair[1]), "a picture of something");
    (info.width, info.height)
}

#[tokio::test]
async fn a_screenshot_is_a_real_picture() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-7").await;
    let answer = gateway.get("/api/v1/external-agents/7/screenshot").await;
    assert_eq!(
        (answer.status(), &answer.headers()[header::CONTENT_TYPE]),
        (StatusCode::OK, &"image/png".parse().unwrap())
    );
    decode(&answer.into_body().collect().await.unwrap().to_bytes());
    assert_eq!(gateway.text("/api/v1/external-agents/8/screenshot").await.0, 503);
    assert_eq!(gateway.text("/api/v1/external-agents/a%2fb/screenshot").await.0, 400);
}

#[tokio::test]
async fn a_viewer_gets_frames_in_order_and_its_words_back() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-7").await;
    let url = format!("ws://{}/api/v1/external-agents/7/ws/stream", gateway.addr);
    let (mut viewer, _) = timeout(DEADLINE, connect_async(url)).await.expect("in time").expect("an upgrade");
    viewer.send(Message::text("hello")).await.unwrap();
    let (mut frames, mut heard) = (0, 0);
    while frames < 5 || heard < 1 {
        assert!(frames < 100, "what was said does not come back");
        let message = timeout(DEADLINE, viewer.next()).await.expect("in time").expect("a message").expect("a message");
        match message.to_text().unwrap() {
            "hello" => heard += 1,
            frame => {
                assert_eq!(frame, format!("frame {frames}"));
                frames += 1;
            }
        }
    }
    assert_eq!(heard, 1);
    viewer.close(None).await.unwrap();
    gateway.until(|stats| stats["streams"] == 0).await;
}

#[tokio::test]
async fn a_websocket_that_the_sandbox_refuses_is_refused_to_the_viewer() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "a").await;
    let error = connect_async(format!("ws://{}/proxy/a/clipboard/nowhere", gateway.addr)).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn the_clipboard_keeps_and_commands_run() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-7").await;
    let send = async |method, path: &str, body: &'static str| {
        let path = format!("/proxy/desktop-7{path}");
        text(gateway.request(gateway.build(method, &path).body(Body::from(body)).unwrap()).await).await
    };
    assert_eq!(send(Method::PUT, "/clipboard", "grüße").await.0, 204);
    assert_eq!(send(Method::GET, "/clipboard", "").await.1, "grüße");
    assert_eq!(send(Method::POST, "/exec", "printf '%s' $((6 * 7))").await, (StatusCode::OK, "42".to_owned()));
    let failed = send(Method::POST, "/exec", "echo no >&2; exit 3").await;
    assert_eq!(failed, (StatusCode::UNPROCESSABLE_ENTITY, "no\n".to_owned()));
}

#[tokio::test]
async fn quickstart_ends_by_itself_and_leaves_a_real_picture() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Program::run("quickstart", &[("TMPDIR", dir.path().to_str().unwrap())]).await;
    assert!(ended.status.success(), "{ended:?}");
    for said in ["frames in 2 s", "\"active_connections\": 2", "desktop-ada", "desktop-bob"] {
        assert!(ended.stdout.contains(said), "{ended:?}");
    }
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let [picture] = &files[..] else { panic!("{files:?}") };
    assert!(ended.stdout.contains(picture.to_str().unwrap()), "it says where it saved the picture: {ended:?}");
    assert_eq!(decode(&std::fs::read(picture).unwrap()), (320, 180));
}
