//! The comparison of a sample with patterns.

use super::fetch::SampleType;
use super::list::{ListLines, read_list};
use super::regex::Expressions;
use super::{Problem, RuleContext};
use crate::haproxy::lexer::Word;
use crate::haproxy::position::Position;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

/// The greatest number of patterns of one test, including files.
const MAX_PATTERNS: usize = 4_000_000;

/// The comparison of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matching {
    /// `-m found`: a value exists.
    Found,
    /// The value is true, or not 0.
    Bool,
    /// The value is in one of the ranges, both ends included.
    Int(Vec<(i64, i64)>),
    /// The length is in one of the ranges.
    Len(Vec<(i64, i64)>),
    /// The value is in one of the networks.
    Ip(Vec<IpNet>),
    /// One of the texts matches.
    Text(TextMatch, Vec<TextPattern>),
    /// One of the expressions matches.
    Regex(Expressions),
}

/// The comparison of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// `str`: they are equal.
    Equal,
    /// `beg`: the value begins with the text.
    Begin,
    /// `end`: the value ends with the text.
    End,
    /// `sub`: the value contains the text.
    Contain,
    /// `dir`: the value contains the text between slashes.
    Folder,
    /// `dom`: the value contains the text between dots, slashes, colons or question marks.
    Domain,
    /// `reg`: a regular expression.
    Regex,
}

/// A text, in lower case if case is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPattern {
    /// The bytes.
    pub text: Box<[u8]>,
    /// `-i`.
    pub ignore_case: bool,
}

/// The supported methods of `-m`, and the suffixes of ACL criteria.
pub(super) fn text_match(name: &str) -> Option<TextMatch> {
    Some(match name {
        "str" => TextMatch::Equal,
        "beg" => TextMatch::Begin,
        "end" => TextMatch::End,
        "sub" => TextMatch::Contain,
        "dir" => TextMatch::Folder,
        "dom" => TextMatch::Domain,
        "reg" => TextMatch::Regex,
        _ => return None,
    })
}

/// Parses the flags and values behind a criterion. `implied` is the comparison of its suffix.
pub(super) fn parse(
    words: &[Word],
    implied: Option<&str>,
    value_type: SampleType,
    at: Position,
    context: RuleContext<'_, '_>,
) -> Result<Matching, Problem> {
    let mut values = Values { method: implied.map(str::to_owned), texts: Vec::new(), is_closed: false };
    let mut ignore_case = false;
    let mut lines = ListLines::Whole;
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        let argument = |expected: &str| {
            after.first().ok_or_else(|| Problem::wrong(word.at, format!("expected {expected} after {}", word.text)))
        };
        match word.text.as_str() {
            // A flag counts only before the first value.
            _ if values.is_closed => values.push(&word.text, ignore_case, word.at)?,
            "-i" => ignore_case = true,
            "-n" => {}
            "--" => values.is_closed = true,
            "-m" => {
                let method = argument("a method")?;
                values.method = Some(method.text.clone());
                rest = &rest[1..];
            }
            "-M" => lines = ListLines::Keys,
            "-f" => {
                let file = argument("a file")?;
                rest = &rest[1..];
                let text = read_list(&file.text, file.at, context)?;
                for line in lines.of(&text) {
                    values.push(line, ignore_case, file.at)?;
                }
            }
            "-u" => {
                argument("an identifier")?;
                rest = &rest[1..];
            }
            flag if flag.starts_with('-') => {
                let expected = "-i, -f, -m, -M, -n, -u; write -- before a value that begins with -";
                return Err(Problem::wrong(word.at, format!("{flag} is no flag of an ACL; expected {expected}")));
            }
            _ => {
                values.is_closed = true;
                values.push(&word.text, ignore_case, word.at)?;
            }
        }
    }
    values.finish(value_type, at)
}

struct Values {
    method: Option<String>,
    texts: Vec<(String, bool, Position)>,
    is_closed: bool,
}

impl Values {
    fn push(&mut self, text: &str, ignore_case: bool, at: Position) -> Result<(), Problem> {
        if self.texts.len() == MAX_PATTERNS {
            return Err(Problem::unsupported(at, format!("more than {MAX_PATTERNS} patterns")));
        }
        self.texts.push((text.to_owned(), ignore_case, at));
        Ok(())
    }

    fn finish(self, value_type: SampleType, at: Position) -> Result<Matching, Problem> {
        let method = self.method.as_deref().unwrap_or(match value_type {
            SampleType::Bool => "bool",
            SampleType::Int => "int",
            SampleType::Ip => "ip",
            SampleType::Text => "str",
        });
        let needs_values = !matches!(method, "found" | "bool");
        if needs_values && self.texts.is_empty() {
            return Err(Problem::wrong(at, "expected a value to compare with"));
        }
        match method {
            "found" => Ok(Matching::Found),
            "bool" => Ok(Matching::Bool),
            "int" => Ok(Matching::Int(ranges(&self.texts)?)),
            "len" => Ok(Matching::Len(ranges(&self.texts)?)),
            "ip" => self.texts.iter().map(network).collect::<Result<_, _>>().map(Matching::Ip),
            "reg" => {
                let patterns: Vec<_> =
                    self.texts.iter().map(|(text, ignore_case, _)| (&**text, *ignore_case)).collect();
                Expressions::new(&patterns).map(Matching::Regex).map_err(|problem| Problem::unsupported(at, problem))
            }
            "bin" => Err(Problem::unsupported(at, "-m bin: sluice compares no binary patterns")),
            method => {
                let known = "found, bool, int, ip, len, str, beg, end, sub, dir, dom or reg";
                let method = text_match(method)
                    .ok_or_else(|| Problem::wrong(at, format!("{method:?} is no method; expected {known}")))?;
                let patterns = self.texts.into_iter().map(|(text, ignore_case, _)| {
                    let text = if ignore_case { text.to_ascii_lowercase() } else { text };
                    TextPattern { text: trimmed(method, &text).as_bytes().into(), ignore_case }
                });
                Ok(Matching::Text(method, patterns.collect()))
            }
        }
    }
}

/// Delimiters at the ends of a folder or a domain do not count.
pub(super) fn trimmed(method: TextMatch, text: &str) -> &str {
    match method {
        TextMatch::Folder => text.trim_matches(['/', '?']),
        TextMatch::Domain => text.trim_matches(['.', '/', ':', '?']),
        _ => text,
    }
}

/// Parses numbers, ranges `low:high`, and operators for the values behind them.
fn ranges(texts: &[(String, bool, Position)]) -> Result<Vec<(i64, i64)>, Problem> {
    let mut operator = "eq";
    let mut ranges = Vec::new();
    for (text, _, at) in texts {
        if ["eq", "ge", "gt", "le", "lt"].contains(&text.as_str()) {
            operator = text;
            continue;
        }
        let number = |text: &str| text.parse::<i64>().ok();
        let range = match text.split_once(':') {
            Some((low, high)) => {
                let low = if low.is_empty() { Some(i64::MIN) } else { number(low) };
                let high = if high.is_empty() { Some(i64::MAX) } else { number(high) };
                low.zip(high)
            }
            None => number(text).map(|number| (number, number)),
        };
        let problem = || Problem::wrong(*at, format!("{text:?} is no number and no range such as 1:5"));
        let (low, high) = range.ok_or_else(problem)?;
        ranges.push(match operator {
            "ge" => (low, i64::MAX),
            "gt" => (low.saturating_add(1), i64::MAX),
            "le" => (i64::MIN, high),
            "lt" => (i64::MIN, high.saturating_sub(1)),
            _ => (low, high),
        });
    }
    match (ranges.is_empty(), texts.last()) {
        (true, Some((_, _, at))) => Err(Problem::wrong(*at, "expected a number after the operator")),
        _ => Ok(ranges),
    }
}

/// An address or a network. `192.168.1` is 192.168.0.1, as in inet_aton(3).
fn network((text, _, at): &(String, bool, Position)) -> Result<IpNet, Problem> {
    parse_network(text).ok_or_else(|| {
        let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if is_name && text.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return Problem::unsupported(*at, format!("{text}: sluice resolves no names in ACLs; write its address"));
        }
        Problem::wrong(*at, format!("{text:?} is no address and no network"))
    })
}

pub(in super::super) fn parse_network(text: &str) -> Option<IpNet> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let ip = address.parse::<IpAddr>().ok().or_else(|| short_ipv4(address).map(IpAddr::V4))?;
    let full = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match mask {
        None => full,
        Some(mask) => match mask.parse::<Ipv4Addr>() {
            Ok(mask) if ip.is_ipv4() => Ipv4Net::with_netmask(Ipv4Addr::UNSPECIFIED, mask).ok()?.prefix_len(),
            _ => mask.parse().ok()?,
        },
    };
    IpNet::new(ip, bits).ok().map(|net| net.trunc())
}

/// `10.12` is 10.0.0.12.
fn short_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let mut octets = [0; 4];
    octets.get_mut(..first.len().min(3))?.copy_from_slice(first.get(..3.min(first.len()))?);
    octets[3] = *last;
    (parts.len() <= 4).then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_haproxy_does() {
        let table = [
            ("10.0.0.1", Some("10.0.0.1/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3/255.255.0.0", Some("10.1.0.0/16")),
            ("192.168.1", Some("192.168.0.1/32")),
            ("127.1/8", Some("127.0.0.0/8")),
            ("::1", Some("::1/128")),
            ("fe80::1/10", Some("fe80::/10")),
            ("10.0.0.1/33", None),
            ("1.2.3.4.5", None),
            ("256", None),
            ("", None),
            ("x", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|net: &str| net.parse().expect("a network"));
            assert_eq!(parse_network(text), expected, "{text}");
        }
    }
}
