//! Smooth weighted round robin as a list of turns. Source of the order: nginx.

/// The greatest length of a rotation. Higher weights are scaled down to it.
const MAX_TURNS: u64 = 4096;

/// The order of turns of a cluster, made once for each list.
#[derive(Debug, Default)]
pub struct Rotation {
    turns: Box<[u32]>,
}

impl Rotation {
    /// The rotation of members with these weights. Members of equal weight take turns; a member with a high weight is
    /// not served several times in a row if others can be placed between.
    pub(super) fn new(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
        let scale = |weight: u32| {
            let weight = u64::from(weight / divisor);
            let total = total / u64::from(divisor);
            if total <= MAX_TURNS || weight == 0 { weight } else { (weight * MAX_TURNS / total).max(1) }
        };
        let weights: Vec<i64> = weights.iter().map(|weight| scale(*weight) as i64).collect();
        let turns: i64 = weights.iter().sum();
        let mut current = vec![0; weights.len()];
        let turn = |_| {
            current.iter_mut().zip(&weights).for_each(|(current, weight)| *current += weight);
            let (place, most) =
                current.iter_mut().enumerate().max_by_key(|(place, current)| (**current, -(*place as i64)))?;
            *most -= turns;
            u32::try_from(place).ok()
        };
        Self { turns: (0..turns).filter_map(turn).collect() }
    }

    /// Number of turns.
    pub fn count(&self) -> usize {
        self.turns.len()
    }

    /// The index of the member for this turn number, which wraps.
    pub fn turn(&self, number: usize) -> Option<usize> {
        let turn = number.checked_rem(self.turns.len())?;
        self.turns.get(turn).map(|place| *place as usize)
    }
}

/// The greatest common divisor; for a number and 0 it is the number.
pub(super) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_smooth() {
        let table: [(&[u32], &[u32]); 5] = [
            (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
            (&[1, 1, 1], &[0, 1, 2]),
            (&[100, 100], &[0, 1]),
            (&[0, 2], &[1]),
            (&[], &[]),
        ];
        for (weights, turns) in table {
            assert_eq!(*Rotation::new(weights).turns, *turns, "{weights:?}");
        }
        let long = Rotation::new(&[256; 1000].map(|weight| weight - 1));
        assert_eq!(long.turns.len(), 1000);
        assert!(Rotation::new(&(1..=256).collect::<Vec<_>>()).turns.len() <= 4096 + 256);
    }
}
