//! The files of a configuration on the disk.

use super::reader::Source;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest file of a configuration, list or map, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Reads files, and of folders the files `*.cfg` sorted by name, as `haproxy -f` does.
///
/// An error is one line that names the file.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for path in paths {
        if !path.is_dir() {
            sources.push(source(path)?);
            continue;
        }
        let failed = |error: std::io::Error| format!("reading {}: {error}", path.display());
        let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()).map_err(failed)?;
        let is_config = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".cfg") && !name.starts_with('.') && path.is_file()
        };
        let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(is_config).collect();
        files.sort();
        if files.is_empty() {
            return Err(format!("{}: there is no file *.cfg in it", path.display()));
        }
        for file in files {
            sources.push(source(&file)?);
        }
    }
    Ok(sources)
}

fn source(path: &Path) -> Result<Source, String> {
    let bytes = read(path).map_err(|problem| format!("reading {}: {problem}", path.display()))?;
    Ok(Source { name: path.display().to_string(), bytes })
}

/// The bytes of a file: of a configuration, or one named by a rule.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}
