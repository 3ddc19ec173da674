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
        trusted_proxy: None,
        grace: seconds(30),
        dial_timeout: seconds(10),
        ping_interval: seconds(15),
        dead_after: seconds(45),
        metrics: PrometheusBuilder::new().build_recorder().handle(),
    };
    app::Gateway::new(settings).unwrap()
}

/// Connects an agent, and cuts its link again.
async fn come_and_go(gateway: SocketAddr, number: usize) {
    let agent = Agent::builder(format!("http://{gateway}"), format!("a{number}")).token("secret").build().unwrap();
    let mut status = agent.status();
    let (_streams, run) = agent.listen();
    // What is waited for holds a lock that the end of `run` wants: it is let go of in time.
    let connected =
        async { drop(timeout(DEADLINE, status.wait_for(AgentStatus::is_connected)).await.expect("in time")) };
    tokio::select! {
        ended = run => panic!("{ended:?}"),
        () = connected => {}
    }
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
    // It is not asked for more, while these come and go, and none of them waits for it.
    for number in 0..2500 {
        come_and_go(addr, number).await;
    }
    let missed = next().await;
    assert!(missed.contains("event: missed\n"), "{missed}");
    let (_, number) = missed.split_once("{\"events\":").expect("a number");
    assert!(number.split('}').next().unwrap().parse::<u64>().unwrap() > 0, "{missed}");
    let event = next().await;
    assert!(event.contains("\"key\":\"a") && !event.contains("missed"), "{event}");
    gateway.drain(Duration::ZERO).await;
    while timeout(DEADLINE, events.next()).await.expect("it ends with the gateway").is_some() {}
}
