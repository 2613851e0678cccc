//! The words behind a keyword, one by one.

use crate::haproxy::environment::Environment;
use crate::haproxy::keyword::Treatment;
use crate::haproxy::lexer::Word;
use crate::haproxy::position::{Fault, Position};
use crate::haproxy::units::{self, Unit};
use std::time::Duration;

/// A cursor over the words behind a keyword.
pub(super) struct Arguments<'w> {
    pub(super) words: &'w [Word],
    /// The position of the keyword.
    pub(super) at: Position,
}

impl<'w> Arguments<'w> {
    pub(super) fn new(words: &'w [Word], at: Position) -> Self {
        Self { words, at }
    }

    pub(super) fn next(&mut self) -> Option<&'w Word> {
        let (word, rest) = self.words.split_first()?;
        self.words = rest;
        Some(word)
    }

    pub(super) fn expect(&mut self, expected: &str) -> Result<&'w Word, Fault> {
        self.next().ok_or_else(|| Fault::new(self.at, format!("expected {expected}")))
    }

    pub(super) fn text(&mut self, expected: &str) -> Result<String, Fault> {
        self.expect(expected).map(|word| word.text.clone())
    }

    pub(super) fn accept(&mut self, text: &str) -> bool {
        let is_there = self.words.first().is_some_and(|word| word.text == text);
        if is_there {
            self.words = &self.words[1..];
        }
        is_there
    }

    pub(super) fn number(&mut self, expected: &str) -> Result<u64, Fault> {
        let word = self.expect(expected)?;
        word.text.parse().map_err(|_| Fault::new(word.at, format!("{:?} is no number; expected {expected}", word.text)))
    }

    pub(super) fn time(&mut self) -> Result<Duration, Fault> {
        time(self.expect("a time such as 30s")?, Unit::Millis)
    }

    pub(super) fn seconds(&mut self) -> Result<Duration, Fault> {
        time(self.expect("a time such as 30s")?, Unit::Seconds)
    }

    pub(super) fn size(&mut self) -> Result<u64, Fault> {
        let word = self.expect("a size such as 1m")?;
        units::size(&word.text).ok_or_else(|| Fault::new(word.at, format!("{:?} is no size such as 100k", word.text)))
    }

    /// The remaining words.
    pub(super) fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.words).iter().map(|word| word.text.clone()).collect()
    }

    /// Fails if words remain.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Fault::new(word.at, format!("{:?} is not expected here", word.text))),
        }
    }
}

fn time(word: &Word, unit: Unit) -> Result<Duration, Fault> {
    let time = units::time(&word.text, unit).map(|(time, _)| time);
    let problem = "is no time; expected a whole number and us, ms, s, m, h or d";
    time.ok_or_else(|| Fault::new(word.at, format!("{:?} {problem}", word.text)))
}

/// A parameter of `bind` or `server`, and its effect on the model of the line.
pub(in super::super) struct ParameterWord<T: 'static> {
    pub(in super::super) name: &'static str,
    /// Number of its arguments.
    pub(in super::super) arguments: usize,
    pub(in super::super) treatment: Treatment,
    pub(in super::super) reason: &'static str,
    pub(super) set: fn(&mut T, &str) -> Result<(), String>,
}

type Set<T> = fn(&mut T, &str) -> Result<(), String>;

/// A parameter that is honoured.
pub(super) const fn word<T>(name: &'static str, arguments: usize, set: Set<T>) -> ParameterWord<T> {
    ParameterWord { name, arguments, treatment: Treatment::Honoured, reason: "", set }
}

/// A parameter that is implemented differently.
pub(super) const fn mapped<T>(
    name: &'static str,
    arguments: usize,
    reason: &'static str,
    set: Set<T>,
) -> ParameterWord<T> {
    told(name, arguments, Treatment::Mapped, reason, set)
}

/// A parameter that is parsed, with any treatment.
pub(super) const fn told<T>(
    name: &'static str,
    arguments: usize,
    treatment: Treatment,
    reason: &'static str,
    set: Set<T>,
) -> ParameterWord<T> {
    ParameterWord { name, arguments, treatment, reason, set }
}

/// A known parameter that is not parsed.
pub(super) const fn not<T>(
    name: &'static str,
    arguments: usize,
    treatment: Treatment,
    reason: &'static str,
) -> ParameterWord<T> {
    told(name, arguments, treatment, reason, |_, _| Ok(()))
}

/// Sets a single value.
pub(super) fn set_text(field: &mut Option<String>, value: &str) -> Result<(), String> {
    *field = Some(value.to_owned());
    Ok(())
}

/// Replaces variables in an address.
pub(super) fn expanded(word: &Word, environment: &Environment<'_>) -> String {
    crate::haproxy::address::expand(&word.text, environment)
}
