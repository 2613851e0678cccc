//! Regular expressions of rules: single ones, and sets.

use super::expression::translate;
use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

/// The limit of a compiled expression in bytes.
const ONE: usize = 4 << 20;

/// The limit of all expressions of one test or map together, in bytes.
const MANY: usize = 64 << 20;

/// The limit of the cache of one expression, or of those of one test or map together, in bytes for each worker.
const CACHE: usize = 2 << 20;

/// A regular expression over bytes, matched in linear time. It has no look-around and no back reference.
#[derive(Clone, Debug)]
pub struct Regex {
    /// The compiled expression.
    pub compiled: regex::bytes::Regex,
    ignore_case: bool,
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.compiled.as_str() == other.compiled.as_str() && self.ignore_case == other.ignore_case
    }
}

impl Eq for Regex {}

impl Regex {
    /// Compiles an expression of PCRE; the problem tells what sluice's engine cannot do.
    pub(in super::super) fn new(pattern: &str, ignore_case: bool) -> Result<Self, String> {
        let built = translate(pattern).and_then(|translated| {
            let mut builder = RegexBuilder::new(&translated);
            builder.unicode(false).case_insensitive(ignore_case).size_limit(ONE).dfa_size_limit(CACHE);
            builder.build().map_err(|error| reason(&error))
        });
        let compiled = built.map_err(|problem| format!("the expression {pattern:?} cannot be used: {problem}"))?;
        Ok(Self { compiled, ignore_case })
    }
}

/// Expressions of which one has to match. They are one automaton, so one pass over a text tests all of them.
#[derive(Clone, Debug)]
pub struct Expressions {
    compiled: RegexSet,
    /// As they are written.
    written: Box<[Box<str>]>,
}

impl PartialEq for Expressions {
    fn eq(&self, other: &Self) -> bool {
        self.compiled.patterns() == other.compiled.patterns()
    }
}

impl Eq for Expressions {}

impl Expressions {
    /// Compiles expressions with their flags for `-i`.
    pub(in super::super) fn new(patterns: &[(&str, bool)]) -> Result<Self, String> {
        let mut translated = Vec::with_capacity(patterns.len());
        for (pattern, ignore_case) in patterns {
            let text = translate(pattern)
                .map_err(|problem| format!("the expression {pattern:?} cannot be used: {problem}"))?;
            translated.push(if *ignore_case { format!("(?i:{text})") } else { text });
        }
        let mut builder = RegexSetBuilder::new(&translated);
        builder.unicode(false).size_limit(MANY).dfa_size_limit(CACHE);
        let compiled = builder.build().map_err(|error| {
            // The problem names the one that has it.
            let own = patterns.iter().find_map(|(pattern, ignore_case)| Regex::new(pattern, *ignore_case).err());
            own.unwrap_or_else(|| format!("{} expressions are too large together: {}", patterns.len(), reason(&error)))
        })?;
        let written = patterns.iter().map(|(pattern, _)| (*pattern).into()).collect();
        Ok(Self { compiled, written })
    }

    /// The expressions as they are written.
    pub fn written(&self) -> &[Box<str>] {
        &self.written
    }

    /// Whether one matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }

    /// The place of the first one that matches.
    pub fn first_match(&self, text: &[u8]) -> Option<usize> {
        // Which ones match is found out with an allocation, so only where there is one.
        self.is_match(text).then(|| self.compiled.matches(text).iter().next()).flatten()
    }
}

fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
