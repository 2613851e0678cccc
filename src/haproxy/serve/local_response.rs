//! Responses of this node that rules ask for.

use super::configuration::ServedProxy;
use super::run::Run;
use crate::haproxy::rules::{Format, LocalResponse, Redirect, RedirectKind};
use memchr::memchr;
use std::sync::Arc;

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
