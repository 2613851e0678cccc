//! Loading of clusters from their files and from Redis, at the start.

use super::definition::{ClusterDefinition, KnownOptions, check_cluster_name};
use super::file::{self, Read};
use super::follow;
use super::origin::Comparison;
use super::store::{DRAFT, ORIGINAL, OWN, REWRITE};
use crate::directory::catalog::FrontendRecord;
use crate::directory::redis::{Record, SharedClusters};
use crate::directory::{Settings, Source};
use ::redis::RedisResult;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

/// A larger file is not one of a cluster.
const MAX_BYTES: u64 = 16 << 20;

/// The suffix of a file that cannot be used.
const DAMAGED: &str = ".damaged";

/// The greatest number of reading threads.
const MAX_THREADS: usize = 8;

/// The least number of files for each thread.
const MIN_SHARE: usize = 64;

/// The on-demand clusters known before the start. They are read before the process listens, since some of them have a
/// port.
#[derive(Debug, Default)]
pub struct State {
    pub(super) clusters: Vec<(ClusterDefinition, FrontendRecord)>,
    /// Names of clusters that come from files of x0d.
    pub(super) imported: HashSet<Box<str>>,
    /// Names of clusters whose file has to be rewritten.
    pub(super) changed: HashSet<Box<str>>,
    /// Names of clusters whose file has to be removed.
    pub(super) removed: Vec<Box<str>>,
}

/// The result of reading a file.
type Outcome<'n> = (&'n str, Result<(Read, FrontendRecord), String>);

impl State {
    /// Reads files, and then Redis if clusters are kept there. If Redis is away, the clusters of the files are used.
    pub fn load(settings: &Settings) -> Self {
        let mut state = settings.state_dir.as_deref().map(Self::load_files).unwrap_or_default();
        if let Source::Redis(redis) = &settings.source {
            let target = &redis.write;
            if let Err(error) = state.take_over(&mut SharedClusters::new(target)) {
                let clusters = state.clusters.len();
                log::warn!("redis: {target}: {error}; {clusters} clusters on demand are there, which files have");
            }
        }
        state
    }

    /// Takes over the clusters of Redis. Clusters that it has lost stay, and are written there once this process runs.
    fn take_over(&mut self, shared: &mut SharedClusters) -> RedisResult<()> {
        let newest = shared.newest()?;
        let mut records = shared.read_all()?;
        let known = self.clusters.iter().map(|(cluster, _)| (&*cluster.name, cluster.revision));
        let compared = Comparison::new(known, &records, newest);
        let lost: HashSet<_> = compared.lost.into_iter().collect();
        self.removed = compared.removed;
        // Clusters with the same text are kept.
        self.clusters.retain(|(cluster, _)| {
            let is_same = |record: &mut Record| {
                record.revision == cluster.revision && file::render_record(cluster) == record.text
            };
            if records.get_mut(&*cluster.name).is_some_and(is_same) {
                records.remove(&*cluster.name);
                return true;
            }
            lost.contains(&cluster.name)
        });
        for (name, record) in records.iter().filter(|(name, _)| !lost.contains(name.as_str())) {
            match follow::read(name, record) {
                Ok(cluster) => {
                    self.changed.insert(name.as_str().into());
                    self.clusters.push(cluster);
                }
                Err(problem) => log::error!("redis: ondemand: the record of {}: {problem}", name.escape_debug()),
            }
        }
        Ok(())
    }

    /// Reads all files of a folder. A file that cannot be used is renamed, and does not affect others. A missing folder
    /// has none.
    pub(super) fn load_files(folder: &Path) -> Self {
        let mut state = Self::default();
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return state,
            Err(error) => {
                log::error!("server.stateDir: reading {}: {error}; no cluster on demand is there", folder.display());
                return state;
            }
        };
        let all: HashSet<&str> = names.iter().map(String::as_str).collect();
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS);
        let share = names.len().div_ceil(threads).max(MIN_SHARE);
        let outcomes: Vec<Outcome<'_>> = thread::scope(|scope| {
            let read = |names| read_all(folder, names, &all);
            let threads: Vec<_> = names.chunks(share).map(|names| scope.spawn(move || read(names))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        for (name, outcome) in outcomes {
            match outcome {
                Ok((read, record)) => state.add(&folder.join(name), read, record),
                Err(problem) => set_aside(&folder.join(name), &problem),
            }
        }
        let clusters = state.clusters.len();
        log::info!("server.stateDir: {clusters} clusters on demand from {}", folder.display());
        state
    }

    /// The ports of the clusters.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.clusters.iter().filter_map(|(cluster, _)| cluster.port)
    }

    fn add(&mut self, path: &Path, Read { definition, assumed, warnings }: Read, record: FrontendRecord) {
        for warning in &warnings {
            log::warn!("{}: {warning}", path.display());
        }
        if let Some(assumed) = assumed {
            log::info!("{}: a file of x0d: {assumed}; it is kept with the ending {ORIGINAL}", path.display());
            self.imported.insert(definition.name.clone());
            self.changed.insert(definition.name.clone());
        }
        self.clusters.push((definition, record));
    }
}

fn read_all<'n>(folder: &Path, names: &'n [String], all: &HashSet<&str>) -> Vec<Outcome<'n>> {
    let mut known = KnownOptions::default();
    let mut read = |name: &'n String| Some((name.as_str(), read(folder, name, all, &mut known)?));
    names.iter().filter_map(&mut read).collect()
}

/// Reads a file; `None` if it is not one of a cluster.
fn read(
    folder: &Path,
    file_name: &str,
    all: &HashSet<&str>,
    known: &mut KnownOptions,
) -> Option<Result<(Read, FrontendRecord), String>> {
    let path = folder.join(file_name);
    if file_name.ends_with(DRAFT) {
        // A crash has left this draft. Its cluster keeps its earlier state.
        let _ = fs::remove_file(&path);
        return None;
    }
    let (name, is_rewrite) = match (file_name.strip_suffix(OWN), file_name.strip_suffix(REWRITE)) {
        (Some(name), _) => (name, false),
        // It was imported before, and its cluster has a file of this program.
        (None, Some(name)) if all.contains(format!("{name}{OWN}").as_str()) => return None,
        (None, Some(name)) => (name, true),
        (None, None) => return None,
    };
    let mut read = || {
        check_cluster_name(name).map_err(|refusal| refusal.to_string())?;
        let read = file::parse(name, &read_text(&path)?, is_rewrite)?;
        let record = read.definition.record_knowing(known).map_err(|refusal| refusal.to_string())?;
        Ok((read, record))
    };
    Some(read())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        match entry?.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(name) => log::warn!("{}: {} is no name of a cluster", folder.display(), name.display()),
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_text(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, and {MAX_BYTES} are the most", metadata.len()));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Renames a file to make room for the next one with its name.
fn set_aside(path: &Path, problem: &str) {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DAMAGED);
    let outcome = match fs::rename(path, path.with_file_name(&name)) {
        Ok(()) => format!("it is kept as {}", name.display()),
        Err(error) => format!("it could not be moved to {}: {error}", name.display()),
    };
    log::error!("{}: {problem}; the cluster is not there: {outcome}", path.display());
}
