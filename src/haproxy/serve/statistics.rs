//! `stats` of a proxy: access to the statistics page, and its content. The page itself is made elsewhere.

use super::configuration::{Configuration, ServedProxy};
use super::load::FrontendLoad;
use super::outcome::Outcome;
use super::run::Run;
use crate::cluster::Route;
use crate::haproxy::model::Stats;
use memchr::memmem;
use std::sync::Arc;
use std::time::Duration;

/// The default of `stats uri`.
const DEFAULT_URI: &str = "/haproxy?stats";

/// The default of `stats realm`.
const DEFAULT_REALM: &str = "HAProxy Statistics";

/// A statistics page that a client may see.
#[derive(Clone, Debug)]
pub struct StatisticsPage {
    configuration: Arc<Configuration>,
    proxy: usize,
    /// The client asks for CSV.
    pub is_csv: bool,
    /// The interval at which a browser reloads the page.
    pub refresh: Option<Duration>,
    /// The page hides the version of sluice.
    pub hides_version: bool,
}

/// A proxy on such a page.
#[derive(Clone, Copy, Debug)]
pub struct StatisticsProxy<'p> {
    proxy: &'p ServedProxy,
    number: usize,
}

impl<'p> StatisticsProxy<'p> {
    /// Its name.
    pub fn name(&self) -> &'p str {
        &self.proxy.name
    }

    /// Its number in the configuration, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The clients of a frontend, and their limit.
    pub fn frontend(&self) -> Option<(&'p FrontendLoad, Option<u64>)> {
        self.proxy.is_frontend.then_some((&*self.proxy.load, self.proxy.connection_limit))
    }

    /// The cluster of a backend.
    pub fn route(&self) -> Option<&'p Arc<Route>> {
        self.proxy.route()
    }

    /// The name of one of its servers.
    pub fn server(&self, place: usize) -> Option<&'p str> {
        self.proxy.servers.get(place).map(|server| &*server.name)
    }
}

impl StatisticsPage {
    /// The page of a proxy at this target, which asks for it.
    pub(super) fn new(configuration: &Arc<Configuration>, proxy: usize, target: &[u8]) -> Option<Self> {
        let stats = configuration.proxy(proxy)?.statistics.as_ref()?;
        let words = target.get(stats.uri.as_deref().unwrap_or(DEFAULT_URI).len()..).unwrap_or_default();
        let has = |word: &str| memmem::find(words, word.as_bytes()).is_some();
        Some(Self {
            configuration: Arc::clone(configuration),
            proxy,
            is_csv: has(";csv"),
            refresh: stats.refresh.filter(|refresh| !refresh.is_zero() && !has(";norefresh")),
            hides_version: stats.hides_version,
        })
    }

    /// The proxies on the page: all of the configuration, or those of `stats scope`.
    pub fn proxies(&self) -> impl Iterator<Item = StatisticsProxy<'_>> {
        let own = self.configuration.proxy(self.proxy);
        let is_shown = move |name: &str| {
            let scope = own.and_then(|own| own.statistics.as_ref()).map_or(&[][..], |stats| &stats.scope);
            let is_own = |scope: &str| scope == "." && own.is_some_and(|own| own.name() == name);
            scope.is_empty() || scope.iter().any(|scope| scope == name || is_own(scope))
        };
        let all = self.configuration.proxies.iter().enumerate();
        all.filter(move |(_, proxy)| is_shown(&proxy.name))
            .map(|(place, proxy)| StatisticsProxy { proxy, number: place + 1 })
    }
}

/// Two pages are equal if they show the same proxies.
impl PartialEq for StatisticsPage {
    fn eq(&self, other: &Self) -> bool {
        let facts = |page: &Self| (page.proxy, page.is_csv, page.refresh, page.hides_version);
        Arc::ptr_eq(&self.configuration, &other.configuration) && facts(self) == facts(other)
    }
}

impl Eq for StatisticsPage {}

impl Run<'_> {
    /// Checks whether a request that has passed the rules of a proxy asks for its statistics page, and whether it gets
    /// it.
    pub(super) fn statistics(&mut self, proxy: &ServedProxy) -> Option<Outcome> {
        let stats = proxy.statistics.as_ref()?;
        let request = &self.work.request;
        let is_asked_for = matches!(request.method(), b"GET" | b"HEAD" | b"POST")
            && request.target().starts_with(stats.uri.as_deref().unwrap_or(DEFAULT_URI).as_bytes());
        if !is_asked_for {
            return None;
        }
        if stats.auth.is_empty() || self.has_login(stats) {
            return Some(Outcome::Statistics);
        }
        self.ask_for_login(Some(stats.realm.as_deref().unwrap_or(DEFAULT_REALM)), proxy);
        Some(Outcome::Deny)
    }

    /// Whether the request has a login of `stats auth`.
    fn has_login(&mut self, stats: &Stats) -> bool {
        let (value, room) = (self.work.request.value_of("authorization"), &mut self.work.login);
        let login = value.and_then(|value| super::auth::Login::read(value, room));
        login.is_some_and(|login| stats.auth.iter().any(|known| login.is(&known.user, &known.password)))
    }
}
