//! What the kernel tells of a process: its CPU time, its memory, how many files it may have open; and of full queues.

use std::{fs, time::Duration};

use rlimit::Resource;

use crate::Result;

/// User and system time of all threads that live.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let line = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += line.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Whether a process can have so many files open.
pub(crate) fn check_file_limit(files: u64) -> Result<()> {
    let (_, hard) = Resource::NOFILE.get()?;
    if hard < files {
        return Err(
            format!("that wants {files} open files in one process, and the limit is {hard}: see ulimit -Hn").into()
        );
    }
    Ok(())
}

/// As many open files as this process may have.
pub(crate) fn raise_file_limit() -> Result<()> {
    let (_, hard) = Resource::NOFILE.get()?;
    Ok(Resource::NOFILE.set(hard, hard)?)
}

/// How many connections of this machine found the queue of their listener full, so that their SYN came again later.
pub(crate) fn listen_overflows() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().ok_or("no TcpExt")?, lines.next().ok_or("no TcpExt")?);
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = columns.find(|(name, _)| *name == "ListenOverflows").ok_or("no ListenOverflows")?;
    Ok(value.parse()?)
}
