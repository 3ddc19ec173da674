//! The way in: a `Service<Uri>` that connects through tunnels, for clients that take a connector.
//!
//! The host of a URI names the agent's key, and perhaps a target behind it; see [`Target`]. Here a request goes out by
//! hyper-util's client. Nobody is connected, so it fails, and [`Error::find`](crate::Error::find) tells how:
//!
//! ```
//! use std::time::Duration;
//!
//! use http_body_util::Empty;
//! use hyper::body::Bytes;
//! use hyper_util::{client::legacy::Client, rt::{TokioExecutor, TokioTimer}};
//! use revdial::{Error, ErrorKind, connman::ConnectionManager, connector::RevDialConnector};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connman = ConnectionManager::new();
//! let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new())
//!     .pool_timer(TokioTimer::new())
//!     .pool_idle_timeout(Duration::from_secs(15))
//!     .build(RevDialConnector::new(connman));
//!
//! let error = client.get("http://desktop-7/screenshot".parse()?).await.unwrap_err();
//! let error = Error::find(&error).ok_or("not ours")?;
//! assert_eq!(error.kind(), ErrorKind::NoConnection);
//! assert!(error.is_retry_safe());
//! # Ok(())
//! # }
//! ```
//!
//! Give the client's pool a timer and a short idle time, as above: each idle connection is an open stream. tonic takes
//! the connector in `Endpoint::connect_with_connector`, as the example `tonic` shows. reqwest takes none, but its requests
//! and responses are those of the client above with a conversion: the example `reqwest`. HTTP/2 with prior knowledge
//! (`http2_only`) has all requests share one stream.
//!
//! Streams carry plain bytes. The tunnel below is as secure as the URL that the agent dialled; a client for `https`
//! wraps the connector like any other.

mod future;
mod service;
mod target;

pub use future::Connecting;
pub use service::RevDialConnector;
pub use target::Target;
