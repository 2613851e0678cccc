//! Requirements of rules: costly ones are recorded, and a rule that requires something missing is removed and reported.

use super::Lowering;
use crate::haproxy::keyword::Treatment::{self, Lost, Refused};
use crate::haproxy::model::{Model, Proxy};
use crate::haproxy::position::Position;
use crate::haproxy::rules::{
    Acl, Action, BackendTarget, Condition, Counter, Criterion, Fetch, Format, FormatPart, RedirectKind, Rule, Sample,
    Tests,
};
use crate::haproxy::serve::{Needs, is_managed};

/// The requirements of a rule.
struct Uses<'m> {
    model: &'m Model,
    /// The name of the proxy.
    own: &'m str,
    acls: &'m [Acl],
    needs: Needs,
    /// The missing requirement.
    missing: Option<String>,
}

impl Uses<'_> {
    fn miss(&mut self, why: impl Into<String>) {
        self.missing.get_or_insert(why.into());
    }

    fn fetch(&mut self, fetch: &Fetch) {
        match fetch {
            Fetch::SourcePort => self.needs.source_port = true,
            Fetch::Destination => self.needs.destination = true,
            Fetch::HttpAuth(list) | Fetch::HttpAuthGroup(list) => {
                self.needs.login = true;
                let list = self.model.userlist(list);
                let is_hashed = |list: &crate::haproxy::model::Userlist| {
                    list.users.iter().any(|user| user.password.is_some() && !user.is_clear)
                };
                if list.is_some_and(is_hashed) {
                    self.miss("passwords of crypt(3) are not compared; write insecure-password");
                }
            }
            Fetch::CapturedUri => self.needs.captured_uri = true,
            Fetch::HttpAuthUser => self.needs.login = true,
            Fetch::StickCounter { counter, slot, table, .. } => self.counter(*counter, *slot, table.as_deref()),
            _ => {}
        }
    }

    /// Records a counter of a table. HAProxy refuses a counter of a missing table, and has no value for a counter that
    /// is not stored.
    fn counter(&mut self, counter: Counter, slot: Option<u8>, table: Option<&str>) {
        let is_counted = !matches!(counter, Counter::BytesInRate | Counter::BytesOutRate);
        if !is_counted {
            return self.miss("bytes are not counted in tables");
        }
        // A slot uses the table of its rule.
        if slot.is_none() || table.is_some() {
            self.table(table);
        }
    }

    /// Records the table of a proxy; its own without a name.
    fn table(&mut self, name: Option<&str>) {
        let name = name.unwrap_or(self.own);
        if !self.model.proxies.iter().any(|proxy| proxy.name == name && proxy.stick_table.is_some()) {
            self.miss(format!("{name} has no stick-table"));
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.fetch(&sample.fetch);
    }

    fn format(&mut self, format: &Format) {
        for part in &format.parts {
            match part {
                FormatPart::Text(_) => {}
                FormatPart::Sample(sample, _) => self.sample(sample),
                FormatPart::Alias("HU" | "HP" | "HPO" | "HQ" | "r", _) => self.needs.captured_uri = true,
                FormatPart::Alias("cp", _) => self.needs.source_port = true,
                FormatPart::Alias("fi", _) => self.needs.destination = true,
                FormatPart::Alias("rt", _) => self.needs.request_number = true,
                FormatPart::Alias(..) => {}
            }
        }
    }

    fn criteria(&mut self, criteria: &[Criterion]) {
        criteria.iter().for_each(|criterion| self.sample(&criterion.sample));
    }

    fn condition(&mut self, condition: &Condition) {
        for term in condition.any.iter().flatten() {
            match &term.tests {
                Tests::Inline(criteria) => self.criteria(criteria),
                Tests::Acl(index) => {
                    let acls = self.acls;
                    if let Some(acl) = acls.get(*index) {
                        self.criteria(&acl.tests);
                    }
                }
            }
        }
    }

    /// Records the requirements of an action. Effects on fields managed by this node are checked elsewhere.
    fn action(&mut self, action: &Action) {
        match action {
            Action::Deny(response) | Action::Tarpit(response) | Action::Return(response) => {
                response.headers.iter().for_each(|(_, format)| self.format(format));
                response.text.iter().for_each(|format| self.format(format));
                if response.headers.iter().any(|(name, _)| is_managed(name)) {
                    self.miss("a header of the connection or of the framing is sluice's own");
                }
            }
            Action::Redirect(redirect) => match &redirect.kind {
                RedirectKind::Location(format) | RedirectKind::Prefix(format) | RedirectKind::Scheme(format) => {
                    self.format(format);
                }
            },
            Action::SetHeader(name, format)
            | Action::AddHeader(name, format)
            | Action::ReplaceHeader(name, _, format)
            | Action::ReplaceValue(name, _, format) => {
                self.format(format);
                self.field(name);
            }
            Action::DelHeader(name) => self.field(name),
            Action::ReplaceLine(_, replacement) => self.field(replacement.split(':').next().unwrap_or_default().trim()),
            Action::AddLine(line) => self.field(line.split(':').next().unwrap_or_default()),
            Action::SetMethod(format)
            | Action::SetPath(format)
            | Action::SetPathQuery(format)
            | Action::SetQuery(format)
            | Action::SetUri(format)
            | Action::ReplacePath(_, format)
            | Action::ReplacePathQuery(_, format)
            | Action::ReplaceUri(_, format) => self.format(format),
            Action::SetVarFormat(name, format) => {
                self.variable(name);
                self.format(format);
            }
            Action::UnsetVar(name) => self.variable(name),
            Action::SetVar(name, sample) => {
                self.variable(name);
                self.sample(sample);
            }
            Action::SetSource(sample) | Action::Capture { sample, .. } => self.sample(sample),
            Action::Track(_, sample, table) => {
                self.sample(sample);
                self.table(table.as_deref());
            }
            Action::Allow
            | Action::Metrics
            | Action::Auth(_)
            | Action::Reject
            | Action::SilentDrop
            | Action::DelHeadersMatching(_)
            | Action::SetStatus(..)
            | Action::IncrementCounter(..)
            | Action::SetTag(..)
            | Action::DelLine(_)
            | Action::DenyLine(_)
            | Action::AllowLine(_) => {}
        }
    }

    /// A variable that outlives its request.
    fn variable(&mut self, name: &str) {
        self.needs.session_variables |= name.starts_with("sess.");
        self.needs.process_variables |= name.starts_with("proc.");
    }

    fn field(&mut self, name: &str) {
        if is_managed(name) {
            self.miss(format!("{name} is a header of the connection or of the framing, which is sluice's own"));
        }
    }
}

/// Whether the loss of an action affects no decision.
fn is_harmless(action: &Action) -> bool {
    let field = match action {
        Action::SetHeader(name, _) | Action::AddHeader(name, _) | Action::DelHeader(name) => Some(name.as_str()),
        Action::ReplaceHeader(name, ..) | Action::ReplaceValue(name, ..) => Some(name.as_str()),
        Action::AddLine(line) => line.split(':').next(),
        _ => None,
    };
    field.is_some_and(is_managed)
}

/// Whether an action stands for a response.
fn is_decisive(action: &Action) -> bool {
    matches!(
        action,
        Action::Deny(_)
            | Action::Tarpit(_)
            | Action::Auth(_)
            | Action::Redirect(_)
            | Action::Return(_)
            | Action::Reject
            | Action::SilentDrop
            | Action::DenyLine(_)
            | Action::AllowLine(_)
            | Action::Allow
    )
}

impl Lowering<'_, '_> {
    /// The proxy without the rules that cannot be honoured, each of which is reported.
    pub(super) fn without_missing(&mut self, proxy: &Proxy) -> Proxy {
        let mut served = proxy.clone();
        let rules = &mut served.rules;
        for (list, treatment) in [
            (&mut rules.connection, Refused),
            (&mut rules.content, Refused),
            (&mut rules.request, Refused),
            (&mut rules.redirects, Refused),
            (&mut rules.old_request, Refused),
            (&mut rules.response, Lost),
            (&mut rules.old_response, Lost),
            (&mut rules.after_response, Lost),
        ] {
            list.retain(|rule| self.keeps(rule, treatment, proxy));
        }
        rules.use_backend.retain(|rule| {
            let ask = |uses: &mut Uses<'_>| {
                rule.condition.iter().for_each(|condition| uses.condition(condition));
                if let BackendTarget::Dynamic(format) = &rule.target {
                    uses.format(format);
                }
            };
            self.has_all((rule.at, "use_backend", Refused), proxy, ask)
        });
        rules.use_server.retain(|rule| {
            let ask = |uses: &mut Uses<'_>| rule.condition.iter().for_each(|condition| uses.condition(condition));
            self.has_all((rule.at, "use-server", Refused), proxy, ask)
        });
        served.stick_rules.retain(|rule| {
            let ask = |uses: &mut Uses<'_>| {
                uses.sample(&rule.key);
                uses.table(rule.table.as_deref());
                rule.condition.iter().for_each(|condition| uses.condition(condition));
            };
            self.has_all((proxy.at, "stick", Refused), proxy, ask)
        });
        served.monitor_fail.retain(|condition| {
            self.has_all((proxy.at, "monitor fail", Lost), proxy, |uses| uses.condition(condition))
        });
        let ids = served.unique_id_format.iter().filter(|_| served.unique_id_header.is_some());
        for format in ids {
            self.has_all((proxy.at, "unique-id-format", Lost), proxy, |uses| uses.format(format));
        }
        served
    }

    fn keeps(&mut self, rule: &Rule, treatment: Treatment, proxy: &Proxy) -> bool {
        let treatment = match &rule.action {
            action if is_harmless(action) => Lost,
            // A response of this node decides about access, in lists of requests and of responses.
            action if is_decisive(action) => Refused,
            _ => treatment,
        };
        self.has_all((rule.at, "rule", treatment), proxy, |uses| {
            uses.action(&rule.action);
            rule.condition.iter().for_each(|condition| uses.condition(condition));
        })
    }

    /// Whether all requirements are met.
    fn has_all(
        &mut self,
        (at, word, treatment): (Position, &str, Treatment),
        proxy: &Proxy,
        ask: impl FnOnce(&mut Uses<'_>),
    ) -> bool {
        let mut uses =
            Uses { model: self.model, own: &proxy.name, acls: &proxy.acls, needs: Needs::default(), missing: None };
        ask(&mut uses);
        let Uses { needs, missing, .. } = uses;
        if let Some(why) = missing {
            self.say(at, word, treatment, why);
            return false;
        }
        self.configuration.needs.add(needs);
        true
    }
}
