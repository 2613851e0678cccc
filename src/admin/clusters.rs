//! Clusters for views and metrics: the load of a cluster, and the state of each of its backends.

use super::marks::{Health, HostMarks, MemberMarks};
use crate::base::clock::Moment;
use crate::base::secret::redact_url;
use crate::cluster::{Cluster, Member, MemberHealth};
use std::borrow::Cow;

/// The load of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Number of requests that ended since the cluster was made, and of those that failed.
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// Number of requests that had to wait, and of those that were refused or waited too long.
    pub(super) queued: u64,
    pub(super) dropped: u64,
    /// Number of requests that hold a slot, and of those that wait for one.
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    /// Number of backends.
    pub(super) members: u64,
}

/// The present load of a cluster.
pub(super) fn load_of(cluster: &Cluster) -> Load {
    let admission = &cluster.admission;
    let (requests, failures) = admission.history().totals();
    Load {
        requests,
        failures,
        queued: admission.queued(),
        dropped: admission.dropped(),
        in_flight: admission.in_flight().into(),
        waiting: admission.waiting().into(),
        members: cluster.members.len() as u64,
    }
}

/// Requests and failures of the last minute.
pub(super) fn recent_of(cluster: &Cluster, now: Moment) -> (u64, u64) {
    cluster.admission.history().recent(now)
}

/// Number of backends of a cluster that may serve some of its hosts.
pub(super) fn up_of(cluster: &Cluster, marks: &HostMarks) -> u64 {
    let members = cluster.members.iter().enumerate();
    let up = members.filter(|(place, member)| {
        member.is_up() && !member.state.is_draining() && !marks.of_member(*place).are_of_all()
    });
    if cluster.options.is_disabled { 0 } else { up.count() as u64 }
}

/// The state of a whole cluster: `up`, `degraded` if a backend is missing, `down` if all are, or `disabled`.
pub(super) fn state_of(cluster: &Cluster, marks: &HostMarks, up: u64) -> &'static str {
    let is_whole = |(place, member): (usize, &Member)| {
        member.is_up() && !member.state.is_draining() && marks.of_member(place).is_free()
    };
    if cluster.options.is_disabled {
        "disabled"
    } else if up == 0 {
        "down"
    } else if cluster.members.iter().enumerate().all(is_whole) {
        "up"
    } else {
        "degraded"
    }
}

/// The state of a member for the hosts that lead to its cluster.
pub(super) fn health_of(member: &Member, marks: &MemberMarks, now: Moment) -> Health {
    let state = &member.state;
    if state.is_removed() {
        Health::new("removed", "list", "it was removed from the list")
    } else if member.attributes.is_disabled {
        Health::new("disabled", "list", "the list disables it")
    } else if state.is_disabled() {
        match state.known_health().is_some_and(MemberHealth::is_kept_disabled) {
            true => Health::new("disabled", "probes", "it was down, and waits for an operator (health.stickyOffline)"),
            false => Health::new("disabled", "operator", "an operator has disabled it"),
        }
    } else if state.is_down() {
        let fault = state.known_health().and_then(MemberHealth::fault);
        Health::new("down", "probes", fault.map_or_else(|| "probes fail".to_owned(), |fault| fault.to_string()))
    } else {
        let draining = state.is_draining().then(|| {
            Health::new(
                "draining",
                "operator",
                "an operator drains it: it serves its sessions and requests that name it",
            )
        });
        ejection_of(member, now).or_else(|| marks.health(now)).or(draining).unwrap_or(Health::UP)
    }
}

fn ejection_of(member: &Member, now: Moment) -> Option<Health> {
    let (until, cause) = member.state.known_health()?.ejection(now).filter(|_| member.state.is_ejected())?;
    Some(Health { left: Some(until.since(now)), ..Health::new("ejected", "requests", cause) })
}

/// The name of a backend in views: the URL of its entry, or its endpoint if the URL may hold a password.
pub(super) fn name_of(member: &Member) -> Cow<'_, str> {
    let url = member.url.as_str();
    let shown = redact_url(url);
    if *shown == *url { shown } else { member.backend.endpoint().to_string().into() }
}
