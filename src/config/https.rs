//! `https`: TLS listeners and their settings.

use super::listen::{Bind, Proxies, read_binds};
use super::openssl;
use super::raw::{Field, Section};
use crate::net::tls::{
    BackendSettings, CertificateFiles, ClientAuth, Credentials, ServerSettings, Verification, is_open_to_others,
    load_certificates,
};
use crate::{exchange, route, worker};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_PORT: u16 = 443;

/// Settings of TLS connections from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The listeners; not empty.
    pub listeners: Vec<TlsListener>,
    /// TLS settings for clients.
    pub server: ServerSettings,
    /// The files of the client authorities.
    pub client_authorities: Vec<PathBuf>,
    /// Limits and timeouts of handshakes.
    pub handshakes: worker::HandshakeSettings,
    /// Redirection of plaintext clients to TLS.
    pub redirect: exchange::Redirect,
}

/// A TLS address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsListener {
    /// The address.
    pub address: SocketAddr,
    /// The certificate for clients that ask for no server name, or for one without a certificate.
    pub certificate: Option<(CertificateFiles, Credentials)>,
}

/// TLS settings for backends of `https://`, and their files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsToBackends {
    /// The settings read from the files.
    pub settings: BackendSettings,
    /// The files of the authorities.
    pub authorities: Vec<PathBuf>,
    /// The files of the certificate.
    pub own: Option<CertificateFiles>,
}

/// Settings for all addresses, or for a single one.
#[derive(Clone, Debug, Default)]
struct KeyPairSettings {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    chain: Vec<PathBuf>,
    passphrase: Option<Box<str>>,
    staple: Option<PathBuf>,
}

/// Reads `https`; `None` if no address is bound. Relative paths start at `folder`; `plain` are the addresses of `http`.
pub(super) fn read(
    root: &Section<'_>,
    server: &Section<'_>,
    names: &route::Settings,
    (folder, plain): (&Path, &[SocketAddr]),
    proxies: &mut Proxies<'_>,
) -> Option<Tls> {
    let new = root.field("https");
    let old = server.old_field("https");
    old.warn_old("https", new.is_set());
    let is_old = old.is_set() && !new.is_set();
    let section = if is_old { old.section() } else { new.clone().section() };
    let common = read_pair(&section, &KeyPairSettings::default(), folder);
    let settings = read_settings(&section, folder);
    let redirect = section.field("redirect");
    let handshakes = worker::HandshakeSettings {
        handshake_timeout: section.field("handshakeTimeout").seconds().unwrap_or(Duration::from_secs(10)),
        max_handshakes: section.field("maxHandshakes").count(1..=1_000_000).unwrap_or(4096),
        names: names.clone(),
    };
    let Some(binds) = read_binds(&section, DEFAULT_PORT, is_old.then_some(server), plain, proxies) else {
        new.warn_no_effect("https.bind names no address");
        return None;
    };
    let listeners = binds.into_iter().map(|Bind { address, section, field }| {
        let pair = section.map_or_else(|| common.clone(), |section| read_pair(&section, &common, folder));
        TlsListener { address, certificate: load(&field, pair) }
    });
    let listeners: Vec<_> = listeners.collect();
    let redirect = read_redirect(&redirect, listeners.first().map_or(DEFAULT_PORT, |first| first.address.port()));
    let client_authorities = match &settings.client_auth {
        ClientAuth::None => Vec::new(),
        ClientAuth::Optional(_) | ClientAuth::Required(_) => read_paths(&section.field("clientCa"), folder),
    };
    Some(Tls { listeners, server: settings, client_authorities, handshakes, redirect })
}

/// Reads the settings of a pair; an absent one is inherited from `common`.
fn read_pair(section: &Section<'_>, common: &KeyPairSettings, folder: &Path) -> KeyPairSettings {
    let path = |key: &str| section.field(key).file(folder);
    let own = KeyPairSettings {
        certificate: path("cert"),
        key: path("key"),
        chain: read_paths(&section.field("ca"), folder),
        passphrase: section.field("passphrase").secret().map(Into::into),
        staple: path("ocsp"),
    };
    // A certificate of its own does not use the common key.
    let inherits = own.certificate.is_none() && own.key.is_none();
    if inherits {
        KeyPairSettings { chain: if own.chain.is_empty() { common.chain.clone() } else { own.chain }, ..common.clone() }
    } else {
        own
    }
}

fn read_paths(field: &Field<'_>, folder: &Path) -> Vec<PathBuf> {
    let items = field.items().unwrap_or_default();
    items.iter().filter_map(|item| item.file(folder)).collect()
}

/// Reads the files of a pair. Without files, the only certificates are those of the routes.
fn load(field: &Field<'_>, pair: KeyPairSettings) -> Option<(CertificateFiles, Credentials)> {
    let (certificate, key) = match (pair.certificate, pair.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return None,
        (Some(_), None) => {
            field.lacks("no key", "a key to the certificate");
            return None;
        }
        (None, Some(_)) => {
            field.lacks("no cert", "a certificate to the key");
            return None;
        }
    };
    let KeyPairSettings { chain, passphrase, staple, .. } = pair;
    let files = CertificateFiles { certificate, chain, key, passphrase, staple };
    match files.load() {
        Ok(credentials) => {
            if is_open_to_others(&files.key) {
                field.warn_open_key(&files.key);
            }
            Some((files, credentials))
        }
        Err(fault) => {
            field.lacks(&fault.to_string(), "a certificate and its key");
            None
        }
    }
}

fn read_settings(section: &Section<'_>, folder: &Path) -> ServerSettings {
    let mut settings = ServerSettings {
        client_auth: read_client_auth(section, folder),
        client_order: !section.field("honorCipherOrder").flag().unwrap_or(true),
        ..ServerSettings::default()
    };
    openssl::read_protocol(&section.field("secureProtocol"), &mut settings);
    openssl::read_options(&section.field("secureOptions"), &mut settings);
    openssl::read_ciphers(&section.field("ciphers"), &mut settings);
    settings
}

/// `true` redirects clients to the first bound port, a number to this port: the two differ behind a NAT.
fn read_redirect(field: &Field<'_>, own_port: u16) -> exchange::Redirect {
    let read = field.read("true, false, or the port that clients are sent to", |value| match value {
        Value::Bool(for_all) => Some(exchange::Redirect { for_all: *for_all, port: own_port }),
        Value::Number(port) => {
            let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
            Some(exchange::Redirect { for_all: true, port })
        }
        _ => None,
    });
    read.unwrap_or(exchange::Redirect { for_all: false, port: own_port })
}

fn read_client_auth(section: &Section<'_>, folder: &Path) -> ClientAuth {
    let (mode, authorities) = (section.field("clientAuth"), section.field("clientCa"));
    let is_required = mode.read("\"none\", \"optional\" or \"required\"", |value| match value.as_str()? {
        "none" => Some(None),
        "optional" => Some(Some(false)),
        "required" => Some(Some(true)),
        _ => None,
    });
    let Some(is_required) = is_required.flatten() else {
        authorities.warn_no_effect("https.clientAuth is \"none\"");
        return ClientAuth::None;
    };
    let certificates = read_authorities(&authorities, &read_paths(&authorities, folder));
    if !authorities.is_set() {
        authorities.lacks("nothing", "the file of the authorities that sign clients' certificates");
    }
    if is_required { ClientAuth::Required(certificates) } else { ClientAuth::Optional(certificates) }
}

fn read_authorities(field: &Field<'_>, paths: &[PathBuf]) -> Vec<CertificateDer<'static>> {
    let mut certificates = Vec::new();
    for path in paths {
        match load_certificates(path) {
            Ok(more) => certificates.extend(more),
            Err(fault) => field.lacks(&fault.to_string(), "a file of certificates"),
        }
    }
    certificates
}

/// `server.backendTls`: connections to backends of `https://`.
pub(super) fn read_backend_tls(server: &Section<'_>, folder: &Path) -> TlsToBackends {
    let field = server.field("backendTls");
    let section = field.clone().section();
    let pair = read_pair(&section, &KeyPairSettings::default(), folder);
    let mut authorities = pair.chain.clone();
    // Here `ca` is the trusted authorities, and not a part of a chain.
    let (own, credentials) = load(&field, KeyPairSettings { chain: Vec::new(), ..pair }).unzip();
    let is_insecure = section.field("insecure").flag().unwrap_or(false);
    let verification = match (is_insecure, authorities.as_slice()) {
        (true, _) => Verification::Nothing,
        (false, []) => Verification::System,
        (false, paths) => Verification::Authorities(read_authorities(&section.field("ca"), paths)),
    };
    if is_insecure {
        section.field("ca").warn_no_effect("server.backendTls.insecure accepts every certificate");
        authorities.clear();
    }
    TlsToBackends { settings: BackendSettings { verification, credentials }, authorities, own }
}
