//! Does any output show a secret, at any level: over the whole life of an agent of either protocol, on every way to its
//! server, and of requests to it? By themselves, since a subscriber and a logger are for a whole process.
#![cfg(all(feature = "proxy", feature = "tls"))]

#[path = "../support/certificates.rs"]
mod certificates;
mod gateway;
mod lives;
#[path = "../support/net.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod net;
mod output;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/raw.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod raw;
mod requests;
mod ways;

use http::Uri;

const SECRET: &str = "marked-9f27qk-secret";
const WRONG: &str = "marked-77avx3-wrong";
/// What a user of a service shows to it.
const USERS: &str = "marked-5e8w0z-user";
const COOKIE: &str = "marked-c4fjra-cookie";
/// A proxy's password, and one that it does not take.
const PROXYS: &str = "marked-31dzpe-proxy";
const PROXYS_WRONG: &str = "marked-e0ty66-proxy";

/// Those above, and as much of them as would give them away; which no random bytes in hex can be, as libraries tell some.
fn marked() -> Vec<Vec<u8>> {
    let all = [SECRET, WRONG, USERS, COOKIE, PROXYS, PROXYS_WRONG];
    all.iter().flat_map(|secret| [secret.as_bytes(), &secret.as_bytes()[7..13]]).map(<[u8]>::to_vec).collect()
}

/// The ids in these URIs of pick-ups: whoever knows those of a dial-back dial, and a token, could take its place.
fn ids(uris: &[Uri]) -> Vec<Vec<u8>> {
    let ids: Vec<_> = uris
        .iter()
        .filter_map(|uri| uri.query())
        .flat_map(|query| query.split('&'))
        .filter_map(|parameter| parameter.strip_prefix("revdial.req=").or(parameter.strip_prefix("revdial.dialer=")))
        .collect();
    assert!(ids.len() > 2 && ids.iter().all(|id| id.len() == 32), "{uris:?}");
    let bytes = |id: &&str| data_encoding::HEXLOWER.decode(id.as_bytes()).unwrap();
    ids.iter().flat_map(|id| [id.as_bytes().to_vec(), bytes(id)]).collect()
}
