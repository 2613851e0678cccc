//! Clusters from their files, at the start.

use super::definition::{ClusterDefinition, check_cluster_name};
use super::file::{self, Read};
use super::store::{DRAFT, ORIGINAL, OWN, REWRITE};
use std::fs;
use std::io;
use std::path::Path;

/// A larger file is none of a cluster.
const MAX_BYTES: u64 = 16 << 20;

/// The ending of a file that cannot be used.
const DAMAGED: &str = ".damaged";

/// What the files of clusters on demand say. It is read before the process listens: some clusters have a port.
#[derive(Debug, Default)]
pub struct State {
    pub(super) clusters: Vec<ClusterDefinition>,
    /// The names of those that come from files of x0d, which are to be written anew.
    pub(super) imported: Vec<Box<str>>,
}

impl State {
    /// Reads all files of a folder. A file that cannot be used is set aside, and costs no other one. A folder that is not
    /// there has none.
    pub fn load(folder: &Path) -> Self {
        let mut state = Self::default();
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return state,
            Err(error) => {
                log::error!("server.stateDir: reading {}: {error}; no cluster on demand is there", folder.display());
                return state;
            }
        };
        for name in &names {
            state.read(folder, name, &names);
        }
        let clusters = state.clusters.len();
        log::info!("server.stateDir: {clusters} clusters on demand from {}", folder.display());
        state
    }

    /// The ports that the clusters are for.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.clusters.iter().filter_map(|cluster| cluster.port)
    }

    fn read(&mut self, folder: &Path, file_name: &str, all: &[String]) {
        let path = folder.join(file_name);
        if file_name.ends_with(DRAFT) {
            // A crash has left it. Its cluster has what it had.
            let _ = fs::remove_file(&path);
            return;
        }
        let (name, is_rewrite) = match (file_name.strip_suffix(OWN), file_name.strip_suffix(REWRITE)) {
            (Some(name), _) => (name, false),
            // It was read before, and its cluster has a file of this program.
            (None, Some(name)) if all.iter().any(|other| *other == format!("{name}{OWN}")) => return,
            (None, Some(name)) => (name, true),
            (None, None) => return,
        };
        let read = check_cluster_name(name)
            .map_err(|refusal| refusal.to_string())
            .and_then(|()| read_text(&path))
            .and_then(|text| file::parse(name, &text, is_rewrite));
        match read {
            Ok(read) => self.add(&path, read),
            Err(problem) => set_aside(&path, &problem),
        }
    }

    fn add(&mut self, path: &Path, Read { definition, assumed, warnings }: Read) {
        for warning in &warnings {
            log::warn!("{}: {warning}", path.display());
        }
        if let Some(assumed) = assumed {
            log::info!("{}: a file of x0d: {assumed}; it is kept with the ending {ORIGINAL}", path.display());
            self.imported.push(definition.name.clone());
        }
        self.clusters.push(definition);
    }
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

/// Moves a file out of the way of the next one of its name.
fn set_aside(path: &Path, problem: &str) {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DAMAGED);
    let outcome = match fs::rename(path, path.with_file_name(&name)) {
        Ok(()) => format!("it is kept as {}", name.display()),
        Err(error) => format!("it could not be moved to {}: {error}", name.display()),
    };
    log::error!("{}: {problem}; the cluster is not there: {outcome}", path.display());
}
