//! `"options": {"www.example.com": {"httpsRedirect": true, "health": {"mode": "lazy"}}}`: options of a frontend.

use super::{Members, Reader, kind, pattern, shown, string};
use crate::cluster::{OptionError, Options};
use serde_json::value::RawValue;
use std::sync::Arc;

/// An option whose value is an object: it is not a prefix of several options.
const OBJECT: &str = "buckets";

/// An option that is parsed after the others: its rules name buckets.
const LAST: &str = "classify";

/// The greatest nesting of an option.
const MAX_DEPTH: usize = 4;

impl<'a> Reader<'a> {
    /// To be called after the frontends are known.
    pub(super) fn read_options(&mut self, value: &'a RawValue) {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            return self.fault(value, "options", &format!("found {}, expected an object of options", kind(value)));
        };
        for (key, options) in members.0 {
            let name = string(key).unwrap_or_default();
            let path = format!("options[{}]", shown(&name));
            let known = pattern(&name).ok().filter(|pattern| self.records.contains_key(pattern.as_str()));
            let Some(known) = known else {
                self.fault(key, &path, "no frontend is called so");
                continue;
            };
            let mut pairs = Vec::new();
            self.flatten(options, &path, "", &mut pairs);
            pairs.sort_by_key(|pair| pair.name == LAST);
            let options = self.read_pairs(&pairs, &path);
            if let Some(record) = self.records.get_mut(known.as_str()) {
                record.options = Arc::new(options);
            }
        }
    }

    /// Names and values of an object, nested names joined by dots, each with the positions of name and value.
    fn flatten(&mut self, value: &'a RawValue, path: &str, prefix: &str, pairs: &mut Vec<Pair<'a>>) {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            return self.fault(value, path, &format!("found {}, expected an object", kind(value)));
        };
        for (key, value) in members.0 {
            let name = format!("{prefix}{}", string(key).unwrap_or_default());
            let is_object = value.get().starts_with('{') && name != OBJECT;
            if is_object && prefix.bytes().filter(|byte| *byte == b'.').count() < MAX_DEPTH {
                self.flatten(value, &format!("{path}.{name}"), &format!("{name}."), pairs);
                continue;
            }
            // A number or a word is used as written, a string without its quotes.
            let text = string(value).unwrap_or_else(|| value.get().to_owned());
            pairs.push(Pair { key, value, name, text });
        }
    }

    fn read_pairs(&mut self, pairs: &[Pair<'a>], path: &str) -> Options {
        let mut options = Options::default();
        let mut has_faulty_buckets = false;
        for Pair { key, value, name, text } in pairs {
            if name == LAST && has_faulty_buckets {
                continue;
            }
            let (with_this, errors) =
                Options::read(options.pairs().chain([(name.as_str(), text.as_str())]), &Options::default());
            let parent = path;
            let path = format!("{parent}.{name}");
            match errors.first() {
                None => options = with_this,
                Some(OptionError::Unknown { .. }) => self.warn(key, &path, "is unknown and ignored"),
                Some(OptionError::Faults { faults, .. }) => {
                    has_faulty_buckets |= name == OBJECT;
                    for fault in faults {
                        self.fault(value, &format!("{parent}.{}", fault.path), &fault.problem);
                    }
                }
                Some(OptionError::BadValue { found, expected, .. }) => {
                    let found = match kind(value) {
                        "an object" | "a list" | "null" => kind(value).to_owned(),
                        _ => format!("{found:?}"),
                    };
                    self.fault(value, &path, &format!("found {found}, expected {expected}"));
                }
            }
        }
        options
    }
}

/// An option as written in the file.
struct Pair<'a> {
    key: &'a RawValue,
    value: &'a RawValue,
    name: String,
    text: String,
}
