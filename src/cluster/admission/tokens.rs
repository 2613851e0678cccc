//! The tokens of a cluster whose capacity is shared by classes of requests (`buckets`).
//!
//! # Tokens and slots
//!
//! A request of such a cluster needs two things, always in this order: a token of its bucket, then a slot of a member.
//! Where requests in flight at the node are limited ([`super::tenants`]), it needs a third one after them: a token of the
//! node.
//!
//! * **No deadlock.** A request waits for one of the three only while it holds none of the later ones. A request that is
//!   tried again keeps its token of the cluster, and its token of the node too if it gets another slot without a wait. So a request that waits for a token of its bucket holds nothing, one that waits
//!   for a slot is waited for by others for its token only, and the holders of tokens of the node wait for nothing: no
//!   cycle of waits is possible.
//! * **No leak.** A token is a [`HeldToken`], belongs to an exchange ([`Cluster::give_back_token`]), or is part of a
//!   [`Permit`]. All three return it when dropped, on any thread, even if a worker panics. A token granted to a core
//!   that is gone comes back from its [`GrantSink`] and goes to the next waiter. A request that left its queue while
//!   its token was under way drops the token.
//! * **A token finds its slot.** There are as many tokens as usable slots ([`Cluster::root`]), and a permit frees its
//!   slot before its token. So a request with a token finds a slot, with these exceptions: the capacity has shrunk
//!   below its use, the request may not use some member (it has tried it, its host marks it dead, or it names another
//!   one), or it came while the cluster had no buckets. Then it waits in the queue for slots, with its token and before
//!   all requests without one, first come, first served.
//! * **Exact.** The tree is shared by all cores and outlives edits of the cluster, so tokens are counted over both.
//!
//! A cluster whose buckets are removed keeps its tree, without a limit, until no request waits in it.

#[cfg(doc)]
use super::Permit;
use super::adaptive::AdaptiveLimit;
use super::queue::Place;
use super::{Admission, Cluster, GrantSink, Granted, Joined, Notice, Ticket};
use crate::base::clock::Moment;
use crate::cluster::attributes::Role;
use crate::cluster::demand::OwnedDemand;
use crate::cluster::member::Member;
use crate::cluster::options::Options;
use crate::shaper::{
    self, BucketId, BucketView, Classifier, Departure, Flow, QueueLimits, RequestView, Rules, Shaper, Spec, Token,
    WaiterKey,
};
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The number of tokens of a tree without a limit.
const UNLIMITED: u32 = u32::MAX;

/// The greatest age of the number of tokens when a request finds none: capacities rise in slow start without an event.
const MAX_AGE: Duration = Duration::from_millis(10);

/// Tickets of requests that wait for a token have numbers from here on; tickets for a slot have lower numbers.
const FIRST_TICKET: u64 = 1 << 63;

/// A request that asks for a token.
#[derive(Debug)]
pub struct TokenRequest {
    /// The destination of the token.
    pub sink: Arc<dyn GrantSink>,
    /// The id of the request in its core.
    pub exchange: u64,
    /// Its bucket.
    pub bucket: BucketId,
    /// The moment by which it is ordered among the requests of its bucket: see [`Waiter::arrived`](super::Waiter).
    pub arrived: Moment,
    /// Its requirements for a member, of which it is to be notified if none meets them any more
    /// ([`Notice::Unavailable`](super::Notice)).
    pub demand: Option<Arc<OwnedDemand>>,
}

/// A token on its way to a request. Dropping it returns the token.
#[derive(Debug)]
pub struct HeldToken {
    tree: Arc<TokenTree>,
    token: Option<Token>,
}

impl HeldToken {
    /// Takes the token out, for a request to this cluster. `None` if it belongs to another cluster: it is returned
    /// then.
    pub fn into_token(self, cluster: &Cluster) -> Option<Token> {
        let tree = &cluster.classes.as_ref()?.tree;
        self.of(tree)
    }

    pub(super) fn of(mut self, tree: &Arc<TokenTree>) -> Option<Token> {
        if Arc::ptr_eq(tree, &self.tree) { self.token.take() } else { None }
    }
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.tree.give_back(token, None);
        }
    }
}

/// A request that waits for a token.
#[derive(Debug)]
struct TokenWaiter {
    sink: Arc<dyn GrantSink>,
    exchange: u64,
    place: Place,
    /// Its frontend, where tokens are shared by frontends.
    frontend: Option<Arc<Admission>>,
    demand: Option<Arc<OwnedDemand>>,
}

/// The address of a request that waits for a token.
#[derive(Debug)]
pub(super) struct Addressee {
    sink: Arc<dyn GrantSink>,
    exchange: u64,
    place: Place,
    pub(super) demand: Option<Arc<OwnedDemand>>,
}

impl Addressee {
    pub(super) fn notify(&self, notice: Notice) {
        self.sink.notify(self.exchange, Ticket::of_slot(self.place), notice);
    }
}

impl Flow for TokenWaiter {
    fn flow(&self) -> u32 {
        self.frontend.as_ref().map_or(0, |frontend| frontend.of_node.number())
    }

    fn held(&self) -> u32 {
        self.frontend.as_ref().map_or(0, |frontend| frontend.of_node.held())
    }

    fn arrived(&self) -> Moment {
        self.place.arrived
    }
}

/// The tree of a cluster. It lives as long as the cluster's [`Admission`].
#[derive(Debug)]
pub(super) struct TokenTree {
    shaper: Shaper<TokenWaiter>,
    /// The number of tokens. The lock is held while it is computed and set, so the newest value stays.
    size: Mutex<u32>,
    /// The time at which it was computed, in microseconds.
    computed_at: AtomicU64,
    next_ticket: AtomicU64,
    /// The latest known time in microseconds: a dropped token comes back without one.
    now: AtomicU64,
    adaptive: AdaptiveLimit,
}

impl TokenTree {
    /// A tree with only a root, without tokens.
    fn new(queue: QueueLimits) -> Self {
        Self {
            shaper: Shaper::new(0, &Spec::default(), queue),
            size: Mutex::new(0),
            computed_at: AtomicU64::new(0),
            next_ticket: AtomicU64::new(FIRST_TICKET),
            now: AtomicU64::new(0),
            adaptive: AdaptiveLimit::new(),
        }
    }

    /// A tree of so many tokens that does not change.
    pub(super) fn of(size: u32, spec: &Spec, queue: QueueLimits) -> Self {
        Self { shaper: Shaper::new(size, spec, queue), size: Mutex::new(size), ..Self::new(queue) }
    }

    /// The bucket of a name.
    pub(super) fn bucket(&self, name: &str) -> Option<BucketId> {
        self.shaper.bucket(name)
    }

    /// The state of the buckets: the root first, parents before those in them.
    pub(super) fn views(&self) -> Vec<BucketView> {
        self.shaper.snapshot()
    }

    /// Takes a token, if there is one and no request waits for one. It takes no lock.
    pub(super) fn try_take(self: &Arc<Self>, bucket: BucketId, now: Moment) -> Option<Token> {
        let mut undelivered = Vec::new();
        let token = self.shaper.try_take(bucket, now, |waiter, token| self.send(waiter, token, &mut undelivered));
        self.pass_on(undelivered, now);
        token
    }

    /// Joins the queue of a bucket, or gets a token at once. `frontend` is that of the request, where frontends share a bucket.
    pub(super) fn join(
        self: &Arc<Self>,
        request: TokenRequest,
        frontend: Option<Arc<Admission>>,
        now: Moment,
    ) -> Joined {
        let number = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let TokenRequest { sink, exchange, bucket, arrived, demand } = request;
        let place = Place { arrived, number };
        let now = self.latest(Some(now));
        let mut undelivered = Vec::new();
        let send = |waiter, token| self.send(waiter, token, &mut undelivered);
        let admitted = self.shaper.admit(bucket, TokenWaiter { sink, exchange, place, frontend, demand }, now, send);
        self.pass_on(undelivered, now);
        match admitted {
            shaper::Admission::Token(token) => Joined::Token(self.held(token)),
            shaper::Admission::Queued { key, deadline } => {
                Joined::WaitingForToken { ticket: Ticket { place, key: Some(key) }, until: deadline }
            }
            shaper::Admission::QueueFull => Joined::Refused,
        }
    }

    /// Returns a token; the next waiter gets it.
    pub(super) fn give_back(self: &Arc<Self>, token: Token, now: Option<Moment>) {
        let now = self.latest(now);
        let mut undelivered = Vec::new();
        self.shaper.give_back(token, now, |waiter, token| self.send(waiter, token, &mut undelivered));
        self.pass_on(undelivered, now);
    }

    /// The waiting requests.
    pub(super) fn waiters(&self) -> Vec<Addressee> {
        self.shaper.map_waiters(|waiter| Addressee {
            sink: Arc::clone(&waiter.sink),
            exchange: waiter.exchange,
            place: waiter.place,
            demand: waiter.demand.clone(),
        })
    }

    /// Number of waiting requests.
    pub(super) fn queued(&self) -> u32 {
        u32::try_from(self.shaper.queued()).unwrap_or(u32::MAX)
    }

    /// Removes a request from its queue. Returns whether it was still there.
    pub(super) fn cancel(&self, key: WaiterKey, cause: Departure) -> bool {
        self.shaper.cancel(key, cause).is_some()
    }

    pub(super) fn held(self: &Arc<Self>, token: Token) -> HeldToken {
        HeldToken { tree: Arc::clone(self), token: Some(token) }
    }

    fn latest(&self, now: Option<Moment>) -> Moment {
        let told = now.unwrap_or(Moment::ZERO).as_micros();
        let before = self.now.load(Ordering::Relaxed);
        if told > before {
            self.now.fetch_max(told, Ordering::Relaxed);
        }
        Moment::from_micros(told.max(before))
    }

    fn send(self: &Arc<Self>, waiter: TokenWaiter, token: Token, undelivered: &mut Vec<Token>) {
        let sent = waiter.sink.grant(waiter.exchange, Ticket::of_slot(waiter.place), Granted::Token(self.held(token)));
        if let Err(Granted::Token(held)) = sent {
            undelivered.extend(held.of(self));
        }
    }

    /// Passes tokens on whose receivers' cores are gone. Each round removes a waiter, so it ends.
    fn pass_on(self: &Arc<Self>, mut undelivered: Vec<Token>, now: Moment) {
        while let Some(token) = undelivered.pop() {
            self.shaper.give_back(token, now, |waiter, token| self.send(waiter, token, &mut undelivered));
        }
    }

    /// Sets the number of tokens to the result of `count`, which is called under the lock: of two threads that count at
    /// once, the later look wins. `None` leaves it unchanged.
    fn resize(self: &Arc<Self>, now: Moment, count: impl FnOnce() -> Option<u32>) {
        let mut undelivered = Vec::new();
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(new) = count() else { return };
        if std::mem::replace(&mut *size, new) != new {
            let send = |waiter, token| self.send(waiter, token, &mut undelivered);
            match new {
                // There are no buckets any more, so their ceils do not count either.
                UNLIMITED => self.shaper.lift_limits(now, send),
                _ => self.shaper.resize(new, now, send),
            }
        }
        drop(size);
        self.pass_on(undelivered, now);
    }

    fn apply(
        self: &Arc<Self>,
        size: u32,
        spec: &Spec,
        queue: QueueLimits,
        now: Moment,
    ) -> Result<(), shaper::TooManyDraining> {
        let mut undelivered = Vec::new();
        let mut held = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        *held = size;
        let send = |waiter, token| self.send(waiter, token, &mut undelivered);
        let applied = self.shaper.apply(size, spec, queue, now, send);
        drop(held);
        self.pass_on(undelivered, now);
        applied
    }
}

/// The classes of one list of a cluster: its tree, and the rules bound to it.
#[derive(Debug)]
pub(in crate::cluster) struct Classes {
    tree: Arc<TokenTree>,
    classifier: Classifier,
    /// An endpoint occurs in the list twice: its slots count once.
    has_twins: bool,
}

#[cfg(test)]
impl Classes {
    pub(super) fn bucket_of_test(&self, name: &str) -> BucketId {
        self.tree.bucket(name).expect("a bucket of this name")
    }
}

impl Admission {
    /// Shapes the tree according to these options, for a list with these members, and binds the rules to it. The error
    /// says why the buckets do not apply, or not as written.
    pub(in crate::cluster) fn shape(
        &self,
        members: &[Member],
        options: &Options,
        now: Moment,
    ) -> (Option<Classes>, Option<String>) {
        let unlimited = members.iter().find(|member| member.attributes.capacity.is_none());
        let is_unknown = options.max_requests.is_none() && !options.adaptive.is_enabled;
        let problem = match (&options.buckets, unlimited) {
            (Some(_), Some(member)) if is_unknown => Some(format!(
                "buckets do not apply: {} has no capacity, so there is nothing to share; give every backend a capacity, \
                 or the frontend maxRequests or adaptive.enabled",
                member.url
            )),
            _ => None,
        };
        let has_classes = (options.buckets.is_some() || options.adaptive.is_enabled) && problem.is_none();
        if !has_classes {
            if let Some(tree) = self.tree.get() {
                tree.adaptive.set_bounds(None, now);
                tree.resize(tree.latest(Some(now)), || Some(UNLIMITED));
            }
            return (None, problem);
        }
        let whole = Spec::default();
        let spec = options.buckets.as_deref().unwrap_or(&whole);
        let mut seen = HashSet::new();
        let has_twins = !members.iter().all(|member| seen.insert(Arc::as_ptr(&member.state)));
        let queue = QueueLimits { limit: options.queue.limit, timeout: options.queue.timeout };
        let tree = self.tree.get_or_init(|| Arc::new(TokenTree::new(queue)));
        tree.adaptive.set_bounds(options.adaptive.bounds(), now);
        let capacity = root(members, options, has_twins, now);
        tree.adaptive.set_capacity(capacity);
        let size = capacity.min(tree.adaptive.get());
        let applied = tree.apply(size, spec, queue, tree.latest(Some(now)));
        let problem = applied.err().map(|error| format!("the buckets stay as they were: {error}"));
        let rules =
            options.classify.as_ref().map_or_else(Arc::<Rules>::default, |classify| Arc::clone(&classify.rules));
        let classifier = Classifier::bind(&rules, spec, &tree.shaper);
        (Some(Classes { tree: Arc::clone(tree), classifier, has_twins }), problem)
    }

    /// Counts a request that had to ask for a token.
    pub(super) fn count_joined(&self, joined: &Joined) {
        match joined {
            Joined::WaitingForToken { .. } => _ = self.queued.fetch_add(1, Ordering::Relaxed),
            Joined::Refused => _ = self.dropped.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Computes the number of tokens from the newest list.
    pub(in crate::cluster) fn update_root(&self, now: Moment) {
        let Some(tree) = self.tree.get() else { return };
        tree.computed_at.store(now.as_micros(), Ordering::Relaxed);
        tree.resize(tree.latest(Some(now)), || Some(self.newest()?.root(now)));
    }

    /// The same, unless it was computed recently.
    fn update_old_root(&self, now: Moment) {
        let computed_at = self.tree.get().map_or(0, |tree| tree.computed_at.load(Ordering::Relaxed));
        if now.since(Moment::from_micros(computed_at)) >= MAX_AGE {
            self.update_root(now);
        }
    }
}

impl Cluster {
    /// Records a response, if the number of tokens follows latency. Its request still has its token.
    pub fn note_response(&self, now: Moment) {
        let Some(Classes { tree, .. }) = &self.classes else { return };
        if tree.adaptive.is_on() && tree.adaptive.note_response(tree.shaper.held(), now) {
            self.admission.update_root(now);
        }
    }

    /// The number of requests in flight that latency allows, if the limit is on.
    pub fn adaptive_limit(&self) -> Option<u32> {
        let tree = &self.classes.as_ref()?.tree;
        tree.adaptive.is_on().then(|| tree.adaptive.get())
    }

    /// Whether the buckets of these options can replace those of this cluster now.
    pub fn check_buckets(&self, options: &Options) -> Result<(), shaper::TooManyDraining> {
        match (self.admission.tree.get(), &options.buckets) {
            (Some(tree), Some(spec)) => tree.shaper.check(spec),
            _ => Ok(()),
        }
    }

    /// Whether a request needs a token before it may take a slot.
    #[inline]
    pub fn has_buckets(&self) -> bool {
        self.classes.is_some()
    }

    /// The bucket of a request.
    pub fn classify(&self, request: &RequestView<'_>) -> BucketId {
        let class = self.classes.as_ref().map(|classes| classes.classifier.classify(request));
        class.map_or(BucketId::UNCLASSIFIED, |class| class.bucket)
    }

    /// Whether the class of a request depends on its client's address.
    pub fn classifies_clients(&self) -> bool {
        self.classes.as_ref().is_some_and(|classes| classes.classifier.has_networks())
    }

    /// The name of a bucket.
    pub fn bucket_name(&self, bucket: BucketId) -> Option<&str> {
        self.classes.as_ref()?.classifier.name_of(bucket)
    }

    /// The state of the buckets: the root first, parents before children. Empty without buckets.
    pub fn buckets(&self) -> Vec<BucketView> {
        self.classes.as_ref().map_or_else(Vec::new, |classes| classes.tree.shaper.snapshot())
    }

    /// Takes a token, if one is free and no request waits for one. It takes no lock. The caller passes it to a permit
    /// ([`Permit::attach`]) or returns it.
    pub fn try_token(&self, bucket: BucketId, now: Moment) -> Option<Token> {
        self.classes.as_ref()?.tree.try_take(bucket, now)
    }

    /// A token that is returned when dropped.
    #[cfg(test)]
    pub(super) fn held(&self, token: Token) -> Option<HeldToken> {
        self.classes.as_ref().map(|classes| classes.tree.held(token))
    }

    /// Returns a token of this cluster.
    #[cold]
    pub fn give_back_token(&self, token: Token) {
        if let Some(classes) = &self.classes {
            classes.tree.give_back(token, None);
        }
    }

    /// Joins the queue of a bucket, or gets a token at once.
    ///
    /// It takes a lock, so it is only for requests that have to wait.
    pub fn join_bucket(&self, request: TokenRequest, now: Moment) -> Joined {
        let admission = &self.admission;
        admission.update_old_root(now);
        let Some(Classes { tree, .. }) = &self.classes else { return Joined::Refused };
        let joined = tree.join(request, None, now);
        admission.count_joined(&joined);
        joined
    }

    /// The number of requests that may be in flight now; no limit if the list has no buckets.
    fn root(&self, now: Moment) -> u32 {
        let Some(classes) = &self.classes else { return UNLIMITED };
        let capacity = root(&self.members, &self.options, classes.has_twins, now);
        classes.tree.adaptive.set_capacity(capacity);
        capacity.min(classes.tree.adaptive.get())
    }
}

/// The capacity of the members that serve now: active and standby ones, or backup ones if none of these is up; at most
/// `maxRequests`. A member without a capacity makes it unlimited.
fn root(members: &[Member], options: &Options, has_twins: bool, now: Moment) -> u32 {
    let capacity = |is_backup: bool| {
        let mut seen = HashSet::new();
        let up = members.iter().filter(|member| {
            (member.role() == Role::Backup) == is_backup
                && member.attributes.weight > 0
                && member.is_up()
                && (!has_twins || seen.insert(Arc::as_ptr(&member.state)))
        });
        let sum = |sum: Option<u32>, member: &Member| {
            Some(sum.unwrap_or(0).saturating_add(member.usable_capacity(options.slow_start, now)))
        };
        up.fold(None, sum)
    };
    let usable = capacity(false).or_else(|| capacity(true)).unwrap_or(0);
    options.max_requests.map_or(usable, |limit: NonZeroU32| usable.min(limit.get()))
}
