//! Actions that change a message, its variables or the entries of its keys.

use super::head::LineOutcome;
use super::head_line::is_managed;
use super::run::Run;
use crate::haproxy::rules::{Action, Counter, CounterOperation, Regex};
use memchr::memchr;
use std::net::{IpAddr, SocketAddr};

impl Run<'_> {
    /// Applies an action that only changes the message or its variables.
    pub(super) fn edit(&mut self, action: &Action) {
        match action {
            Action::SetHeader(name, format) => {
                let value = self.render(format);
                let head = self.head();
                head.remove_named(name);
                head.add(name, &value);
                self.give_back(value);
            }
            Action::AddHeader(name, format) => {
                let value = self.render(format);
                self.head().add(name, &value);
                self.give_back(value);
            }
            Action::DelHeader(name) => self.head().remove_named(name),
            Action::DelHeadersMatching(regex) => self.head().remove(|name| {
                let is_own = std::str::from_utf8(name).is_ok_and(is_managed);
                !is_own && regex.compiled.is_match(name)
            }),
            Action::ReplaceHeader(name, regex, format) | Action::ReplaceValue(name, regex, format) => {
                let replacement = self.render(format);
                let by_comma = matches!(action, Action::ReplaceValue(..));
                self.head().replace_values(name, regex, &replacement, by_comma);
                self.give_back(replacement);
            }
            Action::SetMethod(format) => {
                let method = self.render(format);
                self.work.request.set_method(&method);
                self.give_back(method);
            }
            Action::SetStatus(status, phrase) => {
                // A response whose status forbids a body would have another framing.
                let is_bodiless = |status: u16| matches!(status, 100..200 | 204 | 304);
                let head = self.head();
                if !is_bodiless(*status) && !head.status().is_some_and(is_bodiless) {
                    head.set_status(*status, phrase.as_deref().unwrap_or_else(|| crate::page::phrase(*status)));
                }
            }
            Action::Capture { sample, slot, .. } => self.capture(sample, *slot),
            Action::SetVar(name, sample) => self.set_variable(name, sample),
            Action::SetVarFormat(name, format) => {
                let value = self.render(format);
                self.keep_variable(name, Some(&value));
                self.give_back(value);
            }
            Action::UnsetVar(name) => self.keep_variable(name, None),
            Action::SetSource(sample) => {
                let (text, _) = self.render_sample(sample);
                let ip = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<IpAddr>().ok());
                if let Some(ip) = ip {
                    self.facts.source = SocketAddr::new(ip, self.facts.source.port());
                }
                self.give_back(text);
            }
            Action::ReplaceLine(regex, replacement) => {
                self.head().each_line(&mut |line, _| replaced_line(line, regex, replacement));
            }
            Action::AddLine(line) => {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                self.head().add(name.trim(), value.trim().as_bytes());
            }
            Action::DelLine(regex) => {
                self.head().each_line(&mut |line, is_first| match !is_first && regex.compiled.is_match(line) {
                    true => LineOutcome::Replace(Vec::new()),
                    false => LineOutcome::Keep,
                });
            }
            action => self.edit_target(action),
        }
    }

    /// Applies an action on the entry in a slot.
    fn edit_entry(&self, action: &Action) {
        let now = self.dice.now;
        match action {
            Action::IncrementCounter(slot, counter) => {
                let counter = (*counter, CounterOperation::Increment);
                self.tracked(*slot).and_then(|tracked| tracked.counter(None, counter, now));
            }
            Action::SetTag(slot, tag) => {
                if let Some(tracked) = self.tracked(*slot) {
                    tracked.set(Counter::Gpt0, (*tag).into(), now);
                }
            }
            _ => {}
        }
    }

    /// Applies an action on the target. Other actions are irrelevant for serving, or are refused when a configuration
    /// is lowered.
    fn edit_target(&mut self, action: &Action) {
        let (format, part, regex) = match action {
            Action::SetPath(format) => (format, Part::Path, None),
            Action::SetPathQuery(format) => (format, Part::PathQuery, None),
            Action::SetQuery(format) => (format, Part::Query, None),
            Action::SetUri(format) => (format, Part::PathQuery, None),
            Action::ReplacePath(regex, format) => (format, Part::Path, Some(regex)),
            Action::ReplacePathQuery(regex, format) | Action::ReplaceUri(regex, format) => {
                (format, Part::PathQuery, Some(regex))
            }
            action => return self.edit_entry(action),
        };
        let value = self.render(format);
        let target = self.work.request.target();
        let query_at = memchr(b'?', target).unwrap_or(target.len());
        let (path, query) = target.split_at_checked(query_at).unwrap_or((target, b""));
        let old = if part == Part::Path { path } else { target };
        let mut new = Vec::with_capacity(target.len() + value.len());
        match regex.map(|regex| (regex, regex.compiled.find(old))) {
            Some((_, None)) => return self.give_back(value),
            // As in HAProxy, the whole part becomes the replacement.
            Some((regex, Some(found))) => {
                regex.replace(&value, false, old.get(found.range()).unwrap_or_default(), &mut new);
            }
            None if part == Part::Query => {
                new.extend_from_slice(path);
                new.extend_from_slice(if value.is_empty() { b"" } else { b"?" });
                new.extend_from_slice(&value);
            }
            None => new.extend_from_slice(&value),
        }
        if part == Part::Path {
            new.extend_from_slice(query);
        }
        self.work.request.set_target(&new);
        self.give_back(value);
    }
}

/// The part of a target that a rule changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    PathQuery,
    Query,
}

/// The result of the old `reqrep` and `rsprep` for a line: the replacement, if it matches.
fn replaced_line(line: &[u8], regex: &Regex, replacement: &str) -> LineOutcome {
    let Some(found) = regex.compiled.find(line) else { return LineOutcome::Keep };
    let mut new = Vec::with_capacity(line.len());
    regex.replace(replacement.as_bytes(), false, line.get(found.range()).unwrap_or_default(), &mut new);
    LineOutcome::Replace(new)
}
