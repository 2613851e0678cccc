//! Edits of a cluster: by difference, so that what stays keeps its state.

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

/// A list as its source has it.
#[derive(Debug)]
pub struct ClusterSpec<'a> {
    /// The frontend key, or another name.
    pub key: &'a str,
    /// Any text, shown in the access log.
    pub id: &'a str,
    /// The entries and the backends behind their endpoints.
    pub entries: Vec<(&'a BackendUrl, Arc<Backend>)>,
    /// The options.
    pub options: &'a Arc<Options>,
}

impl Cluster {
    /// The cluster of this list, in the place of `before`, and publishes it: waiting requests are served from it.
    ///
    /// An endpoint that stays keeps its live state, whatever its attributes are now; so does one that comes back while
    /// requests of earlier are still in flight. An endpoint that stands in the list twice has one state at both places.
    /// Members that have left are marked removed.
    pub fn edit(before: Option<&Self>, spec: ClusterSpec<'_>, now: Moment) -> Arc<Self> {
        let admission = before.map_or_else(Arc::<Admission>::default, |before| Arc::clone(&before.admission));
        let known = before.map_or(&[][..], |cluster| &cluster.members);
        let attributes: HashMap<&Endpoint, &Attributes> =
            known.iter().map(|member| (member.url.endpoint(), &member.attributes)).collect();
        let mut states: HashMap<&Endpoint, Arc<MemberState>> =
            known.iter().map(|member| (member.url.endpoint(), Arc::clone(&member.state))).collect();
        let new_state = |endpoint: &Endpoint| match admission.take_departed(endpoint) {
            Some(state) => {
                state.mark_back(now);
                state
            }
            None if before.is_none() => Arc::new(MemberState::new()),
            None => Arc::new(MemberState::added(now)),
        };
        let mut members = Vec::with_capacity(spec.entries.len());
        for (url, backend) in spec.entries {
            let endpoint = url.endpoint();
            let state = states.entry(endpoint).or_insert_with(|| new_state(endpoint));
            let attributes = url.attributes_after(attributes.get(endpoint).copied());
            members.push(Member::new(url.clone(), backend, attributes, Arc::clone(state)));
        }
        let kept: HashSet<_> = members.iter().map(|member| Arc::as_ptr(&member.state)).collect();
        for member in known.iter().filter(|member| !kept.contains(&Arc::as_ptr(&member.state))) {
            member.state.mark_removed();
            admission.note_departed(member);
        }
        let cluster = Self::new(
            spec.key.into(),
            spec.id.into(),
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
    use crate::cluster::{BackendId, Role};

    fn edit(before: Option<&Cluster>, entries: &[&str]) -> Arc<Cluster> {
        let urls: Vec<_> = entries.iter().map(|text| BackendUrl::parse(text).expect("a good URL")).collect();
        let backend = |url: &BackendUrl| Arc::new(Backend::new(BackendId::new(1), url.endpoint().clone()));
        let entries = urls.iter().map(|url| (url, backend(url))).collect();
        let spec = ClusterSpec { key: "a", id: "x", entries, options: &Options::none() };
        Cluster::edit(before, spec, Moment::from_micros(7))
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
        assert_eq!(third.members[0].state.up_since(), Moment::from_micros(7));
    }
}
