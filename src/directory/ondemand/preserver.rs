//! Files that the folder had at the start, and that are kept before this program writes in their places: files of x0d, and
//! files that cannot be used.

use super::disk::{DAMAGED, Disk, ORIGINAL};
use std::collections::BTreeMap;
use std::io;

/// The greatest number of names that are tried for one file.
const MAX_NAMES: u32 = 100;

/// What the folder had at the start beside the clusters. Nothing of it is touched before the process serves: until then the
/// folder is that of a process before, or a start fails and changes nothing.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Files that a crash has left.
    pub(super) drafts: Vec<String>,
    /// Files that cannot be used, and why; by the name of the cluster.
    pub(super) damaged: Vec<(Box<str>, Damaged)>,
    /// Files of x0d, by the name of the cluster.
    pub(super) originals: Vec<(Box<str>, String)>,
    /// Clusters whose files are left as they are, and why.
    pub(super) reserved: BTreeMap<Box<str>, String>,
}

/// A file that cannot be used.
#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) file: String,
    pub(super) problem: String,
}

/// What is left to be kept, by the name of the cluster.
#[derive(Debug, Default)]
pub(super) struct Preserver {
    damaged: BTreeMap<Box<str>, Vec<Damaged>>,
    originals: BTreeMap<Box<str>, Vec<String>>,
}

impl Preserver {
    /// Removes drafts and sets damaged files aside. What cannot be done now is done before the first write of its cluster.
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

    /// Keeps all files of a cluster that are to be kept, before it is written for the first time.
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
                // Gone, or set aside before another one of this cluster could not be.
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

/// The names for what is kept of a file, the best one first.
fn names<'n>(file: &'n str, ending: &'n str) -> impl Iterator<Item = String> + 'n {
    let name = move |number| if number == 1 { format!("{file}{ending}") } else { format!("{file}{ending}.{number}") };
    (1..=MAX_NAMES).map(name)
}

fn no_name(file: &str) -> io::Error {
    io::Error::other(format!("{MAX_NAMES} copies of {file} are there: remove some"))
}

/// Gives a file that is to be replaced a second name, or copies it where the file system or its rules refuse that.
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

/// Gives a file a name that none has. Returns it.
fn set_aside(disk: &impl Disk, file: &str) -> io::Result<String> {
    for kept in names(file, DAMAGED) {
        if !disk.has(&kept)? {
            disk.rename(file, &kept)?;
            return Ok(kept);
        }
    }
    Err(no_name(file))
}
