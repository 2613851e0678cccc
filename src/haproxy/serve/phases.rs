//! The order of a request's rules: frontend, choice of a backend, backend.

use super::UNIQUE_ID;
use super::configuration::ServedProxy;
use super::outcome::Outcome;
use super::run::Run;
use super::stick_table::{Key, StickTable};
use crate::haproxy::model::StickRule;
use crate::haproxy::program::{Choice, List};
use crate::haproxy::rules::Counter;
use std::sync::Arc;

const OF_REQUESTS_ALONE: [Counter; 2] = [Counter::HttpReqCnt, Counter::HttpReqRate];

impl<'a> Run<'a> {
    /// Calls `act` with each stick rule whose condition holds, its table and its key: those for requests, or those for
    /// responses.
    pub(super) fn each_stick(
        &mut self,
        backend: &'a ServedProxy,
        is_response: bool,
        act: &mut dyn FnMut(&StickRule, &Arc<StickTable>, Key),
    ) {
        self.owner = Some(backend);
        let configuration = self.configuration;
        self.with_view(|view, scratch| {
            backend.program.each_stick(view, scratch, &mut |rule, view, scratch| {
                let table = rule.table.as_ref().map_or(backend.table.as_ref(), |name| configuration.table(name));
                let key = table.filter(|_| rule.is_response == is_response);
                if let Some((table, key)) = key.and_then(|table| Some((table, table.key(&rule.key, view, scratch)?))) {
                    act(rule, table, key);
                }
            });
        });
    }

    /// Applies the rules of the frontend; `None` if a backend has to be selected.
    pub(super) fn frontend(&mut self, frontend: &'a ServedProxy) -> Option<Outcome> {
        if let Some(format) = &frontend.unique_id_format {
            let id = self.render(format);
            self.variables.set(UNIQUE_ID, &id);
            self.give_back(id);
        }
        self.capture_headers(frontend);
        if let Some(outcome) = self.list(frontend, List::Connection) {
            return Some(outcome);
        }
        if let Some(uri) = frontend.monitor_uri.as_deref()
            && self.work.request.target() == uri.as_bytes()
        {
            let fails = self.with_view(|view, scratch| frontend.program.monitor_fails(view, scratch));
            let status = if fails { 503 } else { 200 };
            match frontend.error(status) {
                Some(page) => self.work.reply.take_page(page),
                None if fails => self.work.reply.begin_page(503, "No server is available to handle this request."),
                None => self.work.reply.begin_page(200, "Service ready."),
            }
            return Some(if fails { Outcome::Deny } else { Outcome::Respond });
        }
        self.count_for_visit(&OF_REQUESTS_ALONE);
        self.lists(frontend, &[List::Content, List::Request])
    }

    /// Applies these lists of a proxy, its statistics page, and `redirect`, in HAProxy's order.
    pub(super) fn lists(&mut self, proxy: &'a ServedProxy, lists: &[List]) -> Option<Outcome> {
        let outcome = lists.iter().find_map(|list| self.list(proxy, *list));
        let outcome = outcome.or_else(|| self.statistics(proxy)).or_else(|| self.list(proxy, List::OldRequest));
        outcome.or_else(|| self.list(proxy, List::Redirects))
    }

    /// Selects a backend, and applies its rules.
    pub(super) fn choose(&mut self, frontend: &'a ServedProxy) -> Outcome {
        self.owner = Some(frontend);
        let choice = self.with_view(|view, scratch| frontend.program.backend(view, scratch));
        let Choice::Backend(index) = choice else { return Outcome::NoBackend };
        let Some(backend) = self.configuration.proxy(index) else { return Outcome::NoBackend };
        self.backend = Some(index);
        if !std::ptr::eq(backend, frontend)
            && let Some(outcome) = self.lists(backend, &[List::Content, List::Request])
        {
            return outcome;
        }
        Outcome::Forward
    }

    /// `option forwardfor`: adds a separate field behind the received ones.
    pub(super) fn add_forwarded_for(&mut self, frontend: &ServedProxy, backend: &ServedProxy) {
        let both = [&backend.forwarded_for, &frontend.forwarded_for];
        if both.into_iter().flatten().next().is_none() {
            return;
        }
        let source = self.facts.source.ip().to_canonical();
        let is_excepted =
            both.into_iter().flatten().any(|option| option.except.iter().any(|net| net.contains(&source)));
        let name = both.into_iter().flatten().find_map(|option| option.header.as_deref()).unwrap_or("X-Forwarded-For");
        // One of the two without `if-none` suffices to add a field.
        let is_for_none = both.into_iter().flatten().all(|option| option.if_none);
        let stays_alone = is_for_none && self.work.request.value_of(name).is_some();
        if !is_excepted && !stays_alone {
            let mut text = arrayvec::ArrayString::<64>::new();
            // The longest address has 45 characters.
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{source}"));
            self.work.request.add(name, text.as_bytes());
        }
    }

    pub(super) fn add_unique_id(&mut self, frontend: &ServedProxy) {
        if let Some(name) = &frontend.unique_id_header {
            let id = self.variables.get(UNIQUE_ID).unwrap_or_default();
            self.work.request.remove_named(name);
            self.work.request.add(name, id);
        }
    }
}
