//! The certificates of the addresses: read at the start, and again when their files change.

use super::{Error, Event};
use crate::base::folders::Folders;
use crate::config::{Tls, TlsListener};
use crate::net::tls::{BackendSettings, BackendTls, Reception};
use crate::worker::{DoorCertificates, TlsParts};
use crossbeam_channel::Sender;
use std::sync::Arc;

/// Keeps them.
pub(super) struct Keeper {
    listeners: Vec<TlsListener>,
    parts: Option<TlsParts>,
    _watch: Option<Folders>,
}

impl Keeper {
    pub(super) fn new(settings: Option<&Tls>, events: &Sender<Event>) -> Result<Self, Error> {
        let Some(settings) = settings else {
            return Ok(Self { listeners: Vec::new(), parts: None, _watch: None });
        };
        let parts = TlsParts {
            reception: Arc::new(Reception::new(&settings.server).map_err(Error::Tls)?),
            settings: settings.lobby.clone(),
            doors: doors(&settings.listeners),
        };
        let watch = watch(&settings.listeners, events);
        Ok(Self { listeners: settings.listeners.clone(), parts: Some(parts), _watch: watch })
    }

    pub(super) fn parts(&self) -> Option<TlsParts> {
        self.parts.clone()
    }

    /// Reads the files again. Returns all certificates if one has changed; a bad one leaves the one before in use.
    pub(super) fn renew(&mut self) -> Option<DoorCertificates> {
        let mut has_changed = false;
        for (files, credentials) in self.listeners.iter_mut().filter_map(|listener| listener.certificate.as_mut()) {
            match files.load() {
                Ok(new) if new.is_same(credentials) => {}
                Ok(new) => {
                    log::info!("{}: a new certificate", files.certificate.display());
                    *credentials = new;
                    has_changed = true;
                }
                Err(fault) => log::error!("{fault}; the certificate that was there before stays in use"),
            }
        }
        let doors = has_changed.then(|| doors(&self.listeners))?;
        if let Some(parts) = &mut self.parts {
            parts.doors = Arc::clone(&doors);
        }
        Some(doors)
    }
}

fn doors(listeners: &[TlsListener]) -> DoorCertificates {
    let credentials =
        |listener: &TlsListener| listener.certificate.as_ref().map(|(_, credentials)| credentials.clone());
    listeners.iter().map(credentials).collect()
}

fn watch(listeners: &[TlsListener], events: &Sender<Event>) -> Option<Folders> {
    let events = events.clone();
    // Fails only when the supervisor has gone.
    let mut watch = Folders::watch(move || drop(events.send(Event::Files)))
        .inspect_err(|error| log::warn!("watching certificates: {error}; they are read again at SIGHUP only"))
        .ok()?;
    for path in
        listeners.iter().filter_map(|listener| listener.certificate.as_ref()).flat_map(|(files, _)| files.paths())
    {
        if let Err(error) = watch.add(path) {
            log::warn!("watching {}: {error}; it is read again at SIGHUP only", path.display());
        }
    }
    Some(watch)
}

/// What is agreed on with backends of `https://`. Where nothing can be, none of them can be used, but all others.
pub(super) fn backend_tls(settings: &BackendSettings) -> Option<BackendTls> {
    BackendTls::new(settings)
        .inspect_err(|problem| log::warn!("server.backendTls: {problem}; backends of https:// cannot be used"))
        .ok()
}
