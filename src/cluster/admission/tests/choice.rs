//! The members that a request of these tests may use.

use crate::base::clock::Moment;
use crate::cluster::{BackendId, Cluster, Demand, GrantSink, Permit, Route, Service, Turn, View, Waiter};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    #[default]
    Any,
    /// All except these, which have failed it.
    Except(Box<[BackendId]>),
    /// This one, which its client names.
    Only(BackendId),
}

impl Choice {
    pub(super) fn fits(&self, backend: BackendId) -> bool {
        match self {
            Self::Any => true,
            Self::Except(others) => !others.contains(&backend),
            Self::Only(one) => *one == backend,
        }
    }

    pub(super) fn demand<'a>(&'a self, route: &'a Route) -> Demand<'a> {
        let (tried, named) = match self {
            Self::Any => (&[][..], None),
            Self::Except(tried) => (&tried[..], None),
            Self::Only(named) => (&[][..], Some(*named)),
        };
        Demand { route, tried, named, wanted: None }
    }

    pub(super) fn waiter(
        &self,
        route: &Arc<Route>,
        sink: Arc<dyn GrantSink>,
        exchange: u64,
        has_token: bool,
    ) -> Waiter {
        let Demand { tried, named, .. } = self.demand(route);
        let (tried, route) = (tried.into(), Arc::clone(route));
        Waiter {
            sink,
            exchange,
            arrived: Moment::ZERO,
            route,
            tried,
            named,
            wanted: None,
            pick,
            key: 0,
            session: None,
            has_token,
        }
    }

    /// A slot of the first open member.
    pub(super) fn take(&self, route: &Arc<Route>, now: Moment) -> Option<Permit> {
        let (cluster, demand) = (&route.cluster, self.demand(route));
        let Service::Open(turn) = cluster.service(&demand, now) else { return None };
        let place = (0..cluster.members.len()).find(|place| cluster.is_open(*place, &demand, turn, now))?;
        Some(Permit::of_route(Arc::clone(route), cluster.take(place, now)?))
    }
}

fn pick(cluster: &Cluster, turn: Turn, view: &mut View<'_>) -> Option<usize> {
    (0..cluster.members.len()).find(|place| cluster.is_open(*place, &view.demand, turn, view.now))
}
