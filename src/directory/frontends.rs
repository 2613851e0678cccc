//! The frontends in use: what was answered to the cores, and what changes of it. Of use to every source of routes.

use super::backends::Backends;
use crate::cluster::{Backend, BackendUrl, Frontend, Member, Options};
use std::collections::HashMap;
use std::sync::Arc;

/// Below this number of hosts no purge is worth its walk.
const MIN_PURGE: usize = 1024;

/// A list as it stands under a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontendRecord {
    /// Item 0: any text, shown in the access log.
    pub(super) id: Box<str>,
    /// Items 1 and on. None at all is legal: the host is known, and no backend is alive.
    pub(super) backends: Box<[BackendUrl]>,
    /// What is particular to the frontend.
    pub(super) options: Options,
}

/// The frontend of each host in use.
///
/// All cores are given the same `Arc<Frontend>` for a host, so what one marks all see. A core that looks up a host
/// again after a change or an eviction finds the same members with their marks: the frontend is held here too, and
/// let go when two purges in a row found that nobody else holds it. That bounds the hosts to three times those which
/// cores hold, or 2 × 1024 more than these. Whoever uses a member holds its frontend, or is not told that it retires.
#[derive(Debug)]
pub(super) struct Frontends {
    by_host: HashMap<Arc<str>, InUse>,
    backends: Backends,
    purge_at: usize,
}

#[derive(Debug)]
struct InUse {
    frontend: Arc<Frontend>,
    /// The last purge found it held by nobody else, and it was not asked for since.
    is_idle: bool,
}

impl Default for Frontends {
    fn default() -> Self {
        Self { by_host: HashMap::new(), backends: Backends::default(), purge_at: MIN_PURGE }
    }
}

impl Frontends {
    /// The frontend of `host`, where it is in use.
    pub(super) fn get(&mut self, host: &str) -> Option<Arc<Frontend>> {
        let in_use = self.by_host.get_mut(host)?;
        in_use.is_idle = false;
        Some(Arc::clone(&in_use.frontend))
    }

    /// Takes into use what `host` resolves to now. A member whose URL stays in the list stays the same object; one
    /// whose URL left is retired. Returns whether anything is different from before.
    pub(super) fn set(&mut self, host: &Arc<str>, pattern: &str, record: &FrontendRecord) -> bool {
        let before = self.by_host.get(host).map(|in_use| Arc::clone(&in_use.frontend));
        if before.as_ref().is_some_and(|frontend| is_same(frontend, pattern, record)) {
            return false;
        }
        let before = before.as_ref().map_or(&[][..], |frontend| &frontend.members);
        let members = self.members(before, &record.backends);
        retire_missing(before, &members);
        let frontend = Frontend {
            host: (&**host).into(),
            pattern: pattern.into(),
            id: record.id.clone(),
            members,
            options: record.options,
        };
        self.purge();
        self.by_host.insert(Arc::clone(host), InUse { frontend: Arc::new(frontend), is_idle: false });
        true
    }

    /// Says that `host` resolves to nothing any more. Returns whether it was in use.
    pub(super) fn remove(&mut self, host: &str) -> bool {
        let Some(gone) = self.by_host.remove(host) else { return false };
        retire_missing(&gone.frontend.members, &[]);
        true
    }

    /// Whether `host` is in use.
    pub(super) fn contains(&self, host: &str) -> bool {
        self.by_host.contains_key(host)
    }

    /// The frontends in use and the hosts they are for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Frontend)> {
        self.by_host.iter().map(|(host, in_use)| (host, &*in_use.frontend))
    }

    /// The frontends in use, to be held.
    pub(super) fn shared(&self) -> impl Iterator<Item = Arc<Frontend>> {
        self.by_host.values().map(|in_use| Arc::clone(&in_use.frontend))
    }

    /// The backends made since the last call whose name has to be looked up.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        self.backends.take_unresolved()
    }

    /// The members of a list. A URL that stands in it twice is one member at both places: it is picked twice as
    /// often, and a mark, which belongs to the URL, counts for both.
    fn members(&mut self, before: &[Arc<Member>], urls: &[BackendUrl]) -> Box<[Arc<Member>]> {
        let mut by_url: HashMap<&BackendUrl, Arc<Member>> =
            before.iter().map(|member| (member.backend.url(), Arc::clone(member))).collect();
        let mut member = |url| {
            let made = by_url.entry(url).or_insert_with(|| Arc::new(Member::new(self.backends.get(url))));
            Arc::clone(made)
        };
        urls.iter().map(&mut member).collect()
    }

    /// Lets go of what nobody holds, at a cost that the insertions since the last time pay for.
    fn purge(&mut self) {
        if self.by_host.len() < self.purge_at {
            return;
        }
        let mut held = 0;
        self.by_host.retain(|_, in_use| {
            // Others can only clone what they hold, so nobody can come by a frontend held just here.
            if Arc::strong_count(&in_use.frontend) > 1 {
                held += 1;
                in_use.is_idle = false;
                return true;
            }
            !std::mem::replace(&mut in_use.is_idle, true)
        });
        self.purge_at = self.by_host.len() + MIN_PURGE.max(held);
    }
}

fn is_same(frontend: &Frontend, pattern: &str, record: &FrontendRecord) -> bool {
    let urls = frontend.members.iter().map(|member| member.backend.url());
    let is_called_so = *frontend.pattern == *pattern && frontend.id == record.id;
    is_called_so && frontend.options == record.options && urls.eq(&record.backends)
}

fn retire_missing(before: &[Arc<Member>], now: &[Arc<Member>]) {
    let kept: std::collections::HashSet<_> = now.iter().map(Arc::as_ptr).collect();
    for member in before.iter().filter(|member| !kept.contains(&Arc::as_ptr(member))) {
        member.mark_removed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Moment;
    use std::time::Duration;

    fn record(id: &str, urls: &[&str]) -> FrontendRecord {
        let url = |url: &&str| BackendUrl::parse(url).expect("a good URL");
        FrontendRecord { id: id.into(), backends: urls.iter().map(url).collect(), options: Options::default() }
    }

    #[test]
    fn a_changed_list_keeps_the_members_that_stay_and_retires_the_rest() {
        let (one, two, three) = ("http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3");
        let mut frontends = Frontends::default();
        let host: Arc<str> = "a.example".into();
        assert!(frontends.set(&host, "a.example", &record("x", &[one, two])));
        let old = frontends.get(&host).expect("in use");
        old.members[1].mark_dead(Moment::ZERO + Duration::from_secs(30));

        assert!(!frontends.set(&host, "a.example", &record("x", &[one, two])), "the same list is no change");
        assert!(Arc::ptr_eq(&old, &frontends.get(&host).expect("in use")));

        assert!(frontends.set(&host, "a.example", &record("x", &[two, three])));
        let new = frontends.get(&host).expect("in use");
        assert!(Arc::ptr_eq(&new.members[0], &old.members[1]), "at another index, and still itself");
        assert!(new.members[0].dead_until(Moment::ZERO).is_some());
        let retired: Vec<_> = old.members.iter().chain(&new.members).map(|member| member.is_removed()).collect();
        assert_eq!(retired, [true, false, false, false]);

        assert!(frontends.remove(&host));
        assert!(!frontends.remove(&host));
        assert!(new.members.iter().all(|member| member.is_removed()));

        assert!(frontends.set(&host, "*", &record("x", &[two])));
        let again = frontends.get(&host).expect("in use");
        assert!(!again.members[0].is_removed(), "a URL that comes back is a new member");
    }

    #[test]
    fn a_url_that_stands_twice_is_one_member_at_two_places() {
        let (one, two) = ("http://10.0.0.1", "http://10.0.0.2");
        let mut frontends = Frontends::default();
        let host: Arc<str> = "a".into();
        frontends.set(&host, "a", &record("x", &[one, two, one]));
        let before = frontends.get(&host).expect("in use");
        assert_eq!(before.members.len(), 3);
        assert!(Arc::ptr_eq(&before.members[0], &before.members[2]));
        frontends.set(&host, "a", &record("x", &[two, one]));
        let after = frontends.get(&host).expect("in use");
        assert!(Arc::ptr_eq(&before.members[0], &after.members[1]));
        assert!(!after.members[1].is_removed(), "one place of two is left");
    }

    #[test]
    fn hosts_share_backends_but_not_members() {
        let mut frontends = Frontends::default();
        for host in ["a", "b"] {
            frontends.set(&host.into(), "*", &record("x", &["http://10.0.0.1"]));
        }
        let [a, b] = ["a", "b"].map(|host| frontends.get(host).expect("in use"));
        assert!(Arc::ptr_eq(&a.members[0].backend, &b.members[0].backend));
        assert!(!Arc::ptr_eq(&a.members[0], &b.members[0]));
    }

    #[test]
    fn what_nobody_holds_is_let_go_but_not_at_once() {
        let mut frontends = Frontends::default();
        let record = record("x", &["http://10.0.0.1"]);
        let mut held = Vec::new();
        for number in 0..20 * MIN_PURGE {
            let host: Arc<str> = format!("h{number}").into();
            frontends.set(&host, "*", &record);
            if number % 20 == 0 {
                held.push(frontends.get(&host).expect("in use"));
            }
            assert!(frontends.by_host.len() <= held.len() + 3 * MIN_PURGE, "{}", frontends.by_host.len());
            if number >= MIN_PURGE {
                let lately = format!("h{}", number - MIN_PURGE / 2);
                assert!(frontends.contains(&lately), "{lately} is kept for a while at {number}");
            }
        }
        for frontend in &held {
            let found = frontends.get(&frontend.host).expect("what somebody holds stays");
            assert!(Arc::ptr_eq(frontend, &found));
        }
    }
}
