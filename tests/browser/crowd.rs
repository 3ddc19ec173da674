//! More sandboxes than the page shows at once.

use std::net::SocketAddr;

use revdial::agent::{Agent, AgentStatus};
use tokio::time::timeout;

use crate::{TOKEN, process::DEADLINE};

/// Connects `crowd-00` to `crowd-59`, for as long as the test runs.
pub(crate) async fn start(gateway: SocketAddr) {
    let mut connected = Vec::new();
    for number in 0..60 {
        let agent = Agent::builder(format!("http://{gateway}"), format!("crowd-{number:02}")).token(TOKEN);
        let agent = agent.build().expect("settings that can be");
        connected.push(agent.status());
        let (listener, run) = agent.listen();
        tokio::spawn(run);
        tokio::spawn(async move {
            let _listener = listener;
            std::future::pending::<()>().await;
        });
    }
    for mut status in connected {
        timeout(DEADLINE, status.wait_for(AgentStatus::is_connected)).await.expect("in time").expect("it runs");
    }
}
