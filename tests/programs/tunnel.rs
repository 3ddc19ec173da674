//! How the gateway answers those who want to open a tunnel.

use crate::{Gateway, TOKEN};

/// A request with every fault there is, or with fewer: each line that goes leaves the next fault to be found.
fn request(faults: usize) -> String {
    let pick = |fault: usize, bad: &'static str, good: &'static str| if faults > fault { bad } else { good };
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    [
        pick(6, "POST", "GET"),
        " /api/v1/revdial",
        pick(2, "", "?runnerid=a"),
        " HTTP/1.1\r\nhost: gateway\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        pick(5, "", "connection: upgrade\r\nupgrade: websocket\r\n"),
        pick(4, "origin: http://elsewhere\r\n", ""),
        if faults > 3 { "" } else { &bearer },
        pick(1, "sec-websocket-version: 7\r\n", "sec-websocket-version: 13\r\n"),
        pick(0, "sec-websocket-protocol: other\r\n", "sec-websocket-protocol: revdial.v1\r\n"),
        "\r\n",
    ]
    .concat()
}

#[tokio::test]
async fn refusals_come_in_the_documented_order_and_say_what_is_missing() {
    let gateway = Gateway::new().await;
    for (faults, status, header) in [
        (7, "405", "\r\nallow: get"),
        (6, "426", "\r\nupgrade: websocket\r\n"),
        (5, "403", ""),
        (4, "401", "\r\nwww-authenticate: bearer"),
        (3, "400", ""),
        (2, "426", "\r\nsec-websocket-version: 13\r\n"),
        (1, "426", "revdial.v1"),
        (0, "101", "\r\nsec-websocket-protocol: revdial.v1\r\n"),
    ] {
        let answer = gateway.raw(&request(faults)).await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{faults} faults: {answer}");
        assert!(answer.contains(header), "{faults} faults: {answer}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_as_bad_as_none() {
    let gateway = Gateway::new().await;
    for wrong in ["Bearer wrong", "Bearer", "Basic YTpi", ""] {
        let answer = gateway.raw(&request(0).replace(&format!("Bearer {TOKEN}"), wrong)).await;
        assert!(answer.starts_with("http/1.1 401 "), "{wrong:?}: {answer}");
    }
}

#[tokio::test]
async fn keys_that_cannot_be_get_400() {
    let gateway = Gateway::new().await;
    for key in ["", "_a", "a/b", "10.0.0.1", &"a".repeat(200)] {
        let answer = gateway.raw(&request(0).replace("runnerid=a", &format!("runnerid={key}"))).await;
        assert!(answer.starts_with("http/1.1 400 "), "{key:?}: {answer}");
    }
}

#[tokio::test]
async fn programs_take_the_token_from_the_environment() {
    use crate::process::Program;

    let env = [("RUNNER_TOKEN", TOKEN)];
    let mut gateway = Program::start_with("gateway --listen 127.0.0.1:0", &env);
    let server = gateway.line().await.replace("listening on ", "");
    for agent in ["agent --key a --forward 127.0.0.1:1", "sandbox --key b"] {
        let agent = Program::start_with(&format!("{agent} --server {server}"), &env);
        agent.logs("connected").await;
    }
}
