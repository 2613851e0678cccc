//! The rules of a proxy in an immutable form that is evaluated for a request without allocation.
//!
//! A program is made once and shared by all workers; a [`Scratch`] belongs to one worker and keeps its buffers. An
//! action affects later rules, so the caller takes rules one by one: [`Program::next`], then the action on its own
//! request, then `next` from the following rule. Successive `use_backend` lines that compare the same sample for
//! equality, such as the host, become one look-up.

mod compile;
mod convert;
mod fetch;
mod render;
#[cfg(test)]
mod tables_tests;
#[cfg(test)]
mod tests;
mod view;

pub use view::{RequestView, Scratch, Value};

use super::model::{Model, Proxy, StickRule};
use super::rules::{BackendTarget, Format, Matching, Networks, Prefixes, Rule, Sample, SampleType};
use fetch::Values;
use std::collections::{HashMap, HashSet};

/// A list of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `tcp-request connection` and `session`.
    Connection,
    /// `tcp-request content`.
    Content,
    /// `http-request`.
    Request,
    /// `redirect`.
    Redirects,
    /// `http-response`.
    Response,
    /// `http-after-response`.
    AfterResponse,
    /// `reqrep` and the other old keywords.
    OldRequest,
    /// `rsprep` and the other old keywords.
    OldResponse,
}

/// The selected backend of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To the proxy of this index in the model.
    Backend(usize),
    /// None: no rule matches and there is no default. HAProxy's response is 503.
    None,
}

/// The rules of one proxy.
#[derive(Debug)]
pub struct Program {
    acls: Vec<Vec<Test>>,
    lists: [Vec<(Rule, Option<Clause>)>; 8],
    switch: Vec<Step>,
    default: Option<usize>,
    /// The index of each backend by name, for names made from the request.
    names: HashMap<String, usize>,
    monitor: Vec<Clause>,
    servers: Vec<(String, Option<Clause>)>,
    sticks: Vec<(StickRule, Option<Clause>)>,
}

/// A compiled condition.
#[derive(Debug)]
struct Clause {
    negated: bool,
    any: Vec<Vec<(bool, Tests)>>,
}

#[derive(Debug)]
enum Tests {
    Acl(usize),
    Inline(Vec<Test>),
}

#[derive(Debug)]
struct Test {
    sample: Sample,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Plain(Matching),
    /// Many texts, compared for equality at once; in lower case if case is ignored.
    Set(HashSet<Box<[u8]>>, bool),
    /// Many beginnings; in lower case if case does not count.
    Begin(Prefixes, bool),
    /// Many ends, written backwards; in lower case if case does not count.
    End(Prefixes, bool),
    /// Many texts between delimiters; in lower case if case does not count.
    Between(&'static [u8], Prefixes, bool),
    /// Texts in lower case that a value contains, whatever its case.
    Contain(Vec<Box<[u8]>>),
    /// Many networks.
    Ip(Networks),
}

/// A step of the selection of a backend.
#[derive(Debug)]
enum Step {
    Rule(Option<Clause>, Target),
    /// Successive rules that compare one sample: the first rule of each text, and whether case matters.
    Table {
        sample: Sample,
        ignore_case: bool,
        targets: HashMap<Box<[u8]>, (u32, usize)>,
    },
}

#[derive(Debug)]
enum Target {
    Backend(usize),
    Dynamic(Format),
}

impl Program {
    /// Compiles the rules of a proxy. A rule with a backend that is not in the model selects nothing.
    pub fn new(proxy: &Proxy, model: &Model) -> Self {
        compile::program(proxy, model)
    }

    /// The next rule of a list, from an index on, whose condition holds.
    pub fn next(
        &self,
        list: List,
        from: usize,
        view: &dyn RequestView,
        scratch: &mut Scratch,
    ) -> Option<(usize, &Rule)> {
        let rules = self.lists.get(list as usize)?;
        let found = rules.iter().enumerate().skip(from).find(|(_, (_, clause))| self.holds(clause, view, scratch));
        found.map(|(index, (rule, _))| (index, rule))
    }

    /// The backend of a request: the first `use_backend` whose condition holds, otherwise `default_backend`.
    pub fn backend(&self, view: &dyn RequestView, scratch: &mut Scratch) -> Choice {
        for step in &self.switch {
            match step {
                Step::Table { sample, ignore_case, targets } => {
                    if let Some(target) = look_up(sample, *ignore_case, targets, view, scratch) {
                        return Choice::Backend(target);
                    }
                }
                Step::Rule(clause, target) if self.holds(clause, view, scratch) => match target {
                    Target::Backend(index) => return Choice::Backend(*index),
                    // For a name without a backend the default is used, and no later rule.
                    Target::Dynamic(format) => {
                        let mut name = std::mem::take(&mut scratch.name);
                        name.clear();
                        format.render(view, scratch, &mut name);
                        let text = std::str::from_utf8(&name).unwrap_or_default();
                        let index = self.names.get(text).copied().or(self.default);
                        scratch.name = name;
                        return index.map_or(Choice::None, Choice::Backend);
                    }
                },
                Step::Rule(..) => {}
            }
        }
        self.default.map_or(Choice::None, Choice::Backend)
    }

    /// The result of `up` for the first server that a rule `use-server` selects and for which `up` has a result: rules
    /// with a server that is down are skipped.
    pub fn server<T>(
        &self,
        view: &dyn RequestView,
        scratch: &mut Scratch,
        up: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let mut rules = self.servers.iter();
        rules.find_map(|(name, clause)| if self.holds(clause, view, scratch) { up(name) } else { None })
    }

    /// Whether there are stick rules.
    pub fn has_sticks(&self) -> bool {
        !self.sticks.is_empty()
    }

    /// Calls `see` with each stick rule whose condition holds.
    pub fn each_stick<'v>(
        &self,
        view: &'v dyn RequestView,
        scratch: &mut Scratch,
        see: &mut dyn FnMut(&StickRule, &'v dyn RequestView, &mut Scratch),
    ) {
        for (rule, clause) in &self.sticks {
            if self.holds(clause, view, scratch) {
                see(rule, view, scratch);
            }
        }
    }

    /// Whether `monitor fail` makes the monitor's response a 503.
    pub fn monitor_fails(&self, view: &dyn RequestView, scratch: &mut Scratch) -> bool {
        self.monitor.iter().any(|clause| self.clause_holds(clause, view, scratch))
    }

    /// Whether a list is empty.
    pub fn is_empty(&self, list: List) -> bool {
        self.lists.get(list as usize).is_none_or(Vec::is_empty)
    }

    /// The greatest number of steps of the selection of a backend.
    pub fn steps(&self) -> usize {
        self.switch.len()
    }

    fn holds(&self, clause: &Option<Clause>, view: &dyn RequestView, scratch: &mut Scratch) -> bool {
        clause.as_ref().is_none_or(|clause| self.clause_holds(clause, view, scratch))
    }

    fn clause_holds(&self, clause: &Clause, view: &dyn RequestView, scratch: &mut Scratch) -> bool {
        let found = clause.any.iter().any(|all| {
            all.iter().all(|(negated, tests)| {
                let tests = match tests {
                    Tests::Acl(index) => self.acls.get(*index).map(Vec::as_slice).unwrap_or_default(),
                    Tests::Inline(tests) => tests,
                };
                tests.iter().any(|test| test.matches(view, scratch)) != *negated
            })
        });
        found != clause.negated
    }
}

impl Test {
    fn matches(&self, view: &dyn RequestView, scratch: &mut Scratch) -> bool {
        let matcher = &self.matcher;
        convert::each_value(&self.sample, Values::All, view, scratch, &mut |value, scratch| {
            matcher.fits(value, scratch)
        })
    }
}

impl Matcher {
    fn fits(&self, value: Value<'_>, folded: &mut Vec<u8>) -> bool {
        match self {
            Self::Plain(matching) => fits(matching, value),
            Self::Set(texts, ignore_case) => with_case(value, *ignore_case, folded, |text| texts.contains(text)),
            Self::Begin(prefixes, ignore_case) => {
                with_case(value, *ignore_case, folded, |text| prefixes.find(text).is_some())
            }
            Self::End(prefixes, ignore_case) => value.with_text(|text| {
                let fold = |byte: &u8| if *ignore_case { byte.to_ascii_lowercase() } else { *byte };
                folded.clear();
                folded.extend(text.iter().rev().map(fold));
                prefixes.find(folded).is_some()
            }),
            Self::Between(delimiters, prefixes, ignore_case) => {
                with_case(value, *ignore_case, folded, |text| is_between(text, delimiters, prefixes))
            }
            Self::Contain(texts) => with_case(value, true, folded, |text| {
                texts.iter().any(|known| memchr::memmem::find(text, known).is_some())
            }),
            Self::Ip(networks) => value.ip().is_some_and(|ip| networks.find(ip).is_some()),
        }
    }
}

/// Whether a pattern occurs in a text with a delimiter, or an end of the text, on each side.
fn is_between(text: &[u8], delimiters: &[u8], prefixes: &Prefixes) -> bool {
    let is_delimiter = |byte: Option<&u8>| byte.is_none_or(|byte| delimiters.contains(byte));
    (0..text.len()).filter(|start| is_delimiter(start.checked_sub(1).and_then(|before| text.get(before)))).any(
        |start| {
            let rest = text.get(start..).unwrap_or_default();
            prefixes.any(rest, |len| len > 0 && is_delimiter(rest.get(len)))
        },
    )
}

/// Calls `see` with the text of a value, in lower case if case does not count.
fn with_case(value: Value<'_>, ignore_case: bool, folded: &mut Vec<u8>, see: impl Fn(&[u8]) -> bool) -> bool {
    value.with_text(|text| {
        if !ignore_case {
            return see(text);
        }
        folded.clear();
        folded.extend(text.iter().map(u8::to_ascii_lowercase));
        see(folded)
    })
}

/// Whether a value matches.
fn fits(matching: &Matching, value: Value<'_>) -> bool {
    let in_ranges =
        |ranges: &[(i64, i64)], number: i64| ranges.iter().any(|(low, high)| (*low..=*high).contains(&number));
    match matching {
        Matching::Found => true,
        Matching::Bool => value.number().is_some_and(|number| number != 0),
        Matching::Int(ranges) => value.number().is_some_and(|number| in_ranges(ranges, number)),
        Matching::Len(ranges) => {
            value.with_text(|text| in_ranges(ranges, i64::try_from(text.len()).unwrap_or(i64::MAX)))
        }
        Matching::Ip(nets) => value.ip().is_some_and(|ip| nets.iter().any(|net| view::contains(net, ip))),
        Matching::Text(method, patterns) => value.with_text(|text| {
            patterns.iter().any(|pattern| view::text_fits(*method, &pattern.text, pattern.ignore_case, text))
        }),
        Matching::Regex(expressions) => value.with_text(|text| expressions.is_match(text)),
    }
}

/// The target of the first rule that one of the values matches.
fn look_up(
    sample: &Sample,
    ignore_case: bool,
    targets: &HashMap<Box<[u8]>, (u32, usize)>,
    view: &dyn RequestView,
    scratch: &mut Scratch,
) -> Option<usize> {
    debug_assert_eq!(sample.value_type(), SampleType::Text);
    let mut best: Option<(u32, usize)> = None;
    convert::each_value(sample, Values::All, view, scratch, &mut |value, folded| {
        let found = value.with_text(|text| {
            folded.clear();
            folded.extend(text.iter().map(|byte| if ignore_case { byte.to_ascii_lowercase() } else { *byte }));
            targets.get(folded.as_slice()).copied()
        });
        best = match (best, found) {
            (Some(best), Some(found)) => Some(best.min(found)),
            (best, found) => best.or(found),
        };
        false
    });
    best.map(|(_, target)| target)
}

/// The name of a target, if it is fixed.
fn fixed(target: &BackendTarget) -> Option<&str> {
    match target {
        BackendTarget::Named(name) => Some(name),
        BackendTarget::Dynamic(_) => None,
    }
}
