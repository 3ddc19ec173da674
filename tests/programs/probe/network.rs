//! Faults on the way to the gateway: each step names its own.

use std::fmt::Write;

use rcgen::{BasicConstraints, CertificateParams, IsCa};

use super::{
    assert_fault, assert_well, at, sandbox,
    servers::{answering, http_proxy, socks_proxy, tls, tls_by},
};
use crate::{
    Gateway, TOKEN,
    process::{Ended, Program},
};

#[tokio::test]
async fn a_name_that_does_not_resolve_and_a_port_that_is_closed_are_told_apart() {
    let ended = at("http://gateway.invalid", "doctor --timeout 5s").await;
    assert_fault(&ended, 10, "name", &["gateway.invalid does not resolve", "DNS", "getent hosts gateway.invalid"]);
    let ended = at("http://127.0.0.1:1", "doctor").await;
    assert_fault(
        &ended,
        11,
        "tcp",
        &["127.0.0.1:1: Connection refused", "nothing listens there", "nc -vz 127.0.0.1 1"],
    );
    for command in ["stats", "screenshot 1", "stream 1"] {
        let ended = at("http://127.0.0.1:1", command).await;
        assert_eq!(ended.status.code(), Some(11), "{ended:?}");
        assert!(ended.stderr.contains("Connection refused") && ended.stderr.contains("next "), "{ended:?}");
    }
}

#[tokio::test]
async fn faults_of_tls_are_told_apart() {
    let gateway = Gateway::new().await;
    let ended = at(&format!("https://{}", gateway.addr), "doctor").await;
    assert_fault(&ended, 12, "tls", &["the port does not speak TLS", &format!("curl -v http://{}", gateway.addr)]);

    let (server, _) = tls(gateway.addr, "127.0.0.1").await;
    let ended = at(&format!("https://{server}"), "doctor").await;
    assert_fault(&ended, 12, "tls", &["UnknownIssuer", "self-signed", "--ca", "openssl s_client -connect"]);

    let (server, pem) = tls(gateway.addr, "elsewhere").await;
    let (_dir, file) = saved(&pem);
    let ended = at(&format!("https://{server}"), &format!("doctor --ca {file}")).await;
    assert_fault(&ended, 12, "tls", &["not valid for name", "another server answers there", "subjectAltName"]);

    let mut authority = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (server, pem) = tls_by(gateway.addr, authority).await;
    let (_dir, file) = saved(&pem);
    let ended = at(&format!("https://{server}"), &format!("doctor --ca {file}")).await;
    assert_fault(&ended, 12, "tls", &["it is an authority's", "CA:FALSE", "-ext basicConstraints"]);
}

#[tokio::test]
async fn tls_with_a_certificate_that_is_trusted_leads_to_the_sandbox() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-1").await;
    let (server, pem) = tls(gateway.addr, "127.0.0.1").await;
    let (_dir, file) = saved(&pem);
    let command = format!("doctor --key desktop-1 --token {TOKEN} --idle-up-to 200ms");
    for (flags, says) in
        [(format!("--ca {file}"), "TLSv1.3, the certificate is valid"), ("--insecure".to_owned(), "NOT verified")]
    {
        let ended = at(&format!("https://{server}"), &format!("{command} {flags}")).await;
        assert_well(&ended);
        assert!(ended.stdout.contains(says), "{ended:?}");
        assert!(ended.stdout.contains("ok    idle        idle connections live"), "{ended:?}");
        let ended = at(&format!("https://{server}"), &format!("stream 1 --duration 500ms {flags}")).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
}

fn saved(pem: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    (dir, file.to_str().expect("text").to_owned())
}

#[tokio::test]
async fn a_server_that_is_no_gateway_is_told_by_its_answer() {
    let page = |status: &str, more: &str, body: &str| -> &'static str {
        let mut answer = format!("HTTP/1.1 {status}\r\n{more}content-type: text/html\r\n");
        write!(answer, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        answer.leak()
    };
    for (answer, says) in [
        (page("404 Not Found", "server: nginx/1.22.1\r\n", "<h1>no</h1>"), "another web server answers there"),
        (page("200 OK", "", "<form>log in</form>"), "a web page answers there"),
        (page("302 Found", "location: https://portal.example/\r\n", ""), "it sends elsewhere"),
        (page("502 Bad Gateway", "server: nginx\r\n", ""), "the gateway behind it does not"),
        (page("401 Unauthorized", "", ""), "a log-in of its own"),
    ] {
        let server = answering(answer).await;
        let ended = at(&format!("http://{server}"), "doctor --key a").await;
        let next = format!("curl -v http://{server}/api/v1/revdial");
        assert_fault(&ended, 14, "upgrade", &["no gateway answers at", "where 426 belongs", says, &next]);
    }
    let server = answering("no HTTP\r\n\r\n").await;
    let ended = at(&format!("http://{server}"), "doctor").await;
    assert_fault(&ended, 14, "middlebox", &["no answer", "does not speak HTTP", "curl -v"]);
}

#[tokio::test]
async fn a_middlebox_is_known_by_its_headers_and_by_what_it_takes_out() {
    // As the gateway answers to what nginx makes of an upgrade, unless it is told otherwise.
    let stripped = "HTTP/1.1 426 Upgrade Required\r\nvia: 1.1 corner\r\nserver: nginx/1.22.1\r\nupgrade: websocket\r\n\
                    content-length: 0\r\n\r\n";
    let server = answering(stripped).await;
    let ended = at(&format!("http://{server}"), "doctor --key a").await;
    assert_fault(&ended, 14, "upgrade", &["does not get through", "takes the headers", "proxy_set_header Upgrade"]);
    assert!(ended.stdout.contains("via: 1.1 corner, server: nginx/1.22.1\n"), "{ended:?}");
}

/// The doctor with a proxy in the environment.
async fn with_proxy(gateway: &Gateway, proxy: &str, no_proxy: &str) -> Ended {
    let command = format!("probe doctor --key desktop-1 --token {TOKEN} --insecure --server http://{}", gateway.addr);
    Program::run(&command, &[("HTTP_PROXY", proxy), ("NO_PROXY", no_proxy)]).await
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_used_and_named() {
    let gateway = Gateway::new().await;
    let _sandbox = sandbox(&gateway, "desktop-1").await;
    let (plain, guarded) = (http_proxy(None, None).await, http_proxy(None, Some("dXNlcjpodW50ZXIy")).await);
    for (variable, shown) in [
        (format!("http://{plain}"), format!("http://{plain}")),
        (plain.to_string(), format!("http://{plain}")),
        (format!("http://user:hunter2@{guarded}"), format!("http://{guarded}")),
        (format!("socks5h://{}", socks_proxy().await), "socks5h://127.0.0.1:".to_owned()),
        (format!("https://{}", tls(plain, "127.0.0.1").await.0), "https://127.0.0.1:".to_owned()),
    ] {
        let ended = with_proxy(&gateway, &variable, "").await;
        assert_well(&ended);
        assert!(ended.stdout.contains(&format!("ok    proxy       through {shown}")), "{ended:?}");
        assert!(ended.stdout.contains("which HTTP_PROXY names"), "{ended:?}");
        assert!(!ended.stdout.contains("hunter2"), "{ended:?}");
    }
    // As an agent: what is not used is not looked at, and what a stranger's header may have filled is not used.
    for (proxy, no_proxy, method) in [
        (format!("http://{plain}"), "127.0.0.1", ""),
        ("nonsense://".into(), "*", ""),
        ("nonsense://".into(), "", "GET"),
    ] {
        let command = format!("probe doctor --key desktop-1 --server http://{}", gateway.addr);
        let environment = [("HTTP_PROXY", &*proxy), ("NO_PROXY", no_proxy), ("REQUEST_METHOD", method)];
        let ended = Program::run(&command, &environment).await;
        assert_well(&ended);
        assert!(ended.stdout.contains("none: HTTP_PROXY is set, but not for this server"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_from_one_that_is_not_there() {
    let gateway = Gateway::new().await;
    let proxy = http_proxy(None, Some("dXNlcjpodW50ZXIy")).await;
    let ended = with_proxy(&gateway, &format!("http://user:wrong@{proxy}"), "").await;
    assert_fault(&ended, 13, "proxy", &["407 Proxy Authentication Required", "USER:PASSWORD", "curl -v --proxytunnel"]);
    assert!(!ended.stdout.contains("wrong"), "{ended:?}");
    for (status, cause) in [("403 Forbidden", "its rules"), ("502 Bad Gateway", "cannot reach the server itself")] {
        let proxy = http_proxy(Some(status), None).await;
        let ended = with_proxy(&gateway, &format!("http://{proxy}"), "").await;
        let next = format!("NO_PROXY={}", gateway.addr.ip());
        assert_fault(&ended, 13, "proxy", &[status, "HTTP_PROXY", cause, &next]);
    }
    let ended = with_proxy(&gateway, &format!("https://{}", tls(proxy, "127.0.0.1").await.0), "").await;
    assert_fault(&ended, 13, "proxy", &["407"]);
    let ended = with_proxy(&gateway, &format!("https://{proxy}"), "").await;
    assert_fault(&ended, 12, "proxy", &["the port does not speak TLS"]);
    let ended = with_proxy(&gateway, "ftp://user:hunter2@127.0.0.1", "").await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.starts_with("error: HTTP_PROXY in the environment is not the URL of a proxy"), "{ended:?}");
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    let ended = with_proxy(&gateway, "http://127.0.0.1:1", "").await;
    assert_fault(&ended, 11, "tcp", &["127.0.0.1:1: Connection refused"]);
    assert!(ended.stdout.contains("the proxy's (HTTP_PROXY)"), "{ended:?}");
}
