//! From one to many, on one core: tunnels of one agent process, and streams of one tunnel. Each round has fresh
//! processes, as memory that was once used is not given back.

mod streams;
mod tunnels;

use super::scale::Scale;
use crate::{Result, book::Book, carrier::Carrier, open_files};

/// Streams that are held open over many tunnels, at most: each may take a descriptor beside its tunnel's.
const HELD: usize = 1000;

/// Those whose idle tunnels and streams are measured: all that have streams, and what bounds them.
fn measured_idle() -> Vec<Carrier> {
    [&Carrier::STREAMS[..], &[Carrier::Upgraded, Carrier::Bare]].concat()
}

/// Fails where there may not be as many open files as it takes.
pub(crate) fn check(scale: &Scale) -> Result<()> {
    let most = |counts: &[usize]| counts.iter().copied().max().unwrap_or(0);
    open_files::allow((most(scale.tunnels) + HELD).max(2 * most(scale.streams)))
}

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    for round in 0..scale.rounds {
        tunnels::at_rest(scale, round, book).await?;
        tunnels::in_use(scale, round, book).await?;
        streams::held(scale, book).await?;
        streams::busy(scale, book).await?;
    }
    Ok(())
}

/// What each took on the way to as many as there are, in KiB. The last step has most of them, and least of what the
/// process needs in any case.
fn each(resident: &[(usize, f64)]) -> Option<f64> {
    let [.., (few, before), (many, after)] = resident else { return None };
    Some((after - before) / (many - few) as f64)
}
