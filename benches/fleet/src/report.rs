//! The table for people, and the figures for programs.

use std::{
    fmt::{Display, Write},
    fs,
    path::Path,
};

use serde_json::json;

use crate::{
    Result,
    figures::{Asking, Figures, Return, at, last},
    task::{Arrivals, Attempts},
};

/// Prints the table, and writes both into this directory.
pub(crate) fn show(figures: &Figures, out: &Path) -> Result<()> {
    let text = text(figures)?;
    println!("{text}");
    let value = json!({ "command": command(), "figures": figures, "gates": figures.gates() });
    fs::create_dir_all(out)?;
    fs::write(out.join("fleet.md"), text)?;
    Ok(fs::write(out.join("fleet.json"), serde_json::to_vec(&value)?)?)
}

fn text(figures: &Figures) -> Result<String> {
    let Figures { agents, opening, idle, asking, returns } = figures;
    let mut table = Table(String::new());
    writeln!(table.0, "# {agents} agents on one gateway\n\n`{}`\n", command())?;
    writeln!(table.0, "Loopback; the gateway has one thread. CPU time is the gateway's, if it is not said whose.\n")?;
    writeln!(table.0, "| figure | measured |\n|---|---:|")?;
    table.arrivals("opened, all started at once", &opening.arrivals, 0.0)?;
    table.row("opened: CPU s; full listener queues", format!("{:.2}; {}", opening.cpu, opening.overflows))?;
    table.attempts("opened", &opening.arrivals.attempts, *agents)?;
    table.row("idle: gateway's memory, MiB", format!("{:.1}", idle.resident / 1024.0))?;
    table.row("idle: gateway's memory, KiB a tunnel", format!("{:.2}", idle.per_tunnel))?;
    let minute = 60.0 / idle.seconds;
    table.row("idle: CPU s a minute", format!("{:.3}", idle.cpu * minute))?;
    table.row("idle: CPU s in the busiest second", format!("{:.3}", idle.busiest))?;
    table.row("idle: CPU s a minute, agents", format!("{:.3}", idle.agents_cpu * minute))?;
    table.asking("asked", asking)?;
    for back in returns {
        table.back(back, *agents)?;
    }
    writeln!(table.0, "\n## Gates\n\n| figure | measured | at most | met |\n|---|---:|---:|---|")?;
    for gate in figures.gates() {
        let verdict = if gate.is_met() { "yes" } else { "**missed**" };
        writeln!(table.0, "| {} | {:.2} | {:.2} | {verdict} |", gate.figure, gate.measured, gate.most)?;
    }
    Ok(table.0)
}

fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let separator = if arguments.is_empty() { "" } else { " -- " };
    format!("cargo run --release --manifest-path benches/fleet/Cargo.toml{separator}{}", arguments.join(" "))
}

struct Table(String);

impl Table {
    fn row(&mut self, figure: impl Display, measured: impl Display) -> Result<()> {
        Ok(writeln!(self.0, "| {figure} | {measured} |")?)
    }

    /// Times are counted from `from` on.
    fn arrivals(&mut self, what: &str, arrivals: &Arrivals, from: f64) -> Result<()> {
        let times = [at(arrivals, 0.5), at(arrivals, 0.99), last(arrivals)].map(|time| format!("{:.2}", time - from));
        self.row(format!("{what}: s until half, 99 %, all"), times.join("; "))
    }

    fn attempts(&mut self, what: &str, attempts: &Attempts, agents: usize) -> Result<()> {
        let total = attempts.total();
        let each = format!("{total}; {:.2}; {}", f64::from(total) / agents as f64, attempts.worst);
        self.row(format!("{what}: attempts; an agent; of the worst one"), each)?;
        let most = format!("{}; {}", attempts.most_in(100), attempts.most_in(1000));
        self.row(format!("{what}: attempts in the worst 100 ms; s"), most)?;
        let seconds: Vec<String> = attempts.by_second().iter().map(u32::to_string).collect();
        self.row(format!("{what}: attempts in each second"), seconds.join(" "))?;
        self.row(format!("{what}: attempts that found no listener"), attempts.refused)?;
        for (text, count) in &attempts.setbacks {
            self.row(format!("{what}: told \"{text}\""), count)?;
        }
        Ok(())
    }

    fn asking(&mut self, what: &str, asking: &Asking) -> Result<()> {
        let Asking { asked, at_once, cpu, agents_cpu } = asking;
        let took = format!("{:.2}; {:.2}; {:.2}", asked.seconds, cpu, agents_cpu);
        self.row(format!("{what}, {at_once} at once: s; CPU s; CPU s, agents"), took)?;
        let latency = format!("{:.2}; {:.2}", asked.p50 * 1000.0, asked.p99 * 1000.0);
        self.row(format!("{what}: ms, half and 99 %"), latency)?;
        match &asked.failure {
            Some(failure) => self.row(format!("{what}: failed, as by \"{failure}\""), asked.failed),
            None => Ok(()),
        }
    }

    fn back(&mut self, back: &Return, agents: usize) -> Result<()> {
        let what = format!("killed, down {} s", back.down);
        self.row(format!("{what}: s until a gateway listens"), format!("{:.2}", back.ready))?;
        self.arrivals(&format!("{what}, back once it listens"), &back.arrivals, back.ready)?;
        let cpu = format!("{:.2}; {:.2}; {}", back.cpu, back.agents_cpu, back.overflows);
        self.row(format!("{what}: CPU s; CPU s, agents; full listener queues"), cpu)?;
        self.attempts(&what, &back.arrivals.attempts, agents)?;
        self.asking(&format!("{what}, then asked"), &back.asking)
    }
}
