//! Faults and warnings of a configuration.

use crate::base::printable::printable;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// A configuration that is not usable, with all its faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The file.
    pub file: PathBuf,
    /// The faults; never empty.
    pub faults: Vec<Fault>,
    /// The warnings.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Failure {
    /// A line for each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}", self.file.display())?;
            match fault {
                // There is no space, so that editors and terminals can jump to the position.
                Fault::Syntax { .. } => write!(f, ":{fault}")?,
                Fault::Unreadable { .. } | Fault::Value { .. } => write!(f, ": {fault}")?,
            }
        }
        Ok(())
    }
}

impl Error for Failure {}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file could not be read.
    Unreadable {
        /// The error of the system.
        error: String,
    },
    /// The text is not JSON.
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 if the text ends before the first column.
        column: usize,
        /// The parser's message.
        problem: String,
    },
    /// A value is invalid.
    Value {
        /// Its path, such as `http.bind[1].port`; empty for the whole text.
        path: String,
        /// The value found.
        found: String,
        /// The values expected.
        expected: Cow<'static, str>,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { error } => write!(f, "reading the configuration: {error}"),
            Self::Syntax { line, column, problem } => write!(f, "{line}:{column}: {problem}"),
            Self::Value { path, found, expected } => {
                let path = if path.is_empty() { "the configuration" } else { path };
                write!(f, "{path}: found {found}, expected {expected}")
            }
        }
    }
}

/// A harmless mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// There is no such setting; it is ignored.
    UnknownKey {
        /// Its path.
        path: String,
        /// The setting that was probably meant.
        nearest: Option<String>,
    },
    /// An older name was used, and is accepted.
    OldKey {
        /// Its path.
        path: String,
        /// The present name of the setting.
        new: &'static str,
    },
    /// An older name was ignored because the new one is present too.
    OldKeyIgnored {
        /// Its path.
        path: String,
        /// The present name of the setting.
        new: &'static str,
    },
    /// A known setting has no effect.
    NoEffect {
        /// Its path.
        path: String,
        /// The reason.
        why: &'static str,
    },
    /// A part of a setting is not supported.
    Instead {
        /// Its path.
        path: String,
        /// The part.
        found: String,
        /// The actual behaviour.
        holds: &'static str,
    },
    /// Every user of the system can read a key.
    OpenKey {
        /// The setting that names it.
        path: String,
        /// The file.
        key: PathBuf,
    },
    /// Something is open to everyone.
    Open {
        /// Its path.
        path: String,
        /// The consequence.
        what: &'static str,
    },
    /// A key occurs more than once in its object.
    Twice {
        /// Its path.
        path: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { path, nearest: None } => write!(f, "{path}: unknown setting, ignored"),
            Self::UnknownKey { path, nearest: Some(nearest) } => {
                write!(f, "{path}: unknown setting, ignored; did you mean {nearest}?")
            }
            Self::OldKey { path, new } => write!(f, "{path}: an old name, use {new} instead"),
            Self::OldKeyIgnored { path, new } => write!(f, "{path}: an old name, ignored because {new} is set too"),
            Self::NoEffect { path, why } => write!(f, "{path}: has no effect: {why}"),
            Self::Instead { path, found, holds } => write!(f, "{path}: {found} is not supported; instead: {holds}"),
            Self::OpenKey { path, key } => {
                let key = key.display();
                write!(f, "{path}: any user of this system can read {key}; take that away with: chmod o= {key}")
            }
            Self::Open { path, what } => write!(f, "{path}: is open to everyone: {what}"),
            Self::Twice { path } => write!(f, "{path}: occurs more than once; the last one counts"),
        }
    }
}

/// Collects faults and warnings while a configuration is read, and the settings that were queried: a setting in the
/// text that was never queried is unknown.
#[derive(Debug, Default)]
pub(super) struct Report(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Fault>,
    warnings: Vec<Warning>,
    /// The paths of opened objects; the empty one is the whole text.
    sections: BTreeSet<String>,
    /// The paths of queried settings.
    settings: BTreeMap<String, Age>,
}

/// Whether the name of a setting is recommended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Current,
    Old,
}

impl Report {
    pub(super) fn fault(&self, path: &str, found: impl Into<String>, expected: impl Into<Cow<'static, str>>) {
        let found = printable(&found.into()).into_owned();
        let fault = Fault::Value { path: path.into(), found, expected: expected.into() };
        self.0.borrow_mut().faults.push(fault);
    }

    pub(super) fn warn(&self, warning: Warning) {
        self.0.borrow_mut().warnings.push(warning);
    }

    pub(super) fn open_section(&self, path: &str) {
        self.0.borrow_mut().sections.insert(path.into());
    }

    pub(super) fn ask_setting(&self, path: &str, age: Age) {
        self.0.borrow_mut().settings.insert(path.into(), age);
    }

    pub(super) fn is_section(&self, path: &str) -> bool {
        self.0.borrow().sections.contains(path)
    }

    pub(super) fn is_known(&self, path: &str) -> bool {
        self.0.borrow().settings.contains_key(path)
    }

    /// The settings with a recommended name.
    pub(super) fn current_settings(&self) -> Vec<String> {
        let inner = self.0.borrow();
        inner.settings.iter().filter(|(_, age)| **age == Age::Current).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<Warning>) {
        let inner = self.0.into_inner();
        (inner.faults, inner.warnings)
    }
}
