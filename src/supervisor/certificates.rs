//! The certificates of the addresses, and the trusted authorities: read at the start, and again when their files
//! change.

use super::{Error, Event, Supervisor};
use crate::base::clock::Clock;
use crate::base::file_watch::FileWatch;
use crate::config::{Settings, Tls, TlsToBackends};
use crate::net::tls::{
    BackendTls, CertificateFiles, CertificateInfo, Credentials, FileFault, TlsServerContext, Verification,
    load_certificates, warn_of_expiry,
};
use crate::worker::{DefaultCertificates, WorkerCommand, WorkerTlsConfig};
use crossbeam_channel::Sender;
use rustls::pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Holds the certificates and authorities in use.
pub(super) struct CertificateManager {
    tls: Option<Tls>,
    worker_tls: Option<WorkerTlsConfig>,
    to_backends: TlsToBackends,
    backend_tls: Option<BackendTls>,
    clock: Clock,
    _watch: Option<FileWatch>,
}

impl CertificateManager {
    pub(super) fn new(settings: &Settings, events: &Sender<Event>, clock: Clock) -> Result<Self, Error> {
        let worker_tls = match &settings.tls {
            Some(tls) => Some(WorkerTlsConfig {
                tls_server: Arc::new(TlsServerContext::new(&tls.server).map_err(Error::Tls)?),
                settings: tls.handshakes.clone(),
                default_certificates: default_certificates(tls),
            }),
            None => None,
        };
        let mut manager = Self {
            tls: settings.tls.clone(),
            worker_tls,
            to_backends: settings.backend_tls.clone(),
            backend_tls: make_backend_tls(&settings.backend_tls),
            clock,
            _watch: None,
        };
        manager._watch = watch(manager.paths(), events);
        manager.warn_of_expiry();
        Ok(manager)
    }

    /// TLS settings for client connections.
    pub(super) fn worker_tls(&self) -> Option<WorkerTlsConfig> {
        self.worker_tls.clone()
    }

    /// TLS settings for connections to backends; `None` if they are not usable, so that no backend of `https://` can be
    /// used.
    pub(super) fn backend_tls(&self) -> Option<BackendTls> {
        self.backend_tls.clone()
    }

    fn pairs(&self) -> impl Iterator<Item = (&CertificateFiles, &Credentials)> {
        let default_certificates = self.tls.iter().flat_map(|tls| &tls.listeners);
        let default_certificates = default_certificates
            .filter_map(|listener| listener.certificate.as_ref().map(|(files, pair)| (files, pair)));
        default_certificates.chain(self.to_backends.own.as_ref().zip(self.to_backends.settings.credentials.as_ref()))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let authorities = self.tls.iter().flat_map(|tls| &tls.client_authorities);
        let authorities = authorities.chain(&self.to_backends.authorities).map(PathBuf::as_path);
        self.pairs().flat_map(|(files, _)| files.paths()).chain(authorities)
    }

    /// The certificates in use.
    pub(super) fn list(&self) -> Vec<CertificateInfo> {
        self.pairs().map(|(files, pair)| CertificateInfo::of(&files.certificate.display().to_string(), pair)).collect()
    }

    /// Logs certificates that expire soon.
    pub(super) fn warn_of_expiry(&self) {
        let mut named: Vec<_> =
            self.pairs().map(|(files, pair)| (files.certificate.display().to_string(), pair)).collect();
        // Several addresses may use the same certificate.
        named.dedup_by(|one, other| one.0 == other.0);
        let named = named.iter().map(|(name, pair)| (name.as_str(), *pair));
        warn_of_expiry(named, self.clock.wall(self.clock.now()));
    }

    /// Reads the certificates of clients' connections and their authorities again. Returns new settings if they have
    /// changed. Faulty files leave the previous settings in use.
    pub(super) fn renew_worker_tls(&mut self) -> Option<WorkerTlsConfig> {
        let (tls, worker_tls) = (self.tls.as_mut()?, self.worker_tls.as_mut()?);
        let mut has_changed = false;
        for (files, pair) in tls.listeners.iter_mut().filter_map(|listener| listener.certificate.as_mut()) {
            has_changed |= renew_pair(files, pair, self.clock);
        }
        let auth =
            renew_authorities(&tls.client_authorities).map(|authorities| tls.server.client_auth.with(authorities));
        if let Some(auth) = auth.filter(|auth| *auth != tls.server.client_auth) {
            tls.server.client_auth = auth;
            match TlsServerContext::new(&tls.server) {
                Ok(tls_server) => {
                    log::info!("https.clientCa: other authorities");
                    worker_tls.tls_server = Arc::new(tls_server);
                    has_changed = true;
                }
                Err(problem) => log::error!("https.clientCa: {problem}; the authorities before stay in use"),
            }
        }
        worker_tls.default_certificates = default_certificates(tls);
        has_changed.then(|| worker_tls.clone())
    }

    /// The same for backends.
    pub(super) fn renew_backend_tls(&mut self) -> Option<BackendTls> {
        let TlsToBackends { settings, authorities, own } = &mut self.to_backends;
        let mut has_changed = match (&own, &mut settings.credentials) {
            (Some(files), Some(pair)) => renew_pair(files, pair, self.clock),
            _ => false,
        };
        if let Some(new) = renew_authorities(authorities).map(Verification::Authorities)
            && new != settings.verification
        {
            log::info!("server.backendTls.ca: other authorities");
            settings.verification = new;
            has_changed = true;
        }
        let renewed = has_changed.then(|| make_backend_tls(&self.to_backends))??;
        self.backend_tls = Some(renewed.clone());
        Some(renewed)
    }
}

impl Supervisor {
    /// Reads the certificates and authorities again, and applies those that have changed.
    pub(super) fn renew_certificates(&mut self) {
        let renewed = self.pool.deps.certificates.renew_worker_tls();
        self.pool.deps.roster.set_certificates(self.pool.deps.certificates.list());
        if let Some(worker_tls) = renewed {
            self.pool.tell_all(|| WorkerCommand::Tls(worker_tls.clone()));
        }
        if let Some(tls) = self.pool.deps.certificates.renew_backend_tls() {
            self.pool.deps.probes.set_backend_tls(tls.clone());
            self.pool.tell_all(|| WorkerCommand::BackendTls(tls.clone()));
        }
    }
}

/// Reads a certificate and its key again; returns whether they have changed.
fn renew_pair(files: &CertificateFiles, pair: &mut Credentials, clock: Clock) -> bool {
    match files.load() {
        Ok(new) if new.is_same(pair) => false,
        Ok(new) => {
            let name = files.certificate.display().to_string();
            log::info!("{name}: a new certificate");
            warn_of_expiry([(name.as_str(), &new)], clock.wall(clock.now()));
            *pair = new;
            true
        }
        Err(fault) => {
            log::error!("{fault}; the certificate that was there before stays in use");
            false
        }
    }
}

/// Reads authorities again; `None` if there are no files, or faulty ones.
fn renew_authorities(paths: &[PathBuf]) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, FileFault> = paths.iter().map(|path| load_certificates(path)).collect();
    let read = read.inspect_err(|fault| log::error!("{fault}; the authorities that were there before stay in use"));
    read.ok().map(|files| files.concat()).filter(|all| !all.is_empty())
}

fn default_certificates(tls: &Tls) -> DefaultCertificates {
    tls.listeners.iter().map(|listener| listener.certificate.as_ref().map(|(_, pair)| pair.clone())).collect()
}

fn watch<'a>(paths: impl Iterator<Item = &'a Path>, events: &Sender<Event>) -> Option<FileWatch> {
    let mut paths = paths.peekable();
    paths.peek()?;
    let events = events.clone();
    // It fails only after the supervisor has ended.
    let mut watch = FileWatch::watch(move || drop(events.send(Event::Files)))
        .inspect_err(|error| log::warn!("watching certificates: {error}; they are read again at SIGHUP only"))
        .ok()?;
    for path in paths {
        if let Err(error) = watch.add(path) {
            log::warn!("watching {}: {error}; it is read again at SIGHUP only", path.display());
        }
    }
    Some(watch)
}

/// TLS settings for backends of `https://`. If they are not usable, only these backends cannot be used.
fn make_backend_tls(to_backends: &TlsToBackends) -> Option<BackendTls> {
    BackendTls::new(&to_backends.settings)
        .inspect_err(|problem| log::warn!("server.backendTls: {problem}; backends of https:// cannot be used"))
        .ok()
}
