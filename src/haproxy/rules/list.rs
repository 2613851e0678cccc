//! Lists and maps in files (configuration.txt section 2.7).

use super::{Problem, RuleContext};
use crate::haproxy::position::Position;
use std::path::Path;

/// The text of a list or a map: the file of `opt@` may be missing, `virt@` is empty.
pub(super) fn read_list(name: &str, at: Position, context: RuleContext<'_, '_>) -> Result<String, Problem> {
    if name.starts_with("virt@") {
        return Err(Problem::unsupported(at, format!("{name}: it is filled over HAProxy's command socket")));
    }
    let optional = name.strip_prefix("opt@");
    let path = optional.or_else(|| name.strip_prefix("file@")).unwrap_or(name);
    match context.environment.read(Path::new(path)) {
        Ok(text) => Ok(text),
        Err(_) if optional.is_some() => Ok(String::new()),
        Err(problem) => Err(Problem::unsupported(at, format!("{path} cannot be read: {problem}"))),
    }
}

/// The part of each line of a list that is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListLines {
    /// The whole line.
    Whole,
    /// The first word: the file is a map (`-M`).
    Keys,
}

impl ListLines {
    /// The values of a file; empty lines and comments have none.
    pub(super) fn of(self, text: &str) -> impl Iterator<Item = &str> {
        map_lines(text).map(move |line| match self {
            Self::Whole => line,
            Self::Keys => line.split([' ', '\t']).next().unwrap_or_default(),
        })
    }
}

/// The lines of a list or a map, without blank lines and comments.
pub(super) fn map_lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '\t']).trim_end_matches('\r'));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}
