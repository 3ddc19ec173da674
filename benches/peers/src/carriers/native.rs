//! Ours: an axum app with the layer, and agents with a listener, in our protocol or in the dial-back one.

use std::net::SocketAddr;

use axum::{Router, serve::ListenerExt};
use revdial::{
    AgentKey, TargetName,
    agent::{Agent, AgentStatus, ProtocolChoice},
    connman::{ConnectionManager, NoGrace},
    proto::SessionConfig,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{
    spawn,
    time::{Duration, sleep},
};

use super::{server::Pipe, sockets::listen};
use crate::{
    carrier::Carrier,
    commands::{TOKEN, serve},
};

/// What the bounds are raised to where they are not to be what limits, or hardly: at 150 ms they allow 1.7 GiB/s.
const WIDE: usize = 256 * 1024 * 1024;

/// Starts a gateway.
pub(crate) async fn gateway(carrier: Carrier) -> (ConnectionManager, SocketAddr) {
    let builder = ConnectionManager::builder();
    let connman = match carrier {
        Carrier::NativeNoGrace => builder.grace(NoGrace).build(),
        _ => builder.build(),
    };
    let token = SharedBearer::new(TOKEN).expect("a token");
    let layer = RevDialLayer::new(connman.clone(), token).session(session(carrier)).expect("settings that can be");
    let (listener, address) = listen().await;
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a TCP socket"));
    spawn(async move { axum::serve(listener, Router::new().layer(layer)).await });
    (connman, address)
}

/// The key of an agent process's tunnel.
pub(crate) fn key(tunnel: usize) -> AgentKey {
    format!("agent-{tunnel}").parse().expect("a key")
}

/// Waits until this tunnel is there.
pub(crate) async fn arrival(connman: &ConnectionManager, key: &AgentKey) {
    while connman.epoch(key).is_none() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// A stream through this tunnel, on which data follows OPEN at once or after the agent's word.
pub(crate) async fn dial(connman: &ConnectionManager, key: &AgentKey, early: bool) -> Box<dyn Pipe> {
    let dial = connman.dial(key, &TargetName::default()).early_data(early);
    Box::new(dial.await.expect("the agent is there"))
}

/// An agent of the given tunnel, once it is connected; it lasts as long as the process.
pub(crate) async fn agent(carrier: Carrier, gateway: SocketAddr, tunnel: usize) {
    let builder = Agent::builder(format!("http://{gateway}"), key(tunnel)).token(TOKEN).session(session(carrier));
    let agent = match carrier {
        Carrier::Dialback => builder.protocol(ProtocolChoice::Dialback).build(),
        _ => builder.build(),
    };
    let agent = agent.expect("settings that can be");
    let mut status = agent.status();
    let (mut listener, run) = agent.listen();
    spawn(run);
    spawn(async move {
        while let Some(stream) = listener.accept().await {
            spawn(serve(stream));
        }
    });
    status.wait_for(AgentStatus::is_connected).await.expect("the agent runs");
}

fn session(carrier: Carrier) -> SessionConfig {
    match carrier {
        Carrier::NativeWide => {
            // One stream may use a quarter of the budget, or what it is lent at first if that is more. Few may be open, as each
            // has its guaranteed part of the budget.
            let lent_credit = WIDE as u32 - SessionConfig::default().base_credit;
            SessionConfig {
                max_streams: 16,
                send_bound: WIDE,
                recv_budget: WIDE,
                lent_credit,
                ..SessionConfig::default()
            }
        }
        _ => SessionConfig::default(),
    }
}
