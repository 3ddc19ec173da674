//! A sandbox that means ill: what it says of itself is markup, and its pages reach for what is not theirs.

use std::net::SocketAddr;

use axum::{Router, response::Html, routing::get};
use revdial::agent::{Agent, AgentStatus};
use tokio::time::timeout;

use crate::{TOKEN, process::DEADLINE};

const MARKUP: &str = "<img src=x onerror=document.title='taken'>";

/// Says in its title what it was given.
const PAGE: &str = r#"<!doctype html><title>trying</title><script>
const gateway = location.protocol + "//" + location.host.replace(/^hostile\./, "");
const attempt = (what) => what().then((answer) => answer.ok ? "taken" : "refused", () => "refused");
const socket = () => new Promise((ok, no) => {
  const socket = new WebSocket(gateway.replace("http", "ws") + "/api/v1/external-agents/ada/ws/stream");
  socket.onopen = () => ok({ ok: true });
  socket.onerror = no;
});
(async () => {
  const stats = await attempt(() => fetch(gateway + "/stats", { credentials: "include" }));
  const exec = await attempt(() => fetch(gateway + "/proxy/desktop-ada/exec", { method: "POST", body: "true", mode: "cors", credentials: "include" }));
  const stream = await attempt(socket);
  const own = await attempt(() => fetch("/own"));
  document.title = `stats ${stats}, exec ${exec}, stream ${stream}, own ${own}`;
})();
</script>"#;

/// Connects it, for as long as the test runs.
pub(crate) async fn start(gateway: SocketAddr) {
    let agent = Agent::builder(format!("http://{gateway}"), "hostile")
        .token(TOKEN)
        .agent_version(MARKUP)
        .label(MARKUP, MARKUP)
        .build()
        .expect("settings that can be");
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(run);
    let pages = Router::new().route("/", get(|| async { Html(PAGE) })).route("/own", get(|| async { "own" }));
    tokio::spawn(axum::serve(listener, pages).into_future());
    timeout(DEADLINE, status.wait_for(AgentStatus::is_connected)).await.expect("in time").expect("it runs");
}
