//! Streams of which one direction has ended: its end and all of the other direction survive a cut.

use std::sync::Arc;

use axum::{Router, body::Body, routing::put};
use http::Request;
use revdial::proto::SessionConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

use crate::{
    PATIENCE,
    load::{check, load},
    plan::How,
    world::World,
};

#[tokio::test]
async fn an_answer_to_a_finished_request_survives_a_cut() {
    const SENT: usize = 100_000;
    const ANSWERED: usize = 300_000;
    for while_down in [false, true] {
        let (heard, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (hears, may_answer) = (Arc::clone(&heard), Arc::clone(&answer));
        let handler = async move |body: Body| {
            assert_eq!(check(body).await, Ok(SENT));
            hears.notify_one();
            may_answer.notified().await;
            load(ANSWERED)
        };
        let world = World::serving(None, SessionConfig::default(), Router::new().route("/", put(handler))).await;
        let request = world.client.request(Request::put("http://a/").body(load(SENT)).unwrap());
        let request = tokio::spawn(request);
        timeout(PATIENCE, heard.notified()).await.expect("the request");
        world.chaos.down(while_down);
        world.cut(How::Reset).await;
        answer.notify_one();
        world.chaos.down(false);
        let response = timeout(PATIENCE, request).await.expect("an answer").unwrap().expect("an answer");
        assert_eq!(timeout(PATIENCE, check(response.into_body())).await, Ok(Ok(ANSWERED)));
        world.assert_one_session();
    }
}

#[tokio::test]
async fn an_end_and_the_answer_to_it_survive_cuts() {
    for the_agent_ends_first in [false, true] {
        for while_down in [false, true] {
            let (world, mut listener) = World::new(None, SessionConfig::default()).await;
            let (near, far) = tokio::join!(world.dial(), listener.accept());
            let (near, far) = (near.unwrap().unwrap(), far.unwrap());
            let (mut first, mut second) = if the_agent_ends_first { (far, near) } else { (near, far) };

            first.write_all(b"that is all").await.unwrap();
            if while_down {
                world.chaos.down(true);
                world.cut(How::Reset).await;
            }
            first.shutdown().await.unwrap();
            world.chaos.down(false);
            let mut heard = String::new();
            timeout(PATIENCE, second.read_to_string(&mut heard)).await.expect("an end").expect("no error");
            assert_eq!(heard, "that is all");

            world.cut(How::Close).await;
            second.write_all(b"and that is").await.unwrap();
            second.shutdown().await.unwrap();
            let mut heard = String::new();
            timeout(PATIENCE, first.read_to_string(&mut heard)).await.expect("an end").expect("no error");
            assert_eq!(heard, "and that is");
            world.assert_one_session();
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_while_the_link_is_down_delivers_what_was_written() {
    let (world, mut listener) = World::new(None, SessionConfig::default()).await;
    let (near, far) = tokio::join!(world.dial(), listener.accept());
    let (mut near, mut far) = (near.unwrap().unwrap(), far.unwrap());
    world.chaos.down(true);
    world.cut(How::Close).await;
    near.write_all(b"last words").await.unwrap();
    drop(near);
    world.chaos.down(false);
    let mut heard = String::new();
    timeout(PATIENCE, far.read_to_string(&mut heard)).await.expect("an end").expect("no error");
    assert_eq!(heard, "last words");
    world.assert_one_session();
}
