//! Edits of a cluster by difference: members that stay keep their state.

use super::admission::Admission;
use super::attributes::Attributes;
use super::backend::Backend;
use super::backend_url::BackendUrl;
use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::member::{Member, MemberState};
use super::options::Options;
use crate::base::clock::Moment;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A list from a source of routes.
#[derive(Debug)]
pub struct ClusterSpec<'a> {
    /// The frontend key, or another name.
    pub key: &'a str,
    /// Any text, shown in the access log.
    pub id: &'a str,
    /// The entries and the backends of their endpoints.
    pub entries: Vec<(&'a BackendUrl, Arc<Backend>)>,
    /// The options.
    pub options: &'a Arc<Options>,
    /// A number that tells the cluster from an earlier one of its key, which it shares no cached objects with; 0 where no
    /// number does.
    pub created: u64,
}

impl Cluster {
    /// Makes the cluster of this list in place of `before`, and publishes it: waiting requests are served from it.
    ///
    /// An endpoint that stays keeps its live state, whatever its attributes are. So does one that comes back while its
    /// earlier requests are still in flight, or within [`GRACE`](super::admission::GRACE), as when a list is rewritten
    /// entry by entry. An endpoint that occurs in the list twice has one state at both places. Removed members are
    /// marked as removed. If an operator has disabled a member that comes back later, the caller has to disable it
    /// again.
    pub fn edit(before: Option<&Self>, spec: ClusterSpec<'_>, now: Moment) -> Arc<Self> {
        let admission = before.map_or_else(Arc::<Admission>::default, |before| Arc::clone(&before.admission));
        let known = before.map_or(&[][..], |cluster| &cluster.members);
        let attributes: HashMap<&Endpoint, &Attributes> =
            known.iter().map(|member| (member.url.endpoint(), &member.attributes)).collect();
        let mut states: HashMap<&Endpoint, Arc<MemberState>> =
            known.iter().map(|member| (member.url.endpoint(), Arc::clone(&member.state))).collect();
        let new_state = |endpoint: &Endpoint| match admission.take_departed(endpoint, now) {
            Some(state) => state,
            None if before.is_none() => Arc::new(MemberState::new()),
            None => Arc::new(MemberState::added(now)),
        };
        let mut members = Vec::with_capacity(spec.entries.len());
        for (url, backend) in spec.entries {
            let endpoint = url.endpoint();
            let state = states.entry(endpoint).or_insert_with(|| new_state(endpoint));
            let before = attributes.get(endpoint).copied();
            let attributes = url.attributes_after(before);
            if before.is_some_and(|before| before.is_disabled) && !attributes.is_disabled {
                state.begin_slow_start(now);
            }
            members.push(Member::new(url.clone(), backend, attributes, Arc::clone(state)));
        }
        let kept: HashSet<_> = members.iter().map(|member| Arc::as_ptr(&member.state)).collect();
        for member in known.iter().filter(|member| !kept.contains(&Arc::as_ptr(&member.state))) {
            member.state.mark_removed();
            admission.note_departed(member, now);
        }
        let cluster = Self::new(
            spec.key.into(),
            (spec.id.into(), spec.created),
            members.into(),
            Arc::clone(spec.options),
            Arc::clone(&admission),
            now,
        );
        let cluster = Arc::new(cluster);
        cluster.publish(now);
        cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::admission::GRACE;
    use crate::cluster::{BackendId, Role};
    use std::time::Duration;

    const NOW: Moment = Moment::from_micros(7);

    fn edit(before: Option<&Cluster>, entries: &[&str]) -> Arc<Cluster> {
        edit_at(before, entries, NOW)
    }

    fn edit_at(before: Option<&Cluster>, entries: &[&str], now: Moment) -> Arc<Cluster> {
        let urls: Vec<_> = entries.iter().map(|text| BackendUrl::parse(text).expect("a good URL")).collect();
        let backend = |url: &BackendUrl| Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
        let entries = urls.iter().map(|url| (url, backend(url))).collect();
        let spec = ClusterSpec { created: 0, key: "a", id: "x", entries, options: &Options::none() };
        Cluster::edit(before, spec, now)
    }

    #[test]
    fn an_edit_of_attributes_keeps_the_state() {
        let before = edit(None, &["http://a", "http://b#capacity=2"]);
        let permit = before.try_take(0, Moment::ZERO).expect("room");
        let after = edit(Some(&before), &["http://b", "http://a#capacity=1&role=standby", "http://a"]);
        for (new, old) in [(0, 1), (1, 0), (2, 0)] {
            assert!(Arc::ptr_eq(&after.members[new].state, &before.members[old].state));
        }
        assert_eq!((after.members[1].role(), after.members[1].state.in_flight()), (Role::Standby, 1));
        assert_eq!(after.members[0].state.up_since(), Moment::ZERO, "who stays has no slow start");
        drop(permit);
        assert_eq!(after.members[1].state.in_flight(), 0);
    }

    #[test]
    fn an_endpoint_that_comes_back_knows_of_its_requests_in_flight() {
        let first = edit(None, &["http://a#capacity=1", "http://b"]);
        let permit = first.try_take(0, Moment::ZERO).expect("room");
        let second = edit(Some(&first), &["http://b"]);
        assert!(first.members[0].state.is_removed() && first.try_take(0, Moment::ZERO).is_none());
        let third = edit(Some(&second), &["http://a#capacity=1"]);
        assert!(third.members[0].is_up() && third.try_take(0, Moment::ZERO).is_none(), "its slot is still taken");
        drop(permit);
        assert!(third.try_take(0, Moment::ZERO).is_some());
    }

    #[test]
    fn a_list_that_is_written_anew_entry_by_entry_keeps_its_members_as_they_are() {
        let first = edit(None, &["http://a", "http://b", "http://c"]);
        first.members[1].state.set_disabled(true, NOW);
        let steps: [&[&str]; 4] =
            [&[], &["http://a"], &["http://a", "http://b"], &["http://a", "http://b", "http://c"]];
        let anew = steps.iter().fold(Arc::clone(&first), |before, entries| edit_at(Some(&before), entries, NOW));
        for (new, old) in anew.members.iter().zip(&first.members) {
            assert!(Arc::ptr_eq(&new.state, &old.state));
            assert_eq!((new.state.up_since(), new.state.is_removed()), (Moment::ZERO, false));
        }
        assert!(!anew.members[1].is_up(), "an operator's word outlives it");
        // A member that was away for longer starts afresh.
        let (left_at, back_at) = (NOW + GRACE, NOW + 3 * GRACE);
        let empty = edit_at(Some(&anew), &[], left_at);
        let other = edit_at(Some(&empty), &["http://d"], left_at + 2 * GRACE);
        let back = edit_at(Some(&other), &["http://a", "http://b"], back_at);
        assert_eq!(back.members[0].state.up_since(), back_at);
    }

    #[test]
    fn a_member_that_is_no_longer_disabled_starts_slowly() {
        let first = edit(None, &["http://a#disabled", "http://b"]);
        let second = edit_at(Some(&first), &["http://a", "http://b"], NOW + GRACE);
        assert_eq!(second.members[0].state.up_since(), NOW + GRACE);
        assert_eq!(second.members[1].state.up_since(), Moment::ZERO);
    }

    #[test]
    fn a_member_whose_mark_is_over_starts_slowly_at_its_first_good_response() {
        let cluster = edit(None, &["http://a#slowStart=30s&capacity=16", "http://b#capacity=16"]);
        for (place, since) in [(0, NOW), (1, Moment::ZERO)] {
            let permit = cluster.try_take(place, NOW).expect("room");
            permit.note_back(NOW);
            // The mark of another host of the cluster ends while it starts.
            permit.note_back(NOW + GRACE);
            assert_eq!(cluster.members[place].state.up_since(), since);
        }
        assert_eq!(cluster.members[0].usable_capacity(Duration::ZERO, NOW), 1);
    }

    #[test]
    fn limits_of_the_newest_list_apply_to_holders_of_an_older_one() {
        let options = |pairs: &[(&str, &str)]| Arc::new(Options::read(pairs.iter().copied(), &Options::default()).0);
        let url = BackendUrl::parse("http://a").expect("a good URL");
        let backend = Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
        let edit = |before: Option<&Cluster>, pairs: &[(&str, &str)]| {
            let entries = vec![(&url, Arc::clone(&backend))];
            Cluster::edit(before, ClusterSpec { created: 0, key: "a", id: "x", entries, options: &options(pairs) }, NOW)
        };
        let old = edit(None, &[]);
        let _new = edit(Some(&old), &[("maxRequests", "2"), ("maxTunnels", "1")]);
        let mut permits: Vec<_> = (0..3).filter_map(|_| old.try_take(0, NOW)).collect();
        assert_eq!(permits.len(), 2);
        assert_eq!(permits.iter_mut().filter_map(|permit| permit.reserve_tunnel().then_some(())).count(), 1);
    }

    #[test]
    fn an_endpoint_that_stands_in_the_list_twice_has_its_smaller_capacity() {
        let cluster = edit(None, &["http://a#capacity=3", "http://a", "http://a#capacity=2"]);
        let permits: Vec<_> = [0, 1, 2, 0, 1, 2].iter().filter_map(|place| cluster.try_take(*place, NOW)).collect();
        assert_eq!(permits.len(), 2);
    }

    #[test]
    fn the_identity_of_a_member_has_all_parts_of_its_endpoint() {
        let entries =
            ["https://a", "https://a#sni=b.test", "https://a#sni=c.test", "https://a#proxy=v1", "http://a:443"];
        let cluster = edit(None, &entries);
        let identities: HashSet<_> = cluster.members.iter().map(Member::identity).collect();
        assert_eq!(identities.len(), entries.len());
    }
}
