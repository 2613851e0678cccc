//! Limits of the system.

use super::cgroup;
use crate::worker::DEFAULT_MAX_CONNECTIONS;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are not connections: listening sockets, polls, logs, the source of routes.
const OTHER_FILES: usize = 128;

/// Raises the limit of open files to the hard one: every connection is a file, and the usual soft limit of 1,024 is
/// kept for the sake of programs that use `select`. Returns the limit that holds now.
pub(super) fn raise_open_files() -> usize {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard) } else { Ok(hard) }
    });
    match raised {
        Ok(files) => usize::try_from(files).unwrap_or(usize::MAX),
        Err(error) => {
            log::warn!("raising the limit of open files: {error}");
            getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
        }
    }
}

/// The greatest number of listening sockets of ports on demand. Each is two files, one of the supervisor and one of its
/// worker, so they take an eighth of the files.
pub(super) fn on_demand_sockets(open_files: usize) -> usize {
    open_files / 16
}

/// The connections of clients that each of `workers` takes, with so many open files, of which sockets of ports on demand may take
/// `on_demand`: what was `asked_for`, else as many as there are files for, when each has a connection to a backend too.
pub(super) fn connections(asked_for: Option<usize>, workers: usize, open_files: usize, on_demand: usize) -> usize {
    let possible = (open_files.saturating_sub(OTHER_FILES + on_demand) / workers.max(1) / 2).max(1);
    match asked_for {
        // Idle clients have no connection to a backend: more than are possible at worst may be meant.
        Some(asked_for) => {
            if asked_for > possible {
                log::warn!(
                    "server.maxConnections: {asked_for} for each of {workers} workers, and the limit of open files, \
                     {open_files}, is enough for {possible} that all are in use; raise it (LimitNOFILE= of systemd, \
                     ulimit -Hn), or new connections will have to wait"
                );
            }
            asked_for
        }
        None => {
            if possible < DEFAULT_MAX_CONNECTIONS {
                log::info!("{open_files} open files: up to {possible} connections for each of {workers} workers");
            }
            possible.min(DEFAULT_MAX_CONNECTIONS)
        }
    }
}

/// Memory of a worker unless `server.memoryLimit` is set: enough for 100,000 connections, encrypted ones too.
const BYTES_PER_WORKER: u64 = 512 << 20;

/// How much of what the control group grants may be held, in percent: past it the system ends the process.
const SHARE_OF_GROUP: u64 = 80;

/// How many bytes the process may hold with so many workers, and with an object cache whose memory is `cache`; `None` for as
/// many as it likes.
pub(super) fn memory(asked_for: Option<u64>, workers: usize, cache: u64) -> Option<u64> {
    match asked_for {
        Some(bytes) => Some(bytes).filter(|bytes| *bytes > 0),
        None => Some(default_memory(workers, cache, cgroup::memory_limit())),
    }
}

/// What is left of a limit for all but the object cache, whose memory no worker can give back.
pub(super) fn beside_cache(limit: u64, cache: u64) -> u64 {
    let rest = limit.saturating_sub(cache);
    if rest < limit / 2 {
        let [limit, cache] = [limit, cache].map(|bytes| bytes >> 20);
        log::warn!(
            "server.cacheBytes: the object cache may take {cache} MiB of the {limit} MiB that the process may hold \
             (server.memoryLimit, or 80 % of what its control group grants): make it smaller, or workers are replaced early"
        );
    }
    rest.max(limit / 4)
}

fn default_memory(workers: usize, cache: u64, granted: Option<u64>) -> u64 {
    let wanted = BYTES_PER_WORKER.saturating_mul(workers as u64).saturating_add(cache);
    granted.map_or(wanted, |granted| wanted.min(granted / 100 * SHARE_OF_GROUP))
}

/// The memory that the process holds (its resident set), in bytes. `None` where the system does not tell.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_workers_need_and_the_group_grants() {
        assert_eq!(memory(Some(0), 2, 0), None);
        assert_eq!(memory(Some(7 << 20), 2, 5), Some(7 << 20));
        assert_eq!(default_memory(2, 0, None), 1 << 30);
        assert_eq!(default_memory(2, 80 << 20, None), (1 << 30) + (80 << 20));
        assert_eq!(default_memory(2, 0, Some(1 << 40)), 1 << 30);
        assert_eq!(default_memory(2, 100, Some(1000)), 800);
        assert_eq!([0, 100, 700, 2000].map(|cache| beside_cache(1000, cache)), [1000, 900, 300, 250]);
        let resident = resident_bytes().expect("a system that tells");
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
    }

    #[test]
    fn connections_are_what_files_allow() {
        let table = [
            (None, 1, 1024, 448),
            (None, 2, 1024, 224),
            (None, 2, 1 << 20, 100_000),
            (None, 64, 1 << 20, 8191),
            (None, 64, 100, 1),
            (Some(5000), 2, 1024, 5000),
            (Some(10), 2, 1024, 10),
        ];
        for (asked_for, workers, files, expected) in table {
            assert_eq!(connections(asked_for, workers, files, 0), expected, "{asked_for:?} {workers} {files}");
        }
        assert_eq!(connections(None, 1, 1024, 2 * on_demand_sockets(1024)), 384);
    }
}
