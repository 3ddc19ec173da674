//! An agent with a server that speaks dial-back: each connection that is asked for is brought, on its own task.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{debug, info};

use super::{
    forward,
    life::{Departed, Teller},
    pace::{Pace, Past},
    refusal::{Retry, Setback},
    sink::Sink,
    status::AgentStatus,
};
use crate::{
    dialback::{self, Asked, Brought, ControlLink},
    frame::ResetCode,
    key::TargetName,
    tunnel::Incoming,
};

/// Connections that are brought or at work at once; as many streams has a session of the native protocol.
const MAX_STREAMS: usize = 1024;

/// The longest time that streams of an agent that was replaced may take, whatever the server gives them: as long as the
/// longest drain that it would grant.
const FINISH_WITHIN: Duration = Duration::from_secs(3600);

/// The streams of all dial-back sessions of an agent, on their tasks.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    brought: Brought,
    /// How many tasks are at work.
    running: watch::Sender<usize>,
    tasks: Mutex<JoinSet<()>>,
}

/// A task at work.
struct Running(Arc<Streams>);

impl Streams {
    /// Resolves when none is left.
    pub(crate) async fn idle(&self) {
        // Its sender lives as long as it does.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
        self.brought.idle().await;
    }

    /// Ends all of them, and those to come.
    pub(crate) fn end(&self) {
        self.brought.end();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// A task, unless there are too many.
    fn begin(self: &Arc<Self>) -> Option<Running> {
        let begun = self.running.send_if_modified(|running| {
            let begins = *running < MAX_STREAMS;
            *running += usize::from(begins);
            begins
        });
        begun.then(|| Running(Arc::clone(self)))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

/// One session, which has one link: until that ends, or `stopped` resolves.
pub(super) async fn run(
    mut link: ControlLink,
    pace: Pace,
    teller: Teller,
    sink: Sink,
    stopped: oneshot::Receiver<()>,
) -> Departed {
    let since = Instant::now();
    teller.status.send_replace(AgentStatus::Connected { since });
    info!(key = %teller.server.key(), "the server speaks dial-back");
    let stopped = async { drop(stopped.await) };
    let (end, progress) = dialback::listen(&mut link, stopped, |asked| bring(asked, &teller, &sink)).await;
    let past = Past { progress, stood: since.elapsed() };
    debug!(key = %teller.server.key(), end = ?end.end, stood = ?past.stood, "the link ended");
    link.close(end, "").await;
    let setback = Setback::by_end(end.end, None);
    if setback.retry == Retry::Never {
        // Its key is another agent's, and what runs may finish in the time that the server gives it, and cuts it after.
        let _ = timeout(FINISH_WITHIN, teller.streams.idle()).await;
    }
    Departed { setback, past, pace, next: None }
}

/// Brings a connection, on a task of its own, as long as there are not too many.
fn bring(asked: Asked, teller: &Teller, sink: &Sink) {
    let Some(running) = teller.streams.begin() else { return asked.fail("too many streams".to_owned()) };
    let (teller, sink) = (teller.clone(), sink.clone());
    let streams = Arc::clone(&teller.streams);
    streams.spawn(async move {
        serve(asked, &teller, &sink).await;
        drop(running);
    });
}

/// One connection: the service is reached first, so that a refusal of its can be told.
async fn serve(asked: Asked, teller: &Teller, sink: &Sink) {
    let socket = match sink {
        Sink::Queue(queue) if queue.is_closed() => return asked.fail("nothing listens here any more".to_owned()),
        Sink::Queue(_) => None,
        Sink::Forward(targets) => match forward::reach(&TargetName::default(), targets).await {
            Ok(socket) => Some(socket),
            Err((code, why)) => return asked.fail(text(code, why)),
        },
    };
    let link = match teller.server.pick_up(&asked.path).await {
        Ok(link) => link,
        Err(setback) => {
            let text = setback.text();
            debug!(key = %teller.server.key(), told = ?setback.told, "a connection could not be brought: {text}");
            return asked.fail(text);
        }
    };
    let incoming = Incoming::from(teller.streams.brought.stream(link));
    match (socket, sink) {
        (Some(socket), _) => socket.join(incoming).await,
        (None, Sink::Queue(queue)) => queue.send(incoming).await,
        (None, Sink::Forward(_)) => {}
    }
}

/// What the server is told of a service that is not reached.
fn text(code: ResetCode, why: &str) -> String {
    match code.meaning() {
        Some(meaning) if why.is_empty() => meaning.to_owned(),
        _ => why.to_owned(),
    }
}
