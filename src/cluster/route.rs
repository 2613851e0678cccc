//! A route: the cluster that a host leads to, and the marks of that host.

use super::backend::{Backend, BackendId};
use super::cluster::Cluster;
use crate::base::clock::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The result of a look-up of a host. Immutable but for its marks; a changed list is a new `Route` that shares the
/// marks of the members that stay.
#[derive(Debug)]
pub struct Route {
    /// The host that was asked for: lower case, no port, no trailing dot.
    pub host: Box<str>,
    /// The cluster that serves it.
    pub cluster: Arc<Cluster>,
    /// A mark for each member of `cluster`, at the same place.
    pub marks: Box<[Arc<Mark>]>,
    is_replaced: AtomicBool,
}

/// What one host says of a backend, beside the state that all hosts share (Hipache's `dead:<host>`): a broken tenant
/// behind a wildcard must not take the backend from other hosts. It stays the same object for as long as its endpoint
/// stays in the list, so a mark belongs to the endpoint and not to an index.
#[derive(Debug)]
pub struct Mark {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Microseconds of the moment until which this node takes the backend for dead; 0 when it is alive.
    dead_until: AtomicU64,
    /// The same for marks that others have made.
    dead_external_until: AtomicU64,
    /// The same for the mark of an operator of this node, which no other mark replaces or ends.
    dead_by_operator_until: AtomicU64,
    /// Trouble since the last good response: the connections in a row that ended without one, and [`MARKED`]. 0 as long
    /// as all is well, so that a response costs no more than a look.
    troubles: AtomicU32,
    /// Why this node took it for dead the last time, as [`Mark::note_reason`] has it.
    reason: AtomicU32,
    is_removed: AtomicBool,
}

/// In [`Mark::troubles`]: the backend was marked dead.
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

    /// Counts a connection that ended without a response; how many there were in a row.
    pub fn count_closed(&self) -> u32 {
        (self.troubles.fetch_add(1, Ordering::Relaxed) & !MARKED).saturating_add(1)
    }

    /// Notes that the backend was marked dead.
    pub fn note_marked(&self) {
        self.troubles.fetch_or(MARKED, Ordering::Relaxed);
    }

    /// Notes a good response. Whether it is the first one since the backend was marked dead.
    #[inline]
    pub fn note_good(&self) -> bool {
        self.troubles.load(Ordering::Relaxed) != 0 && self.troubles.swap(0, Ordering::Relaxed) & MARKED != 0
    }

    /// Marks the backend dead until `until`. Known to all cores at once.
    pub fn mark_dead(&self, until: Moment) {
        self.dead_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Marks the backend dead until `until` on behalf of a checker or another node: not even the last resort goes there.
    /// Known to all cores at once.
    pub fn mark_dead_external(&self, until: Moment) {
        self.dead_external_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// The same on behalf of an operator of this node.
    pub fn mark_dead_by_operator(&self, until: Moment) {
        self.dead_by_operator_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Notes why this node takes the backend for dead, as a number that is not 0. For views.
    pub fn note_reason(&self, code: u32) {
        self.reason.store(code, Ordering::Relaxed);
    }

    /// That number; 0 where there is none.
    pub fn reason(&self) -> u32 {
        self.reason.load(Ordering::Relaxed)
    }

    /// Whether others, or an operator, have marked the backend dead.
    pub fn is_dead_external(&self, now: Moment) -> bool {
        self.dead_external_until(now).max(self.dead_by_operator_until(now)).is_some()
    }

    /// The moment until which this node takes the backend for dead, if that is after `now`.
    pub fn dead_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// The moment until which others have marked the backend dead, if that is after `now`.
    pub fn dead_external_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_external_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// The moment until which an operator of this node has marked the backend dead, if that is after `now`.
    pub fn dead_by_operator_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_by_operator_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// When the last mark ends; `None` if there is none.
    pub fn ends_at(&self, now: Moment) -> Option<Moment> {
        self.dead_until(now).max(self.dead_external_until(now)).max(self.dead_by_operator_until(now))
    }

    /// Notes that the host leads to this backend no longer: it gets no new request, even from those who hold an old
    /// route.
    pub fn mark_removed(&self) {
        if !self.is_removed.swap(true, Ordering::AcqRel) {
            self.backend.leave();
        }
    }

    /// Whether the host leads to this backend no longer.
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

    /// Notes that the host leads elsewhere, or is about to. This comes before a member of the list is removed, so that a
    /// request that finds none left finds this too.
    pub fn mark_replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Whether this is an old route: the host leads elsewhere, or all members have left.
    pub fn is_stale(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
            || (!self.marks.is_empty() && self.marks.iter().all(|mark| mark.is_removed()))
    }

    /// The same, looked for first at the place that the backend has in another list of the cluster.
    pub(super) fn mark_near(&self, place: usize, backend: BackendId) -> Option<&Arc<Mark>> {
        let there = self.marks.get(place).filter(|mark| mark.backend.id() == backend);
        there.or_else(|| self.mark_of(backend))
    }

    /// Whether a backend is marked dead for this host.
    pub fn has_marks(&self, now: Moment) -> bool {
        self.marks.iter().any(|mark| mark.ends_at(now).is_some())
    }

    /// The mark of a backend. `None` for one that has joined the cluster after this route was made.
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
