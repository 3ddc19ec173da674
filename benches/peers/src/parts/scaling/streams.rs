//! Many streams over one tunnel: held open with a round trip on one after the other, and all of them busy.

use super::{super::scale::Scale, each, measured_idle};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::{Over, Quantity},
    task::Task,
};

/// What open streams take, and round trips on them in turn.
pub(super) async fn held(scale: &Scale, book: &mut Book) -> Result<()> {
    for carrier in measured_idle() {
        let mut pair = Pair::start(carrier, Cores::One, Between::Nothing).await?;
        let mut resident = Vec::new();
        for count in scale.streams {
            pair.run(Task::HoldStreams { count: *count }).await?;
            let kib = pair.resident().await?;
            book.add(Quantity::Resident(Over::Streams, *count), carrier, kib);
            resident.push((*count, kib));
            let sample = pair.run(Task::Turns { n: scale.trips.max(*count as u64) }).await?;
            book.add(Quantity::ScaledP50(Over::Streams, *count), carrier, sample.taken.p50);
            book.add(Quantity::ScaledP99(Over::Streams, *count), carrier, sample.taken.p99);
        }
        if let Some(kib) = each(&resident) {
            book.add(Quantity::PerStream, carrier, kib);
        }
        pair.stop().await?;
    }
    Ok(())
}

/// GETs over all of them at once.
pub(super) async fn busy(scale: &Scale, book: &mut Book) -> Result<()> {
    for carrier in Carrier::STREAMS {
        let mut pair = Pair::start(carrier, Cores::One, Between::Nothing).await?;
        for count in scale.streams {
            let connections = *count as u64;
            let n = scale.requests.max(4 * connections);
            pair.run(Task::Requests { n: n / 4, connections }).await?;
            let sample = pair.run(Task::Requests { n, connections }).await?;
            book.add(Quantity::ScaledGets(*count), carrier, n as f64 / sample.taken.seconds);
        }
        pair.stop().await?;
    }
    Ok(())
}
