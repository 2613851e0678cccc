//! A response of this node from a file.

use super::head_line::is_managed;
use crate::wire::is_token;
use memchr::memchr;
use std::sync::Arc;

/// A response of this node from a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct ErrorPage {
    pub(in super::super) status: u16,
    /// Header lines, each with its CRLF.
    pub(in super::super) fields: Vec<u8>,
    pub(in super::super) body: Arc<[u8]>,
}

impl ErrorPage {
    /// Whether the connection is closed in place of a response.
    pub(super) fn is_nothing(&self) -> bool {
        self.status == 0
    }

    /// Parses a raw response, as in an `errorfile`. Its framing fields are dropped, since this node sets them. An empty
    /// file, such as `/dev/null`, is a response of nothing.
    pub(in super::super) fn parse(raw: &[u8]) -> Result<Self, String> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        let mut at = 0;
        let mut lines = Vec::new();
        loop {
            let rest = raw.get(at..).unwrap_or_default();
            let Some(end) = memchr(b'\n', rest) else {
                return Err(
                    "expected a whole response: a status line, header lines, a blank line and a body".to_owned()
                );
            };
            at += end + 1;
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let first = lines.first().copied().unwrap_or_default();
        let status = std::str::from_utf8(first).ok().and_then(|line| line.strip_prefix("HTTP/"));
        let status = status.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        let status = status.filter(|status| (200..600).contains(status));
        let status = status.ok_or("expected a status line such as HTTP/1.0 503 Service Unavailable")?;
        let mut fields = Vec::new();
        for line in lines.iter().skip(1) {
            let colon = memchr(b':', line).filter(|colon| *colon > 0);
            let name = colon.and_then(|colon| std::str::from_utf8(line.get(..colon)?).ok());
            let name = name.ok_or_else(|| format!("{:?} is no header line", String::from_utf8_lossy(line)))?;
            if !is_token(name.trim_end().as_bytes()) {
                return Err(format!("{name:?} is no name of a header"));
            }
            if !is_managed(name.trim()) {
                fields.extend_from_slice(line);
                fields.extend_from_slice(b"\r\n");
            }
        }
        Ok(Self { status, fields, body: raw.get(at..).unwrap_or_default().into() })
    }
}
