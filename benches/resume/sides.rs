//! The sides between which it is measured: gateways on this thread, agents on another, both for the whole process.

use std::{sync::mpsc, thread};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use revdial::{AgentKey, TargetName, connector::RevDialConnector, connman::ConnectionManager};
use tokio::runtime::{Builder, Handle};

use super::relay::Relay;
use crate::{
    commands::{HTTP, agent},
    gateway::{Pipe, echo, gateway},
};

/// The key of every agent; each has a gateway of its own.
const KEY: &str = "far";

/// A gateway that has an agent.
pub(crate) struct Side {
    key: AgentKey,
    connman: ConnectionManager,
    /// Pools streams of ours.
    pub(crate) client: Client<RevDialConnector, Empty<Bytes>>,
}

impl Side {
    /// A gateway here and its agent on `far`, which dials it straight.
    pub(crate) async fn direct(far: &Handle, connman: ConnectionManager) -> Self {
        let gateway = gateway(connman.clone()).await;
        far.spawn(agent(gateway, KEY));
        Self::of(connman).await
    }

    /// The same through a relay, which has a thread of its own.
    pub(crate) async fn relayed(far: &Handle, connman: ConnectionManager) -> (Self, Relay) {
        let relay = Relay::start(&thread("relay"), gateway(connman.clone()).await).await;
        far.spawn(agent(relay.address(), KEY));
        (Self::of(connman).await, relay)
    }

    async fn of(connman: ConnectionManager) -> Self {
        let key: AgentKey = KEY.parse().expect("a key");
        while connman.epoch(&key).is_none() {
            tokio::task::yield_now().await;
        }
        let client = Client::builder(TokioExecutor::new()).build(RevDialConnector::new(connman.clone()));
        Self { key, connman, client }
    }

    /// An open stream, on which a byte has gone there and back.
    pub(crate) async fn dial(&self) -> Box<dyn Pipe> {
        let stream = self.connman.dial(&self.key, &TargetName::default()).await.expect("the agent is there");
        let mut pipe: Box<dyn Pipe> = Box::new(stream);
        echo(&mut pipe).await;
        pipe
    }

    /// Where a GET to the agent goes.
    pub(crate) fn uri(&self) -> hyper::Uri {
        format!("http://{HTTP}~{}/", self.key).parse().expect("a URI")
    }
}

/// A thread with a runtime on which others can spawn; it ends with the process.
pub(crate) fn thread(name: &str) -> Handle {
    let (tell, handle) = mpsc::channel();
    let run = move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        tell.send(runtime.handle().clone()).expect("the spawner waits");
        runtime.block_on(std::future::pending::<()>());
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread");
    handle.recv().expect("the thread starts")
}
