//! References between sections by name.

use super::Finding;
use crate::haproxy::keyword::Treatment::{Lost, Mapped, Refused, Wrong};
use crate::haproxy::keyword::{Treatment, nearest};
use crate::haproxy::model::{Mode, Model, Proxy, ProxyKind};
use crate::haproxy::position::Position;
use crate::haproxy::rules::BackendTarget;
use std::collections::{HashMap, HashSet};

/// Finds references without a target and duplicate names.
pub(super) fn check(model: &Model, findings: &mut Vec<Finding>) {
    let mut say = |at, word: &str, treatment, note: String| {
        findings.push(Finding { at, word: word.to_owned(), treatment, note: note.into(), section: u32::MAX });
    };
    let mut seen = HashMap::new();
    for proxy in &model.proxies {
        for is_frontend in [true, false] {
            let has_side = if is_frontend { proxy.is_frontend() } else { proxy.is_backend() };
            if has_side && let Some(first) = seen.insert((is_frontend, proxy.name.as_str()), proxy.at) {
                let note = format!("the name {} stands at line {} already", proxy.name, first.line);
                say(proxy.at, &proxy.name, Wrong, note);
                break;
            }
        }
        let mut names = HashSet::new();
        for server in &proxy.servers {
            if !names.insert(server.id.name.as_str()) {
                let note = "a second server of this name; HAProxy refuses it since 2.6, both are taken".to_owned();
                say(server.id.at, &server.id.name, Mapped, note);
            }
        }
        for rule in &proxy.rules.use_server {
            if !proxy.servers.iter().any(|server| server.id.name == rule.server) {
                say(rule.at, &rule.server, Wrong, format!("{} has no server of this name", proxy.name));
            }
        }
    }
    shared_rules(model, &mut say);
    // Only HTTP proxies are served, so only their references are followed.
    for proxy in model.proxies.iter().filter(|proxy| proxy.mode == Mode::Http && proxy.is_frontend()) {
        let default = proxy.default_backend.iter().map(|(name, at)| (name.as_str(), *at));
        let named = proxy.rules.use_backend.iter().filter_map(|rule| match &rule.target {
            BackendTarget::Named(name) => Some((name.as_str(), rule.at)),
            BackendTarget::Dynamic(_) => None,
        });
        for (name, at) in default.chain(named) {
            if let Some((treatment, note)) = lead(model, name) {
                say(at, name, treatment, note);
            }
        }
    }
}

/// Rules of a `defaults` section would be evaluated twice where a frontend and a backend both inherit them: HAProxy
/// refuses that.
fn shared_rules(model: &Model, say: &mut impl FnMut(Position, &str, Treatment, String)) {
    for proxy in &model.proxies {
        let Some(defaults) = proxy.inherited_rules else { continue };
        let mut others = model.proxies.iter().filter(|other| other.inherited_rules == Some(defaults));
        let line = defaults.line;
        if proxy.kind == ProxyKind::Listen {
            let note = format!("a listen section cannot have the rules of the defaults at line {line}");
            say(proxy.at, &proxy.name, Wrong, note);
        } else if proxy.is_backend() && others.any(Proxy::is_frontend) {
            let note = format!("a frontend and a backend cannot both have the rules of the defaults at line {line}");
            say(proxy.at, &proxy.name, Wrong, note);
        }
    }
}

/// The fault of a backend's name, if any.
fn lead(model: &Model, name: &str) -> Option<(Treatment, String)> {
    match model.backend(name) {
        None => {
            let known = model.proxies.iter().filter(|proxy| proxy.is_backend()).map(|proxy| proxy.name.as_str());
            let hint = nearest(name, known).map(|name| format!("; {name} is similar")).unwrap_or_default();
            Some((Wrong, format!("there is no backend of this name{hint}")))
        }
        Some(backend) if backend.mode != Mode::Http => Some((Refused, "this backend is not in mode http".to_owned())),
        Some(_) => None,
    }
}

/// Removes proxies that are not HTTP: one finding replaces one for each of their keywords.
pub(super) fn leave_out_tcp(model: &mut Model, findings: &mut Vec<Finding>) {
    let is_served = |proxy: &Proxy| proxy.mode == Mode::Http;
    for proxy in model.proxies.iter().filter(|proxy| !is_served(proxy)) {
        // A backend that is not HTTP is a loss only if a served proxy refers to it.
        let section = findings.iter().find(|finding| finding.at == proxy.at).map(|finding| finding.section);
        findings.retain(|finding| Some(finding.section) != section || finding.treatment == Wrong);
        let note = match proxy.mode {
            Mode::Tcp => "not in mode http: sluice serves HTTP only, and this section is left out",
            _ => "not in mode http: this section is left out",
        };
        let kind = match proxy.kind {
            ProxyKind::Frontend => "frontend",
            ProxyKind::Listen => "listen",
            _ => "backend",
        };
        findings.push(Finding {
            at: proxy.at,
            word: format!("{kind} {}", proxy.name),
            treatment: Lost,
            note: note.into(),
            section: section.unwrap_or(u32::MAX),
        });
    }
    model.proxies.retain(is_served);
    findings.sort_by_key(|finding: &Finding| -> Position { finding.at });
}
