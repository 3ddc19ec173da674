//! Many tunnels, first without a stream, then with one open on each, or on a thousand of them.

use tokio::time::sleep;

use super::{
    super::{pairs, scale::Scale, stop},
    HELD, each, measured_idle,
};
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::{Over, Quantity},
    task::Task,
};

/// Beyond this many tunnels tungstenite's WebSockets are left out, which take 128 KiB each for what they read, and round
/// trips are measured once.
const SLIM: usize = 1000;

/// What tunnels take while nobody uses them. All carriers have theirs at once, so that they are idle together.
pub(super) async fn at_rest(scale: &Scale, round: usize, book: &mut Book) -> Result<()> {
    let mut pairs = pairs(&measured_idle(), Cores::One, Between::Nothing).await?;
    let mut resident = vec![Vec::new(); pairs.len()];
    for count in scale.tunnels {
        let mut before = Vec::new();
        for (pair, resident) in pairs.iter_mut().zip(&mut resident).filter(|(pair, _)| takes(pair.carrier, *count)) {
            pair.tunnels(*count).await?;
            let kib = pair.resident().await?;
            book.add(Quantity::Resident(Over::Tunnels, *count), pair.carrier, kib);
            resident.push((*count, kib));
        }
        // Once is enough for what takes so long.
        if round > 0 {
            continue;
        }
        for pair in &pairs {
            before.push(pair.cpu_time().await?);
        }
        sleep(scale.idle).await;
        for (pair, before) in pairs.iter().zip(before).filter(|(pair, _)| takes(pair.carrier, *count)) {
            let used = pair.cpu_time().await?.saturating_sub(before);
            book.add(Quantity::Idle(*count), pair.carrier, used.as_secs_f64() / scale.idle.as_secs_f64());
        }
    }
    for (pair, resident) in pairs.iter().zip(&resident) {
        if let Some(kib) = each(resident) {
            book.add(Quantity::PerTunnel, pair.carrier, kib);
        }
    }
    stop(pairs).await
}

/// Round trips on streams of tunnels all over, one after the other.
pub(super) async fn in_use(scale: &Scale, round: usize, book: &mut Book) -> Result<()> {
    let is_wanted = |count: usize| round == 0 || count <= SLIM;
    for carrier in Carrier::STREAMS {
        let mut pair = Pair::start(carrier, Cores::One, Between::Nothing).await?;
        for count in scale.tunnels.iter().filter(|count| takes(carrier, **count) && is_wanted(**count)) {
            pair.tunnels(*count).await?;
            pair.run(Task::HoldTunnels { count: (*count).min(HELD), of: *count }).await?;
            let sample = pair.run(Task::Turns { n: scale.trips.max(*count as u64) }).await?;
            book.add(Quantity::ScaledP50(Over::Tunnels, *count), carrier, sample.taken.p50);
            book.add(Quantity::ScaledP99(Over::Tunnels, *count), carrier, sample.taken.p99);
            pair.run(Task::Drop).await?;
        }
        pair.stop().await?;
    }
    Ok(())
}

fn takes(carrier: Carrier, tunnels: usize) -> bool {
    tunnels <= SLIM || carrier != Carrier::YamuxWebSocket
}
