//! Application of rule lists to one message.

use super::Workspace;
use super::auth::Login;
use super::configuration::{Configuration, ServedProxy};
use super::evaluation::{Dice, Outcome};
use super::head::{Head, LineOutcome};
use super::load::SLOTS;
use super::stick_table::Tracked;
use super::variables::Variables;
use super::view::{Facts, View};
use crate::haproxy::program::{List, Scratch};
use crate::haproxy::rules::{Action, Counter, CounterOperation, Format, LocalResponse, Regex, Sample, Side};
use memchr::memchr;
use std::net::{IpAddr, SocketAddr};

/// The application of a configuration's rules to one message.
pub(super) struct Run<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) facts: &'a mut Facts,
    pub(super) variables: &'a mut Variables,
    pub(super) work: &'a mut Workspace,
    pub(super) frontend: usize,
    pub(super) backend: Option<usize>,
    pub(super) server: Option<&'a str>,
    pub(super) is_http10: bool,
    pub(super) dice: Dice,
    /// The number of the request in this process.
    pub(super) number: u64,
    /// The proxy whose rules are applied.
    pub(super) owner: Option<&'a ServedProxy>,
    /// The entries that the request tracks.
    pub(super) tracked: &'a mut [Option<Tracked>; SLOTS],
    /// The head that rules change.
    pub(super) side: Side,
    /// Whether it is the first request of its connection.
    pub(super) is_first: bool,
    /// `reqallow` has matched in the list that is gone through.
    pub(super) is_allowed: bool,
}

/// The counters that change when a connection is tracked, and when a request is.
const OF_CONNECTIONS: [Counter; 4] = [Counter::ConnCnt, Counter::ConnRate, Counter::SessCnt, Counter::SessRate];
const OF_REQUESTS: [Counter; 4] = [Counter::ConnCnt, Counter::ConnRate, Counter::HttpReqCnt, Counter::HttpReqRate];

/// The step after a rule.
enum Step {
    Next,
    EndOfList,
    Over(Outcome),
}

impl<'a> Run<'a> {
    /// Calls `see` with the present view of the request, and the buffers of programs.
    pub(super) fn with_view<T>(&mut self, see: impl FnOnce(&View<'_>, &mut Scratch) -> T) -> T {
        let Workspace { scratch, request, response, login, .. } = &mut *self.work;
        let is_asked = self.configuration.needs.login && self.side == Side::Request;
        let authorization = if is_asked { request.value_of("authorization") } else { None };
        let login = authorization.and_then(|value| Login::read(value, login));
        let view = View {
            side: self.side,
            configuration: self.configuration,
            facts: self.facts,
            request,
            response,
            is_http10: self.is_http10,
            variables: self.variables,
            login,
            frontend: self.frontend,
            backend: self.backend,
            server: self.server,
            unix_seconds: self.dice.unix_seconds,
            random: self.dice.random,
            subsec_millis: self.dice.subsec_millis,
            number: self.number,
            now: self.dice.now,
            owner: self.owner,
            tracked: self.tracked,
        };
        see(&view, scratch)
    }

    /// The text of a format, in the buffer that [`Run::give_back`] takes back.
    pub(super) fn render(&mut self, format: &Format) -> Vec<u8> {
        let mut text = self.take_text();
        self.with_view(|view, scratch| format.render(view, scratch, &mut text));
        text
    }

    /// The text of a sample, and whether it has a value.
    fn render_sample(&mut self, sample: &Sample) -> (Vec<u8>, bool) {
        let mut text = self.take_text();
        let has_value = self.with_view(|view, scratch| sample.render(view, scratch, &mut text));
        (text, has_value)
    }

    pub(super) fn take_text(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.work.text);
        text.clear();
        text
    }

    pub(super) fn give_back(&mut self, text: Vec<u8>) {
        self.work.text = text;
    }

    fn head(&mut self) -> &mut Head {
        match self.side {
            Side::Request => &mut self.work.request,
            Side::Response => &mut self.work.response,
        }
    }

    /// Applies a list; `None` if the message continues.
    pub(super) fn list(&mut self, proxy: &'a ServedProxy, list: List) -> Option<Outcome> {
        self.owner = Some(proxy);
        self.is_allowed = false;
        let mut from = 0;
        loop {
            let found = self.with_view(|view, scratch| proxy.program.next(list, from, view, scratch));
            let (index, rule) = found?;
            // Rules of connections apply to the first request.
            if list == List::Connection && !self.is_first && !rule.action.is_of_each_request() {
                from = index + 1;
                continue;
            }
            match self.act(&rule.action, proxy, list) {
                Step::Next => from = index + 1,
                Step::EndOfList => return None,
                Step::Over(outcome) => return Some(outcome),
            }
        }
    }

    fn act(&mut self, action: &Action, proxy: &ServedProxy, list: List) -> Step {
        let is_response = self.side == Side::Response;
        match action {
            Action::Allow => return Step::EndOfList,
            Action::Deny(response) => {
                self.respond(response, if is_response { 502 } else { 403 }, proxy);
                return Step::Over(Outcome::Deny);
            }
            Action::Tarpit(response) => {
                self.respond(response, 500, proxy);
                return Step::Over(Outcome::Deny);
            }
            Action::Auth(realm) => {
                self.ask_for_login(realm.as_deref(), proxy);
                return Step::Over(Outcome::Deny);
            }
            Action::Redirect(redirect) => {
                if self.redirect(redirect) {
                    return Step::Over(Outcome::Respond);
                }
            }
            Action::Return(response) => {
                self.respond(response, 200, proxy);
                return Step::Over(Outcome::Respond);
            }
            Action::Metrics => return Step::Over(Outcome::Metrics),
            Action::Reject | Action::SilentDrop => return Step::Over(Outcome::Close),
            Action::DenyLine(regex) if self.has_line(regex) => {
                let status = if is_response { 502 } else { 403 };
                self.respond(&LocalResponse::default(), status, proxy);
                return Step::Over(Outcome::Deny);
            }
            Action::AllowLine(regex) if self.has_line(regex) => self.is_allowed = true,
            Action::DenyLine(_) | Action::AllowLine(_) => {}
            Action::Track(slot, key, table) => self.track((*slot, key, table.as_deref()), proxy, list),
            action => self.edit(action),
        }
        Step::Next
    }

    /// Whether a line of the message matches, unless an earlier rule has allowed it.
    fn has_line(&mut self, regex: &Regex) -> bool {
        let is_asked = !self.is_allowed;
        is_asked
            && self.head().each_line(&mut |line, _| match regex.compiled.is_match(line) {
                true => LineOutcome::Stop,
                false => LineOutcome::Keep,
            })
    }

    /// The entry in a slot: the request's own, otherwise its connection's.
    fn tracked(&self, slot: usize) -> Option<&Tracked> {
        let own = self.tracked.get(slot).and_then(Option::as_ref);
        own.or_else(|| self.facts.visit.as_ref()?.tracked(slot))
    }

    /// `track-sc…`: the first key of a slot stays. An entry of a rule of connections is tracked for the life of the
    /// connection, otherwise for the life of the request.
    fn track(&mut self, (slot, key, table): (usize, &Sample, Option<&str>), proxy: &ServedProxy, list: List) {
        let table = table.map_or(proxy.table.as_ref(), |name| self.configuration.table(name));
        let Some(table) = table.filter(|_| self.tracked(slot).is_none()) else { return };
        let Some(key) = self.with_view(|view, scratch| table.key(key, view, scratch)) else { return };
        let visit = self.facts.visit.clone().filter(|_| list == List::Connection);
        let counters: &[Counter] = if visit.is_some() { &OF_CONNECTIONS } else { &OF_REQUESTS };
        let Some(tracked) = table.track(key, counters, self.dice.now) else { return };
        match (visit, self.tracked.get_mut(slot)) {
            (Some(visit), _) => visit.track(slot, tracked),
            (None, Some(place)) => *place = Some(tracked),
            (None, None) => {}
        }
    }

    /// Counts for the entries that the connection tracks.
    pub(super) fn count_for_visit(&self, counters: &[Counter]) {
        let visit = self.facts.visit.as_deref();
        let tracked = (0..SLOTS).filter_map(|slot| visit?.tracked(slot));
        tracked.for_each(|tracked| tracked.count(counters, self.dice.now));
    }

    /// A sample without a value leaves the variable unchanged.
    fn set_variable(&mut self, name: &str, sample: &Sample) {
        let (value, has_value) = self.render_sample(sample);
        if has_value {
            self.keep_variable(name, Some(&value));
        }
        self.give_back(value);
    }

    /// Gives a variable a value or takes it away, for as long as its scope lasts.
    fn keep_variable(&mut self, name: &str, value: Option<&[u8]>) {
        if !self.side.has_variable(name) {
            return;
        }
        match value {
            Some(value) => self.variables.set(name, value),
            None => self.variables.unset(name),
        }
        if name.starts_with("proc.") {
            self.configuration.process_variables.set(name, value);
        }
        if let Some(visit) = self.facts.visit.as_ref().filter(|_| name.starts_with("sess.")) {
            visit.variables().set(name, value);
        }
    }

    /// Applies an action that only changes the message or its variables.
    fn edit(&mut self, action: &Action) {
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
                let is_own = std::str::from_utf8(name).is_ok_and(super::is_managed);
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
