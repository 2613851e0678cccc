//! Limits of open files and memory.

use super::cgroup;
use crate::worker::DEFAULT_MAX_CONNECTIONS;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files besides connections: listening sockets, polls, logs, the source of routes.
const OTHER_FILES: usize = 128;

/// Raises the limit of open files to the hard limit: every connection is a file, and the usual soft limit of 1,024
/// exists only for programs that use `select`. Returns the limit in force.
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

/// The greatest number of listening sockets of on-demand ports. Each takes two files, one of the supervisor and one of
/// its worker, so the sockets take an eighth of the files.
pub(super) fn on_demand_sockets(open_files: usize) -> usize {
    open_files / 16
}

/// The greatest number of client connections for each of `workers`, given the number of open files, of which on-demand
/// sockets may take `on_demand`: the configured number, otherwise as many as there are files for, each with a
/// connection to a backend.
pub(super) fn connections(asked_for: Option<usize>, workers: usize, open_files: usize, on_demand: usize) -> usize {
    let possible = (open_files.saturating_sub(OTHER_FILES + on_demand) / workers.max(1) / 2).max(1);
    match asked_for {
        // Idle clients have no connection to a backend, so the configured number may exceed the worst case.
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

/// Memory for each worker unless `server.memoryLimit` is set: enough for 100,000 connections, including TLS ones.
const BYTES_PER_WORKER: u64 = 512 << 20;

/// The share of the control group's limit that may be used, in percent: above the limit the system kills the process.
const SHARE_OF_GROUP: u64 = 80;

/// The default size of the object cache in bytes. Memory is allocated only as objects are stored.
const DEFAULT_CACHE: u64 = 64 << 20;

/// The size of the object cache in bytes: the configured one, otherwise at most a quarter of the memory that the process
/// may hold, by `memory` (`server.memoryLimit`) and its control group. `None` for no cache.
pub(super) fn cache(asked_for: Option<u64>, memory: Option<u64>) -> Option<u64> {
    asked_for.or_else(|| Some(default_cache(memory, cgroup::memory_limit()))).filter(|bytes| *bytes > 0)
}

fn default_cache(memory: Option<u64>, granted: Option<u64>) -> u64 {
    let limits = memory.filter(|bytes| *bytes > 0).into_iter().chain(granted.map(share_of_group));
    limits.map(|limit| limit / 4).fold(DEFAULT_CACHE, u64::min)
}

/// The part of a control group's limit that may be used.
fn share_of_group(granted: u64) -> u64 {
    granted / 100 * SHARE_OF_GROUP
}

/// The memory limit of the process in bytes, for this number of workers and an object cache of `cache` bytes; `None`
/// for no limit.
pub(super) fn memory(asked_for: Option<u64>, workers: usize, cache: u64) -> Option<u64> {
    match asked_for {
        Some(bytes) => Some(bytes).filter(|bytes| *bytes > 0),
        None => Some(default_memory(workers, cache, cgroup::memory_limit())),
    }
}

/// The part of a limit that remains without the object cache, whose memory no worker can free.
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
    granted.map_or(wanted, |granted| wanted.min(share_of_group(granted)))
}

/// The resident memory of the process in bytes. `None` if it cannot be read.
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
        let mib = |mib: u64| mib << 20;
        for (memory, granted, expected) in [
            (None, None, mib(64)),
            (Some(0), None, mib(64)),
            (Some(mib(1000)), Some(mib(1000)), mib(64)),
            (Some(mib(100)), None, mib(25)),
            (None, Some(mib(100)), mib(20)),
            // A stated limit does not lift that of the group.
            (Some(0), Some(mib(100)), mib(20)),
            (Some(mib(200)), Some(mib(100)), mib(20)),
            (Some(mib(40)), Some(mib(100)), mib(10)),
        ] {
            assert_eq!(default_cache(memory, granted), expected, "{memory:?} {granted:?}");
        }
        assert_eq!([Some(0), Some(7 << 40)].map(|asked_for| cache(asked_for, Some(1))), [None, Some(7 << 40)]);
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
