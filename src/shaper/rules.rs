//! The option `classify`: ordered rules that select the bucket of a request.
//!
//! A request is classified from its raw head, without allocation. The first rule whose conditions all hold decides.

mod parse;

use super::node::BucketId;
use super::shared::Shaper;
use super::spec::{ROOT, Spec};
use super::waiters::Flow;
use crate::wire::cookies;
use ipnet::IpNet;
use regex::bytes::Regex;
use std::net::IpAddr;

/// The parts of a request that rules examine.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The host: lower case, without port and trailing dot.
    pub host: &'a str,
    /// The method, case-sensitive.
    pub method: &'a [u8],
    /// The target in origin form. Rules look at its path, up to the query.
    pub target: &'a [u8],
    /// The field lines as received, without the request line; a blank line ends them.
    pub fields: &'a [u8],
    /// The client's address; an IPv4 address is never in its mapped IPv6 form.
    pub client: IpAddr,
    /// The server name of the TLS handshake, in lower case.
    pub tls_name: Option<&'a str>,
    /// Whether the request comes from a trusted network, so that its fields may name a bucket.
    pub is_trusted: bool,
}

impl<'a> RequestView<'a> {
    fn path(&self) -> &'a [u8] {
        let end = memchr::memchr(b'?', self.target).unwrap_or(self.target.len());
        self.target.get(..end).unwrap_or_default()
    }

    /// The values of the fields with this name.
    fn field(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            loop {
                let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                let (line, others) = rest.split_at_checked(end)?;
                if matches!(line, [] | b"\n" | b"\r\n") {
                    return None;
                }
                rest = others;
                if line.get(name.len()) == Some(&b':')
                    && let Some((found, value)) = line.split_at_checked(name.len())
                    && found.eq_ignore_ascii_case(name.as_bytes())
                {
                    return Some(value.get(1..)?.trim_ascii());
                }
            }
        })
    }

    /// The values of the cookies with this name.
    fn cookie(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.field("Cookie").flat_map(move |value| cookies(value, name))
    }
}

/// Rules checked against a tree of buckets.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    conditions: Vec<Condition>,
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Bucket(Box<str>),
    /// The bucket named by the value of this field, if the request comes from a trusted network.
    NamedBy(Box<str>),
}

#[derive(Clone, Debug)]
enum Condition {
    Host(Vec<HostPattern>),
    PathPrefix(Vec<Box<[u8]>>),
    PathRegex(Regex),
    Method(Vec<Box<[u8]>>),
    Header(Box<str>, Option<Box<[u8]>>),
    Cookie(Box<str>, Option<Box<[u8]>>),
    Network(Vec<IpNet>),
    TlsName(Vec<HostPattern>),
}

/// A name, or a suffix with a leading dot, in lower case.
#[derive(Clone, Debug)]
struct HostPattern(Box<str>);

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self.0.starts_with('.') {
            true => host.len() > self.0.len() && host.ends_with(&*self.0),
            false => host == &*self.0,
        }
    }
}

impl Condition {
    fn holds(&self, request: &RequestView<'_>) -> bool {
        let is_value = |expected: &Option<Box<[u8]>>, value: &[u8]| match expected {
            Some(expected) => **expected == *value,
            None => true,
        };
        match self {
            Self::Host(patterns) => patterns.iter().any(|pattern| pattern.matches(request.host)),
            Self::PathPrefix(prefixes) => prefixes.iter().any(|prefix| request.path().starts_with(prefix)),
            Self::PathRegex(regex) => regex.is_match(request.path()),
            Self::Method(methods) => methods.iter().any(|method| **method == *request.method),
            Self::Header(name, expected) => request.field(name).any(|value| is_value(expected, value)),
            Self::Cookie(name, expected) => request.cookie(name).any(|value| is_value(expected, value)),
            Self::Network(networks) => networks.iter().any(|network| network.contains(&request.client)),
            Self::TlsName(patterns) => {
                request.tls_name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
            }
        }
    }
}

/// The bucket of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class<'c> {
    /// The bucket, for [`super::Shaper::admit`].
    pub bucket: BucketId,
    /// Its name, for `X-Director-Bucket` and the access log.
    pub name: &'c str,
}

/// Rules bound to the buckets of one tree. They are bound again whenever the tree's spec changes.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rules: Vec<(Vec<Condition>, BoundTarget)>,
}

#[derive(Clone, Debug)]
enum BoundTarget {
    Bucket(BucketId, Box<str>),
    NamedBy(Box<str>, Box<[(Box<str>, BucketId)]>),
}

impl Classifier {
    /// Binds rules to a tree that has this spec. A rule whose bucket is not in the tree is left out.
    pub fn bind<W: Flow>(rules: &Rules, spec: &Spec, shaper: &Shaper<W>) -> Self {
        let bind_target = |target: &Target| match target {
            Target::Bucket(name) => shaper.bucket(name).map(|bucket| BoundTarget::Bucket(bucket, name.clone())),
            Target::NamedBy(field) => {
                let names = spec.names().into_iter().chain([ROOT]);
                let buckets = names.filter_map(|name| Some((name.into(), shaper.bucket(name)?)));
                Some(BoundTarget::NamedBy(field.clone(), buckets.collect()))
            }
        };
        let bound = rules.0.iter().filter_map(|rule| Some((rule.conditions.clone(), bind_target(&rule.target)?)));
        Self { rules: bound.collect() }
    }

    /// The name of the root, or of a bucket that a rule selects.
    pub fn name_of(&self, bucket: BucketId) -> Option<&str> {
        let named = self.rules.iter().find_map(|(_, target)| match target {
            BoundTarget::Bucket(found, name) => (*found == bucket).then_some(&**name),
            BoundTarget::NamedBy(_, buckets) => {
                buckets.iter().find(|(_, found)| *found == bucket).map(|(name, _)| &**name)
            }
        });
        named.or_else(|| (bucket == BucketId::UNCLASSIFIED).then_some(ROOT))
    }

    /// Whether any rule examines the client's address.
    pub fn has_networks(&self) -> bool {
        let mut conditions = self.rules.iter().flat_map(|(conditions, _)| conditions);
        conditions.any(|condition| matches!(condition, Condition::Network(_)))
    }

    /// The bucket of a request: that of the first matching rule, or the root.
    pub fn classify(&self, request: &RequestView<'_>) -> Class<'_> {
        let matching = self.rules.iter().filter(|(conditions, _)| conditions.iter().all(|each| each.holds(request)));
        let mut classes = matching.filter_map(|(_, target)| target.class(request));
        classes.next().unwrap_or(Class { bucket: BucketId::UNCLASSIFIED, name: ROOT })
    }
}

impl BoundTarget {
    fn class(&self, request: &RequestView<'_>) -> Option<Class<'_>> {
        match self {
            Self::Bucket(bucket, name) => Some(Class { bucket: *bucket, name }),
            Self::NamedBy(..) if !request.is_trusted => None,
            Self::NamedBy(field, buckets) => {
                let value = request.field(field).next()?;
                let (name, bucket) = buckets.iter().find(|(name, _)| name.as_bytes() == value)?;
                Some(Class { bucket: *bucket, name })
            }
        }
    }
}
