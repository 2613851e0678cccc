//! A route: the cluster that a host leads to, and the marks of that host.

use super::backend::{Backend, BackendId};
use super::cluster::Cluster;
use super::endpoint::Endpoint;
use crate::base::clock::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The result of a look-up of a host. Immutable except for its marks; a changed list is a new `Route` with the marks of
/// the members that stay.
#[derive(Debug)]
pub struct Route {
    /// The requested host: lower case, no port, no trailing dot.
    pub host: Box<str>,
    /// The cluster that serves it.
    pub cluster: Arc<Cluster>,
    /// A mark for each member of `cluster`, at the same index.
    pub marks: Box<[Arc<Mark>]>,
    is_replaced: AtomicBool,
}

/// The state of a backend for one host, besides the state shared by all hosts (Hipache's `dead:<host>`): a broken
/// tenant behind a wildcard must not take the backend from other hosts. The object stays the same as long as its
/// endpoint stays in the list, so a mark belongs to the endpoint and not to an index.
#[derive(Debug)]
pub struct Mark {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The time until which this node treats the backend as dead, in microseconds; 0 if it is alive.
    dead_until: AtomicU64,
    /// The same for marks made by other nodes and checkers.
    dead_external_until: AtomicU64,
    /// The same for the mark of an operator of this node, which no other mark replaces or ends.
    dead_by_operator_until: AtomicU64,
    /// Trouble since the last good response: the number of successive connections that ended without one, and
    /// [`MARKED`]. It is 0 while all is well, so a response costs one read.
    troubles: AtomicU32,
    /// Why this node last treated it as dead, as a code for [`Mark::note_reason`].
    reason: AtomicU32,
    is_removed: AtomicBool,
}

/// A flag in [`Mark::troubles`]: the backend was marked dead.
const MARKED: u32 = 1 << 31;

impl Mark {
    /// The mark of a living backend.
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.join();
        Self {
            backend,
            dead_until: AtomicU64::new(0),
            dead_external_until: AtomicU64::new(0),
            dead_by_operator_until: AtomicU64::new(0),
            troubles: AtomicU32::new(0),
            reason: AtomicU32::new(0),
            is_removed: AtomicBool::new(false),
        }
    }

    /// Counts a connection that ended without a response. Returns the number of successive ones.
    pub fn count_closed(&self) -> u32 {
        (self.troubles.fetch_add(1, Ordering::Relaxed) & !MARKED).saturating_add(1)
    }

    /// Records that the backend was marked dead.
    pub fn note_marked(&self) {
        self.troubles.fetch_or(MARKED, Ordering::Relaxed);
    }

    /// Records a good response. Returns whether it is the first one since the backend was marked dead.
    #[inline]
    pub fn note_good(&self) -> bool {
        self.troubles.load(Ordering::Relaxed) != 0 && self.troubles.swap(0, Ordering::Relaxed) & MARKED != 0
    }

    /// Marks the backend dead until `until`, on all cores at once.
    pub fn mark_dead(&self, until: Moment) {
        self.dead_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Marks the backend dead until `until` on behalf of a checker or another node, on all cores at once: not even the
    /// last resort uses it.
    pub fn mark_dead_external(&self, until: Moment) {
        self.dead_external_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// The same on behalf of an operator of this node.
    pub fn mark_dead_by_operator(&self, until: Moment) {
        self.dead_by_operator_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Sets the code of the reason, not 0, for views.
    pub fn note_reason(&self, code: u32) {
        self.reason.store(code, Ordering::Relaxed);
    }

    /// The code of the reason; 0 if there is none.
    pub fn reason(&self) -> u32 {
        self.reason.load(Ordering::Relaxed)
    }

    /// Whether another node, a checker or an operator has marked the backend dead.
    pub fn is_dead_external(&self, now: Moment) -> bool {
        self.dead_external_until(now).max(self.dead_by_operator_until(now)).is_some()
    }

    /// The end of this node's mark, if it is after `now`.
    pub fn dead_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// The end of the marks of other nodes and checkers, if it is after `now`.
    pub fn dead_external_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_external_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// The end of the mark by an operator of this node, if it is after `now`.
    pub fn dead_by_operator_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_by_operator_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// The end of the last mark; `None` if there is none.
    pub fn ends_at(&self, now: Moment) -> Option<Moment> {
        self.dead_until(now).max(self.dead_external_until(now)).max(self.dead_by_operator_until(now))
    }

    /// Records that the host no longer leads to this backend: it gets no new request, even from requests with an old
    /// route.
    pub fn mark_removed(&self) {
        if !self.is_removed.swap(true, Ordering::AcqRel) {
            self.backend.leave();
        }
    }

    /// Whether the host no longer leads to this backend.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Acquire)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.mark_removed();
    }
}

impl Route {
    /// The route of a host that has no marks yet.
    pub fn new(host: &str, cluster: Arc<Cluster>) -> Self {
        let mut marks: Vec<Arc<Mark>> = Vec::with_capacity(cluster.members.len());
        for member in &cluster.members {
            let known = marks.iter().find(|mark| mark.backend.id() == member.backend.id()).map(Arc::clone);
            marks.push(known.unwrap_or_else(|| Arc::new(Mark::new(Arc::clone(&member.backend)))));
        }
        Self::with_marks(host, cluster, marks.into())
    }

    /// The route of a host with these marks.
    pub fn with_marks(host: &str, cluster: Arc<Cluster>, marks: Box<[Arc<Mark>]>) -> Self {
        Self { host: host.into(), cluster, marks, is_replaced: AtomicBool::new(false) }
    }

    /// Records that the host leads to another cluster, or is about to. It precedes the removal of a member, so that a
    /// request that finds no member left notices this too.
    pub fn mark_replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Whether this route is stale: the host leads to another cluster, or all members were removed.
    pub fn is_stale(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
            || (!self.marks.is_empty() && self.marks.iter().all(|mark| mark.is_removed()))
    }

    /// The same; the index of the backend in another list of the cluster is tried first.
    pub(super) fn mark_near(&self, place: usize, backend: BackendId) -> Option<&Arc<Mark>> {
        let there = self.marks.get(place).filter(|mark| mark.backend.id() == backend);
        there.or_else(|| self.mark_of(backend))
    }

    /// Whether a backend is marked dead for this host.
    pub fn has_marks(&self, now: Moment) -> bool {
        self.marks.iter().any(|mark| mark.ends_at(now).is_some())
    }

    /// The place of the first member at the endpoint of this URL.
    pub fn place_at(&self, endpoint: &Endpoint) -> Option<usize> {
        let is_it = |known: &Endpoint| {
            (known.host(), known.port(), known.is_secure()) == (endpoint.host(), endpoint.port(), endpoint.is_secure())
        };
        self.cluster.members.iter().position(|member| is_it(member.backend.endpoint()))
    }

    /// The mark of a backend. `None` for one that joined the cluster after this route was made.
    pub fn mark_of(&self, backend: BackendId) -> Option<&Arc<Mark>> {
        self.marks.iter().find(|mark| mark.backend.id() == backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::BackendUrl;

    #[test]
    fn a_backend_without_a_route_is_unreferenced() {
        let url = BackendUrl::parse("http://10.0.0.1").expect("a good URL");
        let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
        assert!(backend.is_unreferenced());
        let marks = [(); 2].map(|()| Mark::new(Arc::clone(&backend)));
        marks[0].mark_removed();
        marks[0].mark_removed();
        assert!(!backend.is_unreferenced(), "one route still leads to it");
        drop(marks);
        assert!(backend.is_unreferenced());
    }
}
