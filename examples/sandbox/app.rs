//! What a desktop offers: a screenshot, a stream of frames, a clipboard, commands.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{process::Command, time::MissedTickBehavior};
use tokio_tungstenite::tungstenite::Message;

use super::{picture, websocket};

type Clipboard = Arc<Mutex<String>>;

#[derive(Clone)]
struct Desktop {
    name: Arc<str>,
    clipboard: Clipboard,
}

pub(crate) fn router(name: &str) -> Router {
    Router::new()
        .route("/screenshot", get(screenshot))
        .route("/ws/stream", get(stream))
        .route("/clipboard", get(paste).put(copy))
        .route("/exec", post(exec))
        .with_state(Desktop { name: name.into(), clipboard: Clipboard::default() })
}

/// A PNG with the time on it.
async fn screenshot(State(desktop): State<Desktop>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")], picture(&desktop.name))
}

fn picture(name: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs();
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    picture::png(name, &clock, (now.as_millis() / 50) as usize)
}

/// Ten frames a second, and what the viewer says back to it, until it leaves: numbered texts, or with `?frames=png`
/// pictures.
async fn stream(
    State(desktop): State<Desktop>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let pictures = query.get("frames").is_some_and(|frames| frames == "png");
    websocket::upgrade(request, move |mut socket| async move {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0u64;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let frame = match pictures {
                        true => Message::binary(picture(&desktop.name)),
                        false => Message::text(format!("frame {number}")),
                    };
                    if socket.send(frame).await.is_err() {
                        return;
                    }
                    number += 1;
                }
                said = socket.next() => match said {
                    Some(Ok(Message::Text(text))) => if socket.send(Message::Text(text)).await.is_err() {
                        return;
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                }
            }
        }
    })
}

async fn paste(State(desktop): State<Desktop>) -> String {
    desktop.clipboard.lock().expect("nobody panics with it").clone()
}

async fn copy(State(desktop): State<Desktop>, text: String) -> StatusCode {
    *desktop.clipboard.lock().expect("nobody panics with it") = text;
    StatusCode::NO_CONTENT
}

/// Runs the body as a shell command; the answer is what it printed, the status tells whether it succeeded.
async fn exec(command: String) -> Response {
    let child = Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).kill_on_drop(true).output();
    match child.await {
        Ok(output) if output.status.success() => output.stdout.into_response(),
        Ok(output) => (StatusCode::UNPROCESSABLE_ENTITY, output.stderr).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
