//! After how long a middlebox cuts an idle connection.
//!
//! The probe takes a key of its own as an agent, behind which a WebSocket repeats what is said to it. Some callers'
//! connections to it, over the way to be examined, are then left alone, each for longer than the one before: the ends
//! that come by themselves, and those that are there no more when they are spoken to, enclose the time.

use std::time::Duration;

use axum::{Router, extract::Request, routing::get};
use futures_util::{SinkExt, StreamExt, future::join_all};
use http::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use revdial::{
    AgentKey, TargetName,
    agent::{Agent, AgentStatus},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use tower::service_fn;

use crate::{
    fault::{Failure, Fault},
    gateway::{Bearer, Gateway},
    report::{Outcome, Passed},
    socket,
    way::BoxedIo,
    websocket,
    words::{shown, took},
};

/// Connections that are left alone, each an eighth of the whole time longer than the one before.
const RUNGS: u32 = 8;

/// When a sandbox gives a sign of life at the latest, unless it is told otherwise: 15 s and a fifth of it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(18);

/// What became of a connection that was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    /// It still worked after this long.
    Lived(Duration),
    /// It ended by itself after this long.
    Cut(Duration),
    /// It did not end, and did not work any more after this long.
    Lost(Duration),
}

pub(crate) async fn idle(gateway: &Gateway, up_to: Option<Duration>) -> Outcome<()> {
    let Some(up_to) = up_to else {
        return Ok(Passed::skip("not asked for (--idle-up-to)", ()));
    };
    let Some(token) = &gateway.token else {
        return Ok(Passed::unseen(&["idle"], "no RUNNER_TOKEN here; the probe needs one for a key of its own", ()));
    };
    let key = own_key();
    let mut tasks = JoinSet::new();
    if let Err(why) = answer_as(&key, gateway, token, &mut tasks).await {
        return Ok(Passed::unseen(&["idle"], format!("the probe cannot connect as {key}: {why}"), ()));
    }
    let path = gateway.way.server.through(&key, &TargetName::default(), "/");
    let asked = gateway.ask(gateway.call(&path)?).await;
    let asked = asked.map_err(|why| why.blamed(Fault::Upgrade, "the way does not work", "the gateway's log"))?;
    if asked.status == StatusCode::NOT_FOUND {
        return Ok(Passed::unseen(&["idle"], "404: the gateway has no /proxy, which would lead to the probe", ()));
    }
    let rungs = join_all((1..=RUNGS).map(|rung| leave_alone(gateway, &path, up_to / RUNGS * rung))).await;
    judge(&rungs.into_iter().collect::<Result<Vec<_>, _>>()?, up_to)
}

/// A key that nobody else has.
fn own_key() -> AgentKey {
    format!("probe-{:016x}", rand::random::<u64>()).parse().expect("letters and digits")
}

/// Connects as an agent that repeats what WebSockets say to it. It goes on as long as the tasks are kept.
async fn answer_as(key: &AgentKey, gateway: &Gateway, token: &Bearer, tasks: &mut JoinSet<()>) -> Result<(), String> {
    let way = gateway.way.clone();
    let connector = service_fn(move |_: Uri| {
        let way = way.clone();
        async move { way.open().await.map(TokioIo::new).map_err(|failure| std::io::Error::other(failure.what)) }
    });
    let agent = Agent::builder(gateway.way.server.to_string(), key.as_str()).token(token.token.clone());
    let agent = agent.agent_version("revdial-probe").build_with(connector).map_err(|error| error.to_string())?;
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tasks.spawn(async { drop(run.await) });
    let app = Router::new().route("/", get(repeat));
    tasks.spawn(async { drop(axum::serve(listener, app).await) });
    let settled = |status: &AgentStatus| !matches!(status, AgentStatus::Connecting);
    match timeout(gateway.way.patience, status.wait_for(settled)).await {
        Ok(Ok(status)) => match &*status {
            AgentStatus::Connected { .. } => Ok(()),
            AgentStatus::Refused { text, .. } | AgentStatus::Waiting { text, .. } => Err(shown(text)),
            _ => Err("it stopped".to_owned()),
        },
        Ok(Err(_)) | Err(_) => Err("no answer".to_owned()),
    }
}

async fn repeat(request: Request) -> axum::response::Response {
    websocket::upgrade(request, |mut socket| async move {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Opens a connection, sees that it works, and leaves it alone.
async fn leave_alone(gateway: &Gateway, path: &str, span: Duration) -> Result<Rung, Failure> {
    let unopened = |what: String| {
        let cause = "the way through the probe's own tunnel does not work";
        Failure::new(Fault::Upgrade, what, cause, "the gateway's log")
    };
    let mut socket = socket::open(gateway, path).await.map_err(|why| match why {
        socket::Unopened::Refused(answer) => unopened(format!("answered {}", answer.status)),
        socket::Unopened::NoAnswer(why) => why.blamed(Fault::Upgrade, "the way does not work", "the gateway's log"),
    })?;
    if !is_answered(&mut socket, gateway.way.patience).await {
        return Err(unopened("a fresh connection does not work".to_owned()));
    }
    let begun = Instant::now();
    // Whatever comes unasked is its end.
    if timeout(span, socket.next()).await.is_ok() {
        return Ok(Rung::Cut(begun.elapsed()));
    }
    let lives = is_answered(&mut socket, gateway.way.patience).await;
    Ok(if lives { Rung::Lived(span) } else { Rung::Lost(span) })
}

async fn is_answered(socket: &mut WebSocketStream<BoxedIo>, patience: Duration) -> bool {
    let exchange = async {
        socket.send(Message::text("still there?")).await.is_ok() && matches!(socket.next().await, Some(Ok(_)))
    };
    timeout(patience, exchange).await.unwrap_or(false)
}

fn judge(rungs: &[Rung], up_to: Duration) -> Outcome<()> {
    let lived = rungs.iter().filter_map(|rung| if let Rung::Lived(span) = rung { Some(*span) } else { None }).max();
    let ended = rungs.iter().filter_map(|rung| match rung {
        Rung::Cut(after) => Some((*after, "cut")),
        Rung::Lost(after) => Some((*after, "dead without a word")),
        Rung::Lived(_) => None,
    });
    let Some((after, how)) = ended.min() else {
        return Ok(Passed::ok(format!("idle connections live for {} and longer", took(up_to)), ()));
    };
    let lived = lived.map_or_else(String::new, |lived| format!(", alive after {}", took(lived)));
    let what = format!("an idle connection is {how} after {}{lived}", took(after));
    if after > SIGN_OF_LIFE {
        return Ok(Passed::ok(format!("{what}; sandboxes give a sign of life each 15 s, which is enough"), ()));
    }
    let next = "raise the middlebox's idle time-out (nginx: proxy_read_timeout, HAProxy: timeout tunnel), or lower \
                --ping-interval at both ends";
    Err(Failure::new(Fault::Idle, what, "a middlebox cuts sooner than a sandbox gives a sign of life", next))
}
