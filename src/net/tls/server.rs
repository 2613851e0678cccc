//! TLS as a server: settings for clients.

use super::credentials::Credentials;
use super::{ALPN, PROVIDER};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::collections::HashMap;
use std::sync::Arc;

/// TLS settings for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The supported versions.
    pub versions: Versions,
    /// The cipher suites, in order of preference.
    pub suites: Suites,
    /// Whether the client's order of suites takes precedence over this node's.
    pub client_order: bool,
    /// Whether clients have to present a certificate.
    pub client_auth: ClientAuth,
    /// Whether clients get session tickets, which shorten their next handshake.
    pub tickets: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            versions: Versions::default(),
            suites: Suites::default(),
            client_order: false,
            client_auth: ClientAuth::default(),
            tickets: true,
        }
    }
}

/// The versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

impl Versions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Tls12 => const { &[&TLS12] },
            Self::Tls13 => const { &[&TLS13] },
        }
    }
}

/// Cipher suites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Suites {
    /// All secure suites.
    #[default]
    All,
    /// These suites only. A version without any suite in the list keeps all of its suites.
    Chosen(Vec<CipherSuite>),
}

/// Whether clients have to present a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    #[default]
    None,
    /// A certificate is optional; it must be signed by one of these authorities. A bad one is refused all the same.
    Optional(Vec<CertificateDer<'static>>),
    /// A certificate is required, signed by one of these authorities.
    Required(Vec<CertificateDer<'static>>),
}

impl ClientAuth {
    /// The same policy with other authorities.
    pub fn with(&self, authorities: Vec<CertificateDer<'static>>) -> Self {
        match self {
            Self::None => Self::None,
            Self::Optional(_) => Self::Optional(authorities),
            Self::Required(_) => Self::Required(authorities),
        }
    }
}

/// The server side of TLS. All workers share one, and with it the ticket keys.
#[derive(Debug)]
pub struct TlsServerContext {
    template: ServerConfig,
}

impl TlsServerContext {
    /// A context with these settings. The error says why the settings cannot be used.
    pub fn new(settings: &ServerSettings) -> Result<Self, String> {
        let verifier = verifier(&settings.client_auth)?;
        let builder = ServerConfig::builder_with_provider(provider(&settings.suites))
            .with_protocol_versions(settings.versions.list())
            .map_err(|error| error.to_string())?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut template = builder.with_cert_resolver(Arc::new(NoCertificateYet));
        template.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions go to another process.
        template.enable_secret_extraction = true;
        template.ignore_client_order = !settings.client_order;
        // The resumption state is inside the ticket: it takes no memory here, and every worker can read it.
        template.session_storage = Arc::new(NoServerSessionStorage {});
        if settings.tickets {
            template.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
        } else {
            template.send_tls13_tickets = 0;
        }
        Ok(Self { template })
    }

    /// TLS settings for a client that gets this certificate.
    pub fn config(&self, credentials: &Credentials) -> Arc<ServerConfig> {
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(credentials.certified_key()));
        Arc::new(config)
    }
}

/// A certificate, and the server names it is used for.
#[derive(Clone, Debug)]
pub struct NamedCredentials {
    /// The certificate.
    pub credentials: Credentials,
    /// The names, or `*.suffix`; empty for the names in the certificate.
    pub names: Vec<String>,
}

impl TlsServerContext {
    /// TLS settings that select the certificate by server name: the first certificate if no name matches, or none if
    /// `is_strict`.
    pub fn by_name(&self, certificates: Vec<NamedCredentials>, is_strict: bool) -> Result<Arc<ServerConfig>, String> {
        let mut names = HashMap::new();
        let mut first = None;
        for NamedCredentials { credentials, names: own } in certificates {
            let key = credentials.certified_key();
            let own = if own.is_empty() { credentials.names() } else { own };
            for name in own {
                names.entry(name).or_insert_with(|| Arc::clone(&key));
            }
            first.get_or_insert(key);
        }
        if first.is_none() {
            return Err("no certificate".to_owned());
        }
        let fallback = first.filter(|_| !is_strict);
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(ByName { names, fallback });
        Ok(Arc::new(config))
    }
}

/// Certificates by name.
#[derive(Debug)]
struct ByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    fallback: Option<Arc<CertifiedKey>>,
}

impl rustls::server::ResolvesServerCert for ByName {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let wildcard = || name.split_once('.').and_then(|(_, suffix)| self.names.get(&format!("*.{suffix}")));
            self.names.get(&name).or_else(wildcard).cloned()
        });
        found.or_else(|| self.fallback.clone())
    }
}

fn verifier(auth: &ClientAuth) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let (authorities, required) = match auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Optional(authorities) => (authorities, false),
        ClientAuth::Required(authorities) => (authorities, true),
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(Some).map_err(|error| error.to_string())
}

fn provider(suites: &Suites) -> Arc<CryptoProvider> {
    let Suites::Chosen(chosen) = suites else { return Arc::clone(&PROVIDER) };
    let mut provider = CryptoProvider::clone(&PROVIDER);
    let all = std::mem::take(&mut provider.cipher_suites);
    for version in [&TLS13, &TLS12] {
        let of_version = all.iter().filter(|suite| suite.version() == version);
        let picked: Vec<_> =
            chosen.iter().filter_map(|name| of_version.clone().find(|suite| suite.suite() == *name)).copied().collect();
        provider.cipher_suites.extend(if picked.is_empty() { of_version.copied().collect() } else { picked });
    }
    Arc::new(provider)
}

/// A placeholder in the template, which serves no client.
#[derive(Debug)]
struct NoCertificateYet;

impl rustls::server::ResolvesServerCert for NoCertificateYet {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}
