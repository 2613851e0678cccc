//! Loading of clusters from their files and from Redis, at the start.

use super::definition::{ClusterDefinition, KnownOptions, check_cluster_name};
use super::disk::{DAMAGED, DRAFT, ORIGINAL, OWN, REWRITE};
use super::file::{self, Read};
use super::follow;
use super::origin::Comparison;
use super::preserver::{Damaged, Findings};
use crate::directory::catalog::FrontendRecord;
use crate::directory::redis::{Record, SharedClusters};
use crate::directory::{Settings, Source};
use ::redis::RedisResult;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

/// A larger file is not one of a cluster.
const MAX_BYTES: u64 = 16 << 20;

/// The greatest number of reading threads.
const MAX_THREADS: usize = 8;

/// The least number of files for each thread.
const MIN_SHARE: usize = 64;

/// The on-demand clusters known before the start. They are read before the process listens, since some of them have a
/// port.
#[derive(Debug, Default)]
pub struct State {
    pub(super) clusters: Vec<(ClusterDefinition, FrontendRecord)>,
    /// Names of clusters whose file has to be rewritten.
    pub(super) changed: HashSet<Box<str>>,
    /// Names of clusters whose file has to be removed.
    pub(super) removed: Vec<Box<str>>,
    /// Other files of the folder.
    pub(super) findings: Findings,
    /// The error of reading the folder. With one, nothing is written there.
    pub(super) folder_problem: Option<String>,
}

/// The reason why a file has no cluster.
enum Fault {
    /// Its content is invalid.
    Damaged(String),
    /// It could not be read; its content may be valid.
    Unreadable(String),
}

impl From<String> for Fault {
    fn from(problem: String) -> Self {
        Self::Damaged(problem)
    }
}

/// A file, and the result of reading it; `None` if it has gone.
type Outcome<'n> = (&'n str, Option<Result<(Read, FrontendRecord), Fault>>);

impl State {
    /// Reads files, and then Redis if clusters are kept there. If Redis is away, the clusters of the files are used. It
    /// changes nothing: a process that serves may own the files.
    pub fn load(settings: &Settings) -> Self {
        let mut state = settings.state_dir.as_deref().map(Self::load_files).unwrap_or_default();
        if let Source::Redis(redis) = &settings.source {
            let target = &redis.write;
            if let Err(error) = state.take_over(&mut SharedClusters::new(target)) {
                let clusters = state.clusters.len();
                log::warn!("redis: {target}: {error}; {clusters} clusters on demand are there, which files have");
            }
        }
        state.leave_rivals_out();
        state
    }

    /// Leaves out clusters that would serve the same requests as an earlier one. Their files stay.
    fn leave_rivals_out(&mut self) {
        let mut taken: HashMap<(Option<Box<str>>, u16), Box<str>> = HashMap::with_capacity(self.clusters.len());
        let reserved = &mut self.findings.reserved;
        self.clusters.retain(|(cluster, _)| {
            let port = cluster.port.unwrap_or_default();
            if cluster.hostname.is_none() && port == 0 {
                return true;
            }
            match taken.entry((cluster.hostname.clone(), port)) {
                Entry::Vacant(vacant) => {
                    vacant.insert(cluster.name.clone());
                    true
                }
                Entry::Occupied(rival) => {
                    let problem = format!("cluster {} is for the same requests", rival.get());
                    log::error!("cluster {} is left out: {problem}; edit its file", cluster.name);
                    reserved.insert(cluster.name.clone(), format!("a file of before the start stays: {problem}"));
                    false
                }
            }
        });
    }

    /// Takes over the clusters of Redis. Clusters that it has lost stay, and are written there once this process runs.
    fn take_over(&mut self, shared: &mut SharedClusters) -> RedisResult<()> {
        let newest = shared.newest()?;
        let mut records = shared.read_all()?;
        let known = self.clusters.iter().map(|(cluster, _)| (&*cluster.name, cluster.revision));
        let compared = Comparison::new(known, &records, newest);
        let lost: HashSet<_> = compared.lost.into_iter().collect();
        self.removed = compared.removed;
        let mut ours = Vec::new();
        // Clusters with the same text are kept. Clusters of Redis come before those that it has lost.
        self.clusters.retain(|known| {
            let (cluster, _) = known;
            let is_same = |record: &mut Record| {
                record.revision == cluster.revision && file::render_record(cluster) == record.text
            };
            if records.get_mut(&*cluster.name).is_some_and(is_same) {
                records.remove(&*cluster.name);
                return true;
            }
            if lost.contains(&cluster.name) {
                ours.push(known.clone());
            }
            false
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
        self.clusters.append(&mut ours);
        Ok(())
    }

    /// Reads all files of a folder. A file that cannot be used does not affect others. A missing folder has none.
    pub(super) fn load_files(folder: &Path) -> Self {
        let mut state = Self::default();
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return state,
            Err(error) => {
                state.folder_problem = Some(format!("reading {}: {error}", folder.display()));
                return state;
            }
        };
        let all: HashSet<&str> = names.iter().map(String::as_str).collect();
        let files: Vec<&str> = names.iter().map(String::as_str).filter(|file| state.is_cluster(file, &all)).collect();
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS);
        let share = files.len().div_ceil(threads).max(MIN_SHARE);
        let outcomes: Vec<Outcome<'_>> = thread::scope(|scope| {
            let threads: Vec<_> =
                files.chunks(share).map(|files| scope.spawn(move || read_all(folder, files))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        for (file, outcome) in outcomes {
            match outcome {
                None => {}
                Some(Ok((read, record))) => state.add(file, read, record),
                Some(Err(Fault::Damaged(problem))) => {
                    let damaged = Damaged { file: file.to_owned(), problem };
                    state.findings.damaged.push((cluster_of(file).into(), damaged));
                }
                Some(Err(Fault::Unreadable(problem))) => {
                    log::error!(
                        "{}: {problem}; the cluster is not there, and the file stays",
                        folder.join(file).display()
                    );
                    state
                        .findings
                        .reserved
                        .insert(cluster_of(file).into(), format!("{file} cannot be read: {problem}"));
                }
            }
        }
        let clusters = state.clusters.len();
        log::info!("server.stateDir: {clusters} clusters on demand from {}", folder.display());
        state
    }

    /// Whether a file has a cluster. It notes drafts, and files of x0d that were imported before.
    fn is_cluster(&mut self, file: &str, all: &HashSet<&str>) -> bool {
        if file.ends_with(DRAFT) {
            self.findings.drafts.push(file.to_owned());
            return false;
        }
        let Some(name) = file.strip_suffix(REWRITE) else { return file.ends_with(OWN) };
        let own = format!("{name}{OWN}");
        let was_read = all.contains(own.as_str()) || all.contains(format!("{own}{DAMAGED}").as_str());
        if was_read {
            self.findings.originals.push((name.into(), file.to_owned()));
        }
        !was_read
    }

    /// The ports of the clusters.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.clusters.iter().filter_map(|(cluster, _)| cluster.port)
    }

    fn add(&mut self, file: &str, Read { definition, assumed, warnings }: Read, record: FrontendRecord) {
        for warning in &warnings {
            log::warn!("{file}: {warning}");
        }
        if let Some(assumed) = assumed {
            log::info!("{file}: a file of x0d: {assumed}; it is kept with the ending {ORIGINAL}");
            self.findings.originals.push((definition.name.clone(), file.to_owned()));
            self.changed.insert(definition.name.clone());
        }
        self.clusters.push((definition, record));
    }
}

/// The name of a cluster by that of its file.
fn cluster_of(file: &str) -> &str {
    file.strip_suffix(OWN).or_else(|| file.strip_suffix(REWRITE)).unwrap_or(file)
}

fn read_all<'n>(folder: &Path, files: &[&'n str]) -> Vec<Outcome<'n>> {
    let mut known = KnownOptions::default();
    files.iter().map(|file| (*file, read(folder, file, &mut known).transpose())).collect()
}

/// Reads a file; `None` if it has gone.
fn read(folder: &Path, file: &str, known: &mut KnownOptions) -> Result<Option<(Read, FrontendRecord)>, Fault> {
    let name = cluster_of(file);
    check_cluster_name(name).map_err(|refusal| refusal.to_string())?;
    let Some(text) = read_text(&folder.join(file))? else { return Ok(None) };
    let read = file::parse(name, &text, file.ends_with(REWRITE))?;
    let record = read.definition.record_knowing(known).map_err(|refusal| refusal.to_string())?;
    Ok(Some((read, record)))
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

fn read_text(path: &Path) -> Result<Option<String>, Fault> {
    let unreadable = |error: io::Error| Fault::Unreadable(error.to_string());
    // Opening anything but a regular file may block.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Ok(file) => file,
        // A broken link is not a missing file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Fault::Unreadable("it is no regular file".to_owned()));
    }
    if metadata.len() > MAX_BYTES {
        return Err(Fault::Damaged(format!("it has {} bytes, and {MAX_BYTES} are the most", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|error| Fault::Damaged(error.to_string()))
}
