//! The certificate service: certificate and key for each server name.
//!
//! One thread serves all cores, since computing with keys takes time that route look-ups should not wait for. A pair is
//! read at the first look-up of its name. A bad pair affects only its own names, and a good predecessor stays in use.

use super::certificate_index::CertificateIndex;
use super::handover::Export;
use super::{Error, RouteEvent, SubscriberId, Subscribers};
use crate::base::clock::Clock;
use crate::base::file_watch::FileWatch;
use crate::net::tls::{Credentials, DAY, PemText, is_open_to_others, read, read_credentials, warn_of_expiry};
use crate::route;
use crossbeam_channel::{Receiver, Sender, select};
use lru::LruCache;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

/// Number of pairs in memory. A look-up of any other pair reads it again.
const AT_HAND: NonZeroUsize = NonZeroUsize::new(16_384).expect("more than none");

/// The certificate for clients that ask for a name.
#[derive(Clone, Debug)]
pub enum CertificateResult {
    /// This certificate.
    Found(Credentials),
    /// No certificate of its own: no candidate pattern of the name has a pair, or the pair is bad.
    Unknown,
    /// The look-up failed; the result must not be cached.
    Failed,
}

/// A pair as configured.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CertificateRecord {
    pub(super) certificate: PemSource,
    pub(super) key: PemSource,
    pub(super) passphrase: Option<Box<str>>,
    /// A file with a stapled OCSP response.
    pub(super) staple: Option<PathBuf>,
}

impl fmt::Debug for CertificateRecord {
    /// Keys and passphrases are never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Record")
    }
}

/// Source of a PEM text.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PemSource {
    Here(Box<str>),
    File(PathBuf),
}

impl PemSource {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Here(_) => None,
            Self::File(path) => Some(path),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Here(text) => Ok(text.as_bytes().to_vec()),
            Self::File(path) => read(path).map_err(|fault| fault.to_string()),
        }
    }
}

/// The pairs by pattern: a host, `*.suffix` or `*`.
pub(super) type CertificateRecords = HashMap<Box<str>, CertificateRecord>;

/// A look-up by a core.
#[derive(Debug)]
pub(super) struct CertificateLookup {
    pub(super) core: SubscriberId,
    pub(super) name: Arc<str>,
}

/// A command to the certificate service.
#[derive(Debug)]
pub(super) enum CertificateCommand {
    /// Replaces all pairs.
    Replace(CertificateRecords),
    /// Files may have changed.
    Reread,
    /// Another process owns the snapshot from now on.
    Retire,
    /// Export the known pairs to the successor process.
    Export(Sender<Export>),
    /// End.
    Stop,
}

/// The channels of the certificate service.
#[derive(Debug)]
pub(super) struct CertificateChannels {
    pub(super) certificate_lookups: Receiver<CertificateLookup>,
    pub(super) commands: Receiver<CertificateCommand>,
    /// The sender for changes that the service notices itself.
    pub(super) own_commands: Sender<CertificateCommand>,
    /// The pairs in use, for views.
    pub(super) index: CertificateIndex,
    /// Dropped when the thread ends.
    pub(super) _alive: Sender<Infallible>,
}

/// Starts the certificate service.
pub(super) fn start(
    channels: CertificateChannels,
    subscribers: Subscribers,
    clock: Clock,
) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name("certificates".to_owned());
    let certificate_service = CertificateService {
        records: CertificateRecords::new(),
        pairs: LruCache::new(AT_HAND),
        subscribers,
        folders: None,
        clock,
    };
    thread.spawn(move || certificate_service.run(&channels)).map_err(|error| Error::Thread(Arc::new(error)))
}

struct CertificateService {
    records: CertificateRecords,
    /// The pairs that were looked up, by pattern.
    pairs: LruCache<Box<str>, LoadedKeyPair>,
    subscribers: Subscribers,
    /// The watch on the folders of files in use; `None` before the first file.
    folders: Option<FileWatch>,
    clock: Clock,
}

/// The result of reading a record.
struct LoadedKeyPair {
    /// `None` for a bad pair, so that it is read and logged once.
    credentials: Option<Credentials>,
    /// The state of its files at that time.
    looks: Vec<Option<Look>>,
}

/// The version of a file: device, inode, size and the time of the last change.
type Look = (u64, u64, u64, i64, i64);

impl CertificateService {
    fn run(mut self, channels: &CertificateChannels) {
        let daily = crossbeam_channel::tick(DAY);
        loop {
            select! {
                recv(channels.certificate_lookups) -> question => match question {
                    Ok(CertificateLookup { core, name }) => {
                        let result = self.reply(&name, channels);
                        self.subscribers.tell(core, RouteEvent::Certificate { name, result });
                    }
                    Err(_) => return,
                },
                recv(channels.commands) -> command => match command {
                    Ok(CertificateCommand::Replace(records)) => self.replace(records, channels),
                    Ok(CertificateCommand::Reread) => self.reread(&channels.index),
                    // The next look-up reads files again.
                    Ok(CertificateCommand::Retire | CertificateCommand::Export(_)) => {}
                    Ok(CertificateCommand::Stop) | Err(_) => return,
                },
                recv(daily) -> _ => warn_of_expiry(self.in_use(), wall(self.clock)),
            }
        }
    }

    /// The good pairs that were looked up.
    fn in_use(&self) -> impl Iterator<Item = (&str, &Credentials)> {
        self.pairs.iter().filter_map(|(pattern, pair)| Some((&**pattern, pair.credentials.as_ref()?)))
    }

    fn reply(&mut self, name: &str, channels: &CertificateChannels) -> CertificateResult {
        let Some((pattern, record)) =
            route::patterns(name).find_map(|candidate| self.records.get_key_value(&*candidate))
        else {
            return CertificateResult::Unknown;
        };
        if self.pairs.get(pattern).is_none() {
            let pair = LoadedKeyPair::read(pattern, record, self.clock);
            watch(&mut self.folders, record, channels);
            channels.index.note(pattern, pair.credentials.as_ref());
            // An evicted pair is no longer in use.
            if let Some((gone, _)) = self.pairs.push(pattern.clone(), pair).filter(|(gone, _)| gone != pattern) {
                channels.index.forget(&gone);
            }
        }
        match self.pairs.get(pattern).and_then(|pair| pair.credentials.clone()) {
            Some(credentials) => CertificateResult::Found(credentials),
            None => CertificateResult::Unknown,
        }
    }

    /// Replaces all records by `records`, and reports the differences to the cores.
    fn replace(&mut self, records: CertificateRecords, channels: &CertificateChannels) {
        let before = std::mem::replace(&mut self.records, records);
        let mut changed: Vec<Arc<str>> = Vec::new();
        for pattern in before.keys().filter(|pattern| !self.records.contains_key(*pattern)) {
            self.pairs.pop(pattern);
            channels.index.forget(pattern);
            changed.push((&**pattern).into());
        }
        for (pattern, record) in self.records.iter().filter(|(pattern, record)| before.get(*pattern) != Some(*record)) {
            watch(&mut self.folders, record, channels);
            if self.pairs.contains(pattern) && !renew(&mut self.pairs, pattern, record, (self.clock, &channels.index)) {
                continue;
            }
            changed.push((&**pattern).into());
        }
        self.tell_changed(changed);
    }

    /// Reads the pairs again whose files have changed.
    fn reread(&mut self, index: &CertificateIndex) {
        let mut outdated = Vec::new();
        for (pattern, pair) in &self.pairs {
            if let Some(record) = self.records.get(pattern)
                && looks(record) != pair.looks
            {
                outdated.push((pattern.clone(), record.clone()));
            }
        }
        let clock = self.clock;
        let changed =
            outdated.iter().filter(|(pattern, record)| renew(&mut self.pairs, pattern, record, (clock, index)));
        let changed: Vec<Arc<str>> = changed.map(|(pattern, _)| (&**pattern).into()).collect();
        self.tell_changed(changed);
    }

    fn tell_changed(&self, patterns: Vec<Arc<str>>) {
        if !patterns.is_empty() {
            log::info!("{} certificates have changed", patterns.len());
            self.subscribers.tell_all(&RouteEvent::CertificatesChanged { patterns: patterns.into() });
        }
    }
}

/// Reads a pair again; returns whether it has changed. A bad pair does not replace a good one.
fn renew(
    pairs: &mut LruCache<Box<str>, LoadedKeyPair>,
    pattern: &str,
    record: &CertificateRecord,
    (clock, index): (Clock, &CertificateIndex),
) -> bool {
    let pair = LoadedKeyPair::read(pattern, record, clock);
    match pairs.peek_mut(pattern) {
        Some(before) if pair.credentials.is_none() && before.credentials.is_some() => {
            log::error!("the certificate of {pattern} that was there before stays in use");
            before.looks = pair.looks;
            false
        }
        Some(before) => {
            index.note(pattern, pair.credentials.as_ref());
            *before = pair;
            true
        }
        None => true,
    }
}

impl LoadedKeyPair {
    fn read(pattern: &str, record: &CertificateRecord, clock: Clock) -> Self {
        // The state of the files is read first: a change during the read is noticed at the next check.
        let looks = looks(record);
        let credentials = match credentials(record) {
            Ok(credentials) => {
                warn_of_expiry([(pattern, &credentials)], wall(clock));
                warn_of_open_key(record);
                Some(credentials)
            }
            Err(problem) => {
                log::error!("the certificate of {pattern}: {problem}");
                None
            }
        };
        Self { credentials, looks }
    }
}

fn wall(clock: Clock) -> SystemTime {
    clock.wall(clock.now())
}

fn warn_of_open_key(record: &CertificateRecord) {
    if let Some(path) = record.key.path().filter(|path| is_open_to_others(path)) {
        log::warn!("any user of this system can read the key {}; take that away: chmod o= FILE", path.display());
    }
}

fn credentials(record: &CertificateRecord) -> Result<Credentials, String> {
    let certificate = record.certificate.bytes()?;
    let key = record.key.bytes()?;
    let staple = record.staple.as_deref().map(read).transpose().map_err(|fault| fault.to_string())?;
    let text = PemText {
        certificate: &certificate,
        chain: &[],
        key: &key,
        passphrase: record.passphrase.as_deref(),
        staple: staple.as_deref(),
    };
    read_credentials(&text).map_err(|fault| fault.to_string())
}

fn paths(record: &CertificateRecord) -> impl Iterator<Item = &Path> {
    [record.certificate.path(), record.key.path(), record.staple.as_deref()].into_iter().flatten()
}

fn looks(record: &CertificateRecord) -> Vec<Option<Look>> {
    let look = |path: &Path| {
        let data = fs::metadata(path).ok()?;
        Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
    };
    paths(record).map(look).collect()
}

fn watch(folders: &mut Option<FileWatch>, record: &CertificateRecord, channels: &CertificateChannels) {
    for path in paths(record) {
        let watched = match folders {
            Some(folders) => folders.add(path),
            None => {
                let commands = channels.own_commands.clone();
                // If there is no room, a pending command leads to a check of the files anyway.
                let watch = FileWatch::watch(move || drop(commands.try_send(CertificateCommand::Reread)));
                watch.and_then(|watch| folders.insert(watch).add(path))
            }
        };
        if let Err(error) = watched {
            log::warn!("watching {}: {error}; it is read again at SIGHUP only", path.display());
        }
    }
}
