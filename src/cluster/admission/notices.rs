//! Notices to waiting requests, besides their grants: that no member may serve them any more, or that room may appear
//! without an event.

use super::{Admission, Cluster, Notice, Ticket};
use crate::base::clock::Moment;
use crate::cluster::Route;
use crate::cluster::demand::{Demand, OwnedDemand, Service};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Cluster {
    /// Whether a request with this demand waits in vain.
    pub(super) fn gives_up_on(&self, demand: &Demand<'_>, now: Moment) -> bool {
        let may_wait = self.options.waits_for_backends() && demand.named.is_none();
        match self.options.is_disabled {
            true => !self.options.holds(),
            false => !may_wait && self.service(demand, now) == Service::Unavailable,
        }
    }
}

impl Admission {
    /// Notifies waiting requests of changes that concern them.
    pub(super) fn notify(&self, now: Moment) {
        self.note_ramps(now);
        self.notify_for_slots(now);
        self.notify_for_tokens(now);
    }

    /// Notifies requests that wait for a slot.
    fn notify_for_slots(&self, now: Moment) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let queue = self.lock();
        let Some(newest) = queue.newest() else { return };
        let is_ramping = self.is_ramping(now);
        let mut notices = Vec::new();
        for group in queue.groups() {
            let gives_up = group.values().next().is_some_and(|waiter| newest.gives_up_on(&waiter.demand(), now));
            if gives_up || is_ramping {
                let notice = if gives_up { Notice::Unavailable } else { Notice::Poll };
                for (place, waiter) in group {
                    notices.push((Arc::clone(&waiter.sink), waiter.exchange, *place, notice));
                }
            }
        }
        drop(queue);
        for (sink, exchange, place, notice) in notices {
            sink.notify(exchange, Ticket::of_slot(place), notice);
        }
    }

    /// Notifies requests that wait for a token of their bucket.
    fn notify_for_tokens(&self, now: Moment) {
        let Some(tree) = self.tree.get().filter(|tree| tree.queued() > 0) else { return };
        let Some(newest) = self.newest() else { return };
        let is_ramping = self.is_ramping(now);
        // Most requests can use any member. Those of one route can be served or cannot, all together.
        let mut of_any: HashMap<*const Route, bool> = HashMap::new();
        let mut gives_up = |demand: &OwnedDemand| {
            let look = || newest.gives_up_on(&demand.demand(), now);
            match demand.is_for_any() {
                true => *of_any.entry(Arc::as_ptr(&demand.route)).or_insert_with(look),
                false => look(),
            }
        };
        for waiter in tree.waiters() {
            match waiter.demand.as_deref().is_some_and(&mut gives_up) {
                true => waiter.notify(Notice::Unavailable),
                false if is_ramping => waiter.notify(Notice::Poll),
                false => {}
            }
        }
    }
}
