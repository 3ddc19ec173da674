//! Some thousand agents in one process, each of which answers HTTP.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use revdial::{
    AgentKey, TunnelStream,
    agent::{Agent, AgentStatus, Listener},
};
use tokio::{spawn, sync::watch, time::sleep};

use crate::{
    Result,
    attempts::{Connector, Counter},
    kernel,
    task::{AgentsTask, Arrivals, Line},
};

/// What agents show.
pub(crate) const TOKEN: &str = "token";

/// The size of a response's body.
const BODY: usize = 100;

/// How often it is looked whether all are there.
const TICK: Duration = Duration::from_millis(20);

/// The agents of a process.
struct Agents {
    gateway: SocketAddr,
    source: IpAddr,
    /// The number of the first one in the fleet.
    first: usize,
    counter: Arc<Counter>,
    since: Instant,
    statuses: Vec<watch::Receiver<AgentStatus>>,
}

/// Does what the conductor says, until it goes.
pub(crate) async fn run(gateway: SocketAddr, source: IpAddr, first: usize, count: usize) -> Result<()> {
    kernel::raise_file_limit()?;
    let counter = Arc::new(Counter::new(count));
    let mut agents = Agents { gateway, source, first, counter, since: Instant::now(), statuses: Vec::new() };
    let mut line = Line::new(None).await?;
    while let Some(task) = line.next().await? {
        match task {
            AgentsTask::Start => agents.start(count)?,
            AgentsTask::Mark => agents.since = agents.counter.mark(),
            AgentsTask::Await { seconds } => agents.all_there(Duration::from_secs(seconds)).await,
        }
        line.say(&agents.arrivals()).await?;
    }
    Ok(())
}

/// The key of an agent, by its number.
pub(crate) fn key(agent: usize) -> AgentKey {
    format!("agent-{agent}").parse().expect("a key")
}

impl Agents {
    fn start(&mut self, count: usize) -> Result<()> {
        self.since = self.counter.mark();
        for ix in 0..count {
            let connector = Connector::new(self.source, &self.counter, ix);
            let builder = Agent::builder(format!("http://{}", self.gateway), key(self.first + ix));
            let agent = builder.token(TOKEN).build_with(connector)?;
            let status = agent.status();
            let (listener, run) = agent.listen();
            spawn(run);
            spawn(serve(listener));
            spawn(note_setbacks(status.clone(), Arc::clone(&self.counter)));
            self.statuses.push(status);
        }
        Ok(())
    }

    async fn all_there(&self, within: Duration) {
        let until = Instant::now() + within;
        while self.arrivals().at.len() < self.statuses.len() && Instant::now() < until {
            sleep(TICK).await;
        }
    }

    fn arrivals(&self) -> Arrivals {
        let at = self.statuses.iter().filter_map(|status| match *status.borrow() {
            AgentStatus::Connected { since } => since.into_std().checked_duration_since(self.since),
            _ => None,
        });
        let mut at: Vec<u32> = at.map(|at| u32::try_from(at.as_millis()).unwrap_or(u32::MAX)).collect();
        at.sort_unstable();
        Arrivals { at, attempts: self.counter.attempts() }
    }
}

async fn note_setbacks(mut status: watch::Receiver<AgentStatus>, counter: Arc<Counter>) {
    while status.changed().await.is_ok() {
        if let AgentStatus::Waiting { text, .. } | AgentStatus::Refused { text, .. } = &*status.borrow_and_update() {
            counter.setback(text);
        }
    }
}

async fn serve(mut listener: Listener) {
    while let Some(stream) = listener.accept().await {
        spawn(answer(stream));
    }
}

async fn answer(stream: TunnelStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; BODY]))))
    });
    // What fails was given up by the gateway, which counts it itself where it did not mean to.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
