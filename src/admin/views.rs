//! Views of the configuration, of the source of routes, and of the certificates.

use super::page::Page;
use super::query::Query;
use super::{Response, Sources, status};
use crate::net::tls::CertificateInfo;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::SystemTime;

pub(super) fn config(sources: &Sources) -> Response {
    let address = sources.settings.bind.as_ref().map(ToString::to_string);
    Response::json(&json!({
        "written": sources.settings.written.0,
        "admin": { "bind": address, "hosts": sources.settings.hosts, "token": sources.settings.token.is_some() },
    }))
}

pub(super) fn redis(sources: &Sources) -> Value {
    let (source, now) = (sources.directory.status(), sources.clock.now());
    json!({
        "kind": sources.source_kind,
        "warm": source.is_warm(),
        "freshness": status::source_mode(source),
        "age_seconds": source.age(now).as_secs_f64(),
        "losses": source.losses(),
        "held_hosts": source.held(),
        "epoch": source.losses(),
    })
}

/// Number of certificates in use, and the time of the first expiry in seconds since 1970.
pub(super) fn certificate_ends(sources: &Sources) -> (usize, Option<f64>) {
    let mut all = sources.directory.certificates();
    all.extend(sources.roster.certificates());
    let first = all.iter().filter_map(|certificate| certificate.not_after).min();
    let since = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    (all.len(), first.map(since))
}

/// The certificates in use, the first to expire first.
pub(super) fn certificates(query: &Query, sources: &Sources) -> Result<Value, Response> {
    let now = sources.clock.wall(sources.clock.now());
    let search = query.get("search").unwrap_or_default().to_lowercase();
    let mut all = sources.directory.certificates();
    all.extend(sources.roster.certificates());
    all.retain(|certificate| certificate.name.to_lowercase().contains(&search));
    let page = Page::new(query, all.len())?;
    let shown = page.select(&mut all, |one, other| (one.not_after, &one.name).cmp(&(other.not_after, &other.name)));
    Ok(page.with("certificates", shown.iter().map(|certificate| row(certificate, now)).collect()))
}

fn row(certificate: &CertificateInfo, now: SystemTime) -> Value {
    let text = |time: SystemTime| Timestamp::try_from(time).map(|time| time.to_string()).ok();
    let days_left = certificate.not_after.map(|end| match end.duration_since(now) {
        Ok(left) => left.as_secs_f64() / 86_400.0,
        Err(past) => -past.duration().as_secs_f64() / 86_400.0,
    });
    json!({
        "name": certificate.name,
        "not_before": certificate.not_before.and_then(text),
        "not_after": certificate.not_after.and_then(text),
        "days_left": days_left,
    })
}
