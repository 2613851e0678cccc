//! Lowering of a model to its served form: listeners, clusters and programs.
//!
//! Every field of the model is destructured here by name, so none can be forgotten: it is served, or a finding reports
//! what is left out. The check prints the same findings.

mod errors;
mod frontends;
mod listeners;
mod options;
mod servers;
mod uses;

pub use listeners::{PlannedCertificate, PlannedListener, PlannedTls};

use super::environment::Environment;
use super::keyword::Treatment;
use super::model::{Global, Model};
use super::position::Position;
use super::program::{RequestView, Scratch};
use super::rules::Side;
use super::sections::Finding;
use super::serve::{Configuration, ServedServer};
use crate::cluster::{BackendUrl, Options};
use std::net::SocketAddr;
use std::sync::Arc;

/// The served form of a configuration.
#[derive(Debug, Default)]
pub struct Plan {
    /// The listening addresses.
    pub listeners: Vec<PlannedListener>,
    /// The cluster of each proxy, in the order of the model; `None` for a proxy without one.
    pub clusters: Vec<Option<PlannedCluster>>,
    /// The configuration for workers. Its routes are set later ([`Configuration::with_routes`]).
    pub configuration: Configuration,
}

/// A cluster as the file defines it.
#[derive(Debug)]
pub struct PlannedCluster {
    /// The name of the backend.
    pub name: Box<str>,
    /// The servers.
    pub urls: Vec<BackendUrl>,
    /// The options.
    pub options: Arc<Options>,
}

/// The state of a lowering.
struct Lowering<'a, 'e> {
    model: &'a Model,
    environment: &'a Environment<'e>,
    findings: Vec<Finding>,
    configuration: Configuration,
}

impl Lowering<'_, '_> {
    fn say(&mut self, at: Position, word: &str, treatment: Treatment, note: impl Into<String>) {
        let note: String = note.into();
        let word = word.to_owned();
        let finding = Finding { at, word, treatment, note: note.into(), section: u32::MAX };
        // Servers of a template would repeat the same finding.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Lowers a model, with findings about what is lost.
pub(super) fn lower(model: &Model, environment: &Environment<'_>) -> (Plan, Vec<Finding>) {
    let mut lowering = Lowering { model, environment, findings: Vec::new(), configuration: Configuration::default() };
    lowering.global();
    lowering.userlists();
    lowering.error_groups();
    let mut clusters = Vec::with_capacity(model.proxies.len());
    let mut proxies = Vec::with_capacity(model.proxies.len());
    for proxy in &model.proxies {
        let (cluster, servers) = match proxy.is_backend() {
            true => {
                let (urls, servers) = lowering.servers(proxy);
                let options = lowering.options(proxy);
                (Some(PlannedCluster { name: proxy.name.as_str().into(), urls, options }), servers)
            }
            false => (None, Vec::new()),
        };
        clusters.push(cluster);
        proxies.push(lowering.proxy(proxy, servers));
    }
    let listeners = lowering.listeners();
    let Lowering { findings, mut configuration, .. } = lowering;
    configuration.proxies = proxies;
    (Plan { listeners, clusters, configuration }, findings)
}

impl Lowering<'_, '_> {
    /// Lowers the section `global`: the tables of keywords cover most of it.
    fn global(&mut self) {
        let Global {
            // These are mapped, or explained by their keywords.
            maxconn: _,
            nbthread: _,
            cpu_map: _,
            user: _,
            group: _,
            chroot: _,
            logs: _,
            hard_stop_after: _,
            spread_checks: _,
            // These are used with certificates.
            crt_base: _,
            key_base: _,
            ca_base: _,
            tls_bind_defaults: _,
            tls_server_defaults: _,
            skips_server_verify: _,
            process_variables,
        } = &self.model.global;
        for (name, format) in process_variables {
            let mut value = Vec::new();
            format.render(&NoRequest, &mut Scratch::default(), &mut value);
            self.configuration.process_variables.set(name, Some(&value));
            self.configuration.needs.process_variables = true;
        }
    }

    fn userlists(&mut self) {
        let model = self.model;
        self.configuration.userlists.clone_from(&model.userlists);
    }
}

/// The request of formats that are rendered without one.
struct NoRequest;

impl RequestView for NoRequest {
    fn method(&self) -> &[u8] {
        b""
    }

    fn target(&self) -> &[u8] {
        b""
    }

    fn version(&self) -> (u8, u8) {
        (1, 1)
    }

    fn each_field(&self, _: Side, _: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        false
    }

    fn source(&self) -> SocketAddr {
        SocketAddr::from(([0; 4], 0))
    }

    fn destination(&self) -> SocketAddr {
        SocketAddr::from(([0; 4], 0))
    }

    fn is_tls(&self) -> bool {
        false
    }
}

/// The servers of each backend, by backend name.
type Servers = Vec<ServedServer>;
