//! What connections are pooled by: a target of an agent, and the session in which it is reached.

use http::{Uri, uri::Authority};

use crate::{
    connector::Target,
    error::{Error, ErrorKind},
    key::{AgentKey, Epoch, TargetName},
};

/// What separates the parts; in none of them.
const SEPARATOR: char = '~';

/// The authority `EPOCH~TARGET~KEY`. The epoch is not dialled, it only keeps apart what belongs to two sessions: a
/// replaced one gets no new requests. For a key that is not connected it is 0, which no link has.
pub(super) fn authority(epoch: Option<Epoch>, key: &AgentKey, target: &TargetName) -> Result<Authority, Error> {
    let epoch = epoch.map_or(0, Epoch::number);
    format!("{epoch}{SEPARATOR}{}{SEPARATOR}{}", target.as_str(), key.as_str())
        .parse()
        .map_err(|error| Error::with_source(ErrorKind::Internal, error))
}

/// Whom such an authority names.
pub(super) fn target_of(uri: &Uri) -> Result<Target, Error> {
    let invalid = |why: &'static str| Error::with_source(ErrorKind::Internal, why);
    let host = uri.host().ok_or_else(|| invalid("a pool without an authority"))?;
    let mut parts = host.splitn(3, SEPARATOR).skip(1);
    match (parts.next().map(str::parse), parts.next().map(str::parse)) {
        (Some(Ok(target)), Some(Ok(key))) => Ok(Target::new(key, target)),
        _ => Err(invalid("a pool with an authority of another kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_an_authority_names_is_found_again() {
        for (key, target) in [("desktop-7", ""), ("desktop-7", "vnc"), ("a.b_c", "9876")] {
            let (key, target): (AgentKey, TargetName) = (key.parse().unwrap(), target.parse().unwrap());
            let of = |epoch| authority(epoch, &key, &target).unwrap();
            let uri = Uri::builder().scheme("http").authority(of(Some(Epoch::new(7)))).path_and_query("/");
            assert_eq!(target_of(&uri.build().unwrap()).unwrap(), Target::new(key.clone(), target.clone()));
            assert_ne!(of(Some(Epoch::new(7))), of(Some(Epoch::new(8))));
            assert_ne!(of(Some(Epoch::new(7))), of(None));
        }
    }
}
