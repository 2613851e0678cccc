//! A request in the view of its rules.

use super::auth::Login;
use super::configuration::{Configuration, ServedProxy};
use super::head::Head;
use super::load::{SLOTS, Visit};
use super::stick_table::Tracked;
use super::variables::Variables;
use crate::haproxy::program::{RequestView, Value};
use crate::haproxy::rules::{Counter, CounterOperation, LoadKind, Side};
use crate::wire::forwarded::TlsPeer;
use std::net::SocketAddr;
use std::sync::Arc;

/// Facts about the connection of a request.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Address and port of the client; the port is 0 if no rule needs it.
    pub source: SocketAddr,
    /// Address and port that the client connected to.
    pub destination: SocketAddr,
    /// Whether the client speaks TLS.
    pub is_tls: bool,
    /// Facts of its TLS handshake.
    pub tls: Option<Arc<TlsPeer>>,
    /// The state that rules keep for the connection.
    pub visit: Option<Arc<Visit>>,
}

/// The data with which the rules of one message are evaluated.
pub(super) struct View<'a> {
    /// Rules of responses see only the method of the request, as in HAProxy.
    pub(super) side: Side,
    pub(super) configuration: &'a Configuration,
    pub(super) facts: &'a Facts,
    pub(super) request: &'a Head,
    pub(super) response: &'a Head,
    pub(super) is_http10: bool,
    pub(super) variables: &'a Variables,
    pub(super) login: Option<Login<'a>>,
    pub(super) frontend: usize,
    pub(super) backend: Option<usize>,
    pub(super) server: Option<&'a str>,
    pub(super) unix_seconds: i64,
    pub(super) random: u32,
    pub(super) subsec_millis: u16,
    /// The number of the request in this process.
    pub(super) number: u64,
    /// The time in milliseconds, for tables.
    pub(super) now: u64,
    /// The proxy whose rules are applied.
    pub(super) owner: Option<&'a ServedProxy>,
    /// The entries that the request tracks.
    pub(super) tracked: &'a [Option<Tracked>; SLOTS],
}

impl<'a> View<'a> {
    /// The entry in a slot: the request's own, otherwise its connection's.
    fn tracked(&self, slot: u8) -> Option<&Tracked> {
        let own = self.tracked.get(usize::from(slot))?.as_ref();
        own.or_else(|| self.facts.visit.as_ref()?.tracked(slot.into()))
    }

    /// The backend with this name; the request's own without a name.
    fn proxy(&self, name: Option<&str>) -> Option<&'a ServedProxy> {
        match name {
            Some(name) => self.configuration.backend(name),
            None => self.configuration.proxy(self.backend.unwrap_or(self.frontend)),
        }
    }
}

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.request.method()
    }

    fn target(&self) -> &[u8] {
        if self.side == Side::Request { self.request.target() } else { b"" }
    }

    fn version(&self) -> (u8, u8) {
        (1, u8::from(!self.is_http10))
    }

    fn each_field(&self, side: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        match side {
            Side::Request if self.side == Side::Response => false,
            Side::Request => self.request.each_field(see),
            Side::Response => self.response.each_field(see),
        }
    }

    fn source(&self) -> SocketAddr {
        self.facts.source
    }

    fn destination(&self) -> SocketAddr {
        self.facts.destination
    }

    fn is_tls(&self) -> bool {
        self.facts.is_tls
    }

    fn status(&self) -> Option<u16> {
        self.response.status()
    }

    fn variable(&self, name: &str) -> Option<&[u8]> {
        if self.side.has_variable(name) { self.variables.get(name) } else { None }
    }

    fn captured_uri(&self) -> Option<&[u8]> {
        self.variables.get(super::CAPTURED_URI)
    }

    fn captured(&self, side: Side, slot: u16) -> Option<&[u8]> {
        self.variables.captured(side, slot.into())
    }

    fn connection_slots(&self, backend: Option<&str>) -> Option<i64> {
        self.proxy(backend)?.connection_slots()
    }

    fn unique_id(&self) -> Option<&[u8]> {
        self.variables.get(super::UNIQUE_ID)
    }

    fn user(&self, userlist: &str) -> Option<&str> {
        self.configuration.userlist(userlist)?.user(self.login.as_ref()?).map(|user| user.name.as_str())
    }

    fn sent_user(&self) -> Option<&str> {
        self.login.as_ref().map(Login::user)
    }

    fn groups(&self, userlist: &str, see: &mut dyn FnMut(&str) -> bool) -> bool {
        let list = self.configuration.userlist(userlist);
        let user = list.zip(self.login.as_ref()).and_then(|(list, login)| Some((list, list.user(login)?)));
        user.is_some_and(|(list, user)| list.groups_of(user).any(see))
    }

    fn servers_up(&self, backend: Option<&str>) -> Option<u64> {
        self.proxy(backend)?.servers_up()
    }

    fn server_is_up(&self, backend: Option<&str>, server: &str) -> Option<bool> {
        self.proxy(backend)?.server_is_up(server)
    }

    fn load(&self, kind: LoadKind, proxy: Option<&str>) -> Option<u64> {
        if kind == LoadKind::FrontendConnections {
            let frontend = match proxy {
                Some(name) => self.configuration.frontend(name),
                None => self.configuration.proxy(self.frontend),
            };
            return frontend.map(|frontend| frontend.load.current());
        }
        let admission = &self.proxy(proxy)?.route()?.cluster.admission;
        match kind {
            LoadKind::BackendConnections => Some(admission.in_flight().into()),
            LoadKind::Queue => Some(admission.waiting().into()),
            LoadKind::FrontendConnections => None,
        }
    }

    fn server_name(&self) -> Option<&[u8]> {
        self.facts.tls.as_ref()?.server_name.as_deref().map(str::as_bytes)
    }

    fn counter(&self, counter: (Counter, CounterOperation), slot: Option<u8>, table: Option<&str>) -> Option<u64> {
        let named = table.map(|name| self.configuration.table(name));
        match slot {
            Some(slot) => self.tracked(slot)?.counter(named.flatten().map(|table| &**table), counter, self.now),
            None => {
                let table = named.unwrap_or_else(|| self.owner?.table.as_ref())?;
                table.counter(&table.key_of(Value::Ip(self.facts.source.ip()))?, counter, self.now)
            }
        }
    }

    fn names(&self) -> [Option<&str>; 3] {
        let name = |index| self.configuration.proxy(index).map(ServedProxy::name);
        [name(self.frontend), self.backend.and_then(name), self.server]
    }

    fn unix_seconds(&self) -> i64 {
        self.unix_seconds
    }

    fn subsec_millis(&self) -> u16 {
        self.subsec_millis
    }

    fn request_number(&self) -> u64 {
        self.number
    }

    fn random(&self) -> u32 {
        self.random
    }
}
