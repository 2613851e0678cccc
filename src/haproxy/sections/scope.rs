//! The state in which a line of a proxy is parsed, and the parsers of keywords.

use super::Finding;
use super::arguments::{Arguments, ParameterWord};
use crate::haproxy::environment::Environment;
use crate::haproxy::keyword::{Places, Treatment, nearest};
use crate::haproxy::lexer::Word;
use crate::haproxy::model::{Flag, Proxy, Timeouts};
use crate::haproxy::position::{Fault, Position};
use crate::haproxy::rules::{Problem, RuleContext};
use std::time::Duration;

/// A keyword of a proxy.
pub(in super::super) struct ProxyWord {
    /// One to three words.
    pub(in super::super) name: &'static str,
    pub(in super::super) places: Places,
    pub(in super::super) treatment: Treatment,
    pub(in super::super) reason: &'static str,
    pub(super) read: Read,
}

/// The parser of a keyword's line.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// None: the treatment says everything.
    Nothing,
    /// An option without arguments, which `no` turns off.
    Flag(Flag),
    /// A single time.
    Timeout(fn(&mut Timeouts) -> &mut Option<Duration>),
    /// A function.
    With(fn(&mut ProxyScope<'_, '_>, &mut Arguments<'_>) -> Result<(), Fault>),
}

/// The state in which a line of a proxy is parsed.
pub(super) struct ProxyScope<'a, 'e> {
    pub(super) proxy: &'a mut Proxy,
    pub(super) findings: &'a mut Vec<Finding>,
    pub(super) environment: &'a Environment<'e>,
    pub(super) section: u32,
    /// `no` precedes the keyword.
    pub(super) is_negated: bool,
    /// The treatment of the whole line, if it differs from the table.
    pub(super) outcome: Option<(Treatment, String)>,
    /// The keyword, of up to three words.
    pub(super) keyword: &'static str,
}

impl ProxyScope<'_, '_> {
    /// Adds a finding about one word within a line.
    pub(super) fn note(&mut self, word: &Word, treatment: Treatment, note: impl Into<std::borrow::Cow<'static, str>>) {
        self.note_at(word.at, word.text.clone(), treatment, note);
    }

    pub(super) fn note_at(
        &mut self,
        at: Position,
        word: String,
        treatment: Treatment,
        note: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        self.findings.push(Finding { at, word, treatment, note: note.into(), section: self.section });
    }

    /// Calls `read` with the context for rules.
    pub(super) fn with_rules<T>(&self, read: impl FnOnce(RuleContext<'_, '_>) -> T) -> T {
        read(RuleContext { environment: self.environment, acls: &self.proxy.acls })
    }

    /// An unsupported rule is refused or lost; a malformed one is a fault.
    pub(super) fn settle<T>(&mut self, result: Result<T, Problem>, decisive: bool) -> Result<Option<T>, Fault> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Problem::Wrong(fault)) => Err(fault),
            Err(Problem::Unsupported(fault)) => {
                let treatment = if decisive { Treatment::Refused } else { Treatment::Lost };
                self.outcome = Some((treatment, fault.problem));
                Ok(None)
            }
        }
    }

    /// Parses the parameters of `bind` or `server` behind the address.
    pub(super) fn parameters<T>(
        &mut self,
        words: &'static [ParameterWord<T>],
        target: &mut T,
        arguments: &mut Arguments<'_>,
    ) -> Result<(), Fault> {
        while let Some(word) = arguments.next() {
            let Some(known) = words.iter().find(|known| known.name == word.text) else {
                let similar = nearest(&word.text, words.iter().map(|known| known.name));
                let hint = similar.map(|name| format!("; {name} is similar")).unwrap_or_default();
                return Err(Fault::new(word.at, format!("{:?} is no word of {}{hint}", word.text, self.keyword)));
            };
            let mut value = String::new();
            for _ in 0..known.arguments {
                let argument = arguments.next();
                let expected = || Fault::new(word.at, format!("expected a value after {}", word.text));
                value = super::arguments::expanded(argument.ok_or_else(expected)?, self.environment);
            }
            (known.set)(target, &value).map_err(|problem| Fault::new(word.at, format!("{}: {problem}", word.text)))?;
            let is_spoken = known.name == "proto" && matches!(value.as_str(), "h1" | "none");
            if known.treatment != Treatment::Honoured && !is_spoken {
                self.note(word, known.treatment, known.reason);
            }
        }
        Ok(())
    }
}
