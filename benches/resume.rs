//! What it takes to survive: how long a cut link holds streams up, and what being resumable costs while nothing is cut.
//!
//! Gateways and agents in one process over loopback TCP, on a thread each; for cuts with a relay between them, whose
//! connection ends by RST. Tables in Markdown, each of a part that can be asked for by its name: `cuts`, `streams`,
//! `sessions`, `steady`. Rates and CPU times are ratios of interleaved rounds; pin the process to one core for them:
//! `taskset -c 0 cargo bench --bench resume -- steady`.

#[path = "support/commands.rs"]
mod commands;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/table.rs"]
mod table;
mod resume {
    pub(crate) mod cpu;
    pub(crate) mod cuts;
    pub(crate) mod relay;
    pub(crate) mod sessions;
    pub(crate) mod sides;
    pub(crate) mod steady;
    pub(crate) mod streams;
    pub(crate) mod times;
}
use self::resume::{cuts, sessions, sides::thread, steady, streams};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--list") {
        return;
    }
    // As criterion tells a smoke run: asked for, or `cargo test` and not `cargo bench`.
    let smoke = has("--test") || !has("--bench");
    let all = arguments.iter().all(|argument| argument.starts_with('-'));
    let wanted = ["cuts", "streams", "sessions", "steady"].map(|part| all || has(part));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let far = thread("far");
    // A task, as in a program: the runtime's main future costs a system call more each time that it is woken.
    let work = runtime.spawn(async move {
        let [of_cuts, of_streams, of_sessions, of_steady] = wanted;
        if of_cuts {
            cuts::print(&far, smoke).await;
        }
        if of_streams {
            streams::print(&far, smoke).await;
        }
        if of_sessions {
            sessions::print(smoke);
        }
        if of_steady {
            steady::print(&far, smoke).await;
        }
    });
    runtime.block_on(work).expect("all is measured");
}
