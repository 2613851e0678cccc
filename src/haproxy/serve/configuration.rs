//! A configuration in its served form: immutable, shared by all workers.

use super::error_page::ErrorPage;
use super::load::FrontendLoad;
use super::stick_table::StickTable;
use super::variables::SharedVariables;
use crate::cluster::{Cluster, Member, Role, Route};
use crate::haproxy::model::{Captures, Compression, ForwardedFor, Persistence, Stats, Userlist};
use crate::haproxy::program::Program;
use crate::haproxy::rules::Format;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A configuration that serves.
#[derive(Debug, Default)]
pub struct Configuration {
    /// In the order of the model: rules refer to them by index.
    pub(in super::super) proxies: Vec<ServedProxy>,
    pub(in super::super) userlists: Vec<Userlist>,
    /// Bodies for responses of rules, by the paths of their files.
    pub(in super::super) contents: HashMap<String, Arc<ErrorPage>>,
    /// Raw responses, by the paths of their files.
    pub(in super::super) files: HashMap<String, Arc<ErrorPage>>,
    /// Sections `http-errors`, by name.
    pub(in super::super) error_groups: HashMap<String, Vec<(u16, Arc<ErrorPage>)>>,
    pub(in super::super) needs: Needs,
    /// Variables whose scope is `proc`.
    pub(in super::super) process_variables: SharedVariables,
}

/// Facts that rules need and that cost a system call or memory, so they are determined only on demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The client's port.
    pub source_port: bool,
    /// The address that the client connected to.
    pub destination: bool,
    /// The target as received.
    pub(in super::super) captured_uri: bool,
    /// User and password.
    pub(in super::super) login: bool,
    /// The number of the request.
    pub(in super::super) request_number: bool,
    /// Variables of the connection.
    pub(in super::super) session_variables: bool,
    /// Variables of the process.
    pub(in super::super) process_variables: bool,
}

impl Needs {
    /// Adds the needs of others.
    pub(in super::super) fn add(&mut self, others: Self) {
        self.source_port |= others.source_port;
        self.destination |= others.destination;
        self.captured_uri |= others.captured_uri;
        self.login |= others.login;
        self.request_number |= others.request_number;
        self.session_variables |= others.session_variables;
        self.process_variables |= others.process_variables;
    }
}

/// A `frontend`, `listen` or `backend`.
#[derive(Debug)]
pub(in super::super) struct ServedProxy {
    pub(in super::super) name: Box<str>,
    pub(in super::super) is_frontend: bool,
    pub(in super::super) is_backend: bool,
    pub(in super::super) program: Program,
    /// The route of its requests; `None` for a frontend, and until the clusters are made.
    pub(in super::super) route: Option<Arc<Route>>,
    /// The servers in the order of the cluster's members.
    pub(in super::super) servers: Box<[ServedServer]>,
    pub(in super::super) persistence: Option<Persistence>,
    pub(in super::super) forwarded_for: Option<ForwardedFor>,
    /// Responses of this node by status.
    pub(in super::super) errors: Vec<(u16, Arc<ErrorPage>)>,
    pub(in super::super) monitor_uri: Option<Box<str>>,
    pub(in super::super) unique_id_format: Option<Format>,
    pub(in super::super) unique_id_header: Option<Box<str>>,
    pub(in super::super) head_timeout: Option<Duration>,
    pub(in super::super) ignores_client_abort: bool,
    pub(in super::super) uses_all_backups: bool,
    pub(in super::super) compression: Compression,
    /// `stick-table`.
    pub(in super::super) table: Option<Arc<StickTable>>,
    /// `stats`, if enabled.
    pub(in super::super) statistics: Option<Stats>,
    /// Slots of a frontend for values that rules keep.
    pub(in super::super) captures: Captures,
    /// The clients of a frontend.
    pub(in super::super) load: Arc<FrontendLoad>,
    /// The limit of their number.
    pub(in super::super) connection_limit: Option<u64>,
}

/// A server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct ServedServer {
    pub(in super::super) name: Box<str>,
    /// Its value in the persistence cookie.
    pub(in super::super) cookie: Option<Box<str>>,
    /// `maxconn` and `maxqueue`; 0 is no limit.
    pub(in super::super) limits: (u64, u64),
}

impl Configuration {
    /// Sets the route of each backend; `routes` are in the order of the proxies.
    pub fn with_routes(mut self, routes: Vec<Option<Arc<Route>>>) -> Self {
        for (proxy, route) in self.proxies.iter_mut().zip(routes) {
            proxy.route = route;
        }
        self
    }

    /// Takes over the counters of an earlier configuration of the same file: frontends with the same name keep their
    /// client counts, and stick tables with an unchanged line keep their entries.
    pub fn continuing(mut self, earlier: Option<&Self>) -> Self {
        let tables = || earlier.into_iter().flat_map(|earlier| &earlier.proxies);
        for proxy in &mut self.proxies {
            let mut known = tables().filter(|known| known.name == proxy.name).filter_map(|known| known.table.as_ref());
            if let Some(table) = &mut proxy.table
                && let Some(known) = known.find(|known| known.is_defined_by(table.definition()))
            {
                *table = Arc::clone(known);
            }
        }
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.is_frontend) {
            let known = earlier.into_iter().flat_map(|earlier| &earlier.proxies);
            if let Some(known) = known.filter(|known| known.is_frontend).find(|known| known.name == proxy.name) {
                proxy.load = Arc::clone(&known.load);
            }
        }
        self
    }

    /// The clients of a frontend, and their limit.
    pub fn load(&self, frontend: usize) -> Option<(&Arc<FrontendLoad>, Option<u64>)> {
        self.proxies.get(frontend).map(|proxy| (&proxy.load, proxy.connection_limit))
    }

    /// Further facts that rules need.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The routes of all backends.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.proxies.iter().filter_map(|proxy| proxy.route.as_ref())
    }

    pub(super) fn proxy(&self, index: usize) -> Option<&ServedProxy> {
        self.proxies.get(index)
    }

    pub(super) fn backend(&self, name: &str) -> Option<&ServedProxy> {
        self.proxies.iter().find(|proxy| proxy.is_backend && *proxy.name == *name)
    }

    pub(super) fn frontend(&self, name: &str) -> Option<&ServedProxy> {
        self.proxies.iter().find(|proxy| proxy.is_frontend && *proxy.name == *name)
    }

    /// The stick table of a proxy.
    pub(super) fn table(&self, proxy: &str) -> Option<&Arc<StickTable>> {
        self.proxies.iter().find_map(|known| known.table.as_ref().filter(|_| *known.name == *proxy))
    }

    pub(super) fn userlist(&self, name: &str) -> Option<&Userlist> {
        self.userlists.iter().find(|list| list.name == name)
    }
}

impl ServedProxy {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    fn cluster(&self) -> Option<&Cluster> {
        self.route.as_ref().map(|route| &*route.cluster)
    }

    /// Number of servers that may serve. Backup servers count if no other is up, as in HAProxy.
    pub(super) fn servers_up(&self) -> Option<u64> {
        let members = &self.cluster()?.members;
        let up = |is_backup: bool| {
            let of_role = move |member: &&Member| (member.role() == Role::Backup) == is_backup && member.is_up();
            members.iter().filter(of_role).count() as u64
        };
        Some(match (up(false), up(true)) {
            (0, backups) if self.uses_all_backups => backups,
            (0, backups) => backups.min(1),
            (active, _) => active,
        })
    }

    /// Free places for connections and in queues, of the servers that are up; -1 if one of them has no limit (`connslots`).
    pub(super) fn connection_slots(&self) -> Option<i64> {
        let cluster = self.cluster()?;
        let up = self.servers.iter().zip(&cluster.members).filter(|(_, member)| member.is_up());
        let mut slots = 0_i64;
        for (ServedServer { limits: (connections, queue), .. }, _) in up {
            if *connections == 0 || *queue == 0 {
                return Some(-1);
            }
            slots = slots.saturating_add_unsigned(*connections).saturating_add_unsigned(*queue);
        }
        let used = i64::from(cluster.admission.in_flight()).saturating_add(i64::from(cluster.admission.waiting()));
        Some(slots.saturating_sub(used))
    }

    pub(super) fn server_is_up(&self, name: &str) -> Option<bool> {
        let place = self.place_of(name)?;
        self.cluster()?.members.get(place).map(Member::is_up)
    }

    /// The index of a server.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| *server.name == *name)
    }

    /// The proxy's own response for a status, if there is one.
    pub(super) fn error(&self, status: u16) -> Option<&Arc<ErrorPage>> {
        self.errors.iter().rev().find(|(of, _)| *of == status).map(|(_, page)| page)
    }
}
