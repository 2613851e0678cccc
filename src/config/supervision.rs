//! `server`: supervision of the workers' memory and progress.

use super::raw::Section;
use super::server::read_path;
use crate::disk;
use serde_json::Value;
use std::time::Duration;

/// Settings of the supervision of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// The memory limit of the process in bytes (`server.memoryLimit`); 0 for no limit, `None` for a limit derived from
    /// its workers and its control group.
    pub memory_limit: Option<u64>,
    /// The limit of the object cache of all workers in bytes (`server.cacheBytes`); 0 disables it, `None` for a limit
    /// derived from the memory limit and the control group.
    pub cache_bytes: Option<u64>,
    /// The disk tier of the object cache (`server.cacheDisk`); `None` for none.
    pub cache_disk: Option<disk::Settings>,
    /// The interval of memory checks (`server.memoryCheckInterval`).
    pub memory_check_interval: Duration,
    /// Whether the process may be replaced if replacing its workers does not suffice (`server.memoryUpgrade`).
    pub memory_upgrade: bool,
    /// The longest time of a worker's turn (`server.watchdog`).
    pub watchdog: Duration,
    /// Time for which connections are still accepted after the order to stop, while the process reports that it is not
    /// ready (`server.lameDuck`).
    pub lame_duck: Duration,
    /// The limit of a new process to begin serving at an upgrade (`server.upgradeTimeout`).
    pub upgrade_timeout: Duration,
}

/// The lowest memory limit: a typing error below it would lead to endless replacements.
const LEAST: u64 = 1 << 20;

pub(super) fn read(server: &Section<'_>) -> Supervision {
    let expected = "0 for no limit, a number of bytes from 1048576, or a text such as \"300MB\" or \"2GB\"";
    let limit = server.field("memoryLimit").read(expected, read_bytes);
    if limit.is_some_and(|bytes| bytes > 0 && bytes < LEAST) {
        server.field("memoryLimit").refuse(expected);
    }
    let expected = "0 for no cache, or a number of bytes from 1048576, or a text such as \"300MB\" or \"2GB\"";
    let cache = server.field("cacheBytes").read(expected, read_bytes);
    if cache.is_some_and(|bytes| bytes > 0 && bytes < LEAST) {
        server.field("cacheBytes").refuse(expected);
    }
    let limit_or_any = limit.filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
    if cache.is_some_and(|bytes| bytes >= limit_or_any) {
        server.field("cacheBytes").refuse("less than server.memoryLimit, which holds for the cache too");
    }
    Supervision {
        cache_bytes: cache,
        cache_disk: read_disk(server, cache == Some(0)),
        memory_limit: limit,
        memory_check_interval: server.field("memoryCheckInterval").seconds().unwrap_or(Duration::from_secs(1)),
        memory_upgrade: server.field("memoryUpgrade").flag().unwrap_or(false),
        watchdog: server.field("watchdog").seconds().unwrap_or(Duration::from_secs(10)),
        lame_duck: server.field("lameDuck").seconds_or_zero().unwrap_or(Duration::ZERO),
        upgrade_timeout: server.field("upgradeTimeout").seconds().unwrap_or(Duration::from_secs(60)),
    }
}

/// Both settings of the disk tier, or none. Without a cache in memory there is nothing to keep.
fn read_disk(server: &Section<'_>, has_no_cache: bool) -> Option<disk::Settings> {
    let section = server.field("cacheDisk").section();
    let (path, bytes) = (section.field("path"), section.field("bytes"));
    let expected = "a number of bytes from 1048576, or a text such as \"20GB\"";
    let size = bytes.read(expected, read_bytes);
    if size.is_some_and(|bytes| bytes < LEAST) {
        bytes.refuse(expected);
    }
    match (read_path(&path), size) {
        (Some(_), _) if has_no_cache => {
            path.refuse("none where server.cacheBytes is 0: objects are kept on the disk behind the cache in memory");
            None
        }
        (Some(path), Some(bytes)) => Some(disk::Settings { path, bytes }),
        (Some(_), None) => {
            bytes.lacks("no bytes", "a size for the folder of objects");
            None
        }
        (None, Some(_)) => {
            path.lacks("no path", "a folder for the objects");
            None
        }
        (None, None) => None,
    }
}

fn read_bytes(value: &Value) -> Option<u64> {
    match (value.as_u64(), value.as_str()) {
        (Some(bytes), _) => Some(bytes),
        (None, Some(text)) => as_bytes(text),
        (None, None) => None,
    }
}

/// A number with a unit: `B`, or `KB`, `MB` and `GB`, each 1024 of the previous one, as usual for memory.
fn as_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim_start().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            ("200MB", Some(200 << 20)),
            ("200 mb", Some(200 << 20)),
            ("2GiB", Some(2 << 30)),
            ("4096", Some(4096)),
            ("512k", Some(512 << 10)),
            ("1.5GB", None),
            ("-1MB", None),
            ("MB", None),
            ("", None),
            ("9999999999999GB", None),
            ("7 apples", None),
        ];
        for (text, expected) in table {
            assert_eq!(as_bytes(text), expected, "{text}");
        }
    }
}
