//! Settings that cannot be: the programs end at once and name them.

use crate::process::Program;

#[tokio::test]
async fn a14_settings_that_cannot_be_fail_at_once_and_are_named() {
    let agent = "agent --server http://127.0.0.1:1 --key a --token t --forward 127.0.0.1:1";
    let gateway = "gateway --listen 127.0.0.1:0 --token t";
    let commands = [
        ("gateway --listen nowhere --token t".to_owned(), "--listen"),
        ("gateway --listen 192.0.2.77:80 --token t".to_owned(), "--listen 192.0.2.77:80"),
        ("gateway --listen 127.0.0.1:0".to_owned(), "--token"),
        ("gateway --listen 127.0.0.1:0 --token=".to_owned(), "--token"),
        (format!("{gateway} --caller-token="), "--caller-token"),
        (format!("{gateway} --domain .example"), "--domain"),
        (format!("{gateway} --domain tunnels..example"), "--domain"),
        (format!("{gateway} --domain http://tunnels.example"), "--domain"),
        (format!("{gateway} --forward a"), "KEY/TARGET=ADDRESS:PORT"),
        (format!("{gateway} --forward _a=127.0.0.1:1"), "--forward"),
        (format!("{gateway} --forward a/_s=127.0.0.1:1"), "--forward"),
        (format!("{gateway} --forward a=1"), "--forward"),
        (format!("{gateway} --forward a=192.0.2.77:80"), "--forward-anywhere"),
        (format!("{gateway} --grace 30"), "--grace"),
        (format!("{gateway} --dial-timeout soon"), "--dial-timeout"),
        (format!("{gateway} --ping-interval 0s"), "ping_interval"),
        (format!("{gateway} --dead-after 1s"), "dead_after"),
        ("sandbox --server 127.0.0.1:1 --key a --token t".to_owned(), "server"),
        ("sandbox --server http://127.0.0.1:1 --key a".to_owned(), "--token"),
        (agent.replace("http:", "ftp:"), "server"),
        (agent.replace("http://", "http://user:hunter2@"), "server"),
        (agent.replace("--key a", "--key _a"), "_a"),
        (agent.replace("--token t", "--token="), "token"),
        (agent.replace("--forward 127.0.0.1:1", ""), "--forward"),
        (agent.replace("--forward 127.0.0.1:1", "--forward 127.0.0.1"), "127.0.0.1"),
        (format!("{agent} --forward 127.0.0.1:2"), "twice"),
        (format!("{agent} --forward UP!=127.0.0.1:2"), "UP!=127.0.0.1:2"),
        (format!("{agent} --forward x=unix://relative"), "unix://relative"),
        (format!("{agent} --ping-interval 15"), "--ping-interval"),
        (format!("{agent} --dead-after 1s"), "dead_after"),
        (format!("{agent} --metrics-listen 192.0.2.77:80"), "--metrics-listen 192.0.2.77:80"),
    ];
    for (command, named) in commands {
        let ended = Program::run(&command, &[]).await;
        assert!(!ended.status.success(), "{command}: {ended:?}");
        assert!(ended.stderr.contains(named), "{command}: {ended:?}");
        assert_eq!(ended.stdout, "", "{command}");
        assert!(!ended.stderr.contains("hunter2"), "{command}: {ended:?}");
    }
}
