//! Desktops whose services take every request and never answer.

use std::net::SocketAddr;

use axum::Router;
use revdial::agent::{Agent, AgentStatus};
use tokio::{sync::watch, time::timeout};

use crate::{TOKEN, process::DEADLINE};

/// More than a browser has connections to one host.
const DESKTOPS: usize = 8;

/// How often they were asked.
#[derive(Debug, Default)]
pub(crate) struct Hung(watch::Sender<usize>);

impl Hung {
    /// Connects `desktop-hung-0` to `desktop-hung-7`, for as long as the test runs.
    pub(crate) async fn start(&self, gateway: SocketAddr) {
        for number in 0..DESKTOPS {
            let agent = Agent::builder(format!("http://{gateway}"), format!("desktop-hung-{number}")).token(TOKEN);
            let agent = agent.build().expect("settings that can be");
            let mut status = agent.status();
            let (listener, run) = agent.listen();
            tokio::spawn(run);
            let asked = self.0.clone();
            let hang = async move || {
                asked.send_modify(|times| *times += 1);
                std::future::pending::<()>().await;
            };
            tokio::spawn(axum::serve(listener, Router::new().fallback(hang)).into_future());
            timeout(DEADLINE, status.wait_for(AgentStatus::is_connected)).await.expect("in time").expect("it runs");
        }
    }

    /// Waits until some of them are being asked.
    pub(crate) async fn asked(&self) {
        let mut asked = self.0.subscribe();
        timeout(DEADLINE, asked.wait_for(|times| *times >= 3)).await.expect("they are in view").expect("it is kept");
    }
}
