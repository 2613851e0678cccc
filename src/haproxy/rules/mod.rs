//! Parsing of ACLs, conditions, samples, formats and actions (configuration.txt sections 4.4, 7 and 8.2.6).

mod acl;
mod action;
mod converter;
mod expression;
mod fetch;
mod format;
mod list;
mod lookup;
mod parse_action;
mod pattern;
mod regex;
mod sample;
mod words;

pub use acl::{Acl, Condition, Criterion, Term, Tests};
pub use action::{Action, BackendRule, BackendTarget, LocalResponse, Redirect, RedirectKind, Rule, Rules, ServerRule};
pub use converter::{Coding, Converter, MapKeys, MapTable, Operation};
pub use fetch::{Counter, CounterOperation, Fetch, LoadKind, ReadAs, SampleType, Side};
pub use format::{Format, FormatFlags, FormatPart};
pub use lookup::{Networks, Prefixes};
pub use pattern::{Matching, TextMatch, TextPattern};
pub use regex::{Expressions, Regex};
pub use sample::Sample;

#[cfg(test)]
pub(super) use acl::ACL_CRITERIA;
pub(super) use acl::{is_acl_name, parse_acl, parse_condition};
pub(super) use format::can_render;
pub(super) use parse_action::{Parsed, parse_action, parse_redirect};
pub(super) use pattern::parse_network;
pub(super) use words::{RuleSet, actions, converters, fetches};

use super::environment::Environment;
use super::position::{Fault, Position};

/// Why a rule is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is malformed: HAProxy refuses it as well, or its meaning is unclear.
    Wrong(Fault),
    /// It is valid, but not supported.
    Unsupported(Fault),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Wrong(fault)
    }
}

impl Problem {
    pub(super) fn wrong(at: Position, problem: impl Into<String>) -> Self {
        Self::Wrong(Fault::new(at, problem))
    }

    pub(super) fn unsupported(at: Position, problem: impl Into<String>) -> Self {
        Self::Unsupported(Fault::new(at, problem))
    }
}

/// The context in which a rule is parsed.
#[derive(Clone, Copy)]
pub(super) struct RuleContext<'a, 'e> {
    /// Files and variables.
    pub(super) environment: &'a Environment<'e>,
    /// The ACLs of the proxy so far.
    pub(super) acls: &'a [Acl],
}
