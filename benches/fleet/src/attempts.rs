//! Counts the attempts of a process's agents, by a connector that is the crate's own but for that.

use std::{
    collections::BTreeMap,
    mem,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{
    Error, Result,
    task::{Attempts, SLOT},
};

/// The counts of a process.
#[derive(Debug)]
pub(crate) struct Counter {
    counts: Mutex<Counts>,
    /// By agent.
    each: Vec<AtomicU32>,
}

#[derive(Debug)]
struct Counts {
    since: Instant,
    slots: Vec<u32>,
    refused: u32,
    setbacks: BTreeMap<String, u32>,
}

impl Counter {
    pub(crate) fn new(agents: usize) -> Self {
        let each = (0..agents).map(|_| AtomicU32::new(0)).collect();
        Self { counts: Mutex::new(Counts::new()), each }
    }

    /// Counts from here on; the moment that this is.
    pub(crate) fn mark(&self) -> Instant {
        self.each.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        let counts = Counts::new();
        let since = counts.since;
        self.with(|old| drop(mem::replace(old, counts)));
        since
    }

    pub(crate) fn setback(&self, text: &str) {
        self.with(|counts| *counts.setbacks.entry(text.to_owned()).or_default() += 1);
    }

    pub(crate) fn attempts(&self) -> Attempts {
        let worst = self.each.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap_or_default();
        self.with(|counts| Attempts {
            slots: counts.slots.clone(),
            worst,
            refused: counts.refused,
            setbacks: counts.setbacks.clone(),
        })
    }

    fn attempt(&self, agent: usize) {
        self.each[agent].fetch_add(1, Ordering::Relaxed);
        self.with(|counts| {
            let slot = counts.since.elapsed().as_millis() as u64 / SLOT;
            let slot = usize::try_from(slot).unwrap_or(usize::MAX - 1);
            if counts.slots.len() <= slot {
                counts.slots.resize(slot + 1, 0);
            }
            counts.slots[slot] += 1;
        });
    }

    fn with<R>(&self, f: impl FnOnce(&mut Counts) -> R) -> R {
        f(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counts {
    fn new() -> Self {
        Self { since: Instant::now(), slots: Vec::new(), refused: 0, setbacks: BTreeMap::new() }
    }
}

/// What an agent connects by.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    counter: Arc<Counter>,
    agent: usize,
}

impl Connector {
    /// The connector of this agent, whose connections come from this address: each has ports of its own.
    pub(crate) fn new(source: IpAddr, counter: &Arc<Counter>, agent: usize) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_local_address(Some(source));
        Self { tcp, counter: Arc::clone(counter), agent }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.counter.attempt(self.agent);
        let (connecting, counter) = (self.tcp.call(uri), Arc::clone(&self.counter));
        Box::pin(async move {
            connecting.await.map_err(|error| {
                counter.with(|counts| counts.refused += 1);
                error.into()
            })
        })
    }
}
