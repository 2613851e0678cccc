//! The choice of clusters with their own series, and the sum of all others.
//!
//! Collectors keep every series that they have seen for a while, so the choice changes slowly: a cluster stays for at
//! least ten minutes, and is then replaced only by one that is twice as busy. Clusters with the option `metrics` have
//! series besides.

use super::clusters::{Load, load_of};
use super::patience::{Patience, cpu_time};
use crate::base::clock::{Clock, Moment};
use crate::cluster::Cluster;
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of clusters with their own series.
const MAX_NAMED: usize = 100;

/// The greatest number of further clusters that have series because of their option `metrics`.
const MAX_PINNED: usize = 1000;

/// The least time for which a cluster keeps its series.
const STAY: Duration = Duration::from_secs(600);

/// Time in which earlier counts lose half of their weight.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// From this number of clusters on, a look is followed by a pause of [`REST`] times its CPU time: 0.5 % of a core.
const MANY: usize = 5000;
const REST: u32 = 200;

/// The name of all others. A cluster with this name has no series of its own.
pub(super) const OTHER: &str = "other";

/// The chosen clusters; see the module.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The clusters with their own series, and since when, by the address of each one's part that outlives edits.
    named: HashMap<usize, Moment>,
    /// The state of every cluster at the last look.
    seen: HashMap<usize, Seen>,
    looked: Moment,
    /// Counts of clusters while they had no series.
    others: Counts,
    choice: Option<Choice>,
}

/// The result of a look.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The clusters that have series, by key.
    pub(super) named: Vec<Arc<Cluster>>,
    /// The sum of all others; `None` if there are none.
    pub(super) others: Option<Load>,
    /// The number of clusters.
    pub(super) count: u64,
    /// When it has to be made again.
    until: Moment,
}

/// Counts of a cluster at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    counts: Counts,
    /// Number of requests, with less weight for older ones.
    activity: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    requests: u64,
    failures: u64,
    queued: u64,
    dropped: u64,
}

impl Counts {
    fn of(load: &Load) -> Self {
        Self { requests: load.requests, failures: load.failures, queued: load.queued, dropped: load.dropped }
    }

    /// The increase since. Counts below the earlier ones belong to a new cluster.
    fn since(self, before: Self) -> Self {
        let before = if self.requests < before.requests { Self::default() } else { before };
        Self {
            requests: self.requests - before.requests,
            failures: self.failures.saturating_sub(before.failures),
            queued: self.queued.saturating_sub(before.queued),
            dropped: self.dropped.saturating_sub(before.dropped),
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.queued += other.queued;
        self.dropped += other.dropped;
    }
}

/// A cluster at this look.
struct Look<'a> {
    cluster: &'a Arc<Cluster>,
    place: usize,
    load: Load,
    activity: f64,
    is_named: bool,
    /// It keeps its series while its option `metrics` is set.
    is_pinned: bool,
}

impl Series {
    /// The choice at this moment. With many clusters it is made less often than it is asked for, so that scrapes take a small
    /// part of a core.
    pub(super) fn choice(&mut self, clock: Clock, all: impl FnOnce() -> Vec<Arc<Cluster>>) -> Choice {
        let started = clock.now();
        if let Some(choice) = self.choice.take_if(|choice| started < choice.until) {
            return self.choice.insert(choice).clone();
        }
        let worked = cpu_time();
        let all = all();
        let (mut named, others) = self.look(&all, started);
        named.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let rest = if all.len() < MANY { Duration::ZERO } else { cpu_time().saturating_sub(worked) * REST };
        self.choice.insert(Choice { named, others, count: all.len() as u64, until: clock.now() + rest }).clone()
    }

    /// The clusters that have series now, and the sum of all others; `None` if there are no others.
    pub(super) fn look(&mut self, all: &[Arc<Cluster>], now: Moment) -> (Vec<Arc<Cluster>>, Option<Load>) {
        let decay = 0.5_f64.powf(now.since(self.looked).as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.looked = now;
        let before = std::mem::replace(&mut self.seen, HashMap::with_capacity(all.len()));
        let mut looks = Vec::with_capacity(all.len());
        let patience = Patience::default();
        for cluster in all {
            patience.row();
            let place = Arc::as_ptr(&cluster.admission) as usize;
            let (load, known) = (load_of(cluster), before.get(&place).copied().unwrap_or_default());
            let counts = Counts::of(&load);
            let fresh = counts.since(known.counts);
            let activity = known.activity * decay + fresh.requests as f64;
            self.seen.insert(place, Seen { counts, activity });
            let is_named = self.named.contains_key(&place);
            if !is_named {
                self.others.add(fresh);
            }
            looks.push(Look { cluster, place, load, activity, is_named, is_pinned: false });
        }
        self.choose(&mut looks, now);
        let (named, others): (Vec<_>, Vec<_>) = looks.iter().partition(|look| look.is_named);
        let sum = (!others.is_empty() || self.others != Counts::default()).then(|| self.sum(&others));
        (named.iter().map(|look| Arc::clone(look.cluster)).collect(), sum)
    }

    /// Names the clusters whose option asks for it. A cluster that has series already comes first.
    fn pin(&mut self, looks: &mut [Look<'_>], before: &HashMap<usize, Moment>, now: Moment) {
        let mut asking: Vec<_> =
            looks.iter_mut().filter(|look| look.cluster.options.metrics && *look.cluster.key != *OTHER).collect();
        asking
            .sort_unstable_by(|one, other| (other.is_named, &one.cluster.key).cmp(&(one.is_named, &other.cluster.key)));
        for look in asking.into_iter().take(MAX_PINNED) {
            look.is_pinned = true;
            self.name(look, before.get(&look.place).copied().unwrap_or(now));
        }
    }

    /// Gives free places to the busiest clusters without one, and replaces clusters that are less than half as busy.
    fn choose(&mut self, looks: &mut [Look<'_>], now: Moment) {
        let before = std::mem::take(&mut self.named);
        self.pin(looks, &before, now);
        let mut named: Vec<&mut Look<'_>> = Vec::new();
        let mut new: Vec<&mut Look<'_>> = Vec::new();
        for look in looks.iter_mut().filter(|look| !look.is_pinned) {
            let list = if look.is_named { &mut named } else { &mut new };
            list.push(look);
        }
        let since = |look: &Look<'_>| before.get(&look.place).copied().unwrap_or(now);
        self.named.extend(named.iter().map(|look| (look.place, since(look))));
        new.retain(|look| *look.cluster.key != *OTHER);
        if new.len() > MAX_NAMED {
            new.select_nth_unstable_by(MAX_NAMED, |one, other| other.activity.total_cmp(&one.activity));
            new.truncate(MAX_NAMED);
        }
        new.sort_unstable_by(|one, other| other.activity.total_cmp(&one.activity));
        let excess = named.len().saturating_sub(MAX_NAMED);
        let free = MAX_NAMED.saturating_sub(named.len()).min(new.len());
        let rest = new.split_off(free);
        new.into_iter().for_each(|look| self.name(look, now));
        named.retain(|look| now.since(since(look)) >= STAY);
        named.sort_unstable_by(|one, other| one.activity.total_cmp(&other.activity));
        // Clusters whose option was taken away stay for as long as others do.
        for look in named.drain(..excess.min(named.len())) {
            look.is_named = false;
            self.named.remove(&look.place);
        }
        for (look, leaving) in rest.into_iter().zip(named) {
            // The remaining candidates are in descending order, and those that may leave in ascending order.
            if look.activity <= 2.0 * leaving.activity.max(1.0) {
                break;
            }
            leaving.is_named = false;
            self.named.remove(&leaving.place);
            self.name(look, now);
        }
    }

    fn name(&mut self, look: &mut Look<'_>, now: Moment) {
        look.is_named = true;
        self.named.insert(look.place, now);
    }

    fn sum(&self, others: &[&Look<'_>]) -> Load {
        let Counts { requests, failures, queued, dropped } = self.others;
        let add = |sum: Load, look: &&Look<'_>| Load {
            in_flight: sum.in_flight + look.load.in_flight,
            waiting: sum.waiting + look.load.waiting,
            members: sum.members + look.load.members,
            ..sum
        };
        others.iter().fold(Load { requests, failures, queued, dropped, ..Load::default() }, add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterSpec, Options};
    use std::collections::BTreeSet;

    fn cluster(key: &str) -> Arc<Cluster> {
        Cluster::edit(
            None,
            ClusterSpec { created: 0, key, id: "x", entries: Vec::new(), options: &Options::none() },
            Moment::ZERO,
        )
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn count(cluster: &Cluster, requests: u64, now: Moment) {
        (0..requests).for_each(|number| cluster.admission.history().count(number % 4 == 0, now));
    }

    fn keys(named: &[Arc<Cluster>]) -> BTreeSet<String> {
        named.iter().map(|cluster| cluster.key.to_string()).collect()
    }

    #[test]
    fn the_choice_changes_slowly_and_the_rest_counts_as_other() {
        let all: Vec<_> = (0..150).map(|number| cluster(&format!("h{number:03}"))).collect();
        let mut series = Series::default();
        all.iter().take(100).for_each(|cluster| count(cluster, 8, at(1)));
        let (first, others) = series.look(&all, at(1));
        assert_eq!(keys(&first), keys(&all[..100]), "the busiest");
        assert_eq!(others.map(|load| (load.requests, load.failures)), Some((800, 200)), "until now none had a series");
        // Other clusters are a little busier from look to look: nothing changes, and their requests are counted.
        for second in 2..700 {
            all.iter().skip(50).for_each(|cluster| count(cluster, 4, at(second)));
            all.iter().take(100).for_each(|cluster| count(cluster, 3, at(second)));
            let (named, others) = series.look(&all, at(second));
            assert_eq!(keys(&named), keys(&first), "at {second}");
            let others = others.expect("others");
            let expected = (800 + (second - 1) * 200, 200 + (second - 1) * 50);
            assert_eq!((others.requests, others.failures), expected, "at {second}");
        }
        // One is far busier than the least busy ones, whose time is over.
        count(&all[149], 100_000, at(700));
        let (named, _) = series.look(&all, at(700));
        let (named, first) = (keys(&named), keys(&first));
        assert_eq!((named.len(), named.difference(&first).collect::<Vec<_>>()), (100, vec![&"h149".to_owned()]));
        // A cluster that is gone frees its place.
        let (named, _) = series.look(&all[1..], at(701));
        assert!(!keys(&named).contains("h000") && named.len() == 100);
    }

    #[test]
    fn many_clusters_are_looked_at_less_often() {
        let clock = Clock::new();
        let few: Vec<_> = (0..3).map(|number| cluster(&format!("h{number}"))).collect();
        let mut series = Series::default();
        assert_eq!(series.choice(clock, || few.clone()).count, 3);
        assert_eq!(series.choice(clock, || few[..2].to_vec()).count, 2, "few are looked at each time");
        let many: Vec<_> = (0..MANY).map(|number| cluster(&format!("h{number}"))).collect();
        let choice = series.choice(clock, || many.clone());
        assert_eq!((choice.count, choice.named.len()), (MANY as u64, MAX_NAMED));
        assert!(choice.until > clock.now());
        let again = series.choice(clock, || panic!("it is too early"));
        assert_eq!((again.count, keys(&again.named)), (choice.count, keys(&choice.named)));
        series.choice.as_mut().expect("a choice").until = Moment::ZERO;
        assert_eq!(series.choice(clock, || few.clone()).count, 3, "when its time has come");
    }

    #[test]
    fn counts_of_others_never_fall() {
        let all: Vec<_> = (0..120).map(|number| cluster(&format!("h{number:03}"))).collect();
        let mut random = fastrand::Rng::with_seed(3);
        let mut series = Series::default();
        let mut before = 0;
        for step in 1..200 {
            for _ in 0..20 {
                count(&all[random.usize(..all.len())], random.u64(..2000), at(step * 30));
            }
            let shown: Vec<_> = all.iter().filter(|_| random.u8(..10) > 0).cloned().collect();
            let requests = series.look(&shown, at(step * 30)).1.map_or(before, |load| load.requests);
            assert!(requests >= before, "step {step}: {requests} after {before}");
            before = requests;
        }
    }

    #[test]
    fn a_cluster_whose_option_asks_for_it_has_series_besides_the_busiest() {
        let (pinned, errors) = Options::read([("metrics", "true")], &Options::none());
        let pinned = Arc::new(pinned);
        assert_eq!(errors, []);
        let quiet = |options: &Arc<Options>| {
            let spec = ClusterSpec { created: 0, key: "quiet", id: "x", entries: Vec::new(), options };
            Cluster::edit(None, spec, Moment::ZERO)
        };
        let mut all: Vec<_> = (0..150).map(|number| cluster(&format!("h{number:03}"))).collect();
        all.iter().for_each(|cluster| count(cluster, 8, at(1)));
        all.push(quiet(&pinned));
        let mut series = Series::default();
        let (named, _) = series.look(&all, at(1));
        assert!(keys(&named).contains("quiet") && named.len() == 101, "{:?}", keys(&named));
        // It loses the option, and later its series, since others are busier.
        let last = all.len() - 1;
        all[last] = Cluster::edit(
            Some(&all[last]),
            ClusterSpec { created: 0, key: "quiet", id: "x", entries: Vec::new(), options: &Options::none() },
            at(2),
        );
        let (named, _) = series.look(&all, at(2));
        assert!(keys(&named).contains("quiet") && named.len() == 101, "{:?}", keys(&named));
        let (named, _) = series.look(&all, at(700));
        assert!(!keys(&named).contains("quiet") && named.len() == 100, "{:?}", keys(&named));
    }

    #[test]
    fn a_cluster_called_other_has_no_series_of_its_own() {
        let all = [cluster(OTHER), cluster("a")];
        count(&all[0], 3, at(1));
        let (named, others) = Series::default().look(&all, at(1));
        assert_eq!((keys(&named), others.map(|load| load.requests)), (BTreeSet::from(["a".to_owned()]), Some(3)));
    }
}
