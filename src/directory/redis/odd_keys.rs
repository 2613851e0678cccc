//! Keys that no request can match, such as `frontend:Shop.Example`: hosts are looked up in lower case, without a
//! trailing dot and without a port. Redis is queried for exact keys, so such a key is never found; the log names it.

use super::connect;
use super::target::Target;
use crate::base::printable::printable;
use crate::directory::pattern_problem;
use redis::{Connection, RedisResult, cmd};
use std::collections::HashSet;

/// The greatest number of keys that are logged; the scan counts further ones, and later writes of others are ignored.
const MAX_NAMED: usize = 100;
/// Number of keys that Redis examines in one round trip of the scan.
const SCAN_COUNT: usize = 1000;

/// The keys logged so far.
#[derive(Debug, Default)]
pub(super) struct OddKeys {
    named: HashSet<Box<str>>,
    is_scanned: bool,
}

impl OddKeys {
    /// Checks a key that was written to: `start` is `frontend:` or `tls:`, with the prefix.
    pub(super) fn written(&mut self, start: &str, pattern: &str) {
        let Some(problem) = pattern_problem(pattern) else { return };
        if self.named.len() < MAX_NAMED && self.named.insert(format!("{start}{pattern}").into()) {
            warn(start, pattern, &problem);
        }
    }

    /// Scans all existing keys once, with its own connection and thread.
    pub(super) fn scan(&mut self, target: &Target) {
        if std::mem::replace(&mut self.is_scanned, true) {
            return;
        }
        let target = target.clone();
        let scan = move || {
            if let Err(error) = scan(&target) {
                log::debug!("redis: looking for keys that never match: {error}");
            }
        };
        // Without the thread fewer keys are logged.
        drop(super::spawn("odd keys", scan));
    }
}

fn warn(start: &str, pattern: &str, problem: &str) {
    let problem = printable(problem);
    log::warn!("redis: the key {start}{} never matches a request: {problem}", printable(pattern));
}

fn scan(target: &Target) -> RedisResult<()> {
    let mut connection = connect(target)?;
    let mut odd = 0;
    for start in [target.frontend_key(""), "tls:".to_owned()] {
        scan_start(&mut connection, &start, &mut odd)?;
    }
    if odd > MAX_NAMED {
        log::warn!(
            "redis: {} more keys never match a request; `sluice routes` lists those of frontends",
            odd - MAX_NAMED
        );
    }
    Ok(())
}

fn scan_start(connection: &mut Connection, start: &str, odd: &mut usize) -> RedisResult<()> {
    let pattern = format!("{}*", super::watcher::escape(start));
    let mut cursor = 0_u64;
    loop {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let (next, keys): (u64, Vec<Vec<u8>>) = command.query(connection)?;
        for key in keys {
            let key = String::from_utf8_lossy(&key);
            let Some(pattern) = key.strip_prefix(start) else { continue };
            if let Some(problem) = pattern_problem(pattern) {
                *odd += 1;
                if *odd <= MAX_NAMED {
                    warn(start, pattern, &problem);
                }
            }
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}
