//! What happens, in which order.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::time::sleep;

use crate::{
    Result,
    args::Args,
    child::Child,
    figures::{Asking, Figures, Idle, Opening, Return, merged},
    kernel, report,
    task::{AgentsTask, Arrivals, Asked, GatewayTask, Ready},
};

/// How many processes the agents are in.
const PROCESSES: usize = 2;

/// Open files of the gateway beside those of its tunnels.
const FILES: u64 = 100;

/// How long all agents may take to connect; a gate asks for less.
const PATIENCE: Duration = Duration::from_secs(180);

/// What memory and tasks get to come to rest, before an idle fleet is measured.
const REST: Duration = Duration::from_secs(2);

const SECOND: Duration = Duration::from_secs(1);

/// The processes.
struct Fleet {
    size: usize,
    gateway: Child,
    /// Where the gateway listens, each time.
    address: String,
    backlog: u32,
    agents: Vec<Child>,
}

/// Whether all gates were met.
pub(crate) async fn run(args: &Args) -> Result<bool> {
    kernel::check_file_limit(args.agents as u64 + FILES)?;
    let (mut fleet, empty) = Fleet::start(args.agents, args.backlog).await?;
    let opening = fleet.open().await?;
    let idle = fleet.idle(args.idle, empty).await?;
    let asking = fleet.ask(args.at_once).await?;
    let mut returns = Vec::new();
    for down in [Duration::ZERO, args.down] {
        returns.push(fleet.fall(down, args.at_once).await?);
    }
    fleet.stop().await?;
    let figures = Figures { agents: args.agents, opening, idle, asking, returns };
    report::show(&figures, &args.out)?;
    Ok(figures.gates().iter().all(|gate| gate.is_met()))
}

impl Fleet {
    /// Without tunnels yet; and what the gateway's memory then is, in KiB.
    async fn start(size: usize, backlog: u32) -> Result<(Self, f64)> {
        let (gateway, ready) = gateway("127.0.0.1:0", backlog).await?;
        let address = ready.address.ok_or("the gateway tells no address")?.to_string();
        let each = size.div_ceil(PROCESSES);
        let mut agents = Vec::new();
        for first in (0..size).step_by(each) {
            // A source address a process: each has ports of its own.
            let source = format!("127.0.0.{}", agents.len() + 2);
            let count = each.min(size - first);
            let words = ["agents", &address, &source, &first.to_string(), &count.to_string()].map(str::to_owned);
            agents.push(Child::start(&words).await?.0);
        }
        let empty = gateway.resident()?;
        Ok((Self { size, gateway, address, backlog, agents }, empty))
    }

    /// All agents start at one moment.
    async fn open(&mut self) -> Result<Opening> {
        let overflows = kernel::listen_overflows()?;
        let cpu = self.gateway.cpu_time()?;
        self.tell(AgentsTask::Start).await?;
        let arrivals = self.arrive().await?;
        Ok(Opening {
            arrivals,
            cpu: spent(cpu, self.gateway.cpu_time()?),
            overflows: kernel::listen_overflows()?.saturating_sub(overflows),
        })
    }

    async fn idle(&mut self, time: Duration, empty: f64) -> Result<Idle> {
        sleep(REST).await;
        let (gateway, agents) = (self.gateway.cpu_time()?, self.agents_cpu()?);
        let (mut busiest, mut before, until) = (0.0_f64, gateway, Instant::now() + time);
        while Instant::now() < until {
            sleep(SECOND).await;
            let after = self.gateway.cpu_time()?;
            busiest = busiest.max(spent(before, after));
            before = after;
        }
        let resident = self.gateway.resident()?;
        Ok(Idle {
            seconds: time.as_secs_f64(),
            resident,
            per_tunnel: (resident - empty) / self.size as f64,
            cpu: spent(gateway, self.gateway.cpu_time()?),
            busiest,
            agents_cpu: spent(agents, self.agents_cpu()?),
        })
    }

    async fn ask(&mut self, at_once: usize) -> Result<Asking> {
        let (gateway, agents) = (self.gateway.cpu_time()?, self.agents_cpu()?);
        let asked: Asked = self.gateway.run(&GatewayTask::Ask { agents: self.size, at_once }).await?;
        Ok(Asking {
            asked,
            at_once,
            cpu: spent(gateway, self.gateway.cpu_time()?),
            agents_cpu: spent(agents, self.agents_cpu()?),
        })
    }

    /// The gateway is killed, and comes back after so long.
    async fn fall(&mut self, down: Duration, at_once: usize) -> Result<Return> {
        let overflows = kernel::listen_overflows()?;
        self.tell(AgentsTask::Mark).await?;
        let killed = Instant::now();
        let agents_cpu = self.agents_cpu()?;
        self.gateway.kill().await?;
        sleep(down).await;
        self.gateway = gateway(&self.address, self.backlog).await?.0;
        let ready = killed.elapsed().as_secs_f64();
        let arrivals = self.arrive().await?;
        Ok(Return {
            down: down.as_secs_f64(),
            ready,
            arrivals,
            cpu: self.gateway.cpu_time()?.as_secs_f64(),
            agents_cpu: spent(agents_cpu, self.agents_cpu()?),
            overflows: kernel::listen_overflows()?.saturating_sub(overflows),
            asking: self.ask(at_once).await?,
        })
    }

    async fn stop(self) -> Result<()> {
        for agents in self.agents {
            agents.stop().await?;
        }
        self.gateway.stop().await
    }

    async fn arrive(&mut self) -> Result<Arrivals> {
        self.tell(AgentsTask::Await { seconds: PATIENCE.as_secs() }).await
    }

    /// Has all agents do this at once.
    async fn tell(&mut self, task: AgentsTask) -> Result<Arrivals> {
        let answers = try_join_all(self.agents.iter_mut().map(|agents| agents.run(&task))).await?;
        Ok(merged(answers))
    }

    fn agents_cpu(&self) -> Result<Duration> {
        self.agents.iter().map(Child::cpu_time).sum()
    }
}

async fn gateway(address: &str, backlog: u32) -> Result<(Child, Ready)> {
    Child::start(&["gateway".to_owned(), address.to_owned(), backlog.to_string()]).await
}

fn spent(before: Duration, after: Duration) -> f64 {
    after.saturating_sub(before).as_secs_f64()
}
