//! How long a cut holds a stream up. Only ours has streams that survive one.

use std::time::Duration;

use tokio::time::sleep;

use super::scale::Scale;
use crate::{
    Result,
    book::Book,
    carrier::Carrier,
    pair::{Between, Cores, Pair},
    quantity::Quantity,
};

/// Between two cuts: an agent dials at once 25 times a second in the long run, and waits beyond that.
const SPACING: Duration = Duration::from_millis(60);

pub(crate) async fn measure(scale: &Scale, book: &mut Book) -> Result<()> {
    let mut pair = Pair::start(Carrier::Native, Cores::All, Between::Cuts).await?;
    pair.until_echo(false).await?;
    for _ in 0..scale.rounds * scale.cuts {
        sleep(SPACING).await;
        book.add(Quantity::NoCut, Carrier::Native, pair.until_echo(false).await?.as_secs_f64());
        book.add(Quantity::Resume, Carrier::Native, pair.until_echo(true).await?.as_secs_f64());
    }
    pair.stop().await
}
