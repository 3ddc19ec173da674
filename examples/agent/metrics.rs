//! What the agent counts, at `/metrics` for Prometheus, if it is told where.

use std::{io, net::SocketAddr};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tracing::info;

/// Answers whoever asks there.
pub(crate) async fn serve(listen: SocketAddr, metrics: PrometheusHandle) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    info!("metrics are at http://{}/metrics", listener.local_addr()?);
    let router = Router::new().route("/metrics", get(|| async move { metrics.render() }));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(())
}
