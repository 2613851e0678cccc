//! What people and Redis write: every fault has a place and a reason, and what is understood is understood again when
//! it is written anew.

use serde_json::{Map, Value, json};
use sluice::config::{self, Overrides};
use sluice::directory::test_api;
use std::path::Path;

/// What a name that leads nowhere can hardly be.
const FOLDER: &str = "/nonexistent/sluice-fuzz/config.json";

pub(crate) fn routes_file(bytes: &[u8]) {
    match test_api::routes(bytes) {
        Ok(entries) => {
            let (mut lists, mut options) = (Map::new(), Map::new());
            for (pattern, entry) in &entries {
                assert!(!entry.items.is_empty(), "{pattern} without an identifier");
                assert!(!pattern.bytes().any(|byte| byte.is_ascii_uppercase()), "{pattern} is not in lower case");
                lists.insert(pattern.clone(), json!(entry.items));
                let flags = entry.options.iter().map(|(name, value)| (name.clone(), json!(value == "true")));
                options.insert(pattern.clone(), Value::Object(flags.collect()));
            }
            let again = test_api::routes(json!({"frontends": lists, "options": options}).to_string().as_bytes());
            assert_eq!(again.expect("what was good is good"), entries);
        }
        Err(faults) => {
            assert!(!faults.faults.is_empty() && faults.faults.len() <= 50, "{} faults", faults.faults.len());
            let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
            for fault in &faults.faults {
                let line = lines.get(fault.line.wrapping_sub(1));
                let line = line.unwrap_or_else(|| panic!("{fault}: there is no such line"));
                assert!((1..=line.len() + 1).contains(&fault.column), "{fault}: there is no such column");
                assert!(!fault.problem.is_empty());
                check_line(&fault.to_string());
            }
        }
    }
}

pub(crate) fn config_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A path that begins at the root could name anything.
    if text.contains('/') && !text.contains("://") || text.contains("\\u") {
        return;
    }
    let file = Path::new(FOLDER);
    match config::from_text(text, file, &Overrides::default()) {
        Ok((settings, warnings)) => {
            assert!(!settings.listeners.is_empty() || settings.tls.is_some(), "nobody listens");
            warnings.iter().for_each(|warning| check_line(&warning.to_string()));
            let value: Value =
                serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("what was read is JSON");
            let again = config::from_text(&format!("{value:#}"), file, &Overrides::default());
            let (again, _) = again.expect("what was good is good");
            assert_eq!(again, settings, "written anew it means something else");
        }
        Err(failure) => {
            assert!(!failure.faults.is_empty(), "refused without a reason");
            failure.faults.iter().for_each(|fault| check_line(&fault.to_string()));
        }
    }
}

/// The input is a host, a line end, and replies as they come from Redis.
pub(crate) fn redis_records(bytes: &[u8]) {
    let (host, mut rest) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => return,
    };
    // Nobody is asked for any other.
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._~[]:".contains(byte);
    let Some(host) = std::str::from_utf8(host).ok().filter(|host| host.bytes().all(|byte| is_plain(&byte))) else {
        return;
    };
    let mut replies = Vec::new();
    while !rest.is_empty() && replies.len() < 20 {
        let Ok(reply) = redis::parse_redis_value(rest) else { break };
        let _ = test_api::redis_certificate(&reply).map_err(|problem| check_line(&problem));
        // One after the other, as they stand on the connection: each is as long as it is when it is packed no more.
        let Some(len) = reply_len(rest) else { break };
        replies.push(reply);
        rest = &rest[len..];
    }
    match test_api::redis_listing(host, &replies) {
        Err(problem) => check_line(&problem),
        Ok(None) => {}
        Ok(Some(listed)) => {
            assert!(host.ends_with(listed.pattern.trim_start_matches('*')), "{} for {host}", listed.pattern);
            assert!(!listed.id.chars().any(char::is_control), "the identifier can end a line");
            assert_eq!(listed.backends.len() + listed.faults.len(), listed.total, "backends are lost");
            assert!(!listed.backends.is_empty() || listed.total == 0, "nothing serves");
            assert!(listed.backends.is_sorted_by(|one, other| one.0 < other.0), "the order is another");
            assert!(listed.backends.iter().all(|(place, _)| *place < listed.total) && listed.total <= 4096);
            listed.faults.iter().chain(&listed.option_faults).for_each(|fault| check_line(fault));
        }
    }
}

/// The length of the first reply: the shortest start that can be read.
fn reply_len(bytes: &[u8]) -> Option<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    ends.take(2000).find(|end| redis::parse_redis_value(&bytes[..*end]).is_ok())
}

/// The input is the inside of a snapshot, or all of one: of what only has to be signed, more is reached.
pub(crate) fn snapshot(bytes: &[u8]) {
    check_snapshot(bytes);
    let mut signed = b"sluice snapshot 1\n".to_vec();
    signed.extend_from_slice(bytes.strip_suffix(b"\n").unwrap_or(bytes));
    signed.push(b'\n');
    let routes = signed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count().saturating_sub(2);
    let sum = crc32fast::hash(&signed);
    signed.extend_from_slice(format!("end {routes} {sum:08x}\n").as_bytes());
    check_snapshot(&signed);
}

fn check_snapshot(bytes: &[u8]) {
    match test_api::snapshot(bytes) {
        Err(problem) => check_line(&problem),
        Ok(written) => {
            assert_eq!(test_api::snapshot(&written).as_ref(), Ok(&written), "the canonical form is none");
            for at in super::cuts(bytes.len()) {
                assert!(test_api::snapshot(&bytes[..at]).is_err(), "the first {at} bytes were taken for all");
                let mut edited = bytes.to_vec();
                edited[at] ^= 1;
                assert!(test_api::snapshot(&edited).is_err(), "byte {at} was changed, and nobody saw it");
            }
        }
    }
}

/// What is said of a fault stands in one line of a log, whatever was written.
fn check_line(text: &str) {
    assert!(!text.trim().is_empty(), "nothing is said");
    assert!(!text.chars().any(char::is_control), "{text:?} is more than a line");
}
