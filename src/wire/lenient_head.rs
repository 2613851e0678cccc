//! A best-effort reading of a refused head, for the log and for debugging. Nothing else may depend on it.

use super::Version;

/// What a refused head appears to request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LenientHead<'b> {
    /// The method.
    pub method: &'b [u8],
    /// The target, as received.
    pub target: &'b [u8],
    /// The version.
    pub version: Version,
    /// Whether there is an `X-Debug`.
    pub wants_debug: bool,
}

impl<'b> LenientHead<'b> {
    /// Reads the start of `bytes`; `None` if not even the request line can be read.
    pub fn of(bytes: &'b [u8]) -> Option<Self> {
        let mut lines =
            bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).skip_while(|line| line.is_empty());
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let version = match version {
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => Version::Http11,
            _ => return None,
        };
        let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_alphanumeric);
        let is_line = is_method && !target.is_empty() && words.next().is_none();
        let has_name =
            |line: &[u8], name: &[u8]| line.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name));
        let wants_debug = lines.take_while(|line| !line.is_empty()).any(|line| has_name(line, b"x-debug:"));
        is_line.then_some(Self { method, target, version, wants_debug })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glimpses() {
        let of = |bytes: &'static str| {
            LenientHead::of(bytes.as_bytes()).map(|seen| {
                let text = |bytes| std::str::from_utf8(bytes).expect("text");
                (text(seen.method), text(seen.target), seen.version, seen.wants_debug)
            })
        };
        let get = |version, debug| Some(("GET", "/x", version, debug));
        assert_eq!(of("GET /x HTTP/1.1\r\nHost : a\r\n\r\n"), get(Version::Http11, false));
        assert_eq!(of("\r\nGET /x HTTP/1.0\nX-DEBUG: 1\n\n"), get(Version::Http10, true));
        assert_eq!(of("GET /x HTTP/1.1\r\nBad line\r\nx-debug:1\r\n\r\n"), get(Version::Http11, true));
        assert_eq!(of("GET /x HTTP/1.1\r\n\r\nX-Debug: 1\r\n"), get(Version::Http11, false), "that is the body");
        for bytes in ["", "\r\n\r\n", "GET /x", "GET /x HTTP/2.0\r\n", "GET  HTTP/1.1\r\n", "G\x01T / HTTP/1.1\r\n"] {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
    }
}
