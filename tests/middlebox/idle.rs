//! Tunnels outlive the idle times of proxies by their pings, and streams outlive a proxy that cuts all the same.

use std::{env, time::Duration};

use crate::{
    middlebox::{Kind, Settings},
    process::DEADLINE,
    world::{Echo, World, agent, text},
};

/// An idle time for quick tests.
const SHORT: Duration = Duration::from_secs(2);

/// How silent it is, and how soon a proxy cuts what is silent.
struct Silence {
    lasts: Duration,
    settings: Settings,
    /// Of gateway and agents.
    flags: &'static str,
    /// Whose pings can be heard meanwhile: those of the dial-back protocol cannot be set.
    protocols: &'static [&'static str],
}

impl Silence {
    /// With `REVDIAL_IDLE=full` in the environment, three minutes behind proxies and in programs as they are.
    fn asked_for() -> Self {
        match env::var("REVDIAL_IDLE").as_deref() {
            Ok("full") => Self {
                lasts: Duration::from_secs(180),
                settings: Settings::default(),
                flags: "",
                protocols: &["native", "dialback"],
            },
            Ok(other) => panic!("REVDIAL_IDLE={other}: it may be full"),
            Err(_) => Self {
                lasts: 2 * SHORT,
                settings: Settings { idle_time: Some(SHORT), ..Settings::default() },
                flags: "--ping-interval 300ms",
                protocols: &["native"],
            },
        }
    }
}

#[tokio::test]
async fn an_idle_tunnel_lives_behind_nginx() {
    lives_idle(Kind::Nginx).await;
}

#[tokio::test]
async fn an_idle_tunnel_lives_behind_haproxy() {
    lives_idle(Kind::Haproxy).await;
}

/// The link that an agent came by is the one that it has afterwards, and a stream that was silent, too, goes on.
async fn lives_idle(kind: Kind) {
    let Silence { lasts, settings, flags, protocols } = Silence::asked_for();
    let mut world = World::new(kind, settings, flags).await;
    let mut echoes = Vec::new();
    for protocol in protocols {
        world.agent(protocol, &format!("--protocol {protocol}")).await;
        // Not through the proxy, which would rightly cut a caller that is silent.
        echoes.push(Echo::open(world.gateway, protocol).await);
        echoes.last_mut().unwrap().says("before").await;
    }
    let lasted = |stats: &serde_json::Value| {
        protocols.iter().all(|key| agent(stats, key)["since_seconds"].as_f64() >= Some(lasts.as_secs_f64()))
    };
    let stats = world.until(lasts + DEADLINE, lasted).await;
    for (key, echo) in protocols.iter().zip(&mut echoes) {
        let agent = agent(&stats, key);
        assert_eq!((&agent["state"], &agent["reconnects"]), (&"connected".into(), &0.into()), "{stats}");
        echo.says("after").await;
        assert_eq!(text(world.get(world.middlebox.faces.plain, &format!("/proxy/{key}/")).await).await, "here");
    }
}

#[tokio::test]
async fn nginx_cuts_a_tunnel_whose_pings_are_too_rare_and_streams_go_on() {
    is_cut_and_goes_on(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_cuts_a_tunnel_whose_pings_are_too_rare_and_streams_go_on() {
    is_cut_and_goes_on(Kind::Haproxy).await;
}

/// Shows that the idle times above are at work, and what becomes of a deployment that gets them wrong.
async fn is_cut_and_goes_on(kind: Kind) {
    let mut world = World::new(kind, Settings { idle_time: Some(SHORT), ..Settings::default() }, "").await;
    world.agent("a", "--protocol native").await;
    let mut echo = Echo::open(world.gateway, "a").await;
    echo.says("before").await;
    world.until(DEADLINE, |stats| agent(stats, "a")["reconnects"].as_u64() >= Some(1)).await;
    echo.says("after").await;
}
