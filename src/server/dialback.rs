//! The life of a dial-back agent's control link on the server, from its 101 to its end.

use std::pin::pin;

use tokio::time::timeout;

use super::{
    grant::Grant,
    register::{Arrival, Failure, close_code},
    term::{self, Notice, Term},
};
use crate::{
    connman::{Attachment, Lease, Offer, Registration},
    dialback::{ControlEnd, ControlLink, DialbackTunnel},
    frame::{InstanceId, SessionId},
    key::Epoch,
    link::{LinkEnd, MAX_CONTROL_MESSAGE, Protocol},
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
    let mut term = arrival.term();
    let Arrival { upgrade, epoch, grant, connman, handshake_timeout: within, permit, .. } = arrival;
    let completed = timeout(within, upgrade.complete(MAX_CONTROL_MESSAGE)).await;
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
    let end = drive(&tunnel, &mut link, &mut term, &lease).await;
    tracing::debug!(end = ?end.end, "dial-back link down");
    let reason = tunnel.closing_reason();
    if tunnel.ended().is_some() {
        // Before the farewell: the agent may be back meanwhile.
        lease.lost(end.end);
        link.close(end, &reason).await;
        if term.is_some() {
            // Streams go on without the control link, but not without leave.
            finish(&tunnel, &mut term).await;
        }
        return Ok(());
    }
    // It drains: the agent is told now, and what runs may finish until it is cut.
    link.close(end, &reason).await;
    finish(&tunnel, &mut term).await;
    // Else its place would be held for a link that it has no use for.
    tunnel.end(SessionEnd::Shutdown);
    lease.lost(end.end);
    Ok(())
}

/// Drives the link until its end, and carries out meanwhile what the agent's leave asks for.
async fn drive(
    tunnel: &DialbackTunnel,
    link: &mut ControlLink,
    term: &mut Option<Box<Term>>,
    lease: &Lease,
) -> ControlEnd {
    let handle = Tunnel::Dialback(tunnel.clone());
    let mut drive = pin!(tunnel.drive(link));
    loop {
        tokio::select! {
            biased;
            end = &mut drive => return end,
            notice = term::next(term) => notice.carry_out(&handle, lease),
        }
    }
}

/// Waits for the last stream; those that outlast their leave are cut.
async fn finish(tunnel: &DialbackTunnel, term: &mut Option<Box<Term>>) {
    let mut idle = pin!(tunnel.idle());
    loop {
        tokio::select! {
            () = &mut idle => return,
            notice = term::next(term) => if let Notice::Close(why) = notice {
                term::close(&Tunnel::Dialback(tunnel.clone()), why);
            },
        }
    }
}

/// What is known of the agent: that it is another one each time, as far as it tells.
pub(super) fn registration(grant: &Grant, epoch: Epoch) -> Registration {
    let instance = InstanceId::new(rand::random());
    let mut registration = Registration::new(grant.key().clone(), grant.principal().to_owned(), epoch, instance);
    registration.protocol = Protocol::Dialback;
    registration.peer_addr = grant.peer();
    registration
}
