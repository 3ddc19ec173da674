//! The two that pool connections: the proxy, and hyper-util's client over the connector.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use revdial::{
    Error, TargetName,
    connector::RevDialConnector,
    connman::ConnectionManager,
    proxy::{Proxy, ProxyBody},
};

use super::support::key;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Somebody who asks the default target of `a`.
#[derive(Debug, Clone)]
pub(crate) enum Asker {
    Proxy(Proxy<Full<Bytes>>),
    Client(Box<Client<RevDialConnector, Full<Bytes>>>),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    Proxy(Error),
    Client(legacy::Error),
}

impl Asker {
    /// One of each.
    pub(crate) fn both(connman: &ConnectionManager) -> [Self; 2] {
        let connector = RevDialConnector::new(connman.clone());
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        [Self::Proxy(Proxy::new(connman.clone())), Self::Client(Box::new(client))]
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        body: &'static str,
    ) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, Failed> {
        let request = Request::builder().method(method).uri("http://a/").body(Full::from(body)).unwrap();
        match self {
            Self::Proxy(proxy) => {
                let response =
                    proxy.try_forward(&key(), &TargetName::default(), request).await.map_err(Failed::Proxy)?;
                Ok(response.map(|body: ProxyBody| body.map_err(BoxError::from).boxed_unsync()))
            }
            Self::Client(client) => {
                let response = client.request(request).await.map_err(Failed::Client)?;
                Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
            }
        }
    }

    /// The text that a GET is answered with.
    pub(crate) async fn text(&self) -> String {
        let body = self.ask(Method::GET, "").await.unwrap().into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }
}
