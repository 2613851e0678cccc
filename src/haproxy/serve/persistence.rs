//! The cookie that keeps a client at its server (`cookie` of a backend).
//!
//! Forms and order are those of HAProxy 2.6: `NAME=SERVER[|LAST[|FIRST]]`, or `NAME=SERVER~VALUE` in prefix mode. Dates are
//! in units of four seconds, as five characters of base64.

use super::head::Head;
use crate::haproxy::model::{CookieMode, Persistence};

/// The characters of dates.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Dates further ahead than this, in seconds, are invalid. A smaller difference may be a clock in another time zone.
const MOST_AHEAD: i64 = 86_400;

/// The content of the cookie of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClientCookie {
    /// The place of the server that it names, if that server is up.
    pub(super) place: Option<usize>,
    /// The time at which it was last set, in seconds since 1970.
    last: Option<i64>,
    /// The time at which it was first set.
    first: Option<i64>,
    /// Whether the request is a POST.
    is_post: bool,
}

/// Reads the cookie of a request, and removes the part that is between the client and this node. `find` returns the place of
/// a server that is up, by its value in the cookie.
pub(super) fn read(
    persistence: &Persistence,
    head: &mut Head,
    now: i64,
    find: impl FnOnce(&[u8]) -> Option<usize>,
) -> ClientCookie {
    let mut cookie = ClientCookie { is_post: head.method() == b"POST", ..ClientCookie::default() };
    let Some(value) = head.cookie(&persistence.name) else { return cookie };
    let delimiter = if persistence.mode == CookieMode::Prefix { b'~' } else { b'|' };
    let mut parts = value.split(|byte| *byte == delimiter);
    let server = parts.next().unwrap_or_default();
    let mut is_expired = false;
    if persistence.mode != CookieMode::Prefix {
        (cookie.last, cookie.first) = (parts.next().and_then(date), parts.next().and_then(date));
        let is_over = |date: Option<i64>, most: Option<std::time::Duration>| {
            let most = most.and_then(|most| i64::try_from(most.as_secs()).ok());
            date.zip(most).is_some_and(|(date, most)| now - date > most || date - now > MOST_AHEAD)
        };
        is_expired = is_over(cookie.first, persistence.max_life) || is_over(cookie.last, persistence.max_idle);
        if is_expired {
            (cookie.last, cookie.first) = (None, None);
        }
    }
    cookie.place = if is_expired || server.is_empty() { None } else { find(server) };
    match persistence.mode {
        CookieMode::Prefix => {
            let end = memchr::memchr(b'~', value).map(|end| end + 1);
            let own = end.and_then(|end| value.get(end..)).map(<[u8]>::to_vec);
            if let Some(own) = own {
                head.replace_cookie(&persistence.name, Some(&own));
            }
        }
        CookieMode::Insert if persistence.indirect => head.replace_cookie(&persistence.name, None),
        _ => {}
    }
    cookie
}

/// Sets the cookie in the response of the server with this value. `is_direct`: the cookie or a rule has selected the server.
pub(super) fn write(
    (server, is_direct): (Option<&str>, bool),
    persistence: &Persistence,
    cookie: ClientCookie,
    (head, line): (&mut Head, &mut Vec<u8>),
    now: i64,
) {
    let found = head.has_set_cookie(&persistence.name);
    let is_kept = found && persistence.preserve;
    if found && !is_kept {
        let takes_away = persistence.mode == CookieMode::Insert || (is_direct && persistence.indirect);
        match (persistence.mode, server) {
            _ if takes_away => head.edit_set_cookie(&persistence.name, &mut |_| None),
            (CookieMode::Rewrite, Some(server)) => {
                head.edit_set_cookie(&persistence.name, &mut |_| Some(server.as_bytes().to_vec()));
            }
            (CookieMode::Prefix, Some(server)) => {
                head.edit_set_cookie(&persistence.name, &mut |value| Some([server.as_bytes(), b"~", value].concat()))
            }
            _ => {}
        }
    }
    let is_stale =
        (persistence.max_idle.is_some() || cookie.last.is_some()) && cookie.last.is_none_or(|last| last < now);
    let is_due = !is_direct || is_stale || persistence.max_life.is_some() != cookie.first.is_some();
    let is_asked = !persistence.postonly || cookie.is_post;
    if persistence.mode != CookieMode::Insert || is_kept || !is_due || !is_asked {
        return;
    }
    let is_private = persistence.nocache && head.may_be_cached();
    line.extend_from_slice(persistence.name.as_bytes());
    line.push(b'=');
    match server {
        // A server without a value ends the cookie that another one has set.
        None => line.extend_from_slice(b"; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/"),
        Some(server) => {
            line.extend_from_slice(server.as_bytes());
            if persistence.max_idle.is_some() || persistence.max_life.is_some() {
                put_date(now + 3, line);
                if persistence.max_life.is_some() {
                    put_date(cookie.first.unwrap_or(now + 3), line);
                }
            }
            line.extend_from_slice(b"; path=/");
        }
    }
    for domain in &persistence.domains {
        line.extend_from_slice(format!("; domain={domain}").as_bytes());
    }
    line.extend_from_slice(if persistence.httponly { b"; HttpOnly" } else { b"" });
    line.extend_from_slice(if persistence.secure { b"; Secure" } else { b"" });
    for attribute in &persistence.attributes {
        line.extend_from_slice(format!("; {attribute}").as_bytes());
    }
    head.add("Set-Cookie", line);
    if is_private {
        head.add("Cache-Control", b"private");
    }
}

/// A date of five characters, in seconds.
fn date(text: &[u8]) -> Option<i64> {
    let number = text.get(..5)?.iter().try_fold(0i64, |number, byte| {
        let digit = DIGITS.iter().position(|digit| digit == byte)?;
        Some(number << 6 | i64::try_from(digit).ok()?)
    });
    number.filter(|number| *number > 0).map(|number| number << 2)
}

fn put_date(seconds: i64, line: &mut Vec<u8>) {
    let number = seconds >> 2;
    line.push(b'|');
    for shift in [24, 18, 12, 6, 0] {
        let digit = usize::try_from(number >> shift & 63).unwrap_or(0);
        line.extend(DIGITS.get(digit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_five_characters() {
        let mut line = Vec::new();
        put_date(1_700_000_003, &mut line);
        assert_eq!(date(&line[1..]), Some(1_700_000_000));
        for text in ["", "AAAA", "AAAAA", "AAAA*"] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }
}
