//! The agent as a program under a service manager: its environment, its log, what it tells, and how it ends.

use std::{
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::{Command, Stdio},
    time::Duration,
};

use revdial::connman::KeyState;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    DEADLINE, Gateway, NAME, Running, builder,
    certificates::Authority,
    counted::Counted,
    net::TOKEN,
    process::Program,
    proxy::{Proxy, Socks},
};

const FORWARD: &str = "--key a --forward 127.0.0.1:1";

/// Waits until the server has the agent.
async fn there(gateway: &Gateway) {
    let here = async {
        while gateway.connman.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, here).await.expect("the agent is not there");
}

#[tokio::test]
async fn the_environment_names_the_proxy_and_its_exceptions() {
    let gateway = Gateway::plain().await;
    let proxy = Proxy::socks(gateway.addr, Socks { auth: Some("u:hunter2"), reply: 0 }).await;
    let all = format!("socks5h://u:hunter2@{}", proxy.addr);
    let command = format!("agent --server {} --token {TOKEN} {FORWARD}", gateway.named("ws"));
    let env = [("ALL_PROXY", all.as_str()), ("NO_PROXY", "elsewhere.test"), ("RUST_LOG", "trace")];
    let replaced = async {
        there(&gateway).await;
        let second = Running::of(builder(&format!("http://{}", gateway.addr)).build().unwrap());
        let _ = second.run_ended().await;
    };
    let ended = tokio::select! {
        ended = Program::run(&command, &env) => ended,
        () = replaced => unreachable!("the second stays"),
    };
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    let log = ended.stderr;
    assert!(log.contains(&format!("socks5h://{}", proxy.addr)) && log.contains("TRACE"), "the proxy is named: {log}");
    assert!(!log.contains("hunter2") && !log.contains(TOKEN), "{log}");
    assert_eq!(proxy.asked().len(), 2);

    let excepted = [("all_proxy", all.as_str()), ("no_proxy", "127.0.0.0/8")];
    for (flags, env) in [("", excepted), ("--proxy none", [("ALL_PROXY", &all), ("NO_PROXY", "")])] {
        let gateway = Gateway::plain().await;
        let command = format!("agent --server http://{} --token {TOKEN} {FORWARD} {flags}", gateway.addr);
        let _agent = Program::start_with(&command, &env);
        there(&gateway).await;
    }
    assert_eq!(proxy.asked().len(), 2, "nobody asked it again");
    let direct = format!("agent --server http://127.0.0.1:1 --token {TOKEN} {FORWARD}");
    let broken = Program::run(&direct, &[("HTTP_PROXY", "ftp://u:hunter2@h")]).await;
    assert_eq!(broken.status.code(), Some(2), "{broken:?}");
    assert!(broken.stderr.contains("HTTP_PROXY") && !broken.stderr.contains("hunter2"), "{broken:?}");
}

#[tokio::test]
async fn flags_set_tls_up_and_a_token_is_read_from_a_file_again_and_again() {
    let authority = Authority::new();
    let gateway = Gateway::tls(authority.server_asking(&authority.issue(NAME))).await;
    let (folder, me) = (tempdir().unwrap(), authority.issue("sandbox"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [("ca", &authority.pem), ("me", &me.certificate), ("key", &me.key)] {
        std::fs::write(path(name), text).unwrap();
    }
    let command = format!(
        "agent --server https://{} {FORWARD} --token-file {} --ca-file {} --client-cert {} --client-key {} --server-name {NAME} --http 2 --max-backoff 300ms",
        gateway.addr,
        path("token"),
        path("ca"),
        path("me"),
        path("key")
    );
    let agent = Program::start(&command);
    agent.logs(&path("token")).await;
    std::fs::write(path("token"), format!("{TOKEN}\n")).unwrap();
    there(&gateway).await;
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_is_ready_what_it_does_and_that_it_stops() {
    let gateway = Gateway::plain().await;
    let folder = tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let command = format!("agent --server http://{} --token {TOKEN} {FORWARD}", gateway.addr);
    let mut agent = Program::start_with(&command, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let (told, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(n) = socket.recv(&mut buffer) {
            let _ = told.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
    });
    let hear = async |expected: &str| {
        loop {
            match hears.try_recv() {
                Ok(text) if text.contains(expected) => return text,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    let ready = tokio::time::timeout(DEADLINE, hear("READY=1")).await.expect("ready");
    assert_eq!(ready, "READY=1\nSTATUS=connected");
    agent.signal("TERM").await;
    tokio::time::timeout(DEADLINE, hear("STOPPING=1")).await.expect("stopping");
    tokio::time::timeout(DEADLINE, hear("STATUS=stopped")).await.expect("stopped");
    assert!(agent.ended().await.success());
}

#[tokio::test]
async fn the_way_it_ends_is_its_exit_code() {
    let gateway = Gateway::plain().await;
    let command = format!("agent --server http://{} --token {TOKEN} {FORWARD}", gateway.addr);
    let mut first = Program::start(&command);
    there(&gateway).await;
    let mut second = Program::start(&command);
    assert_eq!(first.ended().await.code(), Some(3), "another agent has its key");
    there(&gateway).await;
    second.signal("INT").await;
    assert_eq!(second.ended().await.code(), Some(0));
    for flags in
        ["--proxy ftp://h", "--ca-file /nowhere", "--server-name x", "--label x", "--http 3", "--client-cert x"]
    {
        let ended = Program::run(&format!("{command} {flags}"), &[]).await;
        assert_eq!(ended.status.code(), Some(2), "{flags}: {ended:?}");
        let named = flags.split_whitespace().next().unwrap().trim_start_matches("--");
        let named = named.replace("ca-file", "tls.roots").replace("server-name", "tls.server_name");
        assert!(ended.stderr.contains(&named), "{flags}: {ended:?}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let gateway = Gateway::plain().await;
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = format!("--key a --forward {} --drain 1h", service.local_addr().unwrap());
    let mut agent = Program::start(&format!("agent --server http://{} --token {TOKEN} {forward}", gateway.addr));
    there(&gateway).await;
    let (_stream, _socket) = tokio::join!(gateway.dial(), service.accept());
    agent.signal("TERM").await;
    agent.logs("told to stop").await;
    agent.signal("TERM").await;
    assert!(agent.ended().await.success());
}

/// The log of an agent that is refused by a port where nobody listens, with these flags and standard error as journald's
/// or not.
async fn log(journald: bool, flags: &str) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let file = log.reopen().unwrap();
    let meta = file.metadata().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stream = if journald { format!("{}:{}", meta.dev(), meta.ino()) } else { "1:1".to_owned() };
    let mut agent = Command::new(crate::process::example("agent"))
        .args(format!("--server http://{nobody} --token {TOKEN} {FORWARD} {flags}").split_whitespace())
        .env("JOURNAL_STREAM", stream)
        .stderr(Stdio::from(file))
        .spawn()
        .unwrap();
    let told = async {
        while !std::fs::read_to_string(log.path()).unwrap().contains("cannot be reached") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::time::timeout(DEADLINE, told).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    told.expect("it logs");
    std::fs::read_to_string(log.path()).unwrap()
}

#[tokio::test]
async fn the_log_is_plain_lines_without_times_under_journald_and_with_levels_if_asked_for() {
    let plain = log(false, "").await;
    assert!(plain.lines().all(|line| line.starts_with("20") && line.contains('Z')), "{plain}");
    let journald = log(true, "").await;
    assert!(journald.lines().all(|line| line.trim_start().starts_with(['I', 'W'])), "{journald}");
    let levels = log(true, "--log-levels").await;
    let prefixed = |line: &str| match line.split_once('>').unwrap() {
        ("<4", rest) => rest.trim_start().starts_with("WARN"),
        ("<6", rest) => rest.trim_start().starts_with("INFO"),
        _ => false,
    };
    assert!(levels.lines().all(prefixed) && levels.contains("<4>"), "{levels}");
    for text in [&plain, &journald, &levels] {
        assert!(!text.contains('\u{1b}') && text.contains("retry_in"), "{text}");
    }
}

/// The words of the unit's `ExecStart`, as systemd makes them of these variables.
fn exec_start(unit: &str, variables: &[(&str, &str)]) -> String {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let set = |line: String, (name, value): &(&str, &str)| {
        line.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    };
    let line = variables.iter().fold(line.to_owned(), set);
    line.replace("/usr/local/bin/revdial-agent", "agent")
}

#[tokio::test]
async fn the_unit_for_systemd_starts_an_agent_and_knows_its_exit_codes() {
    let unit = include_str!("../../examples/agent/revdial-agent.service");
    let gateway = Gateway::plain().await;
    let server = format!("http://{}", gateway.addr);
    let forward = "--forward 127.0.0.1:1 --forward two=127.0.0.1:2";
    let command = exec_start(unit, &[("SERVER", &server), ("KEY", "a"), ("FORWARD", forward)]);
    assert!(!command.contains('$'), "{command}");
    let mut agent = Program::start_with(&command, &[("RUNNER_TOKEN", TOKEN)]);
    there(&gateway).await;
    agent.signal("TERM").await;
    assert!(agent.ended().await.success());
    for line in ["Type=notify", "TimeoutStartSec=infinity", "Restart=on-failure", "RestartPreventExitStatus=2 3"] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
}

#[tokio::test]
async fn told_to_stop_it_lets_what_runs_finish_says_goodbye_and_ends_with_0() {
    let counted = Counted::new();
    let gateway = Gateway::plain().await;
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = format!("--key a --forward {} --drain 1h", service.local_addr().unwrap());
    let mut agent = Program::start(&format!("agent --server http://{} --token {TOKEN} {forward}", gateway.addr));
    there(&gateway).await;
    let (stream, accepted) = tokio::join!(gateway.dial(), service.accept());
    let (mut stream, (mut socket, _)) = (stream.unwrap(), accepted.unwrap());
    agent.signal("TERM").await;
    agent.logs("told to stop").await;

    AsyncWriteExt::write_all(&mut stream, b"the last words").await.unwrap();
    AsyncWriteExt::shutdown(&mut stream).await.unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "the last words");
    socket.write_all(b"and the answer").await.unwrap();
    drop(socket);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "and the answer");

    assert_eq!(agent.ended().await.code(), Some(0));
    agent.logs("shut down").await;
    let left = async {
        while gateway.connman.list()[0].state != KeyState::Grace {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, left).await.expect("the server knows that it has left");
    let ends = ["closed", "lost", "dead"].map(|end| counted.sum(&format!("revdial_close_total{{{end}}}")));
    assert_eq!(ends, [1, 0, 0], "by CLOSE, and not by a link that was lost");
}
