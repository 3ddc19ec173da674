//! A sign of life on a terminal for whatever takes longer than a second.

use std::{
    io::{IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, interval};

/// Between two signs, and before the first.
const EVERY: Duration = Duration::from_secs(1);

/// Runs `work`, and shows on standard error what it is and for how long it has been going on, if that is a terminal.
pub(crate) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let mut work = pin!(work);
    let (begun, mut tick) = (Instant::now(), interval(EVERY));
    tick.tick().await;
    let mut shown = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if shown {
                    say("\r\x1b[K");
                }
                return done;
            }
            _ = tick.tick() => {
                say(&format!("\r\x1b[K… {what}, {} s", begun.elapsed().as_secs()));
                shown = true;
            }
        }
    }
}

/// A terminal that is gone is no reason to stop.
fn say(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
