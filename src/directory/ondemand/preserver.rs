//! Files that the folder had at the start and that are kept before this program writes to their names: files of x0d,
//! and unusable files.

use super::disk::{DAMAGED, Disk, ORIGINAL};
use std::collections::BTreeMap;
use std::io;

/// The greatest number of names that are tried for one file.
const MAX_NAMES: u32 = 100;

/// The contents of the folder at the start, besides the clusters. They are not touched before the process serves: until
/// then the folder belongs to a previous process, or the start may fail and has to change nothing.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Files left by a crash.
    pub(super) drafts: Vec<String>,
    /// Unusable files with their faults, by the name of the cluster.
    pub(super) damaged: Vec<(Box<str>, Damaged)>,
    /// Files of x0d, by the name of the cluster.
    pub(super) originals: Vec<(Box<str>, String)>,
    /// Clusters whose files are not written, with the reason.
    pub(super) reserved: BTreeMap<Box<str>, String>,
}

/// An unusable file.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) file: String,
    pub(super) problem: String,
}

/// The files still to be kept, by the name of the cluster.
#[derive(Debug, Default)]
pub(super) struct Preserver {
    damaged: BTreeMap<Box<str>, Vec<Damaged>>,
    originals: BTreeMap<Box<str>, Vec<String>>,
}

impl Preserver {
    /// Removes drafts and renames damaged files. Steps that fail are repeated before the first write of their cluster.
    pub(super) fn begin(disk: &impl Disk, findings: Findings) -> Self {
        for draft in &findings.drafts {
            if let Err(error) = disk.remove(draft) {
                log::warn!("server.stateDir: removing {draft}, which a crash has left: {error}");
            }
        }
        let mut preserver = Self::default();
        for (name, file) in findings.originals {
            preserver.originals.entry(name).or_default().push(file);
        }
        for (name, damaged) in findings.damaged {
            preserver.damaged.entry(name).or_default().push(damaged);
        }
        let names: Vec<Box<str>> = preserver.damaged.keys().cloned().collect();
        for name in names {
            if let Err(error) = preserver.set_damaged_aside(disk, &name) {
                log::error!("server.stateDir: {error}");
            }
        }
        preserver
    }

    /// Keeps the files of a cluster before its first write.
    pub(super) fn keep(&mut self, disk: &impl Disk, name: &str) -> io::Result<()> {
        self.set_damaged_aside(disk, name)?;
        let Some(files) = self.originals.get(name) else { return Ok(()) };
        for file in files {
            let problem = |error: io::Error| context(&error, format_args!("keeping {file}, which x0d has written"));
            keep_original(disk, file).map_err(problem)?;
        }
        disk.sync_folder()?;
        self.originals.remove(name);
        Ok(())
    }

    fn set_damaged_aside(&mut self, disk: &impl Disk, name: &str) -> io::Result<()> {
        for Damaged { file, problem } in self.damaged.get(name).into_iter().flatten() {
            match set_aside(disk, file) {
                Ok(kept) => log::error!("{file}: {problem}; the cluster is not there: it is kept as {kept}"),
                // It has gone, or was renamed before another file of this cluster could not be.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(context(&error, format_args!("{file}: {problem}; giving it another name"))),
            }
        }
        self.damaged.remove(name);
        Ok(())
    }
}

fn context(error: &io::Error, what: std::fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The names for a kept file, in order of preference.
fn names<'n>(file: &'n str, ending: &'n str) -> impl Iterator<Item = String> + 'n {
    let name = move |number| if number == 1 { format!("{file}{ending}") } else { format!("{file}{ending}.{number}") };
    (1..=MAX_NAMES).map(name)
}

fn no_name(file: &str) -> io::Error {
    io::Error::other(format!("{MAX_NAMES} copies of {file} are there: remove some"))
}

/// Gives a file that is to be replaced a second name, or copies it if the file system refuses that.
fn keep_original(disk: &impl Disk, file: &str) -> io::Result<()> {
    for kept in names(file, ORIGINAL) {
        let made = match disk.link(file, &kept) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                disk.copy(file, &kept)
            }
            other => other,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if disk.is_same(file, &kept)? {
                    return Ok(());
                }
            }
            other => return other,
        }
    }
    Err(no_name(file))
}

/// Gives a file an unused name and returns it.
fn set_aside(disk: &impl Disk, file: &str) -> io::Result<String> {
    for kept in names(file, DAMAGED) {
        if !disk.has(&kept)? {
            disk.rename(file, &kept)?;
            return Ok(kept);
        }
    }
    Err(no_name(file))
}
