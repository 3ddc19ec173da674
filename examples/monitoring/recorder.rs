//! The recorder of the programs here: what they count, as Prometheus reads it, and what their process takes.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

/// In seconds, from a dial within a machine to the drain of a gateway. Without buckets a histogram is exported as a summary,
/// which no panel or alert adds up over gateways.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

/// How often what histograms were told is summed up, which takes memory until then, and the process looked at.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs it, for which no connection manager and no agent may be built yet. Needs a tokio runtime.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)?
        .install_recorder()?;
    let (upkeep, process) = (metrics.clone(), Collector::default());
    process.describe();
    process.collect();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
            process.collect();
        }
    });
    Ok(metrics)
}
