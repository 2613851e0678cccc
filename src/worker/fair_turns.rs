//! The order in which tenants with work have their turns: the one that has used the least time for its weight is next.
//!
//! It is start-time fair queueing, as in Linux's CFS: a tenant has a clock that runs while it is served, slower the more weight
//! it has, and the tenant whose clock is behind all others is next. A tenant that comes back with work starts at the clock of
//! the tenant that was served last: it gets no credit for its idle time, and waits for one turn of others at most. Nothing is
//! held back while a core is idle.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// The time on a tenant's clock of one nanosecond of work at a weight of 1.
const SCALE: u64 = 1024;

/// So many tenants are remembered in any case: only beyond them are those forgotten that owe nothing.
const REMEMBERED: usize = 64;

/// Work of several tenants.
#[derive(Debug)]
pub(super) struct FairTurns<K, T> {
    tenants: HashMap<K, Tenant<T>>,
    /// The clocks of those with work.
    ready: BTreeSet<(u64, K)>,
    /// Where the clock of the tenant stood that was served last.
    now: u64,
    /// The tenant that has its turn.
    in_turn: Option<K>,
    counts: fn(K) -> bool,
    counted: usize,
    /// With more tenants than this, it is looked for those that owe nothing.
    forget_beyond: usize,
}

#[derive(Debug)]
struct Tenant<T> {
    work: VecDeque<T>,
    clock: u64,
}

impl<K: Copy + Ord + Hash, T> FairTurns<K, T> {
    /// No work. `counts` says which tenants [`FairTurns::counted`] is about.
    pub(super) fn new(counts: fn(K) -> bool) -> Self {
        Self {
            tenants: HashMap::new(),
            ready: BTreeSet::new(),
            now: 0,
            in_turn: None,
            counts,
            counted: 0,
            forget_beyond: REMEMBERED,
        }
    }

    /// Whether no tenant has work.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Adds work of a tenant, behind what it has.
    pub(super) fn push(&mut self, key: K, work: T) {
        let (now, counts, counted) = (self.now, self.counts, &mut self.counted);
        let tenant = self.tenants.entry(key).or_insert_with(|| {
            *counted += usize::from(counts(key));
            Tenant { work: VecDeque::new(), clock: now }
        });
        if tenant.work.is_empty() && self.in_turn != Some(key) {
            tenant.clock = tenant.clock.max(now);
            self.ready.insert((tenant.clock, key));
        }
        tenant.work.push_back(work);
    }

    /// The tenant whose turn it is. [`FairTurns::end_turn`] has to follow.
    pub(super) fn begin_turn(&mut self) -> Option<K> {
        let (clock, key) = self.ready.pop_first()?;
        (self.now, self.in_turn) = (clock, Some(key));
        Some(key)
    }

    /// The next work of a tenant that has its turn.
    pub(super) fn take(&mut self, key: K) -> Option<T> {
        self.tenants.get_mut(&key)?.work.pop_front()
    }

    /// Ends the turn of a tenant, in which it was served for so many nanoseconds.
    pub(super) fn end_turn(&mut self, key: K, nanos: u64, weight: u32) {
        self.in_turn = None;
        let Some(tenant) = self.tenants.get_mut(&key) else { return };
        // A turn is never free: otherwise one that is shorter than the clock's step would go on and on.
        tenant.clock =
            tenant.clock.saturating_add((nanos.max(1).saturating_mul(SCALE) / u64::from(weight.max(1))).max(1));
        if !tenant.work.is_empty() {
            self.ready.insert((tenant.clock, key));
        }
        if self.ready.is_empty() {
            // The core is idle: use beyond a share has cost no other tenant anything.
            self.tenants.clear();
            (self.now, self.counted, self.forget_beyond) = (0, 0, REMEMBERED);
        } else if self.tenants.len() > self.forget_beyond {
            self.forget();
        }
    }

    /// Forgets the tenants that have no work and owe nothing. The next time is when there are twice as many as are left, so it
    /// costs each turn the same, however many tenants there are.
    #[cold]
    fn forget(&mut self) {
        let (now, counts) = (self.now, self.counts);
        self.tenants.retain(|_, tenant| !tenant.work.is_empty() || tenant.clock > now);
        self.counted = self.tenants.keys().filter(|key| counts(**key)).count();
        self.forget_beyond = REMEMBERED.max(2 * self.tenants.len());
    }

    /// The number of remembered tenants that count.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::TenantKey;

    fn key(number: u16) -> TenantKey {
        TenantKey::of_test(number)
    }

    /// Gives a turn of up to `most` items, each of which takes so long; returns whose turn it was.
    fn turn(
        turns: &mut FairTurns<TenantKey, u64>,
        most: usize,
        weight: impl Fn(TenantKey) -> u32,
    ) -> Option<(TenantKey, u64)> {
        let tenant = turns.begin_turn()?;
        let nanos = (0..most).map_while(|_| turns.take(tenant)).sum();
        turns.end_turn(tenant, nanos, weight(tenant));
        Some((tenant, nanos))
    }

    #[test]
    fn a_thousand_of_one_tenant_stand_before_no_other() {
        let mut turns = FairTurns::new(|_| true);
        (0..1000).for_each(|_| turns.push(key(1), 10));
        let first = turn(&mut turns, 4, |_| 1);
        assert_eq!(first, Some((key(1), 40)));
        turns.push(key(2), 10);
        assert_eq!(turn(&mut turns, 4, |_| 1), Some((key(2), 10)), "it waits for one turn of the other");
        // Back at once, it has used less time than the other one.
        turns.push(key(2), 10);
        assert_eq!(turn(&mut turns, 4, |_| 1), Some((key(2), 10)));
        assert_eq!(turn(&mut turns, 4, |_| 1), Some((key(1), 40)));
    }

    #[test]
    fn idle_time_is_no_credit() {
        let mut turns = FairTurns::new(|_| true);
        (0..1000).for_each(|_| turns.push(key(1), 10));
        (0..100).for_each(|_| _ = turn(&mut turns, 1, |_| 1));
        (0..100).for_each(|_| turns.push(key(2), 10));
        let of_second = (0..100).filter(|_| turn(&mut turns, 1, |_| 1) == Some((key(2), 10))).count();
        assert!((50..=51).contains(&of_second), "{of_second} of 100 turns");
    }

    #[test]
    fn an_idle_core_remembers_nothing_and_work_in_a_turn_is_kept() {
        let mut turns = FairTurns::new(|_| true);
        turns.push(key(1), 1_000_000);
        let tenant = turns.begin_turn().expect("a tenant");
        turns.take(tenant);
        turns.push(key(1), 7);
        turns.end_turn(tenant, 1_000_000, 1);
        assert_eq!(turn(&mut turns, 4, |_| 1), Some((key(1), 7)));
        assert!(turns.is_empty() && turns.tenants.is_empty() && turns.begin_turn().is_none());
    }

    #[test]
    fn tenants_that_owe_nothing_are_forgotten_while_others_work() {
        let mut turns = FairTurns::new(|_| true);
        (0..100_000).for_each(|_| turns.push(key(0), 1));
        for tenant in 1..20_000 {
            turns.push(key(tenant), 1);
            (0..2).for_each(|_| _ = turn(&mut turns, 1, |_| 1));
            assert!(turns.tenants.len() <= REMEMBERED + 1, "{} tenants are remembered", turns.tenants.len());
        }
    }

    /// Tenants with work all the time have their parts of the time by their weights, whatever their requests cost; none waits
    /// for longer than the turns of the others allow, and the core is never idle while there is work.
    #[test]
    fn time_is_shared_by_the_weights() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let weights: Vec<u32> = (0..random.usize(2..6)).map(|_| random.u32(1..20)).collect();
            let costs: Vec<u64> = weights.iter().map(|_| random.u64(1_000..100_000)).collect();
            let mut turns = FairTurns::new(|_| true);
            let mut used = vec![0_u64; weights.len()];
            for _ in 0..20_000 {
                for (place, cost) in costs.iter().enumerate() {
                    let tenant = key(u16::try_from(place).expect("few"));
                    if turns.tenants.get(&tenant).is_none_or(|tenant| tenant.work.len() < 8) {
                        turns.push(tenant, random.u64(1..=*cost));
                    }
                }
                let (tenant, nanos) = turn(&mut turns, 4, |key| weights[usize::from(key.number())]).expect("work");
                used[usize::from(tenant.number())] += nanos;
            }
            let (all, whole) = (used.iter().sum::<u64>(), u64::from(weights.iter().sum::<u32>()));
            for (place, weight) in weights.iter().enumerate() {
                let fair = all * u64::from(*weight) / whole;
                assert!(used[place].abs_diff(fair) * 50 <= all, "seed {seed}: {used:?} for {weights:?}");
            }
        }
    }
}
