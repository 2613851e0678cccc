//! Unknown and duplicate keys.

use super::raw::join;
use super::report::{Report, Warning};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;

/// The prefix of a comment's name: JSON has no other comments.
pub(super) const COMMENT: &str = "// ";

/// Whether a name is a comment.
fn is_comment(key: &str) -> bool {
    key.starts_with("//")
}

/// Warns of every key that was not queried. To be called after everything was read.
pub(super) fn warn_of_unknown_keys(value: &Value, report: &Report) {
    let known = report.current_settings();
    walk(value, "", &known, report);
}

fn walk(value: &Value, path: &str, known: &[String], report: &Report) {
    match value {
        Value::Object(members) if report.is_section(path) => {
            for (key, member) in members.iter().filter(|(key, _)| !is_comment(key)) {
                let member_path = join(path, key);
                if report.is_known(&member_path) {
                    walk(member, &member_path, known, report);
                } else {
                    let nearest = nearest(path, key, known);
                    report.warn(Warning::UnknownKey { path: member_path, nearest });
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{index}]"), known, report);
            }
        }
        _ => {}
    }
}

/// The known setting that was probably meant: one of the same section with up to a third of its letters different, so
/// that `timeout` finds `tcpTimeout`; otherwise one of another section with up to a quarter.
fn nearest(section: &str, key: &str, known: &[String]) -> Option<String> {
    let siblings = known.iter().filter(|path| split(path).0 == section);
    let others = known.iter().filter(|path| split(path).0 != section && !path.contains('['));
    most_similar(key, siblings, 3).or_else(|| most_similar(key, others, 4)).cloned()
}

/// The most similar name, if at most one letter in `ratio` differs.
fn most_similar<'a>(key: &str, paths: impl Iterator<Item = &'a String>, ratio: usize) -> Option<&'a String> {
    let key = key.to_lowercase();
    let distances = paths.filter_map(|path| {
        let name = split(path).1.to_lowercase();
        let longest = key.chars().count().max(name.chars().count());
        let distance = strsim::damerau_levenshtein(&key, &name);
        (distance * ratio <= longest).then_some((distance, path))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, path)| path)
}

/// Section and name of a setting.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Warns of every key that occurs more than once in its object; JSON parsers silently keep the last one. `text` must
/// have been parsed before: its syntax is assumed to be valid.
pub(super) fn warn_of_duplicate_keys(text: &str, report: &Report) {
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = Keys { path: String::new(), report }.deserialize(&mut parser);
    debug_assert!(parsed.is_ok(), "the text was parsed before");
}

/// Reads a value for its keys only.
struct Keys<'a> {
    path: String,
    report: &'a Report,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let path = join(&self.path, &key);
            if !is_comment(&key) && !seen.insert(key) {
                self.report.warn(Warning::Twice { path: path.clone() });
            }
            members.next_value_seed(Keys { path, report: self.report })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while items.next_element_seed(Keys { path: format!("{}[{index}]", self.path), report: self.report })?.is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}
