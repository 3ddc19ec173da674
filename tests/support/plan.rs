//! Where the connections of a transfer break: cuts drawn from a seed. No IO, no clock.

/// Which way bytes go through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToAgent,
    Both,
}

impl Way {
    /// Whether what goes this way is meant.
    pub(crate) fn has(self, way: Self) -> bool {
        self == Self::Both || self == way
    }

    /// The other way.
    pub(crate) fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToAgent,
            Self::ToAgent => Self::ToServer,
            Self::Both => Self::Both,
        }
    }
}

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Both peers get RST, and lose what is under way.
    Reset,
    /// Both peers get FIN behind what is under way.
    Close,
    /// Nothing passes any more this way, and nobody is told.
    Silence(Way),
}

/// One connection's break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// So many bytes pass, and none after them.
    pub(crate) after_bytes: u64,
    /// Which bytes are counted.
    pub(crate) way: Way,
    pub(crate) how: How,
}

/// Cuts by RST and FIN, all of them within one transfer, then none. The same seed draws the same cuts.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    random: u64,
    left: u64,
    bulk: Way,
    mean: u64,
    // Cuts since the last one that surely let a message through. The first one of a plan is such a one: a session of
    // which the agent has no word yet is begun anew, and not resumed.
    in_vain: u32,
}

/// One cut in so many is early: it falls inside the upgrade, HELLO, WELCOME or the first message behind them.
const EARLY_ONE_IN: u64 = 8;

/// Where early cuts fall at the latest, counted with the bulk, and against it, where bytes are few. A handshake has
/// about 400 each way.
const EARLY: u64 = 2_000;
const EARLY_AGAINST: u64 = 1_000;

/// A connection that passes as much has the handshake and a whole message behind it. If it is then closed: a reset
/// destroys all that the peer's window had no room for yet, and a message may be larger than that.
const PROGRESS: u64 = 128 * 1024;

/// So many cuts in a row may bring nothing through: a session ends by design when ten attaches did.
const MOST_IN_VAIN: u32 = 8;

impl Plan {
    /// Cuts for a transfer of so many bytes that go this way. As many bytes as that cannot have passed before the last
    /// cut, so that none comes too late.
    pub(crate) fn new(seed: u64, cuts: u64, bulk: Way, bytes: u64) -> Self {
        Self { random: seed, left: cuts, bulk, mean: bytes / 2 / cuts, in_vain: MOST_IN_VAIN }
    }

    /// A number from 1 to `most`, by SplitMix64.
    fn draw(&mut self, most: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most + 1
    }

    /// The same, and low numbers more often than high ones.
    fn draw_low(&mut self, most: u64) -> u64 {
        let most = self.draw(most);
        self.draw(most)
    }
}

impl Iterator for Plan {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        self.left = self.left.checked_sub(1)?;
        let (in_time, early) = (self.in_vain < MOST_IN_VAIN, self.draw(EARLY_ONE_IN) == 1);
        let (after_bytes, way) = match self.draw(3) {
            _ if !in_time => (PROGRESS + self.draw(2 * self.mean - PROGRESS), self.bulk),
            1 if early => (self.draw_low(EARLY_AGAINST), self.bulk.back()),
            2 if early => (self.draw_low(EARLY), Way::Both),
            _ if early => (self.draw_low(EARLY), self.bulk),
            1 => (self.draw(2 * self.mean), Way::Both),
            _ => (self.draw(2 * self.mean), self.bulk),
        };
        let how = if in_time && self.draw(2) == 1 { How::Reset } else { How::Close };
        self.in_vain = if after_bytes >= PROGRESS && how == How::Close { 0 } else { self.in_vain + 1 };
        Some(Cut { after_bytes, way, how })
    }
}
