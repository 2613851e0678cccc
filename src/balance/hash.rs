//! `hash`: consistent hashing with bounded loads: no member gets more than 1.25 times its share of the requests in flight
//! (V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads").

use super::Candidates;

/// So many requests for each unit of weight are no load: with few in flight a key stays at its member.
const FEW: u64 = 8;

pub(super) fn pick(candidates: &Candidates<'_>, key: u64) -> Option<usize> {
    let cluster = candidates.cluster;
    let (total_weight, in_flight) = (cluster.total_weight(), u64::from(cluster.admission.in_flight()));
    // The bound is for the whole cluster: members that are down or full leave the others less than it allows, and then the
    // next on the ring serves all the same.
    let is_bounded = |place: usize| {
        let most = (in_flight + 1) * 5 * u64::from(cluster.members[place].attributes.weight);
        let (own, weight) = (candidates.in_flight(place), u64::from(cluster.members[place].attributes.weight));
        own < FEW * weight || own * 4 * total_weight < most
    };
    let eligible = || cluster.ring().from(key).filter(|place| candidates.is_eligible(*place));
    eligible().find(|place| is_bounded(*place)).or_else(|| eligible().next())
}
