//! Stored responses as bytes, for another process and for files: what a store holds, and what takes it away again.
//!
//! A message is the length of the rest (four bytes, big-endian) and the rest, in the form of `postcard`. The body of an object
//! follows its message. What cannot be read is an error, and ends the transfer.

use super::body::Body;
use super::object::Object;
use super::purge::{PurgeMode, Selector};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The first bytes of a transfer: the format and its version.
pub const MAGIC: &[u8; 16] = b"sluice cache 3\r\n";

/// The bytes in front of a message.
pub const PREFIX: usize = 4;

/// The most bytes of a message, the body of an object left out.
pub const MOST_BYTES: u32 = 4 << 20;

/// The greatest age, lifetime and distance from 1970 that a message may state: the sum of two is within the range of a time.
const LONGEST: Duration = Duration::from_secs(1 << 40);

/// A change that removes objects, to be repeated in another store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// All variants of a key are dropped.
    Drop(Box<[u8]>),
    /// All variants of a key are stale.
    Stale(Box<[u8]>),
    /// A purge.
    Purge(Selector, PurgeMode),
}

/// A message.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// An object, whose body follows.
    Object(Box<PortableObject>),
    /// A change.
    Change(Change),
    /// All objects stored at the beginning of the transfer were sent; changes may follow.
    End,
    /// All changes were sent. A transfer that ends without it may lack some.
    Closed,
}

/// An object without its body.
#[derive(Debug, Serialize, Deserialize)]
pub struct PortableObject {
    /// Its key.
    pub key: Box<[u8]>,
    /// The length of its body.
    pub len: u64,
    object: Object,
}

/// The same as it is written.
#[derive(Serialize)]
enum Written<'a> {
    Object(WrittenObject<'a>),
    Change(&'a Change),
    End,
    Closed,
}

#[derive(Serialize)]
struct WrittenObject<'a> {
    key: &'a [u8],
    len: u64,
    object: &'a Object,
}

impl PortableObject {
    /// The object, without a body.
    pub fn head(&self) -> &Object {
        &self.object
    }

    /// The key and the object.
    pub fn with_body(self, body: Body) -> (Box<[u8]>, Object) {
        (self.key, Object { body, ..self.object })
    }

    /// Whether no time in it is so great that the rules could not reckon with it.
    fn is_plausible(&self) -> bool {
        let is_near = |time: &SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_else(|error| error.duration()) <= LONGEST
        };
        let (initial_age, received_at) = self.object.freshness.parts();
        let times = [Some(received_at), Some(self.object.date), self.object.last_modified];
        times.iter().flatten().all(is_near) && initial_age <= LONGEST && self.object.freshness.lifetime <= LONGEST
    }
}

/// The message of an object. `None` for one that has holes, or a head that is too large.
pub fn encode_object(key: &[u8], object: &Object) -> Option<Vec<u8>> {
    let len = object.body.len();
    if !object.body.is_whole() {
        return None;
    }
    encode(&Written::Object(WrittenObject { key, len, object }))
}

/// The message of a change.
pub fn encode_change(change: &Change) -> Option<Vec<u8>> {
    encode(&Written::Change(change))
}

/// The message behind all objects.
pub fn encode_end() -> Option<Vec<u8>> {
    encode(&Written::End)
}

/// The last message.
pub fn encode_closed() -> Option<Vec<u8>> {
    encode(&Written::Closed)
}

fn encode(message: &Written<'_>) -> Option<Vec<u8>> {
    let mut out = postcard::to_extend(message, vec![0; PREFIX]).ok()?;
    let len = u32::try_from(out.len() - PREFIX).ok().filter(|len| *len <= MOST_BYTES)?;
    out.iter_mut().zip(len.to_be_bytes()).for_each(|(place, byte)| *place = byte);
    Some(out)
}

/// The length of the rest of a message. `None` where that is too long.
pub fn prefix(bytes: [u8; PREFIX]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes)).filter(|len| *len <= MOST_BYTES)
}

/// Reads the rest of a message. `None` where it has no meaning.
pub fn decode(rest: &[u8]) -> Option<Message> {
    match postcard::take_from_bytes(rest) {
        Ok((Message::Object(object), [])) => object.is_plausible().then_some(Message::Object(object)),
        Ok((message, [])) => Some(message),
        _ => None,
    }
}
