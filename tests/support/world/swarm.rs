//! What goes wrong under a seed? Each draws some of the faults, and how often they come.

use std::time::Duration;

use revdial::proto::SessionConfig;

use super::random::Random;
use crate::pair::tight;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A link breaks; each side notices at its own time, or by its dead-peer timer only.
    Cut,
    /// One direction of a link falls silent.
    Silence,
    /// One direction of a link stands still for a while.
    Stall,
    /// One direction of a link takes up to 5 s.
    Delay,
    /// A link that its agent has left still delivers, late.
    LateLink,
    LostHello,
    LostWelcome,
    /// An agent leaves a link that is whole, and dials anew while the server still has it.
    Redial,
    /// An agent gives a dial up while its HELLO is under way.
    LateHello,
    /// Links that break as soon as they are bound.
    Fruitless,
    /// An agent that returns within a millisecond of the end of its grace.
    NearExpiry,
    ServerRestart,
    AgentRestart,
    SecondAgent,
    /// Two machines go on with one session.
    Copy,
    /// A HELLO for somebody else's session.
    Stranger,
    /// A machine is suspended.
    Suspend,
    DrainByServer,
    /// The server goes down in order: it drains all, and then restarts.
    DrainAll,
    DrainByAgent,
    ShutdownByServer,
    ShutdownByAgent,
    /// The policy rejects a second agent. Not an event.
    Reject,
    SlowReaders,
    NeverFinish,
    TinyWrites,
    EmptyWrites,
    Refusals,
    Resets,
    Detaches,
    /// Opens are answered late or never.
    Hesitation,
}

use Fault as F;

/// What happens at a moment.
const EVENTS: [Fault; 22] = [
    F::Cut,
    F::Silence,
    F::Stall,
    F::Delay,
    F::LateLink,
    F::LostHello,
    F::LostWelcome,
    F::Redial,
    F::LateHello,
    F::Fruitless,
    F::NearExpiry,
    F::ServerRestart,
    F::AgentRestart,
    F::SecondAgent,
    F::Copy,
    F::Stranger,
    F::Suspend,
    F::DrainByServer,
    F::DrainAll,
    F::DrainByAgent,
    F::ShutdownByServer,
    F::ShutdownByAgent,
];

/// How somebody is.
const MANNERS: [Fault; 9] = [
    F::Reject,
    F::SlowReaders,
    F::NeverFinish,
    F::TinyWrites,
    F::EmptyWrites,
    F::Refusals,
    F::Resets,
    F::Detaches,
    F::Hesitation,
];

/// What a seed drew.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) events: Vec<Fault>,
    manners: Vec<Fault>,
    /// How many of a hundred steps are faults.
    pub(crate) rate: u64,
    pub(crate) steps: usize,
    pub(crate) agents: usize,
    pub(crate) max_hold: Duration,
    /// The longest pause between two attempts of an agent.
    pub(crate) backoff: Duration,
    pub(crate) server: SessionConfig,
    pub(crate) agent: SessionConfig,
}

impl Swarm {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let share = 10 + random.next() % 50;
        let mut some = |of: &[Fault]| of.iter().copied().filter(|_| random.chance(share)).collect::<Vec<_>>();
        let (events, manners) = (some(&EVENTS), some(&MANNERS));
        Self {
            events,
            manners,
            rate: random.pick(&[0, 1, 3, 6, 10, 20]).unwrap_or(0),
            steps: 50 + random.below(550),
            agents: 1 + random.below(3) / 2,
            max_hold: Duration::from_millis(random.pick(&[0, 1_000, 10_000, 30_000, 30_000, 60_000]).unwrap_or(0)),
            backoff: Duration::from_millis(random.pick(&[250, 5_000, 30_000]).unwrap_or(0)),
            server: config(random),
            agent: config(random),
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.events.contains(&fault) || self.manners.contains(&fault)
    }

    /// How long an agent holds a session without a link.
    pub(crate) fn hold(&self) -> Duration {
        if self.max_hold.is_zero() { self.max_hold } else { self.max_hold + self.agent.dead_after + HOLD_MARGIN }
    }
}

const HOLD_MARGIN: Duration = Duration::from_secs(15);

/// Small bounds as a rule, so that they are reached; some with other intervals.
fn config(random: &mut Random) -> SessionConfig {
    let mut config = if random.chance(80) { tight() } else { SessionConfig::default() };
    if random.chance(30) {
        config.ack_bytes = 1 + random.below(4096);
    }
    if random.chance(30) {
        config.ping_interval = Duration::from_millis(500 + random.next() % 20_000);
        config.dead_after = config.ping_interval * 3;
    }
    config
}
