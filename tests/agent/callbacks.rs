//! What the host gives an agent may panic or hang.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use revdial::{ErrorKind, agent::Agent, connman::ConnectionManager};
use tokio::time::Instant;

use crate::{
    connected,
    counted::Counted,
    net::{Net, TOKEN},
    setback,
};

/// A connector that panics the first time, at one of its steps, and then connects by a [`Net`].
#[derive(Clone)]
struct Clumsy {
    net: Net,
    in_ready: bool,
    calls: Arc<AtomicUsize>,
}

impl tower::Service<http::Uri> for Clumsy {
    type Response = <Net as tower::Service<http::Uri>>::Response;
    type Error = <Net as tower::Service<http::Uri>>::Error;
    type Future = <Net as tower::Service<http::Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        assert!(!self.in_ready || self.calls.fetch_add(1, Ordering::Relaxed) > 0, "on purpose");
        self.net.poll_ready(cx)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        assert!(self.in_ready || self.calls.fetch_add(1, Ordering::Relaxed) > 0, "on purpose");
        self.net.call(uri)
    }
}

#[tokio::test(start_paused = true)]
async fn b86_a_panic_of_the_connector_or_the_token_source_is_a_failed_attempt_and_counted() {
    let counted = Counted::new();
    let connman = ConnectionManager::new();
    let net = Net::to(&connman);
    let clumsy = |in_ready| Clumsy { net: net.clone(), in_ready, calls: Arc::default() };
    let builder = || Agent::builder("http://gateway", "a");
    // Before its future is there, and in it.
    let source = |before: bool| {
        let asked = AtomicUsize::new(0);
        builder().token_source(move || {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!(first && before), "on purpose");
            async move {
                assert!(!first, "on purpose");
                Ok::<_, std::io::Error>(TOKEN.to_owned())
            }
        })
    };
    for (agent, named) in [
        (builder().token(TOKEN).build_with(clumsy(true)).unwrap(), "connector"),
        (builder().token(TOKEN).build_with(clumsy(false)).unwrap(), "connector"),
        (net.build(source(true)), "token source"),
        (net.build(source(false)), "token source"),
    ] {
        let mut status = agent.status();
        let (_listener, run) = agent.listen();
        let run = tokio::spawn(run);
        let (cause, wait, refused, text) = setback(&mut status).await;
        assert_eq!((cause, refused), (ErrorKind::Internal, false), "{text}");
        assert!(text.contains(named) && wait <= Duration::from_millis(250), "{text}: {wait:?}");
        connected(&mut status).await;
        run.abort();
    }
    assert_eq!(counted.sum("revdial_callback_failures_total"), 4);
    assert_eq!(counted.sum("revdial_agent_connect_failures_total{internal}"), 4);
}

#[tokio::test(start_paused = true)]
async fn b86_a_token_source_that_hangs_is_a_failed_attempt_after_ten_seconds_and_counted() {
    let counted = Counted::new();
    let net = Net::to(&ConnectionManager::new());
    let asked = AtomicUsize::new(0);
    let agent = net.build(Agent::builder("http://gateway", "a").token_source(move || {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::io::Error>(TOKEN.to_owned())
        }
    }));
    let (start, mut status) = (Instant::now(), agent.status());
    let (_listener, run) = agent.listen();
    let run = tokio::spawn(run);
    let (cause, _, refused, text) = setback(&mut status).await;
    assert_eq!((cause, refused), (ErrorKind::Internal, false), "{text}");
    assert!(text.contains("token"), "{text}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(counted.sum("revdial_callback_failures_total"), 1);
    connected(&mut status).await;
    run.abort();
}
