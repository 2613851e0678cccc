//! The clusters as views and metrics see them: what a cluster bears, and how each of its backends is.

use super::Sources;
use crate::base::clock::Moment;
use crate::cluster::{Cluster, Member, Route, Second};
use crate::health::Observation;
use crate::shaper::BucketView;
use std::sync::Arc;
use std::time::Duration;

/// What a cluster bears.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Requests that ended, since the cluster was made, and those of them that failed.
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// Requests that had to wait, and that found no place or waited for too long.
    pub(super) queued: u64,
    pub(super) dropped: u64,
    /// Requests that hold a slot, and that wait for one.
    pub(super) in_flight: u64,
    pub(super) waiting: u64,
    /// Backends, and those that may serve.
    pub(super) members: u64,
    pub(super) up: u64,
    /// Requests of the last minute, and those of them that failed.
    pub(super) recent: u64,
    pub(super) recent_failures: u64,
}

/// The busiest clusters, and how many there are.
#[derive(Debug)]
pub(super) struct Clusters {
    pub(super) count: u64,
    pub(super) loads: Vec<(String, Load)>,
    /// The buckets of those that have some.
    pub(super) buckets: Vec<(String, Vec<BucketView>)>,
}

impl Clusters {
    /// So many of them at the most, by the requests of the last minute.
    pub(super) fn busiest(sources: &Sources, most: usize) -> Self {
        let now = sources.clock.now();
        let all = sources.directory.clusters();
        let mut recent: Vec<(u64, &Arc<Cluster>)> =
            all.iter().map(|cluster| (sum(&cluster.admission.history().read(now)).0, cluster)).collect();
        recent.sort_by_key(|(recent, _)| std::cmp::Reverse(*recent));
        let busiest = || recent.iter().take(most).map(|(_, cluster)| cluster);
        let loads = busiest().map(|cluster| {
            let routes = own_routes(cluster, sources);
            (cluster.key.to_string(), load_of(cluster, &routes, now))
        });
        let shared = busiest().filter(|cluster| cluster.has_buckets());
        let buckets = shared.map(|cluster| (cluster.key.to_string(), cluster.buckets()));
        Self { count: all.len() as u64, loads: loads.collect(), buckets: buckets.collect() }
    }
}

/// The route of the host that a cluster is called after. A pattern has none; who leads to it is found by a walk over all
/// routes ([`all_routes`]).
pub(super) fn own_routes(cluster: &Cluster, sources: &Sources) -> Vec<Arc<Route>> {
    sources.directory.route(&cluster.key).filter(|route| route.cluster.key == cluster.key).into_iter().collect()
}

/// The routes of all hosts that lead to a cluster.
pub(super) fn all_routes(cluster: &Cluster, sources: &Sources) -> Vec<Arc<Route>> {
    if cluster.key.starts_with('*') {
        sources.directory.routes().into_iter().filter(|route| route.cluster.key == cluster.key).collect()
    } else {
        own_routes(cluster, sources)
    }
}

/// What a cluster bears now. `routes` are those whose marks count.
pub(super) fn load_of(cluster: &Cluster, routes: &[Arc<Route>], now: Moment) -> Load {
    let admission = &cluster.admission;
    let (requests, failures) = admission.history().totals();
    let (recent, recent_failures) = sum(&admission.history().read(now));
    let is_up = |member: &&Member| matches!(health_of(member, routes, now).state, "up");
    Load {
        requests,
        failures,
        queued: admission.queued(),
        dropped: admission.dropped(),
        in_flight: admission.in_flight().into(),
        waiting: admission.waiting().into(),
        members: cluster.members.len() as u64,
        up: cluster.members.iter().filter(is_up).count() as u64,
        recent,
        recent_failures,
    }
}

/// Requests and failures of all seconds.
pub(super) fn sum(history: &[Second]) -> (u64, u64) {
    let add = |(requests, failures), second: &Second| {
        (requests + u64::from(second.requests), failures + u64::from(second.failures))
    };
    history.iter().fold((0, 0), add)
}

/// How a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// `up`, `dead`, `down`, `disabled` or `removed`.
    pub(super) state: &'static str,
    /// Why it does not serve.
    pub(super) reason: Option<String>,
    /// For how long, where that is known.
    pub(super) left: Option<Duration>,
}

impl Health {
    fn new(state: &'static str, reason: Option<&str>) -> Self {
        Self { state, reason: reason.map(str::to_owned), left: None }
    }
}

/// How a member is for the hosts of these routes; the worst of them counts.
pub(super) fn health_of(member: &Member, routes: &[Arc<Route>], now: Moment) -> Health {
    if member.state.is_removed() {
        Health::new("removed", Some("it has left the list"))
    } else if member.attributes.is_disabled {
        Health::new("disabled", Some("the list says so"))
    } else if member.state.is_disabled() {
        Health::new("disabled", Some("an operator has taken it out of service"))
    } else if member.state.is_down() {
        Health::new("down", Some("the probes of this node find it down"))
    } else {
        let marked = routes.iter().filter_map(|route| marked_by(member, route, now));
        marked.max_by_key(|health| health.left).unwrap_or_else(|| Health::new("up", None))
    }
}

/// What a host's marks say of a member, where they keep requests from it.
fn marked_by(member: &Member, route: &Route, now: Moment) -> Option<Health> {
    let mark = route.marks.iter().find(|mark| Arc::ptr_eq(&mark.backend, &member.backend))?;
    let ends_at = mark.ends_at(now)?;
    let of_whom = if route.cluster.key == route.host { String::new() } else { format!(" (for {})", route.host) };
    let seen = Observation::from_code(mark.reason()).filter(|_| mark.dead_until(now).is_some());
    let of_others = || "marked dead by a checker, an operator or another node".to_owned();
    let reason = seen.map_or_else(of_others, |seen| seen.to_string());
    // A mark for ever has no end to wait for.
    let left = Some(ends_at.since(now)).filter(|_| ends_at != Moment::NEVER);
    Some(Health { state: "dead", reason: Some(reason + &of_whom), left })
}
