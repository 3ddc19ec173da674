//! `probe stream`: watches a desktop's stream for a while, and tells its pace.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;

use crate::{
    fault::{Failure, Fault},
    gateway::Gateway,
    meter::{Meter, Pace},
    progress::during,
    session::Session,
    socket,
    way::BoxedIo,
    words::{say, shown, size, took},
};

#[derive(Args)]
pub(crate) struct Options {
    /// The desktop's session, such as ses_1: its key without `desktop-`.
    #[arg(value_parser = Session::parse)]
    session: Session,
    /// For how long: seconds, or with a unit; an hour at the most.
    #[arg(long, default_value = "10", value_parser = crate::duration)]
    duration: Duration,
}

pub(crate) async fn run(gateway: &Gateway, options: &Options, json: bool) -> Result<(), Failure> {
    let session = &options.session;
    let path = session.path(gateway, "ws/stream");
    let opened = Instant::now();
    let mut frames = match during("opening the stream", socket::open(gateway, &path)).await {
        Ok(frames) => frames,
        Err(socket::Unopened::Refused(answer)) => return Err(session.refused(gateway, &answer)),
        Err(socket::Unopened::NoAnswer(why)) => return Err(session.unanswered(gateway, why).await),
    };
    let (meter, ended) = during("watching", watch(&mut frames, opened, options.duration)).await;
    let watched = opened.elapsed();
    let next = format!("{} ; the desktop's log", session.doctor(gateway));
    let Some(pace) = meter.pace() else {
        let what = format!("the stream is open, and no frame came within {}", took(watched));
        let cause = "the desktop's encoder does not run, or has nothing new to show";
        return Err(Failure::new(Fault::Target, what, cause, next));
    };
    if json {
        say(as_json(&pace, watched));
    } else {
        print(&session.name, &pace, watched);
    }
    match ended {
        None => Ok(()),
        Some(why) => {
            let what = format!("the stream ended after {}: {why}", took(watched));
            Err(Failure::new(Fault::Target, what, "the desktop ended it, or was lost", next))
        }
    }
}

/// Takes frames until the time is up, or until the stream ends: then it is told how.
async fn watch(frames: &mut WebSocketStream<BoxedIo>, opened: Instant, duration: Duration) -> (Meter, Option<String>) {
    let mut meter = Meter::default();
    let end = Instant::now() + duration;
    while let Ok(message) = timeout_at(end, frames.next()).await {
        match message {
            Some(Ok(message)) if message.is_text() || message.is_binary() => {
                meter.frame(opened.elapsed(), message.len())
            }
            Some(Ok(message)) if message.is_close() => return (meter, Some("closed by the desktop".to_owned())),
            Some(Ok(_)) => {}
            Some(Err(error)) => return (meter, Some(shown(&error.to_string()))),
            None => return (meter, Some("its connection is closed".to_owned())),
        }
    }
    (meter, None)
}

fn print(session: &str, pace: &Pace, watched: Duration) {
    let seconds = watched.as_secs_f64();
    say(format_args!("{session}, watched for {}", took(watched)));
    say(format_args!(
        "  frames    {}, {:.1} a second, the first after {}",
        pace.frames,
        pace.frames as f64 / seconds,
        took(pace.first)
    ));
    say(format_args!("  bytes     {}, {} a second", size(pace.bytes), size((pace.bytes as f64 / seconds) as u64)));
    say(format_args!(
        "  interval  {} usually, {} at p99, {} at the most",
        took(pace.median),
        took(pace.p99),
        took(pace.longest)
    ));
    say(format_args!("  jitter    {}, the mean difference of an interval from the one before", took(pace.jitter)));
    say(format_args!("  gaps      {}, of more than three usual intervals", pace.gaps));
}

fn as_json(pace: &Pace, watched: Duration) -> serde_json::Value {
    json!({
        "seconds": watched.as_secs_f64(),
        "frames": pace.frames,
        "bytes": pace.bytes,
        "first_seconds": pace.first.as_secs_f64(),
        "interval_seconds": {
            "median": pace.median.as_secs_f64(),
            "p99": pace.p99.as_secs_f64(),
            "longest": pace.longest.as_secs_f64(),
        },
        "jitter_seconds": pace.jitter.as_secs_f64(),
        "gaps": pace.gaps,
    })
}
