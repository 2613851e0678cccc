//! ACLs and conditions (configuration.txt sections 7.1, 7.2, 7.4).

use super::fetch::{Fetch, SampleType};
use super::pattern::{self, Matching, TextMatch};
use super::sample::{self, Sample};
use super::words::{fetches, nearest_fetch};
use super::{Problem, RuleContext};
use crate::haproxy::lexer::Word;
use crate::haproxy::position::Position;

/// The fetches that have a name with a suffix for each method: `path_beg`, `hdr_dom`, ….
pub(in super::super) const ACL_CRITERIA: [&str; 13] = [
    "base",
    "cook",
    "hdr",
    "path",
    "query",
    "scook",
    "shdr",
    "ssl_fc_sni",
    "url",
    "urlp",
    "url_param",
    "req.hdr",
    "req.cook",
];

/// The predefined ACLs.
const PREDEFINED: [(&str, &[&str]); 21] = [
    ("FALSE", &["always_false"]),
    ("TRUE", &["always_true"]),
    ("HTTP", &["always_true"]),
    ("HTTP_1.0", &["req.ver", "1.0"]),
    ("HTTP_1.1", &["req.ver", "1.1"]),
    ("HTTP_2.0", &["req.ver", "2.0"]),
    ("HTTP_CONTENT", &["req.hdr_val(content-length)", "gt", "0"]),
    ("HTTP_URL_ABS", &["url_reg", "^[^/:]*://"]),
    ("HTTP_URL_SLASH", &["url_beg", "/"]),
    ("HTTP_URL_STAR", &["url", "*"]),
    ("LOCALHOST", &["src", "127.0.0.1/8", "::1"]),
    ("METH_CONNECT", &["method", "CONNECT"]),
    ("METH_DELETE", &["method", "DELETE"]),
    ("METH_GET", &["method", "GET", "HEAD"]),
    ("METH_HEAD", &["method", "HEAD"]),
    ("METH_OPTIONS", &["method", "OPTIONS"]),
    ("METH_POST", &["method", "POST"]),
    ("METH_PUT", &["method", "PUT"]),
    ("METH_TRACE", &["method", "TRACE"]),
    ("REQ_CONTENT", &["always_true"]),
    ("WAIT_END", &["always_true"]),
];

/// The tests of one name; it matches if one of them does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// The name, case-sensitive.
    pub name: String,
    /// The tests in order.
    pub tests: Vec<Criterion>,
    /// A test that sluice does not support: no condition with this ACL is honoured.
    pub unsupported: Option<String>,
}

/// A sample and the values it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// The sample.
    pub sample: Sample,
    /// The comparison.
    pub matching: Matching,
}

/// The condition behind `if` or `unless`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `unless`.
    pub negated: bool,
    /// One of these has to hold; each holds if all its terms do.
    pub any: Vec<Vec<Term>>,
}

/// An ACL in a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// `!`.
    pub negated: bool,
    /// The tests that have to match.
    pub tests: Tests,
}

/// The tests of a term, one of which has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tests {
    /// An ACL of the proxy, by index: lines with its name after the rule count too.
    Acl(usize),
    /// Tests without a name, or of a predefined ACL.
    Inline(Vec<Criterion>),
}

/// Whether a name is allowed for an ACL.
pub(in super::super) fn is_acl_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// Parses a criterion with its flags and values, behind the name of an ACL.
pub(in super::super) fn parse_acl(words: &[Word], context: RuleContext<'_, '_>) -> Result<Criterion, Problem> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Problem::wrong(Position::default(), "expected a criterion"));
    };
    let (name, _, after) = sample::call(&first.text).map_err(|problem| Problem::wrong(first.at, problem))?;
    let derived = derived(name);
    let (text, implied) = match derived {
        // With converters the suffix has no effect.
        Some((base, suffix)) => {
            let text = format!("{base}{}", &first.text[name.len()..]);
            (text, after.is_empty().then_some(suffix))
        }
        None => (first.text.clone(), None),
    };
    let sample = Sample::parse(&text, first.at, context)?;
    let mut value_type = sample.value_type();
    let mut implied = implied;
    // Methods are compared as texts, and `req.ver` too.
    if implied == Some("ip") {
        (value_type, implied) = (SampleType::Ip, None);
    }
    let mut matching = pattern::parse(rest, implied, value_type, first.at, context)?;
    let is_plain_method = sample.fetch == Fetch::Method && sample.converters.is_empty();
    if let Matching::Text(TextMatch::Equal, patterns) = &mut matching
        && is_plain_method
        && !rest.iter().any(|word| word.text == "-m")
    {
        // The methods that HAProxy knows are compared as such, whatever -i says.
        let is_known = |text: &[u8]| METHODS.iter().any(|method| text.eq_ignore_ascii_case(method.as_bytes()));
        for pattern in patterns.iter_mut().filter(|pattern| pattern.ignore_case && is_known(&pattern.text)) {
            let written = rest.iter().find(|word| word.text.as_bytes().eq_ignore_ascii_case(&pattern.text));
            pattern.text =
                written.map_or_else(|| pattern.text.to_ascii_uppercase(), |word| word.text.clone().into()).into();
            pattern.ignore_case = false;
        }
    }
    Ok(Criterion { sample, matching })
}

/// The methods that HAProxy knows by number.
const METHODS: [&str; 8] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];

/// Splits `path_beg` into `path` and `beg`, unless a fetch has the whole name.
fn derived(name: &str) -> Option<(&str, &str)> {
    if fetches().iter().any(|word| word.name == name) {
        return None;
    }
    let (base, suffix) = name.rsplit_once('_')?;
    let is_method = pattern::text_match(suffix).is_some() || suffix == "len" || suffix == "ip";
    (ACL_CRITERIA.contains(&base) && is_method).then_some((base, suffix))
}

/// Parses `if …` or `unless …`; `None` if there are no words.
pub(in super::super) fn parse_condition(
    words: &[Word],
    context: RuleContext<'_, '_>,
) -> Result<Option<Condition>, Problem> {
    let Some((first, rest)) = words.split_first() else { return Ok(None) };
    let negated = match first.text.as_str() {
        "if" => false,
        "unless" => true,
        other => {
            return Err(Problem::wrong(first.at, format!("{other:?} is not expected here; expected if or unless")));
        }
    };
    let mut any = vec![Vec::new()];
    let mut is_negated = false;
    let mut words = rest;
    let mut unsupported = None;
    while let Some((word, mut after)) = words.split_first() {
        let text = word.text.trim_start_matches('!');
        is_negated ^= (word.text.len() - text.len()) % 2 == 1;
        match text {
            "" => {
                words = after;
                continue;
            }
            "or" | "OR" | "||" => {
                if any.last().is_none_or(Vec::is_empty) || after.is_empty() {
                    return Err(Problem::wrong(word.at, "expected an ACL on both sides of or"));
                }
                any.push(Vec::new());
                words = after;
                continue;
            }
            _ => {}
        }
        let tests = if text == "{" {
            let end = after.iter().position(|word| word.text == "}");
            let end = end.ok_or_else(|| Problem::wrong(word.at, "expected } as a word of its own"))?;
            let inside = &after[..end];
            after = &after[end + 1..];
            if inside.is_empty() {
                return Err(Problem::wrong(word.at, "expected a criterion between { and }"));
            }
            parse_acl(inside, context).map(|criterion| Tests::Inline(vec![criterion]))
        } else {
            named(text, word.at, context)
        };
        match tests {
            Ok(tests) => any = pushed(any, Term { negated: is_negated, tests }),
            Err(Problem::Wrong(fault)) => return Err(Problem::Wrong(fault)),
            // Later terms may still be wrong.
            Err(problem) => {
                any = pushed(any, Term { negated: is_negated, tests: Tests::Inline(Vec::new()) });
                unsupported = unsupported.or(Some(problem));
            }
        }
        is_negated = false;
        words = after;
    }
    if any.last().is_none_or(Vec::is_empty) || is_negated {
        return Err(Problem::wrong(first.at, format!("expected an ACL after {}", first.text)));
    }
    unsupported.map_or(Ok(Some(Condition { negated, any })), Err)
}

/// The conjunctions with one more term in the last one.
fn pushed(mut any: Vec<Vec<Term>>, term: Term) -> Vec<Vec<Term>> {
    if let Some(all) = any.last_mut() {
        all.push(term);
    }
    any
}

/// The tests of an ACL of the proxy, or of a predefined one.
fn named(name: &str, at: Position, context: RuleContext<'_, '_>) -> Result<Tests, Problem> {
    if let Some(index) = context.acls.iter().position(|acl| acl.name == name) {
        return match &context.acls[index].unsupported {
            Some(problem) => Err(Problem::unsupported(at, format!("ACL {name}: {problem}"))),
            None => Ok(Tests::Acl(index)),
        };
    }
    if let Some((_, words)) = PREDEFINED.iter().find(|(predefined, _)| *predefined == name) {
        let words: Vec<_> = words.iter().map(|text| Word { text: (*text).to_owned(), at }).collect();
        return parse_acl(&words, context).map(|criterion| Tests::Inline(vec![criterion]));
    }
    if name == "RDP_COOKIE" || name == "HTTP_3.0" {
        return Err(Problem::unsupported(at, format!("ACL {name}: sluice speaks neither RDP nor HTTP/3")));
    }
    let known = context.acls.iter().map(|acl| acl.name.as_str());
    let nearest = crate::haproxy::keyword::nearest(name, known);
    let hint = match nearest {
        Some(nearest) => format!("; {nearest} is similar"),
        None if fetches().iter().any(|word| word.name == name) || nearest_fetch(name) == Some(name) => {
            format!("; write {{ {name} … }} for a test without a name")
        }
        None => String::new(),
    };
    Err(Problem::wrong(at, format!("no ACL {name:?} stands before this line in its section{hint}")))
}
