//! The requests that wait for a slot.

use super::{Cluster, HeldToken, Permit};
use crate::base::clock::Moment;
use crate::cluster::{BackendId, Endpoint, MemberState};
use crate::shaper::WaiterKey;
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
    /// It has a token already: it has waited its time, and is not refused.
    pub has_token: bool,
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
    /// Tells `exchange`, which waits under `ticket`, what it has. Never waits. Returns what cannot be delivered.
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted>;
}

/// What a request gets that waits.
#[derive(Debug)]
pub enum Granted {
    /// A slot of a member.
    Slot(Permit),
    /// A token of its bucket: now it may have a slot.
    Token(HeldToken),
}

/// A place in a queue: that of the cluster, or that of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub(super) number: u64,
    /// Where it stands in the queue of a bucket.
    pub(super) key: Option<WaiterKey>,
}

impl Ticket {
    fn of_slot(number: u64) -> Self {
        Self { number, key: None }
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Ticket {}

/// The outcome of joining the queue.
#[derive(Debug)]
pub enum Joined {
    /// A slot: one had become free in the meantime.
    Permit(Permit),
    /// A token: one was there, or had been given back in the meantime.
    Token(HeldToken),
    /// A place in the queue.
    Waiting(Ticket),
    /// A place in the queue of a bucket.
    WaitingForToken {
        /// The place.
        ticket: Ticket,
        /// When its time runs out.
        until: Moment,
    },
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
    /// The newest list, while any request may use it.
    pub(super) fn newest(&self) -> Option<Arc<Cluster>> {
        self.cluster.as_ref().and_then(Weak::upgrade)
    }

    pub(super) fn len(&self) -> usize {
        self.plain.len() + self.picky.len()
    }

    /// Adds a request, at the end or in the place that it has.
    pub(super) fn insert(&mut self, waiter: Waiter, ticket: Option<Ticket>) -> Ticket {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            Ticket::of_slot(self.next_ticket)
        });
        self.remove(ticket);
        let waiters = if waiter.choice == Choice::Any { &mut self.plain } else { &mut self.picky };
        waiters.insert(ticket.number, waiter);
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        self.plain.remove(&ticket.number).or_else(|| self.picky.remove(&ticket.number))
    }

    /// The oldest request that `slot_for` has a slot for.
    pub(super) fn first_served(&self, mut slot_for: impl FnMut(&Choice) -> Option<Permit>) -> Option<(Ticket, Permit)> {
        let plain = self.plain.first_key_value().map(|(ticket, _)| *ticket);
        let before_plain = self.picky.range(..plain.unwrap_or(u64::MAX));
        let behind_plain = plain.map(|plain| self.picky.range(plain..)).into_iter().flatten();
        let picky = |(ticket, waiter): (&u64, &Waiter), slot_for: &mut dyn FnMut(&Choice) -> Option<Permit>| {
            slot_for(&waiter.choice).map(|permit| (Ticket::of_slot(*ticket), permit))
        };
        for waiter in before_plain {
            if let Some(served) = picky(waiter, &mut slot_for) {
                return Some(served);
            }
        }
        if let Some(plain) = plain
            && let Some(permit) = slot_for(&Choice::Any)
        {
            return Some((Ticket::of_slot(plain), permit));
        }
        for waiter in behind_plain {
            if let Some(served) = picky(waiter, &mut slot_for) {
                return Some(served);
            }
        }
        None
    }
}
