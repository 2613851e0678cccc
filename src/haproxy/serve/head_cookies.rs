//! Cookies in a head.

use super::head::Head;
use memchr::memchr;
use std::ops::Range;

impl Head {
    /// The value of the first cookie with this name.
    pub(super) fn cookie(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.field_lines().split(|byte| *byte == b'\n');
        lines.find_map(|line| {
            let colon = memchr(b':', line)?;
            let is_it = line.get(..colon).is_some_and(|name| name.eq_ignore_ascii_case(b"cookie"));
            let mut pairs =
                line.get(colon + 1..).filter(|_| is_it)?.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        })
    }

    /// Replaces the value of a cookie of the request, or removes the cookie.
    pub(super) fn replace_cookie(&mut self, name: &str, new: Option<&[u8]>) {
        let is_it = |pair: &[u8]| pair.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
        let mut at = self.start_line().len() + 2;
        while let Some(line) = self.line_at(at) {
            at = line.whole.end;
            let field = self.bytes().get(line.whole.start..line.colon).unwrap_or_default();
            let value = self.bytes().get(line.colon + 1..line.whole.end - 2).unwrap_or_default();
            let pairs = || value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            if !field.eq_ignore_ascii_case(b"cookie") || !pairs().any(is_it) {
                continue;
            }
            let replaced = new.map(|new| [name.as_bytes(), b"=", new].concat());
            let left = pairs().filter_map(|pair| if is_it(pair) { replaced.as_deref() } else { Some(pair) });
            let left = left.collect::<Vec<_>>().join(&b"; "[..]);
            let before = self.bytes().len();
            match left.is_empty() {
                true => self.splice(line.whole, b""),
                false => self.splice(line.colon + 1..line.whole.end - 2, &[b" ", left.as_slice()].concat()),
            }
            at = at + self.bytes().len() - before;
        }
    }

    /// Whether the response sets a cookie of this name.
    pub(super) fn has_set_cookie(&self, name: &str) -> bool {
        self.each_field(&mut |field, value| {
            field.eq_ignore_ascii_case(b"set-cookie") && set_cookie_value(value, name).is_some()
        })
    }

    /// Replaces the value of a cookie that the response sets by the result of `edit`; `None` removes the cookie.
    pub(super) fn edit_set_cookie(&mut self, name: &str, edit: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) {
        let mut at = self.start_line().len() + 2;
        while let Some(line) = self.line_at(at) {
            at = line.whole.end;
            let field = self.bytes().get(line.whole.start..line.colon).unwrap_or_default();
            let text = self.bytes().get(line.colon + 1..line.whole.end - 2).unwrap_or_default();
            let range = set_cookie_value(text, name).filter(|_| field.eq_ignore_ascii_case(b"set-cookie"));
            let Some(range) = range else { continue };
            let new = edit(text.get(range.clone()).unwrap_or_default());
            let before = self.bytes().len();
            match new {
                None => self.splice(line.whole, b""),
                Some(new) => self.splice(line.colon + 1 + range.start..line.colon + 1 + range.end, &new),
            }
            at = at + self.bytes().len() - before;
        }
    }
}

/// The position of the value in a `Set-Cookie` of this name.
fn set_cookie_value(text: &[u8], name: &str) -> Option<Range<usize>> {
    let lead = text.len() - text.trim_ascii_start().len();
    let end = memchr(b';', text).unwrap_or(text.len());
    let pair = text.get(lead..end)?;
    let equal = memchr(b'=', pair)?;
    let is_it = pair.get(..equal)?.trim_ascii() == name.as_bytes();
    is_it.then_some(lead + equal + 1..lead + pair.trim_ascii_end().len().max(equal + 1))
}
