//! Attributes of a backend, written behind `#` in its URL. All of them may change while the backend stays.

use super::options::values::{FLAG, HOST, LIMIT, TIME_OR_ZERO, read_whole};
use super::options::{Kind, shorten};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The greatest weight, as HAProxy's.
const MAX_WEIGHT: u32 = 256;

/// The role of a backend. Source: x0d's director, 0.5 and 0.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// It serves.
    #[default]
    Active,
    /// It serves when every active one is full, down or disabled: help in an overload.
    Standby,
    /// It serves when no active and no standby one is up: help in an outage. A full cluster queues instead.
    Backup,
}

impl Role {
    /// Every role, in the order in which they serve.
    pub const ALL: [Self; 3] = [Self::Active, Self::Standby, Self::Backup];

    /// The name in URLs, views and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Attributes of a list entry, besides its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The greatest number of requests in flight, over all cores; `None` for no limit.
    pub capacity: Option<NonZeroU32>,
    /// The relative share of requests, 0 to 256. A member with 0 gets only requests that name it.
    pub weight: u32,
    /// Its role.
    pub role: Role,
    /// Time in which its share and its capacity rise to their full size once it is up; `None` for the cluster's
    /// `slowStart`.
    pub slow_start: Option<Duration>,
    /// It gets no new requests.
    pub is_disabled: bool,
    /// The `Host` of its requests; `None` for the client's.
    pub host: Option<Box<str>>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { capacity: None, weight: 1, role: Role::Active, slow_start: None, is_disabled: false, host: None }
    }
}

const WEIGHT: Kind<u32> = Kind { expected: "a whole number from 0 to 256", read: |text| read_whole(text, MAX_WEIGHT) };

const ROLE: Kind<Role> =
    Kind { expected: "active, standby or backup", read: |text| Role::ALL.into_iter().find(|role| role.name() == text) };

/// An attribute: name, values and meaning.
pub struct AttributeDefinition {
    /// The name.
    pub name: &'static str,
    /// The values, for messages.
    pub expected: &'static str,
    /// The meaning, for the documentation.
    pub meaning: &'static str,
    set: fn(&mut Attributes, &str) -> bool,
    copy: fn(&mut Attributes, &Attributes),
}

impl fmt::Debug for AttributeDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! attributes {
    ($($name:literal, $field:ident, $kind:expr, $meaning:literal;)*) => {
        /// Every attribute, except those of the connection (`proxy`, `sni`), which belong to the endpoint.
        pub const ATTRIBUTES: &[AttributeDefinition] = &[$(AttributeDefinition {
            name: $name,
            expected: $kind.expected,
            meaning: $meaning,
            set: |attributes, text| match ($kind.read)(text) {
                Some(value) => {
                    attributes.$field = value.into();
                    true
                }
                None => false,
            },
            copy: |attributes, from| attributes.$field.clone_from(&from.$field),
        }),*];
    };
}

attributes! {
    "capacity", capacity, LIMIT, "Requests in flight at this backend, over all cores of a node; 0 for any number";
    "weight", weight, WEIGHT, "Share of requests; with 0 only requests that name the backend or belong to its sessions";
    "role", role, ROLE, "When it serves: always, in an overload, in an outage";
    "slowStart", slow_start, TIME_OR_ZERO, "Time in which share and capacity rise; by default slowStart of the frontend";
    "disabled", is_disabled, FLAG, "It gets no new requests";
    "host", host, HOST, "The Host of its requests and probes, in place of the client's; an option health.host goes first for probes";
}

/// Words without a value, and the attributes that they set. Source: x0's documents.
const WORDS: [(&str, &str, &str); 4] = [
    ("disabled", "disabled", "true"),
    ("disable", "disabled", "true"),
    ("backup", "role", "backup"),
    ("standby", "role", "standby"),
];

/// The names of what belongs to the endpoint of an entry, and stands behind `#` too.
const CONNECTION_NAMES: [&str; 5] = ["proxy", "sni", "ca", "insecure", "verify"];

/// A part of an entry that sets no attribute.
#[derive(Clone, Debug)]
pub enum AttributeError {
    /// An attribute has an invalid value.
    Value {
        /// The attribute.
        definition: &'static AttributeDefinition,
        /// Its value in the entry.
        found: Box<str>,
    },
    /// A name behind `#` is no attribute. It has no effect.
    Unknown(Box<str>),
    /// An attribute that is not read behind `?` stands there. It has no effect.
    Misplaced(Box<str>),
}

impl AttributeError {
    /// Sets the attribute to its value in `before`.
    pub(super) fn keep(&self, attributes: &mut Attributes, before: &Attributes) {
        if let Self::Value { definition, .. } = self {
            (definition.copy)(attributes, before);
        }
    }

    /// Whether it has no effect, and nothing is missing without it.
    pub fn is_ignored(&self) -> bool {
        !matches!(self, Self::Value { .. })
    }
}

impl PartialEq for AttributeError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for AttributeError {}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { definition: AttributeDefinition { name, expected, .. }, found } => {
                write!(f, "{name} is {found:?}, expected {expected}")
            }
            Self::Unknown(name) => {
                let names = ATTRIBUTES.iter().map(|definition| definition.name).chain(CONNECTION_NAMES);
                let names: Vec<&str> = names.collect();
                write!(
                    f,
                    "{name:?} behind \"#\" is ignored, expected {}, each with a value, or disabled, backup or standby alone",
                    names.join(", ")
                )
            }
            Self::Misplaced(name) => write!(f, "{name} behind \"?\" is ignored: write it behind \"#\""),
        }
    }
}

/// The error of a word behind `#` that sets no attribute, unless it belongs to the endpoint. Where an `@` follows, the `#` may
/// stand within a password.
fn unknown(word: &str, fragment: &str) -> Option<AttributeError> {
    let name = word.split('=').next().filter(|name| !name.is_empty() && !CONNECTION_NAMES.contains(name))?;
    let is_doubtful = fragment.contains('@') || fragment.contains("%40");
    Some(AttributeError::Unknown(if is_doubtful { "***".into() } else { shorten(name).into() }))
}

impl Attributes {
    /// Reads attributes from the query and the fragment of a URL; the fragment takes precedence. The query supports
    /// only `capacity` and the words without a value. Other names in the query are a path's own, unless they are those of
    /// attributes.
    pub(super) fn read(query: &str, fragment: &str) -> (Self, Vec<AttributeError>) {
        let (mut attributes, mut errors) = (Self::default(), Vec::new());
        let in_query = query.split('&').map(|word| (word, false));
        for (word, is_fragment) in in_query.chain(fragment.split('&').map(|word| (word, true))) {
            let meant = match word.split_once('=') {
                None => WORDS.iter().find(|(text, ..)| *text == word).map(|(_, name, value)| (*name, *value)),
                Some(pair) => Some(pair),
            };
            let definition = meant.and_then(|(name, _)| ATTRIBUTES.iter().find(|definition| definition.name == name));
            match (meant, definition) {
                (Some((name, _)), Some(_)) if !is_fragment && word.contains('=') && name != "capacity" => {
                    errors.push(AttributeError::Misplaced(name.into()));
                }
                (Some((_, value)), Some(definition)) => {
                    let is_set = (definition.set)(&mut attributes, value);
                    let error = || AttributeError::Value { definition, found: shorten(value).into() };
                    errors.extend((!is_set).then(error));
                }
                _ if is_fragment => errors.extend(unknown(word, fragment)),
                _ => {}
            }
        }
        (attributes, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, fragment: &str) -> (Attributes, Vec<String>) {
        let (attributes, errors) = Attributes::read(query, fragment);
        (attributes, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn attributes_stand_in_the_fragment_and_some_in_the_query() {
        let default = Attributes::default();
        let capacity = NonZeroU32::new;
        let table = [
            ("", "", default.clone()),
            ("x=1&y", "", default.clone()),
            (
                "capacity=4&backup&disable",
                "",
                Attributes { capacity: capacity(4), role: Role::Backup, is_disabled: true, ..default.clone() },
            ),
            (
                "capacity=4",
                "capacity=0&role=standby&weight=0",
                Attributes { role: Role::Standby, weight: 0, ..default.clone() },
            ),
            (
                "",
                "slowStart=30s&disabled&proxy=v2",
                Attributes { slow_start: Some(Duration::from_secs(30)), is_disabled: true, ..default.clone() },
            ),
            ("", "disabled=false&backup", Attributes { role: Role::Backup, ..default }),
        ];
        for (query, fragment, expected) in table {
            assert_eq!(read(query, fragment), (expected, vec![]), "?{query}#{fragment}");
        }
    }

    #[test]
    fn every_wrong_value_is_named() {
        let (attributes, errors) = read("capacity=x", "weight=257&role=spare&slowStart=soon&disabled=1");
        assert_eq!(attributes, Attributes::default());
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert_eq!(errors[1], "weight is \"257\", expected a whole number from 0 to 256");
    }

    #[test]
    fn a_word_that_has_no_effect_is_named() {
        let (attributes, errors) =
            read("weight=2&role=backup&token=x", "backup=true&wieght=2&proxy=v2&insecure&standbye");
        assert_eq!(attributes, Attributes::default());
        assert!(read("", "b&c@10.0.0.1").1.iter().all(|error| error.starts_with("\"***\"")), "no part of a password");
        let begins = ["weight behind \"?\"", "role behind \"?\"", "\"backup\"", "\"wieght\"", "\"standbye\""];
        assert_eq!(errors.len(), begins.len(), "{errors:?}");
        for (error, start) in errors.iter().zip(begins) {
            assert!(error.starts_with(start), "{error}");
        }
    }
}
