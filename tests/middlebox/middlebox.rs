//! nginx and HAProxy as processes of a test: configured, started, reloaded, and ended with it.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{guide::configuration, process::DEADLINE};

/// Between two looks whether it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The file in its folder that has what it logs.
const LOG: &str = "log";

/// Debian's `nobody` and `nogroup`: who the proxies are when the tests are root.
const NOBODY: u32 = 65534;

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
}

/// What is changed of a plain configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    /// After how long a silent connection is cut, in place of the proxy's own 60 s or 50 s.
    pub(crate) idle_time: Option<Duration>,
    /// How long connections may go on after a reload, which is for ever otherwise.
    pub(crate) cut_after_reload: Option<Duration>,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faces {
    /// HTTP/1.1.
    pub(crate) plain: SocketAddr,
    /// HTTP/2 without TLS.
    pub(crate) h2: SocketAddr,
    /// TLS, with HTTP/2 and HTTP/1.1 by ALPN.
    pub(crate) tls: SocketAddr,
}

/// A running proxy in front of a gateway. Dropped, it is told to end.
pub(crate) struct Middlebox {
    kind: Kind,
    pub(crate) faces: Faces,
    process: Child,
    dir: TempDir,
}

impl Middlebox {
    pub(crate) async fn start(kind: Kind, gateway: SocketAddr, settings: Settings) -> Self {
        let (faces, dir) = (Faces::free(), tempfile::tempdir().expect("a folder"));
        certify(dir.path()).await;
        std::fs::write(dir.path().join("conf"), kind.configure(&faces, gateway, settings)).expect("a file");
        give_away(dir.path());
        let log = File::create(dir.path().join(LOG)).expect("a file");
        let process = kind.command(dir.path()).stderr(log).spawn().expect("setpriv, of util-linux");
        let mut middlebox = Self { kind, faces, process, dir };
        timeout(DEADLINE, middlebox.listens()).await.unwrap_or_else(|_| panic!("{kind:?} does not listen"));
        middlebox
    }

    /// Has it read its configuration again, as the packages' services do.
    pub(crate) async fn reload(&self) {
        let mut command = match self.kind {
            Kind::Nginx => {
                let mut command = self.kind.command(self.dir.path());
                command.args(["-s", "reload"]);
                command
            }
            // The new worker takes the sockets over and tells the old one to finish, as by `-sf`.
            Kind::Haproxy => {
                let mut command = Command::new("kill");
                command.args(["-USR2", &self.pid().expect("it runs")]);
                command
            }
        };
        let output = command.output().await.expect("a command");
        assert!(output.status.success(), "{:?} cannot be reloaded: {output:?}", self.kind);
    }

    async fn listens(&mut self) {
        for face in [self.faces.plain, self.faces.h2, self.faces.tls] {
            while TcpStream::connect(face).await.is_err() {
                if let Some(status) = self.process.try_wait().expect("a child of this process") {
                    panic!("{:?} does not start ({status}); is it installed?", self.kind);
                }
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    fn pid(&self) -> Option<String> {
        self.process.id().map(|id| id.to_string())
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        // Not killed: its workers would stay.
        if let Some(pid) = self.pid() {
            let _ = std::process::Command::new("kill").arg(pid).status();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join(LOG));
            eprintln!("--- {:?} logged:\n{}", self.kind, log.unwrap_or_default());
        }
    }
}

impl Faces {
    /// Ports that nobody has, on an address that nobody else uses: connections of other tests come from 127.0.0.1.
    fn free() -> Self {
        // All held until all are known.
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.2:0").expect("a port"));
        let [plain, h2, tls] = listeners.each_ref().map(|listener| listener.local_addr().expect("a bound listener"));
        Self { plain, h2, tls }
    }
}

impl Kind {
    /// The guide's configuration in as little around it as the proxy needs.
    fn configure(self, faces: &Faces, gateway: SocketAddr, settings: Settings) -> String {
        let Faces { plain, h2, tls } = faces;
        let millis = |time: Option<Duration>| time.map(|time| time.as_millis());
        let (idle, cut) = (millis(settings.idle_time), millis(settings.cut_after_reload));
        match self {
            Self::Nginx => {
                let listen = format!(
                    "listen {plain}; listen {h2} http2; listen {tls} ssl http2; \
                     ssl_certificate cert.pem; ssl_certificate_key key.pem;"
                );
                let site = configuration(
                    "nginx",
                    [("listen 80;", &listen), ("server 127.0.0.1:8080;", &format!("server {gateway};"))],
                );
                let idle = idle.map(|idle| format!("proxy_read_timeout {idle}ms;")).unwrap_or_default();
                let cut = cut.map(|cut| format!("worker_shutdown_timeout {cut}ms;")).unwrap_or_default();
                let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("{kind}_temp_path {kind};\n"))
                    .concat();
                format!(
                    "daemon off; pid pid; error_log stderr; {cut}\nevents {{}}\n\
                     http {{\naccess_log off; {idle}\n{temps}{site}}}\n"
                )
            }
            Self::Haproxy => {
                let bind = format!("bind {plain}\n    bind {h2}\n    bind {tls} ssl crt both.pem alpn h2,http/1.1");
                let [client, server] =
                    ["client", "server"].map(|side| format!("timeout {side} {}ms", idle.unwrap_or(50_000)));
                let site = configuration(
                    "haproxy",
                    [
                        ("bind :80", &bind),
                        ("server gateway 127.0.0.1:8080", &format!("server gateway {gateway}")),
                        ("timeout client 50s", &client),
                        ("timeout server 50s", &server),
                    ],
                );
                let cut = cut.map(|cut| format!("hard-stop-after {cut}ms")).unwrap_or_default();
                format!("global\n    {cut}\n{site}")
            }
        }
    }

    /// The proxy in the foreground, with as few rights as there are, and ended if the test is killed.
    fn command(self, dir: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if is_root() {
            command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]);
        }
        match self {
            Self::Nginx => command.arg("nginx").arg("-p").arg(dir).args(["-e", "stderr", "-c", "conf"]),
            Self::Haproxy => command.args(["haproxy", "-W", "-q", "-C"]).arg(dir).args(["-f", "conf"]),
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Makes a certificate that nobody has to trust.
async fn certify(dir: &Path) {
    let flags = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=edge -out cert.pem -keyout key.pem";
    let mut openssl = Command::new("openssl");
    let made = openssl.args(flags.split(' ')).current_dir(dir).stderr(Stdio::null()).status().await;
    assert!(made.expect("openssl").success(), "no certificate");
    let both = ["cert.pem", "key.pem"].map(|name| std::fs::read(dir.join(name)).expect("a file")).concat();
    std::fs::write(dir.join("both.pem"), both).expect("a file");
}

/// Lets the proxy have its folder.
fn give_away(dir: &Path) {
    if is_root() {
        let files = std::fs::read_dir(dir).expect("a folder").map(|file| file.expect("a file").path());
        files.chain([dir.to_owned()]).for_each(|path| chown(path, Some(NOBODY), Some(NOBODY)).expect("a root's right"));
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}
