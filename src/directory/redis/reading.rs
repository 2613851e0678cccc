//! What Redis says about a host, made of plain replies: its list, its dead marks, or what is wrong with them. Pure.

use super::super::frontends::Record;
use crate::base::printable::printable;
use crate::cluster::{BackendUrl, Options};
use redis::Value;
use std::time::Duration;

/// The most items of a list that are asked for: the identifier and 4,096 backends.
pub(super) const MAX_ITEMS: usize = 4_097;
/// The longest item of a list. A frontend is no place to store files in.
const MAX_ITEM_BYTES: usize = 16 * 1024;

/// What a host resolves to, as Redis has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The first pattern of its ladder that has a list.
    Found {
        /// The pattern.
        pattern: Box<str>,
        /// The list, without the backends that are no good.
        listing: Listing,
        /// The dead marks of the host.
        dead: Dead,
    },
    /// No pattern has a list.
    Unknown,
    /// The first pattern that has something has nothing that can be used.
    Bad(Box<str>),
}

/// A list as it stands in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    /// What can be used of it.
    pub(super) record: Record,
    /// The place of each backend of `record` in the list as it stands, counted from 0 as dead marks are. `None` where
    /// nothing was left out.
    pub(super) places: Option<Box<[usize]>>,
    /// How many backends stand in the list.
    pub(super) total: usize,
    /// What was left out, for the log.
    pub(super) faults: Vec<String>,
}

/// The set of dead marks of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dead {
    /// Places in the list, from 0.
    pub(super) indexes: Vec<usize>,
    /// The rest of life of the whole set; `None` for a set without an end.
    pub(super) ttl: Option<Duration>,
}

impl Listing {
    /// The place of the member of this number in the list as it stands.
    pub(super) fn place_of(&self, member: usize) -> usize {
        self.places.as_ref().map_or(member, |places| places[member])
    }
}

/// Reads the replies to `LRANGE` of each of `patterns`, `SRANDMEMBER` and `PTTL`.
pub(super) fn read<'p>(patterns: impl Iterator<Item = &'p str>, replies: &[Value]) -> Reading {
    let Some((lists, dead)) = replies.split_last_chunk::<2>() else { return Reading::Unknown };
    for (pattern, list) in patterns.zip(lists) {
        match read_list(list) {
            Ok(None) => {}
            Ok(Some(listing)) => return Reading::Found { pattern: pattern.into(), listing, dead: read_dead(dead) },
            Err(problem) => return Reading::Bad(format!("frontend:{pattern}: {problem}").into()),
        }
    }
    Reading::Unknown
}

fn read_list(reply: &Value) -> Result<Option<Listing>, String> {
    let items = match reply {
        Value::Array(items) if items.is_empty() => return Ok(None),
        Value::Nil => return Ok(None),
        Value::Array(items) => items,
        Value::ServerError(error) => return Err(format!("{}; expected a list", printable(&error.to_string()))),
        _ => return Err("expected a list".to_owned()),
    };
    if items.len() > MAX_ITEMS {
        return Err(format!("the list has more than {} backends", MAX_ITEMS - 1));
    }
    let mut texts = items.iter().enumerate().map(|(index, item)| item_text(item).map_err(|what| (index, what)));
    let id = texts.next().transpose().map_err(|(_, what)| format!("its identifier {what}"))?.unwrap_or_default();
    let (mut backends, mut places, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for (place, text) in texts.enumerate() {
        match text.map_err(|(_, what)| what.to_owned()).and_then(|text| read_url(&text)) {
            Ok(url) => {
                backends.push(url);
                places.push(place);
            }
            Err(what) => faults.push(format!("backend {place} {what}")),
        }
    }
    let total = items.len() - 1;
    if backends.is_empty() && total > 0 {
        return Err(faults.swap_remove(0));
    }
    let places = (places.len() < total).then(|| places.into());
    Ok(Some(Listing {
        // It goes into headers and lines of the log: nothing in it may end them.
        record: Record { id: printable(&id).into(), backends: backends.into(), options: Options::default() },
        places,
        total,
        faults,
    }))
}

fn read_url(text: &str) -> Result<BackendUrl, String> {
    BackendUrl::parse(text).map_err(|fault| {
        let shown: String = text.chars().take(60).collect();
        format!("is {shown:?}: {fault}")
    })
}

fn item_text(item: &Value) -> Result<String, &'static str> {
    let text = match item {
        Value::BulkString(bytes) if bytes.len() <= MAX_ITEM_BYTES => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Value::BulkString(_) => return Err("is longer than 16 KiB"),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    };
    text.ok_or("is no UTF-8 text")
}

fn read_dead(replies: &[Value; 2]) -> Dead {
    let members = match &replies[0] {
        Value::Set(members) | Value::Array(members) => &**members,
        _ => &[],
    };
    // No list is so long that a larger one could mean anything.
    let index = |member: &Value| item_text(member).ok()?.parse().ok().filter(|index| *index < MAX_ITEMS);
    let ttl = match replies[1] {
        Value::Int(millis) if millis >= 0 => Some(Duration::from_millis(millis.unsigned_abs())),
        _ => None,
    };
    Dead { indexes: members.iter().filter_map(index).collect(), ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|item| Value::BulkString(item.as_bytes().to_vec())).collect())
    }

    fn reading(lists: &[Value]) -> Reading {
        let mut replies = lists.to_vec();
        replies.extend([list(&["1", "x"]), Value::Int(1500)]);
        read(["a.b", "*.b", "*"].into_iter(), &replies)
    }

    fn found(reading: Reading) -> (Box<str>, Listing, Dead) {
        match reading {
            Reading::Found { pattern, listing, dead } => (pattern, listing, dead),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_list_wins_and_the_marks_belong_to_it() {
        let none = list(&[]);
        let (pattern, listing, dead) =
            found(reading(&[none.clone(), list(&["id", "http://10.0.0.1", "http://10.0.0.2"]), list(&["other"])]));
        assert_eq!((&*pattern, &*listing.record.id, listing.total), ("*.b", "id", 2));
        assert_eq!(dead, Dead { indexes: vec![1], ttl: Some(Duration::from_millis(1500)) });
        assert_eq!(reading(&[none.clone(), none.clone(), none.clone()]), Reading::Unknown);
        let (_, listing, _) = found(reading(&[list(&["only an identifier"]), none.clone(), none]));
        assert_eq!((listing.record.backends.len(), listing.total), (0, 0));
    }

    #[test]
    fn what_is_no_good_is_named_and_the_rest_serves() {
        let none = list(&[]);
        let read_one = |list: Value| reading(&[list, none.clone(), none.clone()]);
        let (_, listing, _) =
            found(read_one(list(&["i\nd", "nonsense", "http://10.0.0.1", "ftp://a", "http://10.0.0.2"])));
        assert_eq!(&*listing.record.id, "i\\nd");
        assert_eq!(listing.places.as_deref(), Some(&[1, 3][..]));
        assert_eq!((listing.total, listing.place_of(1)), (4, 3));
        assert_eq!(listing.faults[0], "backend 0 is \"nonsense\": expected http://host:port or https://host:port");
        let huge = "x".repeat(10 << 20);
        for (bad, expected) in [
            (
                list(&["id", "nonsense"]),
                "frontend:a.b: backend 0 is \"nonsense\": expected http://host:port or https://host:port",
            ),
            (list(&[&huge, "http://10.0.0.1"]), "frontend:a.b: its identifier is longer than 16 KiB"),
            (list(&["id", &huge]), "frontend:a.b: backend 0 is longer than 16 KiB"),
            (Value::Int(3), "frontend:a.b: expected a list"),
            (list(&vec!["x"; MAX_ITEMS + 1]), "frontend:a.b: the list has more than 4096 backends"),
        ] {
            assert_eq!(read_one(bad), Reading::Bad(expected.into()));
        }
    }
}
