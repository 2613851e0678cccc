//! A line of a proxy: its keyword is looked up in the table and parsed.

use super::Finding;
use super::arguments::Arguments;
use super::proxy_words::proxy_words;
use super::scope::{ProxyScope, ProxyWord, Read};
use crate::haproxy::environment::Environment;
use crate::haproxy::keyword::{Places, Treatment, nearest};
use crate::haproxy::lexer::Word;
use crate::haproxy::model::{Flag, Proxy, ProxyKind};
use crate::haproxy::position::Fault;

/// The words that HAProxy has in a `defaults` section with a name only.
const RULES: [&str; 7] = [
    "http-after-response",
    "http-request",
    "http-response",
    "tcp-request connection",
    "tcp-request content",
    "tcp-request session",
    "tcp-response content",
];

/// The sections of this kind, in which keywords may occur.
fn places(kind: ProxyKind) -> Places {
    match kind {
        ProxyKind::Defaults => Places::DEFAULTS,
        ProxyKind::Frontend => Places::FRONTEND,
        ProxyKind::Backend => Places::BACKEND,
        ProxyKind::Listen => Places(Places::FRONTEND.0 | Places::BACKEND.0),
    }
}

/// The keyword at the start of a line: the longest match.
fn find(words: &[Word]) -> Option<(&'static ProxyWord, usize)> {
    let fits = |known: &&ProxyWord| {
        let mut parts = known.name.split(' ');
        words.iter().zip(parts.by_ref()).all(|(word, part)| word.text.split('(').next() == Some(part)) && {
            let count = known.name.split(' ').count();
            count <= words.len()
        }
    };
    let best = proxy_words().filter(fits).max_by_key(|known| known.name.len());
    best.map(|known| (known, known.name.split(' ').count()))
}

/// Parses a line into a proxy.
pub(super) fn read_line(
    proxy: &mut Proxy,
    words: &[Word],
    findings: &mut Vec<Finding>,
    environment: &Environment<'_>,
    section: u32,
) {
    let Some(first) = words.first() else { return };
    let prefix = if words.len() > 1 { first.text.as_str() } else { "" };
    let body = if matches!(prefix, "no" | "default") { &words[1..] } else { words };
    let finding =
        |word: String, treatment, note: String| Finding { at: first.at, word, treatment, note: note.into(), section };
    let Some((known, count)) = find(body) else {
        findings.push(finding(first.text.clone(), Treatment::Wrong, unknown(body)));
        return;
    };
    let shown =
        if matches!(prefix, "no" | "default") { format!("{prefix} {}", known.name) } else { known.name.to_owned() };
    let can_be_negated = known.name.starts_with("option ") || known.name == "log";
    if body.len() != words.len() && !can_be_negated {
        let note = format!("{prefix} does not stand before {}", known.name);
        findings.push(finding(shown, Treatment::Wrong, note));
        return;
    }
    if !known.places.has(places(proxy.kind)) {
        let note = format!("it stands in {} only", known.places.names());
        // HAProxy warns of most keywords of the other side, and ignores them.
        let is_fatal =
            proxy.kind == ProxyKind::Defaults || matches!(known.name, "server" | "default-server" | "server-template");
        let (treatment, more) = if is_fatal {
            (Treatment::Wrong, "")
        } else {
            (Treatment::Ignored, "; HAProxy does not read it here either")
        };
        findings.push(finding(shown, treatment, note + more));
        return;
    }
    let is_rule = known.name == "acl" || RULES.contains(&known.name);
    if is_rule && proxy.kind == ProxyKind::Defaults && proxy.name.is_empty() {
        let note = "it stands in a defaults section with a name only; write defaults NAME, and from NAME at proxies";
        findings.push(finding(shown, Treatment::Wrong, note.to_owned()));
        return;
    }
    let mut scope = ProxyScope {
        proxy,
        findings: &mut Vec::new(),
        environment,
        section,
        is_negated: body.len() != words.len(),
        outcome: None,
        keyword: known.name,
    };
    let mut arguments = Arguments::new(&body[count..], body[count - 1].at);
    let mut notes = Vec::new();
    scope.findings = &mut notes;
    let result = apply(known, &mut scope, &mut arguments);
    let outcome = scope.outcome.take();
    match (result, outcome) {
        (Err(fault), _) => {
            let at = fault.at;
            findings.push(Finding { at, ..finding(shown, Treatment::Wrong, fault.problem) });
        }
        (Ok(()), Some((treatment, note))) => findings.push(finding(shown, treatment, note)),
        (Ok(()), None) => findings.push(finding(shown, known.treatment, known.reason.to_owned())),
    }
    findings.append(&mut notes);
}

fn apply(known: &ProxyWord, scope: &mut ProxyScope<'_, '_>, arguments: &mut Arguments<'_>) -> Result<(), Fault> {
    match known.read {
        Read::Nothing => Ok(()),
        Read::Flag(flag) => {
            if scope.is_negated {
                scope.proxy.flags.remove(&flag)
            } else {
                scope.proxy.flags.insert(flag)
            };
            // Modes of the same feature replace each other.
            let rivals = [Flag::HttpClose, Flag::HttpServerClose, Flag::HttpKeepAlive];
            if rivals.contains(&flag) && !scope.is_negated {
                scope.proxy.flags.retain(|other| *other == flag || !rivals.contains(other));
            }
            // Some have parameters, which are ignored.
            arguments.rest();
            Ok(())
        }
        Read::Timeout(field) => {
            let word = arguments.words.first();
            let time = arguments.time()?;
            // HAProxy treats zero as no timeout, as if the line were missing.
            *field(&mut scope.proxy.timeouts) = Some(time).filter(|time| !time.is_zero());
            if let Some(word) = word.filter(|_| time.is_zero()) {
                let note =
                    "0 is no limit in HAProxy; here it is as if the line were missing: sluice's own default holds";
                scope.note(word, Treatment::Mapped, note.to_owned());
            }
            if let Some(word) = word.filter(|word| word.text.ends_with(|char: char| char.is_ascii_alphabetic())) {
                let unit = word.text.trim_start_matches(|char: char| char.is_ascii_digit());
                if unit.len() > 2 {
                    scope.note(
                        word,
                        Treatment::Mapped,
                        format!("HAProxy since 2.7 refuses the unit {unit}; its first letter counts"),
                    );
                }
            }
            arguments.finish()
        }
        Read::With(read) => read(scope, arguments),
    }
}

/// The message for a line whose keyword is in no table.
fn unknown(words: &[Word]) -> String {
    let texts: Vec<_> = words.iter().take(3).map(|word| word.text.as_str()).collect();
    let siblings = || proxy_words().filter(|known| known.name.split(' ').next() == texts.first().copied());
    let (shown, similar) = match texts.as_slice() {
        [first, second, ..] if siblings().next().is_some() => {
            let text = format!("{first} {second}");
            let similar = nearest(&text, siblings().map(|known| known.name));
            (text, similar)
        }
        [first, ..] => ((*first).to_owned(), nearest(first, proxy_words().map(|known| known.name))),
        [] => (String::new(), None),
    };
    let hint = similar.map(|name| format!("; {name} is similar")).unwrap_or_default();
    format!("{shown:?} is no keyword of HAProxy that sluice knows{hint}")
}
