//! A pick-up: the connection that a dial has asked a dial-back agent for. Refused before the upgrade, or claimed for that
//! one dial and delivered.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode, Uri, request::Parts, uri::PathAndQuery};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    gate::{refuse, reject},
    grant::Grant,
    rejection::Rejection,
    route::names_key,
};
use crate::{
    dialback::{Claim, DialbackTunnel, Dialers, Gone, Id, pickup_ids},
    key::AgentKey,
    link::{Refusal, Upgrade},
    metrics,
};

/// A pick-up, and the tunnel whose dial it is for, if there is one.
#[derive(Debug)]
pub(super) struct Pickup(Option<(DialbackTunnel, Id)>);

/// Why a pick-up is refused.
#[derive(Debug)]
pub(super) enum Denial {
    /// By the authorization.
    Rejected(Rejection),
    /// By the handshake.
    Refused(Refusal),
    /// By what it is for; with the metric's label.
    Pickup(StatusCode, &'static str),
}

impl Pickup {
    /// The pick-up of a request.
    pub(super) fn of(parts: &Parts, dialers: &Arc<Dialers>) -> Self {
        let ids = pickup_ids(parts.uri.query().unwrap_or_default());
        Self(ids.and_then(|(dialer, request)| Some((dialers.get(dialer)?, request))))
    }

    /// Whether it names a tunnel that there is. Nobody knows its name but its agent.
    pub(super) fn is_asked_for(&self) -> bool {
        self.0.is_some()
    }

    /// The request as it is judged: under the key of the tunnel that it is for, which it does not name itself, and
    /// against which alone some credentials mean anything.
    pub(super) fn judged_as(&self, parts: &Parts) -> Parts {
        let mut judged = parts.clone();
        if let Some((tunnel, _)) = &self.0
            && !names_key(&parts.uri)
            && let Some(uri) = with_key(&parts.uri, tunnel.key())
        {
            judged.uri = uri;
        }
        judged
    }

    /// Takes the dial that asked for it, if the request was found to come from that dial's agent.
    pub(super) fn claim(
        self,
        judged: Result<Grant, Rejection>,
        handshake: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Claim, Denial> {
        let grant = match judged {
            Ok(grant) => Some(grant),
            // Without a tunnel there is no key that it could be judged under.
            Err(rejection) if self.0.is_none() && rejection.status() == StatusCode::BAD_REQUEST => None,
            Err(rejection) => return Err(Denial::Rejected(rejection)),
        };
        handshake().map_err(Denial::Refused)?;
        let (tunnel, request) = self.0.ok_or(Denial::Pickup(StatusCode::NOT_FOUND, "unknown"))?;
        if grant.is_none_or(|grant| grant.key() != tunnel.key() || grant.principal() != tunnel.principal()) {
            return Err(Denial::Pickup(StatusCode::FORBIDDEN, "principal"));
        }
        tunnel.claim(request).map_err(|gone| match gone {
            Gone::Unknown => Denial::Pickup(StatusCode::NOT_FOUND, "unknown"),
            Gone::Repeated => Denial::Pickup(StatusCode::GONE, "duplicate"),
            Gone::Late => Denial::Pickup(StatusCode::GONE, "late"),
        })
    }
}

impl Denial {
    /// Counts it, and gives the answer.
    pub(super) fn response(self) -> Response<()> {
        match self {
            Self::Rejected(rejection) => reject(&rejection),
            Self::Refused(refusal) => refuse(refusal),
            Self::Pickup(status, result) => {
                metrics::record_pickup(result);
                tracing::info!(status = status.as_u16(), reason = result, "pick-up refused");
                Refusal::new(status, result).response()
            }
        }
    }
}

/// Delivers the connection once it is there; the dial fails if it does not come.
pub(super) async fn run(upgrade: Upgrade, claim: Claim, within: Duration, _permit: OwnedSemaphorePermit) {
    match timeout(within, upgrade.complete_bytes()).await {
        Ok(Ok(link)) => {
            metrics::record_pickup("ok");
            claim.deliver(link);
        }
        Ok(Err(error)) => {
            metrics::record_handshake_rejected("upgrade");
            tracing::warn!(%error, "a pick-up's upgrade failed");
        }
        Err(_) => {
            metrics::record_handshake_timeout();
            tracing::warn!("the host did not hand a pick-up's connection over in time");
        }
    }
}

fn with_key(uri: &Uri, key: &AgentKey) -> Option<Uri> {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}?{query}&runnerid={key}")).ok()?);
    Uri::from_parts(parts).ok()
}
