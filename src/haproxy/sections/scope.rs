//! What a line of a proxy is read into, and how its keyword says so.

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

/// How a keyword's line is read.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// The treatment says it all.
    Nothing,
    /// An option without arguments, which `no` takes back.
    Flag(Flag),
    /// One time.
    Timeout(fn(&mut Timeouts) -> &mut Option<Duration>),
    /// Anything else.
    With(fn(&mut ProxyScope<'_, '_>, &mut Arguments<'_>) -> Result<(), Fault>),
}

/// What a line of a proxy is read into.
pub(super) struct ProxyScope<'a, 'e> {
    pub(super) proxy: &'a mut Proxy,
    pub(super) findings: &'a mut Vec<Finding>,
    pub(super) environment: &'a Environment<'e>,
    pub(super) section: u32,
    /// `no` stands before the keyword.
    pub(super) is_negated: bool,
    /// What the whole line comes to, where that is not what the table says.
    pub(super) outcome: Option<(Treatment, String)>,
    /// Two or three words that the line begins with.
    pub(super) keyword: &'static str,
}

impl ProxyScope<'_, '_> {
    /// Something to say of one word within a line.
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

    /// What rules are read with.
    pub(super) fn with_rules<T>(&self, read: impl FnOnce(RuleContext<'_, '_>) -> T) -> T {
        read(RuleContext { environment: self.environment, acls: &self.proxy.acls })
    }

    /// What sluice cannot do is refused or lost; what is wrong is a fault.
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

    /// Reads the words of `bind` or `server` after the address.
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
