//! Responses of this node for rules.

use super::configuration::ServedProxy;
use super::head::Head;
use super::head_line::is_managed;
use super::run::Run;
use crate::haproxy::rules::{Format, LocalResponse, Redirect, RedirectKind};
use crate::page::phrase;
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
    /// Parses a raw response, as in an `errorfile`. Its framing fields are dropped, since this node sets them.
    pub(in super::super) fn parse(raw: &[u8]) -> Result<Self, String> {
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

/// A response of this node, made by rules. Its memory is reused for each request.
#[derive(Debug, Default)]
pub struct Reply {
    pub(super) head: Head,
    pub(super) text: Vec<u8>,
    pub(super) page: Option<Arc<ErrorPage>>,
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
    }

    /// Becomes the response of a page.
    pub(super) fn take_page(&mut self, page: &Arc<ErrorPage>) {
        self.begin(page.status);
        self.page = Some(Arc::clone(page));
        for line in page.fields.split(|byte| *byte == b'\n') {
            if let Some(colon) = memchr(b':', line) {
                let name = line.get(..colon).map(String::from_utf8_lossy).unwrap_or_default();
                self.head.add(&name, line.get(colon + 1..).unwrap_or_default().trim_ascii());
            }
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.head.capacity() + self.text.capacity()
    }
}

impl Run<'_> {
    /// Makes the response of `deny`, `tarpit` or `return`.
    pub(super) fn respond(&mut self, response: &LocalResponse, default: u16, proxy: &ServedProxy) {
        let status = response.status.unwrap_or(default);
        let configuration = self.configuration;
        let file = |path: &Option<String>| path.as_ref().and_then(|path| configuration.files.get(path));
        let of_group = |name: &String| {
            let group = configuration.error_groups.get(name)?;
            group.iter().find(|(of, _)| *of == status).map(|(_, page)| page)
        };
        let own = || proxy.error(status);
        let has_text = response.text.is_some() || response.file.is_some();
        let page = match file(&response.raw_file) {
            Some(page) => Some(page),
            None => response.error_group.as_ref().and_then(of_group).or_else(|| own().filter(|_| !has_text)),
        };
        if let Some(page) = page {
            self.work.reply.take_page(page);
            return;
        }
        if !has_text && default != 200 && response.headers.is_empty() {
            return self.work.reply.begin_page(status, "Request forbidden by administrative rules.");
        }
        self.work.reply.begin(status);
        let content = response.file.as_ref().and_then(|path| configuration.contents.get(path));
        if let Some(content) = content {
            self.work.reply.page = Some(Arc::clone(content));
        } else if let Some(format) = &response.text {
            let text = self.render(format);
            self.work.reply.text.extend_from_slice(&text);
            self.give_back(text);
        }
        if let (Some(content_type), true) = (&response.content_type, has_text) {
            self.work.reply.head.add("Content-Type", content_type.as_bytes());
        }
        for (name, format) in &response.headers {
            let value = self.render(format);
            self.work.reply.head.add(name, &value);
            self.give_back(value);
        }
    }

    /// Makes a redirect. `false` if it has no location and has to be skipped.
    pub(super) fn redirect(&mut self, redirect: &Redirect) -> bool {
        let location = self.location(redirect);
        if location.is_empty() && redirect.ignore_empty {
            self.give_back(location);
            return false;
        }
        let reply = &mut self.work.reply;
        reply.begin(redirect.status);
        reply.head.add("Location", &location);
        self.give_back(location);
        let head = &mut self.work.reply.head;
        // A redirect that may lead to another location the next time must not be cached.
        if matches!(redirect.status, 302 | 303 | 307) {
            head.add("Cache-Control", b"no-cache");
        }
        if let Some(cookie) = &redirect.set_cookie {
            head.add("Set-Cookie", format!("{cookie}; path=/;").as_bytes());
        }
        if let Some(cookie) = &redirect.clear_cookie {
            head.add("Set-Cookie", format!("{cookie}; path=/; Max-Age=0;").as_bytes());
        }
        true
    }

    fn location(&mut self, redirect: &Redirect) -> Vec<u8> {
        let (format, adds_target): (&Format, bool) = match &redirect.kind {
            RedirectKind::Location(format) => (format, false),
            RedirectKind::Prefix(format) | RedirectKind::Scheme(format) => (format, true),
        };
        let mut location = self.render(format);
        let target = self.work.request.target();
        let (path, query) = match memchr(b'?', target) {
            Some(at) => (target.get(..at).unwrap_or_default(), target.get(at..).unwrap_or_default()),
            None => (target, &[][..]),
        };
        if let RedirectKind::Scheme(_) = redirect.kind {
            location.extend_from_slice(b"://");
            location.extend_from_slice(self.work.request.value_of("host").unwrap_or_default());
        }
        if adds_target {
            // A prefix of a single slash has no effect.
            if location == b"/" {
                location.clear();
            }
            location.extend_from_slice(path);
            if redirect.append_slash && !path.ends_with(b"/") {
                location.push(b'/');
            }
        }
        let keeps_query = if adds_target { !redirect.drop_query } else { redirect.keep_query };
        if keeps_query && !query.is_empty() {
            match memchr(b'?', &location) {
                Some(_) => {
                    location.push(b'&');
                    location.extend_from_slice(query.get(1..).unwrap_or_default());
                }
                None => location.extend_from_slice(query),
            }
        }
        location
    }

    /// Makes the response that requests a user and a password.
    pub(super) fn ask_for_login(&mut self, realm: Option<&str>, proxy: &ServedProxy) {
        match proxy.error(401) {
            Some(page) => self.work.reply.take_page(page),
            None => self.work.reply.begin_page(401, "You need a valid user and password to access this content."),
        }
        let realm = realm.unwrap_or(proxy.name());
        self.work.reply.head.add("WWW-Authenticate", format!("Basic realm=\"{realm}\"").as_bytes());
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
        for raw in ["", "HTTP/1.1 200 OK\r\n", "<html>\n\n", "HTTP/1.1 99 X\n\n", "HTTP/1.1 200 OK\nno line\n\n"] {
            assert!(ErrorPage::parse(raw.as_bytes()).is_err(), "{raw:?}");
        }
        let mut reply = Reply::default();
        reply.take_page(&Arc::new(ErrorPage::parse(raw).expect("a response")));
        assert_eq!((reply.status(), reply.body()), (503, &b"<p>\n"[..]));
        assert_eq!(reply.fields(), b"Cache-Control: no-cache\r\nContent-Type: text/html\r\n");
    }
}
