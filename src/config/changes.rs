//! Changes of a configuration file since it was read.

use super::raw::join;
use super::{Failure, Fault, Overrides, from_text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The file of a configuration, and its content when it was applied.
#[derive(Debug)]
pub struct Origin {
    file: PathBuf,
    overrides: Overrides,
    /// `Null` if it was not JSON.
    before: Value,
}

impl Origin {
    /// Records the present content of the file.
    pub fn new(file: &Path, overrides: &Overrides) -> Self {
        let before = fs::read_to_string(file).map_or(Value::Null, |text| parse(&text));
        Self { file: file.to_owned(), overrides: overrides.clone(), before }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The paths of settings that differ from those at the start, such as `http.port`, or why the file is no longer
    /// usable.
    pub fn changed_settings(&self) -> Result<Vec<String>, Failure> {
        let text = fs::read_to_string(&self.file).map_err(|error| Failure {
            file: self.file.clone(),
            faults: vec![Fault::Unreadable { error: error.to_string() }],
            warnings: Vec::new(),
        })?;
        from_text(&text, &self.file, &self.overrides)?;
        let mut changed = BTreeSet::new();
        compare("", &self.before, &parse(&text), &mut changed);
        Ok(changed.into_iter().collect())
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).unwrap_or_default()
}

/// An absent value is `null`, as everywhere. Objects are compared by member, lists as a whole.
fn compare(path: &str, before: &Value, now: &Value, changed: &mut BTreeSet<String>) {
    let empty = serde_json::Map::new();
    let members = |value: &Value| value.as_object().cloned();
    if before == now {
        return;
    }
    match (members(before), members(now)) {
        (None, None) => {
            changed.insert(path.to_owned());
        }
        (before, now) => {
            let (before, now) = (before.unwrap_or_else(|| empty.clone()), now.unwrap_or_else(|| empty.clone()));
            for key in before.keys().chain(now.keys()) {
                let [before, now] = [&before, &now].map(|members| members.get(key).unwrap_or(&Value::Null));
                compare(&join(path, key), before, now, changed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changed_settings_are_named_by_their_paths() {
        let before = json!({"http": {"port": 80, "bind": ["::1"]}, "server": {"debug": null}, "driver": "redis:"});
        let table = [
            (before.clone(), vec![]),
            (json!({"http": {"port": 80, "bind": ["::1"]}, "driver": "redis:"}), vec![]),
            (json!({"http": {"port": 81, "bind": ["::"]}, "driver": "redis:"}), vec!["http.bind", "http.port"]),
            (json!({"driver": {"url": "redis:"}}), vec!["driver.url", "http.bind", "http.port"]),
            (
                json!({"server": {"tenants": {"requests": 7}}, "http": {"port": 80, "bind": ["::1"]}, "driver": "redis:"}),
                vec!["server.tenants.requests"],
            ),
            (
                json!({"http": {"port": 80, "bind": ["::1"]}, "driver": "redis:", "https": {"port": 1}}),
                vec!["https.port"],
            ),
        ];
        for (now, expected) in table {
            let mut changed = BTreeSet::new();
            compare("", &before, &now, &mut changed);
            assert_eq!(changed.into_iter().collect::<Vec<_>>(), expected, "{now}");
        }
    }
}
