//! Pooled connections: used again only where nothing is left of what was before, and what is sent twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use http_body_util::BodyExt;
use revdial::{Error, ErrorKind, TunnelStream, agent::Listener, connman::ConnectionManager, proxy::status_of};
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    askers::{Asker, Failed},
    support::{agent, head, serve_streams},
};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

/// What time lets happen that is under way.
const A_MOMENT: Duration = Duration::from_millis(10);

/// Has a service see one request after the other on a stream, with the number of the stream and of the request in it,
/// until it says that it is enough. Gives the first lines.
fn serve<F, A>(listener: Listener, service: F) -> mpsc::UnboundedReceiver<String>
where
    F: Fn(TunnelStream, usize, usize) -> A + Send + Sync + 'static,
    A: Future<Output = Option<TunnelStream>> + Send + 'static,
{
    let (service, streams, (seen, lines)) = (Arc::new(service), AtomicUsize::new(0), mpsc::unbounded_channel());
    serve_streams(listener, move |mut stream| {
        let number = streams.fetch_add(1, Ordering::SeqCst);
        let (service, seen) = (Arc::clone(&service), seen.clone());
        async move {
            for request in 0.. {
                let head = head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                let _ = seen.send(format!("{number} {}", head.split(' ').next().unwrap()));
                match service(stream, number, request).await {
                    Some(next) => stream = next,
                    None => return,
                }
            }
        }
    });
    lines
}

/// What has come.
fn all(lines: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_body_was_not_read_to_its_end_is_closed_and_never_used_again() {
    for which in [0, 1] {
        let connman = ConnectionManager::new();
        let (listener, _agent) = agent(&connman).await;
        let (ended, mut end) = mpsc::unbounded_channel();
        let mut lines = serve(listener, move |mut stream, number, _| {
            let ended = ended.clone();
            async move {
                if number > 0 {
                    stream.write_all(GOOD.as_bytes()).await.unwrap();
                    return Some(stream);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nhalf").await.unwrap();
                std::future::poll_fn(|cx| stream.poll_stopped(cx)).await;
                ended.send(()).unwrap();
                None
            }
        });
        let [proxy, client] = Asker::both(&connman);
        let asker = if which == 0 { proxy } else { client };
        let mut body = asker.ask(Method::GET, "").await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        drop(body);
        assert_eq!(asker.text().await, "good", "{asker:?}");
        assert_eq!(timeout(Duration::from_millis(100), end.recv()).await, Ok(Some(())));
        assert_eq!(all(&mut lines), ["0 GET", "1 GET"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_says_beyond_its_answer_is_never_the_answer_to_the_next_request() {
    for at_once in [true, false] {
        let connman = ConnectionManager::new();
        let (listener, _agent) = agent(&connman).await;
        let _lines = serve(listener, move |mut stream, _, _| async move {
            if at_once {
                stream.write_all(format!("{GOOD}{EVIL}").as_bytes()).await.ok()?;
            } else {
                stream.write_all(GOOD.as_bytes()).await.ok()?;
                sleep(A_MOMENT).await;
                stream.write_all(EVIL.as_bytes()).await.ok()?;
            }
            Some(stream)
        });
        // What comes after the next request has left is an answer to it, for all that HTTP can tell.
        let pauses = if at_once { [Duration::ZERO, A_MOMENT] } else { [A_MOMENT * 2; 2] };
        for asker in Asker::both(&connman) {
            for pause in pauses {
                assert_eq!(asker.text().await, "good", "{at_once} {pause:?} {asker:?}");
                sleep(pause).await;
            }
            assert_eq!(asker.text().await, "good", "{at_once} {asker:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b77_a_request_that_meets_a_connection_as_it_closes_fails_and_is_never_sent_twice() {
    for (method, body) in
        [(Method::GET, ""), (Method::HEAD, ""), (Method::PUT, "x"), (Method::POST, "x"), (Method::POST, "")]
    {
        for which in [0, 1] {
            let connman = ConnectionManager::new();
            let (listener, _agent) = agent(&connman).await;
            let mut lines = serve(listener, |mut stream, number, request| async move {
                if (number, request) == (0, 1) {
                    return None;
                }
                stream.write_all(GOOD.as_bytes()).await.unwrap();
                Some(stream)
            });
            let [proxy, client] = Asker::both(&connman);
            let asker = if which == 0 { proxy } else { client };
            assert_eq!(asker.text().await, "good");
            match asker.ask(method.clone(), body).await.unwrap_err() {
                Failed::Proxy(error) => {
                    assert_eq!((error.kind(), error.is_retry_safe()), (ErrorKind::PeerReset, false));
                    assert_eq!(status_of(error.kind()), 502);
                    assert!(std::error::Error::source(&error).is_some_and(is_incomplete));
                }
                Failed::Client(error) => {
                    assert!(Error::find(&error).is_none(), "none of ours: {error:?}");
                    assert!(is_incomplete(&error), "{error:?}");
                }
            }
            sleep(Duration::from_secs(1)).await;
            assert_eq!(all(&mut lines), ["0 GET".to_owned(), format!("0 {method}")]);
            assert_eq!(asker.text().await, "good");
        }
    }
}

/// Whether it is hyper's word for a connection that ended before an answer.
fn is_incomplete(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| std::error::Error::source(*error))
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_incomplete_message)
}

#[tokio::test(start_paused = true)]
async fn b77_a_connection_that_is_known_to_have_closed_costs_no_request_whatever_its_method() {
    for (method, body) in [(Method::GET, ""), (Method::POST, "x"), (Method::POST, ""), (Method::PATCH, "x")] {
        for which in [0, 1] {
            let connman = ConnectionManager::new();
            let (listener, _agent) = agent(&connman).await;
            let mut lines = serve(listener, |mut stream, number, _| async move {
                stream.write_all(GOOD.as_bytes()).await.unwrap();
                (number > 0).then_some(stream)
            });
            let [proxy, client] = Asker::both(&connman);
            let asker = if which == 0 { proxy } else { client };
            assert_eq!(asker.text().await, "good");
            sleep(A_MOMENT).await;
            assert_eq!(asker.ask(method.clone(), body).await.unwrap().status(), 200);
            assert_eq!(all(&mut lines), ["0 GET".to_owned(), format!("1 {method}")]);
        }
    }
}
