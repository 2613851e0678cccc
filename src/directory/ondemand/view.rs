//! An on-demand cluster in the form of views: its settings under x0d's names, and its members.

use super::buckets;
use super::definition::{BackendDefinition, ClusterDefinition};
use super::settings::{Section, seconds};
use super::table::{Entry, is_terminating};
use crate::cluster::{Cluster, MemberState, Route};
use serde_json::{Map, Value};
use std::sync::Arc;

/// An on-demand cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterView(Entry);

impl ClusterView {
    pub(super) fn new(entry: Entry) -> Self {
        Self(entry)
    }

    /// Its definition.
    pub fn definition(&self) -> &ClusterDefinition {
        &self.0.definition
    }

    /// The cluster in use. Its members are in the order of the definition's backends.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.0.route.cluster
    }

    /// The route that leads to it.
    pub fn route(&self) -> &Arc<Route> {
        &self.0.route
    }

    /// Removed backends that finish their requests.
    pub fn terminating(&self) -> impl Iterator<Item = (&BackendDefinition, &Arc<MemberState>)> {
        let terminating = self.0.terminating.iter().filter(|(_, state)| is_terminating(state));
        terminating.map(|(backend, state)| (backend, state))
    }

    /// Whether a backend with this name was removed and finishes its requests.
    pub fn is_terminating(&self, backend: &str) -> bool {
        self.definition().place_of(backend).is_none() && self.terminating().any(|(known, _)| *known.name == *backend)
    }

    /// The settings, the cache's under `cache`, the buckets under `shaper`.
    pub fn settings(&self) -> Map<String, Value> {
        let definition = self.definition();
        let (mut settings, mut cache) = (Map::new(), Map::new());
        for (key, value) in definition.settings.iter() {
            let section = match key.section {
                Section::Director => &mut settings,
                Section::Cache => &mut cache,
            };
            section.insert(key.view.to_owned(), value.json());
        }
        let options: Map<String, Value> =
            definition.options.iter().map(|(name, value)| (name.to_string(), (**value).into())).collect();
        settings.insert("cache".to_owned(), cache.into());
        settings.insert("shaper".to_owned(), buckets::root_json(&definition.buckets, &self.cluster().buckets()));
        settings.insert("hostname".to_owned(), definition.hostname.as_deref().into());
        settings.insert("port".to_owned(), definition.port.into());
        settings.insert("terminate-protection".to_owned(), definition.is_protected.into());
        settings.insert("options".to_owned(), options.into());
        settings
    }

    /// A bucket; `None` if there is none with this name.
    pub fn bucket(&self, name: &str) -> Option<Value> {
        let live = self.cluster().buckets();
        buckets::find(&self.definition().buckets, name).map(|bucket| bucket.json(&live))
    }
}

impl BackendDefinition {
    /// The time between two probes, in seconds.
    pub fn interval(&self) -> Value {
        seconds(self.health_interval)
    }
}
