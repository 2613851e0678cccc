//! Routes of a source that knows all patterns: their lists, and the hosts in use that resolve to them.

use super::catalog::{Catalog, Clusters, FrontendRecord};
use crate::base::clock::Moment;
use crate::cluster::{Backend, Route};
use crate::route;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The lists by pattern: a host, `*.suffix` or `*`.
pub(super) type FrontendRecords = HashMap<Box<str>, FrontendRecord>;

/// All lists, and the results made from them. Pure: no thread, no clock, no file.
#[derive(Debug, Default)]
pub(super) struct Table {
    records: FrontendRecords,
    catalog: Catalog,
}

/// The effect of an edit of the lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The hosts in use whose route has changed or is gone.
    pub(super) hosts: Vec<Arc<str>>,
    /// Whether a host that was unknown may have a route now.
    pub(super) unknowns: bool,
}

impl Table {
    /// A table without lists, which publishes its clusters in `clusters`.
    pub(super) fn new(clusters: Clusters) -> Self {
        Self { records: FrontendRecords::new(), catalog: Catalog::new(clusters) }
    }

    /// The route of `host`, which is in use from now on; `None` if no candidate pattern has a list.
    pub(super) fn look_up(&mut self, host: &Arc<str>, now: Moment) -> Option<Arc<Route>> {
        if let Some(route) = self.catalog.get(host) {
            return Some(route);
        }
        let (pattern, record) = resolve(&self.records, host)?;
        self.catalog.set(host, pattern, record, now);
        self.catalog.get(host)
    }

    /// Replaces all lists by `records`. Parts that stay the same change nothing.
    pub(super) fn replace(&mut self, records: FrontendRecords, now: Moment) -> Changes {
        let before = std::mem::replace(&mut self.records, records);
        let set = self.records.iter().filter(|(pattern, record)| before.get(*pattern) != Some(*record));
        let set = set.map(|(pattern, _)| &**pattern);
        let gone = before.keys().filter(|pattern| !self.records.contains_key(*pattern)).map(|pattern| &**pattern);
        let touched: HashSet<&str> = set.chain(gone).collect();

        let mut changes = Changes {
            hosts: Vec::new(),
            // Edits and removals leave every unknown host unknown.
            unknowns: touched.iter().any(|pattern| !before.contains_key(*pattern)),
        };
        let hosts = affected(&self.catalog, &touched);
        for host in &hosts {
            if let Some((pattern, record)) = resolve(&self.records, host) {
                self.catalog.leave_key(host, pattern, record);
            }
        }
        for host in hosts {
            match resolve(&self.records, &host) {
                Some((pattern, record)) => changes.hosts.extend(self.catalog.set(&host, pattern, record, now)),
                None => changes.hosts.extend(self.catalog.remove(&host).then_some(host)),
            }
        }
        changes
    }

    /// Whether `host` is in use.
    pub(super) fn contains(&self, host: &str) -> bool {
        self.catalog.contains(host)
    }

    /// The number of patterns.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Backends made since the last call whose name has to be resolved.
    pub(super) fn take_unresolved(&mut self) -> Vec<Arc<Backend>> {
        self.catalog.take_unresolved()
    }
}

fn resolve<'r>(records: &'r FrontendRecords, host: &str) -> Option<(&'r str, &'r FrontendRecord)> {
    route::patterns(host)
        .find_map(|pattern| records.get_key_value(&*pattern))
        .map(|(pattern, record)| (&**pattern, record))
}

/// The hosts in use whose route may have changed with the lists of the `touched` patterns.
fn affected(catalog: &Catalog, touched: &HashSet<&str>) -> Vec<Arc<str>> {
    // A pattern without a star concerns one host only, so the usual edit needs no walk over all hosts.
    if touched.iter().all(|pattern| !pattern.starts_with('*')) {
        return touched.iter().filter(|host| catalog.contains(host)).map(|host| Arc::from(*host)).collect();
    }
    let concerns =
        |(host, _): &(&Arc<str>, &Route)| route::patterns(host).any(|candidate| touched.contains(&*candidate));
    catalog.iter().filter(concerns).map(|(host, _)| Arc::clone(host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{BackendId, BackendUrl, Cluster, Endpoint, Mark, Options};

    const NOW: Moment = Moment::ZERO;

    const HOSTS: &[&str] = &["a", "b.a", "c.b.a", "d.b.a", "d.c.b.a", "x.y", "z"];
    const PATTERNS: &[&str] = &["a", "b.a", "c.b.a", "*.b.a", "*.a", "x.y", "*.y", "*.c.b.a", "*"];

    fn record(id: &str, urls: &[&str]) -> FrontendRecord {
        let url = |url: &&str| BackendUrl::parse(url).expect("a good URL");
        FrontendRecord { id: id.into(), backends: urls.iter().map(url).collect(), options: Options::none(), created: 0 }
    }

    fn records(rows: &[(&str, &[&str])]) -> FrontendRecords {
        rows.iter().map(|(pattern, urls)| ((*pattern).into(), record("x", urls))).collect()
    }

    fn pattern_of(table: &mut Table, host: &str) -> Option<Box<str>> {
        table.look_up(&host.into(), NOW).map(|route| route.cluster.key.clone())
    }

    #[test]
    fn the_first_pattern_with_a_list_wins_even_one_without_backends() {
        let mut table = Table::default();
        table.replace(records(&[("c.b.a", &[]), ("*.b.a", &["http://10.0.0.1"]), ("*.a", &["http://10.0.0.2"])]), NOW);
        let rows = [("c.b.a", Some("c.b.a")), ("d.b.a", Some("*.b.a")), ("b.a", Some("*.a")), ("a", None), ("z", None)];
        for (host, expected) in rows {
            assert_eq!(pattern_of(&mut table, host).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn only_hosts_in_use_with_another_result_are_reported() {
        let mut table = Table::default();
        let one: &[&str] = &["http://10.0.0.1"];
        let two: &[&str] = &["http://10.0.0.2"];
        let changes = table.replace(records(&[("a", one), ("b.a", one), ("*.a", one)]), NOW);
        assert_eq!(changes, Changes { hosts: vec![], unknowns: true });
        for host in ["a", "b.a", "c.a"] {
            table.look_up(&host.into(), NOW);
        }
        type Row<'a> = (&'a [(&'a str, &'a [&'a str])], &'a [&'a str], bool);
        let steps: &[Row<'_>] = &[
            (&[("a", one), ("b.a", one), ("*.a", one)], &[], false),
            (&[("a", two), ("b.a", one), ("*.a", one)], &["a"], false),
            (&[("a", two), ("b.a", one), ("*.a", two)], &["c.a"], false),
            (&[("a", two), ("*.a", two)], &["b.a"], false),
            (&[("a", two), ("b.a", one), ("*.a", two)], &["b.a"], true),
            (&[("a", two), ("b.a", one), ("*.a", two), ("never.asked", one)], &[], true),
            (&[("a", two), ("b.a", one)], &["c.a"], false),
            (&[("a", two), ("b.a", one), ("*", one)], &[], true),
        ];
        for (number, (rows, hosts, unknowns)) in steps.iter().enumerate() {
            let changes = table.replace(records(rows), NOW);
            assert_eq!(
                (changes.hosts.iter().map(|host| &**host).collect::<Vec<_>>(), changes.unknowns),
                (hosts.to_vec(), *unknowns),
                "step {number}"
            );
        }
        assert_eq!(pattern_of(&mut table, "c.a").as_deref(), Some("*"));
    }

    /// The routes that a core would hold, updated by its mail alone.
    #[derive(Default)]
    struct Core {
        cached: HashMap<&'static str, Option<Arc<Route>>>,
    }

    impl Core {
        fn hear(&mut self, changes: &Changes) {
            self.cached.retain(|host, route| {
                let is_true = if route.is_none() { !changes.unknowns } else { true };
                is_true && !changes.hosts.iter().any(|changed| **changed == **host)
            });
        }
    }

    /// Random edits against a plain model: at rest, a core holds the routes that the lists define, members and backends
    /// keep their identity, and only removed ones are marked as removed.
    #[test]
    fn random_edits_never_leave_a_core_with_a_stale_result() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut table = Table::default();
            let mut model: Vec<(&str, FrontendRecord)> = Vec::new();
            let mut subscribers = [Core::default(), Core::default()];
            for step in 0..40 {
                edit(&mut model, &mut rng);
                let before: HashMap<_, _> =
                    table.catalog.iter().map(|(host, f)| (Arc::clone(host), f.marks.clone())).collect();
                let changes = table
                    .replace(model.iter().map(|(pattern, record)| ((*pattern).into(), record.clone())).collect(), NOW);
                for (host, marks) in &before {
                    check_marks(marks, table.catalog.get(host).as_deref(), seed, step);
                }
                for core in &mut subscribers {
                    core.hear(&changes);
                    for (host, cached) in &core.cached {
                        check_result(&model, host, cached.as_deref(), seed, step);
                    }
                    let host = HOSTS[rng.usize(..HOSTS.len())];
                    core.cached.insert(host, table.look_up(&host.into(), NOW));
                    check_result(&model, host, core.cached[host].as_deref(), seed, step);
                }
                check_sharing(&table, seed, step);
            }
        }
    }

    fn edit(model: &mut Vec<(&'static str, FrontendRecord)>, rng: &mut fastrand::Rng) {
        for _ in 0..rng.usize(0..4) {
            let pattern = PATTERNS[rng.usize(..PATTERNS.len())];
            model.retain(|(known, _)| *known != pattern);
            if rng.u8(..3) > 0 {
                let urls: Vec<_> = (0..rng.usize(0..5)).map(|_| format!("http://10.0.0.{}", rng.u8(1..6))).collect();
                let urls: Vec<_> = urls.iter().map(String::as_str).collect();
                model.push((pattern, record(["x", "y"][rng.usize(..2)], &urls)));
            }
        }
    }

    fn check_result(model: &[(&str, FrontendRecord)], host: &str, result: Option<&Route>, seed: u64, step: usize) {
        let fits = |pattern: &str| match pattern.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == pattern,
        };
        let best = model
            .iter()
            .filter(|(pattern, _)| fits(pattern))
            .max_by_key(|(pattern, _)| (*pattern == host, pattern.len()));
        let urls = result.map(|f| f.cluster.members.iter().map(|member| member.url.clone()).collect::<Vec<_>>());
        assert_eq!(
            result.map(|f| (&*f.cluster.key, &*f.cluster.id)),
            best.map(|(pattern, record)| (*pattern, &*record.id)),
            "{host}, seed {seed}, step {step}"
        );
        assert_eq!(urls, best.map(|(_, record)| record.backends.to_vec()), "{host}, seed {seed}, step {step}");
    }

    fn check_marks(before: &[Arc<Mark>], now: Option<&Route>, seed: u64, step: usize) {
        let now = now.map_or(&[][..], |route| &route.marks);
        assert!(now.iter().all(|mark| !mark.is_removed()), "seed {seed}, step {step}");
        for mark in before {
            let stayed = now.iter().find(|other| other.backend.endpoint() == mark.backend.endpoint());
            assert_eq!(mark.is_removed(), stayed.is_none(), "seed {seed}, step {step}");
            assert!(stayed.is_none_or(|stayed| Arc::ptr_eq(stayed, mark)), "seed {seed}, step {step}");
        }
    }

    fn check_sharing(table: &Table, seed: u64, step: usize) {
        let mut ids: HashMap<&Endpoint, BackendId> = HashMap::new();
        let mut clusters: HashMap<&str, *const Cluster> = HashMap::new();
        for (_, route) in table.catalog.iter() {
            let cluster = Arc::as_ptr(&route.cluster);
            assert_eq!(*clusters.entry(&route.cluster.key).or_insert(cluster), cluster, "seed {seed}, step {step}");
            for (member, mark) in route.cluster.members.iter().zip(&route.marks) {
                let id = *ids.entry(member.url.endpoint()).or_insert(member.backend.id());
                assert_eq!((id, id), (member.backend.id(), mark.backend.id()), "seed {seed}, step {step}");
                assert!(!member.state.is_removed(), "seed {seed}, step {step}");
            }
        }
    }
}
