//! Views of the routes in use, over all sources, and the backends that operators have disabled.

use super::{Directory, OnDemandRoute};
use crate::base::clock::Moment;
use crate::cluster::{AdminState, Cluster, Member, Route};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

impl Directory {
    /// The route of a request for this host at this port from on-demand clusters, which precede every other source. It
    /// serves requests without a known route. If there are such clusters it takes a lock, which is held no longer than
    /// an edit of one of them.
    pub fn on_demand_route(&self, host: &str, port: Option<u16>) -> OnDemandRoute {
        self.on_demand.look_up(host, port)
    }

    /// The number of the newest edit of an on-demand cluster. A worker that has not read the mail of that edit looks up
    /// routes again, so each edit applies to every later request.
    pub fn on_demand_version(&self) -> Arc<AtomicU64> {
        self.on_demand.version()
    }

    /// The ports at which requests are routed by host and port, sorted.
    pub fn claimed_ports(&self) -> Arc<[u16]> {
        self.on_demand.claimed()
    }

    /// Whether this is an on-demand cluster.
    pub fn is_on_demand(&self, cluster: &Cluster) -> bool {
        self.on_demand
            .route_of(&cluster.key)
            .is_some_and(|route| Arc::ptr_eq(&route.cluster.admission, &cluster.admission))
    }

    /// The clusters in use, in no order, for views and health probes. It takes a lock. An on-demand cluster hides a
    /// cluster of another source with the same name.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let mut clusters = self.clusters.list();
        let on_demand = self.on_demand.clusters();
        if !on_demand.is_empty() {
            clusters.retain(|cluster| self.on_demand.route_of(&cluster.key).is_none());
            clusters.extend(on_demand);
        }
        clusters
    }

    /// The route of this host, or of the on-demand cluster with this name, if it is in use, for views. It takes a lock.
    pub fn route(&self, host: &str) -> Option<Arc<Route>> {
        let on_demand = || self.on_demand.look_up(host, None).route;
        self.on_demand.route_of(host).or_else(on_demand).or_else(|| self.clusters.route(host))
    }

    /// The routes of all hosts in use, for views. It takes a lock.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        let mut routes = self.clusters.routes();
        routes.extend(self.on_demand.routes());
        routes
    }

    /// The cluster of this key, if it is in use. It takes a lock.
    pub fn cluster(&self, key: &str) -> Option<Arc<Cluster>> {
        let on_demand = self.on_demand.route_of(key).map(|route| Arc::clone(&route.cluster));
        on_demand.or_else(|| self.clusters.get(key))
    }

    /// Sets a member of a cluster to a state on behalf of an operator. The state survives if the member leaves its list and
    /// comes back. A call of [`Cluster::serve`] has to follow. Returns whether there was room to record it.
    pub fn set_admin_state(&self, cluster: &Cluster, member: &Member, admin: AdminState, now: Moment) -> bool {
        let is_noted = if self.is_on_demand(cluster) {
            self.on_demand.set_out_of_service(cluster, member, admin)
        } else {
            self.clusters.out_of_service.set(&cluster.key, member.url.endpoint(), admin)
        };
        if is_noted {
            member.state.set_admin_state(admin, now);
        }
        is_noted
    }

    /// The backends that operators have disabled or set to drain, for the log.
    pub fn out_of_service(&self) -> Vec<String> {
        let mut all = self.clusters.out_of_service.list();
        all.extend(self.on_demand.out_of_service());
        all
    }
}
