//! The arguments of a request: names and values of its query and its body, which is a form or a JSON object.

use super::super::Response;
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// The greatest number of arguments.
const MAX_ARGUMENTS: usize = 256;

/// Parses the arguments. An argument of the query takes precedence over one of the body. The content type is ignored,
/// as in x0d: a body that begins with a brace is JSON.
pub(super) fn read(query: &str, body: &[u8]) -> Result<Vec<(String, String)>, Response> {
    let body = std::str::from_utf8(body).map_err(|_| Response::problem(400, "the body is not UTF-8"))?.trim();
    let mut arguments = if body.starts_with('{') { json(body)? } else { form(body)? };
    let query = form(query)?;
    arguments.retain(|(name, _)| !query.iter().any(|(known, _)| known == name));
    arguments.extend(query);
    Ok(arguments)
}

fn form(text: &str) -> Result<Vec<(String, String)>, Response> {
    let mut arguments = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        add(&mut arguments, decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?)?;
    }
    Ok(arguments)
}

/// Decodes a part of a target or a form.
pub(super) fn decoded(text: &str) -> Result<String, Response> {
    let is_encoded =
        |(at, _)| text.as_bytes().get(at + 1..at + 3).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit));
    if !text.match_indices('%').all(is_encoded) {
        return Err(Response::problem(400, "a percent sign is not followed by two hexadecimal digits"));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| Response::problem(400, "a percent-encoded text is not UTF-8"))
}

fn json(text: &str) -> Result<Vec<(String, String)>, Response> {
    let Members(members) = serde_json::from_str(text)
        .map_err(|error| Response::problem(400, &format!("the body is not valid JSON: {error}")))?;
    let mut arguments = Vec::new();
    for (name, value) in members {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null => String::new(),
            Value::Array(_) | Value::Object(_) => {
                let problem = format!("{name:?} has to be a text, a number, true or false");
                return Err(Response::problem(400, &problem));
            }
        };
        add(&mut arguments, name, text)?;
    }
    Ok(arguments)
}

/// Two values for one name are refused as ambiguous.
fn add(arguments: &mut Vec<(String, String)>, name: String, value: String) -> Result<(), Response> {
    if arguments.len() >= MAX_ARGUMENTS {
        return Err(Response::problem(400, &format!("more than {MAX_ARGUMENTS} arguments")));
    }
    if arguments.iter().any(|(known, _)| *known == name) {
        let shown: String = name.chars().take(60).collect();
        return Err(Response::problem(400, &format!("{shown:?} stands twice")));
    }
    arguments.push((name, value));
    Ok(())
}

/// The members of an object, including duplicates.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_json_and_the_query() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        type Row<'a> = (&'a str, &'a str, Option<&'a [(&'a str, &'a str)]>);
        let table: &[Row<'_>] = &[
            ("", "", Some(&[])),
            ("a=1&b", "", Some(&[("a", "1"), ("b", "")])),
            ("", "a=%2F+x&b=2", Some(&[("a", "/ x"), ("b", "2")])),
            ("a=3", "a=1&b=2", Some(&[("b", "2"), ("a", "3")])),
            (
                "",
                " {\"a\": 1, \"b\": true, \"c\": \"x\", \"d\": null}\n",
                Some(&[("a", "1"), ("b", "true"), ("c", "x"), ("d", "")]),
            ),
            ("a=1&a=1", "", None),
            ("", "{\"a\": 1, \"a\": 2}", None),
            ("", "{\"a\": [1]}", None),
            ("", "{\"a\": 1", None),
            ("", "{} x", None),
            ("a=%f", "", None),
            ("a=%ff", "", None),
            ("a=%zz", "", None),
        ];
        for (query, body, expected) in table {
            assert_eq!(read(query, body.as_bytes()).ok(), expected.map(pairs), "{query} {body}");
        }
        assert!(read("", b"a=\xff").is_err());
    }
}
