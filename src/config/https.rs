//! `https`: where the node listens for encrypted connections, and what it agrees on there.

use super::listen::{Bind, read_binds};
use super::openssl;
use super::raw::{Field, Section};
use crate::net::tls::{CertificateFiles, ClientAuth, Credentials, ServerSettings, load_certificates};
use crate::{route, worker};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_PORT: u16 = 443;

/// What is set of encrypted connections from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Where to listen; not empty.
    pub listeners: Vec<TlsListener>,
    /// What is agreed on with clients.
    pub server: ServerSettings,
    /// Limits and times of handshakes.
    pub lobby: worker::LobbySettings,
}

/// An address of encrypted connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsListener {
    /// The address.
    pub address: SocketAddr,
    /// What is shown to clients that ask for no name, or for one that has no certificate.
    pub certificate: Option<(CertificateFiles, Credentials)>,
}

/// What can be said for all addresses and for one alone.
#[derive(Clone, Debug, Default)]
struct Pair {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    chain: Vec<PathBuf>,
    passphrase: Option<Box<str>>,
    staple: Option<PathBuf>,
}

/// Reads `https`; `None` where no address is bound.
pub(super) fn read(root: &Section<'_>, server: &Section<'_>, names: &route::Settings, folder: &Path) -> Option<Tls> {
    let new = root.field("https");
    let old = server.old_field("https");
    old.warn_old("https", new.is_set());
    let is_old = old.is_set() && !new.is_set();
    let section = if is_old { old.section() } else { new.clone().section() };
    let common = read_pair(&section, &Pair::default(), folder);
    let settings = read_settings(&section, folder);
    let lobby = worker::LobbySettings {
        handshake_timeout: section.field("handshakeTimeout").seconds().unwrap_or(Duration::from_secs(10)),
        max_handshakes: section.field("maxHandshakes").count(1..=1_000_000).unwrap_or(4096),
        names: names.clone(),
    };
    let Some(binds) = read_binds(&section, DEFAULT_PORT, is_old) else {
        new.warn_no_effect("https.bind names no address");
        return None;
    };
    let listeners = binds.into_iter().map(|Bind { address, section, field }| {
        let pair = section.map_or_else(|| common.clone(), |section| read_pair(&section, &common, folder));
        TlsListener { address, certificate: load(&field, pair) }
    });
    Some(Tls { listeners: listeners.collect(), server: settings, lobby })
}

/// The keys of a pair; what is left out is as in `common`.
fn read_pair(section: &Section<'_>, common: &Pair, folder: &Path) -> Pair {
    let path = |key: &str| section.field(key).text().map(|path| folder.join(path));
    let own = Pair {
        certificate: path("cert"),
        key: path("key"),
        chain: read_paths(&section.field("ca"), folder),
        passphrase: section.field("passphrase").secret().map(Into::into),
        staple: path("ocsp"),
    };
    // A certificate of its own has nothing to do with the others' key.
    let inherits = own.certificate.is_none() && own.key.is_none();
    if inherits {
        Pair { chain: if own.chain.is_empty() { common.chain.clone() } else { own.chain }, ..common.clone() }
    } else {
        own
    }
}

fn read_paths(field: &Field<'_>, folder: &Path) -> Vec<PathBuf> {
    let items = field.items().unwrap_or_default();
    items.iter().filter_map(Field::text).map(|path| folder.join(path)).collect()
}

/// Reads the files of a pair. Without any there is no certificate but those of the routes.
fn load(field: &Field<'_>, pair: Pair) -> Option<(CertificateFiles, Credentials)> {
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
    let Pair { chain, passphrase, staple, .. } = pair;
    let files = CertificateFiles { certificate, chain, key, passphrase, staple };
    match files.load() {
        Ok(credentials) => {
            if files.is_key_open_to_others() {
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
    let mut certificates = Vec::new();
    for path in read_paths(&authorities, folder) {
        match load_certificates(&path) {
            Ok(more) => certificates.extend(more),
            Err(fault) => authorities.lacks(&fault.to_string(), "a file of certificates"),
        }
    }
    if !authorities.is_set() {
        authorities.lacks("nothing", "the file of the authorities that sign clients' certificates");
    }
    if is_required { ClientAuth::Required(certificates) } else { ClientAuth::Optional(certificates) }
}
