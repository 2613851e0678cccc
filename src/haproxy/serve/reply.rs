//! A response of this node.

use super::error_page::ErrorPage;
use super::head::Head;
use super::outcome::Outcome;
use crate::page::phrase;
use memchr::memchr;
use std::sync::Arc;

/// A response of this node, made by rules. Its memory is reused for each request.
#[derive(Debug, Default)]
pub struct Reply {
    pub(super) head: Head,
    pub(super) text: Vec<u8>,
    pub(super) page: Option<Arc<ErrorPage>>,
    /// It was made from an empty file: the connection is closed in place of a response.
    is_nothing: bool,
}

impl Reply {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status().unwrap_or(500)
    }

    /// Header lines, each with its CRLF.
    pub fn fields(&self) -> &[u8] {
        self.head.field_lines()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.page.as_ref().map_or(&self.text, |page| &page.body)
    }

    /// Becomes a page with a status and a sentence.
    pub(super) fn begin_page(&mut self, status: u16, sentence: &str) {
        self.begin(status);
        self.head.add("Cache-Control", b"no-cache");
        self.head.add("Content-Type", b"text/html");
        let text = format!("<html><body><h1>{status} {}</h1>\n{sentence}\n</body></html>\n", phrase(status));
        self.text.extend_from_slice(text.as_bytes());
    }

    /// Becomes a response with a status alone.
    pub(super) fn begin(&mut self, status: u16) {
        self.head.begin_response(status);
        self.text.clear();
        self.page = None;
        self.is_nothing = false;
    }

    /// Becomes the response of a page.
    pub(super) fn take_page(&mut self, page: &Arc<ErrorPage>) {
        self.begin(page.status);
        self.page = Some(Arc::clone(page));
        self.is_nothing = page.is_nothing();
        for line in page.fields.split(|byte| *byte == b'\n') {
            if let Some(colon) = memchr(b':', line) {
                let name = line.get(..colon).map(String::from_utf8_lossy).unwrap_or_default();
                self.head.add(&name, line.get(colon + 1..).unwrap_or_default().trim_ascii());
            }
        }
    }

    /// The outcome of rules that have made this response: it is [`Outcome::Close`] for an empty one.
    pub(super) fn outcome(&self, outcome: Outcome) -> Outcome {
        let is_told = matches!(outcome, Outcome::Respond | Outcome::Deny);
        if is_told && self.is_nothing { Outcome::Close } else { outcome }
    }

    pub(super) fn capacity(&self) -> usize {
        self.head.capacity() + self.text.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_responses_are_read() {
        let raw = b"HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-cache\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n<p>\n";
        let page = ErrorPage::parse(raw).expect("a response");
        assert_eq!((page.status, &*page.body), (503, &b"<p>\n"[..]));
        assert_eq!(page.fields, b"Cache-Control: no-cache\r\nContent-Type: text/html\r\n");
        let page = ErrorPage::parse(b"HTTP/1.1 200\nA: b\n\n").expect("with bare line feeds");
        assert_eq!((page.status, page.body.len(), &*page.fields), (200, 0, &b"A: b\r\n"[..]));
        for raw in ["HTTP/1.1 200 OK\r\n", "<html>\n\n", "HTTP/1.1 99 X\n\n", "HTTP/1.1 200 OK\nno line\n\n"] {
            assert!(ErrorPage::parse(raw.as_bytes()).is_err(), "{raw:?}");
        }
        let mut reply = Reply::default();
        reply.take_page(&Arc::new(ErrorPage::parse(raw).expect("a response")));
        assert_eq!((reply.status(), reply.body()), (503, &b"<p>\n"[..]));
        assert_eq!(reply.fields(), b"Cache-Control: no-cache\r\nContent-Type: text/html\r\n");
        assert_eq!(reply.outcome(Outcome::Deny), Outcome::Deny);
        reply.take_page(&Arc::new(ErrorPage::parse(b"").expect("no response")));
        assert_eq!(reply.outcome(Outcome::Deny), Outcome::Close);
        reply.begin(200);
        assert_eq!(reply.outcome(Outcome::Respond), Outcome::Respond);
    }
}
