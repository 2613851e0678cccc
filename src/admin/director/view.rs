//! Clusters and backends under x0d's names.

use super::super::clusters::health_of;
use super::super::marks::{HostMarks, MarkIndex};
use crate::base::clock::Moment;
use crate::cluster::{Cluster, Member, MemberState};
use crate::directory::{BackendDefinition, ClusterView};
use serde_json::{Map, Value, json};

/// An on-demand cluster.
pub(super) fn on_demand(view: &ClusterView, index: &mut MarkIndex<'_>, now: Moment) -> Value {
    let (mut director, marks) = (view.settings(), index.marks(view.cluster()));
    let members = view.definition().backends().iter().enumerate();
    let members = members.filter_map(|(place, backend)| on_demand_member(view, place, backend, (&marks, now)));
    let members = members.chain(view.terminating().map(|(backend, state)| terminating(backend, state)));
    director.insert("members".to_owned(), members.collect());
    if let Some(problem) = &view.cluster().buckets_problem {
        director.insert("buckets-problem".to_owned(), (**problem).into());
    }
    director.insert("mutable".to_owned(), true.into());
    director.insert("source".to_owned(), "on demand".into());
    director.insert("stats".to_owned(), stats(view.cluster()));
    director.into()
}

/// A backend of an on-demand cluster; `None` if there is none with this name.
pub(super) fn on_demand_backend(
    view: &ClusterView,
    name: &str,
    index: &mut MarkIndex<'_>,
    now: Moment,
) -> Option<Value> {
    if let Some(place) = view.definition().place_of(name) {
        let backend = view.definition().backends().get(place)?;
        return on_demand_member(view, place, backend, (&index.marks(view.cluster()), now));
    }
    view.terminating().find(|(backend, _)| *backend.name == *name).map(|(backend, state)| terminating(backend, state))
}

fn on_demand_member(
    view: &ClusterView,
    place: usize,
    backend: &BackendDefinition,
    (marks, now): (&HostMarks, Moment),
) -> Option<Value> {
    let member = view.cluster().members.get(place)?;
    let mut view = definition(backend);
    view["enabled"] = (backend.is_enabled && !member.state.is_disabled()).into();
    view["role"] = backend.role.name().into();
    view["health"]["state"] = state(member, place, marks, now).into();
    view["stats"] = member_stats(&member.state);
    Some(view)
}

fn terminating(backend: &BackendDefinition, state: &MemberState) -> Value {
    let mut view = definition(backend);
    view["enabled"] = false.into();
    view["role"] = "terminate".into();
    view["health"]["state"] = "undefined".into();
    view["stats"] = member_stats(state);
    view
}

fn definition(backend: &BackendDefinition) -> Value {
    json!({
        "name": backend.name,
        "capacity": backend.capacity,
        "terminate-protection": backend.is_protected,
        "protocol": if backend.is_secure { "https" } else { "http" },
        "hostname": backend.hostname,
        "port": backend.port,
        "health": { "mode": backend.health_mode.name(), "interval": backend.interval() },
    })
}

/// A cluster of a file, of Redis or of a HAProxy file.
pub(super) fn fixed(cluster: &Cluster, source: &str, index: &mut MarkIndex<'_>, now: Moment) -> Value {
    let marks = index.marks(cluster);
    let options: Map<String, Value> =
        cluster.options.pairs().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let members = cluster.members.iter().enumerate();
    let members: Vec<Value> = members.map(|(place, member)| fixed_member(member, place, &marks, now)).collect();
    json!({
        "mutable": false,
        "source": source,
        "enabled": !cluster.options.is_disabled,
        "options": options,
        "stats": stats(cluster),
        "members": members,
    })
}

/// One of its backends.
pub(super) fn fixed_member(member: &Member, place: usize, marks: &HostMarks, now: Moment) -> Value {
    let endpoint = member.url.endpoint();
    json!({
        "name": fixed_name(member),
        "capacity": member.attributes.capacity.map_or(0, std::num::NonZeroU32::get),
        "terminate-protection": false,
        "enabled": !(member.attributes.is_disabled || member.state.is_disabled()),
        "protocol": if endpoint.is_secure() { "https" } else { "http" },
        "hostname": endpoint.host(),
        "port": endpoint.port(),
        "stats": member_stats(&member.state),
        "health": { "state": state(member, place, marks, now) },
        "role": member.role().name(),
    })
}

/// The name of a backend without its own: host and port.
pub(super) fn fixed_name(member: &Member) -> String {
    let endpoint = member.url.endpoint().to_string();
    endpoint.split_once("://").map_or(endpoint.as_str(), |(_, name)| name).to_owned()
}

fn state(member: &Member, place: usize, marks: &HostMarks, now: Moment) -> &'static str {
    match health_of(member, marks.of_member(place), now).state {
        "dead" | "down" => "offline",
        _ if member.state.is_down() => "offline",
        _ => "online",
    }
}

/// Peaks of a cluster are not recorded.
fn stats(cluster: &Cluster) -> Value {
    let admission = &cluster.admission;
    json!({
        "load": { "current": admission.in_flight(), "max": null, "total": admission.history().totals().0 },
        "queued": { "current": admission.waiting(), "max": null, "total": admission.queued() },
        "dropped": admission.dropped(),
    })
}

fn member_stats(state: &MemberState) -> Value {
    json!({ "load": { "current": state.in_flight(), "max": state.peak(), "total": state.history().totals().0 } })
}
