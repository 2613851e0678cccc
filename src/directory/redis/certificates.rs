//! Certificates from Redis: `tls:<host>`, a hash of `certificate` and `key` in PEM, and of `ocsp` and `passphrase` where
//! there are any. The key has no prefix, as other programs that read it know none.
//!
//! A clerk of its own asks Redis when a core asks for a name that it does not know, and computes with what it finds. What
//! was written to, the watching connection tells; then the cores are told to ask again. While Redis is away, what was
//! found before is what there is.

use super::super::certificates::{CertificateAnswer, Desk, Order, Question};
use super::super::{Cores, News};
use super::link;
use super::target::Target;
use crate::base::clock::{Clock, Moment};
use crate::net::tls::{Credentials, PemText, read_credentials};
use crate::route;
use crossbeam_channel::select;
use lru::LruCache;
use redis::{Connection, ProtocolVersion, RedisResult, Value, cmd};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names, and pairs, of which the clerk knows what was found last.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32_768).expect("more than none");

/// Names that are asked for in one round trip.
const BATCH: usize = 64;

/// A longer text is no certificate.
const MAX_BYTES: usize = 1 << 20;

/// After a failure nobody waits for another one for so long.
const RETRY: Duration = Duration::from_millis(250);

/// How long the clerk sleeps when nobody wants anything.
const IDLE: Duration = Duration::from_secs(3600);

/// More patterns than these are all of them.
const MAX_TOUCHED: usize = 4096;

/// What was written to since the clerk has last looked. Whoever adds to it never waits.
#[derive(Debug, Default)]
pub(in crate::directory) struct Touches(Mutex<Touched>);

#[derive(Debug, Default)]
struct Touched {
    patterns: HashSet<Box<str>>,
    all: bool,
}

impl Touches {
    pub(super) fn add(&self, pattern: &str) {
        let mut touched = self.lock();
        if touched.patterns.len() >= MAX_TOUCHED {
            touched.all = true;
        } else {
            touched.patterns.insert(pattern.into());
        }
    }

    /// Anything may be otherwise than before.
    pub(super) fn add_all(&self) {
        self.lock().all = true;
    }

    fn take(&self) -> Vec<Arc<str>> {
        let Touched { patterns, all } = std::mem::take(&mut *self.lock());
        // The last rung of every name's ladder stands for all names.
        if all { vec!["*".into()] } else { patterns.into_iter().map(Arc::from).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Touched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clerk.
pub(super) struct Clerk {
    pub(super) target: Target,
    pub(super) cores: Cores,
    pub(super) clock: Clock,
    pub(super) touches: Arc<Touches>,
    line: Option<Connection>,
    retry_at: Moment,
    /// The pattern that each name was found under; `None` for none.
    names: LruCache<Arc<str>, Option<Box<str>>>,
    pairs: LruCache<Box<str>, Pair>,
    allowance: Allowance,
    /// Names that were answered from memory: once Redis can be asked, their askers are told to ask again.
    unsure: HashSet<Arc<str>>,
}

/// What was made of a hash.
struct Pair {
    /// Of the texts; another one means that they have to be read anew.
    fingerprint: u64,
    /// The last good ones.
    credentials: Option<Credentials>,
}

/// How many names may be found to have nothing.
struct Allowance {
    rate: u32,
    left: u32,
    since: Moment,
}

/// The texts of a pair.
struct Texts<'a> {
    certificate: &'a [u8],
    key: &'a [u8],
    staple: Option<&'a [u8]>,
    passphrase: Option<&'a [u8]>,
}

impl Clerk {
    pub(super) fn new(target: Target, cores: Cores, clock: Clock, touches: Arc<Touches>, unknown_rate: u32) -> Self {
        Self {
            target,
            cores,
            clock,
            touches,
            line: None,
            retry_at: Moment::ZERO,
            names: LruCache::new(REMEMBERED),
            pairs: LruCache::new(REMEMBERED),
            allowance: Allowance { rate: unknown_rate, left: unknown_rate, since: Moment::ZERO },
            unsure: HashSet::new(),
        }
    }

    pub(super) fn run(mut self, desk: &Desk) {
        loop {
            select! {
                recv(desk.questions) -> question => {
                    let Ok(question) = question else { return };
                    let batch: Vec<_> = std::iter::once(question).chain(desk.questions.try_iter().take(BATCH - 1)).collect();
                    self.answer(batch);
                },
                recv(desk.orders) -> order => match order {
                    Ok(Order::Reread) => self.tell_touched(),
                    Ok(Order::Replace(_)) => {}
                    Ok(Order::Stop) | Err(_) => return,
                },
                default(if self.unsure.is_empty() { IDLE } else { RETRY }) => self.make_sure(),
            }
        }
    }

    /// Whatever the cores hold of it may be outdated. An answer that was read before has been sent before.
    fn tell_touched(&mut self) {
        let patterns = self.touches.take();
        if patterns.iter().any(|pattern| **pattern == *"*") {
            // It is there again, as far as the watching connection knows.
            self.retry_at = Moment::ZERO;
        }
        if !patterns.is_empty() {
            self.cores.tell_all(&News::CertificatesChanged { patterns: patterns.into() });
        }
    }

    fn may_ask(&mut self) -> bool {
        let now = self.clock.now();
        self.allowance.is_left(now) && (self.line.is_some() || self.retry_at <= now)
    }

    /// Sees whether Redis can be asked again, on behalf of those who were answered from memory.
    fn make_sure(&mut self) {
        if self.unsure.is_empty() || !self.may_ask() || self.ask(&cmd("PING").get_packed_command(), 1).is_none() {
            return;
        }
        let patterns: Vec<_> = self.unsure.drain().collect();
        self.cores.tell_all(&News::CertificatesChanged { patterns: patterns.into() });
    }

    fn answer(&mut self, batch: Vec<Question>) {
        let replies = if self.may_ask() { self.ask_for(&batch) } else { None };
        let mut rest = replies.as_deref().unwrap_or_default();
        for Question { core, name } in batch {
            let answer = match &replies {
                Some(_) => {
                    let count = route::patterns(&name).count();
                    let (own, others) = rest.split_at(count);
                    rest = others;
                    self.judge(&name, own)
                }
                None => {
                    let answer = self.remember(&name);
                    // A failure is kept by nobody.
                    if !matches!(answer, CertificateAnswer::Failed) {
                        self.unsure.insert(Arc::clone(&name));
                    }
                    answer
                }
            };
            self.cores.tell(core, News::Certificate { name, answer });
        }
    }

    /// The hashes of all rungs of all names; `None` if Redis does not tell.
    fn ask_for(&mut self, batch: &[Question]) -> Option<Vec<Value>> {
        let mut packed = Vec::new();
        let mut count = 0;
        for pattern in batch.iter().flat_map(|question| route::patterns(&question.name)) {
            let fields = ["certificate", "key", "ocsp", "passphrase"];
            cmd("HMGET").arg(key_of(&pattern)).arg(&fields).write_packed_command(&mut packed);
            count += 1;
        }
        self.ask(&packed, count)
    }

    fn ask(&mut self, packed: &[u8], count: usize) -> Option<Vec<Value>> {
        // A connection that was idle for long may be closed: then another one is opened, once.
        for _ in 0..=usize::from(self.line.is_some()) {
            match self.try_ask(packed, count) {
                Ok(replies) => return Some(replies),
                Err(error) => {
                    log::debug!("redis: asking for certificates: {error}");
                    self.line = None;
                }
            }
        }
        self.retry_at = self.clock.now() + RETRY;
        None
    }

    fn try_ask(&mut self, packed: &[u8], count: usize) -> RedisResult<Vec<Value>> {
        let line = match &mut self.line {
            Some(line) => line,
            None => {
                let server = link::find(&self.target)?;
                self.line.insert(link::open(&self.target, &server, ProtocolVersion::RESP2)?)
            }
        };
        let replies = link::ask_all(line, packed, count)?;
        match replies.iter().find(|reply| matches!(reply, Value::ServerError(error) if link::is_passing(error.code())))
        {
            Some(reply) => Err(reply.clone().extract_error().expect_err("an error was found")),
            None => Ok(replies),
        }
    }

    /// What the first rung that has something says.
    fn judge(&mut self, name: &Arc<str>, replies: &[Value]) -> CertificateAnswer {
        for (pattern, reply) in route::patterns(name).zip(replies) {
            let texts = match read_reply(reply) {
                Ok(None) => continue,
                Ok(Some(texts)) => Ok(texts),
                Err(problem) => Err(problem),
            };
            self.names.put(Arc::clone(name), Some(pattern.clone().into()));
            return self.learn(&pattern, texts);
        }
        self.allowance.spend();
        self.names.put(Arc::clone(name), None);
        CertificateAnswer::Unknown
    }

    /// Reads a pair, unless it is the one that was read before. A bad one does not take the place of a good one.
    fn learn(&mut self, pattern: &str, texts: Result<Texts<'_>, String>) -> CertificateAnswer {
        let fingerprint = match &texts {
            Ok(texts) => fingerprint(texts),
            Err(_) => 0,
        };
        if self.pairs.get(pattern).is_none_or(|pair| pair.fingerprint != fingerprint) {
            let before = self.pairs.pop(pattern).and_then(|pair| pair.credentials);
            let credentials = match texts.and_then(|texts| read_pair(&texts)) {
                Ok(credentials) => Some(credentials),
                Err(problem) => {
                    let stays = if before.is_some() { "; the one before stays in use" } else { "" };
                    log::error!("{}: {problem}{stays}", key_of(pattern));
                    before
                }
            };
            self.pairs.put(pattern.into(), Pair { fingerprint, credentials });
        }
        self.recall(pattern)
    }

    fn recall(&mut self, pattern: &str) -> CertificateAnswer {
        match self.pairs.get(pattern).and_then(|pair| pair.credentials.clone()) {
            Some(credentials) => CertificateAnswer::Found(credentials),
            None => CertificateAnswer::Unknown,
        }
    }

    /// What was found when Redis was last asked.
    fn remember(&mut self, name: &str) -> CertificateAnswer {
        match self.names.get(name).cloned() {
            Some(Some(pattern)) if self.pairs.contains(&pattern) => self.recall(&pattern),
            Some(None) => CertificateAnswer::Unknown,
            _ => CertificateAnswer::Failed,
        }
    }
}

impl Allowance {
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

/// The texts of a hash; `None` where there is none.
fn read_reply(reply: &Value) -> Result<Option<Texts<'_>>, String> {
    let fields = match reply {
        Value::Array(fields) => fields,
        Value::ServerError(error) => return Err(format!("{error}; expected a hash")),
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
        (Some(certificate), Some(key)) => Ok(Some(Texts { certificate, key, staple: text(2), passphrase: text(3) })),
        (None, _) => Err("it has no field \"certificate\"".to_owned()),
        (_, None) => Err("it has no field \"key\"".to_owned()),
    }
}

fn fingerprint(texts: &Texts<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (texts.certificate, texts.key, texts.staple, texts.passphrase).hash(&mut hasher);
    // 0 is for what has no texts.
    hasher.finish().max(1)
}

fn read_pair(texts: &Texts<'_>) -> Result<Credentials, String> {
    let passphrase = texts.passphrase.map(std::str::from_utf8).transpose();
    let text = PemText {
        certificate: texts.certificate,
        chain: &[],
        key: texts.key,
        passphrase: passphrase.map_err(|_| "its passphrase is no UTF-8 text".to_owned())?,
        staple: texts.staple,
    };
    read_credentials(&text).map_err(|fault| fault.to_string())
}
