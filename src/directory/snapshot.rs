//! A file of known routes or certificates, for a start while the source of routes is away.
//!
//! The first line names the type and the version of the file. The last line has the number of items and a checksum of
//! all lines before; between them stands one JSON value a line. A file that ends early, or in which a byte was changed,
//! is refused as a whole: half of it would be a guess. A new file is written next to the old one and takes its name.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A larger file is not read: it would take longer than a start may.
const MAX_BYTES: u64 = 1 << 30;

/// The type of the items of a snapshot.
pub(super) trait SnapshotEntry: Serialize + DeserializeOwned {
    /// The first line of the file, which ends with its version.
    const MAGIC: &'static str;
    /// The permissions of the file.
    const MODE: u32;
}

/// The content of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot<T> {
    /// The histories of the data that it comes from.
    pub(super) histories: Vec<String>,
    pub(super) items: Vec<T>,
}

/// The route of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) host: Box<str>,
    pub(super) pattern: Box<str>,
    pub(super) id: Box<str>,
    pub(super) backends: Box<[Box<str>]>,
    /// Names and values of the options; absent in an older snapshot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) options: BTreeMap<Box<str>, Box<str>>,
    /// The option of this name in an older snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) https_redirect: Option<bool>,
    /// Dead marks, if the snapshot is a hand-over to another process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) marks: Vec<Mark>,
}

/// A dead mark of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The index of the backend within its route.
    pub(super) member: usize,
    /// Milliseconds from the time of writing to the end of the mark.
    pub(super) left_ms: u64,
    /// Another node or a checker has made the mark.
    pub(super) is_external: bool,
}

impl SnapshotEntry for Route {
    const MAGIC: &'static str = "sluice snapshot 1";
    const MODE: u32 = 0o666;
}

/// Why a snapshot is not used.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// It does not begin as a snapshot does.
    Foreign {
        expected: &'static str,
    },
    /// It is of another version.
    Version {
        found: String,
        expected: &'static str,
    },
    /// It is too large.
    Large {
        bytes: u64,
    },
    /// Its end is missing.
    Torn,
    /// The checksum does not match.
    Edited,
    /// A line cannot be read, although the checksum is right.
    Line {
        number: usize,
        problem: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Foreign { expected } => write!(f, "it does not begin with {expected:?}"),
            Self::Version { found, expected } => {
                write!(f, "it begins with {found:?}, and this version reads {expected:?}")
            }
            Self::Large { bytes } => write!(f, "it has {} MiB, and {} is the most", bytes >> 20, MAX_BYTES >> 20),
            Self::Torn => f.write_str("its end is missing"),
            Self::Edited => f.write_str("its checksum does not fit its content"),
            Self::Line { number, problem } => write!(f, "line {number}: {problem}"),
        }
    }
}

/// Reads a snapshot.
pub(super) fn read<T: SnapshotEntry>(path: &Path) -> Result<Snapshot<T>, Fault> {
    let metadata = fs::metadata(path).map_err(Fault::Io)?;
    if !metadata.is_file() {
        return Err(Fault::Foreign { expected: T::MAGIC });
    }
    if metadata.len() > MAX_BYTES {
        return Err(Fault::Large { bytes: metadata.len() });
    }
    let bytes = fs::read(path).map_err(Fault::Io)?;
    parse(&bytes)
}

pub(super) fn parse<T: SnapshotEntry>(bytes: &[u8]) -> Result<Snapshot<T>, Fault> {
    let expected = T::MAGIC;
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first != expected.as_bytes() {
        let found = String::from_utf8_lossy(&first[..first.len().min(60)]).into_owned();
        let is_ours = expected.rsplit_once(' ').is_some_and(|(name, _)| found.starts_with(name));
        return Err(if is_ours { Fault::Version { found, expected } } else { Fault::Foreign { expected } });
    }
    let body = bytes.strip_suffix(b"\n").ok_or(Fault::Torn)?;
    let last_start = body.iter().rposition(|byte| *byte == b'\n').ok_or(Fault::Torn)? + 1;
    let last = std::str::from_utf8(&body[last_start..]).ok().and_then(|last| last.strip_prefix("end "));
    let (count, sum) = last.and_then(|last| last.split_once(' ')).ok_or(Fault::Torn)?;
    if sum != checksum(&bytes[..last_start]) {
        return Err(Fault::Edited);
    }
    let mut lines =
        bytes[..last_start].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate().skip(1);
    // The parser's own text may quote the value, which may be a key.
    let fault = |number: usize, error: serde_json::Error| {
        let what = if error.is_data() { "a value is not of the kind that belongs here" } else { "it is no JSON" };
        Fault::Line { number: number + 1, problem: format!("{what} (column {})", error.column()) }
    };
    let (number, histories) = lines.next().ok_or(Fault::Torn)?;
    let histories = serde_json::from_slice(histories).map_err(|error| fault(number, error))?;
    let items: Result<Vec<_>, _> =
        lines.map(|(number, line)| serde_json::from_slice(line).map_err(|error| fault(number, error))).collect();
    let items = items?;
    if count != items.len().to_string() {
        return Err(Fault::Edited);
    }
    Ok(Snapshot { histories, items })
}

/// Writes a snapshot in place of the earlier one.
pub(super) fn write<T: SnapshotEntry>(path: &Path, snapshot: &Snapshot<T>) -> io::Result<()> {
    let draft = beside(path, "draft");
    let result = write_draft(&draft, snapshot).and_then(|()| fs::rename(&draft, path));
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}

fn write_draft<T: SnapshotEntry>(draft: &Path, snapshot: &Snapshot<T>) -> io::Result<()> {
    // A file left by a crash may have wider permissions.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().write(true).create_new(true).mode(T::MODE).open(draft)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    encode(snapshot, &mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    // Without this a power failure could leave the new name with an empty file.
    file.sync_all()
}

pub(super) fn encode<T: SnapshotEntry>(snapshot: &Snapshot<T>, out: &mut impl Write) -> io::Result<()> {
    let mut hasher = crc32fast::Hasher::new();
    let mut put = |line: &[u8]| {
        hasher.update(line);
        hasher.update(b"\n");
        out.write_all(line).and_then(|()| out.write_all(b"\n"))
    };
    put(T::MAGIC.as_bytes())?;
    put(&serde_json::to_vec(&snapshot.histories)?)?;
    for item in &snapshot.items {
        put(&serde_json::to_vec(item)?)?;
    }
    writeln!(out, "end {} {:08x}", snapshot.items.len(), hasher.finalize())
}

/// The target of a path that is a symbolic link: replacing the link itself would leave the target behind.
pub(super) fn follow_link(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| match fs::read_link(path) {
        // The target does not exist yet. A relative link starts at its own folder.
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.to_owned(),
    })
}

/// Makes this process the only writer of a snapshot, until the result is dropped.
pub(super) fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(beside(path, "lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => {
            let problem = "another process writes it; give each process a file of its own";
            io::Error::new(io::ErrorKind::ResourceBusy, problem)
        }
        error => error.into(),
    })
}

/// Renames an unusable snapshot to make room for the next one. Returns a description for the log.
pub(super) fn set_aside(path: &Path) -> String {
    if !path.is_file() {
        return "is no file, and is left".to_owned();
    }
    let aside = beside(path, "refused");
    match fs::rename(path, &aside) {
        Ok(()) => format!("is kept as {}", aside.display()),
        Err(error) => format!("could not be moved to {}: {error}", aside.display()),
    }
}

/// The path of a file next to a snapshot.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_costs_nothing_but_the_new_snapshot() {
        let folder = std::env::temp_dir().join(format!("sluice-snapshot-full-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("snapshot");
        let of = |history: &str| Snapshot::<Route> { histories: vec![history.into()], items: Vec::new() };
        let mut full = File::options().write(true).open("/dev/full").expect("a full disk");
        assert_eq!(encode(&of("any"), &mut full).expect_err("it is full").kind(), io::ErrorKind::StorageFull);

        write(&path, &of("old")).expect("there is room");
        let draft = beside(&path, "draft");
        fs::create_dir(&draft).expect("something in the way of the draft");
        write(&path, &of("new")).expect_err("it is in the way");
        assert_eq!(read(&path).expect("the old one"), of("old"));
        fs::remove_dir(&draft).expect("it goes");
        write(&path, &of("newer")).expect("the way is free again");
        assert_eq!(read(&path).expect("the new one"), of("newer"));
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
