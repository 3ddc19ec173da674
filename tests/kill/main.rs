//! Streams survive the loss of what carries them, over real sockets: one request each way while its link is cut again
//! and again, and whatever else may run when a link breaks.
//!
//! ```sh
//! cargo test --test kill                              # 16 MiB each way and 40 cuts
//! cargo test --release --test kill                    # 128 MiB and 100 cuts
//! REVDIAL_KILL=full cargo test --release --test kill  # 1 GiB and 1,000 cuts
//! ```
//!
//! Where links break is drawn from a seed, another one in each run; a test that fails tells it, and
//! `REVDIAL_KILL_SEED` plays it again.

#[path = "../support/chaos.rs"]
mod chaos;
mod dials;
mod halves;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/plan.rs"]
mod plan;
mod proxy;
mod silence;
mod ticks;
mod transfer;
#[path = "../../examples/sandbox/websocket.rs"]
mod websocket;
mod world;

use std::time::Duration;

/// No step takes this long, not even the longest transfer.
const PATIENCE: Duration = Duration::from_secs(60);
