//! The life of a dial-back agent's control link on the server, from its 101 to its end.

use std::{pin::pin, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use tokio::time::{Instant, timeout};

use super::{
    authorize::Grant,
    gate::refuse,
    register::{Arrival, Failure, at, close_code},
};
use crate::{
    connman::{Attachment, Offer, RegisterRefusal, Registration},
    dialback::{ControlEnd, ControlLink, DialbackTunnel},
    frame::{CloseCode, InstanceId, SessionId},
    key::Epoch,
    link::{Limits, LinkEnd, Protocol, Refusal},
    metrics,
    proto::SessionEnd,
    tunnel::Tunnel,
};

/// Runs the link until it ends. The lease reports that, also when this future is dropped midway.
pub(super) async fn run(arrival: Arrival) {
    if let Err(failure) = serve(arrival).await {
        failure.report();
    }
}

async fn serve(arrival: Arrival) -> Result<(), Failure> {
    let Arrival { upgrade, epoch, grant, connman, handshake_timeout: within, permit, .. } = arrival;
    let expiry = grant.lifetime().and_then(|lifetime| Instant::now().checked_add(lifetime));
    let completed = timeout(within, upgrade.complete(Limits::CONTROL)).await;
    let link = completed.map_err(|_| Failure::HandoverTimeout)?.map_err(Failure::Handover)?;
    let mut link = ControlLink::new(link);
    drop(permit);

    let tunnel = DialbackTunnel::new(connman.dialers(), grant.key().clone(), grant.principal().to_owned(), epoch);
    let attached = connman
        .attach(registration(&grant, epoch), Offer::NONE, || (SessionId::NEW, Tunnel::Dialback(tunnel.clone()), None));
    let Attachment { lease, .. } = match attached {
        Ok(attachment) => attachment,
        Err(refusal) => {
            let code = close_code(refusal);
            let end = ControlEnd { end: LinkEnd::Local(code), code: Some(code) };
            link.close(end, code.meaning().unwrap_or_default()).await;
            return Err(Failure::Refused(refusal));
        }
    };
    tracing::debug!(principal = grant.principal(), peer = ?grant.peer(), "dial-back link up");
    let mut expires = pin!(expire(&tunnel, expiry).fuse());
    let end = {
        let mut drive = pin!(tunnel.drive(&mut link));
        tokio::select! {
            end = &mut drive => end,
            () = &mut expires => drive.await,
        }
    };
    tracing::debug!(end = ?end.end, "dial-back link down");
    let reason = tunnel.closing_reason();
    if tunnel.ended().is_some() {
        // Before the farewell: the agent may be back meanwhile.
        lease.lost(end.end);
        link.close(end, &reason).await;
        if expiry.is_some() {
            // Streams go on without the control link, but not without leave.
            tokio::select! {
                () = tunnel.idle() => {}
                () = expires => {}
            }
        }
        return Ok(());
    }
    // It drains: the agent is told now, and what runs may finish until it is cut.
    link.close(end, &reason).await;
    tokio::select! {
        () = tunnel.idle() => {}
        () = expires => tunnel.idle().await,
    }
    // Else its place would be held for a link that it has no use for.
    tunnel.end(SessionEnd::Shutdown);
    lease.lost(end.end);
    Ok(())
}

/// Closes the tunnel when its credentials expire.
async fn expire(tunnel: &DialbackTunnel, expiry: Option<Instant>) {
    at(expiry).await;
    metrics::record_auth_failure("revoked");
    tunnel.close(CloseCode::CREDENTIALS, "the credentials expired", SessionEnd::Revoked);
}

/// What is known of the agent: that it is another one each time, as far as it tells.
pub(super) fn registration(grant: &Grant, epoch: Epoch) -> Registration {
    let instance = InstanceId::new(rand::random());
    let mut registration = Registration::new(grant.key().clone(), grant.principal().to_owned(), epoch, instance);
    registration.protocol = Protocol::Dialback;
    registration.peer_addr = grant.peer();
    registration
}

/// The answer to an agent that may not have its key.
pub(super) fn refused(why: RegisterRefusal, retry_after: Duration) -> Response<()> {
    let (status, reason) = match why {
        RegisterRefusal::Foreign | RegisterRefusal::Identity => (StatusCode::FORBIDDEN, "foreign"),
        RegisterRefusal::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        RegisterRefusal::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        _ => (StatusCode::CONFLICT, "in_use"),
    };
    let mut headers = HeaderMap::new();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
    }
    refuse(Refusal { status, headers, reason })
}
