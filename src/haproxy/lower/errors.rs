//! Responses of this node from files and texts.

use super::Lowering;
use crate::haproxy::keyword::Treatment::{Refused, Wrong};
use crate::haproxy::model::{ErrorResponse, ErrorSource};
use crate::haproxy::position::Position;
use crate::haproxy::rules::{Action, LocalResponse, Rule};
use crate::haproxy::serve::{ErrorPage, is_managed};
use std::path::Path;
use std::sync::Arc;

/// Pages by status.
pub(super) type Pages = Vec<(u16, Arc<ErrorPage>)>;

impl Lowering<'_, '_> {
    pub(super) fn error_groups(&mut self) {
        let model = self.model;
        for group in &model.http_errors {
            let pages = self.errors(&group.errors);
            self.configuration.error_groups.insert(group.name.clone(), pages);
        }
    }

    /// The error responses of a proxy, or of a section `http-errors`.
    pub(super) fn errors(&mut self, errors: &[ErrorResponse]) -> Pages {
        let mut pages = Pages::new();
        for ErrorResponse { status, source, at } in errors {
            let at = *at;
            let page = match source {
                ErrorSource::RawFile(file) => self.raw_file(file, at),
                ErrorSource::Redirect(redirect, location) => {
                    let location = location.replace(['\r', '\n'], " ");
                    let fields = format!("Location: {location}\r\nCache-Control: no-cache\r\n").into_bytes();
                    Some(Arc::new(ErrorPage { status: *redirect, fields, body: Arc::default() }))
                }
                ErrorSource::Content { content_type, file, text, headers } => {
                    let body = match (file, text) {
                        (Some(file), _) => self.file(file, at),
                        (None, text) => Some(text.clone().unwrap_or_default().into_bytes()),
                    };
                    body.map(|body| Arc::new(content(*status, content_type.as_deref(), headers, body)))
                }
                ErrorSource::Group(name) => {
                    let group = self.configuration.error_groups.get(name).cloned();
                    let Some(group) = group else {
                        self.say(at, "errorfiles", Wrong, format!("there is no section http-errors {name}"));
                        continue;
                    };
                    // 0 stands for all pages of the section.
                    pages.extend(group.into_iter().filter(|(of, _)| *status == 0 || of == status));
                    continue;
                }
            };
            pages.extend(page.map(|page| (*status, page)));
        }
        pages
    }

    fn raw_file(&mut self, file: &str, at: Position) -> Option<Arc<ErrorPage>> {
        if let Some(page) = self.configuration.files.get(file) {
            return Some(Arc::clone(page));
        }
        let bytes = self.file(file, at)?;
        match ErrorPage::parse(&bytes) {
            Ok(page) => {
                let page = Arc::new(page);
                self.configuration.files.insert(file.to_owned(), Arc::clone(&page));
                Some(page)
            }
            Err(problem) => {
                self.say(at, "errorfile", Wrong, format!("{file}: {problem}"));
                None
            }
        }
    }

    fn file(&mut self, file: &str, at: Position) -> Option<Vec<u8>> {
        match self.environment.read_bytes(Path::new(file)) {
            Ok(bytes) => Some(bytes),
            Err(problem) => {
                self.say(at, "file", Wrong, format!("reading {file}: {problem}"));
                None
            }
        }
    }

    /// Loads the files with which rules respond.
    pub(super) fn files_of(&mut self, rules: &[Rule]) {
        for rule in rules {
            let (Action::Deny(response) | Action::Tarpit(response) | Action::Return(response)) = &rule.action else {
                continue;
            };
            let LocalResponse { raw_file, file, error_group, .. } = response;
            if let Some(file) = raw_file {
                self.raw_file(file, rule.at);
            }
            if let Some(file) = file
                && let Some(body) = self.file(file, rule.at)
            {
                let page = ErrorPage { status: 200, fields: Vec::new(), body: body.into() };
                self.configuration.contents.insert(file.clone(), Arc::new(page));
            }
            if let Some(group) = error_group
                && !self.configuration.error_groups.contains_key(group)
            {
                self.say(rule.at, "errorfiles", Refused, format!("there is no section http-errors {group}"));
            }
        }
    }
}

fn content(status: u16, content_type: Option<&str>, headers: &[(String, String)], body: Vec<u8>) -> ErrorPage {
    let mut fields = String::new();
    let content_type = content_type.map(|value| ("Content-Type", value));
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in content_type.into_iter().chain(headers).filter(|(name, _)| !is_managed(name)) {
        fields.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n'], " ")));
    }
    ErrorPage { status, fields: fields.into_bytes(), body: body.into() }
}
