//! The decision whether a member may serve a request, made here only.

use super::attributes::Role;
use super::backend::BackendId;
use super::cluster::Cluster;
use super::member::Member;
use super::route::Route;
use crate::base::clock::Moment;
use std::sync::Arc;

/// The requirements of a request for its member.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The route of its host, whose marks count. It may be older than the member's list.
    pub route: &'a Route,
    /// Backends that have failed the request.
    pub tried: &'a [BackendId],
    /// The backend that its client names: no other may serve.
    pub named: Option<BackendId>,
    /// The backend that a rule or a cookie of a HAProxy file selects, or a session whose backend serves nothing else: if it has
    /// room, it serves before all others, whatever its weight and its role.
    pub wanted: Option<BackendId>,
}

/// A reason, other than lack of room, for which a member may not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It was removed from the list, is down, or is disabled.
    OutOfService,
    /// The client names another one.
    NotNamed,
    /// Its weight is 0 or it is draining, and neither the client nor a rule nor a session selects it.
    NoShare,
    /// It has failed the request.
    Tried,
    /// Another node, a checker or an operator has marked it dead, or the host no longer leads to it.
    MarkedByOthers,
    /// Only this node has marked it dead. Such a mark may be outdated: if every member has an obstacle, this member
    /// serves.
    MarkedHere,
}

/// The members to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The member that a rule, a cookie or a session selects ([`Demand::wanted`]).
    Wanted,
    /// The members with this role.
    Role(Role),
    /// Members that only this node has marked dead: no other is left, and an attempt can only help (Hipache).
    LastResort,
}

/// Whether a cluster can serve a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// One of the members in this turn has room.
    Open(Turn),
    /// Some member may serve, but none has room.
    Full,
    /// No member may serve.
    Unavailable,
}

/// The requirements of a request that waits.
#[derive(Clone, Debug)]
pub struct OwnedDemand {
    /// [`Demand::route`].
    pub route: Arc<Route>,
    /// [`Demand::tried`].
    pub tried: Box<[BackendId]>,
    /// [`Demand::named`].
    pub named: Option<BackendId>,
    /// [`Demand::wanted`].
    pub wanted: Option<BackendId>,
}

impl OwnedDemand {
    /// The requirements.
    pub fn demand(&self) -> Demand<'_> {
        Demand { route: &self.route, tried: &self.tried, named: self.named, wanted: self.wanted }
    }

    /// Whether it is the demand of every request of its route without a choice of its own.
    pub(super) fn is_for_any(&self) -> bool {
        self.tried.is_empty() && self.named.is_none() && self.wanted.is_none()
    }
}

impl Demand<'_> {
    fn wants(&self, member: &Member) -> bool {
        self.wanted.is_some_and(|wanted| wanted == member.backend.id())
    }

    /// The obstacle of a member for this request. `place` is its index in the list of `cluster`.
    #[inline]
    pub fn obstacle(&self, cluster: &Cluster, place: usize, now: Moment) -> Option<Obstacle> {
        let Some(member) = cluster.members.get(place).filter(|member| member.is_up()) else {
            return Some(Obstacle::OutOfService);
        };
        match self.named {
            Some(named) if named != member.backend.id() => return Some(Obstacle::NotNamed),
            None if member.is_only_selected() && !self.wants(member) => return Some(Obstacle::NoShare),
            _ => {}
        }
        if !self.tried.is_empty() && self.tried.contains(&member.backend.id()) {
            return Some(Obstacle::Tried);
        }
        let mark = match std::ptr::eq(cluster, &*self.route.cluster) {
            true => self.route.marks.get(place),
            // A member that joined later has no mark.
            false => self.route.mark_near(place, member.backend.id()),
        }?;
        if mark.is_removed() || mark.is_dead_external(now) {
            return Some(Obstacle::MarkedByOthers);
        }
        // A client that names a backend gets it, regardless of this node's marks.
        (self.named.is_none() && mark.dead_until(now).is_some()).then_some(Obstacle::MarkedHere)
    }
}

impl Cluster {
    /// Whether the cluster can serve the request now. Source of the roles: x0d 0.5. Standby members help in an
    /// overload, backup members in an outage; a full cluster never spills to backup.
    pub fn service(&self, demand: &Demand<'_>, now: Moment) -> Service {
        if demand.wanted.is_some() && self.has_wanted(demand, now) {
            return Service::Open(Turn::Wanted);
        }
        let (mut may_any_serve, mut is_any_marked) = (false, false);
        for role in Role::ALL {
            if role == Role::Backup && may_any_serve {
                break;
            }
            for (place, member) in self.members.iter().enumerate().filter(|(_, member)| member.role() == role) {
                match demand.obstacle(self, place, now) {
                    None if self.has_room_at(member, now) => return Service::Open(Turn::Role(role)),
                    None => may_any_serve = true,
                    Some(Obstacle::MarkedHere) => is_any_marked = true,
                    Some(_) => {}
                }
            }
        }
        match (may_any_serve, is_any_marked) {
            (true, _) => Service::Full,
            (false, true) => self.last_resort(demand, now),
            (false, false) => Service::Unavailable,
        }
    }

    #[cold]
    fn has_wanted(&self, demand: &Demand<'_>, now: Moment) -> bool {
        (0..self.members.len()).any(|place| self.is_open(place, demand, Turn::Wanted, now))
    }

    #[cold]
    fn last_resort(&self, demand: &Demand<'_>, now: Moment) -> Service {
        let is_open = (0..self.members.len()).any(|place| self.is_open(place, demand, Turn::LastResort, now));
        if is_open { Service::Open(Turn::LastResort) } else { Service::Full }
    }

    /// Whether the member at `place` may serve the request in this turn, and has room.
    #[inline]
    pub fn is_open(&self, place: usize, demand: &Demand<'_>, turn: Turn, now: Moment) -> bool {
        self.members.get(place).is_some_and(|member| {
            let has_turn = match (turn, demand.obstacle(self, place, now)) {
                (Turn::Wanted, None) => demand.wants(member),
                // The selected member may have no share, and then no turn among the others.
                (Turn::Role(role), None) => {
                    member.role() == role && (!member.is_only_selected() || demand.named.is_some())
                }
                (Turn::LastResort, Some(Obstacle::MarkedHere)) => true,
                _ => false,
            };
            has_turn && self.has_room_at(member, now)
        })
    }

    fn has_room_at(&self, member: &Member, now: Moment) -> bool {
        member.has_room(self.options.slow_start, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Backend, BackendUrl, ClusterSpec, Options};
    use std::sync::Arc;
    use std::time::Duration;

    const NOW: Moment = Moment::from_micros(1_000_000);

    fn list(before: Option<&Cluster>, backends: &[Arc<Backend>], attributes: &[&str]) -> Arc<Cluster> {
        let url = |(id, attributes): (usize, &&str)| BackendUrl::parse(&format!("http://10.0.0.{id}#{attributes}"));
        let urls: Vec<_> = attributes.iter().enumerate().map(|entry| url(entry).expect("a good URL")).collect();
        let entries = urls.iter().zip(backends).map(|(url, backend)| (url, Arc::clone(backend))).collect();
        Cluster::edit(before, ClusterSpec { created: 0, key: "a", id: "x", entries, options: &Options::none() }, NOW)
    }

    fn backends() -> [Arc<Backend>; 4] {
        std::array::from_fn(|id| {
            let url = BackendUrl::parse(&format!("http://10.0.0.{id}")).expect("a good URL");
            Arc::new(Backend::new(BackendId::new(id as u64), url.endpoint().clone()))
        })
    }

    #[test]
    fn each_obstacle_has_its_cause() {
        use Obstacle::{MarkedByOthers, MarkedHere, NoShare, NotNamed, OutOfService, Tried};
        let backends = backends();
        let cluster = list(None, &backends, &["", "weight=0", "disabled"]);
        let route = Route::new("a", Arc::clone(&cluster));
        let id = |place: usize| backends[place].id();
        let obstacles = |tried: &[BackendId], named: Option<usize>| {
            let demand = Demand { route: &route, tried, named: named.map(id), wanted: None };
            [0, 1, 2].map(|place| demand.obstacle(&cluster, place, NOW))
        };
        assert_eq!(obstacles(&[], None), [None, Some(NoShare), Some(OutOfService)]);
        assert_eq!(obstacles(&[], Some(1)), [Some(NotNamed), None, Some(OutOfService)]);
        assert_eq!(obstacles(&[id(0), id(1)], Some(1)), [Some(NotNamed), Some(Tried), Some(OutOfService)]);
        route.marks[0].mark_dead(NOW + Duration::from_secs(1));
        route.marks[1].mark_dead(NOW + Duration::from_secs(1));
        assert_eq!(obstacles(&[], None)[0], Some(MarkedHere));
        assert_eq!(obstacles(&[], Some(1))[1], None, "who names a backend means it");
        route.marks[1].mark_dead_external(NOW + Duration::from_secs(1));
        assert_eq!(obstacles(&[], Some(1))[1], Some(MarkedByOthers));
        cluster.members[0].state.set_down(true, NOW);
        assert_eq!(obstacles(&[], None)[0], Some(OutOfService));
    }

    /// HAProxy's example of `use-server` has servers with weight 0, which serve nothing else.
    #[test]
    fn the_wanted_member_needs_neither_share_nor_turn() {
        let backends = backends();
        let cluster = list(None, &backends, &["", "weight=0&capacity=1", "role=backup", "disabled"]);
        let route = Route::new("a", Arc::clone(&cluster));
        let service = |wanted: Option<usize>, tried: &[BackendId]| {
            let demand = Demand { route: &route, tried, named: None, wanted: wanted.map(|place| backends[place].id()) };
            let Service::Open(turn) = cluster.service(&demand, NOW) else { return Vec::new() };
            (0..4).filter(|place| cluster.is_open(*place, &demand, turn, NOW)).collect()
        };
        assert_eq!([None, Some(0), Some(1), Some(2)].map(|wanted| service(wanted, &[])), [[0], [0], [1], [2]]);
        assert_eq!(service(Some(3), &[]), [0], "it is down");
        assert_eq!(service(Some(1), &[backends[1].id()]), [0], "it has failed the request");
        let held = cluster.try_take(1, NOW).expect("room");
        assert_eq!(service(Some(1), &[]), [0], "it is full");
        cluster.members[0].state.set_down(true, NOW);
        assert_eq!(service(None, &[]), [2]);
        let demand = Demand { route: &route, tried: &[], named: None, wanted: Some(backends[1].id()) };
        assert_eq!(cluster.service(&demand, NOW), Service::Full, "it is waited for");
        drop(held);
        route.marks[1].mark_dead(NOW + Duration::from_secs(1));
        assert_eq!(service(Some(1), &[]), [2], "this node knows better");
    }

    #[test]
    fn marks_follow_the_backend_into_a_newer_list() {
        let backends = backends();
        let old = list(None, &backends, &["", ""]);
        let route = Route::new("a", Arc::clone(&old));
        route.marks[1].mark_dead_external(NOW + Duration::from_secs(1));
        let new = list(Some(&old), &[&backends[1], &backends[2]].map(Arc::clone), &["", ""]);
        let demand = Demand { route: &route, tried: &[], named: None, wanted: None };
        // In the new list the second backend is the first, and the third is unknown to the route.
        let found = [0, 1].map(|place| demand.obstacle(&new, place, NOW));
        assert_eq!(found, [Some(Obstacle::MarkedByOthers), None]);
    }

    #[test]
    fn own_marks_give_way_where_no_other_member_is_left() {
        let backends = backends();
        let cluster = list(None, &backends, &["capacity=1", "capacity=1", "role=backup"]);
        let route = Route::new("a", Arc::clone(&cluster));
        let demand = Demand { route: &route, tried: &[], named: None, wanted: None };
        let serves = |place: usize| cluster.is_open(place, &demand, Turn::LastResort, NOW);
        let until = |seconds| NOW + Duration::from_secs(seconds);
        [0, 1].iter().for_each(|place| route.marks[*place].mark_dead(until(9)));
        assert_eq!(
            cluster.service(&demand, NOW),
            Service::Open(Turn::Role(Role::Backup)),
            "one without a mark is left"
        );
        route.marks[2].mark_dead_external(until(9));
        assert_eq!(cluster.service(&demand, NOW), Service::Open(Turn::LastResort));
        let held = cluster.try_take(0, NOW).expect("room");
        assert_eq!((serves(0), serves(1), serves(2)), (false, true, false));
        assert_eq!(cluster.service(&demand, NOW), Service::Open(Turn::LastResort), "the other one is free");
        let held_too = cluster.try_take(1, NOW).expect("room");
        assert_eq!(cluster.service(&demand, NOW), Service::Full);
        drop((held, held_too));
        [0, 1].iter().for_each(|place| route.marks[*place].mark_dead_external(until(9)));
        assert_eq!(cluster.service(&demand, NOW), Service::Unavailable, "a mark of others is no guess");
    }
}
