//! The file with the process id (`server.pidFile`).

use super::privileges::Account;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;

/// The longest earlier content of the file in bytes: more than any process id.
const LONGEST: usize = 64;

/// The pid file, while it names this process.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file. The file is given to the account that this process is about to use, so that a successor with
    /// the same permissions can write its own id.
    pub(super) fn write(path: &Path, account: Account) -> io::Result<Self> {
        Self::put_number(path, account).map(|()| Self { path: path.to_owned() })
    }

    fn put_number(path: &Path, account: Account) -> io::Result<()> {
        // A link made by another user in a world-writable folder must not lead root to another file, nor may a pipe
        // block it.
        let mut options = OpenOptions::new();
        let mut file: File = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no regular file"));
        }
        fchown(&file, account.user.map(Into::into), account.group.map(Into::into))?;
        let text = format!("{}\n", process::id());
        // One write replaces the earlier content by the id and empty lines, so no reader ever sees an empty file or
        // half an id.
        let before = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(LONGEST);
        file.write_all(format!("{text:\n<before$}").as_bytes())?;
        file.set_len(text.len() as u64)
    }

    /// Writes this process's id again, if a failed successor has written its own.
    pub(super) fn renew(&self) -> io::Result<()> {
        if self.is_ours() { Ok(()) } else { Self::put_number(&self.path, Account::default()) }
    }

    fn is_ours(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text.trim() == process::id().to_string())
    }
}

impl Drop for PidFile {
    /// Removes the file, unless it names another process. If the account may not remove it, the file is emptied.
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let removed = fs::remove_file(&self.path).or_else(|_| File::create(&self.path).map(drop));
        if let Err(error) = removed {
            log::warn!("server.pidFile: removing {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn it_names_this_process_and_goes_with_it_unless_another_has_taken_it_over() {
        let folder = std::env::temp_dir().join(format!("sluice-pid-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("sluice.pid");
        fs::write(&path, "1234567890 of an earlier run\n").expect("an old file");
        let own = || fs::read_to_string(&path).unwrap_or_default();
        let file = PidFile::write(&path, Account::default()).expect("a file");
        assert_eq!(own(), format!("{}\n", process::id()));
        drop(file);
        assert!(!path.exists());

        let file = PidFile::write(&path, Account::default()).expect("a file");
        fs::write(&path, "12345678\n").expect("the number of a successor that fails");
        file.renew().expect("a file");
        assert_eq!(own(), format!("{}\n", process::id()));
        fs::write(&path, "1\n").expect("the successor's number");
        drop(file);
        assert_eq!(own(), "1\n");

        let link = folder.join("link");
        symlink(&path, &link).expect("a link");
        assert!(PidFile::write(&link, Account::default()).is_err(), "a link is not followed");
        let refused = PidFile::write(Path::new("/dev/null"), Account::default()).expect_err("a device");
        assert!(refused.to_string().contains("no regular file"), "{refused}");
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
