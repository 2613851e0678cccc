//! Parsing of Redis's replies about a host: its list, its options, its dead marks, and their faults. Pure.

use super::super::catalog::FrontendRecord;
use super::connect::is_passing;
use crate::base::printable::printable;
use crate::base::reason::FailureReason;
use crate::base::secret::{redact_identifier, redact_url};
use crate::cluster::{BackendUrl, OptionError, Options};
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of items of a list that are queried: the identifier and 4,096 backends.
pub(super) const MAX_ITEMS: usize = 4_097;
/// The greatest number of option fields that are queried.
pub(super) const MAX_FIELDS: usize = 64;
/// The consequence of options that cannot be read, for the log.
const AS_BEFORE: &str = "the earlier values stay";
/// The longest item of a list in bytes: a frontend is not a file store.
const MAX_ITEM_BYTES: usize = 16 * 1024;

/// The greatest number of characters of a text that are shown.
const MAX_SHOWN: usize = 60;

/// The present result for a host in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The first candidate pattern that has a list.
    Found {
        /// The pattern.
        pattern: Box<str>,
        /// The list, without invalid backends.
        listing: Listing,
        /// The dead marks of the host.
        dead: Dead,
    },
    /// No candidate pattern has a list.
    Unknown,
    /// The first candidate pattern with a key has nothing usable.
    Bad(Box<str>),
    /// The replies were not read to their end: known data stays, and the host is read again later.
    Unread(FailureReason),
}

/// The list of a pattern in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    /// The usable part; the options are in [`Listing::options`].
    pub(super) record: FrontendRecord,
    /// Names and values of its options. `None` if they could not be read: the earlier ones stay.
    pub(super) options: Option<Vec<(Box<str>, Box<str>)>>,
    /// The index of each backend of `record` in the original list, counted from 0 as in dead marks. `None` if nothing
    /// was left out.
    pub(super) places: Option<Box<[usize]>>,
    /// Number of backends in the original list.
    pub(super) total: usize,
    /// Parts that were left out, for the log.
    pub(super) faults: Vec<String>,
    /// Faults of attributes and of options, for the log.
    pub(super) option_faults: Vec<String>,
}

/// The set of dead marks of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dead {
    /// Indexes in the list, from 0.
    pub(super) indexes: Vec<usize>,
    /// Remaining life of the whole set; `None` for a set without expiry.
    pub(super) ttl: Option<Duration>,
}

impl Listing {
    /// The index of this member in the original list.
    pub(super) fn place_of(&self, member: usize) -> usize {
        self.places.as_ref().map_or(member, |places| places[member])
    }

    /// The options, and their faults for the log. An invalid option keeps its value in `before`.
    pub(super) fn read_options(&self, pattern: &str, before: Option<&Arc<Options>>) -> (Arc<Options>, Vec<String>) {
        let held = before.map_or_else(Options::none, Arc::clone);
        let Some(pairs) = &self.options else { return (held, Vec::new()) };
        if pairs.is_empty() {
            return (Options::none(), Vec::new());
        }
        let (options, errors) = Options::read(pairs.iter().map(|(name, value)| (&**name, &**value)), &held);
        let fault = |error: &OptionError| match error {
            OptionError::BadValue { .. } | OptionError::Faults { .. } => {
                format!("options:{pattern}: {error}; {AS_BEFORE}")
            }
            OptionError::Unknown { .. } => format!("options:{pattern}: {error}"),
        };
        let faults = errors.iter().map(fault).collect();
        (if options == *held { held } else { Arc::new(options) }, faults)
    }
}

/// Parses the replies to `LRANGE` and `HSCAN` of each of `patterns`, of which the host is the first, and to
/// `SRANDMEMBER`, `PTTL` and `HMGET` of the host.
pub(super) fn read<'p>(patterns: impl Iterator<Item = &'p str>, replies: &[Value]) -> Reading {
    let Some((candidates, [marks, ttl, health])) = replies.split_last_chunk::<3>() else { return Reading::Unknown };
    for (place, (pattern, candidate)) in patterns.zip(candidates.as_chunks::<2>().0).enumerate() {
        let [list, options] = candidate;
        match list {
            // For a list that is too long only its length is queried.
            Value::Int(0) => continue,
            Value::Int(_) => return Reading::Unread(FailureReason::BadRoute),
            list if is_away(list) => return Reading::Unread(FailureReason::RouteSourceDown),
            _ => {}
        }
        match read_list(list, pattern) {
            Ok(None) => {}
            Ok(Some(_)) if [options, marks, ttl, health].into_iter().any(is_away) => {
                return Reading::Unread(FailureReason::RouteSourceDown);
            }
            Ok(Some(mut listing)) => {
                add_options(&mut listing, options, pattern);
                // A wildcard has many hosts, whose checks could differ.
                if place == 0 {
                    add_health(&mut listing, health);
                }
                return Reading::Found { pattern: pattern.into(), listing, dead: read_dead(marks, ttl) };
            }
            Err(problem) => return Reading::Bad(format!("frontend:{pattern}: {problem}").into()),
        }
    }
    Reading::Unknown
}

/// Whether a reply to `LRANGE`, or to `LLEN` of a list that is too long, says that there is no list.
pub(super) fn is_no_list(reply: &Value) -> bool {
    matches!(reply, Value::Nil | Value::Int(0)) || matches!(reply, Value::Array(items) if items.is_empty())
}

/// Whether a reply to `HSCAN` has no field.
pub(super) fn has_no_fields(reply: &Value) -> bool {
    read_fields(reply).is_ok_and(|fields| fields.is_empty())
}

/// Whether the server of a key could not be asked, in a cluster: the key is neither present nor absent.
pub(super) fn is_away(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if is_passing(error.code()) || matches!(error.code(), "MOVED" | "ASK"))
}

fn read_list(reply: &Value, pattern: &str) -> Result<Option<Listing>, String> {
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
    let (mut backends, mut places) = (Vec::new(), Vec::new());
    let (mut faults, mut attribute_faults) = (Vec::new(), Vec::new());
    for (place, text) in texts.enumerate() {
        match text.map_err(|(_, what)| what.to_owned()).and_then(|text| read_url(&text)) {
            Ok(url) => {
                let wrong = url.attribute_errors().iter();
                attribute_faults.extend(wrong.map(|error| {
                    let effect = if error.is_ignored() { "" } else { AS_BEFORE };
                    let stop = if effect.is_empty() { "" } else { "; " };
                    format!("frontend:{pattern}: backend {place}: {error}{stop}{effect}")
                }));
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
    let mut faults: Vec<_> =
        faults.into_iter().map(|fault| format!("frontend:{pattern}: {fault}; it is left out")).collect();
    if BackendUrl::parse(&id).is_ok() {
        faults
            .push(format!("frontend:{pattern}: item 0 is a URL, but item 0 of a list is an identifier and no backend"));
    }
    let places = (places.len() < total).then(|| places.into());
    Ok(Some(Listing {
        // The text goes into headers and log lines, so it must not end them.
        record: FrontendRecord {
            id: printable(&redact_identifier(id.trim_ascii())).into(),
            backends: backends.into(),
            options: Options::none(),
            created: 0,
        },
        options: Some(Vec::new()),
        places,
        total,
        faults,
        option_faults: attribute_faults,
    }))
}

/// Adds the options of a list.
fn add_options(listing: &mut Listing, reply: &Value, pattern: &str) {
    let fields = match read_fields(reply) {
        Ok(fields) => fields,
        Err(problem) => {
            listing.options = None;
            // A missing permission was logged when connecting.
            listing.option_faults.extend(problem.map(|problem| format!("options:{pattern}: {problem}; {AS_BEFORE}")));
            return;
        }
    };
    let text = |bytes: &[u8]| Box::from(String::from_utf8_lossy(bytes));
    let pair = |[name, value]: [&[u8]; 2]| (text(name), text(value.trim_ascii_end()));
    listing.options = Some(fields.into_iter().map(pair).collect());
}

/// Adds planb's `healthcheck:<host>`, unless the options define health checks: the backends are probed in mode `lazy`
/// with GET, and any status is good if none is named.
fn add_health(listing: &mut Listing, reply: &Value) {
    let (Value::Array(fields), Some(options)) = (reply, &mut listing.options) else { return };
    let [path, body, status] = fields.as_slice() else { return };
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()),
        _ => None,
    };
    let (path, body, status) = (text(path), text(body), text(status));
    if path.is_none() && body.is_none() && status.is_none() {
        return;
    }
    let status = status.filter(|status| status.parse() != Ok(0)).unwrap_or_else(|| "100-599".to_owned());
    let pairs = [
        ("health.mode", "lazy".to_owned()),
        ("health.method", "GET".to_owned()),
        ("health.path", format!("/{}", path.unwrap_or_default().trim_start_matches('/'))),
        ("health.expect", status),
        ("health.body", body.unwrap_or_default()),
    ];
    for (name, value) in pairs {
        if !options.iter().any(|(known, _)| **known == *name) {
            options.push((name.into(), value.into()));
        }
    }
}

/// Names and values of a hash; an error has a description if there is one to log.
fn read_fields(reply: &Value) -> Result<Vec<[&[u8]; 2]>, Option<String>> {
    let fields = match reply {
        Value::Array(parts) => match parts.as_slice() {
            // A small hash is returned whole, whatever limit is given.
            [Value::BulkString(cursor), Value::Array(fields)] if cursor == b"0" && fields.len() <= 2 * MAX_FIELDS => {
                fields
            }
            _ => return Err(Some(format!("the hash has more than {MAX_FIELDS} fields"))),
        },
        Value::ServerError(error) if error.code() == "NOPERM" => return Err(None),
        Value::ServerError(error) => {
            return Err(Some(format!("{}; expected a hash", printable(&error.to_string()))));
        }
        _ => return Err(Some("expected a hash".to_owned())),
    };
    Ok(fields.as_chunks::<2>().0.iter().map(|pair| pair.each_ref().map(bytes)).collect())
}

fn bytes(item: &Value) -> &[u8] {
    match item {
        Value::BulkString(bytes) => bytes,
        _ => &[],
    }
}

fn read_url(text: &str) -> Result<BackendUrl, String> {
    BackendUrl::parse(text).map_err(|fault| format!("is {}: {fault}", shown(redact_url(text).as_bytes())))
}

/// The start of a text, for the log.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * MAX_SHOWN)]);
    format!("{:?}", text.chars().take(MAX_SHOWN).collect::<String>())
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

fn read_dead(marks: &Value, ttl: &Value) -> Dead {
    let members = match marks {
        Value::Set(members) | Value::Array(members) => &**members,
        _ => &[],
    };
    // No list is so long that a larger index could have a meaning.
    let index = |member: &Value| item_text(member).ok()?.trim_ascii().parse().ok().filter(|index| *index < MAX_ITEMS);
    let ttl = match *ttl {
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

    fn hash(cursor: &str, fields: &[&str]) -> Value {
        Value::Array(vec![Value::BulkString(cursor.into()), list(fields)])
    }

    fn reading(lists: &[Value]) -> Reading {
        let mut replies: Vec<_> = lists.iter().flat_map(|list| [list.clone(), hash("0", &[])]).collect();
        replies.extend([list(&["1", "x"]), Value::Int(1500), Value::Nil]);
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
    fn a_newline_at_the_end_of_an_item_is_not_part_of_it() {
        let (_, listing, dead) = found(read(
            ["a.b"].into_iter(),
            &[
                list(&["id\n", "http://10.0.0.1\n", "http://10.0.0.2\r\n"]),
                hash("0", &["httpsRedirect", "true\n"]),
                list(&["1\n"]),
                Value::Int(-1),
                Value::Nil,
            ],
        ));
        let urls: Vec<&str> = listing.record.backends.iter().map(BackendUrl::as_str).collect();
        assert_eq!((&*listing.record.id, &*urls), ("id", &["http://10.0.0.1", "http://10.0.0.2"][..]));
        assert_eq!((listing.read_options("a.b", None).0.https_redirect, dead.indexes), (Some(true), vec![1]));
        assert!(listing.faults.is_empty() && listing.option_faults.is_empty(), "{listing:?}");
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
        let fault = "frontend:a.b: backend 0 is \"nonsense\": expected http://host:port or https://host:port";
        assert_eq!(listing.faults[0], format!("{fault}; it is left out"));
        let huge = "x".repeat(10 << 20);
        for (bad, expected) in [
            (
                list(&["id", "nonsense"]),
                "frontend:a.b: backend 0 is \"nonsense\": expected http://host:port or https://host:port",
            ),
            (list(&[&huge, "http://10.0.0.1"]), "frontend:a.b: its identifier is longer than 16 KiB"),
            (list(&["id", &huge]), "frontend:a.b: backend 0 is longer than 16 KiB"),
            (Value::Boolean(true), "frontend:a.b: expected a list"),
            (list(&vec!["x"; MAX_ITEMS + 1]), "frontend:a.b: the list has more than 4096 backends"),
        ] {
            assert_eq!(read_one(bad), Reading::Bad(expected.into()));
        }
    }

    #[test]
    fn a_list_that_is_too_long_to_be_read_counts_if_no_rung_before_it_has_one() {
        let (none, some) = (list(&[]), list(&["id", "http://10.0.0.1"]));
        let long = Value::Int(7);
        assert_eq!(reading(&[none.clone(), long.clone(), some.clone()]), Reading::Unread(FailureReason::BadRoute));
        assert_eq!(&*found(reading(&[some.clone(), long, none.clone()])).0, "a.b");
        assert_eq!(&*found(reading(&[Value::Int(0), Value::Int(0), some])).0, "*");
    }

    #[test]
    fn a_list_without_an_identifier_is_named() {
        let none = list(&[]);
        let (_, listing, _) = found(reading(&[list(&["http://10.0.0.1", "http://10.0.0.2"]), none.clone(), none]));
        assert_eq!((listing.record.backends.len(), listing.total), (1, 1));
        let expected = "frontend:a.b: item 0 is a URL, but item 0 of a list is an identifier and no backend";
        assert_eq!(listing.faults, [expected]);
    }

    #[test]
    fn planbs_health_check_says_what_the_options_do_not() {
        let bulk = |text: Option<&str>| text.map_or(Value::Nil, |text| Value::BulkString(text.into()));
        let health = |fields: [Option<&str>; 3]| Value::Array(fields.map(bulk).into());
        let read_with = |lists: [&[&str]; 2], options: &[&str], health: Value| {
            let mut replies: Vec<_> = lists.iter().flat_map(|items| [list(items), hash("0", options)]).collect();
            replies.extend([list(&[]), Value::Int(-2), health]);
            let listing = found(read(["a.b", "*"].into_iter(), &replies)).1;
            let options = listing.read_options("a.b", None);
            assert!(options.1.is_empty(), "{:?}", options.1);
            options.0.pairs().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let own: [&[&str]; 2] = [&["id", "http://10.0.0.1"], &[]];
        let wildcard: [&[&str]; 2] = [&[], &["id", "http://10.0.0.1"]];
        let all = [Some("up\n"), Some("WORKING"), Some("201")];
        let expected = "health.body=WORKING health.expect=201 health.method=GET health.mode=lazy health.path=/up";
        assert_eq!(read_with(own, &[], health(all)), expected);
        let expected = "health.body= health.expect=100-599 health.method=GET health.mode=off health.path=//x";
        let options = ["health.mode", "off", "health.path", "//x"];
        assert_eq!(read_with(own, &options, health([Some("/up"), None, Some("0")])), expected);
        assert_eq!(read_with(own, &[], health([None; 3])), "");
        assert_eq!(read_with(own, &[], Value::Nil), "");
        assert_eq!(read_with(wildcard, &[], health(all)), "");
    }

    #[test]
    fn options_are_those_of_the_pattern_that_serves() {
        let none = hash("0", &[]);
        let (text, long) = (Value::Int(3), "x".repeat(100));
        for (options, redirect, keeps, fault) in [
            (none.clone(), None, false, None),
            (hash("0", &["httpsRedirect", "true"]), Some(true), false, None),
            (hash("0", &["httpsRedirect", "false"]), Some(false), false, None),
            (
                hash("0", &["httpsRedirect", "yes"]),
                None,
                true,
                Some("options:*.b: httpsRedirect is \"yes\", expected true or false; the earlier values stay"),
            ),
            (
                hash("0", &["https\nRedirect", "true", "httpsRedirect", "true"]),
                Some(true),
                false,
                Some("options:*.b: \"https\\nRedirect\" is unknown and ignored"),
            ),
            (text, None, true, Some("options:*.b: expected a hash; the earlier values stay")),
            (
                hash("17", &["httpsRedirect", "true"]),
                None,
                true,
                Some("options:*.b: the hash has more than 64 fields; the earlier values stay"),
            ),
        ] {
            let reading_with = |options: &Value| {
                let mut replies = vec![list(&[]), hash("0", &["httpsRedirect", &long])];
                replies.extend([list(&["id", "http://10.0.0.1"]), options.clone()]);
                replies.extend([
                    list(&["other"]),
                    hash("0", &["httpsRedirect", &long]),
                    list(&[]),
                    Value::Int(-2),
                    Value::Nil,
                ]);
                read(["a.b", "*.b", "*"].into_iter(), &replies)
            };
            let (_, listing, _) = found(reading_with(&options));
            let (read, mut faults) = listing.read_options("*.b", None);
            faults.extend(listing.option_faults);
            assert_eq!(read.https_redirect, redirect, "{options:?}");
            assert_eq!(faults.first().map(String::as_str), fault, "{options:?}");
            assert!(faults.len() < 2, "{faults:?}");
            // An option that cannot be read keeps its value.
            let held = Arc::new(Options::read([("httpsRedirect", "true")], &Options::none()).0);
            let after = found(reading_with(&options)).1.read_options("*.b", Some(&held)).0;
            assert_eq!(after.https_redirect, if keeps { Some(true) } else { redirect }, "{options:?}");
        }
    }
}
