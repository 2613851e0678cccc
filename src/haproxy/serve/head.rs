//! The head of a message that rules read and change: a start line, field lines and a blank line, each with its CRLF.

use super::head_line::{is_field_line, is_request_line};
use crate::haproxy::rules::Regex;
use crate::wire::{is_method, is_target};
use memchr::{memchr, memrchr};
use std::ops::Range;

/// A head. Its memory is reused for each message.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    is_changed: bool,
}

/// A field line: its range, and its name.
pub(super) struct Line {
    /// Including its CRLF.
    pub(super) whole: Range<usize>,
    pub(super) colon: usize,
}

impl Head {
    /// Replaces the content by this head.
    pub(super) fn load(&mut self, head: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        self.is_changed = false;
    }

    /// Replaces the content by the head of a response without fields.
    pub(super) fn begin_response(&mut self, status: u16) {
        self.bytes.clear();
        self.bytes.extend_from_slice(b"HTTP/1.1 ");
        self.bytes.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        self.bytes.extend_from_slice(b" \r\n\r\n");
        self.is_changed = false;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The start line without its CRLF.
    pub(super) fn start_line(&self) -> &[u8] {
        let end = memchr(b'\r', &self.bytes).unwrap_or(self.bytes.len());
        self.bytes.get(..end).unwrap_or_default()
    }

    /// The field lines without the blank line.
    pub(super) fn field_lines(&self) -> &[u8] {
        let start = self.start_line().len() + 2;
        self.bytes.get(start..self.bytes.len().saturating_sub(2)).unwrap_or_default()
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &[u8] {
        let line = self.start_line();
        line.get(..memchr(b' ', line).unwrap_or(line.len())).unwrap_or_default()
    }

    /// The target of a request.
    pub(super) fn target(&self) -> &[u8] {
        self.bytes.get(self.target_range()).unwrap_or_default()
    }

    fn target_range(&self) -> Range<usize> {
        let line = self.start_line();
        let start = memchr(b' ', line).map_or(line.len(), |space| space + 1);
        let end = memrchr(b' ', line).unwrap_or(line.len());
        start..end.max(start)
    }

    /// The status of a response.
    pub(super) fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.start_line().get(9..12)?).ok()?.parse().ok()
    }

    pub(super) fn set_status(&mut self, status: u16, phrase: &str) {
        let mut line = format!("HTTP/1.1 {status} {phrase}").into_bytes();
        clean(&mut line);
        self.splice(0..self.start_line().len(), &line);
    }

    /// Replaces the method. A method that a client could not send is ignored. HEAD is neither set nor replaced, because the
    /// body of the response depends on it.
    pub(super) fn set_method(&mut self, method: &[u8]) {
        let stays_head = (method == b"HEAD") == (self.method() == b"HEAD");
        if is_method(method) && stays_head && is_target(method, self.target()) {
            self.splice(0..self.method().len(), method);
        }
    }

    /// Replaces the target. Invalid bytes are percent-encoded. The path of a whole URL is used. A target that does not begin
    /// with a slash is ignored.
    pub(super) fn set_target(&mut self, target: &[u8]) {
        let range = self.target_range();
        let after_scheme = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"));
        let target = match after_scheme {
            None => target,
            Some(rest) => rest.get(memchr(b'/', rest).unwrap_or(rest.len())..).unwrap_or_default(),
        };
        let target = if target.is_empty() { b"/" } else { target };
        if is_target(self.method(), target) {
            return self.splice(range, target);
        }
        let mut encoded = Vec::with_capacity(target.len() + 16);
        for byte in target {
            match byte {
                b'#' => encoded.extend_from_slice(b"%23"),
                b'!'..=b'~' => encoded.push(*byte),
                byte => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
        if is_target(self.method(), &encoded) {
            self.splice(range, &encoded);
        }
    }

    /// Calls `see` with name and value of each field until it returns true; returns whether it did.
    pub(super) fn each_field(&self, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        let mut rest = self.field_lines();
        while let Some(end) = memchr(b'\n', rest) {
            let line = rest.get(..end).unwrap_or_default();
            rest = rest.get(end + 1..).unwrap_or_default();
            let Some(colon) = memchr(b':', line) else { continue };
            let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
            if see(name, value.trim_ascii()) {
                return true;
            }
        }
        false
    }

    /// The value of the first field with this name.
    pub(super) fn value_of(&self, wanted: &str) -> Option<&[u8]> {
        let mut rest = self.field_lines();
        while let Some(end) = memchr(b'\n', rest) {
            let line = rest.get(..end).unwrap_or_default();
            rest = rest.get(end + 1..).unwrap_or_default();
            let colon = memchr(b':', line).unwrap_or(0);
            if line.get(..colon).is_some_and(|name| name.eq_ignore_ascii_case(wanted.as_bytes())) {
                return line.get(colon + 1..).map(<[u8]>::trim_ascii);
            }
        }
        None
    }

    /// Whether a cache may store the response, by HAProxy's criteria.
    pub(super) fn may_be_cached(&self) -> bool {
        let is_storable =
            matches!(self.status(), Some(200 | 203 | 204 | 206 | 300 | 301 | 404 | 405 | 410 | 414 | 501));
        let (mut is_refused, mut is_fresh, mut is_null, mut has_validator) = (false, false, false, false);
        self.each_field(&mut |name, value| {
            let value = value.to_ascii_lowercase();
            if name.eq_ignore_ascii_case(b"cache-control") {
                for directive in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    let begins = |text: &str| directive.starts_with(text.as_bytes());
                    let is_private = ["private", "no-cache", "no-store"].iter().any(|text| begins(text));
                    is_refused |= (is_private && directive != b"no-cache=\"set-cookie\"") || directive == b"s-maxage=0";
                    is_null = (is_null || directive == b"max-age=0") && !begins("s-maxage");
                    is_fresh |= begins("s-maxage") || (begins("max-age") && directive != b"max-age=0");
                }
            }
            is_refused |= name.eq_ignore_ascii_case(b"pragma") && value == b"no-cache";
            is_fresh |= name.eq_ignore_ascii_case(b"expires");
            has_validator |= name.eq_ignore_ascii_case(b"etag") || name.eq_ignore_ascii_case(b"last-modified");
            false
        });
        is_storable && !is_refused && !is_null && (is_fresh || has_validator)
    }

    /// Adds a field at the end. Control characters become spaces.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        let end = self.bytes.len().saturating_sub(2);
        self.bytes.truncate(end);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend(value.iter().map(|byte| if is_control(*byte) { b' ' } else { *byte }));
        self.bytes.extend_from_slice(b"\r\n\r\n");
        self.is_changed = true;
    }

    /// Removes fields by name.
    pub(super) fn remove(&mut self, fits: impl Fn(&[u8]) -> bool) {
        let mut from = self.start_line().len() + 2;
        // Lines that stay move to the front, so that each byte moves once at most.
        let mut to = from;
        while let Some(Line { whole, colon }) = self.line_at(from) {
            from = whole.end;
            if !fits(self.bytes.get(whole.start..colon).unwrap_or_default()) {
                let len = whole.len();
                if to < whole.start {
                    self.bytes.copy_within(whole, to);
                }
                to += len;
            }
        }
        if to < from {
            self.splice(to..from, b"");
        }
    }

    pub(super) fn remove_named(&mut self, name: &str) {
        self.remove(|field| field.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Replaces matches in the values with a name: in the whole line, or in each of its parts between commas.
    pub(super) fn replace_values(&mut self, name: &str, regex: &Regex, replacement: &[u8], by_comma: bool) {
        let mut at = self.start_line().len() + 2;
        while let Some(line) = self.line_at(at) {
            at = line.whole.end;
            let is_it = self.bytes.get(line.whole.start..line.colon);
            if !is_it.is_some_and(|field| field.eq_ignore_ascii_case(name.as_bytes())) {
                continue;
            }
            let (start, end) = (line.colon + 1, line.whole.end - 2);
            let value = self.bytes.get(start..end).unwrap_or_default();
            let mut new = Vec::with_capacity(value.len() + replacement.len());
            let parts = value.split(|byte| by_comma && *byte == b',');
            for (number, part) in parts.enumerate() {
                new.extend_from_slice(if number > 0 { b"," } else { b"" });
                let text = part.trim_ascii();
                let lead = part.len() - part.trim_ascii_start().len();
                new.extend_from_slice(part.get(..lead).unwrap_or_default());
                match regex.compiled.find(text) {
                    // As in HAProxy, the value becomes the replacement.
                    Some(found) => {
                        regex.replace(replacement, false, text.get(found.range()).unwrap_or_default(), &mut new)
                    }
                    None => new.extend_from_slice(text),
                }
            }
            clean(&mut new);
            if self.bytes.get(start..end) != Some(new.as_slice()) {
                at = at + new.len() - (end - start);
                self.splice(start..end, &new);
            }
        }
    }

    /// The line at a position.
    pub(super) fn line_at(&self, at: usize) -> Option<Line> {
        let rest = self.bytes.get(at..self.bytes.len().saturating_sub(2)).filter(|rest| !rest.is_empty())?;
        let end = at + memchr(b'\n', rest)? + 1;
        let colon = at + memchr(b':', rest).filter(|colon| at + colon < end).unwrap_or(0);
        Some(Line { whole: at..end, colon })
    }

    /// Calls `judge` with each line, the start line first, without its CRLF. The returned text replaces the line; an empty
    /// text removes a field. Stops at [`LineOutcome::Stop`], and returns whether it did. After a replaced request line no
    /// further line is visited, as in HAProxy. A replacement that would break the head or the framing is ignored.
    pub(super) fn each_line(&mut self, judge: &mut dyn FnMut(&[u8], bool) -> LineOutcome) -> bool {
        let mut at = 0;
        while at + 2 < self.bytes.len() {
            let Some(end) = self.bytes.get(at..).and_then(|rest| memchr(b'\n', rest)).map(|end| at + end) else {
                break;
            };
            let line = self.bytes.get(at..end - 1).unwrap_or_default();
            let is_own = at > 0 && !is_field_line(line);
            match judge(line, at == 0) {
                LineOutcome::Stop => return true,
                LineOutcome::Replace(new) if !is_own => {
                    if new.is_empty() && at > 0 {
                        self.splice(at..end + 1, b"");
                        continue;
                    }
                    let mut new = new;
                    clean(&mut new);
                    let is_good = if at > 0 { is_field_line(&new) } else { self.is_start_line(&new) };
                    if is_good {
                        self.splice(at..end - 1, &new);
                    }
                    if at == 0 && !self.start_line().starts_with(b"HTTP/") {
                        return false;
                    }
                    at += if is_good { new.len() + 2 } else { end + 1 - at };
                }
                _ => at = end + 1,
            }
        }
        false
    }

    /// Whether a start line may replace the present one: the body of the message stays the same.
    fn is_start_line(&self, line: &[u8]) -> bool {
        let old = self.start_line();
        if !old.starts_with(b"HTTP/") {
            let is_head = |line: &[u8]| line.starts_with(b"HEAD ");
            return is_request_line(line) && is_head(line) == is_head(old);
        }
        let status = |line: &[u8]| {
            let digits = line.strip_prefix(b"HTTP/1.1 ")?.split(|byte| *byte == b' ').next()?;
            std::str::from_utf8(digits).ok()?.parse::<u16>().ok().filter(|_| digits.len() == 3)
        };
        let has_body = |status: u16| (200..600).contains(&status) && !matches!(status, 204 | 304);
        let old = self.status();
        status(line).is_some_and(|new| old == Some(new) || (has_body(new) && old.is_some_and(has_body)))
    }

    pub(super) fn splice(&mut self, range: Range<usize>, new: &[u8]) {
        self.bytes.splice(range, new.iter().copied());
        self.is_changed = true;
    }
}

/// The result for a line.
pub(super) enum LineOutcome {
    Keep,
    Replace(Vec<u8>),
    Stop,
}

/// Whether a byte cannot be part of a line (RFC 9110 section 5.5). Some of them would begin another line.
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Replaces control characters by spaces.
fn clean(text: &mut [u8]) {
    text.iter_mut().filter(|byte| is_control(**byte)).for_each(|byte| *byte = b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        let mut head = Head::default();
        head.load(text.as_bytes());
        head
    }

    fn text(head: &Head) -> &str {
        std::str::from_utf8(head.bytes()).expect("a text")
    }

    const HEAD: &str = "GET /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2, 3\r\nX-B: 4\r\n\r\n";

    #[test]
    fn parts_are_found() {
        let head = head(HEAD);
        assert_eq!((head.method(), head.target()), (&b"GET"[..], &b"/a?b"[..]));
        let mut seen = Vec::new();
        head.each_field(&mut |name, value| {
            seen.push(format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            false
        });
        assert_eq!(seen, ["Host=x", "X-A=1", "x-a=2, 3", "X-B=4"]);
        assert_eq!(head.value_of("x-b"), Some(&b"4"[..]));
        assert!(!head.is_changed());
    }

    #[test]
    fn edits_keep_the_form_of_a_head() {
        let mut one = head(HEAD);
        one.remove_named("X-A");
        one.add("X-C", b"a\r\nEvil:\x011");
        one.set_target(b"/with space\x07");
        one.set_method(b"PUT");
        let expected = "PUT /with%20space%07 HTTP/1.1\r\nHost: x\r\nX-B: 4\r\nX-C: a  Evil: 1\r\n\r\n";
        assert_eq!(text(&one), expected);
        assert!(one.is_changed());
        let mut two = head("GET / HTTP/1.1\r\n\r\n");
        two.remove(|_| true);
        two.set_method(b"HEAD");
        two.set_target(b"");
        two.add("A", b"");
        assert_eq!(text(&two), "GET / HTTP/1.1\r\nA: \r\n\r\n");
    }

    /// Far more lines than a head may have: a step for each pair of lines would take a minute.
    #[test]
    fn many_fields_are_removed_at_once() {
        let lines = "X-A: 1\r\nX-B: 2\r\n".repeat(200_000);
        let mut one = head(&format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}X-C: 3\r\n\r\n"));
        let clock = crate::base::clock::Clock::new();
        let began = clock.now();
        one.remove_named("x-a");
        assert_eq!(one.field_lines().len(), "Host: x\r\nX-C: 3\r\n".len() + 200_000 * "X-B: 2\r\n".len());
        one.remove(|name| name == b"X-B");
        let took = clock.now().since(began);
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
        assert_eq!(text(&one), "GET / HTTP/1.1\r\nHost: x\r\nX-C: 3\r\n\r\n");
        let mut two = head("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        two.remove_named("x-a");
        assert!(!two.is_changed());
    }

    #[test]
    fn values_are_replaced_whole_or_by_part() {
        let regex = |text: &str| Regex::new(text, false).expect("an expression");
        let mut one = head(HEAD);
        one.replace_values("x-a", &regex("^(.)$"), b"<\\1>", true);
        assert_eq!(one.value_of("x-a"), Some(&b"<1>"[..]));
        assert!(
            text(&one).contains("x-a: <2>, 3\r\n")
                || text(&one).contains("x-a: 2, <3>\r\n")
                || text(&one).contains("x-a: <2>, <3>\r\n")
        );
        let mut two = head(HEAD);
        two.replace_values("Host", &regex("(.*)"), b"\\1.example", false);
        assert_eq!(two.value_of("host"), Some(&b"x.example"[..]));
    }

    #[test]
    fn lines_are_replaced_where_they_stay_lines() {
        let table = [
            ("GET /a HTTP/1.1", "PUT /b HTTP/1.1", true),
            ("GET /a HTTP/1.1", "HEAD /a HTTP/1.1", false),
            ("HEAD /a HTTP/1.1", "GET /a HTTP/1.1", false),
            ("GET /a HTTP/1.1", "CONNECT /a HTTP/1.1", false),
            ("GET /a HTTP/1.1", "GET /a HTTP/1.1 x", false),
            ("Host: x", "X-Host: y", true),
            ("Host: x", "no line", false),
            ("Content-Length: 5", "Content-Length: 6", false),
        ];
        for (old, new, is_replaced) in table {
            let first = if old.ends_with("HTTP/1.1") { old } else { "GET / HTTP/1.1" };
            let mut one = head(&format!("{first}\r\nHost: x\r\nContent-Length: 5\r\n\r\n"));
            one.each_line(&mut |line, _| match line == old.as_bytes() {
                true => LineOutcome::Replace(new.as_bytes().to_vec()),
                false => LineOutcome::Keep,
            });
            assert_eq!(text(&one).contains(&format!("{new}\r\n")), is_replaced, "{old} to {new}");
        }
    }

    #[test]
    fn a_response_has_its_status() {
        let mut head = Head::default();
        head.begin_response(503);
        head.add("A", b"b");
        assert_eq!((head.status(), head.field_lines()), (Some(503), &b"A: b\r\n"[..]));
        head.set_status(200, "O\r\nK: \x7f");
        assert_eq!(text(&head), "HTTP/1.1 200 O  K:  \r\nA: b\r\n\r\n");
    }
}
