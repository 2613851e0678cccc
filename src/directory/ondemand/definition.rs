//! The definition of an on-demand cluster by its creator.

use super::buckets::{self, Bucket};
use super::settings::Settings;
use super::{MAX_NAME, Refusal};
use crate::cluster::{BackendUrl, Endpoint, Options, Role};
use crate::directory::catalog::FrontendRecord;
use crate::health::HealthMode;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

/// The greatest number of backends of a cluster.
pub(super) const MAX_BACKENDS: usize = 10_000;

/// An on-demand cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDefinition {
    /// Its name.
    pub name: Box<str>,
    /// The host whose requests it serves, in lower case; `None` for any.
    pub hostname: Option<Box<str>>,
    /// The port whose requests it serves; `None` for any. Without host and port it serves none.
    pub port: Option<u16>,
    /// Whether it cannot be removed.
    pub is_protected: bool,
    /// The revision of its last edit, if clusters are kept in Redis; 0 if it was never there.
    pub(super) revision: u64,
    /// A number that tells it from an earlier cluster of its name, which it shares no cached objects with: mostly the time of
    /// its creation, in microseconds since 1970. 0 if none is known.
    pub(super) created: u64,
    /// x0d's settings.
    pub(super) settings: Settings,
    /// Further options of this program.
    pub(super) options: BTreeMap<Box<str>, Box<str>>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) backends: Vec<BackendDefinition>,
}

/// The options that were read last, and the cluster that they come from: most clusters have the same ones.
#[derive(Debug, Default)]
pub(super) struct KnownOptions(Option<KnownCluster>);

#[derive(Debug)]
struct KnownCluster {
    /// The cluster, without its backends.
    like: ClusterDefinition,
    monitor: Option<(HealthMode, Duration)>,
    options: Arc<Options>,
}

/// A backend of an on-demand cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendDefinition {
    /// Its name.
    pub name: Box<str>,
    /// Its address or host name.
    pub hostname: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether its connections are encrypted.
    pub is_secure: bool,
    /// The greatest number of requests in flight; 0 for no limit.
    pub capacity: u32,
    /// Whether it serves.
    pub is_enabled: bool,
    /// Its role.
    pub role: Role,
    /// Whether it cannot be removed.
    pub is_protected: bool,
    /// The mode of its health probes.
    pub health_mode: HealthMode,
    /// The time between two probes.
    pub health_interval: Duration,
    /// Further attributes, in the form that they have behind `#` in a URL.
    pub(super) attributes: BTreeMap<Box<str>, Box<str>>,
}

impl BackendDefinition {
    /// A backend with this name and address, and x0d's defaults.
    pub(super) fn new(name: &str, hostname: &str, port: u16) -> Self {
        Self {
            name: name.into(),
            hostname: hostname.into(),
            port,
            is_secure: false,
            capacity: 0,
            is_enabled: true,
            role: Role::Active,
            is_protected: false,
            health_mode: HealthMode::Lazy,
            health_interval: Duration::from_secs(2),
            attributes: BTreeMap::new(),
        }
    }

    /// The entry of the list.
    pub(super) fn url(&self) -> Result<BackendUrl, Refusal> {
        let scheme = if self.is_secure { "https" } else { "http" };
        let (name, host) = match self.hostname.parse::<Ipv6Addr>() {
            Ok(address) => (address.to_string(), format!("[{address}]")),
            Err(_) => (self.hostname.to_ascii_lowercase(), self.hostname.to_string()),
        };
        let mut text = format!("{scheme}://{host}:{}#capacity={}&role={}", self.port, self.capacity, self.role);
        if !self.is_enabled {
            text.push_str("&disabled");
        }
        for (name, value) in &self.attributes {
            text.push_str(&format!("&{name}={value}"));
        }
        let url = BackendUrl::parse(&text)
            .map_err(|error| Refusal::bad(format!("backend {}: {}:{}: {error}", self.name, host, self.port)))?;
        // A text that is more than a host would change another part of the URL.
        if *url.endpoint().host() != *name || url.endpoint().port() != self.port {
            return Err(Refusal::bad(format!("backend {}: the host is neither a name nor an address", self.name)));
        }
        match url.attribute_errors().first() {
            None => Ok(url),
            Some(error) => Err(Refusal::bad(format!("backend {}: {error}", self.name))),
        }
    }
}

impl ClusterDefinition {
    /// Whether both clusters serve the same requests.
    pub(super) fn is_for_same_requests(&self, other: &Self) -> bool {
        (&self.hostname, self.port) == (&other.hostname, other.port)
    }

    /// A cluster of this name with x0d's defaults.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The backends, in the order of the cluster's members.
    pub fn backends(&self) -> &[BackendDefinition] {
        &self.backends
    }

    /// The index of a backend.
    pub fn place_of(&self, backend: &str) -> Option<usize> {
        self.backends.iter().position(|known| *known.name == *backend)
    }

    /// The list and the options from which the routes are made.
    pub(super) fn record(&self) -> Result<FrontendRecord, Refusal> {
        self.record_knowing(&mut KnownOptions::default())
    }

    /// The same, reusing the options of the previous cluster if they are equal.
    pub(super) fn record_knowing(&self, known: &mut KnownOptions) -> Result<FrontendRecord, Refusal> {
        let mut urls = Vec::with_capacity(self.backends.len());
        let mut names: HashMap<Endpoint, &str> = HashMap::with_capacity(self.backends.len());
        for backend in &self.backends {
            let url = backend.url()?;
            if let Some(other) = names.insert(url.endpoint().clone(), &backend.name) {
                return Err(Refusal::bad(format!("backend {}: {other} has this address already", backend.name)));
            }
            urls.push(url);
        }
        let (options, created) = (self.read_options(known)?, self.created);
        Ok(FrontendRecord { id: self.name.clone(), backends: urls.into(), options, created })
    }

    fn read_options(&self, known: &mut KnownOptions) -> Result<Arc<Options>, Refusal> {
        let monitor = self.monitor();
        if let Some(KnownCluster { like, monitor: known_monitor, options }) = &known.0
            && (&like.settings, &like.buckets, &like.options) == (&self.settings, &self.buckets, &self.options)
            && *known_monitor == monitor
        {
            return Ok(Arc::clone(options));
        }
        let mut pairs: Vec<(&str, String)> = self.settings.options();
        if let Some((mode, interval)) = monitor {
            pairs.push(("health.mode", mode.name().to_owned()));
            pairs.push(("health.interval", format!("{}ms", interval.as_millis())));
            pairs.push(("health.method", "GET".to_owned()));
            pairs.push(("health.expect", "200".to_owned()));
        }
        pairs.extend(buckets::option_text(&self.buckets).map(|text| ("buckets", text)));
        pairs.extend(self.options.iter().map(|(name, value)| (&**name, value.to_string())));
        buckets::check(&self.buckets)?;
        let (options, errors) =
            Options::read(pairs.iter().map(|(name, value)| (*name, value.as_str())), &Options::default());
        if let Some(error) = errors.first() {
            return Err(Refusal::bad(error.to_string()));
        }
        let options = Arc::new(options);
        let like = Self { backends: Vec::new(), ..self.clone() };
        known.0 = Some(KnownCluster { like, monitor, options: Arc::clone(&options) });
        Ok(options)
    }

    /// x0d has mode and interval at each backend, this program has them at the cluster: the most eager values apply to
    /// all. A probe is x0d's: GET, and 200 is good.
    fn monitor(&self) -> Option<(HealthMode, Duration)> {
        let eagerness = |mode: &HealthMode| HealthMode::ALL.iter().position(|known| known == mode);
        let mode = self.backends.iter().map(|backend| backend.health_mode).max_by_key(eagerness)?;
        let interval = self.backends.iter().map(|backend| backend.health_interval).min()?;
        Some((mode, interval))
    }
}

/// Checks the name of a cluster. It becomes a file name, and appears in paths and logs.
pub(super) fn check_cluster_name(name: &str) -> Result<(), Refusal> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_good =
        name.len() <= MAX_NAME && name.bytes().all(is_known) && name.starts_with(|c: char| c.is_alphanumeric());
    if is_good {
        return Ok(());
    }
    Err(Refusal::bad(format!(
        "a cluster's name has 1 to {MAX_NAME} letters, digits, dots, dashes and underscores, and begins with a letter or digit"
    )))
}

/// Checks the name of a backend or a bucket. It appears in the head of a section.
pub(super) fn check_part_name(what: &str, name: &str) -> Result<(), Refusal> {
    let is_known = |byte: u8| byte.is_ascii_graphic() && !b"[]/\\".contains(&byte);
    if !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_known) {
        return Ok(());
    }
    Err(Refusal::bad(format!(
        "a {what}'s name has 1 to {MAX_NAME} visible ASCII characters other than brackets and slashes"
    )))
}
