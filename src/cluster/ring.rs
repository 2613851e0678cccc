//! The ring of consistent hashing: the same key leads to the same member, and a member that comes or goes moves only its
//! own share of the keys.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Points on the ring for each unit of weight.
const POINTS: u32 = 64;

/// The most points of one ring. Weights are scaled down to it.
const MAX_POINTS: u64 = 1 << 17;

/// The ring of a cluster, made once for each list.
#[derive(Debug, Default)]
pub struct Ring(Box<[(u64, u32)]>);

/// The hash of a request's key. The same on every node and in every version.
pub fn key_of(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

impl Ring {
    /// The ring of members with these identities and weights.
    pub(super) fn new(members: impl Iterator<Item = (u64, u32)> + Clone) -> Self {
        let total: u64 = members.clone().map(|(_, weight)| u64::from(weight) * u64::from(POINTS)).sum();
        let points = |weight: u32| {
            let points = u64::from(weight) * u64::from(POINTS);
            if total <= MAX_POINTS || points == 0 { points } else { (points * MAX_POINTS / total).max(1) }
        };
        let mut ring: Vec<_> = members
            .enumerate()
            .flat_map(|(place, (identity, weight))| {
                (0..points(weight)).map(move |point| (xxh3_64_with_seed(&identity.to_be_bytes(), point), place as u32))
            })
            .collect();
        ring.sort_unstable();
        Self(ring.into())
    }

    /// The members behind `key`, in their order on the ring, each as often as it has points.
    pub fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.0.partition_point(|(point, _)| *point < key);
        self.0[start..].iter().chain(&self.0[..start]).map(|(_, place)| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(members: &[&str]) -> Vec<String> {
        let ring = Ring::new(members.iter().map(|member| (key_of(member.as_bytes()), 1)));
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
    fn keys_spread() {
        let owners = owners(&["a", "b", "c", "d"]);
        for member in ["a", "b", "c", "d"] {
            let count = owners.iter().filter(|owner| *owner == member).count();
            assert!((1_800..3_300).contains(&count), "{member} has {count} of 10000");
        }
    }
}
