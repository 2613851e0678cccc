//! Certificates from Redis: `tls:<host>`, a hash of `certificate` and `key` in PEM, with an optional `ocsp` and
//! `passphrase`. The key has no prefix, since other programs that read it know none.
//!
//! A separate certificate thread asks Redis when a core asks for an unknown name, and computes with the result. The
//! watching connection reports writes; the cores are then told to ask again. While Redis is away, earlier results are
//! used.

use super::super::certificate_index::CertificateIndex;
use super::super::certificates::{CertificateChannels, CertificateCommand, CertificateLookup, CertificateResult};
use super::super::{Error, RouteEvent, Subscribers, snapshot};
use super::channel::Channel;
use super::key_pairs::{Bad, KeyPairPem, KeyPairStore, Learned, read_pair};
use super::odd_keys::Spellings;
use super::reading::is_away;
use super::target::Target;
use super::{Settings, resp};
use crate::base::clock::{Clock, Moment};
use crate::base::printable::printable;
use crate::net::tls::{DAY, warn_of_expiry};
use crate::route;
use crossbeam_channel::select;
use lru::LruCache;
use redis::{RedisResult, Value, cmd};
use std::collections::HashSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Number of names, and of pairs, whose last result is kept.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32_768).expect("more than none");

/// Number of names in one round trip.
const BATCH: usize = 64;

/// A longer text is not a certificate.
const MAX_BYTES: usize = 1 << 20;

/// Memory limit of the replies to one query, in bytes.
const MAX_REPLY: usize = 16 << 20;

/// After a failure, look-ups do not wait for another attempt for this time.
const RETRY: Duration = Duration::from_millis(250);

/// The longest sleep of the thread.
const IDLE: Duration = Duration::from_secs(3600);

/// Above this number of changed patterns all count as changed.
const MAX_CHANGED: usize = 4096;

/// Patterns written to since the thread last looked. Adding one never waits.
#[derive(Debug, Default)]
pub(in crate::directory) struct ChangedCertificates {
    changed: Mutex<ChangedPatterns>,
    spellings: Spellings,
}

#[derive(Debug, Default)]
struct ChangedPatterns {
    patterns: HashSet<Box<str>>,
    all: bool,
}

impl ChangedCertificates {
    /// The keys of other spellings.
    pub(super) fn spellings(&self) -> &Spellings {
        &self.spellings
    }

    pub(super) fn add(&self, pattern: &str) {
        let mut changed = self.lock();
        if changed.patterns.len() >= MAX_CHANGED {
            changed.all = true;
        } else {
            changed.patterns.insert(pattern.into());
        }
    }

    /// Marks all patterns as changed.
    pub(super) fn add_all(&self) {
        self.lock().all = true;
    }

    fn take(&self) -> Vec<Arc<str>> {
        let ChangedPatterns { patterns, all } = std::mem::take(&mut *self.lock());
        // The last candidate pattern of every name stands for all names.
        if all { vec!["*".into()] } else { patterns.into_iter().map(Arc::from).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, ChangedPatterns> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificate thread.
pub(super) struct RedisCertificateService {
    pub(super) target: Target,
    pub(super) subscribers: Subscribers,
    pub(super) clock: Clock,
    pub(super) changed_certificates: Arc<ChangedCertificates>,
    line: Option<Channel>,
    retry_at: Moment,
    /// The last query failed because the replies are too long.
    was_too_long: bool,
    /// The pattern under which each name was found; `None` if none.
    names: LruCache<Arc<str>, Option<Box<str>>>,
    pairs: KeyPairStore,
    budget: LookupBudget,
    /// Names answered from memory: once Redis can be queried, the cores that asked are told to ask again.
    unsure: HashSet<Arc<str>>,
}

/// A limit of look-ups that find nothing.
struct LookupBudget {
    rate: u32,
    left: u32,
    since: Moment,
}

impl RedisCertificateService {
    pub(super) fn new(
        settings: &Settings,
        subscribers: Subscribers,
        clock: Clock,
        changed_certificates: Arc<ChangedCertificates>,
        (inherited, index): (Option<File>, &CertificateIndex),
    ) -> Result<Self, Error> {
        let file = settings.snapshot.as_deref().filter(|_| settings.keeps_certificates);
        let file = file.map(|path| snapshot::beside(path, "certificates"));
        let rate = settings.unknown_rate;
        Ok(Self {
            target: settings.read.clone(),
            subscribers,
            clock,
            changed_certificates,
            line: None,
            retry_at: Moment::ZERO,
            was_too_long: false,
            names: LruCache::new(REMEMBERED),
            pairs: KeyPairStore::start(REMEMBERED, file.as_deref(), (inherited, index.clone()), clock)?,
            budget: LookupBudget { rate, left: rate, since: Moment::ZERO },
            unsure: HashSet::new(),
        })
    }

    pub(super) fn run(mut self, channels: &CertificateChannels) {
        let daily = crossbeam_channel::tick(DAY);
        loop {
            self.pairs.save(self.clock.now());
            select! {
                recv(channels.certificate_lookups) -> question => {
                    let Ok(question) = question else { return };
                    let batch: Vec<_> = std::iter::once(question).chain(channels.certificate_lookups.try_iter().take(BATCH - 1)).collect();
                    self.reply(batch);
                },
                recv(channels.commands) -> command => match command {
                    Ok(CertificateCommand::Reread) => self.tell_changed(),
                    Ok(CertificateCommand::Retire) => self.pairs.retire(),
                    // It fails only if the caller no longer waits.
                    Ok(CertificateCommand::Export(to)) => drop(to.send(self.pairs.export())),
                    Ok(CertificateCommand::Replace(_)) => {}
                    Ok(CertificateCommand::Stop) | Err(_) => return self.pairs.finish(),
                },
                recv(daily) -> _ => warn_of_expiry(self.pairs.in_use(), self.now()),
                default(self.patience()) => self.make_sure(),
            }
        }
    }

    fn now(&self) -> SystemTime {
        self.clock.wall(self.clock.now())
    }

    /// The time to sleep without work.
    fn patience(&self) -> Duration {
        let until_saved = self.pairs.due().map_or(IDLE, |due| due.since(self.clock.now()));
        until_saved.min(if self.unsure.is_empty() { IDLE } else { RETRY })
    }

    /// Tells the cores which results may be outdated. Results read before were sent before.
    fn tell_changed(&mut self) {
        let patterns = self.changed_certificates.take();
        if patterns.iter().any(|pattern| **pattern == *"*") {
            // The watching connection has found Redis available again.
            self.retry_at = Moment::ZERO;
        }
        if !patterns.is_empty() {
            self.subscribers.tell_all(&RouteEvent::CertificatesChanged { patterns: patterns.into() });
        }
    }

    fn may_ask(&mut self) -> bool {
        let now = self.clock.now();
        self.budget.is_left(now) && (self.line.is_some() || self.retry_at <= now)
    }

    /// Checks whether Redis can be queried again, for names that were answered from memory.
    fn make_sure(&mut self) {
        if self.unsure.is_empty() || !self.may_ask() || self.ask(&cmd("PING").get_packed_command(), 1).is_none() {
            return;
        }
        let patterns: Vec<_> = self.unsure.drain().collect();
        self.subscribers.tell_all(&RouteEvent::CertificatesChanged { patterns: patterns.into() });
    }

    fn reply(&mut self, batch: Vec<CertificateLookup>) {
        let replies = if self.may_ask() { self.ask_for(&batch) } else { None };
        if replies.is_none() && self.was_too_long && batch.len() > 1 {
            // One of them causes the failure; the others are read separately.
            return batch.into_iter().for_each(|question| self.reply(vec![question]));
        }
        let mut rest = replies.as_deref().unwrap_or_default();
        for CertificateLookup { core, name } in batch {
            let result = match &replies {
                Some(_) => {
                    let count = route::patterns(&name).count();
                    let (own, others) = rest.split_at(count);
                    rest = others;
                    let decisive = own.iter().find(|reply| !matches!(read_reply(reply), Ok(None)));
                    if decisive.is_some_and(is_away) { self.remember_unsure(&name) } else { self.judge(&name, own) }
                }
                None => self.remember_unsure(&name),
            };
            self.subscribers.tell(core, RouteEvent::Certificate { name, result });
        }
    }

    /// The hashes of all candidate patterns of all names; `None` if Redis does not reply. A pattern without a hash has that of
    /// its other spelling.
    fn ask_for(&mut self, batch: &[CertificateLookup]) -> Option<Vec<Value>> {
        let (mut packed, mut others) = (Vec::new(), Vec::new());
        let mut ask_for = |pattern: &str| {
            let fields = ["certificate", "key", "ocsp", "passphrase"];
            cmd("HMGET").arg(key_of(pattern)).arg(&fields).write_packed_command(&mut packed);
        };
        let mut count = 0;
        for pattern in batch.iter().flat_map(|question| route::patterns(&question.name)) {
            ask_for(&pattern);
            let spellings = self.changed_certificates.spellings.of(&pattern);
            others.extend(spellings.into_iter().map(|written| (count, written)));
            count += 1;
        }
        others.iter().for_each(|(_, written)| ask_for(written));
        let mut replies = self.ask(&packed, count + others.len());
        if let Some(replies) = &mut replies {
            let of_others = replies.split_off(count);
            let is_there = |reply: &Value| !matches!(read_reply(reply), Ok(None));
            let there = || others.iter().map(|(place, _)| *place).zip(&of_others).filter(|(_, reply)| is_there(reply));
            for (place, reply) in there() {
                let is_only = there().filter(|(other, _)| *other == place).count() == 1;
                if is_only && !is_there(&replies[place]) {
                    replies[place] = reply.clone();
                }
            }
        }
        if self.was_too_long
            && let [CertificateLookup { name, .. }] = batch
        {
            let (keys, size) = (key_of(name), MAX_REPLY >> 20);
            log::error!("redis: the replies about {keys}, or a wildcard above it, are longer than {size} MiB");
        }
        replies
    }

    fn ask(&mut self, packed: &[u8], count: usize) -> Option<Vec<Value>> {
        // A connection that was idle for long may be closed: a new one is opened then, once.
        for _ in 0..=usize::from(self.line.is_some()) {
            let result = self.try_ask(packed, count);
            self.was_too_long = result.as_ref().is_err_and(resp::is_too_long);
            match result {
                Ok(replies) => return Some(replies),
                Err(error) => {
                    log::debug!("redis: asking for certificates: {error}");
                    self.line = None;
                }
            }
            if self.was_too_long {
                return None;
            }
        }
        self.retry_at = self.clock.now() + RETRY;
        None
    }

    fn try_ask(&mut self, packed: &[u8], count: usize) -> RedisResult<Vec<Value>> {
        let line = match &mut self.line {
            Some(line) => line,
            None => self.line.insert(Channel::open_tolerant(&self.target)?),
        };
        let replies = line.ask_all(packed, count, MAX_REPLY)?;
        // In a cluster, a part of the names may be away.
        let is_single = line.single().is_some();
        match replies.iter().find(|reply| is_single && is_away(reply)) {
            Some(reply) => Err(reply.clone().extract_error().expect_err("an error was found")),
            None => Ok(replies),
        }
    }

    /// The result from the first candidate pattern that has a hash.
    fn judge(&mut self, name: &Arc<str>, replies: &[Value]) -> CertificateResult {
        let now = self.clock.now();
        for (pattern, reply) in route::patterns(name).zip(replies) {
            let texts = match read_reply(reply) {
                Ok(None) => {
                    self.pairs.forget(&pattern, now);
                    continue;
                }
                Ok(Some(texts)) => Ok(texts),
                Err(problem) => Err(problem),
            };
            self.names.put(Arc::clone(name), Some(pattern.clone().into()));
            match self.pairs.learn(&pattern, texts, now) {
                Ok(Learned::Same) => {}
                Ok(Learned::New(credentials)) => warn_of_expiry([(&*pattern, &credentials)], self.clock.wall(now)),
                Err(Bad { problem, stays }) => {
                    let stays = if stays { "; the one before stays in use" } else { "" };
                    log::error!("{}: {problem}{stays}", key_of(&pattern));
                }
            }
            return self.restore(&pattern);
        }
        self.budget.spend();
        self.names.put(Arc::clone(name), None);
        CertificateResult::Unknown
    }

    fn restore(&mut self, pattern: &str) -> CertificateResult {
        self.pairs.restore(pattern).map_or(CertificateResult::Unknown, CertificateResult::Found)
    }

    /// The result from memory, until Redis can be queried again.
    fn remember_unsure(&mut self, name: &Arc<str>) -> CertificateResult {
        let result = self.remember(name);
        // A failure is not cached.
        if !matches!(result, CertificateResult::Failed) {
            self.unsure.insert(Arc::clone(name));
        }
        result
    }

    /// The result when Redis was last queried, possibly before the last start. A name that was never looked up gets the
    /// first known pair of its candidate patterns.
    fn remember(&mut self, name: &str) -> CertificateResult {
        match self.names.get(name).cloned() {
            Some(Some(pattern)) if self.pairs.contains(&pattern) => self.restore(&pattern),
            Some(None) => CertificateResult::Unknown,
            _ => match route::patterns(name).find(|pattern| self.pairs.contains(pattern)) {
                Some(pattern) => self.restore(&pattern),
                None => CertificateResult::Failed,
            },
        }
    }
}

impl LookupBudget {
    fn is_left(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.left) = (now, self.rate);
        }
        self.left > 0
    }

    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// The key of a pattern's pair.
fn key_of(pattern: &str) -> String {
    format!("tls:{pattern}")
}

/// The texts of a hash; `None` if there is none.
fn read_reply(reply: &Value) -> Result<Option<KeyPairPem<'_>>, String> {
    let fields = match reply {
        Value::Array(fields) => fields,
        Value::ServerError(error) => return Err(format!("{}; expected a hash", printable(&error.to_string()))),
        _ => return Err("expected a hash".to_owned()),
    };
    let text = |place: usize| match fields.get(place) {
        Some(Value::BulkString(text)) if !text.is_empty() => Some(text.as_slice()),
        _ => None,
    };
    if fields.iter().all(|field| *field == Value::Nil) {
        return Ok(None);
    }
    if (0..fields.len()).filter_map(text).any(|text| text.len() > MAX_BYTES) {
        return Err("one of its fields is longer than 1 MiB".to_owned());
    }
    match (text(0), text(1)) {
        (Some(certificate), Some(key)) => {
            Ok(Some(KeyPairPem { certificate, key, staple: text(2), passphrase: text(3) }))
        }
        (None, _) => Err("it has no field \"certificate\"".to_owned()),
        (_, None) => Err("it has no field \"key\"".to_owned()),
    }
}

/// Whether there is a usable pair.
pub(super) fn read(reply: &Value) -> Result<bool, String> {
    read_reply(reply)?.map_or(Ok(false), |texts| read_pair(&texts).map(|_| true))
}
