//! Lists of rules, applied to one message.

use super::configuration::ServedProxy;
use super::head::LineOutcome;
use super::outcome::Outcome;
use super::run::Run;
use crate::haproxy::program::List;
use crate::haproxy::rules::{Action, Counter, LocalResponse, Regex, Sample, Side};

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
}
