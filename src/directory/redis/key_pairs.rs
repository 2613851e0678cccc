//! Pairs of certificate and key by pattern. A good pair stays while its successor is bad or Redis is away, and even
//! over a restart if pairs are kept in a file.

use super::save::{self, Saver};
use crate::base::clock::{Clock, Moment};
use crate::directory::Error;
use crate::directory::certificate_index::CertificateIndex;
use crate::directory::handover::{self, Export};
use crate::directory::snapshot::{Snapshot, SnapshotEntry};
use crate::net::tls::{Credentials, PemText, read_credentials};
use lru::LruCache;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

/// The fields of a hash.
#[derive(Clone, Copy, Hash)]
pub(super) struct KeyPairPem<'a> {
    pub(super) certificate: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) staple: Option<&'a [u8]>,
    pub(super) passphrase: Option<&'a [u8]>,
}

/// The same, in the form of a line of the file.
#[derive(Serialize, Deserialize)]
struct KeyPairRecord {
    pattern: Box<str>,
    certificate: Box<str>,
    key: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocsp: Option<Box<[u8]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase: Option<Box<str>>,
}

impl SnapshotEntry for Arc<KeyPairRecord> {
    const MAGIC: &'static str = "sluice certificates 1";
    /// It contains keys.
    const MODE: u32 = 0o600;
}

/// The result of reading a hash.
struct KeyPairEntry {
    /// The fingerprint of the texts read last; another one means that the pair has to be read again.
    fingerprint: u64,
    /// The last good pair; `None` too for a pair from the file that was not looked up yet.
    credentials: Option<Credentials>,
    /// The texts of that pair, for the file and for the successor process.
    record: Option<Arc<KeyPairRecord>>,
}

/// The result of the texts of a pair.
pub(super) enum Learned {
    /// They have not changed.
    Same,
    New(Credentials),
}

/// A pair that is not usable.
pub(super) struct Bad {
    pub(super) problem: String,
    /// An earlier good pair stays in use.
    pub(super) stays: bool,
}

/// All pairs by pattern.
pub(super) struct KeyPairStore {
    pairs: LruCache<Box<str>, KeyPairEntry>,
    saver: Option<Saver<Vec<Arc<KeyPairRecord>>>>,
    /// The pairs in use, for views.
    index: CertificateIndex,
}

impl KeyPairStore {
    /// Holds at most `capacity` pairs, including those handed over or read from the file. Without a path nothing is
    /// saved.
    pub(super) fn start(
        capacity: NonZeroUsize,
        file: Option<&Path>,
        (inherited, index): (Option<File>, CertificateIndex),
        clock: Clock,
    ) -> Result<Self, Error> {
        let mut pairs = LruCache::new(capacity);
        let inherited = handover::read::<Arc<KeyPairRecord>>(inherited, "certificates");
        let (kept, mut saver) = match file {
            Some(file) => {
                let (snapshot, saver) = save::start::<Arc<KeyPairRecord>, _>(file, "certificates", clock, render)?;
                (snapshot, Some(saver))
            }
            None => (None, None),
        };
        if let (Some(_), Some(saver)) = (&inherited, &mut saver) {
            // It is newer than the file.
            saver.note_change(clock.now());
        }
        for record in inherited.or(kept).into_iter().flat_map(|snapshot| snapshot.items) {
            let fingerprint = fingerprint(&record.texts());
            let pair = KeyPairEntry { fingerprint, credentials: None, record: Some(Arc::clone(&record)) };
            pairs.put(record.pattern.clone(), pair);
        }
        Ok(Self { pairs, saver, index })
    }

    /// Reads a pair, unless it has not changed. A bad pair does not replace a good one.
    pub(super) fn learn(
        &mut self,
        pattern: &str,
        texts: Result<KeyPairPem<'_>, String>,
        now: Moment,
    ) -> Result<Learned, Bad> {
        // 0 stands for a hash without texts.
        let fingerprint = texts.as_ref().map_or(0, fingerprint);
        if self.pairs.get(pattern).is_some_and(|pair| pair.fingerprint == fingerprint) {
            return Ok(Learned::Same);
        }
        match texts.and_then(|texts| Ok((read_pair(&texts)?, texts))) {
            Ok((credentials, texts)) => {
                let record = Some(Arc::new(KeyPairRecord::new(pattern, &texts)));
                let pair = KeyPairEntry { fingerprint, credentials: Some(credentials.clone()), record };
                self.put(pattern, pair);
                self.note_change(now);
                Ok(Learned::New(credentials))
            }
            Err(problem) => {
                let credentials = self.restore(pattern);
                let stays = credentials.is_some();
                let record = self.pairs.pop(pattern).and_then(|pair| pair.record);
                self.put(pattern, KeyPairEntry { fingerprint, credentials, record });
                Err(Bad { problem, stays })
            }
        }
    }

    fn put(&mut self, pattern: &str, pair: KeyPairEntry) {
        self.index.note(pattern, pair.credentials.as_ref());
        // An evicted pair is no longer in use.
        if let Some((gone, _)) = self.pairs.push(pattern.into(), pair).filter(|(gone, _)| **gone != *pattern) {
            self.index.forget(&gone);
        }
    }

    /// Removes a pattern.
    pub(super) fn forget(&mut self, pattern: &str, now: Moment) {
        if self.pairs.pop(pattern).is_some() {
            self.index.forget(pattern);
            self.note_change(now);
        }
    }

    /// Whether this pattern has an entry.
    pub(super) fn contains(&self, pattern: &str) -> bool {
        self.pairs.contains(pattern)
    }

    /// The last good pair of this pattern.
    pub(super) fn restore(&mut self, pattern: &str) -> Option<Credentials> {
        let pair = self.pairs.get_mut(pattern)?;
        if pair.credentials.is_none()
            && let Some(record) = &pair.record
        {
            // It was good when it was saved.
            pair.credentials = read_pair(&record.texts())
                .inspect_err(|problem| log::error!("the certificate of {pattern} that was kept: {problem}"))
                .ok();
            self.index.note(pattern, pair.credentials.as_ref());
        }
        pair.credentials.clone()
    }

    /// All pairs in use.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (&str, &Credentials)> {
        self.pairs.iter().filter_map(|(pattern, pair)| Some((&**pattern, pair.credentials.as_ref()?)))
    }

    fn note_change(&mut self, now: Moment) {
        if let Some(saver) = &mut self.saver {
            saver.note_change(now);
        }
    }

    /// The time of the next [`KeyPairStore::save`].
    pub(super) fn due(&self) -> Option<Moment> {
        self.saver.as_ref()?.due()
    }

    /// Has all pairs written, if the time since a change is long enough.
    pub(super) fn save(&mut self, now: Moment) {
        if self.due().is_some_and(|due| due <= now) {
            let records = self.records();
            if let Some(saver) = &mut self.saver {
                saver.save(records, now);
            }
        }
    }

    /// Leaves the file to another process.
    pub(super) fn retire(&mut self) {
        self.saver = None;
    }

    /// All pairs, for the successor process.
    pub(super) fn export(&self) -> Export {
        let records = self.records();
        handover::export(move || render(records))
    }

    /// Has the pairs written for the last time.
    pub(super) fn finish(mut self) {
        if let Some(saver) = self.saver.take() {
            saver.finish(|| self.records());
        }
    }

    fn records(&self) -> Vec<Arc<KeyPairRecord>> {
        self.pairs.iter().filter_map(|(_, pair)| pair.record.clone()).collect()
    }
}

fn render(items: Vec<Arc<KeyPairRecord>>) -> Snapshot<Arc<KeyPairRecord>> {
    Snapshot { histories: Vec::new(), items }
}

impl KeyPairRecord {
    fn new(pattern: &str, texts: &KeyPairPem<'_>) -> Self {
        // They were parsed, so they are ASCII except for comments around them.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
        Self {
            pattern: pattern.into(),
            certificate: text(texts.certificate),
            key: text(texts.key),
            ocsp: texts.staple.map(Into::into),
            passphrase: texts.passphrase.map(text),
        }
    }

    fn texts(&self) -> KeyPairPem<'_> {
        KeyPairPem {
            certificate: self.certificate.as_bytes(),
            key: self.key.as_bytes(),
            staple: self.ocsp.as_deref(),
            passphrase: self.passphrase.as_deref().map(str::as_bytes),
        }
    }
}

fn fingerprint(texts: &KeyPairPem<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    hasher.finish().max(1)
}

pub(super) fn read_pair(texts: &KeyPairPem<'_>) -> Result<Credentials, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (parameters.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn views_find_the_pairs_in_use_and_no_others() {
        let index = CertificateIndex::default();
        let capacity = NonZeroUsize::new(2).expect("not zero");
        let mut store =
            KeyPairStore::start(capacity, None, (None, index.clone()), Clock::new()).unwrap_or_else(|_| panic!());
        let seen = || {
            let mut names: Vec<_> = index.list().into_iter().map(|info| info.name).collect();
            names.sort_unstable();
            names
        };
        let learn = |store: &mut KeyPairStore, name: &str| {
            let (certificate, key) = pair(name);
            let texts =
                KeyPairPem { certificate: certificate.as_bytes(), key: key.as_bytes(), staple: None, passphrase: None };
            assert!(matches!(store.learn(name, Ok(texts), Moment::ZERO), Ok(Learned::New(_))), "{name}");
        };
        ["a.test", "b.test"].iter().for_each(|name| learn(&mut store, name));
        assert_eq!(seen(), ["a.test", "b.test"]);
        assert!(index.list().iter().all(|info| info.not_after.is_some()));
        learn(&mut store, "c.test");
        assert_eq!(seen(), ["b.test", "c.test"], "the oldest has made room");
        assert!(store.learn("c.test", Err("no pair".to_owned()), Moment::ZERO).is_err_and(|bad| bad.stays));
        assert_eq!(seen(), ["b.test", "c.test"], "a bad one does not take the place of a good one");
        store.forget("b.test", Moment::ZERO);
        assert_eq!(seen(), ["c.test"]);
    }
}
