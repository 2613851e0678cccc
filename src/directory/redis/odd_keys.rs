//! Keys that are not written as hosts are looked up: in lower case, without a trailing dot and without a port. Redis is queried
//! for exact keys, so they have to be known before.
//!
//! A key of another spelling, such as `frontend:Shop.Example`, serves `shop.example` if that has no key of its own and no
//! further spelling ([`Spellings`]). A key that no request can match, such as one with a port, is named in the log.

use super::connect::is_passing;
use super::route_state::ChangedKey;
use super::target::Target;
use super::tool_connection::ToolConnection;
use super::{Event, Stop, connect, spawn};
use crate::base::printable::printable;
use crate::directory::{KeyPattern, key_pattern};
use crossbeam_channel::Sender;
use redis::RedisResult;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The greatest number of keys that are logged; the scan counts further ones, and later writes of others are ignored.
const MAX_NAMED: usize = 100;
/// The greatest number of patterns whose spellings are known.
const MAX_SPELLINGS: usize = 10_000;
/// The greatest number of spellings of one pattern: further ones do not count.
const MAX_OF_PATTERN: usize = 4;

/// The pause before another scan of a server that went away.
const AGAIN: Duration = Duration::from_secs(1);

/// The patterns of keys of other spellings, by the pattern as it is looked up. Copies share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Spellings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_any: AtomicBool,
    written: Mutex<HashMap<Box<str>, Vec<Box<str>>>>,
}

impl Spellings {
    /// Adds a spelling of a pattern. Returns an earlier one, with which it is ambiguous.
    fn add(&self, pattern: &str, written: &str) -> Option<Box<str>> {
        let mut all = self.lock();
        if all.len() >= MAX_SPELLINGS && !all.contains_key(pattern) {
            return None;
        }
        let known = all.entry(pattern.into()).or_default();
        let other = known.iter().find(|known| ***known != *written).cloned();
        if known.len() < MAX_OF_PATTERN && !known.iter().any(|known| **known == *written) {
            known.push(written.into());
        }
        self.0.is_any.store(true, Ordering::Release);
        other
    }

    /// The other spellings of a pattern, of which keys may have been removed: one serves if it alone has a key.
    pub(super) fn of(&self, pattern: &str) -> Vec<Box<str>> {
        if !self.0.is_any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.lock().get(pattern).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Box<str>>>> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys found so far.
#[derive(Clone, Debug)]
pub(super) struct OddKeys {
    pub(super) frontends: Spellings,
    pub(super) certificates: Spellings,
    named: Arc<Mutex<HashSet<Box<str>>>>,
    is_scanned: bool,
    target: Target,
    events: Sender<Event>,
    stop: Stop,
}

impl OddKeys {
    pub(super) fn new(target: &Target, certificates: &Spellings, (events, stop): (&Sender<Event>, &Stop)) -> Self {
        Self {
            frontends: Spellings::default(),
            certificates: certificates.clone(),
            named: Arc::default(),
            is_scanned: false,
            target: target.clone(),
            events: events.clone(),
            stop: stop.clone(),
        }
    }

    /// Notes a key that was written to, and returns its change as one of the pattern that is looked up.
    pub(super) fn written(&self, changed: ChangedKey) -> ChangedKey {
        match changed {
            ChangedKey::Route(written) => ChangedKey::Route(self.note_frontend(&written).unwrap_or(written)),
            ChangedKey::Certificate(written) => {
                let pattern = self.note("tls:", &written, &self.certificates);
                ChangedKey::Certificate(pattern.unwrap_or(written))
            }
            // The list of this pattern tells whether it is odd.
            ChangedKey::Options(written) => match key_pattern(&written) {
                KeyPattern::Spelling(pattern) => ChangedKey::Options(pattern.into()),
                KeyPattern::AsLookedUp | KeyPattern::Never(_) => ChangedKey::Options(written),
            },
            other => other,
        }
    }

    fn note_frontend(&self, written: &str) -> Option<Box<str>> {
        self.note(&self.target.frontend_key(""), written, &self.frontends)
    }

    /// Notes the key of this start and pattern. Returns the pattern that is looked up, if it is another one.
    fn note(&self, start: &str, written: &str, spellings: &Spellings) -> Option<Box<str>> {
        let key = || format!("{start}{}", printable(written));
        let (pattern, text) = match key_pattern(written) {
            KeyPattern::AsLookedUp => return None,
            KeyPattern::Never(problem) => {
                (None, format!("the key {} never matches a request: {}", key(), printable(&problem)))
            }
            KeyPattern::Spelling(pattern) => {
                let other = spellings.add(&pattern, written);
                let text = match other {
                    Some(other) => format!(
                        "the keys {} and {start}{} are spellings of {start}{pattern}: neither is used; remove one",
                        key(),
                        printable(&other)
                    ),
                    None => format!(
                        "the key {} serves {pattern} as long as there is no {start}{pattern}; rename it to that",
                        key()
                    ),
                };
                (Some(pattern.into()), text)
            }
        };
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < MAX_NAMED && named.insert(text.as_str().into()) {
            log::warn!("redis: {text}");
        }
        pattern
    }

    /// Scans all existing keys once, with its own connection and thread. Its events say which patterns have other spellings,
    /// and the last one that it has ended. A single server that goes away meanwhile is scanned again, since its keys are not
    /// known otherwise; the servers of a cluster are scanned again when they are back. Returns whether the scan was started, now or before.
    pub(super) fn scan(&mut self) -> bool {
        if std::mem::replace(&mut self.is_scanned, true) {
            return true;
        }
        let keys = self.clone();
        let scan = move || {
            while let Err(error) = keys.scan_all() {
                log::debug!("redis: looking for keys of other spellings: {error}");
                let is_final = !error.is_io_error() && !error.code().is_some_and(is_passing);
                if is_final || keys.target.is_cluster() || keys.stop.wait(AGAIN) {
                    break;
                }
            }
            // It fails only after the directory has ended.
            let _ = keys.events.send(Event::Scanned);
        };
        spawn("odd keys", scan).is_ok()
    }

    /// Scans once more: keys may have been written without a report.
    pub(super) fn scan_again(&mut self) -> bool {
        self.is_scanned = false;
        self.scan()
    }

    fn scan_all(&self) -> RedisResult<()> {
        let mut connection = connect(&self.target)?;
        let frontends = |written: &str| self.note_frontend(written).map(ChangedKey::Route);
        let certificates = |written: &str| self.note("tls:", written, &self.certificates).map(ChangedKey::Certificate);
        let odd = self.scan_start(&mut connection, &self.target.frontend_key(""), frontends)?
            + self.scan_start(&mut connection, "tls:", certificates)?;
        if odd > MAX_NAMED {
            log::warn!(
                "redis: {} more keys are not written as hosts are looked up; `sluice routes` lists those of frontends",
                odd - MAX_NAMED
            );
        }
        Ok(())
    }

    /// Scans the keys of this start. Returns the number of odd ones.
    fn scan_start(
        &self,
        connection: &mut ToolConnection,
        start: &str,
        note: impl Fn(&str) -> Option<ChangedKey>,
    ) -> RedisResult<usize> {
        let mut odd = 0;
        connection.scan(start, |keys| {
            let mut changed = Vec::new();
            for key in keys {
                let key = String::from_utf8_lossy(&key);
                let Some(written) = key.strip_prefix(start) else { continue };
                odd += usize::from(key_pattern(written) != KeyPattern::AsLookedUp);
                changed.extend(note(written));
            }
            if !changed.is_empty() {
                // It fails only after the directory has ended.
                let _ = self.events.send(Event::ChangedKey(changed));
            }
        })?;
        Ok(odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_known_by_their_pattern() {
        let spellings = Spellings::default();
        assert!(spellings.of("a.test").is_empty());
        assert_eq!(spellings.add("a.test", "A.test"), None);
        assert_eq!(spellings.add("a.test", "A.test"), None);
        assert_eq!(spellings.clone().of("a.test"), [Box::from("A.test")]);
        assert_eq!(spellings.add("a.test", "a.Test"), Some("A.test".into()));
        assert_eq!(spellings.of("a.test"), [Box::from("A.test"), Box::from("a.Test")]);
        (0..9).for_each(|number| drop(spellings.add("a.test", &format!("A.TEST{number}"))));
        assert_eq!(spellings.of("a.test").len(), MAX_OF_PATTERN);
        for number in 0..2 * MAX_SPELLINGS {
            spellings.add(&format!("{number}.test"), "x");
        }
        assert_eq!(spellings.lock().len(), MAX_SPELLINGS);
    }
}
