//! Views of the clusters and of their backends, with search and pages.

use super::buckets;
use super::clusters::{Load, all_routes, health_of, load_of, own_routes};
use super::query::Query;
use super::{Response, Sources};
use crate::base::clock::Moment;
use crate::cluster::{Addresses, Cluster, Member, Route, Second};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The greatest number of rows of a page, and that where nothing is said.
const MAX_ROWS: usize = 1000;
const ROWS: usize = 100;

pub(super) fn list(query: &Query, sources: &Sources) -> Response {
    let (now, search) = (sources.clock.now(), query.get("search").unwrap_or_default().to_lowercase());
    let only_trouble = query.get("trouble").is_some_and(|value| value != "0");
    let mut found = sources.directory.clusters();
    found.retain(|cluster| search.is_empty() || matches(cluster, &search));
    if only_trouble {
        found.retain(|cluster| {
            let load = load_of(cluster, &own_routes(cluster, sources), now);
            load.up < load.members || load.members == 0 || load.recent_failures > 0 || load.waiting > 0
        });
    }
    let page = Page::new(query, found.len());
    let rows = found.iter().skip(page.skip()).take(page.rows);
    let rows = rows.map(|cluster| summary(cluster, &own_routes(cluster, sources), now));
    Response::json(&page.with("frontends", rows.collect()))
}

pub(super) fn one(key: &str, sources: &Sources) -> Response {
    let now = sources.clock.now();
    let cluster = sources.directory.cluster(key).or_else(|| {
        let route = sources.directory.route(&key.to_ascii_lowercase())?;
        Some(Arc::clone(&route.cluster))
    });
    let Some(cluster) = cluster else {
        return Response::problem(404, &format!("{key} is not in use here: no request has asked for it lately"));
    };
    let routes = all_routes(&cluster, sources);
    let mut view = summary(&cluster, &routes, now);
    let options: Map<String, Value> =
        cluster.options.pairs().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let hosts: Vec<&str> = routes.iter().take(MAX_ROWS).map(|route| &*route.host).collect();
    view["options"] = options.into();
    view["hosts"] = hosts.into();
    view["host_count"] = routes.len().into();
    view["queued"] = cluster.admission.queued().into();
    view["dropped"] = cluster.admission.dropped().into();
    view["tunnels"] = cluster.admission.tunnels().into();
    view["buckets"] = buckets::tree(&cluster);
    view["backends"] = cluster.members.iter().map(|member| backend(&cluster, member, &routes, now)).collect();
    Response::json(&view)
}

/// The backends of all clusters, one row for each place that one has.
pub(super) fn backends(query: &Query, sources: &Sources) -> Response {
    let (now, search) = (sources.clock.now(), query.get("search").unwrap_or_default().to_lowercase());
    let state = query.get("state");
    let clusters = sources.directory.clusters();
    let mut found = Vec::new();
    for cluster in &clusters {
        let routes = own_routes(cluster, sources);
        let is_named = cluster.key.contains(&search);
        for member in &cluster.members {
            let is_found = is_named || member.url.to_string().to_lowercase().contains(&search);
            if is_found && state.is_none_or(|state| health_of(member, &routes, now).state == state) {
                found.push((cluster, member));
            }
        }
    }
    let page = Page::new(query, found.len());
    let rows = found.iter().skip(page.skip()).take(page.rows).map(|(cluster, member)| {
        let mut row = backend(cluster, member, &own_routes(cluster, sources), now);
        row["frontend"] = (*cluster.key).into();
        row
    });
    Response::json(&page.with("backends", rows.collect()))
}

fn matches(cluster: &Cluster, search: &str) -> bool {
    cluster.key.contains(search)
        || cluster.id.to_lowercase().contains(search)
        || cluster.members.iter().any(|member| member.url.to_string().to_lowercase().contains(search))
}

fn summary(cluster: &Cluster, routes: &[Arc<Route>], now: Moment) -> Value {
    let Load { requests, failures, in_flight, waiting, members, up, recent, recent_failures, .. } =
        load_of(cluster, routes, now);
    json!({
        "key": cluster.key,
        "id": crate::base::secret::redact_identifier(&cluster.id),
        "backends_total": members,
        "up": up,
        "in_flight": in_flight,
        "waiting": waiting,
        "requests": requests,
        "failures": failures,
        "requests_60s": recent,
        "failures_60s": recent_failures,
        "history": seconds(&cluster.admission.history().read(now)),
    })
}

fn seconds(history: &[Second]) -> Vec<[u32; 2]> {
    history.iter().map(|second| [second.requests, second.failures]).collect()
}

fn backend(cluster: &Cluster, member: &Member, routes: &[Arc<Route>], now: Moment) -> Value {
    let health = health_of(member, routes, now);
    let (requests, failures) = member.state.history().totals();
    let addresses: Vec<String> = match member.backend.addresses() {
        Addresses::Known(addresses) => addresses.iter().map(ToString::to_string).collect(),
        Addresses::Pending | Addresses::NotFound => Vec::new(),
    };
    json!({
        "url": member.url.to_string(),
        "endpoint": member.backend.endpoint().to_string(),
        "addresses": addresses,
        "state": health.state,
        "reason": health.reason,
        "seconds_left": health.left.map(|left| left.as_secs_f64()),
        "in_flight": member.state.in_flight(),
        "capacity": member.attributes.capacity,
        "weight": member.attributes.weight,
        "role": member.role().name(),
        "share": f64::from(member.ramp(cluster.options.slow_start, now)) / 1024.0,
        "requests": requests,
        "failures": failures,
        "history": seconds(&member.state.history().read(now)),
    })
}

/// Some rows of many.
struct Page {
    number: usize,
    rows: usize,
    total: usize,
}

impl Page {
    fn new(query: &Query, total: usize) -> Self {
        let rows = query.number("per_page").unwrap_or(ROWS).clamp(1, MAX_ROWS);
        let number = query.number("page").unwrap_or(1).clamp(1, total.div_ceil(rows).max(1));
        Self { number, rows, total }
    }

    fn skip(&self) -> usize {
        (self.number - 1) * self.rows
    }

    fn with(&self, name: &str, rows: Vec<Value>) -> Value {
        let mut view = json!({
            "total": self.total,
            "page": self.number,
            "pages": self.total.div_ceil(self.rows),
            "per_page": self.rows,
        });
        view[name] = rows.into();
        view
    }
}
