//! Behind the gateway: the tunnel's state, whether somebody answers in it, the service, and how long the way is.

use http::StatusCode;
use revdial::{AgentKey, ErrorKind, TargetName};
use serde_json::Value;

use crate::{
    ask::{Answer, NoAnswer},
    fault::{Failure, Fault},
    gateway::{Gateway, kind_of, no_connection, told},
    report::{Outcome, Passed},
    stats,
    words::took,
};

/// A target that no agent has: it says so at once, if it lives, and no service is asked.
const NOBODY: &str = "probe-asks-for-nobody";

/// How many keys are shown.
const MAX_KEYS: usize = 10;

/// How often the way is measured.
const TRIPS: usize = 10;

/// A tunnel that may be asked.
pub(crate) struct Tunnel {
    key: AgentKey,
    /// Whom to ask for to see whether somebody answers.
    anybody: TargetName,
    /// The gateway's own measure.
    measured: Option<String>,
    /// Whether the gateway's routes are those that the probe knows.
    is_known: bool,
}

/// Without a key: which ones there are, if the gateway tells.
pub(crate) async fn keys(gateway: &Gateway) -> Outcome<()> {
    let stats = stats::fetch(gateway, None).await.ok().flatten().unwrap_or_default();
    let agents = stats::agents(&stats);
    let mut keys: Vec<_> = agents.iter().filter_map(|agent| stats::text(&agent["key"])).take(MAX_KEYS).collect();
    if agents.len() > keys.len() {
        keys.push("…".to_owned());
    }
    let what = if keys.is_empty() { "no --key".to_owned() } else { format!("no --key; there are {}", keys.join(", ")) };
    Ok(Passed::skip(what, ()))
}

/// What the gateway says of the key, and whether it is so.
pub(crate) async fn state(gateway: &Gateway, key: &AgentKey) -> Outcome<Tunnel> {
    let Some(agent) = connected(gateway, key).await? else {
        let tunnel = Tunnel { key: key.clone(), anybody: nobody(), measured: None, is_known: false };
        return Ok(Passed::skip("the gateway has no /stats", tunnel));
    };
    let since = since(&agent);
    let protocol = stats::text(&agent["protocol"]).unwrap_or_default();
    // Dial-back knows no targets: the gateway itself would say that there is none.
    let anybody = if protocol == "dial-back" { TargetName::default() } else { nobody() };
    let measured = stats::seconds(&agent["rtt_seconds"]).map(took);
    let tunnel = Tunnel { key: key.clone(), anybody, measured, is_known: true };
    let answer = tunnel.lives(gateway, &since).await?;
    Ok(Passed::ok(format!("connected{since}, {protocol}; it answers ({})", took(answer.took)), tunnel))
}

/// The gateway's line of a key that counts as connected; `None` if it tells of nobody. That the key is not connected is a
/// failure.
pub(crate) async fn connected(gateway: &Gateway, key: &AgentKey) -> Result<Option<Value>, Failure> {
    let Some(stats) = stats::fetch(gateway, Some(&just_before(key))).await? else { return Ok(None) };
    let agent = stats::agents(&stats).iter().find(|agent| agent["key"] == key.as_str());
    let agent = agent.ok_or_else(|| no_connection(gateway, key))?;
    if agent["state"] != "connected" {
        return Err(in_grace(gateway, key, agent));
    }
    Ok(Some(agent.clone()))
}

fn since(agent: &Value) -> String {
    stats::seconds(&agent["since_seconds"]).map_or_else(String::new, |since| format!(" for {}", took(since)))
}

/// A text behind which this key comes first, in the order of keys: their characters are all before `~`.
fn just_before(key: &AgentKey) -> String {
    let mut text = key.as_str().to_owned();
    let last = text.pop().unwrap_or('0');
    text.extend(('/'..last).last());
    text.push('~');
    text
}

fn nobody() -> TargetName {
    NOBODY.parse().expect("a name as targets have them")
}

fn in_grace(gateway: &Gateway, key: &AgentKey, agent: &Value) -> Failure {
    let since = since(agent);
    let cause = stats::text(&agent["last_cause"]).unwrap_or_else(|| "its link was lost".to_owned());
    let left =
        stats::seconds(&agent["grace_left_seconds"]).map_or_else(String::new, |left| format!(" {} more", took(left)));
    let state = stats::text(&agent["state"]).unwrap_or_default();
    Failure::new(
        Fault::NoConnection,
        format!("no connection now: {key} is in state {state}{since}; callers wait{left}"),
        format!("{cause}: its process or machine is gone, or its network"),
        format!("in the sandbox: the agent's log ; then {}", gateway.command(&format!("doctor --key {key}"))),
    )
}

impl Tunnel {
    /// Asks whether somebody is there.
    async fn lives(&self, gateway: &Gateway, since: &str) -> Result<Answer, Failure> {
        let (key, anybody) = (&self.key, &self.anybody);
        let again = gateway.command(&format!("doctor --key {key}"));
        let path = gateway.way.server.through(key, anybody, "/");
        match gateway.ask(gateway.call(&path)?).await {
            Ok(answer) => match kind_of(&answer) {
                Some(kind) if !is_life(kind) => Err(told(gateway, kind, key, anybody)),
                _ if answer.status == StatusCode::GATEWAY_TIMEOUT => {
                    Err(told(gateway, ErrorKind::DialTimeout, key, anybody))
                }
                _ => Ok(answer),
            },
            Err(NoAnswer::TimedOut(patience)) => Err(Failure::new(
                Fault::TimeOut,
                format!("time-out: {key} counts as connected{since}, and nothing answers within {}", took(patience)),
                "the tunnel is dead and the gateway has not noticed yet (it does after its --dead-after), or all hangs",
                format!("{again} --timeout 60s ; in the sandbox: is the agent alive?"),
            )),
            Err(why) => Err(why.blamed(Fault::Upgrade, "the gateway went away", &gateway.command("doctor"))),
        }
    }

    /// Asks the service itself.
    pub(crate) async fn target(&self, gateway: &Gateway, target: &TargetName, path: &str) -> Outcome<()> {
        let request = gateway.call(&gateway.way.server.through(&self.key, target, path))?;
        let next = "in the sandbox: curl -v to the address of the agent's --forward, and the service's log";
        let answer = gateway.ask(request).await;
        let answer =
            answer.map_err(|why| why.blamed(Fault::Target, "the service took the connection and hangs", next))?;
        if let Some(kind) = kind_of(&answer) {
            return Err(told(gateway, kind, &self.key, target));
        }
        if !self.is_known && answer.status == StatusCode::NOT_FOUND {
            let why = "404: perhaps the gateway has no /proxy either";
            return Ok(Passed::unseen(&["tunnel", "target"], why, ()));
        }
        Ok(Passed::ok(format!("the service answers {} ({})", answer.status, took(answer.took)), ()))
    }

    /// Measures the way to the agent and back, HTTP's share included.
    pub(crate) async fn round_trip(&self, gateway: &Gateway) -> Outcome<()> {
        if !self.is_known {
            return Ok(Passed::skip("nothing to measure it by", ()));
        }
        let path = gateway.way.server.through(&self.key, &self.anybody, "/");
        let lost = |why: NoAnswer| why.blamed(Fault::TimeOut, "the tunnel was lost", &gateway.command("doctor"));
        let mut conversation = gateway.converse().await.map_err(lost)?;
        let mut times = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            times.push(conversation.ask(gateway.call(&path)?).await.map_err(lost)?.took);
        }
        times.sort_unstable();
        let (least, most) = (times[0], times[TRIPS - 1]);
        let own = self.measured.as_ref().map_or_else(String::new, |own| format!("; the gateway measures {own}"));
        let what = format!("{} to {}, usually {}{own}", took(least), took(most), took(times[TRIPS / 2]));
        Ok(Passed::ok(what, ()))
    }
}

/// Whether a failure comes from a living agent.
fn is_life(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(kind, K::TargetUnknown | K::TargetDenied | K::TargetRefused | K::TargetTimeout | K::PeerReset)
}
