//! One message while rules are applied to it.

use super::Workspace;
use super::auth::Login;
use super::configuration::{Configuration, ServedProxy};
use super::head::Head;
use super::load::SLOTS;
use super::outcome::Dice;
use super::stick_table::Tracked;
use super::variables::Variables;
use super::view::{Facts, View};
use crate::haproxy::model::Capture;
use crate::haproxy::program::Scratch;
use crate::haproxy::rules::{Counter, Format, Sample, Side};

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
    /// `reqallow` has matched in the present list.
    pub(super) is_allowed: bool,
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
    pub(super) fn render_sample(&mut self, sample: &Sample) -> (Vec<u8>, bool) {
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

    pub(super) fn head(&mut self) -> &mut Head {
        match self.side {
            Side::Request => &mut self.work.request,
            Side::Response => &mut self.work.response,
        }
    }

    /// The entry in a slot: the request's own, otherwise its connection's.
    pub(super) fn tracked(&self, slot: usize) -> Option<&Tracked> {
        let own = self.tracked.get(slot).and_then(Option::as_ref);
        own.or_else(|| self.facts.visit.as_ref()?.tracked(slot))
    }

    /// Counts for the entries that the connection tracks.
    pub(super) fn count_for_visit(&self, counters: &[Counter]) {
        let visit = self.facts.visit.as_deref();
        let tracked = (0..SLOTS).filter_map(|slot| visit?.tracked(slot));
        tracked.for_each(|tracked| tracked.count(counters, self.dice.now));
    }

    /// Keeps the values of the headers that the frontend captures: of several lines the last one, as in HAProxy.
    pub(super) fn capture_headers(&mut self, frontend: &ServedProxy) {
        let side = self.side;
        for (slot, Capture { header, len }) in frontend.captures.of(side).iter().enumerate() {
            let Some(header) = header else { continue };
            let head = if side == Side::Request { &self.work.request } else { &self.work.response };
            let variables = &mut *self.variables;
            head.each_field(&mut |name, value| {
                if name.eq_ignore_ascii_case(header.as_bytes()) {
                    variables.capture(side, slot, value.get(..*len).unwrap_or(value));
                }
                false
            });
        }
    }

    /// Puts a sample into a slot of the frontend, if it has both.
    pub(super) fn capture(&mut self, sample: &Sample, slot: usize) {
        let frontend = self.configuration.proxy(self.frontend);
        let Some(Capture { len, .. }) = frontend.and_then(|frontend| frontend.captures.of(self.side).get(slot)) else {
            return;
        };
        let (value, has_value) = self.render_sample(sample);
        if has_value {
            self.variables.capture(self.side, slot, value.get(..*len).unwrap_or(&value));
        }
        self.give_back(value);
    }

    /// A sample without a value leaves the variable unchanged.
    pub(super) fn set_variable(&mut self, name: &str, sample: &Sample) {
        let (value, has_value) = self.render_sample(sample);
        if has_value {
            self.keep_variable(name, Some(&value));
        }
        self.give_back(value);
    }

    /// Sets or removes a variable in its scope.
    pub(super) fn keep_variable(&mut self, name: &str, value: Option<&[u8]>) {
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
}
