//! The text as written: sections and fields that know their path, for fault reports.
//!
//! `null` counts as absent everywhere, as in Hipache. A wrong value is reported and then treated as absent, so that one
//! run finds all faults.

use super::report::{Age, Report, Warning};
use crate::base::printable::printable;
use crate::base::secret::is_path;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest time: a year. It guards against typing errors.
const LONGEST_SECONDS: f64 = 31_536_000.0;

/// The shortest time above zero.
const SHORTEST_SECONDS: f64 = 0.001;

/// An object of the text, possibly absent.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    members: Option<&'a Map<String, Value>>,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// The whole text.
    pub(super) fn root(value: &'a Value, report: &'a Report) -> Self {
        Field { path: String::new(), value: Some(value), report }.section()
    }

    /// The setting with this name, or under its earlier name if it was renamed and only that one is set.
    pub(super) fn field(&self, key: &str) -> Field<'a> {
        let field = self.ask(key, Age::Current);
        let Some((new, old)) = super::renamed::find(&field.path) else { return field };
        let old = self.ask(old, Age::Old);
        if field.is_set() {
            old.warn_old(new, true);
        }
        if field.is_set() || !old.is_set() { field } else { old }
    }

    /// The setting under this name, which is not recommended any more.
    pub(super) fn old_field(&self, key: &str) -> Field<'a> {
        self.ask(key, Age::Old)
    }

    fn ask(&self, key: &str, age: Age) -> Field<'a> {
        let path = join(&self.path, key);
        self.report.ask_setting(&path, age);
        let value = self.members.and_then(|members| members.get(key)).filter(|value| !value.is_null());
        Field { path, value, report: self.report }
    }
}

/// A value of the text, possibly absent.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    path: String,
    value: Option<&'a Value>,
    report: &'a Report,
}

impl<'a> Field<'a> {
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// The members of an object.
    pub(super) fn section(self) -> Section<'a> {
        self.report.open_section(&self.path);
        let members = self.read("an object", Value::as_object);
        Section { path: self.path, members, report: self.report }
    }

    /// The items of a list; any other value counts as a list of one. `None` if absent.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let items = match self.value? {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| Field {
                    path: format!("{}[{index}]", self.path),
                    value: Some(item),
                    report: self.report,
                })
                .collect(),
            _ => vec![self.clone()],
        };
        Some(items)
    }

    /// The value converted by `convert`; `None` from `convert` is a fault.
    pub(super) fn read<T>(
        &self,
        expected: impl Into<Cow<'static, str>>,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value?;
        let converted = convert(value);
        if converted.is_none() {
            self.refuse(expected);
        }
        converted
    }

    /// Reports the value as wrong.
    pub(super) fn refuse(&self, expected: impl Into<Cow<'static, str>>) {
        let found = self.value.map_or_else(|| "nothing".into(), describe);
        self.report.fault(&self.path, found, expected);
    }

    /// The same, with a reason.
    pub(super) fn refuse_because(&self, reason: &dyn Display, expected: impl Into<Cow<'static, str>>) {
        let found = self.value.map_or_else(|| "nothing".into(), describe);
        self.report.fault(&self.path, format!("{found} ({reason})"), expected);
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        self.read("true or false", Value::as_bool)
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.read("a text", |value| value.as_str().filter(|text| !text.is_empty()))
    }

    /// The path of a file, relative to `folder`. A text that cannot be a path, such as a pasted key, is not shown.
    pub(super) fn file(&self, folder: &Path) -> Option<PathBuf> {
        let text = self.text()?;
        if !is_path(text) {
            self.report.fault(&self.path, "a text that is no path (it is not shown)", "the path of a file");
            return None;
        }
        Some(folder.join(text))
    }

    /// A text that is not shown in messages.
    pub(super) fn secret(&self) -> Option<&'a str> {
        let value = self.value?;
        let text = value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.report.fault(&self.path, "something else", "a text");
        }
        text
    }

    /// A whole number in this range.
    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(expected, |value| as_whole(value).filter(|number| range.contains(number)))
    }

    /// The same as a `usize`.
    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Option<usize> {
        self.whole(range).and_then(|number| usize::try_from(number).ok())
    }

    /// A time in seconds, above zero.
    pub(super) fn seconds(&self) -> Option<Duration> {
        let expected = format!("a number of seconds from {SHORTEST_SECONDS} to {LONGEST_SECONDS}");
        self.read(expected, as_seconds)
    }

    /// A time in seconds, or zero.
    pub(super) fn seconds_or_zero(&self) -> Option<Duration> {
        let expected = format!("0, or a number of seconds from {SHORTEST_SECONDS} to {LONGEST_SECONDS}");
        self.read(expected, |value| match value.as_f64() {
            Some(0.0) => Some(Duration::ZERO),
            _ => as_seconds(value),
        })
    }

    /// This setting, or its older name `old` with a warning, if only that one is set.
    pub(super) fn or_old(self, old: Self, new: &'static str) -> Self {
        old.warn_old(new, self.is_set());
        if self.is_set() || !old.is_set() { self } else { old }
    }

    /// Warns, if this older name is set, that it is `new` now.
    pub(super) fn warn_old(&self, new: &'static str, new_is_set: bool) {
        let path = self.path.clone();
        match (self.is_set(), new_is_set) {
            (false, _) => {}
            (true, false) => self.report.warn(Warning::OldKey { path, new }),
            (true, true) => self.report.warn(Warning::OldKeyIgnored { path, new }),
        }
    }

    /// Reports that something is missing, or wrong elsewhere.
    pub(super) fn lacks(&self, found: &str, expected: &'static str) {
        self.report.fault(&self.path, found, expected);
    }

    /// Warns that the part `found` of this setting is not supported, and names the actual behaviour.
    pub(super) fn warn_instead(&self, found: &str, holds: &'static str) {
        self.report.warn(Warning::Instead { path: self.path.clone(), found: printable(found).into_owned(), holds });
    }

    /// Warns that other users of the system can read a key.
    pub(super) fn warn_open_key(&self, key: &Path) {
        self.report.warn(Warning::OpenKey { path: self.path.clone(), key: key.into() });
    }

    /// Warns that something is open to everyone, with the consequence.
    pub(super) fn warn_open(&self, what: &'static str) {
        self.report.warn(Warning::Open { path: self.path.clone(), what });
    }

    /// Warns, if this is set, that it has no effect.
    pub(super) fn warn_no_effect(&self, why: &'static str) {
        if self.is_set() {
            self.report.warn(Warning::NoEffect { path: self.path.clone(), why });
        }
    }
}

/// A short description of a value.
fn describe(value: &Value) -> String {
    const LONGEST_SHOWN: usize = 60;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() > LONGEST_SHOWN => {
            let beginning: String = text.chars().take(LONGEST_SHOWN).collect();
            format!("{}…", Value::from(beginning))
        }
        Value::String(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => "an empty list".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// A whole number, also written as `100.0` or `1e3`.
fn as_whole(value: &Value) -> Option<u64> {
    const EXACT: RangeInclusive<f64> = 0.0..=9_007_199_254_740_991.0;
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && EXACT.contains(number))?;
        Some(number as u64)
    })
}

fn as_seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64()?;
    (SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// The path of a member with any name.
pub(super) fn join(section: &str, key: &str) -> String {
    let key = printable(key);
    if section.is_empty() { key.into_owned() } else { format!("{section}.{key}") }
}
