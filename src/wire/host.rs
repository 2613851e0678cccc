//! The host of a request.

use crate::base::slice_ext::SliceExt;

/// The longest host name (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

/// Writes the host name of a `Host` value or an authority to `out`: lower case, without the port and a trailing dot.
/// `None`, with nothing written, if the value is not a host with an optional port (RFC 9110 section 7.2): recipients
/// would read it in different ways.
pub(super) fn write_name(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let seen = value.iter().fold(0, |seen, byte| seen | class(*byte));
    let (name, port) = match value.strip_prefix(b"[") {
        Some(rest) => {
            let end = memchr::memchr(b']', rest)?;
            let address = std::str::from_utf8(rest.get(..end)?).ok()?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            value.split_at_checked(end + 2)?
        }
        None if seen & NO_NAME == 0 => (value, &[][..]),
        None => value.split_at_checked(value.iter().position(|byte| class(*byte) == NO_NAME)?)?,
    };
    let port_is_good = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && fits_port(digits),
        _ => false,
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    if !port_is_good || name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let start = out.len();
    out.extend_from_slice(name);
    if seen & CAPITAL != 0 {
        out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
    }
    Some(())
}

/// The host name of a `Host` value, as used for routing; `None` if such a request gets a 400.
pub fn host_name(value: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    write_name(value, &mut out)?;
    String::from_utf8(out).ok()
}

/// The parts of a `Host` value or an authority: the name, and the port if there is a colon.
pub fn split_port(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memrchr(b':', value).filter(|_| !value.ends_with(b"]")) {
        Some(colon) => (value.prefix(colon), Some(value.suffix(colon + 1))),
        None => (value, None),
    }
}

/// Class of a byte that no name contains: the name ends before it, if it is valid.
const NO_NAME: u8 = 1;

/// Class of a capital letter.
const CAPITAL: u8 = 2;

/// The class of a byte in a name.
fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(NO_NAME)
}

static CLASSES: [u8; 256] = {
    let mut classes = [NO_NAME; 256];
    let mut rest: &mut [u8] = &mut classes;
    let mut byte = 0_u8;
    while let Some((class, others)) = rest.split_first_mut() {
        *class = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => 0,
            b'A'..=b'Z' => CAPITAL,
            _ => NO_NAME,
        };
        rest = others;
        byte = byte.wrapping_add(1);
    }
    classes
};

fn fits_port(digits: &[u8]) -> bool {
    digits.iter().fold(0, |port: u32, digit| port * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let table: &[(&str, &str, Option<&str>)] = &[
            ("a", "a", None),
            ("a:", "a", Some("")),
            ("a:80", "a", Some("80")),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some("80")),
        ];
        for (value, name, port) in table {
            assert_eq!(split_port(value.as_bytes()), (name.as_bytes(), port.map(str::as_bytes)), "{value}");
        }
    }

    #[test]
    fn names() {
        let table: &[(&str, Option<&str>)] = &[
            ("www.example.com", Some("www.example.com")),
            ("WWW.Example.COM:8080", Some("www.example.com")),
            ("www.example.com.", Some("www.example.com")),
            ("www.example.com.:80", Some("www.example.com")),
            ("www.example.com:", Some("www.example.com")),
            ("__ping__", Some("__ping__")),
            ("[::1]:80", Some("[::1]")),
            ("[FE80::1]", Some("[fe80::1]")),
            ("", None),
            (".", None),
            (":80", None),
            ("a b", None),
            ("a/b", None),
            ("a,b", None),
            ("u@a", None),
            ("a:80:80", None),
            ("a:8x", None),
            ("a:+80", None),
            ("a:65536", None),
            ("a:000080", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[zz]", None),
            ("::1", None),
        ];
        for (value, expected) in table {
            let mut out = Vec::new();
            let found = write_name(value.as_bytes(), &mut out).map(|()| String::from_utf8(out.clone()).expect("ASCII"));
            assert_eq!(found.as_deref(), *expected, "{value:?}");
            assert!(expected.is_some() || out.is_empty(), "{value:?} left something behind");
        }
    }
}
