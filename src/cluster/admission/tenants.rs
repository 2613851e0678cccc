//! The tenants of this node (`server.tenants`): whose request it is, and how much each tenant may have.
//!
//! Frontends name their tenant by the option `tenant`. Each other frontend is a tenant of its own; these share what the named
//! ones leave.

use super::tokens::TokenTree;
use super::{Admission, Cluster, GrantSink, HeldToken, Joined, Permit, Ticket, TokenRequest};
use crate::base::clock::Moment;
use crate::shaper::{BucketId, BucketView, Departure, QueueLimits, Spec, Token};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// The weight of all tenants together, and the number of tokens that shares in tokens refer to where requests in flight
/// have no limit.
const WHOLE: u32 = 10_000;

/// Keys below this one are of named tenants: a tree has fewer buckets.
const FIRST_UNNAMED: u16 = 256;

/// Settings of the tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSettings {
    /// The requests that may be in flight at this node; `None` for any number.
    pub requests: Option<NonZeroU32>,
    /// The shares of the named tenants.
    pub buckets: Arc<Spec>,
    /// The queue of each tenant.
    pub queue: QueueLimits,
}

/// Whose connection or request it is, as the turns of a core know it. Each connection has one, so it is small: of more than
/// 65,000 frontends without a tenant, some share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantKey(u16);

impl TenantKey {
    /// That of connections whose requests have yet to be read.
    pub const UNKNOWN: Self = Self(0);

    /// A key of this number.
    #[cfg(test)]
    pub const fn of_test(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    #[cfg(test)]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether it is a key of a tenant that `server.tenants` names.
    pub fn is_named(self) -> bool {
        (1..FIRST_UNNAMED).contains(&self.0)
    }
}

/// A frontend's part in the node. It stays over edits.
#[derive(Debug)]
pub(super) struct PartOfNode {
    /// The number of the frontend. It is never 0.
    number: u32,
    /// The tokens of this node that its requests hold.
    held: AtomicU32,
    /// Where these belong. There is one tree in a process.
    tree: OnceLock<Arc<TokenTree>>,
}

impl PartOfNode {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn tree(&self) -> Option<&Arc<TokenTree>> {
        self.tree.get()
    }

    /// Says where its tokens are given back.
    pub(super) fn belong_to(&self, tree: &Arc<TokenTree>) {
        let known = self.tree.get_or_init(|| Arc::clone(tree));
        debug_assert!(Arc::ptr_eq(known, tree), "a second tree of the node");
    }

    pub(super) fn count(&self, is_taken: bool) {
        match is_taken {
            true => self.held.fetch_add(1, Ordering::Relaxed),
            false => self.held.fetch_sub(1, Ordering::Relaxed),
        };
    }
}

impl Default for PartOfNode {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
        Self { number, held: AtomicU32::new(0), tree: OnceLock::new() }
    }
}

/// The tenants of this node.
#[derive(Debug)]
pub struct Tenants {
    tree: Arc<TokenTree>,
    is_limited: bool,
    /// The named ones, by their names.
    named: Box<[Named]>,
    /// The weight of all others together.
    rest: u32,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    bucket: BucketId,
    weight: u32,
}

impl Tenants {
    /// The tenants of these settings.
    pub fn new(settings: &TenantSettings) -> Self {
        let requests = settings.requests.map(NonZeroU32::get);
        let tree = TokenTree::of(requests.unwrap_or(u32::MAX), &settings.buckets, settings.queue);
        let (weights, rest) = settings.buckets.weights(requests.unwrap_or(WHOLE), WHOLE);
        let named = weights.into_iter().filter_map(|(name, weight)| {
            Some(Named { name: name.into(), bucket: tree.bucket(name)?, weight: weight.max(1) })
        });
        let mut named: Box<[Named]> = named.collect();
        named.sort_by(|one, other| one.name.cmp(&other.name));
        Self { tree: Arc::new(tree), is_limited: settings.requests.is_some(), named, rest: rest.max(1) }
    }

    fn named(&self, cluster: &Cluster) -> Option<usize> {
        let name = cluster.options.tenant.as_deref()?;
        self.named.binary_search_by(|named| (*named.name).cmp(name)).ok()
    }

    /// The key of a cluster's tenant.
    pub fn key_of(&self, cluster: &Cluster) -> TenantKey {
        let named = self.named(cluster).and_then(|place| u16::try_from(place).ok());
        TenantKey(match named {
            Some(place) => place + 1,
            None => {
                let number = cluster.admission.of_node.number() % u32::from(u16::MAX - FIRST_UNNAMED);
                u16::try_from(number).unwrap_or(0) + FIRST_UNNAMED
            }
        })
    }

    /// The weight of a tenant, in ten-thousandths of all. `unnamed` is the present number of tenants without a name.
    pub fn weight(&self, key: TenantKey, unnamed: usize) -> u32 {
        match self.named.get(usize::from(key.0).wrapping_sub(1)).filter(|_| key.is_named()) {
            Some(named) => named.weight,
            None => {
                let unnamed = u32::try_from(unnamed).unwrap_or(u32::MAX);
                (self.rest / unnamed.max(1)).max(1)
            }
        }
    }

    /// These tenants, where requests in flight have a limit for all.
    pub fn limited(self: Arc<Self>) -> Option<Arc<Self>> {
        self.is_limited.then_some(self)
    }

    /// The shares and their use: the root first, parents before those in them.
    pub fn views(&self) -> Vec<BucketView> {
        self.tree.views()
    }

    fn bucket(&self, cluster: &Cluster) -> (BucketId, Option<Arc<Admission>>) {
        match self.named(cluster).and_then(|place| self.named.get(place)) {
            Some(named) => (named.bucket, None),
            None => (BucketId::UNCLASSIFIED, Some(Arc::clone(&cluster.admission))),
        }
    }

    /// Has a request that has a slot take a token of this node, where their number is limited. Returns whether it has one, or
    /// needs none. It takes no lock.
    pub fn enter(&self, permit: &mut Permit, now: Moment) -> bool {
        if !self.is_limited || permit.is_in_node() {
            return true;
        }
        let bucket = self.named(permit.cluster()).and_then(|place| self.named.get(place));
        let bucket = bucket.map_or(BucketId::UNCLASSIFIED, |named| named.bucket);
        let token = self.tree.try_take(bucket, now);
        let is_in = token.is_some();
        if let Some(token) = token {
            self.hold(permit, token);
        }
        is_in
    }

    /// Has a request take over the token that it has waited for.
    pub fn take_over(&self, permit: &mut Permit, held: HeldToken) {
        if let Some(token) = held.of(&self.tree) {
            self.hold(permit, token);
        }
    }

    fn hold(&self, permit: &mut Permit, token: Token) {
        permit.cluster().admission.of_node.belong_to(&self.tree);
        permit.hold_of_node(token);
    }

    /// Joins the queue of a tenant, or gets a token at once. Frontends that name no tenant have queues of their own, and of
    /// these the one is served first that holds the fewest tokens.
    ///
    /// Takes a lock: for requests that have to wait, and for nothing else.
    pub fn join(
        &self,
        cluster: &Cluster,
        (sink, exchange): (Arc<dyn GrantSink>, u64),
        arrived: Moment,
        now: Moment,
    ) -> Joined {
        let (bucket, frontend) = self.bucket(cluster);
        let request = TokenRequest { sink, exchange, bucket, arrived, demand: None };
        let joined = self.tree.join(request, frontend, now);
        cluster.admission.count_joined(&joined);
        joined
    }

    /// The place of a request that waits.
    pub fn ticket(self: &Arc<Self>, ticket: Ticket) -> NodeTicket {
        NodeTicket { tenants: Arc::clone(self), ticket }
    }
}

/// A place in the queue of a tenant.
#[derive(Clone, Debug)]
pub struct NodeTicket {
    tenants: Arc<Tenants>,
    ticket: Ticket,
}

impl NodeTicket {
    /// Leaves the queue, as the client has left or the time is over. The receiver of a token that is on its way gives it
    /// back.
    pub fn leave(&self, is_late: bool) {
        if let Some(key) = self.ticket.key {
            let cause = if is_late { Departure::TimedOut } else { Departure::Left };
            self.tenants.tree.cancel(key, cause);
        }
    }
}
