//! A file of what was known, for a start while the source of routes is away.
//!
//! The first line says what the file is and of which version, the last one has the number of routes and a checksum of
//! all before it; in between stands one JSON value a line. A file that ends early, or in which a byte was changed, is
//! refused as a whole: half of it would be a guess. A new one is written beside the old one and takes its name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const MAGIC: &str = "sluice snapshot 1";
/// A larger file is none of ours.
const MAX_BYTES: u64 = 4 << 30;

/// What was known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Of which data it is.
    pub(super) histories: Vec<String>,
    pub(super) routes: Vec<Route>,
}

/// What a host resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Route {
    pub(super) host: Box<str>,
    pub(super) pattern: Box<str>,
    pub(super) id: Box<str>,
    pub(super) backends: Box<[Box<str>]>,
}

/// Why a snapshot is not used.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// It does not begin as ours do.
    Foreign,
    /// It is of another version.
    Version(String),
    /// Its end is missing.
    Torn,
    /// Its checksum is not that of its content.
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
            Self::Foreign => write!(f, "it does not begin with {MAGIC:?}"),
            Self::Version(found) => write!(f, "it begins with {found:?}, and this version reads {MAGIC:?}"),
            Self::Torn => f.write_str("its end is missing"),
            Self::Edited => f.write_str("its checksum does not fit its content"),
            Self::Line { number, problem } => write!(f, "line {number}: {problem}"),
        }
    }
}

/// Reads a snapshot.
pub(super) fn read(path: &Path) -> Result<Snapshot, Fault> {
    let metadata = fs::metadata(path).map_err(Fault::Io)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(Fault::Foreign);
    }
    let bytes = fs::read(path).map_err(Fault::Io)?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Snapshot, Fault> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first != MAGIC.as_bytes() {
        let first = String::from_utf8_lossy(&first[..first.len().min(60)]).into_owned();
        return Err(if first.starts_with("sluice snapshot ") { Fault::Version(first) } else { Fault::Foreign });
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
    let fault =
        |number: usize, error: serde_json::Error| Fault::Line { number: number + 1, problem: error.to_string() };
    let (number, histories) = lines.next().ok_or(Fault::Torn)?;
    let histories = serde_json::from_slice(histories).map_err(|error| fault(number, error))?;
    let routes: Result<Vec<_>, _> =
        lines.map(|(number, line)| serde_json::from_slice(line).map_err(|error| fault(number, error))).collect();
    let routes = routes?;
    if count != routes.len().to_string() {
        return Err(Fault::Edited);
    }
    Ok(Snapshot { histories, routes })
}

/// Writes a snapshot in the place of the one before.
pub(super) fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let draft = beside(path, "draft");
    let result = write_draft(&draft, snapshot).and_then(|()| fs::rename(&draft, path));
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}

fn write_draft(draft: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(draft)?);
    let mut hasher = crc32fast::Hasher::new();
    let mut put = |file: &mut BufWriter<File>, line: &[u8]| {
        hasher.update(line);
        hasher.update(b"\n");
        file.write_all(line).and_then(|()| file.write_all(b"\n"))
    };
    put(&mut file, MAGIC.as_bytes())?;
    put(&mut file, &serde_json::to_vec(&snapshot.histories)?)?;
    for route in &snapshot.routes {
        put(&mut file, &serde_json::to_vec(route)?)?;
    }
    writeln!(file, "end {} {:08x}", snapshot.routes.len(), hasher.finalize())?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    // Without this a loss of power could leave the new name with nothing behind it.
    file.sync_all()
}

/// Moves a snapshot that is no good out of the way of the next one. Says what became of it.
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

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}
