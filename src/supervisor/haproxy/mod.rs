//! HAProxy files: read at the start, and again when they change. The workers get the result by mail.

mod tls;

use super::{Error, Event, Supervisor, listeners};
use crate::admin::Bind;
use crate::base::file_watch::FileWatch;
use crate::config::{HaproxyFile, Settings};
use crate::directory::{Directory, NamedCluster, NamedClusters};
use crate::haproxy::lower::Plan;
use crate::haproxy::serve::Configuration;
use crate::haproxy::{self, Environment, Finding, Loaded, Treatment, Verdict, files};
use crate::net::tls::{BackendAuthorities, ServerSettings, TlsServerContext};
use crate::worker::{HandshakeSettings, ServedFrontend, ServedFrontends, WorkerCommand, WorkerTlsConfig};
use crossbeam_channel::Sender;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Holds the files in use.
pub(super) struct HaproxyManager {
    files: Vec<HaproxyFile>,
    /// Addresses of the configuration, which the files must not use.
    taken: Vec<(SocketAddr, &'static str)>,
    named: NamedClusters,
    frontends: ServedFrontends,
    /// The served configuration of each file, by name, so that its counters continue.
    configurations: HashMap<String, Arc<Configuration>>,
    worker_tls: Option<WorkerTlsConfig>,
    watch: Option<FileWatch>,
}

/// A valid file.
pub(super) struct Reading {
    file: HaproxyFile,
    plan: Plan,
    /// TLS settings in the order of the listeners.
    tls: Vec<Option<Arc<rustls::ServerConfig>>>,
    /// The files that it was read from.
    paths: Vec<PathBuf>,
    losses: usize,
}

/// Reads all files. Each line of an error names a place and its fault. An address may belong to one file only, and not
/// to the configuration.
pub(super) fn read(settings: &Settings) -> Result<Vec<Reading>, Error> {
    read_files(&settings.haproxy, &taken(settings))
}

/// The addresses of the configuration, and the settings that name them.
fn taken(settings: &Settings) -> Vec<(SocketAddr, &'static str)> {
    let plain = settings.listeners.iter().map(|address| (*address, "http.bind"));
    let secure = settings.tls.iter().flat_map(|tls| &tls.listeners).map(|listener| (listener.address, "https.bind"));
    plain
        .chain(secure)
        .chain(settings.admin.bind.iter().filter_map(Bind::address).map(|address| (address, "admin.bind")))
        .collect()
}

fn read_files(files: &[HaproxyFile], taken: &[(SocketAddr, &'static str)]) -> Result<Vec<Reading>, Error> {
    let mut faults = Vec::new();
    let mut readings: Vec<Reading> = Vec::new();
    for file in files {
        match read_one(file) {
            Ok(reading) => readings.push(reading),
            Err(lines) => faults.extend(lines),
        }
    }
    let mut seen: HashMap<SocketAddr, &Path> = HashMap::new();
    for reading in &readings {
        for listener in &reading.plan.listeners {
            let (here, address) = (reading.file.path.display(), listener.address);
            if let Some((other, name)) = taken.iter().find(|(other, _)| listeners::overlap(*other, address)) {
                faults.push(format!("{here}: bind {address} is taken by {name} ({other}): take it out of one of them"));
            }
            if let Some(other) = seen.insert(listener.address, &reading.file.path) {
                faults.push(format!("{here}: {address} is an address of {} too", other.display()));
            }
        }
    }
    if faults.is_empty() { Ok(readings) } else { Err(Error::Haproxy(faults)) }
}

fn read_one(file: &HaproxyFile) -> Result<Reading, Vec<String>> {
    let sources = files::sources(std::slice::from_ref(&file.path)).map_err(|problem| vec![problem])?;
    let paths = RefCell::new(sources.iter().map(|source| PathBuf::from(&source.name)).collect::<Vec<_>>());
    let read = |path: &Path| {
        paths.borrow_mut().push(path.to_owned());
        files::read(path)
    };
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let loaded = haproxy::load(&sources, &mut Environment::new(variables, &read));
    let losses = match loaded.verdict(file.is_lossy) {
        Verdict::Whole => 0,
        Verdict::WithLosses(losses) => losses,
        Verdict::Not { .. } => return Err(faults(&loaded, file.is_lossy)),
    };
    let mut tls = Vec::new();
    let mut wrong = Vec::new();
    for listener in &loaded.plan.listeners {
        let made = listener.tls.as_ref().map(|planned| tls::server(planned, &mut paths.borrow_mut())).transpose();
        match made {
            Ok(made) => tls.push(made),
            Err(problem) => wrong.push(format!("{}: {problem}", place(&loaded, listener.at))),
        }
    }
    // Authorities are read with the backends, which are made later: a fault would be found when nothing can be refused.
    for url in loaded.plan.clusters.iter().flatten().flat_map(|cluster| &cluster.urls) {
        let Some(path) = url.endpoint().authorities().filter(|_| !url.endpoint().is_unverified()) else { continue };
        if let Err(fault) = BackendAuthorities::load(Path::new(path)) {
            wrong.push(format!("{}: ca-file of the server {}: {fault}", file.path.display(), url.without_attributes()));
        }
    }
    let (plan, paths) = (loaded.plan, paths.into_inner());
    match wrong.is_empty() {
        true => Ok(Reading { file: file.clone(), plan, tls, paths, losses }),
        false => Err(wrong),
    }
}

/// The keywords that make a file unusable, one a line.
fn faults(loaded: &Loaded, is_lossy: bool) -> Vec<String> {
    let is_fault = |finding: &&Finding| {
        finding.treatment == Treatment::Wrong || (finding.treatment == Treatment::Refused && !is_lossy)
    };
    let line = |finding: &Finding| {
        let (place, treatment) = (place(loaded, finding.at), finding.treatment.name());
        let word = if finding.word.is_empty() { String::new() } else { format!(" {}", finding.word) };
        format!("{place}: {treatment}{word}: {}", finding.note)
    };
    loaded.findings.iter().filter(is_fault).map(line).collect()
}

fn place(loaded: &Loaded, at: haproxy::Position) -> String {
    let file = loaded.files.get(at.file as usize).map_or("", String::as_str);
    format!("{file}:{}:{}", at.line, at.column)
}

impl Reading {
    /// The addresses to listen on.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.plan.listeners.iter().map(|listener| listener.address)
    }
}

impl HaproxyManager {
    pub(super) fn new(
        settings: &Settings,
        readings: Vec<Reading>,
        directory: &Directory,
        events: &Sender<Event>,
    ) -> Result<Self, Error> {
        let files = settings.haproxy.clone();
        let is_used = !files.is_empty();
        let mut manager = Self {
            files,
            taken: taken(settings),
            named: directory.named_clusters(),
            frontends: Arc::default(),
            configurations: HashMap::new(),
            worker_tls: is_used.then(|| worker_tls(settings)).transpose()?,
            watch: if is_used { start_watch(events) } else { None },
        };
        manager.publish(readings);
        Ok(manager)
    }

    /// The frontends served at each address.
    pub(super) fn frontends(&self) -> ServedFrontends {
        Arc::clone(&self.frontends)
    }

    /// The settings of handshakes, if no other address speaks TLS.
    pub(super) fn worker_tls(&self) -> Option<WorkerTlsConfig> {
        self.worker_tls.clone()
    }

    /// Reads the files again, all or nothing. Returns the addresses to serve at; `None` if the previous state stays.
    pub(super) fn renew(&mut self) -> Option<Vec<SocketAddr>> {
        if self.files.is_empty() {
            return None;
        }
        match read_files(&self.files, &self.taken) {
            Ok(readings) => {
                let addresses = readings.iter().flat_map(Reading::addresses).collect();
                self.publish(readings);
                Some(addresses)
            }
            Err(error) => {
                error.to_string().lines().for_each(|line| log::error!("{line}"));
                log::error!("what was served from HAProxy's files stays as it was");
                None
            }
        }
    }

    fn publish(&mut self, readings: Vec<Reading>) {
        let mut served = Vec::new();
        for reading in readings {
            for path in &reading.paths {
                if let Some(Err(error)) = self.watch.as_mut().map(|watch| watch.add(path)) {
                    log::warn!("watching {}: {error}; it is read again at SIGHUP only", path.display());
                }
            }
            served.extend(self.publish_one(reading));
        }
        let mut frontends = Vec::with_capacity(served.len());
        // Connections of an address that was closed keep their frontend.
        for known in &*self.frontends {
            let place = served.iter().position(|new: &ServedFrontend| new.address == known.address);
            frontends.push(place.map_or_else(|| known.clone(), |place| served.swap_remove(place)));
        }
        frontends.extend(served);
        self.frontends = frontends.into();
    }

    /// Makes the clusters of a file, and links its frontends to them.
    fn publish_one(&mut self, Reading { file, plan, tls, losses, .. }: Reading) -> Vec<ServedFrontend> {
        let path = file.path.display().to_string();
        let source = format!("haproxy:{path}");
        let Plan { listeners, clusters, configuration } = plan;
        let has_cluster: Vec<bool> = clusters.iter().map(Option::is_some).collect();
        let named = clusters.into_iter().flatten().map(|cluster| NamedCluster {
            key: format!("{}@{path}", cluster.name).into(),
            source: source.as_str().into(),
            urls: cluster.urls,
            options: cluster.options,
        });
        let mut routes = self.named.replace(&source, named.collect()).into_iter();
        let routes = has_cluster.into_iter().map(|has| if has { routes.next().flatten() } else { None }).collect();
        let earlier = self.configurations.get(&source).map(|earlier| &**earlier);
        let configuration = Arc::new(configuration.with_routes(routes).continuing(earlier));
        self.configurations.insert(source.clone(), Arc::clone(&configuration));
        let (backends, count) = (configuration.routes().count(), listeners.len());
        log::info!(
            "{source}: {count} listeners, {backends} backends; {losses} losses (sluice haproxy check names them)"
        );
        let frontend = |(listener, tls): (haproxy::lower::PlannedListener, _)| ServedFrontend {
            address: listener.address,
            configuration: Arc::clone(&configuration),
            frontend: listener.frontend,
            accepts_proxy: listener.accepts_proxy,
            tls,
        };
        listeners.into_iter().zip(tls).map(frontend).collect()
    }
}

/// Handshakes with the default limits, and only the certificates of the HAProxy files.
fn worker_tls(settings: &Settings) -> Result<WorkerTlsConfig, Error> {
    let tls_server = TlsServerContext::new(&ServerSettings::default()).map_err(Error::Tls)?;
    let handshake_timeout = Duration::from_secs(10);
    let settings = HandshakeSettings { handshake_timeout, max_handshakes: 4096, names: settings.route.clone() };
    Ok(WorkerTlsConfig { tls_server: Arc::new(tls_server), settings, default_certificates: Arc::default() })
}

impl Supervisor {
    /// Reads the HAProxy files again: clusters and rules by difference, then the addresses.
    pub(super) fn renew_haproxy(&mut self) {
        if let Some(addresses) = self.pool.deps.haproxy.renew() {
            let frontends = self.pool.deps.haproxy.frontends();
            self.pool.tell_all(|| WorkerCommand::Frontends(Arc::clone(&frontends)));
            self.pool.serve_at(&addresses);
        }
    }
}

fn start_watch(events: &Sender<Event>) -> Option<FileWatch> {
    let events = events.clone();
    // It fails only after the supervisor has ended.
    FileWatch::watch(move || drop(events.send(Event::HaproxyFiles)))
        .inspect_err(|error| log::warn!("watching HAProxy's files: {error}; they are read again at SIGHUP only"))
        .ok()
}
