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
