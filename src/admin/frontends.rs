//! Views of clusters and of their backends, with search and paging.

use super::buckets;
use super::clusters::{Load, health_of, load_of, name_of, recent_of, state_of, up_of};
use super::marks::{HostMarks, MarkIndex, MemberMarks};
use super::page::Page;
use super::patience::Patience;
use super::query::Query;
use super::{Response, Sources, option_sources};
use crate::base::clock::Moment;
use crate::base::pacer::Pacer;
use crate::base::secret::{redact_identifier, redact_url};
use crate::cluster::{Addresses, Cluster, Member, Second};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The states of a backend, for the filter.
const STATES: [&str; 8] = ["up", "partly_dead", "dead", "down", "ejected", "draining", "disabled", "removed"];

/// The numbers of a row by which rows can be sorted, in descending order.
const SORTS: [&str; 6] = ["requests_60s", "failures_60s", "in_flight", "waiting", "requests", "failures"];

/// A page of these clusters.
pub(super) fn list(
    query: &Query,
    clusters: &[Arc<Cluster>],
    index: &mut MarkIndex<'_>,
    sources: &Sources,
) -> Result<Value, Response> {
    let (now, search) = (sources.clock.now(), query.get("search").unwrap_or_default().to_lowercase());
    let only_trouble = query.get("trouble").is_some_and(|value| value != "0");
    let sort = query.get("sort").filter(|sort| *sort != "key");
    if let Some(unknown) = sort.filter(|sort| !SORTS.contains(sort)) {
        let detail =
            format!("sort={} is none; rows are put in order by key, {}", unknown.escape_debug(), SORTS.join(", "));
        return Err(Response::problem(400, &detail));
    }
    let patience = Patience::default();
    let mut found: Vec<(u64, &Arc<Cluster>)> = Vec::new();
    for cluster in clusters {
        patience.row();
        if (search.is_empty() || matches(cluster, &search)) && (!only_trouble || has_trouble(cluster, index, now)) {
            found.push((sort.map_or(0, |sort| measure(sort, cluster, now)), cluster));
        }
    }
    let page = Page::new(query, found.len())?;
    let shown = page.select(&mut found, |one, other| (other.0, &one.1.key).cmp(&(one.0, &other.1.key)));
    let rows = shown.iter().map(|(_, cluster)| summary(cluster, &index.marks(cluster), sources)).collect();
    Ok(page.with("frontends", rows))
}

fn has_trouble(cluster: &Cluster, index: &mut MarkIndex<'_>, now: Moment) -> bool {
    let marks = index.marks(cluster);
    let is_well = state_of(cluster, &marks, up_of(cluster, &marks)) == "up";
    let has_failed = || cluster.admission.history().totals().1 > 0 && recent_of(cluster, now).1 > 0;
    !is_well || cluster.admission.waiting() > 0 || has_failed()
}

/// The number of a cluster by which rows are sorted.
fn measure(sort: &str, cluster: &Cluster, now: Moment) -> u64 {
    match sort {
        "requests_60s" => recent_of(cluster, now).0,
        "failures_60s" => recent_of(cluster, now).1,
        "in_flight" => load_of(cluster).in_flight,
        "waiting" => load_of(cluster).waiting,
        "requests" => load_of(cluster).requests,
        _ => load_of(cluster).failures,
    }
}

/// The cluster in use of this key, or the one that a host in use leads to.
pub(super) fn cluster_of(key: &str, sources: &Sources) -> Option<Arc<Cluster>> {
    sources.directory.cluster(key).or_else(|| {
        let route = sources.directory.route(&key.to_ascii_lowercase())?;
        Some(Arc::clone(&route.cluster))
    })
}

/// The value of an option without what may be a password: the query of a path that is probed, and parts of URLs.
fn shown_option(name: &str, value: &str) -> String {
    match name {
        "health.path" => redact_url(value).into_owned(),
        _ if name.starts_with("errorPage.") => value.to_owned(),
        _ if value.contains("://") => redact_url(value).into_owned(),
        _ => value.to_owned(),
    }
}

/// A cluster with the source of every option; `None` if it is not in use.
pub(super) fn one(key: &str, index: &mut MarkIndex<'_>, sources: &Sources) -> Option<Value> {
    let cluster = cluster_of(key, sources)?;
    let mut view = view_of(&cluster, index, sources);
    view["option_sources"] = option_sources::of(&cluster.options, &view["options"], &sources.settings.written.0);
    Some(view)
}

/// A cluster, by the key of its list or by a host that resolves to it; `None` if it is not in use.
pub(super) fn live(key: &str, index: &mut MarkIndex<'_>, sources: &Sources) -> Option<Value> {
    cluster_of(key, sources).map(|cluster| view_of(&cluster, index, sources))
}

fn view_of(cluster: &Cluster, index: &mut MarkIndex<'_>, sources: &Sources) -> Value {
    let now = sources.clock.now();
    let hosts = index.hosts(cluster);
    let marks = HostMarks::of(cluster, &hosts, now);
    let mut view = summary(cluster, &marks, sources);
    let options: Map<String, Value> =
        cluster.options.pairs().map(|(name, value)| (name.to_owned(), shown_option(name, value).into())).collect();
    view["options"] = options.into();
    view["hosts"] = hosts.names.iter().map(|host| &**host).collect();
    view["host_count"] = hosts.count.into();
    view["queued"] = cluster.admission.queued().into();
    view["dropped"] = cluster.admission.dropped().into();
    view["tunnels"] = cluster.admission.tunnels().into();
    view["buckets"] = buckets::tree(cluster);
    view["adaptive_limit"] = cluster.adaptive_limit().into();
    let rates = &cluster.admission.rates;
    let [bytes_in, bytes_out] = [&rates.bytes_in, &rates.bytes_out].map(pace);
    view["bytes_per_second"] = json!({ "in": bytes_in, "out": bytes_out });
    let members = cluster.members.iter().enumerate();
    view["backends"] = members.map(|(place, member)| backend(cluster, member, marks.of_member(place), now)).collect();
    view
}

/// The message for a cluster that is not in use.
pub(super) fn unused(key: &str) -> String {
    format!("{key} is not in use here: no request has asked for it lately")
}

/// The backends of all clusters, one row for each place in a list.
pub(super) fn backends(query: &Query, sources: &Sources) -> Response {
    let (now, search) = (sources.clock.now(), query.get("search").unwrap_or_default().to_lowercase());
    let state = query.get("state");
    if let Some(unknown) = state.filter(|state| !STATES.contains(state)) {
        let detail = format!("state={} is none; the states are {}", unknown.escape_debug(), STATES.join(", "));
        return Response::problem(400, &detail);
    }
    let mut index = MarkIndex::new(sources, now);
    let clusters = sources.directory.clusters();
    let mut found = Vec::new();
    let patience = Patience::default();
    for cluster in &clusters {
        patience.row();
        let is_named = cluster.key.contains(&search);
        let marks = state.map(|_| index.marks(cluster));
        for (place, member) in cluster.members.iter().enumerate() {
            let is_found = is_named || name_of(member).to_lowercase().contains(&search);
            let is_so = |state: &str, marks: &HostMarks| health_of(member, marks.of_member(place), now).state == state;
            if is_found && state.zip(marks.as_ref()).is_none_or(|(state, marks)| is_so(state, marks)) {
                found.push((cluster, place));
            }
        }
    }
    let page = match Page::new(query, found.len()) {
        Ok(page) => page,
        Err(refusal) => return refusal,
    };
    let shown = page.select(&mut found, |one, other| (&one.0.key, one.1).cmp(&(&other.0.key, other.1)));
    let row = |(cluster, place): &(&Arc<Cluster>, usize)| {
        let member = cluster.members.get(*place)?;
        let mut row = backend(cluster, member, index.marks(cluster).of_member(*place), now);
        row["frontend"] = (*cluster.key).into();
        Some(row)
    };
    let rows = shown.iter().filter_map(row).collect();
    Response::json(&page.with("backends", rows))
}

/// The rate limit of bytes in one direction; the counters are not updated without a limit.
fn pace(pacer: &Pacer) -> Value {
    let (bytes, waits) = pacer.totals();
    json!({ "limit": pacer.rate(), "bytes": bytes, "waits": waits })
}

/// Whether a text of the view contains the search text. A text that the view does not show is not searched.
fn matches(cluster: &Cluster, search: &str) -> bool {
    cluster.key.contains(search)
        || redact_identifier(&cluster.id).to_lowercase().contains(search)
        || cluster.members.iter().any(|member| name_of(member).to_lowercase().contains(search))
}

fn summary(cluster: &Cluster, marks: &HostMarks, sources: &Sources) -> Value {
    let now = sources.clock.now();
    let Load { requests, failures, in_flight, waiting, members, .. } = load_of(cluster);
    let (recent, recent_failures) = recent_of(cluster, now);
    let up = up_of(cluster, marks);
    json!({
        "key": cluster.key,
        "source": if sources.directory.is_on_demand(cluster) { "on demand" } else { sources.source_kind },
        "id": redact_identifier(&cluster.id),
        "state": state_of(cluster, marks, up),
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

fn backend(cluster: &Cluster, member: &Member, marks: &MemberMarks, now: Moment) -> Value {
    let health = health_of(member, marks, now);
    let (requests, failures) = member.state.history().totals();
    let addresses: Vec<String> = match member.backend.addresses() {
        Addresses::Known(addresses) => addresses.iter().map(ToString::to_string).collect(),
        Addresses::Pending | Addresses::NotFound => Vec::new(),
    };
    json!({
        "url": name_of(member),
        "endpoint": member.backend.endpoint().to_string(),
        "addresses": addresses,
        "state": health.state,
        "reason": health.reason,
        "judge": health.judge,
        "seconds_left": health.left.map(|left| left.as_secs_f64()),
        "in_flight": member.state.in_flight(),
        "pooled": member.backend.idle_connections(),
        "capacity": member.attributes.capacity,
        "weight": member.attributes.weight,
        "role": member.role().name(),
        "share": f64::from(member.ramp(cluster.options.slow_start, now)) / 1024.0,
        "requests": requests,
        "failures": failures,
        "history": seconds(&member.state.history().read(now)),
    })
}
