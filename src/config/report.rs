//! What is wrong with a configuration, and what is odd about it.

use crate::base::printable::printable;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The file.
    pub file: PathBuf,
    /// What is wrong; never empty.
    pub faults: Vec<Fault>,
    /// What is odd besides.
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Failure {
    /// A line for each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}", self.file.display())?;
            match fault {
                // Without a space, so that editors and terminals can jump there.
                Fault::Syntax { .. } => write!(f, ":{fault}")?,
                Fault::Unreadable { .. } | Fault::Value { .. } => write!(f, ": {fault}")?,
            }
        }
        Ok(())
    }
}

impl Error for Failure {}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file could not be read.
    Unreadable {
        /// What the system says.
        error: String,
    },
    /// The text is no JSON.
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 where the text ends before the line's first.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// A value that cannot be used.
    Value {
        /// Where it stands, as in `http.bind[1].port`; empty for the whole text.
        path: String,
        /// What stands there.
        found: String,
        /// What could stand there.
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

/// Something that does no harm and is hardly what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// No such setting; it is ignored.
    UnknownKey {
        /// Where it stands.
        path: String,
        /// The setting that was probably meant.
        nearest: Option<String>,
    },
    /// An older name, understood all the same.
    OldKey {
        /// Where it stands.
        path: String,
        /// The setting's name now.
        new: &'static str,
    },
    /// An older name, ignored because the new one is there too.
    OldKeyIgnored {
        /// Where it stands.
        path: String,
        /// The setting's name now.
        new: &'static str,
    },
    /// A setting that is known and does nothing here.
    NoEffect {
        /// Where it stands.
        path: String,
        /// Why it does nothing.
        why: &'static str,
    },
    /// A part of a setting has no like here.
    Instead {
        /// Where it stands.
        path: String,
        /// The part.
        found: String,
        /// What holds instead.
        holds: &'static str,
    },
    /// Any user of the system can read a key.
    OpenKey {
        /// The setting that names it.
        path: String,
        /// The file.
        key: PathBuf,
    },
    /// Something is open to everybody.
    Open {
        /// Where it stands.
        path: String,
        /// What comes of it.
        what: &'static str,
    },
    /// A key that stands more than once in its object.
    Twice {
        /// Where it stands.
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
            Self::Instead { path, found, holds } => write!(f, "{path}: {found} is not to be had; instead: {holds}"),
            Self::OpenKey { path, key } => {
                let key = key.display();
                write!(f, "{path}: any user of this system can read {key}; take that away with: chmod o= {key}")
            }
            Self::Open { path, what } => write!(f, "{path}: is open to everybody: {what}"),
            Self::Twice { path } => write!(f, "{path}: stands more than once; the last one counts"),
        }
    }
}

/// Gathers faults and warnings while a configuration is read, and which settings were asked for on the way: whatever
/// is in the text and was never asked for is unknown.
#[derive(Debug, Default)]
pub(super) struct Report(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Fault>,
    warnings: Vec<Warning>,
    /// The paths of the objects that were opened; the empty one is the whole text.
    sections: BTreeSet<String>,
    /// The paths of the settings that were asked for.
    settings: BTreeMap<String, Age>,
}

/// Whether a setting's name is one to recommend.
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

    /// The settings with a name to recommend.
    pub(super) fn current_settings(&self) -> Vec<String> {
        let inner = self.0.borrow();
        inner.settings.iter().filter(|(_, age)| **age == Age::Current).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<Warning>) {
        let inner = self.0.into_inner();
        (inner.faults, inner.warnings)
    }
}
