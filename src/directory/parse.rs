//! The parser of a routes file: `{"frontends": {"www.example.com": ["mywebsite", "http://10.0.0.1:80"]}}`.
//!
//! It makes two passes. The first one splits the text without interpreting it, and ends at the first syntax error of
//! JSON. The second one finds every semantic fault at once; each part is a slice of the text, so its position is known.

mod key_pairs;
mod options;

use super::catalog::FrontendRecord;
use super::certificates;
use super::table::FrontendRecords;
use crate::base::printable::printable;
use crate::base::secret::{redact_identifier, redact_url};
use crate::cluster::{BackendUrl, Options};
use crate::route::MAX_SUFFIX_LABELS;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::Path;

/// The greatest number of faults, and of warnings, that are kept. Further faults are counted, further warnings are
/// dropped.
const MAX_FAULTS: usize = 50;
/// The greatest number of characters of a wrong value that are shown.
const MAX_SHOWN: usize = 60;
/// The greatest length of a host name (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// A valid routes file.
#[derive(Debug)]
pub(super) struct Routes {
    /// The lists.
    pub(super) records: FrontendRecords,
    /// The certificates.
    pub(super) certificates: certificates::CertificateRecords,
    /// Legal but suspicious parts, the first of them.
    pub(super) warnings: Vec<Fault>,
}

/// A fault at one position of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The character of the line, from 1.
    pub column: usize,
    /// The path to the position, as in `frontends["www.example.com"][2]`; empty for a syntax error of JSON.
    pub path: String,
    /// The value found and the value expected.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

/// The faults of a file, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The first faults, in the order of the file.
    pub faults: Vec<Fault>,
    /// Number of further faults.
    pub more: usize,
}

/// Parses a complete routes file. Relative paths in it start at `folder`.
pub(super) fn parse(bytes: &[u8], folder: &Path) -> Result<Routes, Faults> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let (line, column) = place(&good, good.len());
            return Err(Faults::one(line, column, "a byte that is not UTF-8".to_owned()));
        }
    };
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => members,
        Err(error) => {
            let (line, column) = place(text, offset(text, &error));
            return Err(Faults::one(line, column, problem_of(&error, text)));
        }
    };
    let mut reader = Reader {
        text,
        folder,
        records: FrontendRecords::new(),
        certificates: certificates::CertificateRecords::new(),
        warnings: Vec::new(),
        faults: Vec::new(),
        more: 0,
    };
    reader.read_file(members);
    match reader.faults.is_empty() {
        true => Ok(Routes { records: reader.records, certificates: reader.certificates, warnings: reader.warnings }),
        false => Err(Faults { faults: reader.faults, more: reader.more }),
    }
}

impl Faults {
    fn one(line: usize, column: usize, problem: String) -> Self {
        Self { faults: vec![Fault { line, column, path: String::new(), problem }], more: 0 }
    }
}

/// The members of a JSON object in their order, duplicates included, as slices of the text.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'a> Visitor<'a> for Collect {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
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

/// The second pass.
struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
    records: FrontendRecords,
    certificates: certificates::CertificateRecords,
    warnings: Vec<Fault>,
    faults: Vec<Fault>,
    more: usize,
}

impl<'a> Reader<'a> {
    fn read_file(&mut self, members: Members<'a>) {
        let (mut frontends, mut certificates, mut options) = (None, None, None);
        for (key, value) in members.0 {
            match string(key).as_deref() {
                Some("frontends") if frontends.is_some() => self.fault(key, "frontends", "stands twice"),
                Some("frontends") => frontends = Some(value),
                Some("certificates") if certificates.is_some() => self.fault(key, "certificates", "stands twice"),
                Some("certificates") => certificates = Some(value),
                Some("options") if options.is_some() => self.fault(key, "options", "stands twice"),
                Some("options") => options = Some(value),
                Some(name) => self.warn(key, &shown(name), "is unknown and ignored"),
                None => self.fault(key, "", "found a name that is not Unicode text"),
            }
        }
        if let Some(value) = certificates {
            self.read_certificates(value);
        }
        match frontends {
            Some(value) => {
                self.read_frontends(value);
                if let Some(options) = options {
                    self.read_options(options);
                }
            }
            None => self.faults.push(Fault {
                line: 1,
                column: 1,
                path: "frontends".to_owned(),
                problem: "is missing, expected an object of lists".to_owned(),
            }),
        }
    }

    fn read_frontends(&mut self, value: &'a RawValue) {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            let problem = format!("found {}, expected an object of lists", kind(value));
            return self.fault(value, "frontends", &problem);
        };
        let mut seen: HashMap<Box<str>, &RawValue> = HashMap::with_capacity(members.0.len());
        for (key, list) in members.0 {
            let Some(name) = string(key) else {
                self.fault(key, "frontends", "found a name that is not Unicode text");
                continue;
            };
            let pattern = match pattern(&name) {
                Ok(pattern) => pattern,
                Err(problem) => {
                    self.fault(key, &path_of(&name), problem);
                    // The list is read all the same, to find all faults at once.
                    self.read_list(list, &name);
                    continue;
                }
            };
            if let Some(first) = seen.insert(pattern.as_str().into(), key) {
                let line = self.place(first).0;
                self.fault(key, &path_of(&name), &format!("stands twice, line {line} has it already"));
            }
            if pattern.starts_with("*.") && pattern.bytes().filter(|byte| *byte == b'.').count() > MAX_SUFFIX_LABELS {
                let problem = format!("no host is looked up under a star and more than {MAX_SUFFIX_LABELS} labels");
                self.warn(key, &path_of(&name), &problem);
            }
            if let Some(record) = self.read_list(list, &name) {
                self.records.insert(pattern.into(), record);
            }
        }
    }

    /// The list of the pattern written as `name`; `None` if it has a fault.
    fn read_list(&mut self, list: &'a RawValue, name: &str) -> Option<FrontendRecord> {
        const EXPECTED: &str = "expected a list of an identifier and URLs of backends";
        let items = match serde_json::from_str::<Vec<&'a RawValue>>(list.get()) {
            Ok(items) if !items.is_empty() => items,
            Ok(_) => {
                self.fault(list, &path_of(name), &format!("found an empty list, {EXPECTED}"));
                return None;
            }
            Err(_) => {
                self.fault(list, &path_of(name), &format!("found {}, {EXPECTED}", kind(list)));
                return None;
            }
        };
        let faults_before = self.faults.len() + self.more;
        let mut id = Box::default();
        let mut backends = Vec::with_capacity(items.len() - 1);
        for (index, item) in items.into_iter().enumerate() {
            let path = || format!("{}[{index}]", path_of(name));
            let Some(text) = string(item) else {
                let expected = if index == 0 { "an identifier in quotes" } else { "the URL of a backend in quotes" };
                self.fault(item, &path(), &format!("found {}, expected {expected}", kind(item)));
                continue;
            };
            match BackendUrl::parse(&text) {
                Ok(url) if index > 0 => {
                    for error in url.attribute_errors() {
                        match error.is_ignored() {
                            true => self.warn(item, &path(), &error.to_string()),
                            false => self.fault(item, &path(), &error.to_string()),
                        }
                    }
                    backends.push(url);
                }
                Err(fault) if index > 0 => {
                    self.fault(item, &path(), &format!("found {}, {fault}", shown(&redact_url(&text))))
                }
                is_url => {
                    if is_url.is_ok() {
                        let problem = "is a URL, but item 0 of a list is an identifier and no backend";
                        self.warn(item, &path(), problem);
                    }
                    // The text goes into headers and log lines, so it must not end them.
                    id = printable(&redact_identifier(&text)).into();
                }
            }
        }
        (self.faults.len() + self.more == faults_before).then(|| FrontendRecord {
            id,
            backends: backends.into(),
            options: Options::none(),
            created: 0,
        })
    }

    fn warn(&mut self, raw: &RawValue, path: &str, problem: &str) {
        if self.warnings.len() < MAX_FAULTS {
            let warning = self.remark(raw, path, problem);
            self.warnings.push(warning);
        }
    }

    fn fault(&mut self, raw: &RawValue, path: &str, problem: &str) {
        if self.faults.len() == MAX_FAULTS {
            self.more += 1;
            return;
        }
        let fault = self.remark(raw, path, problem);
        self.faults.push(fault);
    }

    fn remark(&self, raw: &RawValue, path: &str, problem: &str) -> Fault {
        let (line, column) = self.place(raw);
        Fault { line, column, path: printable(path).into_owned(), problem: problem.to_owned() }
    }

    fn place(&self, raw: &RawValue) -> (usize, usize) {
        // Every raw value here is a slice of the text, so the difference of the addresses is its offset.
        place(self.text, raw.get().as_ptr().addr() - self.text.as_ptr().addr())
    }
}

/// Line and column of a byte of the text.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The byte at which the parser stopped. The parser counts columns in bytes, and places a newline at column 0 of the
/// next line.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let newlines = memchr::memchr_iter(b'\n', text.as_bytes());
    let line_start = newlines.take(error.line().saturating_sub(1)).last().map_or(0, |newline| newline + 1);
    let offset = (line_start + error.column()).saturating_sub(1).min(text.len());
    (0..=offset).rev().find(|offset| text.is_char_boundary(*offset)).unwrap_or(0)
}

/// The pattern in the form used for comparison: lower case, without a trailing dot.
fn pattern(name: &str) -> Result<String, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name == "*" {
        return Ok(name);
    }
    let host = name.strip_prefix("*.").unwrap_or(&name);
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::parse::<Ipv6Addr>);
    if is_address.is_some_and(|address| address.is_ok()) && host == name {
        return Ok(name);
    }
    if host.contains('*') {
        return Err("a star stands alone or as the first label, as in *.example.com");
    }
    if host.contains(':') {
        return Err("a host has no scheme and no port here");
    }
    if !host.is_ascii() {
        return Err("expected the ASCII form of the name (xn--…)");
    }
    if host.len() > MAX_HOST_BYTES || host.split('.').any(str::is_empty) {
        return Err("expected a host name, *.suffix or *");
    }
    match host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        true => Ok(name),
        false => Err("a host name has letters, digits, '-', '_' and '.'"),
    }
}

/// A pattern of a key, of a list or of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPattern {
    /// Hosts are looked up under it.
    AsLookedUp,
    /// It is another spelling of this pattern: hosts are in lower case, and without a dot at the end.
    Spelling(String),
    /// No host can match it, for this reason.
    Never(String),
}

/// Judges the pattern of a key.
pub fn key_pattern(written: &str) -> KeyPattern {
    let looked_up = match pattern(written) {
        Err(problem) => return KeyPattern::Never(problem.to_owned()),
        Ok(looked_up) => looked_up,
    };
    if looked_up.starts_with("*.") && looked_up.bytes().filter(|byte| *byte == b'.').count() > MAX_SUFFIX_LABELS {
        let problem = format!("no host is looked up under a star and more than {MAX_SUFFIX_LABELS} labels");
        return KeyPattern::Never(problem);
    }
    if looked_up == written { KeyPattern::AsLookedUp } else { KeyPattern::Spelling(looked_up) }
}

/// The text of a JSON string; `None` for any other value, and for escapes that are not valid Unicode.
fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The kind of a JSON value, for a message.
fn kind(raw: &RawValue) -> &'static str {
    kind_of(raw.get())
}

fn kind_of(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The path of a pattern's list. It is made for faults only, since valid files may be long.
fn path_of(name: &str) -> String {
    format!("frontends[{}]", shown(name))
}

/// A value in quotes, cut to a length that suits a log.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The message of a parser's error without the position, which is reported separately. The value is described by its
/// kind, since the whole file may be a key.
fn problem_of(error: &serde_json::Error, text: &str) -> String {
    if error.is_data() {
        return format!("found {}, expected an object", kind_of(text.trim_start()));
    }
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]).to_owned()
}

#[cfg(test)]
mod tests;
