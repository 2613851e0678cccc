//! The environment of a configuration: environment variables and other files.

use std::collections::BTreeMap;
use std::path::Path;

/// The environment of a configuration. The pure part of the room accesses nothing else.
pub struct Environment<'a> {
    variables: BTreeMap<String, String>,
    read: &'a dyn Fn(&Path) -> Result<Vec<u8>, String>,
}

impl<'a> Environment<'a> {
    /// An environment with the variables at the start, and a reader for files named by rules (`-f`, maps).
    pub fn new(
        variables: impl IntoIterator<Item = (String, String)>,
        read: &'a dyn Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Self {
        Self { variables: variables.into_iter().collect(), read }
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The text of another file; an error is one line.
    pub fn read(&self, path: &Path) -> Result<String, String> {
        String::from_utf8(self.read_bytes(path)?).map_err(|_| "it is not UTF-8".to_owned())
    }

    /// The bytes of another file.
    pub fn read_bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        (self.read)(path)
    }

    /// `setenv`, `presetenv`, `unsetenv` and `resetenv` of the section `global` take effect where they stand.
    pub(super) fn apply(&mut self, words: &[&str]) {
        match words {
            ["setenv", name, value, ..] => drop(self.variables.insert((*name).to_owned(), (*value).to_owned())),
            ["presetenv", name, value, ..] => {
                self.variables.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
            }
            ["unsetenv", names @ ..] => names.iter().for_each(|name| drop(self.variables.remove(*name))),
            ["resetenv", names @ ..] => self.variables.retain(|name, _| names.contains(&name.as_str())),
            _ => {}
        }
    }
}
