//! The steps, each in both; every result must be the same.

use super::*;

const UNREPORTED: Duration = Duration::from_millis(10);

/// One step.
pub(super) fn apply(registry: &mut Registry<u64>, model: &mut Model, op: &Op) {
    match *op {
        Op::Register { key } => register(registry, model, key),
        Op::Lose { key, stale, hold } => lose(registry, model, key, stale, hold.map(ms)),
        Op::Dial { key, dead, absent, most } => dial(registry, model, key, dead, absent, most.map(ms)),
        Op::Woken { key, late, fails } => woken(registry, model, key, late, fails),
        Op::GiveBack { nth } => give_back(registry, model, nth),
        Op::Close { key } => close(registry, model, key),
        Op::Hear { key } => hear(registry, model, key),
        Op::Advance { ms: n } => model.now += ms(n),
        Op::AdvanceToDeadline { exactly } => {
            if let Some(next) = registry.next_deadline() {
                let to = if exactly { next } else { next - Duration::from_nanos(1) };
                model.now = model.now.max(to);
            }
        }
    }
}

fn register(registry: &mut Registry<u64>, model: &mut Model, n: u8) {
    let seen = match model.state(n) {
        Now::Absent => None,
        Now::Up(epoch, _) | Now::Grace(epoch, _) => Some(Epoch::new(epoch)),
    };
    let epoch = model.epoch;
    model.epoch += 1;
    let full = seen.is_none() && model.held() >= LIMITS.tunnels;
    let result = registry.register(&registration(n, epoch), session(epoch), epoch, seen, model.now);
    assert_eq!(result, if full { Err((Conflict::Overloaded, epoch)) } else { Ok(()) });
    if !full {
        let owed = match model.state(n) {
            Now::Absent => None,
            Now::Up(_, owed) => owed,
            Now::Grace(_, until) => Some(until),
        };
        model.set(n, Now::Up(epoch, owed));
        model.answer_all(n, &Ok(epoch));
        model.wakes[usize::from(n)].take_if(|(_, _, runs)| !*runs);
    }
}

fn lose(registry: &mut Registry<u64>, model: &mut Model, n: u8, stale: bool, hold: Option<Duration>) {
    let (epoch, owed) = match model.state(n) {
        Now::Up(epoch, owed) if !stale => (epoch, owed),
        _ => (0, None),
    };
    let (grace, now) = (hold.map_or(Grace::Drop, Grace::Hold), model.now);
    let counted = registry.link_lost(&key(n), Epoch::new(epoch), LossCause::Lost, grace, false, (now, now));
    assert_eq!(counted, epoch != 0);
    match hold {
        _ if epoch == 0 => {}
        None => {
            model.set(n, Now::Absent);
            model.answer_all(n, &Err(Refusal::NoConnection));
        }
        Some(hold) => {
            model.set(n, Now::Grace(epoch, owed.unwrap_or(now + hold)));
            model.waiters.iter_mut().filter(|waits| waits.of == n).for_each(|waits| waits.own = None);
            model.expire();
        }
    }
}

fn dial(registry: &mut Registry<u64>, model: &mut Model, n: u8, dead: bool, absent: Absence, most: Option<Duration>) {
    let not_before = match model.state(n) {
        Now::Up(epoch, _) if dead => epoch + 1,
        _ => 0,
    };
    let wanted = Ask { not_before: Epoch::new(not_before), absent, limit: PER_KEY, unreported: UNREPORTED, most };
    let step = match registry.dial(&key(n), wanted, model.now) {
        DialStep::Refused(refusal) => DialStep::Refused(unexplained(refusal)),
        step => step,
    };
    let (own, refusal) = match (model.state(n), absent) {
        (Now::Up(epoch, _), _) if !dead => {
            assert_eq!(step, DialStep::Ready(Epoch::new(epoch), epoch));
            return;
        }
        (Now::Absent, Absence::Refuse) => {
            assert_eq!(step, DialStep::Refused(Refusal::NoConnection));
            return;
        }
        (Now::Up(..), _) => (Some(model.now + UNREPORTED), Refusal::ReconnectTimeout),
        (Now::Grace(..), _) => (None, Refusal::ReconnectTimeout),
        (Now::Absent, Absence::Wait(wait)) => (Some(model.now + wait), Refusal::NoConnection),
        (Now::Absent, Absence::Wake(_)) => (None, Refusal::NoConnection),
    };
    if most == Some(Duration::ZERO) {
        assert_eq!(step, DialStep::Refused(refusal));
        return;
    }
    let Some(ticket) = ticket(model, n, absent, step) else { return };
    assert!(model.waiters.iter().all(|earlier| earlier.ticket < ticket), "tickets rise");
    model.waiters.push(Waits { of: n, ticket, own, last: most.map(|most| model.now + most) });
    model.issued.insert(ticket, n);
}

/// The ticket of a dial that waits, and starts the key's agent if it has to; `None`: there is no room for it.
fn ticket(model: &mut Model, n: u8, absent: Absence, step: DialStep<u64>) -> Option<Ticket> {
    let wakes = match absent {
        Absence::Wake(within) if model.state(n) == Now::Absent => {
            model.wakes[usize::from(n)].is_none().then(|| model.now + within)
        }
        _ => None,
    };
    let full = model.waiters.len() >= LIMITS.waiting || model.waiting_for(n) >= PER_KEY;
    match step {
        DialStep::Wait(ticket, _) if !full && wakes.is_none() => Some(ticket),
        DialStep::Wake(ticket, until) if !full && wakes == Some(until) => {
            model.wakes[usize::from(n)] = Some((ticket, until, true));
            Some(ticket)
        }
        step => {
            assert_eq!((step, full), (DialStep::Refused(Refusal::TooManyPending), true));
            None
        }
    }
}

fn woken(registry: &mut Registry<u64>, model: &mut Model, n: u8, late: bool, fails: bool) {
    let outcome = if fails { Err(Refusal::NotWoken("no room".into(), None)) } else { Ok(()) };
    let wake = model.wakes[usize::from(n)];
    let by = wake.filter(|_| !late).map_or(Ticket(u64::MAX), |(by, _, _)| by);
    registry.woken(&key(n), by, outcome, model.now);
    match (wake, fails, model.state(n)) {
        (Some((by, until, _)), false, Now::Absent) if !late => {
            model.wakes[usize::from(n)] = Some((by, until, false));
        }
        (Some(_), ..) if !late => {
            model.wakes[usize::from(n)] = None;
            if model.state(n) == Now::Absent {
                model.answer_all(n, &Err(Refusal::NotWoken("no room".into(), None)));
            }
        }
        _ => {}
    }
}

fn give_back(registry: &mut Registry<u64>, model: &mut Model, nth: usize) {
    if nth < model.waiters.len() {
        let Waits { of: n, ticket, .. } = model.waiters.remove(nth);
        registry.give_back(&key(n), ticket);
        registry.give_back(&key(n), ticket);
    }
}

fn close(registry: &mut Registry<u64>, model: &mut Model, n: u8) {
    let there = registry.close(&key(n), CloseCode::CREDENTIALS, &Refusal::NoConnection, model.now);
    assert_eq!(there, model.state(n) != Now::Absent);
    model.set(n, Now::Absent);
    model.answer_all(n, &Err(Refusal::NoConnection));
}

fn hear(registry: &mut Registry<u64>, model: &mut Model, n: u8) {
    if let Now::Up(epoch, _) = model.state(n) {
        registry.heard(&key(n), Epoch::new(epoch));
        registry.heard(&key(n), Epoch::new(epoch.wrapping_add(1)));
        model.set(n, Now::Up(epoch, None));
    }
}
