//! Fields that override or describe the method, host, port, scheme or target of a request.
//!
//! A backend may act on them, so its response may depend on them. Such fields of a client must not affect an object for
//! other clients: they are *unkeyed*, and prevent sharing. Such fields of a trusted proxy, and of this node, are part
//! of the key if they add something.

use super::fields::split_at_byte;
use super::request::CacheRequest;
use crate::wire::is_read_as;

/// The meaning of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
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
    /// Another fact that only a proxy may report.
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

/// The common prefix of `X-Forwarded-For` and related fields.
const PREFIX: &str = "x-forwarded-";

/// The meaning of a field, whichever characters its name has for hyphens: many backends treat any such character as a
/// hyphen.
fn meaning(name: &str) -> Option<Meaning> {
    // Nearly all names have neither prefix.
    if !matches!(name.as_bytes(), [b'x' | b'X' | b'f' | b'F', ..]) {
        return None;
    }
    let is_one_of = |known: &[&str]| known.iter().any(|known| is_read_as(name, known));
    if name.get(..PREFIX.len()).is_some_and(|start| is_read_as(start, PREFIX)) {
        return match name.get(PREFIX.len()..).unwrap_or_default() {
            // A response for all clients does not depend on the client's address.
            rest if is_read_as(rest, "for") => None,
            rest if is_read_as(rest, "proto") || is_read_as(rest, "protocol") => Some(Meaning::Scheme),
            rest if is_read_as(rest, "port") => Some(Meaning::Port),
            rest if is_read_as(rest, "host") => Some(Meaning::Host),
            _ => Some(Meaning::Other),
        };
    }
    if is_one_of(&OVERRIDES) {
        Some(Meaning::Override)
    } else if is_read_as(name, "forwarded") {
        Some(Meaning::Forwarded)
    } else {
        is_one_of(&OF_PROXIES).then_some(Meaning::Other)
    }
}

/// Whether a field prevents sharing a response. `is_trusted`: it comes from a trusted proxy. Scheme and port of any
/// other peer are determined by this node.
pub(super) fn is_unkeyed(name: &str, is_trusted: bool) -> bool {
    match meaning(name) {
        Some(Meaning::Override) => true,
        Some(Meaning::Host | Meaning::Other | Meaning::Forwarded) => !is_trusted,
        Some(Meaning::Scheme | Meaning::Port) | None => false,
    }
}

/// Writes the facts about a request beyond its host, port and scheme: `name=value` and a NUL each.
pub(super) fn write(request: &CacheRequest<'_>, out: &mut Vec<u8>) {
    for header in request.fields.0 {
        let is_implied = match meaning(header.name) {
            None | Some(Meaning::Override) => true,
            Some(Meaning::Scheme) => header.value.eq_ignore_ascii_case(request.scheme().as_bytes()),
            Some(Meaning::Port) => *header.value == *itoa::Buffer::new().format(request.port).as_bytes(),
            Some(Meaning::Host) => request.fields.only("host") == Some(header.value),
            Some(Meaning::Forwarded) => {
                write_forwarded(header.value, out);
                true
            }
            Some(Meaning::Other) => false,
        };
        if !is_implied {
            out.extend(header.name.bytes().map(|byte| byte.to_ascii_lowercase()));
            out.push(b'=');
            out.extend_from_slice(header.value);
            out.push(0);
        }
    }
}

/// Writes the elements of a `Forwarded`, except the addresses of client and proxies.
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
