//! The reference: the invariants after every event.

use super::choice::Choice;
use super::world::{CLASSES, CORES, ENDPOINTS, Request, State, Waits, World};
use crate::base::clock::Moment;
use crate::cluster::{BackendId, Granted, Member, Permit, Role, Route, Service};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub(super) fn forget(&mut self, exchange: u64) {
        self.for_slot.retain(|waits| waits.exchange != exchange);
        self.for_token.iter_mut().for_each(|queue| queue.retain(|waits| *waits != exchange));
    }

    /// Delivers the grants of the last event to the cores, and checks their order.
    pub(super) fn settle(&mut self) {
        loop {
            let sent = std::mem::take(&mut *self.post.lock().expect("the post"));
            if sent.is_empty() {
                return;
            }
            for (core, exchange, ticket, granted) in sent {
                match &granted {
                    Granted::Token(_) => {
                        let queue = self.for_token.iter_mut().find(|queue| queue.contains(&exchange));
                        let first = queue.expect("a token for a request that waits").pop_front();
                        assert_eq!(first, Some(exchange), "not the first of its bucket");
                    }
                    Granted::Slot(permit) => {
                        self.check_order(exchange, permit);
                        assert!(permit.member().is_up(), "a slot of {permit:?}, which is not up");
                        self.for_slot.retain(|waits| waits.exchange != exchange);
                    }
                }
                self.mail[core].push_back((exchange, ticket, granted));
            }
        }
    }

    /// No older request of the same kind keeps waiting when this one gets a slot.
    pub(super) fn check_order(&self, exchange: u64, permit: &Permit) {
        let own = self.for_slot.iter().find(|waits| waits.exchange == exchange).expect("a slot for one that waits");
        let same = |waits: &&Waits| waits.choice == own.choice;
        let first = self.for_slot.iter().find(same).map(|waits| waits.exchange);
        assert_eq!(first, Some(exchange), "an older request waits for the same");
        assert!(own.choice.fits(permit.member().backend.id()), "{:?} got {permit:?}", own.choice);
    }

    /// A request that came while none waited got a member with the role in turn.
    pub(super) fn check_role(&self, permit: &Permit, choice: &Choice) {
        assert!(permit.member().is_up(), "a slot of {permit:?}, which is not up");
        if matches!(choice, Choice::Only(_)) || !Arc::ptr_eq(permit.cluster(), &self.newest) {
            return;
        }
        let is_up =
            |member: &&Member| member.is_up() && member.attributes.weight > 0 && choice.fits(member.backend.id());
        let has_room = |member: &Member| member.has_room(self.newest.options.slow_start, self.now);
        let mut of_role = self.newest.members.iter().filter(is_up);
        match permit.member().role() {
            Role::Active => {}
            Role::Standby => {
                assert!(of_role.all(|member| member.role() != Role::Active || !has_room(member)), "standby too early");
            }
            Role::Backup => assert!(of_role.all(|member| member.role() == Role::Backup), "backup without an outage"),
        }
    }

    /// Requests in flight at each endpoint, granted or under way.
    pub(super) fn in_flight(&self) -> [u32; ENDPOINTS as usize] {
        let in_mail = self.mail.iter().flatten().filter_map(|(_, _, granted)| match granted {
            Granted::Slot(permit) => Some(permit),
            Granted::Token(_) => None,
        });
        let in_hands = self.requests.values().filter_map(|request| match &request.state {
            State::Holds(permit) => Some(permit),
            _ => None,
        });
        let mut counts = [0; ENDPOINTS as usize];
        for permit in in_mail.chain(in_hands) {
            let id = (0..ENDPOINTS).find(|id| permit.member().backend.id() == BackendId::new(*id));
            counts[id.expect("a backend") as usize] += 1;
        }
        counts
    }

    /// Requests that wait for a token of a class.
    pub(super) fn waiting_for_token(&self, class: usize) -> usize {
        self.for_token[class].len()
    }

    /// The member of an endpoint in the newest list.
    pub(super) fn member(&self, id: usize) -> Option<&Member> {
        self.newest.members.iter().find(|member| member.backend.id() == BackendId::new(id as u64))
    }

    /// The usable capacity: active and standby members, otherwise backup.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity_at(self.now)
    }

    /// The moment of which waiting requests have known at least: they look for room that appears without an event.
    fn looked_at(&self) -> Moment {
        Moment::from_micros(self.now.as_micros().saturating_sub(100_000))
    }

    fn capacity_at(&self, now: Moment) -> u32 {
        let of = |is_backup: bool| {
            let members = self.newest.members.iter().filter(|member| (member.role() == Role::Backup) == is_backup);
            let up: Vec<_> = members.filter(|member| member.is_up() && member.attributes.weight > 0).collect();
            let sum = up.iter().map(|member| member.usable_capacity(self.newest.options.slow_start, now)).sum();
            (!up.is_empty()).then_some(sum)
        };
        let capacity: u32 = of(false).or_else(|| of(true)).unwrap_or(0);
        capacity.min(self.newest.options.max_requests.map_or(u32::MAX, NonZeroU32::get))
    }

    /// The greatest number of requests at an endpoint. A core with an older list applies an older slow start.
    fn greatest_capacity(&self, id: usize) -> u32 {
        let Some(newest) = self.member(id) else { return 0 };
        let members =
            self.routes.iter().map(|route| &route.cluster).chain([&self.newest]).flat_map(|list| &list.members);
        let of_endpoint = members.filter(|member| member.backend.id() == newest.backend.id());
        let usable = of_endpoint.map(|member| member.usable_capacity(self.newest.options.slow_start, self.now));
        usable.max().unwrap_or(0).min(newest.attributes.capacity.map_or(u32::MAX, NonZeroU32::get))
    }

    /// No request waits for a free slot, and counters match the reference.
    pub(super) fn check_slots(&mut self) {
        let in_flight = self.in_flight();
        for (id, (count, before)) in
            in_flight.iter().zip(std::mem::replace(&mut self.in_flight_before, in_flight)).enumerate()
        {
            let capacity = self.greatest_capacity(id);
            assert!(*count <= capacity.max(before), "endpoint {id} has {count} requests of {capacity}");
        }
        for (id, count) in in_flight.iter().enumerate() {
            if let Some(member) = self.member(id) {
                assert_eq!(member.state.in_flight(), *count, "endpoint {id}");
            }
        }
        let admission = &self.newest.admission;
        assert_eq!(admission.in_flight(), in_flight.iter().sum::<u32>());
        let waiting = self.for_slot.len() + self.for_token.iter().map(VecDeque::len).sum::<usize>();
        assert_eq!(admission.waiting() as usize, waiting);
        let route = Route::new("a", Arc::clone(&self.newest));
        for waits in self.for_slot.iter().filter(|_| self.newest.has_room()) {
            let service = self.newest.service(&waits.choice.demand(&route), self.looked_at());
            assert!(!matches!(service, Service::Open(_)), "{waits:?} while {service:?}");
        }
    }

    /// The tree has as many tokens as may be used, uses no more, and no token is idle that a request could have.
    pub(super) fn check_tokens(&mut self) {
        let views = self.newest.buckets();
        let root = &views[0];
        let least = match self.for_token.iter().all(VecDeque::is_empty) {
            // It is computed for the next request that finds no token.
            true => 0,
            false => self.capacity_at(self.looked_at()),
        };
        assert!((least..=self.capacity()).contains(&root.rate), "the root of {views:?}, {least}..{}", self.capacity());
        let with_token =
            |request: &&Request| !matches!(request.state, State::WaitsForToken(_) | State::WaitsForSlot(_, None));
        let in_mail = self.mail.iter().flatten().filter(|(_, _, granted)| matches!(granted, Granted::Token(_)));
        let held = self.requests.values().filter(with_token).count() + in_mail.count();
        assert_eq!(root.held as usize, held, "tokens of {views:?}");
        for (place, view) in views.iter().enumerate() {
            let before = self.held_before.get(place).copied().unwrap_or(0);
            assert!(view.held <= view.limit.max(before), "{view:?} is over its limit");
        }
        self.held_before = views.iter().map(|view| view.held).collect();
        for (class, name) in CLASSES.iter().enumerate().filter(|(class, _)| !self.for_token[*class].is_empty()) {
            let view = views.iter().find(|view| view.name == *name).expect("a view");
            assert!(
                root.held >= root.limit || view.held >= view.limit,
                "class {class} waits, and a token is idle: {views:?}"
            );
        }
    }

    /// All cores read their mail, and all requests end.
    pub(super) fn drain(&mut self) {
        self.random_edit();
        self.edit(&["capacity=1"; ENDPOINTS as usize]);
        self.newest.members.iter().for_each(|member| {
            member.state.set_down(false, self.now);
            member.state.set_disabled(false, self.now);
        });
        self.newest.serve(self.now);
        self.settle();
        self.pass_time_until(self.now + Duration::from_secs(60));
        for round in 0.. {
            assert!(round < 100_000, "requests wait for ever: {:?}", self.requests);
            (0..CORES).for_each(|core| {
                while !self.mail[core].is_empty() {
                    self.read_mail(core);
                }
            });
            if self.requests.is_empty() {
                break;
            }
            let holds = |request: &Request| matches!(request.state, State::Holds(_));
            assert!(self.requests.values().any(holds), "all wait, and none is served: {:?}", self.requests);
            self.finish();
        }
        let admission = &self.newest.admission;
        assert_eq!((admission.in_flight(), admission.waiting(), admission.tunnels()), (0, 0, 0));
        assert!(self.newest.buckets().iter().all(|view| view.held == 0 && view.queued == 0), "a token is lost");
    }
}
