//! Views of what the process was given: its configuration, the source of its routes, its certificates.

use super::{Response, Sources, status};
use crate::net::tls::CertificateInfo;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::SystemTime;

pub(super) fn config(sources: &Sources) -> Response {
    let address = sources.settings.bind.map(|address| address.to_string());
    Response::json(&json!({
        "written": sources.settings.written.0,
        "admin": { "bind": address, "hosts": sources.settings.hosts, "token": sources.settings.token.is_some() },
    }))
}

pub(super) fn redis(sources: &Sources) -> Response {
    let (source, now) = (sources.directory.status(), sources.clock.now());
    Response::json(&json!({
        "kind": sources.source_kind,
        "warm": source.is_warm(),
        "freshness": status::source_mode(source),
        "age_seconds": source.age(now).as_secs_f64(),
        "losses": source.losses(),
        "epoch": source.losses(),
    }))
}

/// The certificates in use, the first to expire first.
pub(super) fn certificates(sources: &Sources) -> Response {
    let now = sources.clock.wall(sources.clock.now());
    let Some(mut all) = sources.directory.certificates() else {
        return Response::problem(503, "the certificates could not be listed in time");
    };
    all.extend(sources.roster.certificates());
    all.sort_by(|one, other| (one.not_after, &one.name).cmp(&(other.not_after, &other.name)));
    let rows: Vec<Value> = all.iter().map(|certificate| row(certificate, now)).collect();
    Response::json(&json!({ "certificates": rows }))
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
