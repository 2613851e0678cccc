//! Sample expressions: a fetch, followed by converters.

use super::converter::{self, Converter};
use super::fetch::{self, Fetch, SampleType};
use super::{Problem, RuleContext};
use crate::haproxy::position::Position;

/// The greatest number of converters of one expression.
const MAX_CONVERTERS: usize = 64;

/// An expression such as `req.hdr(host),lower`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The fetch.
    pub fetch: Fetch,
    /// The converters, in order.
    pub converters: Vec<Converter>,
}

impl Sample {
    /// The type of the result.
    pub fn value_type(&self) -> SampleType {
        let converted = self.converters.iter().rev().find_map(Converter::output);
        converted.unwrap_or_else(|| self.fetch.value_type())
    }

    /// Parses the whole text.
    pub(in super::super) fn parse(text: &str, at: Position, context: RuleContext<'_, '_>) -> Result<Self, Problem> {
        let (name, arguments, rest) = call(text).map_err(|problem| Problem::wrong(at, problem))?;
        let fetch = fetch::parse(name, &arguments, at, context)?;
        let converters = converters(rest, at, context)?;
        Ok(Self { fetch, converters })
    }
}

/// Parses `,name(arguments),…`.
pub(super) fn converters(
    mut rest: &str,
    at: Position,
    context: RuleContext<'_, '_>,
) -> Result<Vec<Converter>, Problem> {
    let mut converters = Vec::new();
    while !rest.is_empty() {
        let text = rest.strip_prefix(',').ok_or_else(|| {
            Problem::wrong(
                at,
                format!("expected a comma and a converter before {rest:?}; quote a ) inside of arguments"),
            )
        })?;
        if converters.len() == MAX_CONVERTERS {
            return Err(Problem::wrong(at, format!("more than {MAX_CONVERTERS} converters")));
        }
        let (name, arguments, after) = call(text).map_err(|problem| Problem::wrong(at, problem))?;
        converters.push(converter::parse(name, &arguments, at, context)?);
        rest = after;
    }
    Ok(converters)
}

/// Splits `name(a,b)rest` into the name, the arguments and the rest. Arguments are quoted and escaped like words.
pub(super) fn call(text: &str) -> Result<(&str, Vec<String>, &str), String> {
    let len = text.find(['(', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(len);
    if name.is_empty() {
        return Err(format!("expected the name of a fetch or converter before {text:?}"));
    }
    let Some(inside) = rest.strip_prefix('(') else { return Ok((name, Vec::new(), rest)) };
    let mut arguments = vec![String::new()];
    let mut quote = None;
    let mut chars = inside.char_indices();
    while let Some((index, char)) = chars.next() {
        let current = arguments.len() - 1;
        let next = inside[index + char.len_utf8()..].chars().next();
        match (char, quote) {
            ('\'' | '"', None) => quote = Some(char),
            (char, Some(open)) if char == open => quote = None,
            ('\\', None | Some('"')) => match next {
                Some(next @ (' ' | '\\' | '\'' | '"' | ',' | ')' | '(')) => {
                    arguments[current].push(next);
                    chars.next();
                }
                Some('n' | 'r' | 't') => {
                    arguments[current].push(match next {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        _ => '\t',
                    });
                    chars.next();
                }
                _ => arguments[current].push('\\'),
            },
            (',', None) => arguments.push(String::new()),
            (')', None) => {
                let is_empty = arguments.iter().all(String::is_empty) && arguments.len() == 1;
                let arguments = if is_empty { Vec::new() } else { arguments };
                return Ok((name, arguments, &inside[index + 1..]));
            }
            (char, _) => arguments[current].push(char),
        }
    }
    Err(format!("expected ) after the arguments of {name}"))
}

#[cfg(test)]
mod tests {
    use super::call;

    #[test]
    fn calls_are_split() {
        let table: &[(&str, &str, &[&str], &str)] = &[
            ("path", "path", &[], ""),
            ("hdr(host)", "hdr", &["host"], ""),
            ("hdr()", "hdr", &[], ""),
            ("hdr(a,-1),lower", "hdr", &["a", "-1"], ",lower"),
            (r#"regsub("(a|b)",'c,d',g)"#, "regsub", &["(a|b)", "c,d", "g"], ""),
            (r"regsub(\(a\),b\\1)x", "regsub", &["(a)", r"b\1"], "x"),
            (r"field(2,\,)", "field", &["2", ","], ""),
            (r"field(1,:)", "field", &["1", ":"], ""),
            (r"reg(\d)", "reg", &[r"\d"], ""),
        ];
        for (text, name, arguments, rest) in table {
            let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(call(text), Ok((*name, arguments, *rest)), "{text}");
        }
        for text in ["", "(a)", "hdr(a", "hdr('a)", ",lower"] {
            assert!(call(text).is_err(), "{text}");
        }
    }
}
