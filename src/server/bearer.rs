//! The ready-made authorizations by `Authorization: Bearer`: a token per key, or one for all.

use std::{fmt, future::ready};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header, request::Parts};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{authorize::Authorize, grant::Grant, rejection::Rejection, route::requested_key};
use crate::{
    error::{Error, ErrorKind},
    key::AgentKey,
};

/// A token for each key: the lower-case hex of HMAC-SHA256 over the key, under a secret that only the server has.
///
/// Nothing has to be stored, and a token opens the tunnel of its own key only. The principal is the key. Without a
/// bearer credential the answer is 401; with one but without a key that can be, 400, since the token can only be judged
/// against a key; with a wrong one 401. Tokens are compared in constant time.
///
/// ```
/// use revdial::server::KeyedBearer;
///
/// let bearer = KeyedBearer::new("a secret of 32 random bytes or more")?;
/// let token = bearer.token_for(&"desktop-7".parse()?);
/// assert_eq!(token.len(), 64);
/// assert!(KeyedBearer::new("").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KeyedBearer {
    mac: Hmac<Sha256>,
}

impl KeyedBearer {
    /// Tokens under this secret, which should be 32 random bytes or more.
    ///
    /// # Errors
    /// `InvalidInput` when the secret is empty, as a variable that is not set is: anybody could make the tokens.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, Error> {
        let secret = not_empty(secret.as_ref(), "the secret of KeyedBearer is empty")?;
        let mac = Hmac::new_from_slice(secret).map_err(|error| Error::with_source(ErrorKind::InvalidInput, error))?;
        Ok(Self { mac })
    }

    /// The token of a key, to be handed to its agent.
    #[must_use]
    pub fn token_for(&self, key: &AgentKey) -> String {
        HEXLOWER.encode(&self.mac.clone().chain_update(key.as_str()).finalize().into_bytes())
    }

    fn judge(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let token = bearer(&parts.headers).ok_or(Rejection::no_credentials())?;
        let key = requested_key(parts)?;
        if !bool::from(self.token_for(&key).as_bytes().ct_eq(token)) {
            return Err(Rejection::unauthorized());
        }
        let principal = key.to_string();
        Ok(Grant::new(key, principal))
    }
}

impl Authorize for KeyedBearer {
    fn authorize(&self, parts: &Parts) -> impl Future<Output = Result<Grant, Rejection>> + Send {
        ready(self.judge(parts))
    }
}

impl fmt::Debug for KeyedBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBearer").finish_non_exhaustive()
    }
}

/// One token for all agents, as fleets have it whose agents share one.
///
/// **Each holder can take any key**, another agent's too: the principal is the same for all. Use [`KeyedBearer`], or
/// an [`Authorize`] of your own, where agents do not trust one another. Without or with a wrong token the answer is 401,
/// in constant time; then 400 without a key that can be.
///
/// ```
/// use revdial::server::SharedBearer;
///
/// let bearer = SharedBearer::new("s3cret")?;
/// assert!(!format!("{bearer:?}").contains("s3cret"));
/// # Ok::<(), revdial::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedBearer {
    digest: [u8; 32],
}

impl SharedBearer {
    /// The principal of all that hold the token.
    const PRINCIPAL: &str = "shared";

    /// Whoever has this token may open a tunnel under any key.
    ///
    /// # Errors
    /// `InvalidInput` when the token is empty, as a variable that is not set is.
    pub fn new(token: impl AsRef<[u8]>) -> Result<Self, Error> {
        let token = not_empty(token.as_ref(), "the token of SharedBearer is empty")?;
        Ok(Self { digest: Sha256::digest(token).into() })
    }

    /// Whether a request with these headers shows the token, for routes beside the tunnel's that ask for one too.
    /// Takes the same time for every wrong token.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
    /// use revdial::server::SharedBearer;
    ///
    /// let bearer = SharedBearer::new("s3cret")?;
    /// let mut headers = HeaderMap::new();
    /// assert!(!bearer.accepts(&headers));
    /// headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"));
    /// assert!(bearer.accepts(&headers));
    /// # Ok::<(), revdial::Error>(())
    /// ```
    #[must_use]
    pub fn accepts(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| self.is_token(token))
    }

    /// Of digests, because the comparison of slices of different lengths tells the length.
    fn is_token(&self, token: &[u8]) -> bool {
        Sha256::digest(token).as_slice().ct_eq(&self.digest).into()
    }

    fn judge(&self, parts: &Parts) -> Result<Grant, Rejection> {
        let token = bearer(&parts.headers).ok_or(Rejection::no_credentials())?;
        if !self.is_token(token) {
            return Err(Rejection::unauthorized());
        }
        Ok(Grant::new(requested_key(parts)?, Self::PRINCIPAL))
    }
}

impl Authorize for SharedBearer {
    fn authorize(&self, parts: &Parts) -> impl Future<Output = Result<Grant, Rejection>> + Send {
        ready(self.judge(parts))
    }
}

impl fmt::Debug for SharedBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBearer").finish_non_exhaustive()
    }
}

/// The token of the request's only `Authorization`, if that is a bearer's.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

fn not_empty<'a>(secret: &'a [u8], complaint: &'static str) -> Result<&'a [u8], Error> {
    if secret.is_empty() { Err(Error::with_source(ErrorKind::InvalidInput, complaint)) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(query: &str, credentials: &[&str]) -> Parts {
        let mut request = Request::get(format!("/t?{query}"));
        for value in credentials {
            request = request.header(header::AUTHORIZATION, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(verdict: Result<Grant, Rejection>) -> u16 {
        verdict.map_or_else(|rejection| rejection.status().as_u16(), |_| 200)
    }

    #[test]
    fn i2_a_keyed_token_opens_its_own_key_only() {
        let bearer = KeyedBearer::new("key").unwrap();
        // HMAC-SHA256("key", "desktop-7") by `openssl dgst -sha256 -hmac key`.
        let token = "6e47037e9ec842f46db7e3828c6e1fde5903f1e83e32fa156fc91541a8863fec";
        assert_eq!(bearer.token_for(&"Desktop-7".parse().unwrap()), token);
        let with = |query: &str, value: &str| bearer.judge(&parts(query, &[value]));
        let grant = with("runnerid=DESKTOP-7", &format!("bEARER {token}")).unwrap();
        assert_eq!((grant.key().as_str(), grant.principal()), ("desktop-7", "desktop-7"));
        assert_eq!(status(with("runnerid=desktop-8", &format!("Bearer {token}"))), 401);
        assert_eq!(status(with("runnerid=desktop-7", &format!("Bearer {}", token.to_uppercase()))), 401);
        assert_eq!(status(with("runnerid=desktop-7", "Bearer x")), 401);
        assert_eq!(status(with("", "Bearer x")), 400, "a token is judged against a key");
        assert_eq!(status(with("", "Basic x")), 401);
        assert_eq!(status(bearer.judge(&parts("runnerid=-", &[]))), 401);
    }

    #[test]
    fn a_shared_token_is_judged_before_the_key() {
        let bearer = SharedBearer::new("token").unwrap();
        for (query, credentials, expected) in [
            ("runnerid=a", &["Bearer token"][..], 200),
            ("runnerid=a", &["bearer   token"][..], 200),
            ("", &["Bearer token"][..], 400),
            ("runnerid=-", &["Bearer token"][..], 400),
            ("", &["Bearer toke"][..], 401),
            ("runnerid=a", &[][..], 401),
            ("runnerid=a", &["Bearer"][..], 401),
            ("runnerid=a", &["Bearer "][..], 401),
            ("runnerid=a", &["token"][..], 401),
            ("runnerid=a", &["Basic token"][..], 401),
            ("runnerid=a", &["Bearer token", "Bearer token"][..], 401),
        ] {
            assert_eq!(status(bearer.judge(&parts(query, credentials))), expected, "{query} {credentials:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?} {:?}", KeyedBearer::new("s3cret").unwrap(), SharedBearer::new("s3cret").unwrap());
        assert_eq!(shown, "KeyedBearer { .. } SharedBearer { .. }");
    }

    #[test]
    fn an_empty_secret_fails_at_once() {
        assert_eq!(KeyedBearer::new("").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(SharedBearer::new("").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
