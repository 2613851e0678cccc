//! The requests that wait for a slot.

use super::{Cluster, Permit};
use crate::base::clock::Moment;
use crate::cluster::{BackendId, Endpoint, MemberState};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

/// A request that waits for a slot.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Where the grant is sent.
    pub sink: Arc<dyn GrantSink>,
    /// The request, as its core knows it.
    pub exchange: u64,
    /// The members that may serve it.
    pub choice: Choice,
}

/// The members that may serve a request that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// All.
    #[default]
    Any,
    /// All but these: the request has tried them, or its host marks them dead.
    Except(Box<[BackendId]>),
    /// This one, which the client names.
    Only(BackendId),
}

impl Choice {
    /// Whether this member may serve the request.
    pub fn fits(&self, backend: BackendId) -> bool {
        match self {
            Self::Any => true,
            Self::Except(others) => !others.contains(&backend),
            Self::Only(one) => *one == backend,
        }
    }
}

/// Takes the grants of one core.
pub trait GrantSink: Debug + Send + Sync {
    /// Tells `exchange`, which waits under `ticket`, that it has a slot. Never waits. Returns the permit where it cannot be
    /// delivered.
    fn grant(&self, exchange: u64, ticket: Ticket, permit: Permit) -> Result<(), Permit>;
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The outcome of joining the queue.
#[derive(Debug)]
pub enum Joined {
    /// A slot: one had become free in the meantime.
    Permit(Permit),
    /// A place in the queue.
    Waiting(Ticket),
    /// Nothing: the queue is full.
    Refused,
}

/// The queue of a cluster.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The newest list: free slots are looked for in it.
    pub(super) cluster: Option<Weak<Cluster>>,
    /// The latest moment that was told: slots are given back without one.
    pub(super) now: Moment,
    /// Members that have left the list.
    pub(super) departed: Vec<(Endpoint, Weak<MemberState>)>,
    next_ticket: u64,
    /// Requests that any member may serve.
    plain: BTreeMap<u64, Waiter>,
    /// The others: few, as a rule.
    picky: BTreeMap<u64, Waiter>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.plain.len() + self.picky.len()
    }

    /// Adds a request, at the end or in the place that it has.
    pub(super) fn insert(&mut self, waiter: Waiter, ticket: Option<Ticket>) -> Ticket {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            Ticket(self.next_ticket)
        });
        self.remove(ticket);
        let waiters = if waiter.choice == Choice::Any { &mut self.plain } else { &mut self.picky };
        waiters.insert(ticket.0, waiter);
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        self.plain.remove(&ticket.0).or_else(|| self.picky.remove(&ticket.0))
    }

    /// The oldest request that `slot_for` has a slot for.
    pub(super) fn first_served(&self, mut slot_for: impl FnMut(&Choice) -> Option<Permit>) -> Option<(Ticket, Permit)> {
        let plain = self.plain.first_key_value().map(|(ticket, _)| *ticket);
        let before_plain = self.picky.range(..plain.unwrap_or(u64::MAX));
        let behind_plain = plain.map(|plain| self.picky.range(plain..)).into_iter().flatten();
        let picky = |(ticket, waiter): (&u64, &Waiter), slot_for: &mut dyn FnMut(&Choice) -> Option<Permit>| {
            slot_for(&waiter.choice).map(|permit| (Ticket(*ticket), permit))
        };
        for waiter in before_plain {
            if let Some(served) = picky(waiter, &mut slot_for) {
                return Some(served);
            }
        }
        if let Some(plain) = plain
            && let Some(permit) = slot_for(&Choice::Any)
        {
            return Some((Ticket(plain), permit));
        }
        for waiter in behind_plain {
            if let Some(served) = picky(waiter, &mut slot_for) {
                return Some(served);
            }
        }
        None
    }
}
