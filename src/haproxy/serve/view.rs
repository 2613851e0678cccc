//! A request as its rules see it.

use super::auth::Login;
use super::configuration::{Configuration, ServedProxy};
use super::head::Head;
use super::variables::Variables;
use crate::haproxy::program::RequestView;
use crate::haproxy::rules::{LoadKind, Side};
use std::net::SocketAddr;

/// What is known of the connection that a request came by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Address and port of the client; the port is 0 where nothing asks for it.
    pub source: SocketAddr,
    /// Address and port that the client connected to.
    pub destination: SocketAddr,
    /// Whether the client speaks TLS.
    pub is_tls: bool,
}

/// What the rules of one message are evaluated with.
pub(super) struct View<'a> {
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
}

impl<'a> View<'a> {
    /// The backend of a name; the request's own without one.
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
        self.request.target()
    }

    fn version(&self) -> (u8, u8) {
        (1, u8::from(!self.is_http10))
    }

    fn each_field(&self, side: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        match side {
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
        self.variables.get(name)
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
        let admission = &self.proxy(proxy)?.route()?.cluster.admission;
        match kind {
            LoadKind::BackendConnections => Some(admission.in_flight().into()),
            LoadKind::Queue => Some(admission.waiting().into()),
            LoadKind::FrontendConnections => None,
        }
    }

    fn names(&self) -> [Option<&str>; 3] {
        let name = |index| self.configuration.proxy(index).map(ServedProxy::name);
        [name(self.frontend), self.backend.and_then(name), self.server]
    }

    fn unix_seconds(&self) -> i64 {
        self.unix_seconds
    }

    fn random(&self) -> u32 {
        self.random
    }
}
