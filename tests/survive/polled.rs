//! How a future is dropped at its n-th poll.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::time::timeout;

/// More polls than any of these futures needs, so that one that never ends is seen.
const POLLS: usize = 200;

/// Polls so many times, then drops; what came, if it came before. Others run in between.
pub(crate) async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        // A wake-up, or a moment that brings none.
        let polled = timeout(Duration::from_millis(50), poll_once(future.as_mut())).await;
        if let Ok(Some(output)) = polled {
            return Some(output);
        }
    }
    None
}

/// One poll, and the wake-up that it asks for.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        if polls > 1 {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Drops what `make` makes at each of its polls in turn, until it ends; returns how many it needed.
pub(crate) async fn at_each_poll<F: Future>(
    mut make: impl FnMut() -> F,
    mut after: impl AsyncFnMut(Option<F::Output>),
) -> usize {
    for times in 0..POLLS {
        let output = polled(make(), times).await;
        let over = output.is_some();
        after(output).await;
        if over {
            return times;
        }
    }
    panic!("it never ends");
}
