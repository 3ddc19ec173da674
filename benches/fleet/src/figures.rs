//! What was measured, and what must be reached.

use serde::Serialize;

use crate::task::{Arrivals, Asked, Attempts, SLOT};

/// All of a run. Times are in seconds, memory in KiB.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) agents: usize,
    pub(crate) opening: Opening,
    pub(crate) idle: Idle,
    pub(crate) asking: Asking,
    pub(crate) returns: Vec<Return>,
}

/// All agents start at one moment. CPU time is the gateway's where it is not said to be the agents'.
#[derive(Debug, Serialize)]
pub(crate) struct Opening {
    pub(crate) arrivals: Arrivals,
    pub(crate) cpu: f64,
    /// Connections that found the listener's queue full.
    pub(crate) overflows: u64,
}

/// Nothing is asked.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) seconds: f64,
    pub(crate) resident: f64,
    pub(crate) per_tunnel: f64,
    pub(crate) cpu: f64,
    /// CPU time within the busiest second: all agents that came at one moment may be pinged at one moment.
    pub(crate) busiest: f64,
    pub(crate) agents_cpu: f64,
}

/// Each agent is asked once.
#[derive(Debug, Serialize)]
pub(crate) struct Asking {
    pub(crate) asked: Asked,
    pub(crate) at_once: usize,
    pub(crate) cpu: f64,
    pub(crate) agents_cpu: f64,
}

/// The gateway is killed, and another one is started in its place.
#[derive(Debug, Serialize)]
pub(crate) struct Return {
    /// How long there was none, on purpose.
    pub(crate) down: f64,
    /// When it listened again, after the kill.
    pub(crate) ready: f64,
    /// After the kill.
    pub(crate) arrivals: Arrivals,
    pub(crate) cpu: f64,
    pub(crate) agents_cpu: f64,
    pub(crate) overflows: u64,
    pub(crate) asking: Asking,
}

/// Attempts of an agent: at once, and then after up to 250, 500, 1000 ms and so on, which is 3.7 on average.
const MOST_IN_A_SECOND: f64 = 4.0;

/// What must be reached.
#[derive(Debug, Serialize)]
pub(crate) struct Gate {
    pub(crate) figure: String,
    pub(crate) measured: f64,
    pub(crate) most: f64,
}

impl Gate {
    pub(crate) fn is_met(&self) -> bool {
        self.measured <= self.most
    }
}

impl Figures {
    pub(crate) fn gates(&self) -> Vec<Gate> {
        let mut gates = vec![
            gate("opened: agents missing", self.missing(&self.opening.arrivals), 0.0),
            gate("opened: s until the last", last(&self.opening.arrivals), 30.0),
            gate("asked: failed", self.asking.asked.failed as f64, 0.0),
        ];
        for back in &self.returns {
            let when = if back.down == 0.0 { "back at once".to_owned() } else { format!("back after {} s", back.down) };
            let attempts = &back.arrivals.attempts;
            let agents = self.agents as f64;
            // Ten while the delays double, and one in fifteen seconds once they are 30 s at most.
            let most = 10.0 + back.down / 15.0;
            gates.extend([
                gate(format!("{when}: agents missing"), self.missing(&back.arrivals), 0.0),
                gate(format!("{when}: s until the last, once it listens"), last(&back.arrivals) - back.ready, 60.0),
                gate(format!("{when}: attempts an agent"), f64::from(attempts.total()) / agents, most),
                gate(format!("{when}: attempts of the worst agent"), attempts.worst.into(), 2.0 * most),
                gate(
                    format!("{when}: attempts in the worst second ÷ agents"),
                    attempts.most_in(1000) / agents,
                    MOST_IN_A_SECOND,
                ),
                gate(format!("{when}: asked, failed"), back.asking.asked.failed as f64, 0.0),
            ]);
        }
        gates
    }

    fn missing(&self, arrivals: &Arrivals) -> f64 {
        self.agents.saturating_sub(arrivals.at.len()) as f64
    }
}

fn gate(figure: impl Into<String>, measured: f64, most: f64) -> Gate {
    Gate { figure: figure.into(), measured, most }
}

/// When the last agent arrived.
pub(crate) fn last(arrivals: &Arrivals) -> f64 {
    at(arrivals, 1.0)
}

/// When this part of the agents had arrived.
pub(crate) fn at(arrivals: &Arrivals, part: f64) -> f64 {
    let most = arrivals.at.len().saturating_sub(1);
    let millis = arrivals.at.get((most as f64 * part).round() as usize).copied().unwrap_or_default();
    f64::from(millis) / 1000.0
}

impl Attempts {
    pub(crate) fn total(&self) -> u32 {
        self.slots.iter().sum()
    }

    /// The most that there were in so many milliseconds, wherever these begin.
    pub(crate) fn most_in(&self, millis: u64) -> f64 {
        let slots = usize::try_from(millis / SLOT).unwrap_or(1).min(self.slots.len().max(1));
        self.slots.windows(slots).map(|window| window.iter().sum::<u32>()).max().unwrap_or_default().into()
    }

    /// How many there were in each second.
    pub(crate) fn by_second(&self) -> Vec<u32> {
        self.slots.chunks((1000 / SLOT) as usize).map(|second| second.iter().sum()).collect()
    }
}

/// What the agents of several processes did.
pub(crate) fn merged(parts: Vec<Arrivals>) -> Arrivals {
    let mut whole = Arrivals::default();
    for Arrivals { at, attempts } in parts {
        let Attempts { slots, worst, refused, setbacks } = attempts;
        let sums = &mut whole.attempts;
        whole.at.extend(at);
        sums.slots.resize(sums.slots.len().max(slots.len()), 0);
        sums.slots.iter_mut().zip(slots).for_each(|(sum, count)| *sum += count);
        sums.worst = sums.worst.max(worst);
        sums.refused += refused;
        setbacks.into_iter().for_each(|(text, count)| *sums.setbacks.entry(text).or_default() += count);
    }
    whole.at.sort_unstable();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_window_may_begin_anywhere() {
        let mut slots = vec![0; 30];
        (slots[8], slots[12], slots[29]) = (3, 4, 5);
        let attempts = Attempts { slots, ..Attempts::default() };
        assert_eq!((attempts.most_in(100), attempts.most_in(1000), attempts.total()), (7.0, 12.0, 12));
        assert_eq!(Attempts::default().most_in(100), 0.0);
    }

    #[test]
    fn processes_are_added_up() {
        let one = |at, slots, worst| {
            let setbacks = [("full".to_owned(), 1)].into();
            Arrivals { at, attempts: Attempts { slots, worst, refused: 1, setbacks } }
        };
        let whole = merged(vec![one(vec![1, 9], vec![1], 4), one(vec![5], vec![1, 2], 3)]);
        assert_eq!((whole.at, whole.attempts.slots), (vec![1, 5, 9], vec![2, 2]));
        assert_eq!((whole.attempts.worst, whole.attempts.refused, whole.attempts.setbacks["full"]), (4, 2, 2));
    }
}
