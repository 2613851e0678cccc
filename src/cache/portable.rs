//! Stored responses as bytes for another process: the content of a store, and its later changes.
//!
//! A record is its kind (one byte), the length of the rest (four bytes, big-endian) and the rest; the record of an
//! object is followed by its body. Numbers are big-endian, a text has its length in front. Parsing is strict: an
//! invalid record is an error, and ends the transfer.

use super::body::Body;
use super::directives::ResponseDirectives;
use super::fields::Fields;
use super::freshness::{Freshness, LifetimeSource};
use super::object::{self, ETag, Object, Origin};
use super::purge::{PurgeMode, Selector};
use super::storability;
use super::vary::Variant;
use crate::wire::put;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

/// The first bytes of a transfer: the format and its version.
pub const MAGIC: &[u8; 16] = b"sluice cache 1\r\n";

/// Length of the prefix of a record in bytes.
pub const PREFIX: usize = 5;

/// The greatest length of a record in bytes, without the body.
pub const MOST_BYTES: u32 = 4 << 20;

/// The greatest number of lines of a head.
const MOST_LINES: usize = 1024;

/// A change that removes objects, to be repeated in another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All variants of a key are dropped.
    Drop(Box<[u8]>),
    /// All variants of a key are stale.
    Stale(Box<[u8]>),
    /// A purge.
    Purge(Selector, PurgeMode),
}

/// A record.
#[derive(Debug)]
pub enum Record {
    /// An object, whose body of this length follows.
    Object(Box<PortableObject>, u64),
    /// A change.
    Change(Change),
    /// All objects stored at the beginning of the transfer were sent; changes may follow.
    End,
}

/// An object without its body.
#[derive(Debug)]
pub struct PortableObject {
    /// Its key.
    pub key: Box<[u8]>,
    object: Object,
}

impl PortableObject {
    /// The object.
    pub fn with_body(self, body: Body) -> (Box<[u8]>, Object) {
        (self.key, Object { body, ..self.object })
    }
}

/// The record of an object. `None` if its head cannot be expressed.
pub fn encode_object(key: &[u8], object: &Object) -> Option<Vec<u8>> {
    let lines = [&*object.fields, b"\r\n"].concat();
    let is_same = with_fields(&lines, |fields| ResponseDirectives::read(fields) == object.directives)?;
    if !is_same {
        return None;
    }
    let mut out = Writer::new(0);
    out.bytes(key);
    out.number(u64::from(object.status));
    out.bytes(object.phrase.as_bytes());
    out.bytes(&object.fields);
    let (initial_age, received_at) = object.freshness.parts();
    out.number(object.freshness.lifetime.as_secs());
    out.number(u64::from(match object.freshness.source {
        LifetimeSource::Stated => 0_u8,
        LifetimeSource::Heuristic => 1,
        LifetimeSource::Default => 2,
        LifetimeSource::Nothing => 3,
    }));
    out.number(micros(initial_age));
    out.number(micros(received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()));
    let selecting = object.variant.fields();
    out.number(selecting.len() as u64);
    for (name, value) in selecting {
        out.bytes(name.as_bytes());
        out.option(value.as_deref());
    }
    let Origin { frontend, host, target } = &object.origin;
    [frontend.as_bytes(), host, target].into_iter().for_each(|text| out.bytes(text));
    out.number(object.hits());
    out.number(u64::from(object.is_purged()));
    out.number(object.body.len());
    out.finish()
}

/// The record of a change.
pub fn encode_change(change: &Change) -> Option<Vec<u8>> {
    let mut out = Writer::new(match change {
        Change::Drop(_) => 1,
        Change::Stale(_) => 2,
        Change::Purge(..) => 3,
    });
    match change {
        Change::Drop(key) | Change::Stale(key) => out.bytes(key),
        Change::Purge(selector, mode) => {
            out.number(u64::from(*mode == PurgeMode::Hard));
            match selector {
                Selector::All => out.number(0),
                Selector::Host(host) => {
                    out.number(1);
                    out.bytes(host);
                }
                Selector::Prefix { host, prefix } => {
                    out.number(2);
                    out.bytes(host);
                    out.bytes(prefix);
                }
                Selector::Tag { frontend, tag } => {
                    out.number(3);
                    out.option(frontend.as_ref().map(|frontend| frontend.as_bytes()));
                    out.bytes(tag);
                }
                Selector::Frontend(frontend) => {
                    out.number(4);
                    out.bytes(frontend.as_bytes());
                }
            }
        }
    }
    out.finish()
}

/// The record after all objects.
pub fn encode_end() -> Option<Vec<u8>> {
    Writer::new(4).finish()
}

/// The kind of a record and the length of its rest. `None` if that is too long.
pub fn prefix(bytes: [u8; PREFIX]) -> Option<(u8, u32)> {
    let [kind, len @ ..] = bytes;
    let len = u32::from_be_bytes(len);
    (len <= MOST_BYTES).then_some((kind, len))
}

/// Parses the rest of a record. `None` if it is invalid.
pub fn decode(kind: u8, rest: &[u8]) -> Option<Record> {
    let mut rest = Reader(rest);
    let record = match kind {
        0 => decode_object(&mut rest)?,
        1 => Record::Change(Change::Drop(rest.bytes()?.into())),
        2 => Record::Change(Change::Stale(rest.bytes()?.into())),
        3 => Record::Change(decode_purge(&mut rest)?),
        4 => Record::End,
        _ => return None,
    };
    rest.0.is_empty().then_some(record)
}

fn decode_object(rest: &mut Reader<'_>) -> Option<Record> {
    let key = rest.bytes()?.into();
    let status = u16::try_from(rest.number()?).ok()?;
    let phrase = rest.text()?.into();
    let lines = rest.bytes()?;
    let lifetime = Duration::from_secs(rest.number()?);
    let source = match rest.number()? {
        0 => LifetimeSource::Stated,
        1 => LifetimeSource::Heuristic,
        2 => LifetimeSource::Default,
        3 => LifetimeSource::Nothing,
        _ => return None,
    };
    let initial_age = Duration::from_micros(rest.number()?);
    let received_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(rest.number()?))?;
    let mut selecting = Vec::new();
    for _ in 0..rest.number()?.min(super::vary::MOST_FIELDS as u64) {
        let name = rest.text()?.into();
        selecting.push((name, rest.option()?.map(Into::into)));
    }
    let origin = Origin { frontend: rest.text()?.into(), host: rest.bytes()?.into(), target: rest.bytes()?.into() };
    let (hits, is_purged, len) = (rest.number()?, rest.number()? == 1, rest.number()?);
    let whole = [lines, b"\r\n"].concat();
    let object = with_fields(&whole, |fields| Object {
        status,
        phrase,
        fields: Arc::from(lines),
        not_modified_fields: not_modified(fields),
        body: Body::default(),
        etag: fields.only("etag").and_then(ETag::parse),
        last_modified: fields.date("last-modified"),
        date: fields.date("date").unwrap_or(received_at),
        directives: ResponseDirectives::read(fields),
        freshness: Freshness::of_parts((lifetime, source), initial_age, received_at),
        variant: Variant::of_fields(selecting),
        origin,
        tags: storability::tags(fields),
        charge: None,
        hits: hits.into(),
        is_purged: is_purged.into(),
        refreshing_until: 0.into(),
    })?;
    object.hits.store(hits, Relaxed);
    Some(Record::Object(Box::new(PortableObject { key, object }), len))
}

fn decode_purge(rest: &mut Reader<'_>) -> Option<Change> {
    let mode = if rest.number()? == 1 { PurgeMode::Hard } else { PurgeMode::Soft };
    let selector = match rest.number()? {
        0 => Selector::All,
        1 => Selector::Host(rest.bytes()?.into()),
        2 => Selector::Prefix { host: rest.bytes()?.into(), prefix: rest.bytes()?.into() },
        3 => {
            let frontend = match rest.option()? {
                Some(frontend) => Some(std::str::from_utf8(frontend).ok()?.into()),
                None => None,
            };
            Selector::Tag { frontend, tag: rest.bytes()?.into() }
        }
        4 => Selector::Frontend(rest.text()?.into()),
        _ => return None,
    };
    Some(Change::Purge(selector, mode))
}

/// Parses lines that end with a blank one. `None` if they are invalid.
fn with_fields<T>(lines: &[u8], read: impl FnOnce(Fields<'_>) -> T) -> Option<T> {
    let mut room = vec![httparse::EMPTY_HEADER; MOST_LINES];
    match httparse::parse_headers(lines, &mut room) {
        Ok(httparse::Status::Complete((_, fields))) => Some(read(Fields(fields))),
        _ => None,
    }
}

fn not_modified(fields: Fields<'_>) -> Box<[u8]> {
    let mut out = Vec::new();
    let kept = fields.0.iter().filter(|header| object::is_in_not_modified(header.name));
    kept.for_each(|header| put(&mut out, header.name, header.value));
    out.into()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Writes a record.
struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        Self(vec![kind, 0, 0, 0, 0])
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn option(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        bytes.iter().for_each(|bytes| self.bytes(bytes));
    }

    /// The record; `None` if it is too long.
    fn finish(mut self) -> Option<Vec<u8>> {
        let len = u32::try_from(self.0.len() - PREFIX).ok().filter(|len| *len <= MOST_BYTES)?;
        let prefix = self.0.iter_mut().skip(1).zip(len.to_be_bytes());
        prefix.for_each(|(place, byte)| *place = byte);
        Some(self.0)
    }
}

/// Reads a record.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    #[expect(clippy::option_option, reason = "the outer one tells that the record is at fault")]
    fn option(&mut self) -> Option<Option<&'a [u8]>> {
        match self.number()? {
            0 => Some(None),
            1 => self.bytes().map(Some),
            _ => None,
        }
    }
}
