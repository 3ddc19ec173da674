//! The gateway example in one process, for what cannot be seen of it from outside.

#[path = "../examples/gateway/app/mod.rs"]
mod app;

use std::{net::SocketAddr, time::Duration};

use axum::{body::Body, extract::ConnectInfo};
use futures_util::StreamExt;
use http::Request;
use metrics_exporter_prometheus::PrometheusBuilder;
use revdial::agent::{Agent, AgentStatus};
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceExt;

const DEADLINE: Duration = Duration::from_secs(20);

fn gateway() -> app::Gateway {
    let seconds = Duration::from_secs;
    let settings = app::Settings {
        token: "secret".into(),
        caller_token: None,
        domain: Some("tunnels.example".parse().unwrap()),
        grace: seconds(30),
        dial_timeout: seconds(10),
        ping_interval: seconds(15),
        dead_after: seconds(45),
        metrics: PrometheusBuilder::new().build_recorder().handle(),
    };
    app::Gateway::new(settings).unwrap()
}

async fn connect(gateway: SocketAddr, key: String) {
    let agent = Agent::builder(format!("http://{gateway}"), key).token("secret").build().unwrap();
    let mut status = agent.status();
    let (listener, run) = agent.listen();
    tokio::spawn(async move {
        let _listener = listener;
        run.await
    });
    timeout(DEADLINE, status.wait_for(AgentStatus::is_connected)).await.expect("in time").expect("it runs");
}

#[tokio::test]
async fn a_listener_that_is_slow_loses_the_oldest_events_and_is_told_how_many() {
    let gateway = gateway();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let service = gateway.router.clone().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, service).into_future());

    let mut request = Request::get("/events").body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(addr));
    let mut events = gateway.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let mut next = async || {
        let event = timeout(DEADLINE, events.next()).await.expect("in time").expect("more").expect("an event");
        String::from_utf8(event.to_vec()).unwrap()
    };
    assert!(next().await.contains("event: listening\n"));
    // It is not asked for more, while these come, and none of them waits for it.
    for number in 0..300 {
        connect(addr, format!("a{number:03}")).await;
    }
    let missed = next().await;
    assert!(missed.contains("event: missed\n") && missed.contains("\"events\":44"), "{missed}");
    for number in 44..300 {
        let event = next().await;
        assert!(event.contains("event: connected\n") && event.contains(&format!("\"a{number:03}\"")), "{event}");
    }
    gateway.drain(Duration::ZERO).await;
    while timeout(DEADLINE, events.next()).await.expect("it ends with the gateway").is_some() {}
}
