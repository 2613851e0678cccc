//! Positions of words, and faults there.

use std::fmt;

/// A position in a configuration: the index of a file in the order of reading, a line and a column in bytes, both from
/// 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index into the list of files.
    pub file: u32,
    /// The line.
    pub line: u32,
    /// The column, in bytes.
    pub column: u32,
}

/// A fault that HAProxy would not accept either, or that makes a line unreadable: its position, and what to do about
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The position of the word.
    pub at: Position,
    /// One line: the text found, and the text expected.
    pub problem: String,
}

impl Fault {
    /// A fault at a position.
    pub fn new(at: Position, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.at.line, self.at.column, self.problem)
    }
}
