//! The folder of the clusters' files, as a few operations. A test replaces it and fails at each of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Suffixes of files: of this program and of x0d, of x0d's rewrite, of drafts, of x0d's originals, and of damaged files.
pub(super) const OWN: &str = ".db";
pub(super) const REWRITE: &str = ".cluster.conf";
pub(super) const DRAFT: &str = ".draft";
pub(super) const ORIGINAL: &str = ".x0d";
pub(super) const DAMAGED: &str = ".damaged";

/// Operations of a writer in the folder. Names are those of files in it.
pub(super) trait Disk {
    /// Makes a new, empty file, replacing one with this name.
    fn create(&self, name: &str) -> io::Result<()>;
    /// Appends bytes to the file that was created last.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the content of these files is on the disk.
    fn sync(&self, names: &[String]) -> io::Result<()>;
    /// Renames a file, replacing one with the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name. An error if a file has that name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Copies a file to a new one, and waits until that is on the disk. An error if a file has that name.
    fn copy(&self, from: &str, to: &str) -> io::Result<()>;
    /// Whether there is a file of this name.
    fn has(&self, name: &str) -> io::Result<bool>;
    /// Whether two files have the same content.
    fn is_same(&self, one: &str, other: &str) -> io::Result<bool>;
    /// Removes a file. A missing file is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until the names in the folder are on the disk.
    fn sync_folder(&self) -> io::Result<()>;
}

/// Above this number of files, the whole file system is synchronised instead of each file.
const MOST_SINGLY: usize = 16;

/// A folder of the file system. One file is open at a time.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    open: std::sync::Mutex<Option<File>>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: std::sync::Mutex::default() }
    }

    fn with_open<T>(&self, work: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.as_mut().map_or_else(|| Err(io::ErrorKind::NotFound.into()), work)
    }
}

impl Disk for Folder {
    fn create(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let create = || File::create(&path);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.path)?;
                create()
            }
            other => other,
        };
        *self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(file?);
        Ok(())
    }

    fn append(&self, _: &str, bytes: &[u8]) -> io::Result<()> {
        self.with_open(|file| file.write_all(bytes))
    }

    fn sync(&self, names: &[String]) -> io::Result<()> {
        if names.len() > MOST_SINGLY {
            return Ok(nix::unistd::syncfs(File::open(&self.path)?)?);
        }
        names.iter().try_for_each(|name| File::open(self.path.join(name))?.sync_all())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path.join(from), self.path.join(to))
    }

    fn copy(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut original, to) = (File::open(self.path.join(from))?, self.path.join(to));
        let mut copy = File::create_new(&to)?;
        let copied = io::copy(&mut original, &mut copy).and_then(|_| copy.sync_all());
        // On a full disk its space is needed.
        copied.inspect_err(|_| drop(fs::remove_file(&to)))
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        match fs::symlink_metadata(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true),
        }
    }

    fn is_same(&self, one: &str, other: &str) -> io::Result<bool> {
        let [one, other] = [one, other].map(|name| fs::read(self.path.join(name)));
        Ok(one? == other?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
