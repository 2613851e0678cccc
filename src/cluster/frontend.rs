//! A frontend: one host name and the list of backends that serve it.

use super::backend::Backend;
use crate::base::clock::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What a host name resolved to. Immutable but for the marks of its members; a changed list is a new `Frontend` that
/// shares the members that stay.
#[derive(Debug)]
pub struct Frontend {
    /// The host that was asked for: lower case, no port, no trailing dot.
    pub host: Box<str>,
    /// The pattern whose list was found: a host, `*.suffix` or `*`.
    pub pattern: Box<str>,
    /// Item 0 of the list: any text, shown in the access log.
    pub id: Box<str>,
    /// The backends, in the order of the list.
    pub members: Box<[Arc<Member>]>,
    /// What is particular to it.
    pub options: Options,
}

/// What can be said of one frontend alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether clients that come without encryption are sent to where there is some; `None` as for all.
    pub https_redirect: Option<bool>,
}

/// A backend as a member of one host's list. It stays the same object for as long as its URL stays in the list, so its
/// mark belongs to the URL and not to an index.
#[derive(Debug)]
pub struct Member {
    /// The backend, which other frontends may share.
    pub backend: Arc<Backend>,
    /// Microseconds of the moment until which the member counts as dead; 0 when it is alive.
    dead_until: AtomicU64,
    /// The same for marks that others have made.
    barred_until: AtomicU64,
    /// What went wrong since the last good response: the connections in a row that ended without one, and [`MARKED`]. 0 as
    /// long as all is well, so that a response costs no more than a look.
    troubles: AtomicU32,
    retired: AtomicBool,
}

/// In [`Member::troubles`]: the member was marked dead.
const MARKED: u32 = 1 << 31;

impl Member {
    /// A living member.
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.join();
        Self {
            backend,
            dead_until: AtomicU64::new(0),
            barred_until: AtomicU64::new(0),
            troubles: AtomicU32::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Counts a connection that ended without a response; how many there were in a row.
    pub fn count_closed(&self) -> u32 {
        (self.troubles.fetch_add(1, Ordering::Relaxed) & !MARKED).saturating_add(1)
    }

    /// Notes that the member was marked dead.
    pub fn note_marked(&self) {
        self.troubles.fetch_or(MARKED, Ordering::Relaxed);
    }

    /// Notes a good response. Whether it is the first one since the member was marked dead.
    #[inline]
    pub fn note_good(&self) -> bool {
        self.troubles.load(Ordering::Relaxed) != 0 && self.troubles.swap(0, Ordering::Relaxed) & MARKED != 0
    }

    /// Marks the member dead until `until`. Known to all cores at once.
    pub fn mark_dead(&self, until: Moment) {
        self.dead_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Bars the member until `until`: somebody else says that it is dead, and not even the last resort may be a member
    /// that an operator, a checker or another node has taken out. Known to all cores at once.
    pub fn mark_dead_external(&self, until: Moment) {
        self.barred_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Whether somebody else says that the member is dead.
    pub fn is_dead_external(&self, now: Moment) -> bool {
        self.barred_until(now).is_some()
    }

    /// The moment until which others say that the member is dead, where that lies after `now`.
    pub fn barred_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.barred_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// The moment until which the member counts as dead by what this node has seen, where that lies after `now`.
    pub fn dead_until(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_micros(self.dead_until.load(Ordering::Relaxed));
        (until > now).then_some(until)
    }

    /// Says that the member has left its list: it gets no new request, whoever still holds the old list.
    pub fn mark_removed(&self) {
        if !self.retired.swap(true, Ordering::AcqRel) {
            self.backend.leave();
        }
    }

    /// Whether the member has left its list.
    pub fn is_removed(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl Frontend {
    /// Whether all members have left: whoever holds this list holds an old one.
    pub fn is_stale(&self) -> bool {
        !self.members.is_empty() && self.members.iter().all(|member| member.is_removed())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.mark_removed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{BackendId, BackendUrl};

    #[test]
    fn a_backend_without_a_list_is_an_orphan() {
        let url = BackendUrl::parse("http://10.0.0.1").expect("a good URL");
        let backend = Arc::new(Backend::new(BackendId(1), url));
        assert!(backend.is_unreferenced());
        let members = [(); 2].map(|()| Member::new(Arc::clone(&backend)));
        members[0].mark_removed();
        members[0].mark_removed();
        assert!(!backend.is_unreferenced(), "one list still names it");
        drop(members);
        assert!(backend.is_unreferenced());
    }
}
