//! Single fields and cookies of a head that was already parsed.

use crate::base::slice_ext::SliceExt;
use crate::wire::cookies;

/// The value of the first field of this name in a head, without white space around it.
pub(super) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(head, name).next()
}

/// The value of the first cookie of this name in a head.
pub(super) fn cookie<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = fields(head, "Cookie").flat_map(|line| cookies(line, name)).next()?;
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

fn fields<'a>(head: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.filter_map(move |line| {
        let colon = memchr::memchr(b':', line)?;
        line.prefix(colon).eq_ignore_ascii_case(name.as_bytes()).then(|| line.suffix(colon + 1).trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_cookies_of_a_head() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nx-user:  me \r\nCookie: a=1; bc=2\r\ncookie: c=\"3\"; a=4;d\r\n\r\n";
        assert_eq!(field(head, "X-User"), Some(&b"me"[..]));
        assert_eq!(field(head, "GET / HTTP/1.1"), None);
        let cookies = ["a", "c", "bc", "d", "b"].map(|name| cookie(head, name).map(|value| value.to_vec()));
        assert_eq!(cookies, [Some(b"1".to_vec()), Some(b"3".to_vec()), Some(b"2".to_vec()), None, None]);
    }
}
