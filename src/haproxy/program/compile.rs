//! Compilation of rules to a program.

use super::view::{DOMAIN_ENDS, FOLDER_ENDS};
use super::{Clause, Matcher, Program, Step, Target, Test, Tests, fixed};
use crate::haproxy::model::{Model, Proxy, ProxyKind};
use crate::haproxy::rules::{
    self, Acl, BackendRule, BackendTarget, Condition, Criterion, Matching, Networks, Prefixes, Rule, Sample, TextMatch,
    TextPattern,
};
use std::collections::HashMap;

/// From this number of texts on, a test for equality is a look-up.
const SET_FROM: usize = 8;

pub(super) fn program(proxy: &Proxy, model: &Model) -> Program {
    let names: HashMap<String, usize> = model
        .proxies
        .iter()
        .enumerate()
        // A rule that selects a disabled backend is skipped.
        .filter(|(_, proxy)| proxy.kind != ProxyKind::Frontend && !proxy.is_disabled)
        .map(|(index, proxy)| (proxy.name.clone(), index))
        .collect();
    let list = |rules: &[Rule]| rules.iter().map(|rule| (rule.clone(), rule.condition.as_ref().map(clause))).collect();
    let rules = &proxy.rules;
    // A `listen` section without a matching rule is its own backend.
    let own = proxy.is_backend().then(|| names.get(&proxy.name).copied()).flatten();
    let default = proxy.default_backend.as_ref().and_then(|(name, _)| names.get(name).copied()).or(own);
    Program {
        acls: proxy.acls.iter().map(|acl| tests(&acl.tests)).collect(),
        lists: [
            list(&rules.connection),
            list(&rules.content),
            list(&rules.request),
            list(&rules.redirects),
            list(&rules.response),
            list(&rules.after_response),
            list(&rules.old_request),
            list(&rules.old_response),
        ],
        switch: switch(&rules.use_backend, &proxy.acls, &names),
        default,
        names,
        monitor: proxy.monitor_fail.iter().map(clause).collect(),
        servers: rules
            .use_server
            .iter()
            .map(|rule| (rule.server.clone(), rule.condition.as_ref().map(clause)))
            .collect(),
        sticks: proxy.stick_rules.iter().map(|rule| (rule.clone(), rule.condition.as_ref().map(clause))).collect(),
    }
}

fn clause(condition: &Condition) -> Clause {
    let term = |term: &rules::Term| {
        let tests = match &term.tests {
            rules::Tests::Acl(index) => Tests::Acl(*index),
            rules::Tests::Inline(criteria) => Tests::Inline(tests(criteria)),
        };
        (term.negated, tests)
    };
    let any = condition.any.iter().map(|all| all.iter().map(term).collect()).collect();
    Clause { negated: condition.negated, any }
}

fn tests(criteria: &[Criterion]) -> Vec<Test> {
    criteria
        .iter()
        .map(|criterion| Test { sample: criterion.sample.clone(), matcher: matcher(&criterion.matching) })
        .collect()
}

pub(super) fn matcher(matching: &Matching) -> Matcher {
    match matching {
        Matching::Ip(nets) if nets.len() >= SET_FROM => {
            let mut networks = Networks::default();
            nets.iter().enumerate().for_each(|(place, net)| networks.add(*net, place));
            Matcher::Ip(networks)
        }
        Matching::Text(method, patterns)
            if patterns.windows(2).all(|pair| pair[0].ignore_case == pair[1].ignore_case) =>
        {
            let ignore_case = patterns.first().is_some_and(|pattern| pattern.ignore_case);
            text_matcher(*method, patterns, ignore_case).unwrap_or_else(|| Matcher::Plain(matching.clone()))
        }
        matching => Matcher::Plain(matching.clone()),
    }
}

/// The table for many texts; `None` where comparing them one by one is as good.
fn text_matcher(method: TextMatch, patterns: &[TextPattern], ignore_case: bool) -> Option<Matcher> {
    let texts = || patterns.iter().map(|pattern| &*pattern.text);
    if method == TextMatch::Contain {
        return ignore_case.then(|| Matcher::Contain(texts().map(Into::into).collect()));
    }
    if patterns.len() < SET_FROM {
        return None;
    }
    Some(match method {
        TextMatch::Equal => Matcher::Set(texts().map(Into::into).collect(), ignore_case),
        TextMatch::Begin => Matcher::Begin(Prefixes::new(texts()), ignore_case),
        TextMatch::End => {
            let backwards: Vec<Vec<u8>> = texts().map(|text| text.iter().rev().copied().collect()).collect();
            Matcher::End(Prefixes::new(backwards.iter().map(Vec::as_slice)), ignore_case)
        }
        TextMatch::Folder => Matcher::Between(FOLDER_ENDS, Prefixes::new(texts()), ignore_case),
        TextMatch::Domain => Matcher::Between(DOMAIN_ENDS, Prefixes::new(texts()), ignore_case),
        TextMatch::Contain | TextMatch::Regex => return None,
    })
}

/// The steps of the selection: runs of rules that compare one sample become tables.
fn switch(rules: &[BackendRule], acls: &[Acl], names: &HashMap<String, usize>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = rules;
    while let Some((rule, after)) = rest.split_first() {
        let run = table(rest, acls, names);
        if let Some((step, len)) = run {
            steps.push(step);
            rest = &rest[len..];
            continue;
        }
        let target = match &rule.target {
            BackendTarget::Named(name) => names.get(name).map(|index| Target::Backend(*index)),
            BackendTarget::Dynamic(format) => Some(Target::Dynamic(format.clone())),
        };
        steps.extend(target.map(|target| Step::Rule(rule.condition.as_ref().map(clause), target)));
        rest = after;
    }
    steps
}

/// A table of at least two rules at the start, and their number.
fn table(rules: &[BackendRule], acls: &[Acl], names: &HashMap<String, usize>) -> Option<(Step, usize)> {
    let mut targets = HashMap::new();
    let mut key: Option<(&Sample, bool)> = None;
    let mut len = 0;
    for rule in rules {
        let Some(target) = fixed(&rule.target).and_then(|name| names.get(name)) else { break };
        let Some((sample, ignore_case, texts)) = equality(rule, acls) else { break };
        if key.is_some_and(|key| key != (sample, ignore_case)) {
            break;
        }
        key = Some((sample, ignore_case));
        for text in texts {
            targets.entry(text).or_insert((u32::try_from(len).ok()?, *target));
        }
        len += 1;
    }
    let (sample, ignore_case) = key.filter(|_| len >= 2)?;
    Some((Step::Table { sample: sample.clone(), ignore_case, targets }, len))
}

/// A sample, whether case is ignored, and the texts.
type Equality<'r> = (&'r Sample, bool, Vec<Box<[u8]>>);

/// The sample and the texts of a rule that only tests equality.
fn equality<'r>(rule: &'r BackendRule, acls: &'r [Acl]) -> Option<Equality<'r>> {
    let condition = rule.condition.as_ref().filter(|condition| !condition.negated)?;
    let mut texts = Vec::new();
    let mut key = None;
    for all in &condition.any {
        let [term] = all.as_slice() else { return None };
        let criteria = match &term.tests {
            _ if term.negated => return None,
            rules::Tests::Acl(index) => &acls.get(*index)?.tests,
            rules::Tests::Inline(criteria) => criteria,
        };
        for criterion in criteria {
            let Matching::Text(TextMatch::Equal, patterns) = &criterion.matching else { return None };
            for pattern in patterns {
                let this = (&criterion.sample, pattern.ignore_case);
                if *key.get_or_insert(this) != this {
                    return None;
                }
                texts.push(pattern.text.clone());
            }
        }
    }
    let (sample, ignore_case) = key?;
    (sample.value_type() == rules::SampleType::Text).then_some((sample, ignore_case, texts))
}
