//! The ring of consistent hashing: a key leads to the same member, and a member that joins or leaves moves only its own
//! share of the keys.

use super::rotation::gcd;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Points on the ring for each unit of weight.
const POINTS: u32 = 64;

/// The greatest number of points of one ring, 16 bytes each. Weights are scaled down to it.
const MAX_POINTS: u64 = 1 << 15;

/// The ring of a cluster. Lists with the same members, by identity and weight, share one.
#[derive(Debug, Default)]
pub struct Ring {
    points: Box<[(u64, u32)]>,
    /// Identity and weight of each member.
    members: Box<[(u64, u32)]>,
}

/// The hash of a request's key, equal on every node and in every version.
pub fn key_of(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

impl Ring {
    /// The ring of members with these identities and weights.
    pub(super) fn new(members: Box<[(u64, u32)]>) -> Self {
        let unit = members.iter().fold(0, |unit, (_, weight)| gcd(unit, *weight)).max(1);
        let wanted = |weight: u32| u64::from(weight / unit) * u64::from(POINTS);
        let total: u64 = members.iter().map(|(_, weight)| wanted(*weight)).sum();
        let points = |weight: u32| match wanted(weight) {
            points if total <= MAX_POINTS || points == 0 => points,
            points => (points * MAX_POINTS / total).max(1),
        };
        let of_member = |(place, (identity, weight)): (usize, &(u64, u32))| {
            let identity = identity.to_be_bytes();
            (0..points(*weight)).map(move |point| (xxh3_64_with_seed(&identity, point), place as u32))
        };
        let mut ring: Vec<_> = members.iter().enumerate().flat_map(of_member).collect();
        ring.sort_unstable();
        Self { points: ring.into(), members }
    }

    /// Whether it is the ring of these members.
    pub(super) fn is_of(&self, members: &[(u64, u32)]) -> bool {
        *self.members == *members
    }

    /// The members behind `key`, in ring order, each as often as it has points.
    pub fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        self.points[start..].iter().chain(&self.points[..start]).map(|(_, place)| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(members: &[&str]) -> Vec<String> {
        let ring = Ring::new(members.iter().map(|member| (key_of(member.as_bytes()), 1)).collect());
        let owner = |key: u32| ring.from(key_of(&key.to_be_bytes())).next().map(|place| members[place].to_owned());
        (0..10_000).filter_map(owner).collect()
    }

    #[test]
    fn a_member_that_goes_moves_its_own_keys_only() {
        let names: Vec<String> = (0..10).map(|number| format!("10.0.0.{number}:80")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let (before, after) = (owners(&all), owners(&all[..9]));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(before, _)| before == all[9]), "only keys of the one that went");
        assert!((500..1_700).contains(&moved.count()));
    }

    #[test]
    fn a_ring_has_no_more_points_than_it_needs() {
        let of = |weights: &[u32]| Ring::new(weights.iter().map(|weight| (u64::from(*weight), *weight)).collect());
        let count = |weights: &[u32]| of(weights).points.len();
        assert_eq!((count(&[256, 128]), count(&[2, 1]), count(&[0, 7])), (192, 192, 64));
        let many: Vec<u32> = (1..=256).cycle().take(2_000).collect();
        assert!(count(&many) <= MAX_POINTS as usize + many.len());
    }

    #[test]
    fn keys_spread() {
        let owners = owners(&["a", "b", "c", "d"]);
        for member in ["a", "b", "c", "d"] {
            let count = owners.iter().filter(|owner| *owner == member).count();
            assert!((1_800..3_300).contains(&count), "{member} has {count} of 10000");
        }
    }
}
