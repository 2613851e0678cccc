//! Fields by which a request is told to be another one, or to have come another way, than host, port, scheme and target say.
//!
//! A backend may act on them, so a response can be another one than these tell. Those of a client are no ground for an object
//! that others get; those of a trusted proxy, and those that this node writes, are a part of the key where they say something
//! new.

use super::fields::split_at_byte;
use super::key::CacheRequest;
use crate::wire::is_read_as;

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// Another method or target.
    Override,
    /// The scheme.
    Scheme,
    /// The port.
    Port,
    /// The host.
    Host,
    /// Host and scheme among other things (RFC 7239).
    Forwarded,
    /// Something else that only a proxy may say.
    Other,
}

const OVERRIDES: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
];

const OF_PROXIES: [&str; 6] =
    ["x-host", "x-http-host-override", "front-end-https", "x-url-scheme", "x-scheme", "x-original-uri"];

/// What every `X-Forwarded-For` and its kin begin with.
const PREFIX: &str = "x-forwarded-";

/// What a field says, in whatever signs its name is written: many backends take every sign for a hyphen.
fn telling(name: &str) -> Option<Telling> {
    // Nearly all names are neither.
    if !matches!(name.as_bytes(), [b'x' | b'X' | b'f' | b'F', ..]) {
        return None;
    }
    let is_one_of = |known: &[&str]| known.iter().any(|known| is_read_as(name, known));
    if name.get(..PREFIX.len()).is_some_and(|start| is_read_as(start, PREFIX)) {
        return match name.get(PREFIX.len()..).unwrap_or_default() {
            // Who the client is, a response to all does not depend on.
            rest if is_read_as(rest, "for") => None,
            rest if is_read_as(rest, "proto") || is_read_as(rest, "protocol") => Some(Telling::Scheme),
            rest if is_read_as(rest, "port") => Some(Telling::Port),
            rest if is_read_as(rest, "host") => Some(Telling::Host),
            _ => Some(Telling::Other),
        };
    }
    if is_one_of(&OVERRIDES) {
        Some(Telling::Override)
    } else if is_read_as(name, "forwarded") {
        Some(Telling::Forwarded)
    } else {
        is_one_of(&OF_PROXIES).then_some(Telling::Other)
    }
}

/// Whether a field keeps a response from being shared. `is_trusted`: it comes from a proxy whose word counts. Scheme and port
/// of any other peer are this node's own words.
pub(super) fn is_unkeyed(name: &str, is_trusted: bool) -> bool {
    match telling(name) {
        Some(Telling::Override) => true,
        Some(Telling::Host | Telling::Other | Telling::Forwarded) => !is_trusted,
        Some(Telling::Scheme | Telling::Port) | None => false,
    }
}

/// Writes what a request is told to be beyond its host, port and scheme: `name=value` and a NUL each.
pub(super) fn write(request: &CacheRequest<'_>, out: &mut Vec<u8>) {
    for header in request.fields.0 {
        let is_implied = match telling(header.name) {
            None | Some(Telling::Override) => true,
            Some(Telling::Scheme) => header.value.eq_ignore_ascii_case(request.scheme().as_bytes()),
            Some(Telling::Port) => *header.value == *itoa::Buffer::new().format(request.port).as_bytes(),
            Some(Telling::Host) => request.fields.only("host") == Some(header.value),
            Some(Telling::Forwarded) => {
                write_forwarded(header.value, out);
                true
            }
            Some(Telling::Other) => false,
        };
        if !is_implied {
            out.extend(header.name.bytes().map(|byte| byte.to_ascii_lowercase()));
            out.push(b'=');
            out.extend_from_slice(header.value);
            out.push(0);
        }
    }
}

/// Writes what a `Forwarded` says, but for the addresses of client and proxies.
fn write_forwarded(value: &[u8], out: &mut Vec<u8>) {
    for pair in value.split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii) {
        let (name, _) = split_at_byte(pair, b'=');
        let name = name.trim_ascii();
        if !(name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")) {
            out.extend_from_slice(b"forwarded=");
            out.extend_from_slice(pair);
            out.push(0);
        }
    }
}
