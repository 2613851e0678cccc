//! Schedulers by name, and the key that `hash` hashes.

use super::Kind;
use super::values::TOKEN;

/// The choice among the members that may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// A random member, with a probability in proportion to its weight (Hipache).
    #[default]
    Random,
    /// In turn, by weight (smooth weighted round robin, nginx).
    RoundRobin,
    /// The first member of the list that has room (x0d).
    Chance,
    /// The member with the most free slots (x0d); without capacities the one with the fewest requests for its weight.
    LeastLoad,
    /// The member that a key of the request leads to (consistent hashing with bounded loads).
    Hash,
}

impl Scheduler {
    /// Every scheduler.
    pub const ALL: [Self; 5] = [Self::Random, Self::RoundRobin, Self::Chance, Self::LeastLoad, Self::Hash];

    /// The name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "rr",
            Self::Chance => "chance",
            Self::LeastLoad => "leastLoad",
            Self::Hash => "hash",
        }
    }
}

pub(super) const SCHEDULER: Kind<Scheduler> = Kind {
    expected: "random, rr, chance, leastLoad or hash",
    read: |text| Scheduler::ALL.into_iter().find(|scheduler| scheduler.name() == text),
};

/// The part of a request that the scheduler `hash` hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    #[default]
    Client,
    /// The value of a header.
    Header(Box<str>),
    /// The value of a cookie.
    Cookie(Box<str>),
    /// The value of a parameter of the query.
    Parameter(Box<str>),
    /// The request target.
    Uri,
    /// The path without the query.
    Path,
    /// The first segment of the path.
    Segment,
}

pub(super) const HASH_KEY: Kind<HashKey> = Kind {
    expected: "client, uri, path, segment, header:NAME, cookie:NAME or query:NAME",
    read: |text| match (text, text.split_once(':')) {
        ("client", _) => Some(HashKey::Client),
        ("uri", _) => Some(HashKey::Uri),
        ("path", _) => Some(HashKey::Path),
        ("segment", _) => Some(HashKey::Segment),
        (_, Some(("header", name))) => (TOKEN.read)(name).map(HashKey::Header),
        (_, Some(("cookie", name))) => (TOKEN.read)(name).map(HashKey::Cookie),
        (_, Some(("query", name))) => (TOKEN.read)(name).map(HashKey::Parameter),
        _ => None,
    },
};
