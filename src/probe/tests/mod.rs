//! Probes as bytes, and the schedule in virtual time.

mod check;
mod schedule;
mod simulation;

use crate::base::clock::Moment;
use crate::cluster::{Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Options};
use std::sync::Arc;

pub(super) fn options(pairs: &[(&str, &str)]) -> Arc<Options> {
    let (options, errors) = Options::read(pairs.iter().copied(), &Options::default());
    assert_eq!(errors, []);
    Arc::new(options)
}

/// A cluster as a catalog makes it, with one backend for each number.
pub(super) fn edit(before: Option<&Cluster>, members: &[u64], options: &Arc<Options>, now: Moment) -> Arc<Cluster> {
    let urls: Vec<_> = members.iter().map(|number| format!("http://10.0.{}.{}", number / 256, number % 256)).collect();
    let urls: Vec<_> = urls.iter().map(|url| BackendUrl::parse(url).expect("a good URL")).collect();
    let backend = |(url, number): (&BackendUrl, &u64)| {
        let known = before.and_then(|before| before.members.iter().find(|member| member.url == *url));
        let make = || Arc::new(Backend::new(BackendId::new(*number), url.endpoint().clone()));
        known.map_or_else(make, |member| Arc::clone(&member.backend))
    };
    let entries = urls.iter().zip(members).map(|pair| (pair.0, backend(pair))).collect();
    Cluster::edit(before, ClusterSpec { created: 0, key: "a", id: "x", entries, options }, now)
}
