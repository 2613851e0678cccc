//! Where a word stands, and what is wrong there.

use std::fmt;

/// A place in a configuration: the index of a file in the order of reading, a line and a column in bytes, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index into the list of files.
    pub file: u32,
    /// The line.
    pub line: u32,
    /// The column, in bytes.
    pub column: u32,
}

/// Something that HAProxy would not accept either, or that cannot be read: the place, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The place of the word.
    pub at: Position,
    /// One line: what was found, what was expected.
    pub problem: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(at: Position, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.at.line, self.at.column, self.problem)
    }
}
