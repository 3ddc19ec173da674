//! The ways from an agent to its server: TLS, and proxies that ask for a password, which is right or is not.

use std::{net::SocketAddr, time::Duration};

use revdial::{
    agent::{Agent, AgentBuilder, AgentStatus, HttpVersion, ProtocolChoice, ProxyChoice, TlsOptions},
    connman::ConnectionManager,
    server::{RevDialLayer, SharedBearer},
};
use tokio::{sync::watch, time::timeout};

use crate::{
    PROXYS, PROXYS_WRONG, SECRET,
    certificates::{Authority, Identity},
    gateway::{Gateway, serve},
    ids, marked,
    output::Output,
    proxy::{Proxy, Socks},
    requests,
};

/// A server by TLS, and who runs there.
struct World {
    connman: ConnectionManager,
    gateway: Gateway,
    addr: SocketAddr,
    authority: Authority,
    /// The agents'.
    identity: Identity,
    output: Output,
}

impl World {
    async fn new() -> Self {
        let output = Output::of_the_process();
        let connman = ConnectionManager::new();
        let gateway = Gateway::new(RevDialLayer::new(connman.clone(), SharedBearer::new(SECRET).unwrap()));
        let authority = Authority::new();
        let mut tls = authority.server_asking(&authority.issue("127.0.0.1"));
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let addr = gateway.listen(Some(tls)).await;
        let identity = authority.issue("agent");
        Self { connman, gateway, addr, authority, identity, output }
    }

    fn builder(&self) -> AgentBuilder {
        let Identity { certificate, key } = &self.identity;
        let tls = TlsOptions::new().roots_pem(self.authority.pem.clone()).identity_pem(&**certificate, &**key);
        Agent::builder(format!("https://{}", self.addr), "a").token(SECRET).tls(tls).proxy(ProxyChoice::Direct)
    }

    /// An agent that comes and is asked.
    async fn works(&mut self, builder: AgentBuilder) {
        self.output.show(&builder);
        let agent = builder.build().unwrap();
        self.output.show(&agent);
        let mut status = agent.status();
        let (listener, run) = agent.listen();
        let run = tokio::spawn(run);
        let told = settled(&mut status).await;
        assert!(told.is_connected(), "{told:?}");
        serve(listener);
        requests::all(&self.connman, &mut self.output).await;
        run.abort();
    }

    /// An agent that a proxy refuses.
    async fn refused(&mut self, proxy: String) {
        let choice = ProxyChoice::Url(proxy);
        self.output.show(&choice);
        let agent = self.builder().proxy(choice).build().unwrap();
        self.output.show(&agent);
        let mut status = agent.status();
        let run = tokio::spawn(agent.listen().1);
        let told = settled(&mut status).await;
        assert!(matches!(told, AgentStatus::Refused { .. } | AgentStatus::Waiting { .. }), "{told:?}");
        self.output.show(told);
        run.abort();
    }
}

/// The end of the attempt.
async fn settled(status: &mut watch::Receiver<AgentStatus>) -> AgentStatus {
    let settled = status.wait_for(|status| *status != AgentStatus::Connecting);
    timeout(DEADLINE, settled).await.expect("an end of the attempt").unwrap().clone()
}

/// No attempt takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the proxies take: `user` and [`PROXYS`].
const CREDENTIALS: &str = "user:marked-31dzpe-proxy";

/// Each line of a key alone would be a part of it.
fn lines(pem: &str) -> Vec<Vec<u8>> {
    pem.lines().filter(|line| !line.starts_with('-')).map(|line| line.as_bytes().to_vec()).collect()
}

#[tokio::test]
async fn t3_no_output_shows_a_secret_on_any_way_to_the_server() {
    let mut world = World::new().await;
    for protocol in [ProtocolChoice::Native, ProtocolChoice::Dialback] {
        for http in [HttpVersion::Http1, HttpVersion::Http2] {
            world.works(world.builder().protocol(protocol).http(http)).await;
        }
        let by_connect = Proxy::connect(world.addr, "200 Fine").await;
        let by_tls = Proxy::connect_by_tls(world.addr, world.authority.issue("127.0.0.1").server()).await;
        let by_socks = Proxy::socks(world.addr, Socks { auth: Some(CREDENTIALS), reply: 0 }).await;
        for (scheme, proxy) in
            [("http", &by_connect), ("https", &by_tls), ("socks5", &by_socks), ("socks5h", &by_socks)]
        {
            let url = format!("{scheme}://user:{PROXYS}@{}", proxy.addr);
            world.works(world.builder().protocol(protocol).proxy(ProxyChoice::Url(url))).await;
        }
        assert!(by_socks.asked().contains(&CREDENTIALS.to_owned()), "the proxy was told");
    }

    for status in ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"] {
        let proxy = Proxy::connect(world.addr, status).await;
        world.refused(format!("http://user:{PROXYS_WRONG}@{}", proxy.addr)).await;
    }
    let proxy = Proxy::socks(world.addr, Socks { auth: Some("user:else"), reply: 0 }).await;
    world.refused(format!("socks5://user:{PROXYS_WRONG}@{}", proxy.addr)).await;
    let proxy = Proxy::socks(world.addr, Socks { auth: None, reply: 2 }).await;
    world.refused(format!("socks5h://user:{PROXYS_WRONG}@{}", proxy.addr)).await;
    world.refused(format!("http://user:{PROXYS_WRONG}@127.0.0.1:1")).await;
    for cannot_be in
        ["ftp://user:{}@host", "http://user:{}@", "user:{}@host:3128", "http://user:{} @host", "http://user:{}@host:x"]
    {
        let choice = ProxyChoice::Url(cannot_be.replace("{}", PROXYS_WRONG));
        match world.builder().proxy(choice).build() {
            Ok(agent) => world.output.show(agent),
            Err(error) => world.output.show_error(&error),
        }
    }

    let proxys = vec![CREDENTIALS.as_bytes().to_vec(), format!("user:{PROXYS_WRONG}").into_bytes()];
    let secrets = [marked(), proxys, lines(&world.identity.key), ids(&world.gateway.uris())].concat();
    world.output.check(&["dial-back link up", "log TRACE rustls::"], secrets);
}
