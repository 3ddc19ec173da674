//! Events for who takes them in its own time: so many are kept, and who is slower is told how many it missed.

use std::{fmt, sync::OnceLock};

use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use crate::connman::event::TunnelEvent;

/// How many events are kept for the slowest: those of some thousand agents whose server was restarted. Less than half a MiB.
const KEPT: usize = 4096;

/// Every [`TunnelEvent`] of a manager from [`subscribe`](crate::connman::ConnectionManager::subscribe) on.
///
/// Nobody ever waits for a subscriber. The last 4096 events are kept for it; one that comes later than that is told how
/// many it [`Missed`], and goes on with the oldest that is kept. What is the case now,
/// [`list`](crate::connman::ConnectionManager::list) tells.
///
/// Several subscribers have each all events. Events do not keep the manager alive.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<TunnelEvent>);

/// So many events were not kept long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed {
    /// How many.
    pub events: u64,
}

impl Events {
    /// The next event. `None`: the manager is gone, and all was told.
    ///
    /// # Errors
    /// [`Missed`], once for each time that events were lost; the next call gives the oldest that is kept.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<TunnelEvent, Missed>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(events)) => Some(Err(Missed { events })),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event, if there is one already.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Result<TunnelEvent, Missed>> {
        match self.0.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(TryRecvError::Lagged(events)) => Some(Err(Missed { events })),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events were missed", self.events)
    }
}

impl std::error::Error for Missed {}

/// Where events go that are subscribed to. Costs nothing before anybody has.
#[derive(Debug, Default)]
pub(super) struct Topic(OnceLock<broadcast::Sender<TunnelEvent>>);

impl Topic {
    pub(super) fn subscribe(&self) -> Events {
        Events(self.0.get_or_init(|| broadcast::Sender::new(KEPT)).subscribe())
    }

    pub(super) fn tell(&self, event: &TunnelEvent) {
        if let Some(sender) = self.0.get().filter(|sender| sender.receiver_count() > 0) {
            // The last subscriber may have left just now.
            let _ = sender.send(event.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Epoch;

    fn expired(n: usize) -> TunnelEvent {
        TunnelEvent::Expired { key: "desk".parse().unwrap(), epoch: Epoch::new(n as u64), ended: None, drained: false }
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_many_it_missed_and_goes_on_with_what_is_kept() {
        let topic = Topic::default();
        topic.tell(&expired(0)); // to nobody
        let mut events = topic.subscribe();
        for n in 1..=KEPT + 7 {
            topic.tell(&expired(n));
        }
        assert_eq!(events.next().await, Some(Err(Missed { events: 7 })));
        assert_eq!(events.next().await, Some(Ok(expired(8))));
        let rest = std::iter::from_fn(|| events.try_next()).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!((rest.len(), rest.last()), (KEPT - 1, Some(&expired(KEPT + 7))));
        assert_eq!(topic.subscribe().try_next(), None, "what was before is nothing to a new one");
        drop(topic);
        assert_eq!(events.next().await, None);
    }
}
