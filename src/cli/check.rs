//! `sluice check`: checks any file that sluice reads, by its content.

use super::haproxy::{self, Check as HaproxyCheck};
use super::tools::fail;
use crate::config::{self, LogFormat, Overrides};
use crate::directory;
use clap::Args;
use nix::unistd::Uid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `sluice check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckFiles {
    /// Configurations, routes files, HAProxy's files or folders of them [default: config/config.json]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Configuration,
    Routes,
    Haproxy,
}

/// Detects the kind by the content: an object with `frontends` is a routes file, any other object a configuration, and
/// any other text a HAProxy file.
fn kind_of(path: &Path, text: &str) -> Kind {
    let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    if path.is_dir() || !is_json {
        return Kind::Haproxy;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.get("frontends").is_some() => Kind::Routes,
        _ => Kind::Configuration,
    }
}

/// Checks each file. The status is 1 if one is not usable.
pub(super) fn run(arguments: &CheckFiles, default: &Path) -> ExitCode {
    let mut files = arguments.files.clone();
    if files.is_empty() {
        files.push(default.to_owned());
    }
    let mut configurations = Vec::new();
    let mut is_good = true;
    for path in &files {
        let text = if path.is_dir() { Ok(String::new()) } else { fs::read_to_string(path) };
        match text.map(|text| kind_of(path, &text)) {
            Ok(Kind::Configuration) => configurations.push(path),
            Ok(Kind::Routes) => is_good &= check_routes(path),
            Ok(Kind::Haproxy) => {
                let check = HaproxyCheck { files: vec![path.clone()], lossy: false, whole: false, losses: true };
                is_good &= haproxy::check(&check);
            }
            Err(error) => {
                fail(&format!("reading {}: {error}", path.display()));
                is_good = false;
            }
        }
    }
    // They come last: the check of a configuration as root gives up root's rights.
    for path in configurations {
        is_good &= check_configuration(path);
    }
    super::status_of(is_good)
}

fn check_routes(path: &Path) -> bool {
    match directory::read_routes(path) {
        Ok(routes) => {
            println!("{}: OK, a routes file with {} lists", path.display(), routes.len());
            true
        }
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

fn check_configuration(path: &Path) -> bool {
    let overrides = Overrides { is_root: Uid::effective().is_root(), ..Overrides::default() };
    match config::load(path, &overrides) {
        Ok((settings, warnings)) => {
            super::print_warnings(LogFormat::Text, path, &warnings);
            super::try_start(path, &settings)
        }
        Err(failure) => {
            super::print_warnings(LogFormat::Text, path, &failure.warnings);
            eprintln!("{failure}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files_are_detected_by_content() {
        let table = [
            (r#"{"frontends": {}}"#, Kind::Routes),
            ("\u{feff} {\"driver\": \"redis:\"}", Kind::Configuration),
            ("{", Kind::Configuration),
            ("# HAProxy\nglobal\n", Kind::Haproxy),
            ("", Kind::Haproxy),
        ];
        for (text, expected) in table {
            assert_eq!(kind_of(Path::new("/nowhere"), text), expected, "{text}");
        }
    }
}
