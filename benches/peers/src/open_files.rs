//! How many files a process may have open: each tunnel and each TCP connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Result;

/// What a process has open besides what is measured.
const OTHERS: u64 = 64;

/// Raises the soft limit, which children inherit, to so many and a few.
pub(crate) fn allow(needed: usize) -> Result<()> {
    let needed = needed as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        let text = format!("{needed} open files a process are needed, and the hard limit (ulimit -Hn) is lower");
        return Err(text.into());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })?)
}
