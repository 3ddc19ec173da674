//! Below HTTP: the name, TCP, the proxy of the environment, TLS.

use std::net::{IpAddr, SocketAddr};

use tokio::{net::TcpStream, time::Instant};

use crate::{
    egress::Environment,
    report::{Outcome, Passed},
    way::{BoxedIo, Way},
    words::took,
};

pub(crate) async fn name(way: &Way) -> Outcome<Vec<SocketAddr>> {
    let asked = Instant::now();
    let addrs = way.resolve().await?;
    let (host, _) = way.first_hop();
    let whose = way.egress().map_or_else(String::new, |egress| format!("the proxy's ({}): ", egress.variable));
    if host.parse::<IpAddr>().is_ok() {
        return Ok(Passed::skip(format!("{whose}{host} is an address"), addrs));
    }
    let ips: Vec<_> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
    Ok(Passed::ok(format!("{whose}{host} is {} ({})", ips.join(", "), took(asked.elapsed())), addrs))
}

pub(crate) async fn tcp(way: &Way, addrs: &[SocketAddr]) -> Outcome<TcpStream> {
    let asked = Instant::now();
    let tcp = way.connect(addrs).await?;
    let peer = tcp.peer_addr().map_or_else(|_| String::new(), |addr| addr.to_string());
    Ok(Passed::ok(format!("{peer} ({})", took(asked.elapsed())), tcp))
}

pub(crate) async fn proxy(way: &Way, tcp: TcpStream) -> Outcome<BoxedIo> {
    let asked = Instant::now();
    let io = way.pass(tcp).await?;
    Ok(match &way.environment {
        Environment::Direct => Passed::ok("none in the environment", io),
        Environment::Excepted(variable) => Passed::ok(format!("none: {variable} is set, but not for this server"), io),
        Environment::Proxy(egress) => {
            let time = took(asked.elapsed());
            Passed::ok(format!("through {}, which {} names ({time})", egress.url(), egress.variable), io)
        }
    })
}

pub(crate) async fn tls(way: &Way, io: BoxedIo) -> Outcome<BoxedIo> {
    let asked = Instant::now();
    let (io, version) = way.secure(io).await?;
    Ok(match version {
        Some(version) if way.is_verified => {
            Passed::ok(format!("{version}, the certificate is valid ({})", took(asked.elapsed())), io)
        }
        Some(version) => Passed::ok(format!("{version}, the certificate is NOT verified (--insecure)"), io),
        None => Passed::skip("the URL is http://: tokens go in the clear", io),
    })
}
