//! Listeners of HAProxy files: at these, rules choose the cluster, not the host.

use super::Worker;
use super::effects::RouteResult;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::exchange::Exchange;
use crate::haproxy::serve::{Configuration, Evaluation, Facts, Visit};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;

/// A frontend at one of its addresses.
#[derive(Clone, Debug)]
pub struct ServedFrontend {
    /// The address.
    pub address: SocketAddr,
    /// The configuration that contains the frontend.
    pub configuration: Arc<Configuration>,
    /// Its index in the configuration.
    pub frontend: usize,
    /// Whether every connection begins with the PROXY protocol.
    pub accepts_proxy: bool,
    /// TLS settings for clients; `None` for connections without encryption.
    pub tls: Option<Arc<ServerConfig>>,
}

/// The frontends of all addresses. An address keeps its index for the life of the process: connections name their
/// frontend by it.
pub type ServedFrontends = Arc<[ServedFrontend]>;

/// The listener of a client: the number of its TLS listener, or the number of its frontend in HAProxy files. No client
/// has both. The type is small because there may be many clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry(u16);

impl Entry {
    const FRONTEND: u16 = 1 << 15;

    /// The host chooses the route; a default certificate may have a number.
    pub(super) fn of_hosts(certificate: Option<u32>) -> Self {
        Self(certificate.and_then(|number| number.try_into().ok()).unwrap_or_default())
    }

    /// The frontend of this number chooses the cluster; 0 is none.
    pub(super) fn of_frontend(number: u16) -> Self {
        Self(if number == 0 { 0 } else { number | Self::FRONTEND })
    }

    /// Number of the default certificate.
    pub(super) fn certificate(self) -> u32 {
        self.0.into()
    }

    /// Number of the frontend, from 1; 0 if the host chooses the route.
    pub(super) fn frontend(self) -> u16 {
        if self.0 & Self::FRONTEND == 0 { 0 } else { self.0 & !Self::FRONTEND }
    }
}

impl Worker {
    /// Number, from 1, of the frontend at an address; 0 without one.
    pub(super) fn frontend_at(&self, address: SocketAddr) -> u16 {
        if self.frontends.is_empty() {
            return 0;
        }
        let is_it =
            |known: SocketAddr| known == address || (known.ip().is_unspecified() && known.port() == address.port());
        let exact = self.frontends.iter().position(|frontend| frontend.address == address);
        let place = exact.or_else(|| self.frontends.iter().position(|frontend| is_it(frontend.address)));
        place.and_then(|place| u16::try_from(place + 1).ok()).unwrap_or(0)
    }

    /// The frontend with this number.
    pub(super) fn frontend(&self, number: u16) -> Option<&ServedFrontend> {
        self.frontends.get(usize::from(number).checked_sub(1)?)
    }

    /// Whether a frontend has reached its limit of clients.
    pub(super) fn is_frontend_full(&self, number: u16) -> bool {
        let load = self.frontend(number).and_then(|served| served.configuration.load(served.frontend));
        load.is_some_and(|(load, limit)| load.is_full(limit))
    }

    /// Counts a new client of a frontend. Clients that reach several workers at the same moment are all admitted, so they
    /// may exceed the limit.
    pub(super) fn visit(&self, number: u16) -> Option<Arc<Visit>> {
        let served = self.frontend(number)?;
        served.configuration.load(served.frontend)?.0.enter(None)
    }

    /// Applies the rules of a frontend to the next request of a client.
    #[cold]
    pub(super) fn set_rules(&mut self, client: SlotKey, number: u16, exchange: &mut Exchange) {
        if let Some(rules) = self.evaluation(client, number) {
            exchange.set_rules(rules, self.core.now);
        }
    }

    fn evaluation(&mut self, client: SlotKey, number: u16) -> Option<Box<Evaluation>> {
        let frontend = self.frontends.get(usize::from(number).checked_sub(1)?)?;
        let client = self.clients.get(client)?;
        let needs = frontend.configuration.needs();
        let told = client.told.as_deref().map(|told| (told.source, told.destination));
        let visit = client.admitted.as_ref().and_then(|admitted| admitted.visit.as_ref());
        let is_asked = needs.source_port || needs.destination;
        let ends = match told {
            None if is_asked => {
                let find = || client.stream.transport.ends().ok();
                visit.map_or_else(find, |visit| visit.ends(find))
            }
            told => told,
        };
        let (source, destination) = ends.unwrap_or_else(|| {
            let local = SocketAddr::new(frontend.address.ip(), client.peer.local_port);
            (SocketAddr::new(client.peer.address, 0), local)
        });
        let source = SocketAddr::new(client.peer.address, source.port());
        let (tls, visit) = (client.peer.tls.clone(), visit.cloned());
        let facts = Facts { source, destination, is_tls: client.peer.secure, tls, visit };
        Some(self.core.rules.evaluation(&frontend.configuration, frontend.frontend, facts))
    }

    /// The present cluster of a request's backend: the cluster that the rules chose may have been replaced since.
    #[cold]
    pub(super) fn resolve_ruled(&self, job: SlotKey) -> Option<RouteResult> {
        let rules = self.jobs.get(job)?.exchange.rules()?;
        let key = &rules.route()?.cluster.key;
        let mut routes = self.frontends.iter().flat_map(|frontend| frontend.configuration.routes());
        let found = routes.find(|route| route.cluster.key == *key && !route.is_stale());
        Some(found.map(Arc::clone).ok_or(FailureReason::NoBackend))
    }

    /// Replaces the frontends. Closes idle connections to backends that no frontend uses any more.
    pub(super) fn set_frontends(&mut self, frontends: ServedFrontends) {
        let before = std::mem::replace(&mut self.frontends, frontends);
        self.renew_entrances();
        let routes = before.iter().flat_map(|frontend| frontend.configuration.routes());
        let marks = routes.flat_map(|route| &route.marks).filter(|mark| mark.backend.is_unreferenced());
        let unused: Vec<_> = marks.map(|mark| mark.backend.id()).collect();
        for backend in unused {
            for connection in self.pool.idle(backend) {
                self.close_upstream(connection);
            }
        }
        self.schedule_tunnel_scan();
    }
}
