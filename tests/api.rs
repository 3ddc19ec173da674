//! What the public types promise to the compiler: that they can be sent, shared, moved and shown, and used as objects.

use std::fmt::Debug;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::connect::Connection;
use revdial::{
    AgentKey, Error, TargetName, TunnelStream,
    agent::{Agent, AgentStatus, Listener, Run, ShutdownHandle, Targets},
    connector::{Connecting, RevDialConnector},
    connman::{Arrived, ConnectionManager, Dial, Events, Gone, GracePolicy, Observer, WaitFor, Wake},
    frame::Frame,
    proto::{Session, SessionConfig},
    proxy::{Proxy, ProxyBody},
    server::{Grant, KeyedBearer, Rejection, RevDialLayer, RevDialService, SharedBearer},
};

fn is_send<T: Send + 'static>() {}
fn is_shared<T: Send + Sync + 'static>() {}
fn is_cheap<T: Clone + Send + Sync + 'static>() {}
fn is_unpin<T: Unpin>() {}
fn is_shown<T: Debug>() {}

#[test]
fn handles_are_cloned_and_shared_between_tasks() {
    is_cheap::<ConnectionManager>();
    is_cheap::<RevDialConnector>();
    is_cheap::<Proxy<Empty<Bytes>>>();
    is_cheap::<RevDialLayer<KeyedBearer>>();
    is_cheap::<RevDialService<(), SharedBearer>>();
    is_cheap::<ShutdownHandle>();
    is_cheap::<AgentKey>();
    is_cheap::<TargetName>();
    is_cheap::<AgentStatus>();
    is_cheap::<Grant>();
    is_cheap::<Gone>();
    is_cheap::<Frame>();
}

#[test]
fn streams_and_futures_move_between_tasks() {
    is_shared::<TunnelStream>();
    is_shared::<Error>();
    is_shared::<Session>();
    is_send::<Agent>();
    is_send::<Run>();
    is_send::<Listener>();
    is_send::<Dial>();
    is_send::<Connecting>();
    is_send::<WaitFor>();
    is_send::<Wake>();
    is_shared::<Arrived>();
    is_shared::<Events>();
    is_send::<ProxyBody>();
    is_unpin::<TunnelStream>();
    is_unpin::<Connecting>();
    is_unpin::<Dial>();
    is_unpin::<WaitFor>();
    is_unpin::<Run>();
}

#[test]
fn a_stream_has_the_traits_of_tokio_and_of_hyper() {
    fn both<T>()
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + hyper::rt::Read + hyper::rt::Write + Connection,
    {
    }
    both::<TunnelStream>();
}

#[test]
fn everything_can_be_shown_and_an_error_is_one_word() {
    is_shown::<(ConnectionManager, RevDialConnector, TunnelStream, Agent, Run, Listener)>();
    is_shown::<(Targets, SessionConfig, Rejection, ProxyBody, Dial, Connecting)>();
    is_shown::<(WaitFor, Wake, Events, Arrived)>();
    is_shown::<(KeyedBearer, SharedBearer, RevDialLayer<KeyedBearer>)>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}

#[test]
fn policies_and_observers_are_objects_too() {
    let _: Option<(Box<dyn GracePolicy>, Box<dyn Observer>)> = None;
}
