//! Parses the JSON text of rules.

use super::super::json::{Json, quoted};
use super::super::spec::{Fault, Faults, ROOT, Spec};
use super::{Condition, HostPattern, Rule, Rules, Target};
use crate::wire::is_token;
use ipnet::IpNet;
use regex::bytes::RegexBuilder;
use std::net::IpAddr;

/// The greatest number of rules in a list.
const MAX_RULES: usize = 1_000;

/// The greatest size of a compiled regex in bytes, and of its cache for each thread that uses it at the same time.
const MAX_REGEX_BYTES: usize = 1 << 20;

const KEYS: &str = "\"host\", \"pathPrefix\", \"pathRegex\", \"method\", \"header\", \"cookie\", \"network\", \"tlsName\" and, \
                    for the outcome, \"bucket\" or \"bucketFrom\"";

impl Rules {
    /// Parses the JSON text of the option `classify`, for a tree with the buckets of `spec`. All faults are found at once.
    ///
    /// ```text
    /// [{"header": ["X-Class", "vip"], "bucket": "VIP"}, {"pathPrefix": "/upload/", "method": "POST", "bucket": "Upload"}]
    /// ```
    pub fn parse(text: &str, spec: &Spec) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader { faults: Faults::default(), names: spec.names() };
        let path = "classify";
        let mut rules = Vec::new();
        match Json::parse(text) {
            Ok(Json::List(items)) if items.len() > MAX_RULES => {
                reader.faults.add(path, format!("{} rules, at most {MAX_RULES} are possible", items.len()));
            }
            Ok(Json::List(items)) => {
                for (place, item) in items.iter().enumerate() {
                    rules.extend(reader.read_rule(item, &format!("{path}[{place}]")));
                }
            }
            Ok(value) => reader.faults.found(path, &value, "a list of rules"),
            Err(error) => reader.faults.add(path, format!("no JSON: {error}")),
        }
        reader.faults.or(Self(rules))
    }
}

struct Reader<'s> {
    faults: Faults,
    /// The buckets of the tree.
    names: Vec<&'s str>,
}

impl Reader<'_> {
    fn read_rule(&mut self, value: &Json, path: &str) -> Option<Rule> {
        let Json::Object(members) = value else {
            self.faults.found(
                path,
                value,
                "an object, as in {\"header\": [\"X-Class\", \"vip\"], \"bucket\": \"VIP\"}",
            );
            return None;
        };
        let mut conditions = Vec::new();
        let mut target = None;
        for (key, value) in members {
            let place = format!("{path}.{key}");
            if key == "bucket" || key == "bucketFrom" {
                if target.is_some() {
                    self.faults.add(&place, "a rule has one outcome: \"bucket\" or \"bucketFrom\"");
                }
                target = self.read_target(key, value, &place);
            } else {
                conditions.extend(self.read_condition(key, value, &place));
            }
        }
        if !members.iter().any(|(key, _)| key == "bucket" || key == "bucketFrom") {
            self.faults.add(path, "has no \"bucket\", expected the name of one");
        }
        Some(Rule { conditions, target: target? })
    }

    fn read_target(&mut self, key: &str, value: &Json, path: &str) -> Option<Target> {
        let Some(text) = value.text() else {
            self.faults.found(path, value, "a text");
            return None;
        };
        if key == "bucketFrom" {
            return self.field_name(text, path).map(Target::NamedBy);
        }
        if text != ROOT && !self.names.contains(&text) {
            let problem = format!("found {}, expected a bucket of the option buckets, or {ROOT:?}", quoted(text));
            self.faults.add(path, problem);
            return None;
        }
        Some(Target::Bucket(text.into()))
    }

    fn read_condition(&mut self, key: &str, value: &Json, path: &str) -> Option<Condition> {
        match key {
            "host" => self.read_hosts(value, path).map(Condition::Host),
            "tlsName" => self.read_hosts(value, path).map(Condition::TlsName),
            "pathPrefix" => self
                .read_texts(value, path, "a path that starts with \"/\", or a list of them", |text| {
                    text.starts_with('/').then(|| text.as_bytes().into())
                })
                .map(Condition::PathPrefix),
            "method" => self
                .read_texts(value, path, "a method, as in \"POST\", or a list of them", |text| {
                    is_token(text.as_bytes()).then(|| text.as_bytes().into())
                })
                .map(Condition::Method),
            "network" => self
                .read_texts(value, path, "a network, as in \"10.0.0.0/8\", or a list of them", network)
                .map(Condition::Network),
            "pathRegex" => self.read_regex(value, path),
            "header" | "cookie" => self.read_pair(key, value, path),
            _ => {
                self.faults.add(path, format!("is not known here: a rule has {KEYS}"));
                None
            }
        }
    }

    fn read_hosts(&mut self, value: &Json, path: &str) -> Option<Vec<HostPattern>> {
        let expected = "a host name or *.suffix in lower case, or a list of them";
        self.read_texts(value, path, expected, |text| {
            let name = text.strip_prefix('*').unwrap_or(text);
            let is_suffix = name.len() < text.len();
            let is_name = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"*/,".contains(&byte);
            let is_good =
                name.len() > usize::from(is_suffix) && name.starts_with('.') == is_suffix && name.bytes().all(is_name);
            is_good.then(|| HostPattern(name.into()))
        })
    }

    fn read_texts<T>(
        &mut self,
        value: &Json,
        path: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(texts) = value.texts().filter(|texts| !texts.is_empty()) else {
            self.faults.found(path, value, expected);
            return None;
        };
        let mut read_all = Vec::new();
        for text in texts {
            match read(text) {
                Some(read) => read_all.push(read),
                None => self.faults.add(path, format!("found {}, expected {expected}", quoted(text))),
            }
        }
        Some(read_all)
    }

    fn read_regex(&mut self, value: &Json, path: &str) -> Option<Condition> {
        let Some(text) = value.text() else {
            self.faults.found(path, value, "a regular expression in quotes");
            return None;
        };
        let mut builder = RegexBuilder::new(text);
        match builder.unicode(false).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build() {
            Ok(regex) => Some(Condition::PathRegex(regex)),
            Err(error) => {
                // The last line is the reason; the lines before mark the position with a caret, which needs a
                // monospaced font.
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.faults.add(path, format!("found {}, no regular expression: {reason}", quoted(text)));
                None
            }
        }
    }

    fn read_pair(&mut self, key: &str, value: &Json, path: &str) -> Option<Condition> {
        let (name, expected) = match value.texts().as_deref() {
            Some([name]) => (*name, None),
            Some([name, expected]) => (*name, Some(expected.trim().as_bytes().into())),
            _ => {
                self.faults.found(path, value, "a name, or a list of a name and a value, as in [\"X-Class\", \"vip\"]");
                return None;
            }
        };
        let name = self.field_name(name, path)?;
        Some(if key == "header" { Condition::Header(name, expected) } else { Condition::Cookie(name, expected) })
    }

    fn field_name(&mut self, name: &str, path: &str) -> Option<Box<str>> {
        if !is_token(name.as_bytes()) {
            self.faults.add(path, format!("found {}, expected a name of letters, digits and '-'", quoted(name)));
            return None;
        }
        Some(name.into())
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}
