//! The right to send a request to a member.

use super::{Admission, Cluster};
use crate::base::clock::Moment;
use crate::cluster::demand::{Demand, Obstacle, Turn};
use crate::cluster::slots::Counted;
use crate::cluster::{Member, Route};
use crate::shaper::Token;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A slot that was taken, to be made a [`Permit`] at once: dropping it does not return the slot.
#[derive(Debug)]
#[must_use]
pub struct TakenSlot {
    place: u32,
    counted: InFlight,
}

/// The counters in which the member and the cluster have counted a request in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    of_member: Counted,
    of_cluster: Counted,
}

/// A slot of a member. Dropping it returns the slot, which goes to the oldest waiting request. A permit whose slot was
/// returned early still names its member.
#[derive(Debug)]
pub struct Permit {
    list: List,
    place: u32,
    /// Set until the slot is returned.
    in_flight: Option<InFlight>,
    holds_tunnel: bool,
    is_last_resort: bool,
    /// The request's token, if the cluster has buckets.
    token: Option<Token>,
    /// Its token of this node, where tenants share that.
    of_node: Option<Token>,
}

/// The list that the member was chosen from.
#[derive(Debug)]
enum List {
    /// The list of the request's own route: the request holds a single reference this way.
    OfRoute(Arc<Route>),
    /// A newer list.
    Newer(Arc<Cluster>),
}

impl TakenSlot {
    pub(super) fn new(place: usize, of_member: Counted, of_cluster: Counted) -> Self {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Self { place, counted: InFlight { of_member, of_cluster } }
    }
}

impl Permit {
    /// The permit for a slot of this route's cluster.
    pub fn of_route(route: Arc<Route>, slot: TakenSlot) -> Self {
        Self::new(List::OfRoute(route), slot)
    }

    /// The permit of a request that another process has sent to this member and that continues here: it does not queue,
    /// and counts beyond any limit. `is_tunnel`: it counts as a tunnel, and no longer as a request in flight.
    pub fn of_moved(route: Arc<Route>, place: usize, is_tunnel: bool) -> Option<Self> {
        let (member, admission) = (route.cluster.members.get(place)?, &route.cluster.admission);
        let in_flight = (!is_tunnel)
            .then(|| InFlight { of_member: member.state.take_beyond(), of_cluster: admission.slots.take_beyond() });
        if is_tunnel {
            admission.tunnels.fetch_add(1, Ordering::Relaxed);
        }
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let list = List::OfRoute(route);
        Some(Self {
            list,
            place,
            in_flight,
            holds_tunnel: is_tunnel,
            is_last_resort: false,
            token: None,
            of_node: None,
        })
    }

    /// The permit for a slot of this list.
    pub(super) fn of_list(cluster: Arc<Cluster>, slot: TakenSlot, turn: Turn) -> Self {
        let mut permit = Self::new(List::Newer(cluster), slot);
        permit.is_last_resort = turn == Turn::LastResort;
        permit
    }

    /// Whether a request that waited for it may still use it: no obstacle has appeared while the grant was under way.
    pub fn suits(&self, demand: &Demand<'_>, now: Moment) -> bool {
        match demand.obstacle(self.cluster(), self.place(), now) {
            None => true,
            Some(obstacle) => self.is_last_resort && obstacle == Obstacle::MarkedHere,
        }
    }

    fn new(list: List, TakenSlot { place, counted }: TakenSlot) -> Self {
        Self {
            list,
            place,
            in_flight: Some(counted),
            holds_tunnel: false,
            is_last_resort: false,
            token: None,
            of_node: None,
        }
    }

    /// The route that the member was chosen from, unless the permit was granted while the request waited.
    pub fn route(&self) -> Option<&Arc<Route>> {
        match &self.list {
            List::OfRoute(route) => Some(route),
            List::Newer(_) => None,
        }
    }

    /// Takes over the token of the request, which is returned together with the slot.
    pub fn attach(&mut self, token: Token) {
        debug_assert!(self.token.is_none(), "a second token");
        self.token = Some(token);
    }

    /// Takes over a token of this node, which is given back together with the slot.
    pub(super) fn hold_of_node(&mut self, token: Token) {
        debug_assert!(self.of_node.is_none(), "a second token of the node");
        self.of_node = Some(token);
        self.cluster().admission.of_node.count(true);
    }

    /// Takes over the token of this node that an earlier permit of the request has, if it has one.
    pub fn stay_in_node(&mut self, before: &mut Self) {
        if let Some(token) = before.take_of_node() {
            // Its cluster may be another one, of which no request has had a token yet.
            if let Some(tree) = before.cluster().admission.of_node.tree() {
                self.cluster().admission.of_node.belong_to(tree);
            }
            self.hold_of_node(token);
        }
    }

    /// Whether it has a token of this node.
    pub(super) fn is_in_node(&self) -> bool {
        self.of_node.is_some()
    }

    fn take_of_node(&mut self) -> Option<Token> {
        let token = self.of_node.take()?;
        self.cluster().admission.of_node.count(false);
        Some(token)
    }

    /// Returns the slot of a member that has failed the request. The caller gets the request's token; that of this node
    /// stays, for the case that the next member has room at once.
    pub fn leave_member(&mut self, now: Moment) -> Option<Token> {
        let (token, of_node) = (self.token.take(), self.of_node.take());
        self.end(false, Some(now));
        self.of_node = of_node;
        token
    }

    /// Returns the token of this node, as the request is about to wait.
    pub fn leave_node_to_wait(&mut self, now: Moment) {
        self.leave_node(Some(now));
    }

    #[inline(never)]
    fn leave_node(&mut self, now: Option<Moment>) {
        if let Some(token) = self.take_of_node()
            && let Some(tree) = self.cluster().admission.of_node.tree()
        {
            tree.give_back(token, now);
        }
    }

    /// Takes the token out again, for the request's next permit.
    pub fn detach(&mut self) -> Option<Token> {
        self.token.take()
    }

    /// Records the first good response since the host has marked the member dead: its slow start begins, as it has come back.
    #[cold]
    pub fn note_back(&self, now: Moment) {
        let cluster = self.cluster();
        if self.member().begin_anew(cluster.options.slow_start, now) {
            cluster.serve(now);
        }
    }

    /// The list that the member was chosen from.
    pub fn cluster(&self) -> &Arc<Cluster> {
        match &self.list {
            List::OfRoute(route) => &route.cluster,
            List::Newer(cluster) => cluster,
        }
    }

    /// The index of the member in the list of [`Permit::cluster`].
    pub fn place(&self) -> usize {
        self.place as usize
    }

    /// The member.
    #[expect(clippy::indexing_slicing, reason = "a permit is made for a member of its own list")]
    pub fn member(&self) -> &Member {
        &self.cluster().members[self.place()]
    }

    /// Takes one of the cluster's tunnels (`maxTunnels`) too, for a request that may become one. Returns whether one
    /// was free. It is returned with the permit.
    pub fn reserve_tunnel(&mut self) -> bool {
        self.holds_tunnel = self.holds_tunnel || self.cluster().admission.take_tunnel();
        self.holds_tunnel
    }

    /// Returns the slot and the token early: the member is done with the request. A reserved tunnel stays if the
    /// request became one.
    pub fn give_back(&mut self, keeps_tunnel: bool, now: Moment) {
        self.end(keeps_tunnel, Some(now));
    }

    fn end(&mut self, keeps_tunnel: bool, now: Option<Moment>) {
        if !keeps_tunnel && std::mem::take(&mut self.holds_tunnel) {
            self.cluster().admission.tunnels.fetch_sub(1, Ordering::Relaxed);
        }
        if self.free_slot() {
            self.cluster().admission.serve_freed(&self.member().state, self.place(), now);
        }
        if self.of_node.is_some() {
            self.leave_node(now);
        }
        // The slot is returned first, so that the request that gets the token finds it.
        if self.token.is_some() {
            self.free_token(now);
        }
    }

    #[inline(never)]
    fn free_token(&mut self, now: Option<Moment>) {
        if let (Some(token), Some(tree)) = (self.token.take(), self.cluster().admission.tree.get()) {
            tree.give_back(token, now);
        }
    }

    /// Returns the slot, and leaves serving the next request to the caller.
    pub(super) fn give_back_silently(mut self) {
        self.free_slot();
        self.leave_node(None);
        self.free_token(None);
    }

    /// Frees the slot. Returns whether there was one.
    fn free_slot(&mut self) -> bool {
        let Some(InFlight { of_member, of_cluster }) = self.in_flight.take() else { return false };
        if let Some(member) = self.cluster().members.get(self.place()) {
            member.state.give_back(of_member);
        }
        self.cluster().admission.give_back(of_cluster);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(false, None);
    }
}

impl Admission {
    /// Takes a tunnel, if one is free.
    fn take_tunnel(&self) -> bool {
        let limit = self.max_tunnels.load(Ordering::SeqCst);
        let more = |held: u32| (held < limit).then_some(held + 1);
        self.tunnels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Number of tunnels, over all members.
    pub fn tunnels(&self) -> u32 {
        self.tunnels.load(Ordering::Relaxed)
    }
}
